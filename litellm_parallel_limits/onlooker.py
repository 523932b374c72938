"""Which scopes somebody may see."""

from __future__ import annotations

from dataclasses import dataclass

from litellm_parallel_limits.limits import Scope
from litellm_parallel_limits.sources import Call, Dimension

OWNERS: tuple[Dimension, ...] = ("key", "user", "team", "organization", "project")
"""Whose a scope may be. Customers and tags are names that callers choose: they are nobody's own."""

RESOURCES = frozenset({"model", "model_group", "deployment"})
"""What everybody may use, and so owns nobody's scope."""


@dataclass(frozen=True, slots=True)
class Onlooker:
    """Somebody who looks at what is in flight: at everything, or only at what is their `own`.

    That are scopes that count by something of theirs, and by nothing of others'. `own` are the identities as
    they stand in a scope's key.
    """

    own: frozenset[str] | None = None

    @classmethod
    def of(cls, call: Call) -> Onlooker:
        """Return who makes a call, and is no admin."""
        identities = ((owner, call.identities[owner].id) for owner in OWNERS if owner in call.identities)
        return cls(frozenset(_parts(Scope("", tuple(identities)))))

    def may_see(self, scope: Scope) -> bool:
        """Whether the scope is theirs."""
        if self.own is None:
            return True
        parties = {part for part in _parts(scope) if part.partition("=")[0] not in RESOURCES}
        return bool(parties) and parties <= self.own

    def may_see_holders(self, scope: Scope) -> bool:
        """Whether all requests in the scope are theirs: in a team's there are others'."""
        return self.own is None or any(part.startswith(("key=", "user=")) for part in _parts(scope))


EVERYBODY = Onlooker()
"""Sees everything: an admin."""


def _parts(scope: Scope) -> list[str]:
    return scope.key.split(";")[1:]
