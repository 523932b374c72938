"""What is said of a configuration."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litellm.proxy.proxy_server import ProxyConfig

from litellm_parallel_limits.cli.checks.config_file import ConfigFileError, read
from litellm_parallel_limits.cli.checks.reports import check
from tests.cli.conftest import Run
from tests.cli.golden import FOLDER, assert_golden

BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{one}: &a{one} [{', '.join([f'*a{one - 1}'] * 10)}]\n" for one in range(1, 9)
)
CASES = sorted(path.stem for path in (FOLDER / "check").glob("*.yaml"))
SAMPLE = Path(__file__).parents[2] / "sample_config.yaml"
FINE = {"empty-section", "fine", "off", "workers-by-variable"}
WARNED = {"config", "memory-and-workers", "never-full", "never-met", "shadowed"}

HOSTILE = st.text(max_size=30)
NAMES = st.sampled_from(
    [
        *(
            "parallel_limits",
            "litellm_settings",
            "limits",
            "wait",
            "where",
            "models",
            "by",
            "include",
            "name",
        ),
        *("max_parallel_requests", "model_list", "model_info", "model_name", "callbacks", "router_settings"),
        *("model_group_alias", "general_settings", "litellm_params", "cache", "fallbacks", "key", "model"),
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | HOSTILE
    | NAMES
    | st.dates()
    | st.binary(max_size=4),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(NAMES | HOSTILE, one, max_size=4),
    max_leaves=20,
)
CONFIGS = st.fixed_dictionaries(
    {
        "litellm_settings": VALUES
        | st.fixed_dictionaries({"parallel_limits": VALUES}, optional={"cache": VALUES}),
    },
    optional={"model_list": VALUES, "router_settings": VALUES, "general_settings": VALUES, "include": VALUES},
)
SCRAPS = st.sampled_from(
    [
        *(
            "&a",
            "*a",
            "<<: *a",
            "!!int",
            "!!timestamp",
            "!!bool",
            "!!python/object:x",
            "!!binary",
            "!!set",
            "? ",
        ),
        *(
            "- ",
            ": ",
            "{",
            "}",
            "[",
            "]",
            "|\n",
            ">\n",
            "'",
            '"',
            "\\U00110000",
            "---\n",
            "...\n",
            "%YAML 9\n",
        ),
        *(
            "\n",
            "  ",
            "\t",
            "#",
            "@",
            "\x00",
            "\ud800",
            "2024-13-45",
            "0x",
            "litellm_settings: ",
            "include: ",
        ),
    ]
)


@pytest.mark.parametrize("name", CASES)
def test_what_is_said_of_a_configuration(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each limit is told in words, each mistake with its file and line, and nothing else of the file."""
    monkeypatch.chdir(FOLDER / "check")
    config = Path(f"{name}.yaml")
    head = config.read_text().partition("\n")[0].removeprefix("# ")
    flags = head.split() if head.startswith("--") else []
    env = dict([head.split("=")]) if head.partition("=")[0].isupper() else {}
    told = run("check", str(config), *flags, **env)
    assert_golden(f"check/{name}.txt", told.output)
    assert told.exit_code == int(name not in FINE | WARNED)
    assert run("check", str(config), "--strict", *flags, **env).exit_code == int(name not in FINE)


def test_the_sample_is_fine(run: Run) -> None:
    """Nothing is wrong with the sample, and each of its limits is explained."""
    told = run("check", str(SAMPLE), "--strict")
    assert told.exit_code == 0
    assert "gpt4-per-key: each key may have 2 requests to gpt-4 in flight" in told.output
    assert told.output.endswith("No mistakes found.\n")


def test_a_shim_beside_the_configuration_will_do(run: Run, tmp_path: Path) -> None:
    """A callback that is a file of two lines, for LiteLLM before 1.94, names the plugin as well."""
    (tmp_path / "my_shim.py").write_text("from litellm_parallel_limits import proxy_handler_instance")
    config = tmp_path / "config.yaml"
    config.write_text("litellm_settings: {callbacks: my_shim.proxy_handler_instance}")
    assert run("check", str(config)).exit_code == 0


@pytest.mark.parametrize(
    "config",
    [
        "router_settings: {fallbacks: [{'*': [gpt-4]}]}",
        "router_settings: {default_fallbacks: [gpt-4]}",
        "general_settings: {store_model_in_db: true}",
    ],
)
def test_models_that_may_come_from_elsewhere_are_not_missed(config: str, tmp_path: Path) -> None:
    """No limit is called unmet where a database or a default fallback may answer for any name."""
    limit = "parallel_limits: {limits: [{name: one, models: [gpt-5], max_parallel_requests: 1}]}"
    file = tmp_path / "config.yaml"
    file.write_text(
        f"model_list: [{{model_name: gpt-4}}]\n{config}\nlitellm_settings:\n  {limit}\n"
        "  callbacks: [litellm_parallel_limits.proxy_handler_instance]\n"
    )
    assert check(file, {}, None).findings == ()
    file.write_text(file.read_text().replace(config, ""))
    assert len(check(file, {}, None).findings) == 1


def test_json_says_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json there are the counts, the limits, and the findings with file, line and level."""
    monkeypatch.chdir(FOLDER / "check")
    told = run("check", "never-met.yaml", "--json")
    document = json.loads(told.stdout)
    assert (told.exit_code, document["errors"], document["warnings"]) == (0, 0, len(document["findings"]))
    assert document["limits"][0]["name"] == "by-alias"
    assert document["findings"][0] == {
        "level": "warning",
        "told": "parallel_limits.limits[2].models: never met: matches no model, alias or wildcard of this "
        "configuration",
        "place": {"file": "never-met.yaml", "line": 16},
    }


@pytest.mark.parametrize(
    "arguments", [["check"], ["check", "missing.yaml"], ["check", str(SAMPLE), "--workers", "0"]]
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: list[str], run: Run) -> None:
    """Without a file that is there, or with no workers, check ends with 2."""
    assert run(*arguments).exit_code == 2


def test_check_imports_neither_litellm_nor_what_it_needs_not() -> None:
    """A configuration is checked without LiteLLM, rich and httpx."""
    program = (
        "import sys; from litellm_parallel_limits.cli import main; "
        "main(['check', sys.argv[1]], standalone_mode=False); "
        "print(sorted({'litellm', 'rich', 'httpx', 'fastapi', 'redis'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(SAMPLE)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "[]"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=CONFIGS, workers=st.none() | st.integers(1, 9))
def test_no_configuration_is_too_odd(config: Any, workers: int | None, tmp_path: Path) -> None:
    """Whatever stands in a configuration, it is told of in lines of plain text."""
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    report = check(file, {}, workers)
    said = [*(one.told for one in report.findings), *(one.words for one in report.limits), *report.notes]
    assert all(text.isprintable() for text in said)
    assert said


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scraps=st.lists(SCRAPS | HOSTILE, max_size=12))
def test_no_text_is_too_odd(scraps: list[str], tmp_path: Path) -> None:
    """Whatever the file is, YAML or not, check has something to say of it."""
    file = tmp_path / "config.yaml"
    file.write_text("".join(scraps), encoding="utf-8", errors="surrogatepass")
    assert check(file, {}, None).findings


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\xfe\x00", "is no text in UTF-8"),
        (b"", "is empty"),
        (b"- a", "is no table of settings"),
        (b"[" * 5000, "is nested too deeply"),
        (BOMB.encode(), "is too large"),
        (b"a: !!timestamp x", "a value that YAML cannot read"),
        (b"a: b\n\x01", "a character that YAML does not allow"),
        (b"include: models.yaml", "include: not a list of files"),
        (b'include: ["\\0"]', "cannot be read: no name of a file"),
        (b"include: [" + b"a" * 5000 + b"]", "cannot be read: File name too long"),
    ],
)
def test_what_is_no_configuration_is_told(content: bytes, told: str, tmp_path: Path) -> None:
    """A file that LiteLLM cannot read is one error, which says why."""
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    [finding] = check(file, {}, None).findings
    assert finding.level == "error"
    assert told in finding.told
    assert finding.place is not None


INCLUDED = {
    "config.yaml": "include: [a.yaml, sub/b.yaml]\nx: 1\nlist: [1]\nt: {a: 1}\nb: &b {m: 1}\nn: {<<: *b}",
    "a.yaml": "include: [c.yaml]\nlist: [2]\nt: {b: 2}\ny: [1]",
    "sub/b.yaml": "include: [c.yaml, d.yaml, ../a.yaml]\nlist: 3\nx: [4]\nx: [5]",
    "c.yaml": "list: [6]\nwhere: root",
    "sub/c.yaml": "list: [7]\nwhere: beside",
    "d.yaml": "list: [8]\nempty:",
}


def test_files_are_merged_as_litellm_merges_them(tmp_path: Path) -> None:
    """What is checked is what LiteLLM's own merging of `include` gives."""
    for name, text in INCLUDED.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    path = tmp_path / "config.yaml"
    theirs = asyncio.run(ProxyConfig()._get_config_from_file(str(path)))  # noqa: SLF001 (what LiteLLM starts with)
    assert read(path).data == theirs
    assert theirs["where"] == "beside"


def test_an_included_file_that_includes_itself_ends(tmp_path: Path) -> None:
    """A file is read once, however often it is named."""
    (tmp_path / "config.yaml").write_text("include: [config.yaml, a.yaml]\nlist: [1]")
    (tmp_path / "a.yaml").write_text("include: [a.yaml, config.yaml]\nlist: [2]")
    assert read(tmp_path / "config.yaml").data == {"list": [1, 2]}


def test_an_included_file_must_be_there(tmp_path: Path) -> None:
    """The line that names a missing file is told, as LiteLLM would not start."""
    (tmp_path / "config.yaml").write_text("include:\n  - a.yaml")
    (tmp_path / "a.yaml").write_text("\n\ninclude: [b.yaml]")
    with pytest.raises(ConfigFileError) as failed:
        read(tmp_path / "config.yaml")
    place = failed.value.finding.place
    assert place is not None
    assert (Path(place.file).name, place.line) == ("a.yaml", 3)
