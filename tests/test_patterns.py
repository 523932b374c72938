"""Which names a glob means, and which of several entries is meant."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litellm_parallel_limits.patterns import entries, is_pattern, matches

TABLE = {
    "*": "all",
    "gpt-*": "gpt",
    "gpt-4*": "gpt-4s",
    "*-mini": "minis",
    "gpt-4": "gpt-4",
    "gpt-4[1m]": "long",
}


@pytest.mark.parametrize(
    ("names", "patterns", "result"),
    [
        (["gpt-4"], ["gpt-4"], True),
        (["gpt-4"], ["gpt-4*"], True),
        (["gpt-4o"], ["gpt-4"], False),
        (["gpt-4o"], ["gpt-?o"], True),
        (["gpt-4o"], ["gpt-[34]*"], True),
        (["GPT-4"], ["gpt-4"], False),
        (["a\nb"], ["a*"], True),
        (["gpt-4[1m]"], ["gpt-4[1m]"], True),
        (["sent", "group"], ["group"], True),
        (["x"], ["y", "x"], True),
        (["x"], [], False),
        ([], ["*"], False),
    ],
)
def test_matches(names: list[str], patterns: list[str], *, result: bool) -> None:
    """A glob means a whole name, letter by letter; any name and any pattern will do."""
    assert matches(names, patterns) is result


@given(st.text(), st.text())
@settings(deadline=None)
def test_any_text_is_a_name_and_a_pattern(name: str, pattern: str) -> None:
    """No text breaks the comparison, and every text matches itself and the star."""
    matches([name], [pattern])
    assert matches([name], [name])
    assert matches([name], ["*"])


@pytest.mark.parametrize(("name", "result"), [("gpt-4", False), ("gpt-*", True), ("g?t", True), ("[", True)])
def test_is_pattern(name: str, *, result: bool) -> None:
    """What has a wild character is a pattern."""
    assert is_pattern(name) is result


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["gpt-4"], ["gpt-4", "gpt-4s", "gpt", "all"]),
        (["gpt-4o"], ["gpt-4s", "gpt", "all"]),
        (["gpt-4o-mini"], ["minis", "gpt-4s", "gpt", "all"]),
        (["gpt-4[1m]"], ["long", "gpt-4s", "gpt", "all"]),
        (["alias", "gpt-4"], ["gpt-4", "gpt-4s", "gpt", "all"]),
        (["other"], ["all"]),
        ([], []),
    ],
)
def test_best_entry_comes_first(names: list[str], found: list[str]) -> None:
    """Names come before globs, and of the globs the one with the most literal characters first."""
    assert list(entries(TABLE, names)) == found


def test_names_come_in_their_order() -> None:
    """The first name's entry comes before the second's, whatever the table's order."""
    table = {"group": 2, "sent": 1, "g*": 4, "sen*": 3}
    assert list(entries(table, ["sent", "group"])) == [1, 2, 3, 4]


def test_each_entry_comes_once() -> None:
    """A name that is itself a pattern of the table is found once, as a name."""
    assert list(entries({"gpt-*": 1, "*": 2}, ["gpt-*"])) == [1, 2]


def test_equal_globs_come_in_a_fixed_order() -> None:
    """Where two globs are equally close the order of the table does not matter."""
    assert list(entries({"*a": 1, "a*": 2}, ["a"])) == list(entries({"a*": 2, "*a": 1}, ["a"]))
