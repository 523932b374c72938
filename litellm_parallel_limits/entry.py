"""The plugin, built into the LiteLLM proxy that loads it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy import proxy_server

from litellm_parallel_limits import native_field
from litellm_parallel_limits.admission import Admission
from litellm_parallel_limits.asker import asker
from litellm_parallel_limits.built_in import wanted_records
from litellm_parallel_limits.calls import calls
from litellm_parallel_limits.errors import ConfigurationError
from litellm_parallel_limits.events import Event, InvalidLimit, StoreAnswered
from litellm_parallel_limits.explain import Explanation, explain
from litellm_parallel_limits.gate import Gate
from litellm_parallel_limits.history import History
from litellm_parallel_limits.hold_times import HoldTimes
from litellm_parallel_limits.limiter import Limiter
from litellm_parallel_limits.live import LivePolicy, section
from litellm_parallel_limits.logs import Log, logger
from litellm_parallel_limits.look_ups import look_ups
from litellm_parallel_limits.middleware import HolderMiddleware
from litellm_parallel_limits.model_info import SECTION
from litellm_parallel_limits.overview import Overview
from litellm_parallel_limits.page_routes import page
from litellm_parallel_limits.plugin import ParallelLimits
from litellm_parallel_limits.records import Found, Records
from litellm_parallel_limits.renewal import renewed
from litellm_parallel_limits.routes import router
from litellm_parallel_limits.routing import Routing
from litellm_parallel_limits.settings import Settings, check_deployments, read
from litellm_parallel_limits.sources import Call, Record
from litellm_parallel_limits.store_choice import check, choose
from litellm_parallel_limits.tables import table

CALLBACKS = ("callbacks", "success_callback", "failure_callback", "service_callback")
"""Where LiteLLM's configuration asks for its Prometheus metrics."""


def build() -> CustomLogger:
    """Return the callback for the running proxy, and give every request of the proxy a holder.

    Raises ConfigurationError, which stops the proxy's start.
    """
    config = proxy_server.proxy_config.get_config_state()
    if SECTION in config:
        raise ConfigurationError(f"{SECTION}: stands at the top of the file; allowed: below litellm_settings")
    settings = read(section(config), os.environ)
    if not settings.enabled:
        return CustomLogger()
    check_deployments(config.get("model_list"))
    check(settings, config, os.environ)
    proxy = _Proxy(settings, _metrics(config))
    _wrap(proxy_server.app)
    proxy_server.app.include_router(router(proxy.overview, proxy.explain))
    proxy_server.app.include_router(page())
    return proxy.plugin


def _metrics(config: Mapping[str, Any]) -> Callable[[Event], None] | None:
    """Return what counts for Prometheus where LiteLLM serves its metrics: elsewhere nothing is counted."""
    told = table(config.get("litellm_settings"))
    lists = [told[name] for name in CALLBACKS if isinstance(told.get(name), list)]
    if not any("prometheus" in names for names in lists):
        return None
    try:
        from litellm_parallel_limits.metrics import metrics  # noqa: PLC0415 (LiteLLM's extra)
    except ImportError:
        logger.warning("Parallel limits: no metrics without prometheus_client")
        return None
    return metrics()


class _Proxy:
    """The parts of the plugin, put together for one worker of the proxy."""

    def __init__(self, settings: Settings, metrics: Callable[[Event], None] | None) -> None:
        self._settings = settings
        self._hold_times = HoldTimes()
        self._metrics = metrics
        history = History(lambda: self.limiter)
        self.overview = Overview(lambda: self.limiter, history, ttl=settings.lease_ttl)
        self._observers: tuple[Callable[[Event], None], ...] = (self._hold_times, Log(), history)
        if metrics is not None:
            self._observers += (metrics,)
        self._hearing: dict[type[Event], Sequence[Callable[[Event], None]]] = {}
        self._records = Records(observer=self._observe)
        self._policy = policy = LivePolicy(
            settings,
            lambda: proxy_server.proxy_config.config,
            os.environ,
            lambda source: self._observe(InvalidLimit(source)),
            lambda: self.limiter.look_again(),  # noqa: PLW0108 (LiteLLM has its Redis only later)
        )
        gate = Gate(lambda: self.limiter, self._hold_times)
        self.plugin = ParallelLimits(
            Admission(policy, gate),
            Routing(policy, gate),
            router=lambda: proxy_server.llm_router,
            look_up=self._look_up,
            take_over=self._take_over,
            renewed=lambda auth: renewed(auth, proxy_server.user_api_key_cache),
        )

    @cached_property
    def limiter(self) -> Limiter:
        """The worker's limiter, on LiteLLM's Redis where there is one by the time it is needed."""
        worker = secrets.token_hex(4)
        return Limiter(
            choose(self._settings, worker, os.environ, self._tell if self._metrics else None),
            ttl=self._settings.lease_ttl,
            timeout=self._settings.store_timeout_ms / 1000,
            worker=worker,
            observer=self._observe,
        )

    async def explain(
        self, model: str, tags: Sequence[str], parties: Mapping[str, str | None]
    ) -> Explanation:
        """Return which limits a request for `model` of these parties meets. Raises TooManyLimitsError."""
        auth, unread = await asker(proxy_server, **parties)
        self._take_over(auth)
        known, *_ = calls(auth, {"model": model, "tags": list(tags)}, "", proxy_server.llm_router)
        found = await self._look_up(auth, [known])
        return explain(self._policy(), replace(known, records={**known.records, **found}), model, unread)

    def _take_over(self, auth: Any) -> None:
        if self._policy().takes_over_key_limit:
            native_field.take_over(auth, proxy_server.user_api_key_cache)

    async def _look_up(self, auth: Any, calls: Sequence[Call]) -> Found:
        wanted = frozenset[Record]().union(*map(wanted_records, calls))
        if not wanted:
            return {}
        return await self._records.of(look_ups(auth, calls[0], wanted, proxy_server))

    def _tell(self, operation: str, seconds: float) -> None:
        self._observe(StoreAnswered(operation, seconds))

    def _observe(self, event: Event) -> None:
        kind = type(event)
        hearing = self._hearing.get(kind)
        if hearing is None:
            hearing = [one for one in self._observers if kind in getattr(one, "hears", (kind,))]
            self._hearing[kind] = hearing
        for observer in hearing:
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 (of a full disk, say: no request may fail for it)
                logger.error("Parallel limits: %s is not told: %s", type(observer).__name__, error)


def _wrap(app: Any) -> None:
    """Give every request a holder. LiteLLM loads callbacks when its middleware is already built."""
    if app.middleware_stack is None:
        app.add_middleware(HolderMiddleware)
    elif not isinstance(app.middleware_stack, HolderMiddleware):
        app.middleware_stack = HolderMiddleware(app.middleware_stack)
