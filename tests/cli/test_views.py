"""What the proxy answers, as it stands on a terminal."""

from __future__ import annotations

import io
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from litellm_parallel_limits.cli.bars import bar, sparkline
from litellm_parallel_limits.cli.exits import NotAnsweredError
from litellm_parallel_limits.cli.text import cleaned, plain
from litellm_parallel_limits.cli.views import explanation_view, health_view, status_view
from tests.cli import documents
from tests.cli.golden import assert_golden


def drawn(view: RenderableType, width: int = 100, *, colours: bool = False) -> str:
    """Return what a terminal shows; `colours` are escape codes of ours."""
    file = io.StringIO()
    system: Literal["truecolor"] | None = "truecolor" if colours else None
    Console(file=file, width=width, force_terminal=colours, color_system=system).print(view)
    return file.getvalue()


@pytest.mark.parametrize("width", [100, 60])
def test_a_status(width: int) -> None:
    """Each scope has a bar, its count and its limit; also one of 0, unknown, or overrun."""
    assert_golden(f"views/status-{width}.txt", drawn(status_view(documents.BUSY), width))


@pytest.mark.parametrize("width", [200, 100, 70])
def test_a_status_with_holders_and_history(width: int) -> None:
    """With the history there are lines of the last minutes; with holders the ids that release takes."""
    view = status_view(documents.BUSY, documents.HISTORY, holders=True)
    assert_golden(f"views/status-whole-{width}.txt", drawn(view, width))


def test_an_empty_status() -> None:
    """It is said that nothing is in flight."""
    assert_golden("views/status-empty.txt", drawn(status_view(documents.status())))


def test_a_status_without_its_store() -> None:
    """It is said whose numbers these are while the store is out, and how many scopes are not shown."""
    document = documents.status(documents.scope("user", 1, 2), degraded=True, total=12)
    assert_golden("views/status-degraded.txt", drawn(status_view(document)))


@pytest.mark.parametrize(
    ("name", "document"), [("healthy", documents.HEALTHY), ("degraded", documents.DEGRADED)]
)
def test_health(name: str, document: dict[str, Any]) -> None:
    """All there is to say of a worker's limiter stands below one another."""
    assert_golden(f"views/health-{name}.txt", drawn(health_view(document)))


def test_an_explanation() -> None:
    """Limits are told with their sources, with what these override and ignore, and why others are not met."""
    assert_golden("views/explanation.txt", drawn(explanation_view(documents.EXPLANATION)))


def test_an_explanation_of_nothing() -> None:
    """A request of nobody that meets nothing is told so."""
    document = {"model": "gpt-4", "identities": {}, "limits": [], "not_met": []}
    assert (
        drawn(explanation_view(document)) == "A request for gpt-4 of nobody in particular meets 0 limits.\n"
    )


def hostile(document: Any) -> Any:
    """Return the document with each name in it replaced by a hostile one."""
    if isinstance(document, dict):
        parties = {documents.HOSTILE: documents.HOSTILE}
        return {
            name: parties if name in {"scope", "identities"} else hostile(value)
            for name, value in document.items()
        }
    if isinstance(document, list):
        return [hostile(one) for one in document]
    return (
        documents.HOSTILE
        if isinstance(document, str) and document not in {"healthy", "degraded"}
        else document
    )


@pytest.mark.parametrize(
    "view",
    [
        status_view(hostile(documents.BUSY), hostile(documents.HISTORY), holders=True),
        health_view(hostile(documents.HEALTHY)),
        explanation_view(hostile(documents.EXPLANATION)),
    ],
    ids=["status", "health", "explanation"],
)
def test_names_of_strangers_are_text(view: RenderableType) -> None:
    """Markup is shown, not obeyed; nothing of a name moves the cursor or leaves its place."""
    text = drawn(view)
    assert "[red]bold[/red] [31m:smile: <script>"[:12] in text
    assert all(line.isprintable() and len(line) <= 100 for line in text.splitlines())
    assert "\x1b[31m\x07" not in drawn(view, colours=True)


@given(st.text(st.characters(codec=None)))
def test_plain_text_moves_nothing(text: str) -> None:
    """What is shown of a text is printable, can be encoded, and is the same if shown again."""
    shown = plain(text)
    assert shown.isprintable()
    assert plain(shown) == shown
    assert shown.encode().decode() == shown


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)
    )
)
def test_a_cleaned_document_is_cleaned(document: Any) -> None:
    """Cleaning twice is cleaning once."""
    assert cleaned(cleaned(document)) == cleaned(document)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        "text",
        {"scopes": 1},
        documents.status({"in_flight": "many"} | documents.scope("a", 1, 1) | {"limit": []}),
    ],
)
def test_another_document_is_refused(document: object) -> None:
    """What is no status is an error that says so, not a failure."""
    with pytest.raises(NotAnsweredError, match="another version"):
        status_view(document)


def test_what_a_later_version_adds_is_ignored() -> None:
    """Fields that this version does not know do no harm."""
    assert drawn(status_view({**documents.BUSY, "weather": "fine"})) == drawn(status_view(documents.BUSY))


@given(share=st.floats(-1, 3), width=st.integers(0, 30))
def test_a_bar_has_its_width(share: float, width: int) -> None:
    """A bar fills its cells whatever the share; it is blank for nothing only, and full from 1 on."""
    drawn_bar = bar(share, width)
    assert len(drawn_bar) == width
    assert (drawn_bar.strip() == "") == (share <= 0 or width == 0)
    assert share < 1 or drawn_bar == "█" * width


@given(numbers=st.lists(st.floats(0, 1e9), max_size=200), width=st.integers(0, 80))
def test_a_line_has_its_width_and_its_peak(numbers: list[float], width: int) -> None:
    """A line is as long as there is room, shows the greatest number as the highest, and zeros as nothing."""
    line = sparkline(numbers, width)
    assert len(line) == min(width, len(numbers))
    if line:
        assert ("█" in line) == (max(numbers) > 0)
        assert set(line) == {"·"} or max(numbers) > 0
