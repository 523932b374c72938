"""Whom a limit of the operator's meets, and what it counts by."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from litellm_parallel_limits.limits import Limit, Scope
from litellm_parallel_limits.policy import OperatorLimit, Policy
from litellm_parallel_limits.sources import Call, Dimension, Identity

PARTIES: Mapping[Dimension, Identity] = {
    "key": Identity("k1", ("ci-key",)),
    "user": Identity("u1", ("ada@example.com",)),
    "team": Identity("t1", ("research",)),
    "end_user": Identity("e1"),
    "organization": Identity("o1", ("acme",)),
    "project": Identity("p1"),
}
LLAMA = Identity("llama-70b", ("llama",))
GPT_4 = Identity("gpt-4")


def scopes(
    limit: OperatorLimit, *models: Identity, parties: Mapping[Dimension, Identity] = PARTIES
) -> list[Scope]:
    """Return the scopes of `limit` that a call for `models` meets."""
    return [met.scope for met in Policy((limit,)).limits(Call(parties, models))]


def is_met(limit: OperatorLimit, *models: Identity, parties: Mapping[Dimension, Identity] = PARTIES) -> bool:
    """Whether a call for `models` meets `limit`."""
    return bool(scopes(limit, *models, parties=parties))


def test_limit_carries_its_settings() -> None:
    """A limit of the operator's has its own number, mode and behaviour in an outage."""
    limit = OperatorLimit("gpu", 5, mode="observe", on_store_failure="deny")
    assert Policy((limit,)).limits(Call()) == (Limit(Scope("gpu"), 5, "observe", "deny"),)


def test_by_nothing_is_one_pool() -> None:
    """A limit that counts by nothing has one count of everybody and every model."""
    assert scopes(OperatorLimit("all", 5), GPT_4, LLAMA) == [Scope("all")]
    assert scopes(OperatorLimit("all", 5), parties={}) == [Scope("all")]


@pytest.mark.parametrize("dimension", PARTIES)
def test_by_a_party_counts_each_apart(dimension: Dimension) -> None:
    """A limit by a party has a count for each, by its id; a call without that party does not meet it."""
    limit = OperatorLimit("each", 5, by=(dimension,))
    assert scopes(limit, GPT_4) == [Scope("each", ((dimension, PARTIES[dimension].id),))]
    without = {name: party for name, party in PARTIES.items() if name != dimension}
    assert not is_met(limit, GPT_4, parties=without)


def test_by_model_counts_each_group() -> None:
    """A limit by model has a count for each group that the call asks for, and none where it asks for none."""
    limit = OperatorLimit("each", 5, by=("model",))
    assert scopes(limit, LLAMA, GPT_4) == [
        Scope("each", (("model", "llama-70b"),)),
        Scope("each", (("model", "gpt-4"),)),
    ]
    assert not is_met(limit)


def test_by_several_counts_their_combinations() -> None:
    """A limit by several dimensions names them in its own order."""
    limit = OperatorLimit("each", 5, by=("model", "team"))
    assert scopes(limit, GPT_4) == [Scope("each", (("model", "gpt-4"), ("team", "t1")))]


@pytest.mark.parametrize("models", [("llama-70b",), ("llama",), ("llama-*",), ("gpt-5", "lla?a"), ("*",)])
def test_models_are_sent_or_resolved_names(models: tuple[str, ...]) -> None:
    """A limit is about a model by the name sent or resolved, or by a glob of either."""
    limit = OperatorLimit("gpu", 5, models=models)
    assert is_met(limit, LLAMA)
    assert is_met(limit, Identity("other"), LLAMA)


@pytest.mark.parametrize("models", [("gpt-4",), ("llama-7",), ("LLAMA",), ("*-7b",)])
def test_other_models_do_not_meet_it(models: tuple[str, ...]) -> None:
    """A limit about other models is not met, nor is one about any model by a call for none."""
    limit = OperatorLimit("gpu", 5, models=models)
    assert not is_met(limit, LLAMA)
    assert not is_met(limit)


def test_pool_of_models_is_one_count() -> None:
    """Several names of one machine share the pool's one count, also within a call."""
    limit = OperatorLimit("gpu", 5, models=("llama*", "gpt-4"))
    assert scopes(limit, LLAMA, GPT_4) == scopes(limit, GPT_4) == [Scope("gpu")]


def test_by_model_counts_only_the_models_it_is_about() -> None:
    """Where a call asks for several models a limit by model counts those that it names."""
    limit = OperatorLimit("gpu", 5, by=("model",), models=("llama*",))
    assert scopes(limit, LLAMA, GPT_4) == [Scope("gpu", (("model", "llama-70b"),))]


@pytest.mark.parametrize(
    ("dimension", "pattern"),
    [("team", "t1"), ("team", "research"), ("team", "res*"), ("user", "*@example.com"), ("key", "ci-*")],
)
def test_where_is_an_id_an_alias_or_a_glob(dimension: Dimension, pattern: str) -> None:
    """`where` means a party by its id or an alias, or by a glob of either."""
    assert is_met(OperatorLimit("some", 5, where={dimension: ("x", pattern)}), GPT_4)


@pytest.mark.parametrize(("dimension", "pattern"), [("team", "t2"), ("team", "Research"), ("user", "ada")])
def test_where_of_others_is_not_met(dimension: Dimension, pattern: str) -> None:
    """A limit about other parties is not met."""
    assert not is_met(OperatorLimit("some", 5, where={dimension: (pattern,)}), GPT_4)


def test_where_of_a_party_that_the_call_lacks_is_not_met() -> None:
    """A call that lacks a party named in `where` does not meet the limit, not even by a star."""
    assert not is_met(OperatorLimit("some", 5, where={"team": ("*",)}), GPT_4, parties={})


def test_where_means_all_of_it() -> None:
    """Every party named in `where` must be one of its patterns."""
    both = OperatorLimit("some", 5, where={"team": ("research",), "user": ("u2",)})
    assert not is_met(both, GPT_4)


def test_where_of_models() -> None:
    """`where` over models is a second way to say which models a limit is about; both must mean it."""
    assert is_met(OperatorLimit("some", 5, where={"model": ("llama",)}), LLAMA)
    assert not is_met(OperatorLimit("some", 5, where={"model": ("llama",)}), GPT_4)
    assert not is_met(OperatorLimit("some", 5, where={"model": ("*",)}))
    assert not is_met(OperatorLimit("some", 5, models=("gpt*",), where={"model": ("llama",)}), LLAMA, GPT_4)


def test_every_limit_that_applies_is_met() -> None:
    """A call meets its records' limits and all of the operator's, each with a scope of its own."""
    limits = (
        OperatorLimit("a", 1),
        OperatorLimit("b", 2, by=("user",)),
        OperatorLimit("c", 3, models=("x",)),
    )
    call = Call(PARTIES, (GPT_4,), {"key metadata": {"max_parallel_requests": 9}})
    assert [met.scope.limit for met in Policy(limits).limits(call)] == ["api_key", "a", "b"]


def tagged(limit: OperatorLimit, *tags: str) -> list[Scope]:
    """Return the scopes of `limit` that a call with these tags meets."""
    call = Call(PARTIES, (GPT_4,), tags=tuple(map(Identity, tags)))
    return [met.scope for met in Policy((limit,)).limits(call)]


def test_by_tag_counts_each_tag() -> None:
    """A limit by tag has a count for each tag of the call, and is not met by a call without any."""
    limit = OperatorLimit("each", 5, by=("tag",))
    assert tagged(limit, "a", "b") == [Scope("each", (("tag", "a"),)), Scope("each", (("tag", "b"),))]
    assert tagged(limit) == []


@pytest.mark.parametrize("patterns", [("batch",), ("ba*",), ("x", "batch")])
def test_where_of_tags_needs_one_of_them(patterns: tuple[str, ...]) -> None:
    """A limit about a tag is met by a call that has it, whatever other tags it has, and counted once."""
    limit = OperatorLimit("some", 5, where={"tag": patterns})
    assert tagged(limit, "other", "batch") == [Scope("some")]
    assert tagged(limit, "other", "BATCH") == []
    assert tagged(limit) == []


def test_by_tag_counts_only_the_tags_it_is_about() -> None:
    """A limit by tag that is about some tags counts those, and none that a client puts beside them."""
    limit = OperatorLimit("some", 5, by=("tag",), where={"tag": ("b*",)})
    assert tagged(limit, "a", "b1", "c", "b2") == [
        Scope("some", (("tag", "b1"),)),
        Scope("some", (("tag", "b2"),)),
    ]
    assert tagged(limit, "a", "c") == []


def test_by_tag_and_model_counts_each_pair() -> None:
    """A limit by several dimensions of which a call has several counts each combination."""
    limit = OperatorLimit("each", 5, by=("tag", "model"))
    call = Call(models=(GPT_4, LLAMA), tags=(Identity("a"), Identity("b")))
    met = Policy((limit,)).limits(call)
    assert [tuple(identity for _, identity in one.scope.identities) for one in met] == [
        *(("a", "gpt-4"), ("a", "llama-70b"), ("b", "gpt-4"), ("b", "llama-70b"))
    ]


def test_same_scope_twice_is_counted_once() -> None:
    """A call that names a tag twice holds one slot of it."""
    assert tagged(OperatorLimit("each", 5, by=("tag",)), "a", "a") == [Scope("each", (("tag", "a"),))]


@pytest.mark.parametrize(
    ("dimension", "pattern"),
    [("organization", "acme"), ("organization", "o*"), ("project", "p1"), ("end_user", "e?")],
)
def test_where_means_organizations_projects_and_customers_as_well(dimension: Dimension, pattern: str) -> None:
    """`where` may be about an organization, a project or a customer, by id, alias or glob."""
    limit = OperatorLimit("some", 5, by=(dimension,), where={dimension: (pattern,)})
    assert scopes(limit, GPT_4) == [Scope("some", ((dimension, PARTIES[dimension].id),))]
    assert not is_met(limit, GPT_4, parties={dimension: Identity("another")})


def test_identities_cannot_forge_one_another() -> None:
    """No tag reads like another's combination: what clients call themselves is quoted."""
    limit = OperatorLimit("each", 5, by=("tag", "end_user"))
    keys = {
        met.scope.key
        for tag, customer in (("a", "b"), ("a;end_user=b", ""), ("a;end_user", "b"), ("a%3B", "b"))
        for met in Policy((limit,)).limits(Call({"end_user": Identity(customer)}, tags=(Identity(tag),)))
    }
    assert len(keys) == 4
