"""Mistakes that are made on purpose, to see that tests find them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mistake:
    """A mistake: `wrong` in the place of what is `right`."""

    name: str
    right: str
    wrong: str

    def made_in(self, text: str) -> str:
        """Return a text with the mistake, if it is one that can have it."""
        return text.replace(self.right, self.wrong)


class MistakenClient:
    """A Redis client in whose scripts there is a mistake."""

    def __init__(self, client: Any, mistake: Mistake) -> None:
        self._client = client
        self._mistake = mistake

    def register_script(self, script: str) -> Any:
        """Return `script` as a callable."""
        return self._client.register_script(self._mistake.made_in(script))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def called(mistake: Mistake) -> str:
    """Return the name of a mistake."""
    return mistake.name
