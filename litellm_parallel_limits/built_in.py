"""The limits of LiteLLM's own names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

from litellm_parallel_limits.sources import Call, Dimension, Identity, LookedUp, Record, Source

NUMBER = "max_parallel_requests"
BY_MODEL = "model_max_parallel_requests"


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A limit of LiteLLM's own names: what it counts by, and its sources, the first of which wins.

    Where it counts by something of which a call may have several (a model, a tag), it does so last,
    and its numbers stand in tables by that.
    """

    name: str
    by: tuple[Dimension, ...]
    sources: tuple[Source, ...]

    def number(self, call: Call, one: Identity, on_invalid: Callable[[str], None]) -> int | None:
        """Return the number of the first source that has one for `one`, the last that this limit counts by.

        A source with a bad value has none, and `on_invalid` is told its name.
        """
        return next((number for _, number in self.numbers(call, one, on_invalid)), None)

    def numbers(
        self, call: Call, one: Identity, on_invalid: Callable[[str], None]
    ) -> Iterator[tuple[Source, int]]:
        """Yield each source that has a number for `one`, the first of which holds, with it."""
        for source in self.sources:
            try:
                number = self._number(source, call, one)
            except ValueError:
                on_invalid(f"{self.name}: {source}")
            else:
                if number is not None:
                    yield source, number

    def _number(self, source: Source, call: Call, one: Identity) -> int | None:
        match self.by[-1]:
            case "model":
                return source.model_number(call, one)
            case "tag" | "model_group" | "deployment":
                return source.exact_number(call, one)
        return source.number(call)


MODEL_PER_KEY = BuiltIn(
    "model_per_key",
    ("key", "model"),
    (
        Source("key metadata", BY_MODEL),
        Source("key model_max_budget", entry=NUMBER),
        Source("team metadata", BY_MODEL),
    ),
)

BUILT_IN = (
    BuiltIn("api_key", ("key",), (Source("key metadata", NUMBER), Source("auth", NUMBER))),
    MODEL_PER_KEY,
    BuiltIn("model_per_team", ("team", "model"), (Source("team metadata", "team_" + BY_MODEL),)),
    BuiltIn(
        "user",
        ("user",),
        (Source("auth", "user_" + NUMBER), Source("key metadata", "user_" + NUMBER), Source("user", NUMBER)),
    ),
    BuiltIn("model_per_user", ("user", "model"), (Source("user metadata", BY_MODEL),)),
    BuiltIn(
        "team",
        ("team",),
        (
            Source("auth", "team_" + NUMBER),
            Source("team metadata", "team_" + NUMBER),
            Source("team metadata", NUMBER),
            Source("team", NUMBER),
        ),
    ),
    BuiltIn(
        "team_member",
        ("team", "user"),
        (
            Source("team metadata", "team_member_" + NUMBER),
            Source("membership budget", NUMBER),
            Source("member default budget", NUMBER),
        ),
    ),
    BuiltIn(
        "organization",
        ("organization",),
        (Source("organization metadata", NUMBER), Source("organization budget", NUMBER)),
    ),
    BuiltIn(
        "model_per_organization", ("organization", "model"), (Source("organization metadata", BY_MODEL),)
    ),
    BuiltIn("project", ("project",), (Source("project metadata", NUMBER),)),
    BuiltIn("model_per_project", ("project", "model"), (Source("project metadata", BY_MODEL),)),
    BuiltIn("end_user", ("end_user",), (Source("customer budget", NUMBER),)),
    BuiltIn("tag", ("tag",), (Source("tag budgets", entry=NUMBER),)),
    BuiltIn("model", ("model_group",), (Source("model_info", entry=BY_MODEL),)),
    BuiltIn("deployment", ("deployment",), (Source("deployments", entry=NUMBER),)),
)
"""In the order in which a refusal names them."""

LOOKED_UP: frozenset[Record] = frozenset(get_args(LookedUp))


def ignore_invalid(source: str) -> None:
    """Take no notice of a bad value."""


_LOOKING_UP = tuple(
    (built_in, records)
    for built_in in BUILT_IN
    if (records := LOOKED_UP.intersection(source.record for source in built_in.sources))
)
"""The limits whose number may stand in such a record, and in which."""


def wanted_records(call: Call) -> frozenset[Record]:
    """Return the records to look up for `call`: those that no earlier source makes needless."""
    wanted: set[Record] = set()
    for built_in, records in _LOOKING_UP:
        if all(map(call.of, built_in.by)) and not _is_known(built_in, call):
            wanted |= records
    return frozenset(wanted)


def _is_known(built_in: BuiltIn, call: Call) -> bool:
    return all(built_in.number(call, one, ignore_invalid) is not None for one in call.of(built_in.by[-1]))


def merged_model_numbers(call: Call) -> dict[str, int]:
    """Return the number that each name and glob in the three sources of `model_per_key` meets.

    Where globs of two sources overlap, both are there: a model that both match meets the earlier source's.
    """
    names = dict.fromkeys(name for source in MODEL_PER_KEY.sources for name in _names(source, call))
    numbers = {name: MODEL_PER_KEY.number(call, Identity(name), ignore_invalid) for name in names}
    return {name: number for name, number in numbers.items() if number is not None}


def _names(source: Source, call: Call) -> list[str]:
    try:
        return [name for name in source.table(call) if isinstance(name, str)]
    except ValueError:
        return []
