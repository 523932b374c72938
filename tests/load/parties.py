"""Whom the clients ask for: three scopes with the same limit, used at the same time."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

from tests.rig.identities import key

LIMIT = 4
MODEL = "load"


@dataclass(frozen=True)
class Party:
    """The keys whose requests share one scope of the limit `name`, which is also their name as a caller."""

    name: str
    keys: tuple[str, ...]


def parties() -> tuple[Party, ...]:
    """Return one model of one key, one user over two keys, and one team over three keys."""
    one = uuid4().hex
    of_user = {"user_id": f"user-{one}", "user_max_parallel_requests": LIMIT}
    of_team = {"team_id": f"team-{one}", "team_metadata": {"max_parallel_requests": LIMIT}}
    return (
        Party("model_per_key", (key(metadata={"model_max_parallel_requests": {MODEL: LIMIT}}),)),
        Party("user", tuple(key(**of_user) for _ in range(2))),
        Party("team", tuple(key(**of_team) for _ in range(3))),
    )
