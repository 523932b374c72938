"""`python -m tests.docs.settings_tables` writes the reference's tables of settings from their definitions."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from litellm_parallel_limits import settings

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"
QUOTE = '"'
HEADS = {
    "Settings": "setting",
    "LimitSettings": "entry of `limits`",
    "WaitSettings": "entry of `wait`",
    "DeploymentSettings": "entry",
}
"""What the first column of each model's table is called."""

DEFAULTS = {
    "LimitSettings.models": "all",
    "LimitSettings.where": "everybody",
    "LimitSettings.mode": "the section's",
    "LimitSettings.on_store_failure": "the section's",
    "LimitSettings.by": "`[]`",
}
"""Defaults that say more in words than as values."""

FULLER = yaml.safe_load((Path(__file__).parent / "settings_fuller.yaml").read_text())
"""What a user needs to know that the docstring leaves out, by model and setting."""


def rewritten(text: str) -> str:
    """Return `text` with each table between its markers as it follows from the settings.

    Raises AttributeError for a table of something that is no settings.
    """
    return re.sub(
        r"(?<=<!-- settings: )(\w+)( -->\n\n).*?(?=\n<!-- end of settings -->)",
        lambda found: found[1] + found[2] + table(getattr(settings, found[1])),
        text,
        flags=re.DOTALL,
    )


def table(model: type[BaseModel]) -> str:
    """Return the table of a model's settings, in Markdown."""
    docstrings = dict(attribute_docstrings(model))
    head = f"| {HEADS[model.__name__]} | default | meaning |\n|---|---|---|\n"
    return head + "".join(
        f"| `{name}` | {default(model, name, field)} | {meaning(model, name, docstrings)} |\n"
        for name, field in model.model_fields.items()
    )


def attribute_docstrings(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield each attribute with the text that stands below it in the source."""
    [definition] = ast.parse(inspect.getsource(model)).body
    assert isinstance(definition, ast.ClassDef)
    for statement, below in zip(definition.body, definition.body[1:], strict=False):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, text


def default(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    """Return what holds where the setting is not given."""
    if field.is_required():
        return "required"
    told = DEFAULTS.get(f"{model.__name__}.{name}")
    if told is not None:
        return told
    value = field.default
    return "none" if value in {None, ()} else f"`{json.dumps(value).removesuffix('.0').strip(QUOTE)}`"


def meaning(model: type[BaseModel], name: str, docstrings: dict[str, str]) -> str:
    """Return what the setting does, as a cell: the docstring's text, or a fuller one."""
    text = FULLER.get(model.__name__, {}).get(name) or docstrings[name].removesuffix(".")
    text = re.sub(r"^(True|False)\b", lambda word: f"`{word[0].lower()}`", text)
    text = re.sub(r"\b(0|null) (?=blocks|sets|= )", r"`\1` ", text)
    return (text if text.startswith("`") else text[0].lower() + text[1:]).replace("|", "\\|")


if __name__ == "__main__":
    REFERENCE.write_text(rewritten(REFERENCE.read_text()))
