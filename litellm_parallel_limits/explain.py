"""Which limits a call meets, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from litellm_parallel_limits.answers import shown, shown_scope
from litellm_parallel_limits.built_in import BUILT_IN, BuiltIn
from litellm_parallel_limits.limits import Limit, Scope, Wait
from litellm_parallel_limits.policy import OperatorLimit, Policy
from litellm_parallel_limits.sources import Call, Identity

YAML = "parallel_limits.limits"
"""Where the operator's own limits come from."""


@dataclass(frozen=True, slots=True)
class Overridden:
    """A number that does not hold, because an earlier source has one."""

    source: str
    limit: int


@dataclass(frozen=True, slots=True)
class Waits:
    """How the request would wait: at most so long, beside so many others in the scope, by turns of whom."""

    max_seconds: float
    max_waiting: int
    fair_by: str | None


@dataclass(frozen=True, slots=True)
class Met:
    """A limit that the request meets, where its number comes from, and what else was found on the way.

    `invalid` are sources whose value is no number, and so sets none.
    """

    name: str
    scope: Mapping[str, str]
    limit: int
    mode: str
    source: str
    overridden: Sequence[Overridden]
    invalid: Sequence[str]
    wait: Waits | None


@dataclass(frozen=True, slots=True)
class NotMet:
    """A limit of the operator's that the request does not meet."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Which limits a request for `model` of these parties meets, and which of the operator's it does not.

    `unread` are those of whom LiteLLM has no record, or gave none in time: only their names are known.
    """

    model: str
    identities: Mapping[str, str]
    limits: Sequence[Met]
    not_met: Sequence[NotMet]
    unread: Sequence[str] = ()


def explain(policy: Policy, call: Call, model: str, unread: Sequence[str] = ()) -> Explanation:
    """Return what `policy` has to say of a call for `model`. Raises TooManyLimitsError."""
    sources = dict(_sources(call))
    return Explanation(
        shown(model),
        shown_scope(Scope("", tuple((dimension, one.id) for dimension, one in call.identities.items()))),
        [_met(limit, sources.get(limit.scope)) for limit in policy.limits(call)],
        [NotMet(limit.name, why) for limit in policy.operator_limits if (why := _why_not(limit, call))],
        unread,
    )


@dataclass(frozen=True, slots=True)
class _Sources:
    """The numbers that were found for a scope, the first of which holds, and the sources that have none."""

    found: Sequence[Overridden]
    invalid: Sequence[str]


def _sources(call: Call) -> Iterator[tuple[Scope, _Sources]]:
    for built_in in BUILT_IN:
        for identities in product(*map(call.of, built_in.by)):
            pairs = zip(built_in.by, identities, strict=True)
            scope = Scope(built_in.name, tuple((dimension, one.id) for dimension, one in pairs))
            yield scope, _found(built_in, call, identities[-1])


def _found(built_in: BuiltIn, call: Call, one: Identity) -> _Sources:
    invalid: list[str] = []
    numbers = built_in.numbers(call, one, invalid.append)
    found = [Overridden(str(source), number) for source, number in numbers]
    return _Sources(found, [source.removeprefix(f"{built_in.name}: ") for source in invalid])


def _met(limit: Limit, sources: _Sources | None) -> Met:
    first, *others = sources.found if sources is not None and sources.found else (Overridden(YAML, 0),)
    return Met(
        limit.scope.limit,
        shown_scope(limit.scope),
        limit.capacity,
        limit.mode,
        first.source,
        others,
        () if sources is None else sources.invalid,
        None if limit.wait is None else _waits(limit.wait),
    )


def _waits(wait: Wait) -> Waits:
    turns_of = ", ".join(dimension for dimension, _ in Scope.parse(wait.flow).identities)
    return Waits(wait.seconds, wait.most, turns_of or None)


def _why_not(limit: OperatorLimit, call: Call) -> str:
    """Return why `call` does not meet `limit`, nothing if it does."""
    if any(True for _ in limit.met(call)):
        return ""
    for dimension in limit.dimensions():
        if not call.of(dimension):
            return f"the request has no {dimension}"
        if not limit.about(dimension, call):
            wanted = limit.where.get(dimension) or limit.models
            return f"{dimension} is none of {', '.join(wanted)}"
    return ""
