"""What the commands that ask a proxy print, and with what they end."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import Result

from litellm_parallel_limits import cli
from tests.cli import documents
from tests.cli.conftest import KEY, FakeProxy, Run
from tests.cli.golden import assert_golden

ASKING = {
    "status": ["status"],
    "health": ["health"],
    "explain": ["explain", "--model", "gpt-4"],
    "release": ["release", "--lease", "1", "--yes"],
}
ROUTES = pytest.mark.parametrize("command", ASKING)


def answer(proxy: FakeProxy, code: int, document: Any) -> None:
    """Have every route answer the same."""
    proxy.answers = dict.fromkeys(ASKING, (code, document))


def test_status_shows_what_is_in_flight(ask: Run, fake_proxy: FakeProxy) -> None:
    """The status is a table, the busiest scopes first, fifty at most, asked for with the key."""
    fake_proxy.answers["status"] = (200, documents.BUSY)
    told = ask("status")
    assert_golden("views/status-command.txt", told.output)
    assert told.exit_code == 0
    assert fake_proxy.asked == [("status", {"sort": ["utilization"], "page_size": ["50"]}, None)]
    assert fake_proxy.keys == {f"Bearer {KEY}"}


def test_status_asks_for_one_limit_in_an_order(ask: Run, fake_proxy: FakeProxy) -> None:
    """--limit and --sort go to the proxy."""
    fake_proxy.answers["status"] = (200, documents.status())
    assert ask("status", "--limit", "llama gpu", "--sort", "waiting").exit_code == 0
    [(_, query, _)] = fake_proxy.asked
    assert query == {"limit": ["llama gpu"], "sort": ["waiting"], "page_size": ["50"]}


def test_status_of_all_reads_every_page(ask: Run, fake_proxy: FakeProxy) -> None:
    """With --all there are the scopes of all pages; without it is said how many are left out."""
    scopes = [documents.scope(f"limit-{number:04}", 1, 2) for number in range(2500)]
    fake_proxy.answers["status"] = (200, documents.status(*scopes))
    told = ask("status", "--all", "--json")
    assert [scope["name"] for scope in json.loads(told.stdout)["scopes"]] == [one["name"] for one in scopes]
    assert [query.get("page") for _, query, _ in fake_proxy.asked] == [None, ["2"], ["3"]]
    assert ask("status").output.endswith("50 of 2500 scopes are shown.\n")


@ROUTES
def test_json_is_what_the_proxy_said(command: str, ask: Run, fake_proxy: FakeProxy) -> None:
    """With --json the proxy's document is printed as it is, in ASCII, and nothing else."""
    said = {
        "status": documents.status(documents.scope(documents.HOSTILE, 1, 2), later="more"),
        "health": documents.HEALTHY,
        "explain": documents.EXPLANATION,
        "release": {"released": 2},
    }
    fake_proxy.answers = {route: (200, document) for route, document in said.items()}
    told = ask(*ASKING[command], "--json")
    assert told.exit_code == 0
    assert told.stdout.isascii()
    assert "\x1b" not in told.stdout
    document = json.loads(told.stdout)
    assert {**document, "page_size": 0} == {**said[command], "page_size": 0}


def test_health_ends_with_one_where_the_store_is_out(ask: Run, fake_proxy: FakeProxy) -> None:
    """A degraded limiter is a no, in a table and in JSON."""
    fake_proxy.answers["health"] = (200, documents.HEALTHY)
    assert ask("health").exit_code == 0
    fake_proxy.answers["health"] = (200, documents.DEGRADED)
    told = ask("health")
    assert told.exit_code == 1
    assert "degraded for       12.0 s" in told.output
    assert ask("health", "--json").exit_code == 1


def test_release_frees_what_is_named(ask: Run, fake_proxy: FakeProxy) -> None:
    """A lease, a scope, or a lease in a scope is released, once somebody has said yes."""
    fake_proxy.answers["release"] = (200, {"released": 1})
    told = ask("release", "--lease", "5c7c", stdin="y\n")
    assert told.stdout.endswith("1 slot released.\n")
    assert ask("release", "--scope", "0c1d", "--lease", "5c7c", "--yes").exit_code == 0
    assert [body for _, _, body in fake_proxy.asked] == [
        {"lease": "5c7c"},
        {"lease": "5c7c", "scope": "0c1d"},
    ]


@pytest.mark.parametrize("stdin", ["n\n", ""])
def test_release_releases_nothing_without_a_yes(stdin: str, ask: Run, fake_proxy: FakeProxy) -> None:
    """Who says no, or nobody who could be asked, releases nothing, and it ends with 1."""
    assert ask("release", "--lease", "5c7c", stdin=stdin).exit_code == 1
    assert fake_proxy.asked == []


def test_release_of_nothing_ends_with_one(ask: Run, fake_proxy: FakeProxy) -> None:
    """Where nothing of that name was in flight the proxy's words are shown."""
    answer(fake_proxy, 404, {"detail": "Nothing of that name is in flight."})
    told = ask("release", "--lease", "5c7c", "--yes")
    assert (told.exit_code, told.stderr) == (1, "Error: Nothing of that name is in flight.\n")


def test_explain_asks_for_a_request(ask: Run, fake_proxy: FakeProxy) -> None:
    """Who sends the request is told to the proxy, and of the key only its hash."""
    fake_proxy.answers["explain"] = (200, documents.EXPLANATION)
    parties = ("--user", "ann", "--team", "research", "--end-user", "bob", "--tag", "a", "--tag", "b")
    assert ask("explain", "--model", "gpt-4", "--of-key", "sk-1234", *parties).exit_code == 0
    [(_, query, _)] = fake_proxy.asked
    assert query == {
        "model": ["gpt-4"],
        "key": [hashlib.sha256(b"sk-1234").hexdigest()],
        "user": ["ann"],
        "team": ["research"],
        "end_user": ["bob"],
        "tag": ["a", "b"],
    }


@pytest.mark.parametrize("of_key", ["-", "sk-1234", hashlib.sha256(b"sk-1234").hexdigest()])
def test_a_key_is_explained_by_its_hash(of_key: str, ask: Run, fake_proxy: FakeProxy) -> None:
    """A key may be given, read where nobody can be asked, or named by its hash: it is not shown again."""
    fake_proxy.answers["explain"] = (200, documents.EXPLANATION)
    told = ask("explain", "--model", "gpt-4", "--of-key", of_key, stdin="sk-1234\n")
    assert fake_proxy.asked[0][1]["key"] == [hashlib.sha256(b"sk-1234").hexdigest()]
    assert "sk-1234" not in told.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["release", "--yes"],
        ["status", "--sort", "colour"],
        ["explain"],
        ["explain", "--model", "gpt-4", "--of-key", "-"],
        ["status", "--url", "localhost:4000"],
        ["status", "--url", "http://"],
        ["status", "--url", "http://host:port"],
        ["status", "--url", "http://[::1"],
        ["status", "--url", "http://host/?key=1"],
        ["status", "--key", "sk with spaces"],
        ["status", "--key", "sk-\x1b[31m"],
        ["status", "--key", "sk-ü"],
        ["top"],
        ["bottom"],
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: list[str], ask: Run, fake_proxy: FakeProxy) -> None:
    """A command that cannot be meant ends with 2, says why, and asks nobody."""
    told = ask(*arguments)
    assert told.exit_code == 2
    assert "Error: " in told.stderr
    assert fake_proxy.asked == []


@ROUTES
def test_no_key_is_a_usage_error(command: str, run: Run) -> None:
    """Where there is no key and nobody to ask, the variable is named that takes one."""
    told = run(*ASKING[command])
    assert told.exit_code == 2
    assert "LITELLM_PROXY_API_KEY" in told.stderr


def test_the_master_key_will_do(ask: Run, fake_proxy: FakeProxy) -> None:
    """Where LiteLLM's own variable for a client is not set, the proxy's key is used."""
    answer(fake_proxy, 200, documents.HEALTHY)
    assert ask("health", LITELLM_PROXY_API_KEY="", LITELLM_MASTER_KEY=" sk-master\n").exit_code == 0
    assert fake_proxy.keys == {"Bearer sk-master"}


@ROUTES
def test_a_proxy_that_is_away_is_told_of(command: str, run: Run) -> None:
    """Nobody listens: one line says so, and it ends with 3."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        told = run(*ASKING[command], LITELLM_PROXY_URL=url, LITELLM_PROXY_API_KEY=KEY)
    assert told.exit_code == 3
    assert told.stderr == f"Error: {url} is not reached: [Errno 111] Connection refused\n"
    assert told.stdout == ""


REFUSED = {"error": {"message": f"Authentication Error: {KEY}\n\x1b[31m is [red]no[/red] key", "code": "401"}}


NO_ANSWERS = [
    (401, REFUSED, "refuses the key (401): Authentication Error: … [31m is [red]no[/red] key"),
    (403, {"detail": "Only proxy admins."}, "refuses the key (403): Only proxy admins."),
    (404, {"detail": "Not Found"}, "has no parallel limits: is the plugin in litellm_settings.callbacks?"),
    (404, "<html>", "has no parallel limits"),
    (500, "<html>", "answers 500"),
    (503, {"detail": "The store does not answer."}, "answers 503: The store does not answer."),
    (503, {"detail": ["a", {"b": 1}]}, 'answers 503: ["a", {"b": 1}]'),
    (307, {}, "answers 307"),
    (200, "<html>", "answers no JSON: is it a LiteLLM proxy?"),
    (200, "[1]", "answers no JSON"),
    (200, "[" * 100_000, "answers no JSON"),
    (500, {"detail": "x" * 5000}, "xxx…"),
]


@ROUTES
@pytest.mark.parametrize("no_answer", NO_ANSWERS, ids=lambda one: f"{one[0]} {one[2][:20]}")
def test_what_is_no_answer_is_told_in_a_line(
    command: str, no_answer: tuple[int, Any, str], ask: Run, fake_proxy: FakeProxy
) -> None:
    """Whatever the proxy answers instead, one plain line says so, without the key, and it ends with 3."""
    code, document, told = no_answer
    answer(fake_proxy, code, document)
    result = ask(*ASKING[command])
    assert told in result.stderr
    assert result.exit_code == 3
    assert KEY not in result.output
    [line] = result.stderr.splitlines()
    assert line.isprintable()
    assert len(line) < 400


@pytest.mark.parametrize("command", ["status", "health", "explain"])
@pytest.mark.parametrize("document", [{}, {"scopes": 1, "status": 2}, {"error": "none"}])
def test_an_answer_of_another_version_is_told(
    command: str, document: Any, ask: Run, fake_proxy: FakeProxy
) -> None:
    """A document that is not the one that was asked for is no answer."""
    answer(fake_proxy, 200, document)
    told = ask(*ASKING[command])
    assert told.exit_code == 3
    assert "of another version?" in told.stderr


def test_a_question_that_the_proxy_refuses_is_a_usage_error(ask: Run, fake_proxy: FakeProxy) -> None:
    """What the proxy cannot make sense of was meant wrongly."""
    answer(fake_proxy, 422, {"detail": [{"msg": "no"}]})
    assert ask("status").exit_code == 2


def test_names_of_strangers_are_shown_as_text(ask: Run, fake_proxy: FakeProxy) -> None:
    """A hostile name in the status is neither obeyed nor lost."""
    scope = documents.scope("user", 1, 2, scope={"user": documents.HOSTILE})
    fake_proxy.answers["status"] = (200, documents.status(scope))
    told = ask("status", "--holders")
    assert told.exit_code == 0
    assert "user [red]bold[/red]" in told.output
    assert all(line.isprintable() for line in told.output.splitlines())


def test_a_url_with_a_secret_is_refused_without_it(run: Run) -> None:
    """A password in the address is neither used nor shown."""
    told = run("status", "--url", "http://ann:hunter2@host:4000", LITELLM_PROXY_API_KEY=KEY)
    assert told.exit_code == 2
    assert "hunter2" not in told.output


def test_a_proxy_below_a_path_is_asked_there(ask: Run, fake_proxy: FakeProxy) -> None:
    """LiteLLM's SERVER_ROOT_PATH is part of the address."""
    fake_proxy.answers["/litellm/parallel_limits/health"] = (200, documents.HEALTHY)
    assert ask("health", LITELLM_PROXY_URL=f"{fake_proxy.url}/litellm/").exit_code == 0


def test_help_names_every_command(run: Run) -> None:
    """--help lists the commands with a line each, and each has a help of its own."""
    told = run("--help")
    assert told.exit_code == 0
    for name in cli.COMMANDS:
        assert f"  {name}" in told.output
        assert run(name, "--help").exit_code == 0


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_without_what_it_needs_says_so(
    name: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a package is missing that comes with the proxy, one line names it, whatever the options."""

    def without_rich(module: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named 'rich' ({module})", name="rich")

    monkeypatch.setattr(cli, "import_module", without_rich)
    told = run(name, "--anything", "at", "all")
    assert told.exit_code == 3
    assert told.stderr.startswith(f"Error: '{name}' needs the package rich: pip install")
    assert "Needs the package rich" in run("--help").output


def test_it_is_a_module_as_well() -> None:
    """`python -m litellm_parallel_limits` is the same command line."""
    command = [sys.executable, "-m", "litellm_parallel_limits", "--version"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.startswith("litellm-parallel-limits, version ")


def test_asking_imports_nothing_of_litellms() -> None:
    """Only the proxy that `demo` starts is LiteLLM's; no command imports it."""
    modules = [f"{cli.__name__}.{name}" for name in cli.COMMANDS]
    program = f"import sys\nfor name in {modules}: __import__(name)\nprint('litellm' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told == "False\n"


Typed = Callable[[str], Result]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have a terminal at which somebody answers each question with a key; the questions are noted."""
    asked: list[str] = []

    def prompt(text: str, *, hide_input: bool, err: bool) -> str:
        assert hide_input
        assert err
        asked.append(text)
        return "sk-typed"

    monkeypatch.setattr(click, "prompt", prompt)
    for name in ("options", "explain"):
        module = import_module(f"{cli.__name__}.{name}")
        monkeypatch.setattr(module, "sys", _Terminal())
    return asked


class _Stream:
    def isatty(self) -> bool:
        return True


class _Terminal:
    stdin = stderr = _Stream()


def test_a_key_is_asked_for_on_a_terminal(terminal: list[str], ask: Run, fake_proxy: FakeProxy) -> None:
    """Without a key in the environment it is asked for, unseen; so is one to be explained."""
    fake_proxy.answers["explain"] = (200, documents.EXPLANATION)
    told = ask("explain", "--model", "gpt-4", "--of-key", "-", LITELLM_PROXY_API_KEY="")
    assert terminal == ["API key", "Key to be explained"]
    assert fake_proxy.keys == {"Bearer sk-typed"}
    assert "sk-typed" not in told.output
