"""Which limits stand in the shadow of others: only where that can be proved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from litellm_parallel_limits.patterns import is_pattern, matches
from litellm_parallel_limits.settings import LimitSettings, Settings

WILD = "*?["


def covers(wide: str, narrow: str) -> bool:
    """Whether each name that `narrow` matches is matched by `wide`; False where that is not plain to see."""
    if wide == narrow or (not is_pattern(narrow) and matches((narrow,), (wide,))):
        return True
    head = beginning(wide)
    return wide == head + "*" and beginning(narrow).startswith(head)


def beginning(pattern: str) -> str:
    """Return what each name begins with that `pattern` matches."""
    return pattern[: next((place for place, one in enumerate(pattern) if one in WILD), len(pattern))]


def shadowed(patterns: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the place of each pattern that another of the list makes needless, with that other one."""
    for place, narrow in enumerate(patterns):
        for other, wide in enumerate(patterns):
            if other != place and covers(wide, narrow) and (other < place or not covers(narrow, wide)):
                yield place, wide
                break


def never_full(place: int, settings: Settings) -> LimitSettings | None:
    """Return a limit that is full before the one at `place` could be, None if none surely is.

    That is one that refuses, has a lower number, and meets every request that the other meets, counted by the
    same or by less: then whatever is in a scope of the other is in one scope of it.
    """
    limit = settings.limits[place]
    for wide in settings.limits:
        if wide is not limit and _is_lower(wide, limit) and _refuses(wide, limit, settings):
            has_same_count = set(wide.by) <= set(limit.by) and "deployment" not in wide.by
            if has_same_count and _reaches(wide, limit):
                return wide
    return None


def _is_lower(wide: LimitSettings, limit: LimitSettings) -> bool:
    low, high = wide.max_parallel_requests, limit.max_parallel_requests
    return low is not None and high is not None and low < high


def _refuses(wide: LimitSettings, limit: LimitSettings, settings: Settings) -> bool:
    """Whether `wide` is enforced whenever `limit` is: an outage may have them differ."""
    default = settings.on_store_failure
    same = (wide.on_store_failure or default) == (limit.on_store_failure or default)
    return same and (wide.mode or settings.mode) == "enforce"


def _reaches(wide: LimitSettings, limit: LimitSettings) -> bool:
    """Whether every request that `limit` meets is met by `wide`."""
    if wide.models and not _all_covered(wide.models, limit.models):
        return False
    return all(
        party in limit.where and _all_covered(patterns, limit.where[party])
        for party, patterns in wide.where.items()
    )


def _all_covered(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    return bool(narrow) and all(any(covers(one, other) for one in wide) for other in narrow)
