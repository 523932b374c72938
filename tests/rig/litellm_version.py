"""The LiteLLM that the tests run on, and what an older one cannot do.

A test that needs a newer one says so, by what it needs. On the newest that is tried nothing is left out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version

import pytest

NEWEST = "1.106.2"
"""The newest LiteLLM that the tests are tried on."""


def release(text: str) -> tuple[int, ...]:
    """Return a version as numbers, which compare as versions do."""
    return tuple(int(number) for number in text.split(".")[:3] if number.isdigit())


VERSION = release(version("litellm"))


@dataclass(frozen=True)
class Ability:
    """What LiteLLM does since the version `since`, as far as we know: not every version was tried."""

    since: str
    what: str

    def __bool__(self) -> bool:
        """Whether the LiteLLM that is installed does it."""
        return release(self.since) <= VERSION


PROJECTS = Ability("1.90", "the auth object knows projects, and an organization's alias")
USERS_NUMBERS = Ability("1.90", "a user's record is looked up with its max_parallel_requests")
MEMBERS_DEFAULTS = Ability("1.90", "the default budget of a team's members is looked up")
ORGANIZATIONS_BUDGETS = Ability("1.90", "an organization is looked up with its budget, and cached")
CUSTOMERS_HEADER = Ability("1.90", "x-litellm-customer-id names the customer")
BUDGETS_CHECKED = Ability("1.90", "a model_max_budget that is none is left alone")
MODELS_CHECKED = Ability("1.106", "a model that is no text is refused with 400, not 500")
SENTINELS_PASSWORD = Ability("1.106", "a Redis behind Sentinel may have a password")
COORDINATION_REDIS = Ability("1.106", "general_settings.coordination_redis names a Redis")
GRANIAN = Ability("1.90", "runs on granian")
PATIENCE = Ability("1.90", "can be told how long a busy worker may be silent")
TRANSCRIPTIONS_ERRORS = Ability("1.90", "a transcription is refused with 429, not 500")
BACKGROUND_POLLING = Ability("1.90", "responses in the background are polled by LiteLLM")
TOOLS = Ability("1.90", "pre-call hooks are called for MCP tools")
REALTIME_WITHOUT_TLS = Ability("1.90", "a realtime provider is reached without TLS")
RESPONSES_WEBSOCKET = Ability("1.90", "/v1/responses has a websocket")
NAMED_ROUTING_GROUPS = Ability("1.106", "routing groups have names")
PACKAGES = Ability("1.94", "loads callbacks from packages, not only from files beside the config")
OWN_METADATA = Ability("1.106", "a key's metadata stays its own, whatever its team's says")
MODERATION = Ability("1.106", "a plain callback's moderation hook is called")
RESPONSES_CACHE = Ability("1.90", "answers of /v1/responses are cached")
MESSAGES_CACHE = Ability("1.106", "answers of /v1/messages are cached")
MESSAGES_TIME_OUT = Ability("1.106", "/v1/messages heeds a model's time-out")
BROKEN_OFF = Ability("1.106", "a client is told where the provider breaks its answer off")
FAILED_TRIES = Ability("1.106", "a plugin is told of a deployment's try that failed")
LOG_FIELDS = Ability("1.106", "a line of the log in JSON has its fields")
FALLBACKS = Ability("1.106", "a model that is full is answered for by its fallbacks")
MESSAGES_ERRORS = Ability("1.106", "/v1/messages refuses in Anthropic's shape")


def needs(ability: Ability) -> pytest.MarkDecorator:
    """Leave a test, or a row of one, out where LiteLLM does not have the ability."""
    return pytest.mark.needs(ability)


def marks(*abilities: Ability | None) -> Collection[pytest.MarkDecorator]:
    """Return the marks of a row that needs these."""
    return [needs(ability) for ability in abilities if ability is not None]
