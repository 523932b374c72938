"""How names are matched by globs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

_WILD = frozenset("*?[")


def is_pattern(name: str) -> bool:
    """Whether `name` is a glob rather than a name."""
    return not _WILD.isdisjoint(name)


def matches(names: Iterable[str], patterns: Iterable[str]) -> bool:
    """Whether one of `names` is, or is matched by, one of `patterns`."""
    candidates = tuple(patterns)
    return any(name == pattern or fnmatchcase(name, pattern) for name in names for pattern in candidates)


def entries(table: Mapping[str, object], names: Iterable[str]) -> Iterable[object]:
    """Yield what `table` says of `names`, the best match first.

    The names themselves come first, in their order, then the globs that match any of them, the one
    with the most literal characters first.
    """
    wanted = tuple(names)
    yield from (table[name] for name in wanted if name in table)
    globs = [pattern for pattern in table if isinstance(pattern, str) and is_pattern(pattern)]
    for pattern in sorted(globs, key=_specificity):
        if pattern not in wanted and matches(wanted, (pattern,)):
            yield table[pattern]


def _specificity(pattern: str) -> tuple[int, str]:
    return (sum(character in _WILD for character in pattern) - len(pattern), pattern)
