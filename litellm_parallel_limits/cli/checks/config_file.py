"""A configuration of LiteLLM's, with the line of each entry.

Files are merged as YAML's nodes, which know where they stand; what LiteLLM would see is made of the result.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from litellm_parallel_limits.cli.checks import Finding, Place
from litellm_parallel_limits.cli.checks.secrets import shown

INCLUDE = "include"
TABLE = "tag:yaml.org,2002:map"

MOST_NODES = 1_000_000
"""Of a configuration, aliases resolved. Ours: a deployment takes a dozen."""

Pairs = dict[tuple[str, str], tuple[yaml.Node, yaml.Node]]
"""The entries of a table, by the tag and the text of their names."""


class ConfigFileError(Exception):
    """A file cannot be read as LiteLLM reads it."""

    def __init__(self, told: str, place: Place | None) -> None:
        super().__init__(told)
        self.finding = Finding("error", shown(told), place)


@dataclass(frozen=True, slots=True)
class Config:
    """What LiteLLM sees of a configuration, where it stands, and what was found while reading it."""

    data: Mapping[Any, Any]
    root: yaml.Node
    path: Path
    findings: tuple[Finding, ...]

    def place(self, *path: str | int) -> Place:
        """Return where the entry at `path` stands, or the nearest thing above it that is there."""
        node, mark = self.root, None
        for step in path:
            found = _step(node, step)
            if found is None:
                break
            mark, node = found
        return Place(str(self.path), 1) if mark is None else _place(mark)


def read(path: Path) -> Config:
    """Return the configuration in a file with all that it includes. Raises ConfigFileError."""
    root = _compose(path)
    if root is None:
        raise ConfigFileError("is empty", Place(str(path), 1))
    findings = list(_given_twice(root))
    pairs = _pairs(root)
    for included in _included(pairs, path):
        findings += _given_twice(included)
        more = _pairs(included)
        findings += _replaced(pairs, more)
        pairs = _merged(pairs, more)
    pairs = {name: pair for name, pair in pairs.items() if name[1] != INCLUDE}
    merged = yaml.MappingNode(TABLE, list(pairs.values()), root.start_mark, root.end_mark)
    data = _made(merged)
    return Config(data, merged, path, tuple(findings))


def _compose(path: Path, declared: Place | None = None) -> yaml.Node | None:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigFileError("is no text in UTF-8", Place(str(path), 1)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name of a file"
        raise ConfigFileError(f"{path.name} cannot be read: {reason}", declared) from None
    try:
        loader = yaml.SafeLoader(text)
        loader.name = str(path)
        return loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise ConfigFileError("a character that YAML does not allow", Place(str(path), line)) from None
    except yaml.MarkedYAMLError as error:
        raise _no_yaml(error, path) from None
    except RecursionError:
        raise ConfigFileError("is nested too deeply", Place(str(path), 1)) from None
    except ValueError:
        raise ConfigFileError("is no YAML", Place(str(path), 1)) from None  # of an escape beyond Unicode


def _made(node: yaml.Node) -> Any:
    """Return what YAML says that a node is."""
    if _size(node) > MOST_NODES:
        raise ConfigFileError(
            "is too large: its aliases stand for millions of entries", _place(node.start_mark)
        )
    try:
        return yaml.constructor.SafeConstructor().construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise _no_yaml(error, Path(_place(node.start_mark).file)) from None
    except Exception as error:  # a value that is none of its kind: PyYAML raises whatever comes
        raise ConfigFileError("a value that YAML cannot read", _place(node.start_mark)) from error


def _no_yaml(error: yaml.MarkedYAMLError, path: Path) -> ConfigFileError:
    mark = error.problem_mark or error.context_mark
    place = Place(str(path), 1) if mark is None else _place(mark)
    return ConfigFileError(f"is no YAML: {error.problem or error.context}", place)


def _pairs(node: yaml.Node) -> Pairs:
    """Return the entries of a file, the last of each name. Raises ConfigFileError if it is no table."""
    if not isinstance(node, yaml.MappingNode):
        raise ConfigFileError("is no table of settings", _place(node.start_mark))
    try:
        yaml.constructor.SafeConstructor().flatten_mapping(node)
    except yaml.MarkedYAMLError as error:
        raise _no_yaml(error, Path(_place(node.start_mark).file)) from None
    return {(name.tag, str(name.value)): (name, value) for name, value in node.value}


def _included(pairs: Pairs, path: Path) -> Iterator[yaml.MappingNode]:
    """Yield each file that is included, once, in LiteLLM's order: breadth first."""
    pending = list(_includes(pairs, path))
    loaded = {path.absolute()}
    while pending:
        name, declared_in, place = pending.pop(0)
        target = _target(name, declared_in, path)
        if _absolute(target) in loaded:
            continue
        loaded.add(_absolute(target))
        node = _compose(target, place)
        if node is None:
            continue
        yield_pairs = _pairs(node)
        assert isinstance(node, yaml.MappingNode)  # noqa: S101 (told to mypy; _pairs raises else)
        yield node
        pending += _includes(yield_pairs, target)


def _target(name: str, declared_in: Path, root: Path) -> Path:
    """Return the file beside the one that names it, else the one beside the first: so LiteLLM has it."""
    beside, beside_root = declared_in.parent / name, root.parent / name
    is_beside_root = os.path.exists(beside_root)  # noqa: PTH110 (Path's raises for a name that is too long)
    return beside_root if is_beside_root and not os.path.exists(beside) else beside  # noqa: PTH110


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 (as LiteLLM does: `..` is removed, links are not followed)


def _includes(pairs: Pairs, path: Path) -> Iterator[tuple[str, Path, Place]]:
    for name, value in pairs.values():
        if name.value != INCLUDE:
            continue
        names = _made(value)
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            raise ConfigFileError("include: not a list of files", _place(name.start_mark))
        places = value.value if isinstance(value, yaml.SequenceNode) else []
        for one, node in zip(names, places, strict=False):
            yield one, path, _place(node.start_mark)


def _merged(base: Pairs, included: Pairs) -> Pairs:
    """Merge as LiteLLM does: lists are put together, anything else takes the place of what was there."""
    merged = dict(base)
    for name, (key, value) in included.items():
        if name[1] == INCLUDE:
            continue
        before = base[name][1] if name in base else None
        if isinstance(before, yaml.SequenceNode) and isinstance(value, yaml.SequenceNode):
            together = [*before.value, *value.value]
            joined = yaml.SequenceNode(before.tag, together, before.start_mark, before.end_mark)
            merged[name] = (base[name][0], joined)
        else:
            merged[name] = (key, value)
    return merged


def _replaced(base: Pairs, included: Pairs) -> Iterator[Finding]:
    """Tell of `litellm_settings` that are lost because an included file has some, too."""
    for name, (key, _) in included.items():
        if name in base and name[1] == "litellm_settings":
            other = _place(base[name][0].start_mark)
            told = f"litellm_settings takes the place of that in {other.file}:{other.line}, all of it"
            yield Finding("warning", shown(told), _place(key.start_mark))


def _given_twice(root: yaml.Node) -> Iterator[Finding]:
    """Tell of names that stand twice in a table, of which YAML takes the last in silence."""
    pending, seen = [root], {id(root)}
    while pending:
        node = pending.pop()
        if isinstance(node, yaml.MappingNode):
            yield from _doubles([name for name, _ in node.value if isinstance(name, yaml.ScalarNode)])
        for child in _children(node):
            if id(child) not in seen:  # an alias: looked at already
                seen.add(id(child))
                pending.append(child)


def _children(node: yaml.Node) -> Sequence[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [value for _, value in node.value]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _size(root: yaml.Node) -> int:
    """Return how many nodes there are, one that aliases name several times as often as they do."""
    sizes: dict[int, int] = {}
    pending = [(root, False)]
    while pending:
        node, is_entered = pending.pop()
        if is_entered:
            sizes[id(node)] = 1 + sum(sizes[id(child)] for child in _children(node))
        elif id(node) not in sizes:
            sizes[id(node)] = 0  # until it is known: within itself it is not counted again
            pending.append((node, True))
            pending += [(child, False) for child in _children(node)]
    return sizes[id(root)]


def _doubles(names: Sequence[yaml.ScalarNode]) -> Iterator[Finding]:
    seen: set[tuple[str, str]] = set()
    for name in names:
        if (name.tag, name.value) in seen and name.value != "<<":
            told = f"{name.value}: given twice in one table; only the last one holds"
            yield Finding("warning", shown(told), _place(name.start_mark))
        seen.add((name.tag, name.value))


def _step(node: yaml.Node, step: str | int) -> tuple[yaml.Mark, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark, node.value[step]
    if isinstance(node, yaml.MappingNode):
        for name, value in reversed(node.value):
            if isinstance(name, yaml.ScalarNode) and name.value == str(step):
                return name.start_mark, value
    return None


def _place(mark: Any) -> Place:
    return Place(str(mark.name), int(mark.line) + 1)
