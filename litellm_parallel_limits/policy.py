"""Which limits a call meets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from litellm_parallel_limits.limits import Limit, Mode, OnStoreFailure, Scope, whole_number
from litellm_parallel_limits.patterns import entries, matches

Dimension = Literal["key", "user", "team", "end_user", "organization", "project", "model"]
Record = Literal["auth", "key metadata", "key model_max_budget", "team metadata"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody or something that requests are counted by; `aliases` are its other names."""

    id: str
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Everything an operator may call it."""
        return (self.id, *self.aliases)


@dataclass(frozen=True, slots=True)
class Call:
    """One request: who sends it, which models it asks for, and what LiteLLM's records say of them.

    A model's id is the group it resolves to, its alias the name the client sent.
    """

    identities: Mapping[Dimension, Identity] = field(default_factory=dict)
    models: tuple[Identity, ...] = ()
    records: Mapping[Record, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """A field of a record that may hold a number, or a table of numbers by model.

    `entry` names the field within each entry of the table, where the entries are objects. A record
    that is itself the table has no `name`.
    """

    record: Record
    name: str = ""
    entry: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.record, self.name, self.entry)))

    def number(self, call: Call) -> int | None:
        """Return the number this source sets for `call`. Raises ValueError if it is none."""
        return whole_number(call.records.get(self.record, {}).get(self.name))

    def model_number(self, call: Call, model: Identity) -> int | None:
        """Return the number this source sets for `model`. Raises ValueError if it is none."""
        for value in entries(self.table(call), (*model.aliases, model.id)):
            number = whole_number(self.value(value))
            if number is not None:
                return number
        return None

    def table(self, call: Call) -> Mapping[str, object]:
        """Return the numbers by model. Raises ValueError if there is something else."""
        record = call.records.get(self.record, {})
        table = record.get(self.name) if self.name else record
        if table is None:
            return {}
        if not isinstance(table, Mapping):
            raise ValueError("not a table of numbers by model")  # noqa: TRY004 (a bad value like any other)
        return table

    def value(self, entry: object) -> object:
        """Return what an `entry` of the table says of its number."""
        if not self.entry:
            return entry
        return entry.get(self.entry) if isinstance(entry, Mapping) else None


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A limit of LiteLLM's own names: what it counts by, and its sources, the first of which wins."""

    name: str
    by: tuple[Dimension, ...]
    sources: tuple[Source, ...]


MODEL_PER_KEY = BuiltIn(
    "model_per_key",
    ("key", "model"),
    (
        Source("key metadata", "model_max_parallel_requests"),
        Source("key model_max_budget", entry="max_parallel_requests"),
        Source("team metadata", "model_max_parallel_requests"),
    ),
)

BUILT_IN = (
    BuiltIn("api_key", ("key",), (Source("key metadata", "max_parallel_requests"),)),
    MODEL_PER_KEY,
    BuiltIn(
        "model_per_team", ("team", "model"), (Source("team metadata", "team_model_max_parallel_requests"),)
    ),
    BuiltIn(
        "user",
        ("user",),
        (
            Source("auth", "user_max_parallel_requests"),
            Source("key metadata", "user_max_parallel_requests"),
        ),
    ),
    BuiltIn(
        "team",
        ("team",),
        (
            Source("auth", "team_max_parallel_requests"),
            Source("team metadata", "team_max_parallel_requests"),
            Source("team metadata", "max_parallel_requests"),
        ),
    ),
)


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

    def means(self, model: Identity) -> bool:
        """Whether this limit is about `model`."""
        return all(
            matches(model.names, patterns)
            for patterns in (self.models or ("*",), self.where.get("model", ("*",)))
        )


def ignore_invalid(source: str) -> None:
    """Take no notice of a bad value."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits there are, and so the limits that a call meets.

    `mode` and `on_store_failure` are those of the limits that come from records. `on_invalid` is told
    the limit and the source of a value in a record that is no number, which is ignored.
    """

    operator_limits: tuple[OperatorLimit, ...] = ()
    mode: Mode = "enforce"
    on_store_failure: OnStoreFailure = "share"
    on_invalid: Callable[[str], None] = ignore_invalid

    def limits(self, call: Call) -> tuple[Limit, ...]:
        """Return every limit that `call` meets, each scope once, the lowest number of it."""
        met: dict[Scope, Limit] = {}
        for limit in (*self._from_records(call), *self._from_operator(call)):
            known = met.setdefault(limit.scope, limit)
            if limit.capacity < known.capacity:
                met[limit.scope] = limit
        return tuple(met.values())

    def _from_records(self, call: Call) -> Iterator[Limit]:
        for built_in in BUILT_IN:
            for identities, model in _countings(built_in.by, call, call.models):
                number = _number(built_in, call, model, self.on_invalid)
                if number is not None:
                    scope = Scope(built_in.name, identities)
                    yield Limit(scope, number, self.mode, self.on_store_failure)

    def _from_operator(self, call: Call) -> Iterator[Limit]:
        for limit in self.operator_limits:
            models = tuple(model for model in call.models if limit.means(model))
            if not _applies(limit, call, models):
                continue
            for identities, _ in _countings(limit.by, call, models):
                scope = Scope(limit.name, identities)
                yield Limit(scope, limit.max_parallel_requests, limit.mode, limit.on_store_failure)


def _applies(limit: OperatorLimit, call: Call, models: tuple[Identity, ...]) -> bool:
    if not models and (limit.models or "model" in limit.where):
        return False
    return all(
        dimension in call.identities and matches(call.identities[dimension].names, patterns)
        for dimension, patterns in limit.where.items()
        if dimension != "model"
    )


def _countings(
    by: tuple[Dimension, ...], call: Call, models: tuple[Identity, ...]
) -> Iterator[tuple[tuple[tuple[str, str], ...], Identity | None]]:
    """Yield the identities that one lease is counted by: once, or once for each model where `by` has it."""
    if not all(dimension == "model" or dimension in call.identities for dimension in by):
        return
    for model in models if "model" in by else (None,):
        yield tuple((dimension, _counted(dimension, call, model)) for dimension in by), model


def _counted(dimension: Dimension, call: Call, model: Identity | None) -> str:
    identity = model if dimension == "model" else call.identities[dimension]
    assert identity is not None  # noqa: S101 (_countings gives a model to each `by` that has one)
    return identity.id


def _number(
    built_in: BuiltIn, call: Call, model: Identity | None, on_invalid: Callable[[str], None]
) -> int | None:
    """Return the number of the first source that has one; a source with a bad value has none."""
    for source in built_in.sources:
        try:
            number = source.number(call) if model is None else source.model_number(call, model)
        except ValueError:
            on_invalid(f"{built_in.name}: {source}")
        else:
            if number is not None:
                return number
    return None


def merged_model_numbers(call: Call) -> dict[str, int]:
    """Return the number that each name and glob in the three sources of `model_per_key` meets.

    Where globs of two sources overlap, both are there: a model that both match meets the earlier source's.
    """
    names = dict.fromkeys(name for source in MODEL_PER_KEY.sources for name in _names(source, call))
    numbers = {name: _number(MODEL_PER_KEY, call, Identity(name), ignore_invalid) for name in names}
    return {name: number for name, number in numbers.items() if number is not None}


def _names(source: Source, call: Call) -> list[str]:
    try:
        return [name for name in source.table(call) if isinstance(name, str)]
    except ValueError:
        return []
