"""What is seen of requests as they come and go."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from rich.console import Console

from litellm_parallel_limits.cli.exits import KeyRefusedError
from litellm_parallel_limits.cli.proxy import Proxy
from litellm_parallel_limits.cli.top import Picture, watch
from tests.cli import documents
from tests.cli.conftest import KEY, FakeProxy
from tests.cli.golden import assert_golden


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the seconds that it shows."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands."""
    return Clock()


@pytest.fixture
def picture(fake_proxy: FakeProxy, clock: Clock) -> Iterator[Picture]:
    """Pictures of a proxy in which there is something to see."""
    fake_proxy.answers = {"status": (200, documents.BUSY), "history": (200, documents.HISTORY)}
    with closing(Proxy(fake_proxy.url, KEY)) as proxy:
        yield Picture(proxy, limit=None, sort="utilization", clock=clock)


def drawn(picture: Picture, proxy: FakeProxy, lines: int = 30) -> str:
    """Return the next picture on a screen of so many lines."""
    file = io.StringIO()
    Console(file=file, width=100).print(picture.next(lines))
    return file.getvalue().replace(proxy.url, "http://localhost:4000")


def routes(proxy: FakeProxy) -> list[str]:
    """Return the routes asked for so far."""
    return [route for route, _, _ in proxy.asked]


def test_a_picture_has_the_last_minutes_and_the_scopes(picture: Picture, fake_proxy: FakeProxy) -> None:
    """There is a line of what was in flight, and as many scopes as the screen has lines for."""
    assert_golden("views/top.txt", drawn(picture, fake_proxy))
    assert fake_proxy.asked[0] == ("status", {"page_size": ["21"], "sort": ["utilization"]}, None)


def test_the_history_is_asked_for_as_often_as_it_changes(
    picture: Picture, fake_proxy: FakeProxy, clock: Clock
) -> None:
    """Every five seconds, however often the status is."""
    for _ in range(11):
        drawn(picture, fake_proxy)
        clock.now += 1
    assert (routes(fake_proxy).count("status"), routes(fake_proxy).count("history")) == (11, 3)


def test_who_is_no_admin_sees_no_history(picture: Picture, fake_proxy: FakeProxy, clock: Clock) -> None:
    """Their own scopes are shown without the lines, which are not asked for again."""
    fake_proxy.answers["history"] = (403, {"detail": "Only proxy admins."})
    for _ in range(3):
        assert "model_per_key" in drawn(picture, fake_proxy)
        clock.now += 10
    assert routes(fake_proxy).count("history") == 1


def test_a_proxy_that_goes_away_leaves_its_last_picture(
    picture: Picture, fake_proxy: FakeProxy, clock: Clock
) -> None:
    """It is said since when it does not answer, above what was last seen, until it is back."""
    before = drawn(picture, fake_proxy)
    fake_proxy.answers["status"] = (503, {"detail": "starting [red]up[/red]"})
    drawn(picture, fake_proxy)
    clock.now += 7
    assert_golden("views/top-away.txt", drawn(picture, fake_proxy))
    fake_proxy.answers["status"] = (200, documents.BUSY)
    assert drawn(picture, fake_proxy) == before


def test_a_proxy_that_is_not_there_yet_is_waited_for(picture: Picture, fake_proxy: FakeProxy) -> None:
    """The first picture may say no more than that there is no proxy; other answers are shown likewise."""
    fake_proxy.answers["status"] = (500, "<html>")
    assert "For 0 s: http://localhost:4000 answers 500" in drawn(picture, fake_proxy)
    fake_proxy.answers["status"] = (200, {"scopes": "none"})
    assert "of another version?" in drawn(picture, fake_proxy)
    fake_proxy.answers["status"] = (200, documents.status())
    assert "Nothing is in flight." in drawn(picture, fake_proxy)


def test_a_key_that_is_refused_ends_it(picture: Picture, fake_proxy: FakeProxy) -> None:
    """A key that was never any good is told at once; one that is refused later may be good again."""
    fake_proxy.answers["status"] = (401, {"detail": "no"})
    with pytest.raises(KeyRefusedError):
        picture.next(30)
    fake_proxy.answers["status"] = (200, documents.BUSY)
    drawn(picture, fake_proxy)
    fake_proxy.answers["status"] = (401, {"detail": "no"})
    assert "refuses the key (401): no" in drawn(picture, fake_proxy)


def test_it_looks_until_somebody_leaves(picture: Picture, fake_proxy: FakeProxy) -> None:
    """Each pause is followed by another picture, the last by none; Ctrl-C leaves as well."""
    pauses: list[float] = []

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        if len(pauses) == 5:
            raise KeyboardInterrupt
        return len(pauses) == 3

    screen = Console(file=io.StringIO(), force_terminal=True, width=100, height=30)
    watch(picture, screen, pause, 0.5)
    assert (pauses, routes(fake_proxy).count("status")) == ([0.5] * 3, 3)
    watch(picture, screen, pause, 0.5)
    assert (len(pauses), routes(fake_proxy).count("status")) == (5, 5)


@pytest.mark.parametrize("key", [b"q", b"\x03", b"\x04"])
def test_a_key_on_a_real_terminal_ends_it(key: bytes, fake_proxy: FakeProxy) -> None:
    """On a terminal q, Ctrl-C and Ctrl-D end it with 0, at once, and the screen is as it was before."""
    fake_proxy.answers = {"status": (200, documents.BUSY), "history": (200, documents.HISTORY)}
    ours, theirs = pty.openpty()
    env = {**os.environ, "LITELLM_PROXY_URL": fake_proxy.url, "LITELLM_PROXY_API_KEY": KEY, "TERM": "xterm"}
    at_the_terminal = [
        "env",
        "--default-signal=INT",
        "setsid",
        "--ctty",
    ]  # who is run behind a shell ignores it
    ours_at_it = [sys.executable, "-m", "litellm_parallel_limits", "top", "--interval", "3600"]
    command = [*at_the_terminal, *ours_at_it]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    try:
        seen = read_until(ours, b"model_per_key")
        os.write(ours, b"x")
        os.write(ours, key)
        seen += read_until(ours, b"\x1b[?1049l")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert seen.index(b"\x1b[?1049h") < seen.index(b"model_per_key")
    assert KEY.encode() not in seen


def read_until(terminal: int, wanted: bytes, seconds: float = 60) -> bytes:
    """Return what a terminal shows up to what is wanted."""
    deadline, seen = time.monotonic() + seconds, b""
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 65536)
    return seen
