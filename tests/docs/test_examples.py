"""What the documentation shows is true."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from litellm_parallel_limits import settings
from litellm_parallel_limits.built_in import BUILT_IN
from litellm_parallel_limits.cli import main
from litellm_parallel_limits.settings import check_deployments, read
from tests.docs import settings_tables

TOP = Path(__file__).parents[2]
DOCS = TOP / "docs"
PAGES = [TOP / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FROM_ELSEWHERE = re.compile(r'<(?:script|img|iframe|link)\b[^>]* (?:src|href)="?(?:https?:)?//')
OF_LITELLM = {"model_list", "litellm_settings", "router_settings", "general_settings"}
OF_PROMETHEUS = {"rule_files", "scrape_configs"}
OF_THE_CHART = {
    "environmentSecrets",
    "image",
    "lifecycle",
    "proxy_config",
    "replicaCount",
    "strategy",
    "terminationGracePeriodSeconds",
}
"""What may stand at the top of an example, by whose it is."""
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")


def blocks(language: str) -> list[Any]:
    """Return every example in `language`, named after its page."""
    return [
        pytest.param(text, id=f"{page.relative_to(TOP)}-{number}")
        for page in PAGES
        for number, (kind, text) in enumerate(BLOCK.findall(page.read_text()))
        if kind == language
    ]


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_configuration_is_accepted(text: str) -> None:
    """Each YAML example starts a proxy, or is values of the chart that do, or Prometheus' own."""
    document = yaml.safe_load(text)
    config = document.get("proxy_config", document)
    assert config.keys() <= OF_LITELLM or document.keys() <= OF_PROMETHEUS
    assert document is config or document.keys() <= OF_THE_CHART
    assert read(config.get("litellm_settings", {}).get("parallel_limits"), {}).enabled
    check_deployments(config.get("model_list"))


@pytest.mark.parametrize("text", blocks("sh"))
def test_every_shell_example_can_be_parsed(text: str) -> None:
    """Each shell example is one that bash understands."""
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("text", blocks("sh"))
def test_every_command_of_ours_is_one(text: str) -> None:
    """What examples call by our name is a command that there is, with the options that it has."""
    for line in re.findall(r"^litellm-parallel-limits ([^#\n]*)", text, re.MULTILINE):
        name, *options = shlex.split(line)
        command = main.get_command(click.Context(main), name)
        assert command
        known = {option for one in command.params for option in one.opts}
        assert {option for option in options if option.startswith("--")} <= known


@pytest.mark.parametrize("text", blocks("sh"))
def test_every_body_that_is_sent_is_json(text: str) -> None:
    """What the examples send with curl can be parsed."""
    for body in re.findall(r" -d '([^']*)'", text):
        assert json.loads(body)


@pytest.mark.parametrize("text", blocks("dockerfile"))
def test_every_image_installs_what_there_is(text: str) -> None:
    """Each Dockerfile installs this package, and of what it depends on what LiteLLM does not bring."""
    [installed] = re.findall(r"^RUN pip install --no-deps --target /plugin (.*)$", text, re.MULTILINE)
    assert installed.split() == ["litellm-parallel-limits", "cachetools"]
    assert "cachetools>=" in (TOP / "pyproject.toml").read_text()
    assert all(line.split()[0] in {"FROM", "RUN", "COPY", "ENV"} for line in text.splitlines() if line)


@pytest.mark.parametrize("text", blocks("python"))
def test_every_program_runs(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each Python example runs as it stands; of custom auth, the function too."""
    monkeypatch.setattr("litellm_parallel_limits.proxy_handler_instance", object(), raising=False)
    names: dict[str, Any] = {}
    exec(text, names)
    if "authenticate" in names:
        assert asyncio.run(names["authenticate"](None, "sk-example")).user_max_parallel_requests == 4


@pytest.mark.parametrize("text", blocks("json"))
def test_every_document_is_json(text: str) -> None:
    """Each JSON example can be parsed."""
    assert json.loads(text)


def test_the_tables_of_settings_are_those_of_the_settings() -> None:
    """The reference has each setting as it is; `python -m tests.docs.settings_tables` writes them."""
    reference = (DOCS / "reference.md").read_text()
    assert settings_tables.rewritten(reference) == reference
    assert reference.count("<!-- settings: ") == len(settings_tables.HEADS)


def test_a_fuller_text_is_of_a_setting_that_there_is() -> None:
    """What is said in place of a docstring is said of a setting."""
    for model, texts in settings_tables.FULLER.items():
        assert texts.keys() <= getattr(settings, model).model_fields.keys()


def test_every_limit_is_in_the_reference() -> None:
    """The table of limits names each with what it counts by, and each field its number may come from."""
    reference = (TOP / "docs" / "reference.md").read_text()
    for built_in in BUILT_IN:
        [row] = re.findall(
            rf"^\| `{built_in.name}` \| {', '.join(built_in.by)} \| (.*) \|$", reference, re.MULTILINE
        )
        assert all(source.name in row and source.entry in row for source in built_in.sources)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """Links within the repository name files and headings that exist."""
    for target, anchor in LINK.findall(page.read_text()):
        linked = page.parent / target if target else page
        assert linked.is_file()
        if linked.suffix != ".md":
            continue
        headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
        assert not anchor or anchor in {
            re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings
        }


def test_the_tutorials_limits_are_those_of_the_sample() -> None:
    """The section that the tutorial shows is that of the sample configuration."""
    tutorial = BLOCK.findall((TOP / "docs" / "tutorial.md").read_text())
    shown = next(yaml.safe_load(text) for kind, text in tutorial if kind == "yaml")
    sample = yaml.safe_load((TOP / "sample_config.yaml").read_text())
    assert shown["litellm_settings"] == sample["litellm_settings"]


def test_every_page_of_the_how_tos_is_in_its_list() -> None:
    """`how-to.md` names each how-to by its title."""
    listed = dict(
        re.findall(r"^\* \[(.*?)\]\(how-to/(.*?)\)", (DOCS / "how-to.md").read_text(), re.MULTILINE)
    )
    titles = {
        page.read_text().partition("\n")[0].removeprefix("# "): page.name
        for page in (DOCS / "how-to").glob("*.md")
    }
    assert listed == titles


def test_the_site_can_be_built(tmp_path: Path) -> None:
    """MkDocs builds a site of the pages without a warning, and it loads nothing from other hosts."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(TOP / ".mkdocs.yml")]
    subprocess.run([*command, "-d", str(tmp_path)], check=True, capture_output=True)
    pages = [page.read_text() for page in tmp_path.rglob("*.html")]
    assert len(pages) == len(PAGES)  # the README is none of them, and one says that there is no such page
    assert not any(FROM_ELSEWHERE.search(page) for page in pages)
