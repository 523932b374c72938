"""What the operator's log is told."""

from __future__ import annotations

import logging

from litellm_parallel_limits.events import Event, InvalidLimit, StoreFailed, StoreRecovered

logger = logging.getLogger("litellm_parallel_limits")


class Log:
    """Writes one line when the store goes, one when it is back, and one for each source of bad values."""

    def __init__(self) -> None:
        self._store_is_out = False
        self._invalid: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Take note of what happened."""
        match event:
            case StoreFailed(operation, error) if not self._store_is_out:
                self._store_is_out = True
                logger.error(
                    "Parallel limits: the store is out (%s: %s); on_store_failure holds", operation, error
                )
            case StoreRecovered() if self._store_is_out:
                self._store_is_out = False
                logger.warning("Parallel limits: the store is back")
            case InvalidLimit(source) if source not in self._invalid:
                self._invalid.add(source)
                logger.warning(
                    "Parallel limits: ignored a value that is no whole number from 0 on (%s)", source
                )
            case _:
                pass
