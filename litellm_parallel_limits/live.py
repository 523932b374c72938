"""The limits in force: those of LiteLLM's configuration as it is now."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from litellm_parallel_limits.errors import ConfigurationError
from litellm_parallel_limits.model_info import SECTION
from litellm_parallel_limits.policy import Policy
from litellm_parallel_limits.settings import Settings, read
from litellm_parallel_limits.tables import table

LIVE = frozenset({"limits", "mode", "on_store_failure", "take_over_key_limit", "wait"})
"""The settings of which a change holds at once; any other holds from the next start."""

logger = logging.getLogger("litellm_parallel_limits")


class LivePolicy:
    """Gives the policy; looks at the configuration anew where LiteLLM has read it anew.

    `config` gives LiteLLM's, another object whenever it was read. After a mistake in it the policy stays.
    `on_change` is called when there is another policy.
    """

    def __init__(
        self,
        settings: Settings,
        config: Callable[[], Mapping[str, Any]],
        environment: Mapping[str, str],
        on_invalid: Callable[[str], None],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._config = config
        self._environment = environment
        self._on_invalid = on_invalid
        self._on_change = on_change
        self._read: object = None
        self._mistake = ""
        self._policy = settings.policy(on_invalid)

    def __call__(self) -> Policy:
        """Return the policy in force."""
        config = self._config()
        if config is not self._read:
            self._read = config
            self._read_again(config)
        return self._policy

    def _read_again(self, config: Mapping[str, Any]) -> None:
        try:
            settings = read(section(config), self._environment)
        except ConfigurationError as error:
            self._tell(str(error))
            return
        self._mistake = ""
        if settings == self._settings:
            return
        later = _changed(settings, self._settings) - LIVE
        if later:
            logger.warning("Parallel limits: %s: holds from the next start", ", ".join(sorted(later)))
        logger.warning("Parallel limits: new settings hold from now on")
        self._settings = settings
        self._policy = settings.policy(self._on_invalid)
        self._on_change()

    def _tell(self, mistake: str) -> None:
        """Tell of a mistake once, however often LiteLLM reads it."""
        if mistake != self._mistake:
            self._mistake = mistake
            logger.error(
                "Parallel limits: the settings stay, for there is a mistake in the new ones: %s", mistake
            )


def section(config: Mapping[str, Any]) -> object:
    """Return our section of LiteLLM's configuration, None if there is none."""
    return table(config.get("litellm_settings")).get(SECTION)


def _changed(new: Settings, old: Settings) -> set[str]:
    return {name for name in Settings.model_fields if getattr(new, name) != getattr(old, name)}
