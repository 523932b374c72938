"""With what a command ends."""

from __future__ import annotations

import click

NO = 1
"""The answer is no: mistakes were found, the limiter is degraded, nothing was there to release."""

NO_ANSWER = 3
"""The proxy was not reached, refused the key, or answered what cannot be read."""


class NotAnsweredError(click.ClickException):
    """There is no answer to show; the message says why, in one line."""

    exit_code = NO_ANSWER


class KeyRefusedError(NotAnsweredError):
    """The proxy does not let this key do that."""


class NothingThereError(click.ClickException):
    """The proxy answers that there is nothing of that name."""

    exit_code = NO
