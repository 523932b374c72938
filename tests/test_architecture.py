"""Imports go one way, and LiteLLM is known only where it must be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import litellm_parallel_limits

PACKAGE = "litellm_parallel_limits"
ROOT = Path(litellm_parallel_limits.__file__).parent

LAYERS = (
    {
        "limits",
        "errors",
        "patterns",
        "deadlines",
        "tables",
        "paths",
        "stand_ins",
        "siblings",
        "host_file",
        "background",
        "incoming",
        "renewal",
    },
    {
        "background_work",
        "sources",
        "events",
        "stores",
        "shares",
        "model_info",
        "native_field",
        "stores.bells",
        "stores.order",
    },
    {"history", "onlooker"},
    {"redis_named", "built_in", "groups", "waiting", "wait_rules", "stores.exchange", "stores.line"},
    {"policy", "models", "records", "stores.turns", "stores.admit", "stores.redis", "stores.timed"},
    {"stores.memory", "stores.host", "stores.shared"},
    {"limiter", "hold_times", "answers"},
    {"settings", "holder", "gate", "status", "health", "explain"},
    {"overview"},
    {"logs", "metrics", "connections", "live", "look_ups", "calls"},
    {"known", "middleware", "tracing", "admission", "first_of", "undecided", "asker"},
    {"routing"},
    {"auth", "room", "routes", "page_routes", "store_choice"},
    {"plugin"},
    {"entry"},
    {"cli.exits", "cli.text", "cli.bars", "cli.keyboard", "cli.printing", "cli.checks"},
    {"cli.proxy", "cli.documents", "cli.sample_proxy", "cli.burst"},
    {"cli.options", "cli.pages", "cli.views"},
    {"cli.checks.secrets", "cli.checks.reach", "cli.checks.words"},
    {"cli.checks.config_file", "cli.checks.known_models"},
    {"cli.checks.rules"},
    {"cli.checks.reports"},
    {"cli.check", "cli.status", "cli.top", "cli.release", "cli.health", "cli.explain", "cli.demo"},
    {"cli"},
    {"__main__"},
)
"""Each module imports from the layers above its own, and within a package from the package."""

EDGES = {
    "settings": {"pydantic"},
    "auth": {"litellm"},
    "look_ups": {"litellm"},
    "records": {"cachetools"},
    "plugin": {"litellm", "fastapi"},
    "asker": {"litellm"},
    "routes": {"litellm", "fastapi", "pydantic"},
    "page_routes": {"fastapi"},
    "connections": {"litellm", "redis"},
    "store_choice": {"litellm"},
    "entry": {"litellm"},
    "cli": {"click"},
    "cli.exits": {"click"},
    "cli.printing": {"click", "rich"},
    "cli.documents": {"pydantic"},
    "cli.proxy": {"click", "httpx"},
    "cli.options": {"click"},
    "cli.views": {"rich"},
    "cli.sample_proxy": {"httpx"},
    "cli.burst": {"httpx"},
    "cli.checks.config_file": {"yaml"},
    "cli.check": {"click"},
    "cli.status": {"click"},
    "cli.top": {"click", "rich"},
    "cli.release": {"click"},
    "cli.health": {"click"},
    "cli.explain": {"click"},
    "cli.demo": {"click", "rich"},
    "metrics": {"prometheus_client"},
}
"""Where others' types end: what a module may import beside the standard library."""


def name(path: Path) -> str:
    """Return a module's name within the package, of its file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name(path): path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"}


def imports(path: Path) -> Iterator[str]:
    """Yield the name of every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            of = node.module or ""
            yield from (f"{of}.{alias.name}" if of == PACKAGE else of for alias in node.names)


def layer(module: str) -> int:
    """Return the number of a module's layer."""
    return next(number for number, modules in enumerate(LAYERS) if module in modules)


def test_every_module_has_its_layer() -> None:
    """There is no module of which it is not said where it stands."""
    assert set(MODULES) <= set().union(*LAYERS)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_one_way(module: str) -> None:
    """A module imports nothing of its own layer or of a later one, but its package."""
    ours = {
        found.removeprefix(PACKAGE + ".") for found in imports(MODULES[module]) if found.startswith(PACKAGE)
    }
    package = module.rpartition(".")[0]
    assert {found for found in ours - {package} if layer(found) >= layer(module)} == set()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_others_are_known_at_the_edges_only(module: str) -> None:
    """LiteLLM, FastAPI and pydantic are imported by the modules that translate them, and nowhere else."""
    tops = {found.partition(".")[0] for found in imports(MODULES[module])}
    others = tops - sys.stdlib_module_names - {PACKAGE}
    assert others <= EDGES.get(module, set())


def test_importing_the_package_imports_nothing_of_litellms() -> None:
    """Who only has the package's name pays for nothing but the name."""
    program = f"import sys, {PACKAGE}; print([name for name in sys.modules if 'litellm' in name])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == f"['{PACKAGE}']"


def test_public_names_are_these() -> None:
    """What users may import is a list, and this is it."""
    assert litellm_parallel_limits.__all__ == [
        "UserAPIKeyAuth",
        "model_max_parallel_requests",
        "proxy_handler_instance",
    ]


def test_unknown_name_is_an_attribute_error() -> None:
    """Any other name is unknown, and asking for it builds nothing."""
    assert not hasattr(litellm_parallel_limits, "proxy_handler")
