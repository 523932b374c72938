"""What a trace tells of a request's limits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from litellm_parallel_limits.answers import Refusal, admitted_headers, refusal
from litellm_parallel_limits.holder import Holder
from litellm_parallel_limits.limiter import Permit
from litellm_parallel_limits.limits import Admitted, Refused
from litellm_parallel_limits.tracing import PREFIX, trace
from tests.samples import lease, limit


class Span:
    """Keeps what it is told, as OpenTelemetry's does."""

    def __init__(self) -> None:
        self.attributes: dict[str, object] = {}

    def set_attribute(self, name: str, value: object) -> None:
        """Keep an attribute."""
        self.attributes[name.removeprefix(PREFIX)] = value


def traced(holder: Holder, refused: Refusal | None = None) -> dict[str, object]:
    """Return what the span of a request is told."""
    span = Span()
    trace(SimpleNamespace(parent_otel_span=span), holder, refused)
    return span.attributes


async def _told() -> None:
    return


def holding(admitted: Admitted) -> Holder:
    """Return what a request that is admitted holds."""
    holder = Holder()
    holder.keep(Permit(admitted, lambda _: None, _told), "run")
    holder.announce(admitted_headers(admitted))
    return holder


def test_admitted_request_tells_its_limits() -> None:
    """Of who is admitted the limits it met are told, and how long it waited for them."""
    met = Admitted(lease(limit("team", 9), limit("all", 9)), (1, 1), waited=0.25)
    assert traced(holding(met)) == {"outcome": "admitted", "limits": ["all", "team"], "waited_ms": 250}


def test_refused_request_tells_which_limit_refused_it() -> None:
    """Of who is refused the limit is told, and the reason."""
    refused = Refused(limit(), 1, "wait_timeout", waited=2)
    told = traced(Holder(), refusal(refused, key_name="", held_seconds=None))
    assert told == {"outcome": "wait_timeout", "limit": "team", "waited_ms": 2000}


def test_without_a_limit_nothing_is_told() -> None:
    """A request that meets no limit leaves the span as it is."""
    assert traced(Holder()) == {}


def test_without_a_span_nothing_happens() -> None:
    """Where nobody traces, nothing is told."""
    trace(None, Holder(), refusal(Refused(limit(), 1), key_name="", held_seconds=None))


class Broken:
    """A span of somebody's tracing that fails."""

    def set_attribute(self, *_: object) -> None:
        """Fail."""
        raise RuntimeError("no room")


@pytest.mark.parametrize("span", ["a client's word", Broken(), {"set_attribute": 1}])
def test_no_request_fails_for_its_trace(span: Any) -> None:
    """Whatever stands in a span's place, the request goes on."""
    trace(
        SimpleNamespace(parent_otel_span=span),
        Holder(),
        refusal(Refused(limit(), 1), key_name="", held_seconds=None),
    )
