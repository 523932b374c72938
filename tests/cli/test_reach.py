"""What `check` calls needless or unmet surely is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from litellm import Router

from litellm_parallel_limits.cli.checks.known_models import known_models
from litellm_parallel_limits.cli.checks.reach import covers, never_full, shadowed
from litellm_parallel_limits.groups import find
from litellm_parallel_limits.patterns import matches
from litellm_parallel_limits.settings import Settings, read
from litellm_parallel_limits.sources import Call, Identity

GLOBS = st.text("ab*?[]!-", max_size=5)
NAMES = st.text("ab-", max_size=5)

PARTIES = ["key", "user", "team", "tag", "model"]
SOME_NAMES = st.lists(st.sampled_from(["a", "ab", "b", "a*", "*", "?"]), min_size=1, max_size=2)
LIMITS = st.fixed_dictionaries(
    {
        "by": st.lists(st.sampled_from(PARTIES), max_size=2, unique=True),
        "max_parallel_requests": st.integers(0, 3),
    },
    optional={
        "models": SOME_NAMES,
        "where": st.dictionaries(st.sampled_from(PARTIES), SOME_NAMES, max_size=1),
        "mode": st.sampled_from(["enforce", "observe"]),
        "on_store_failure": st.sampled_from(["share", "allow"]),
    },
)
IDENTITIES = st.builds(
    Identity, st.sampled_from(["a", "b", "ab"]), st.sampled_from([(), ("a",), ("b", "ab")])
)
CALLS = st.builds(
    Call,
    identities=st.dictionaries(st.sampled_from(PARTIES[:3]), IDENTITIES),
    models=st.lists(IDENTITIES, max_size=2).map(tuple),
    tags=st.lists(IDENTITIES, max_size=2).map(tuple),
)

MODELS = ["gpt-4", "openai/gpt-4", "openai/*", "*", "claude-*", "anthropic/claude-4", "mine/*", "llama"]
BEHIND = ["openai/gpt-4", "openai/*", "anthropic/claude-4", "anthropic/*"]
DEPLOYMENTS = st.lists(
    st.fixed_dictionaries({"model_name": st.sampled_from(MODELS), "model": st.sampled_from(BEHIND)}),
    min_size=1,
    max_size=3,
)
ALIASES = st.dictionaries(
    st.sampled_from(["smart", "gpt-4", "openai/smart"]), st.sampled_from(MODELS), max_size=1
)
ASKED = [
    "gpt-4",
    "gpt-4o",
    "openai/gpt-4",
    "claude-4",
    "anthropic/claude-4",
    "mine/x",
    "smart",
    "openai/smart",
]


@given(wide=GLOBS, narrow=GLOBS, name=NAMES)
def test_what_is_covered_matches_nothing_else(wide: str, narrow: str, name: str) -> None:
    """Where a glob is covered by another, every name that it matches is matched by that one."""
    if covers(wide, narrow) and matches((name,), (narrow,)):
        assert matches((name,), (wide,))


@given(globs=st.lists(GLOBS, max_size=5), name=NAMES)
def test_a_shadowed_glob_can_be_left_out(globs: list[str], name: str) -> None:
    """Without those that add nothing a list of globs matches what it matched with them."""
    needless = {place for place, _ in shadowed(globs)}
    left = [one for place, one in enumerate(globs) if place not in needless]
    assert matches((name,), globs) == matches((name,), left)


@settings(max_examples=500)
@given(limits=st.lists(LIMITS, min_size=2, max_size=2), calls=st.lists(CALLS, max_size=4))
def test_a_limit_that_is_never_full_stands_in_a_lower_one(limits: list[Any], calls: Sequence[Call]) -> None:
    """Requests that count in one of its scopes count in one scope of the lower limit, which is enforced."""
    named = [{**limit, "name": f"limit-{number}"} for number, limit in enumerate(limits)]
    section: Settings = read({"limits": named}, {})
    wide = never_full(1, section)
    if wide is None:
        return
    lower, higher = section.policy().operator_limits
    assert lower.name == wide.name
    assert lower.mode == "enforce"
    assert lower.max_parallel_requests < higher.max_parallel_requests
    for call in calls:
        theirs = set(lower.met(call))
        for scope in higher.met(call):
            assert tuple(scope[higher.by.index(dimension)] for dimension in lower.by) in theirs


@settings(max_examples=60, deadline=None)
@given(
    deployments=DEPLOYMENTS,
    aliases=ALIASES,
    globs=st.lists(st.sampled_from([*ASKED, "gpt*", "mine/*", "x*"]), max_size=2),
)
def test_what_no_model_is_called_litellm_answers_for_nobody(
    deployments: list[Any], aliases: dict[str, str], globs: list[str]
) -> None:
    """Of the names that LiteLLM's router answers for, no limit that is called unmet meets any."""
    model_list = [
        {"model_name": one["model_name"], "litellm_params": {"model": one["model"], "api_key": "none"}}
        for one in deployments
    ]
    known = known_models({"model_list": model_list, "router_settings": {"model_group_alias": aliases}}, {})
    router = Router(model_list=model_list, model_group_alias=dict(aliases))
    for name in ASKED:
        found = find(router, name)
        if found.entries and matches({found.name, *found.others, name}, globs):
            assert known.may_meet(globs)
