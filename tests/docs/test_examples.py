"""What the documentation shows is true."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from litellm_parallel_limits.built_in import BUILT_IN
from litellm_parallel_limits.settings import (
    DeploymentSettings,
    LimitSettings,
    Settings,
    WaitSettings,
    check_deployments,
    read,
)

TOP = Path(__file__).parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")


def blocks(language: str) -> list[Any]:
    """Return every example in `language`, named after its page."""
    return [
        pytest.param(text, id=f"{page.name}-{number}")
        for page in PAGES
        for number, (kind, text) in enumerate(BLOCK.findall(page.read_text()))
        if kind == language
    ]


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_configuration_is_accepted(text: str) -> None:
    """Each YAML example is a configuration that the proxy starts with."""
    config = yaml.safe_load(text)
    section = config.get("litellm_settings", config).get("parallel_limits")
    assert read(section, {}).enabled
    check_deployments(config.get("model_list"))


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


def test_every_setting_is_in_the_reference() -> None:
    """The tables of settings leave nothing out, and tell the defaults."""
    reference = (TOP / "docs" / "reference.md").read_text()
    of_the_section, of_a_limit, of_a_deployment, of_waiting = re.findall(
        r"^\| setting.*?\n\n|^\| entry.*?\n\n", reference, re.MULTILINE | re.DOTALL
    )
    defaults = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]*)`? \|", of_the_section, re.MULTILINE))
    told = {name: yaml.safe_load(default) for name, default in defaults.items()}
    assert told == {
        name: "none" if field.default in {None, ()} else field.default
        for name, field in Settings.model_fields.items()
    }
    tables = (
        (of_a_limit, LimitSettings),
        (of_a_deployment, DeploymentSettings),
        (of_waiting, WaitSettings),
    )
    for table, settings in tables:
        assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == settings.model_fields.keys()


def test_every_limit_is_in_the_reference() -> None:
    """The table of limits names each with what it counts by, and each field its number may come from."""
    reference = (TOP / "docs" / "reference.md").read_text()
    for built_in in BUILT_IN:
        [row] = re.findall(
            rf"^\| `{built_in.name}` \| {', '.join(built_in.by)} \| (.*) \|$", reference, re.MULTILINE
        )
        assert all(source.name in row and source.entry in row for source in built_in.sources)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Links within the repository name files and headings that exist."""
    for target, anchor in LINK.findall(page.read_text()):
        linked = page.parent / target if target else page
        assert linked.is_file()
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
