"""What is shown of a burst."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from litellm_parallel_limits.cli import demo
from litellm_parallel_limits.cli.burst import BURST, Outcome
from tests.cli.conftest import FakeProxy, Run
from tests.cli.golden import assert_golden

CHAT = "/v1/chat/completions"
OUTCOMES = (
    Outcome("gpt-4", "alice", admitted=True, message="", seconds=1.04, waited=0.0),
    Outcome("llama-70b", "[red]bob[/red]", admitted=True, message="", seconds=2.1, waited=1.0),
    Outcome(
        "gpt-4", "alice", admitted=False, message="'gpt4' is full\x1b[31m: 2 of 2.", seconds=0.1, waited=0.0
    ),
)


@pytest.fixture
def burst_on(fake_proxy: FakeProxy, monkeypatch: pytest.MonkeyPatch) -> FakeProxy:
    """Have the burst go to the fake proxy, which answers every request and says that nothing is in flight."""

    @contextlib.contextmanager
    def sample_proxy(*, show_log: bool) -> Iterator[str]:
        assert not show_log
        yield fake_proxy.url

    monkeypatch.setattr(demo, "sample_proxy", sample_proxy)
    fake_proxy.answers = {CHAT: (200, {}), "status": (200, {"in_flight": 0})}
    return fake_proxy


def told(monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    """Have a burst after which so many requests are in flight."""
    monkeypatch.setattr(demo, "_run", lambda *_, **__: (OUTCOMES, left))


def test_a_burst_is_a_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was admitted, after how long, and who was refused, in the proxy's words."""
    told(monkeypatch, 0)
    result = run("demo", COLUMNS="80")
    assert_golden("views/demo.txt", result.output)
    assert result.exit_code == 0


@pytest.mark.parametrize("left", [0, 1])
def test_a_burst_is_json(left: int, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json there are the sums and each request; what is left in flight is a no."""
    told(monkeypatch, left)
    result = run("demo", "--json")
    document = json.loads(result.stdout)
    requests = document.pop("requests")
    assert document == {"admitted": 2, "refused": 1, "left_in_flight": left}
    assert requests[1]["customer"] == "[red]bob[/red]"
    assert result.exit_code == left


def test_a_proxy_that_refuses_nobody_is_a_no(burst_on: FakeProxy, run: Run) -> None:
    """Every request of the burst is sent at once, after one that goes before; all admitted is not meant."""
    result = run("demo", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["admitted"] == len(BURST)
    assert [route for route, _, _ in burst_on.asked] == [CHAT] * (len(BURST) + 1) + ["status"]


def test_a_proxy_that_ends_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is gone before the burst ends it with 3, in a line."""
    monkeypatch.setattr(
        demo,
        "sample_proxy",
        lambda **_: contextlib.nullcontext("http://127.0.0.1:9"),  # nobody listens there
    )
    result = run("demo")
    assert result.exit_code == 3
    assert "did not answer: ConnectError" in result.stderr


def test_an_answer_that_should_not_be_is_told(burst_on: FakeProxy, run: Run) -> None:
    """Anything but an answer or a refusal ends it with 3."""
    burst_on.answers[CHAT] = (500, {"error": "no"})
    result = run("demo")
    assert result.exit_code == 3
    assert "answered what it should not: 500" in result.stderr
