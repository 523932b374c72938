"""Where the number of a limit comes from."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from litellm_parallel_limits.limits import whole_number
from litellm_parallel_limits.patterns import entries

Dimension = Literal[
    "key",
    "user",
    "team",
    "organization",
    "project",
    "end_user",
    "tag",
    "model",
    "model_group",
    "deployment",
]
"""What requests may be counted by."""

LookedUp = Literal[
    "user",
    "user metadata",
    "team",
    "membership budget",
    "member default budget",
    "organization budget",
    "customer budget",
    "tag budgets",
]
"""The records that do not come with a request: LiteLLM has to be asked for them."""

Record = Literal[
    "auth",
    "key metadata",
    "key model_max_budget",
    "team metadata",
    "organization metadata",
    "project metadata",
    LookedUp,
    "model_info",
    "deployments",
]
"""What LiteLLM keeps of a party, or the operator of a model."""


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

    A model's id is the group it resolves to, its alias the name the client sent. `groups` are the
    configured models that answer for those of `models`: several names of one wildcard have one group.
    `deployments` are those that it takes a slot in, should they be limited.
    """

    identities: Mapping[Dimension, Identity] = field(default_factory=dict)
    models: tuple[Identity, ...] = ()
    records: Mapping[Record, Mapping[str, object]] = field(default_factory=dict)
    tags: tuple[Identity, ...] = ()
    groups: tuple[Identity, ...] = ()
    deployments: tuple[Identity, ...] = ()
    known: dict[Hashable, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    """What was worked out of it, by whoever did: requests that say the same have the same call."""

    @property
    def team(self) -> str | None:
        """The id of the team whose call it is."""
        return self.identities["team"].id if "team" in self.identities else None

    def without_models(self) -> Call:
        """Return the call as far as it has to do with no model."""
        return replace(self, models=(), groups=(), deployments=())

    def of(self, dimension: Dimension) -> tuple[Identity, ...]:
        """Return everybody that this call is counted by in `dimension`."""
        match dimension:
            case "model":
                return self.models
            case "tag":
                return self.tags
            case "model_group":
                return self.groups
            case "deployment":
                return self.deployments
        identity = self.identities.get(dimension)
        return () if identity is None else (identity,)


@dataclass(frozen=True, slots=True)
class Source:
    """A field of a record that may hold a number, or a table of numbers by one of its dimensions.

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
        """Return the number its table has for `model`, by name or glob. Raises ValueError if it is none."""
        return self._first(entries(self.table(call), (*model.aliases, model.id)))

    def exact_number(self, call: Call, one: Identity) -> int | None:
        """Return the number its table has for this very identity. Raises ValueError if it is none."""
        table = self.table(call)
        return self._first([table[one.id]] if one.id in table else [])

    def table(self, call: Call) -> Mapping[str, object]:
        """Return the numbers by name. Raises ValueError if there is something else."""
        record = call.records.get(self.record, {})
        table = record.get(self.name) if self.name else record
        if table is None:
            return {}
        if not isinstance(table, Mapping):
            raise ValueError("not a table of numbers")  # noqa: TRY004 (a bad value like any other)
        return table

    def _first(self, values: Iterable[object]) -> int | None:
        numbers = (whole_number(self._value(value)) for value in values)
        return next((number for number in numbers if number is not None), None)

    def _value(self, entry: object) -> object:
        """Return what an `entry` of the table says of its number."""
        if not self.entry:
            return entry
        return entry.get(self.entry) if isinstance(entry, Mapping) else None
