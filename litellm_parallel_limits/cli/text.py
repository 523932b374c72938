"""Texts of strangers, fit to be shown on a terminal."""

from __future__ import annotations

from typing import Any


def plain(text: str) -> str:
    """Return `text` without what a terminal would obey, or could not show; every space is a plain one.

    That is what moves the cursor, turns a line around, is half a character, or none at all.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else " " * one.isspace() for one in text)


def cleaned(document: Any) -> Any:
    """Return a JSON document with every text in it made plain. Raises RecursionError if it is too deep."""
    if isinstance(document, str):
        return plain(document)
    if isinstance(document, dict):
        return {plain(name): cleaned(value) for name, value in document.items()}
    if isinstance(document, list):
        return [cleaned(value) for value in document]
    return document


def counted(number: int, one: str, several: str = "") -> str:
    """Return `number` with the word for so many."""
    return f"{number} {one if number == 1 else several or one + 's'}"
