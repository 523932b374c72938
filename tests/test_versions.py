"""On the newest LiteLLM that is tried every test runs; what older ones cannot do stands in the reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rig import litellm_version
from tests.rig.litellm_version import NEWEST, Ability, release

pytestmark = pytest.mark.versions

ABILITIES = [value for value in vars(litellm_version).values() if isinstance(value, Ability)]
REFERENCE = (Path(__file__).parents[1] / "docs" / "reference.md").read_text()


@pytest.mark.parametrize("ability", ABILITIES, ids=lambda ability: ability.what)
def test_the_newest_has_every_ability(ability: Ability) -> None:
    """Nothing needs a LiteLLM that is newer than the newest tried."""
    assert release(ability.since) <= release(NEWEST)


@pytest.mark.parametrize("ability", ABILITIES, ids=lambda ability: ability.what)
def test_the_reference_says_what_older_versions_cannot_do(ability: Ability) -> None:
    """Each ability that tests need stands there, with the version that has it."""
    assert f"| {ability.since} | {ability.what} |" in REFERENCE
