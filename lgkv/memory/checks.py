"""Checks of what callers give: namespaces, keys, pages, modes of a search."""

from __future__ import annotations

import sys
from typing import Any

from lgkv.errors import InvalidInputError

__all__ = ["check_key", "check_mode", "check_namespace", "check_page"]


def check_namespace(namespace: Any) -> tuple[str, ...]:
    """Return `namespace`; InvalidInputError unless it is a tuple of str that are not empty."""
    if not isinstance(namespace, tuple):
        raise InvalidInputError(
            f"a namespace is a tuple of str, not {namespace!r}: write ('users', '42')"
        )
    for label in namespace:
        if not isinstance(label, str) or not label:
            raise InvalidInputError(
                f"the label {label!r} of namespace {namespace!r} is not a str, or empty"
            )
    return namespace


def check_key(key: Any) -> str:
    """Return `key`; InvalidInputError unless it is a str."""
    if not isinstance(key, str):
        raise InvalidInputError(f"a key is a str, not {key!r}: convert it with str()")
    return key


def check_mode(mode: str | None, vector: Any, text: Any) -> str | None:
    """Return the mode of a search; InvalidInputError if it is none, or lacks what it needs."""
    if text is not None and not isinstance(text, str):
        raise InvalidInputError(f"the text to search for is {text!r}: give a str")
    given = {"vector": vector is not None, "keyword": text is not None}
    if mode is None:
        return "hybrid" if all(given.values()) else next((m for m in given if given[m]), None)
    needed = {"vector": ["vector"], "keyword": ["keyword"], "hybrid": ["vector", "keyword"]}
    if mode not in needed:
        raise InvalidInputError(f"unknown mode {mode!r}: use 'vector', 'keyword' or 'hybrid'")
    for each in needed[mode]:
        if not given[each]:
            what = "vector=..." if each == "vector" else "text=..."
            raise InvalidInputError(f"a search by {mode!r} needs {what}")
    return mode


def check_page(limit: Any, offset: Any) -> slice:
    """Return the page, cut to what can be counted.

    Raises:
        InvalidInputError: `limit` or `offset` is not a whole number, 0 or more.
    """
    for name, number in (("limit", limit), ("offset", offset)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise InvalidInputError(f"{name} is {number!r}: give a whole number, 0 or more")
    return slice(min(offset, sys.maxsize), min(offset + limit, sys.maxsize))
