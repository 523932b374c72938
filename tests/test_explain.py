"""Which limits a request meets, and why, in words."""

from __future__ import annotations

from dataclasses import replace

from litellm_parallel_limits.explain import YAML, NotMet, Overridden, Waits, explain
from litellm_parallel_limits.policy import OperatorLimit, Policy
from litellm_parallel_limits.sources import Call, Identity
from litellm_parallel_limits.wait_rules import WaitRule

CALL = Call(
    {"key": Identity("3fa9c1e5" + "0" * 56), "user": Identity("ann"), "team": Identity("sales")},
    models=(Identity("gpt-4", ("four",)),),
    records={
        "key metadata": {"model_max_parallel_requests": {"gpt-4": 2}},
        "key model_max_budget": {"gpt-4": {"max_parallel_requests": "many"}},
        "team metadata": {"model_max_parallel_requests": {"gpt-*": 5}, "team_max_parallel_requests": 40},
    },
)


def test_each_number_has_its_source() -> None:
    """The source that holds, those it overrides, and those that say nothing sensible are all told."""
    model_per_key, team = explain(Policy(), CALL, "four").limits
    assert (model_per_key.name, model_per_key.limit) == ("model_per_key", 2)
    assert model_per_key.scope == {"key": "3fa9c1e5", "model": "gpt-4"}
    assert model_per_key.source == "key metadata model_max_parallel_requests"
    assert model_per_key.overridden == [Overridden("team metadata model_max_parallel_requests", 5)]
    assert model_per_key.invalid == ["key model_max_budget max_parallel_requests"]
    assert (team.name, team.limit, team.source) == ("team", 40, "team metadata team_max_parallel_requests")


def test_limits_of_the_yaml_are_told() -> None:
    """An operator's limit says that it comes from the YAML, and how one waits for it."""
    pool = OperatorLimit("pool", 3, ("model",), wait=WaitRule(30, 100, "user"))
    (met,) = explain(Policy((pool,)), replace(CALL, records={}), "four").limits
    assert (met.name, met.limit, met.source, met.mode) == ("pool", 3, YAML, "enforce")
    assert met.wait == Waits(30, 100, "user")


def test_limits_that_are_not_met_say_why() -> None:
    """What the request lacks, or is not, is named."""
    limits = (
        OperatorLimit("per-customer", 1, ("end_user",)),
        OperatorLimit("research", 1, where={"team": ("research", "lab-*")}),
        OperatorLimit("llamas", 1, models=("llama-*",)),
        OperatorLimit("all", 1),
    )
    explained = explain(Policy(limits), replace(CALL, records={}), "four")
    assert explained.not_met == [
        NotMet("per-customer", "the request has no end_user"),
        NotMet("research", "team is none of research, lab-*"),
        NotMet("llamas", "model is none of llama-*"),
    ]


def test_strangers_names_are_shown_as_they_may_be() -> None:
    """Neither a long nor a hostile name, nor a whole key, is told."""
    hostile = "\x1b[2J" + "x" * 500
    call = replace(CALL, identities={**CALL.identities, "user": Identity(hostile)}, records={})
    explained = explain(Policy((OperatorLimit("u", 1, ("user",)),)), call, hostile)
    assert explained.identities["key"] == "3fa9c1e5"
    texts = (explained.model, *explained.identities.values())
    assert all(len(text) < 70 and text.isprintable() for text in texts)
