"""What can go wrong."""

from __future__ import annotations


class ParallelLimitsError(Exception):
    """The root of this package's errors."""


class ConfigurationError(ParallelLimitsError):
    """The operator's settings cannot be used; the message names the entry and what is allowed."""


class StoreError(ParallelLimitsError):
    """The store could not answer; the cause is attached."""


class LeasesLostError(StoreError):
    """The store has lost leases: it admits nobody until the worker has renewed what it holds."""


class TooManyLimitsError(ParallelLimitsError):
    """A request names more models, or stands in more limits, than anybody's would."""


class GoneError(ParallelLimitsError):
    """Whoever asked has left while it waited: nobody wants the answer any more."""


class NoRecordError(ParallelLimitsError):
    """LiteLLM says that there is no such record, and may mean that it could not look."""


class StoreUnavailableError(ParallelLimitsError):
    """A limit that says `on_store_failure: deny` could not be checked."""

    def __init__(self, limit: str) -> None:
        super().__init__(f"Parallel request limit '{limit}' cannot be checked: its store does not answer.")
        self.limit = limit
