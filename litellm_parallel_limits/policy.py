"""Which limits a call meets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, product

from litellm_parallel_limits.built_in import BUILT_IN, ignore_invalid
from litellm_parallel_limits.errors import TooManyLimitsError
from litellm_parallel_limits.limits import Limit, Mode, OnStoreFailure, Scope
from litellm_parallel_limits.patterns import matches
from litellm_parallel_limits.sources import Call, Dimension, Identity
from litellm_parallel_limits.wait_rules import BY_RECORD, WaitRule, own_seconds, priority

MOST_SCOPES = 512
"""That one request is counted in. Ours: 32 models in each of a few limits; tags come from strangers."""


@dataclass(frozen=True, slots=True)
class OperatorLimit:
    """A limit of the operator's: whom it meets (`models`, `where`), and what it counts `by`."""

    name: str
    max_parallel_requests: int
    by: tuple[Dimension, ...] = ()
    models: tuple[str, ...] = ()
    where: Mapping[Dimension, tuple[str, ...]] = field(default_factory=dict)
    mode: Mode = "enforce"
    on_store_failure: OnStoreFailure = "share"
    wait: WaitRule | None = None

    def met(self, call: Call) -> Iterator[tuple[Identity, ...]]:
        """Yield the identities, one for each of `by`, of every count that `call` stands in."""
        about = {dimension: self.about(dimension, call) for dimension in self.dimensions()}
        if all(about.values()):
            yield from product(*(about[dimension] for dimension in self.by))

    def dimensions(self) -> Iterator[Dimension]:
        """Yield what a call must have to meet this limit."""
        yield from self.where
        yield from self.by
        if self.models:
            yield "model"

    def about(self, dimension: Dimension, call: Call) -> tuple[Identity, ...]:
        """Return those of the call in `dimension` that this limit is about."""
        patterns = [self.where[dimension]] if dimension in self.where else []
        if dimension == "model" and self.models:
            patterns.append(self.models)
        return tuple(
            one for one in call.of(dimension) if all(matches(one.names, wanted) for wanted in patterns)
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits there are, and so the limits that a call meets.

    `mode` and `on_store_failure` are those of the limits that come from records. `on_invalid` is told
    the limit and the source of a value in a record that is no number, which is ignored. With
    `takes_over_key_limit` a key's own field is ours to enforce, not LiteLLM's. `wait` is how requests wait
    for the limits that come from records.
    """

    operator_limits: tuple[OperatorLimit, ...] = ()
    mode: Mode = "enforce"
    on_store_failure: OnStoreFailure = "share"
    on_invalid: Callable[[str], None] = ignore_invalid
    takes_over_key_limit: bool = False
    wait: WaitRule | None = None

    def counts_by(self, dimension: Dimension) -> bool:
        """Whether a limit of the operator's counts by `dimension`."""
        return any(dimension in limit.by for limit in self.operator_limits)

    def limits(self, call: Call, by: Dimension | None = None) -> tuple[Limit, ...]:
        """Return every limit that `call` meets, each scope once, the lowest number of it.

        With `by` only those that count by it.

        Raises TooManyLimitsError where they are more than one request may be counted in.
        """
        known = call.known.get(("limits", by))
        if known is None or known[0] is not self:
            known = call.known["limits", by] = (self, self._limits(call, by))
        limits: tuple[Limit, ...] = known[1]
        return limits

    def _limits(self, call: Call, by: Dimension | None) -> tuple[Limit, ...]:
        met: dict[Scope, Limit] = {}
        seconds = own_seconds(call, self.on_invalid)
        found = chain(self._from_records(call, by, seconds), self._from_operator(call, by, seconds))
        for limit in found:
            known = met.setdefault(limit.scope, limit)
            if limit.capacity < known.capacity:
                met[limit.scope] = limit
            if len(met) > MOST_SCOPES:
                raise TooManyLimitsError(f"A request may meet {MOST_SCOPES} limits at most.")
        return tuple(met.values())

    def priority(self, call: Call) -> int:
        """Return how urgent `call` is: lower goes first."""
        return priority(call, self.on_invalid)

    def _from_records(self, call: Call, by: Dimension | None, seconds: float | None) -> Iterator[Limit]:
        rule = self.wait or (None if seconds is None else BY_RECORD)
        wait = None if rule is None else rule.of(call, seconds)
        for built_in in BUILT_IN:
            if by is not None and by not in built_in.by:
                continue
            for identities in product(*map(call.of, built_in.by)):
                number = built_in.number(call, identities[-1], self.on_invalid)
                if number is not None:
                    scope = _scope(built_in.name, built_in.by, identities)
                    yield Limit(scope, number, self.mode, self.on_store_failure, wait)

    def _from_operator(self, call: Call, by: Dimension | None, seconds: float | None) -> Iterator[Limit]:
        for limit in self.operator_limits:
            if by is not None and by not in limit.by:
                continue
            for identities in limit.met(call):
                scope = _scope(limit.name, limit.by, identities)
                wait = None if limit.wait is None else limit.wait.of(call, seconds)
                yield Limit(scope, limit.max_parallel_requests, limit.mode, limit.on_store_failure, wait)


def _scope(name: str, by: tuple[Dimension, ...], identities: tuple[Identity, ...]) -> Scope:
    return Scope(name, tuple((dimension, one.id) for dimension, one in zip(by, identities, strict=True)))
