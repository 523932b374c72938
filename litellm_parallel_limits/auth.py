"""What custom auth may say of a caller's limits."""

from __future__ import annotations

from litellm.proxy import _types as litellm_types

from litellm_parallel_limits.built_in import merged_model_numbers
from litellm_parallel_limits.calls import caller


class UserAPIKeyAuth(litellm_types.UserAPIKeyAuth):  # type: ignore[misc]  # LiteLLM is untyped to us
    """LiteLLM's class with the two numbers it has no field for.

    Both are read by the number rule of all limits: a value that is no number is ignored, not an error.
    """

    user_max_parallel_requests: object = None
    """The most requests in flight of the user, over all of the user's keys."""
    team_max_parallel_requests: object = None
    """The most requests in flight of the team, over all of the team's keys."""


def model_max_parallel_requests(auth: litellm_types.UserAPIKeyAuth) -> dict[str, int]:
    """Return the table of `model_per_key` that this key meets, by model name or glob.

    Merged from the key's metadata, its `model_max_budget` and the team's metadata, in that order of
    precedence; empty where none of them has a number.
    """
    return merged_model_numbers(caller(auth))
