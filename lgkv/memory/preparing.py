"""Puts, checked and encoded outside every lock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lgkv.errors import InvalidInputError
from lgkv.expiry import ttl_us
from lgkv.keys import encode_text
from lgkv.keywords import Words, count_words
from lgkv.memory.checks import check_key, check_namespace
from lgkv.memory.items import encode_value
from lgkv.vectors import VectorSet, vector_set

__all__ = ["Prepared", "Put", "prepare"]


class Put(NamedTuple):
    """An item to store; with `value` None, to delete.

    `vectors` is a mapping from field paths to vectors, a list of vectors, one vector, or None.
    `text` is what a search by words finds the item by: a str, a list of them, or None.
    """

    namespace: tuple[str, ...]
    key: str
    value: Mapping[str, Any] | None
    vectors: Any = None
    ttl_seconds: float | None = None
    text: str | Sequence[str] | None = None


class Prepared(NamedTuple):
    """A put, checked and encoded; without `encoded` it deletes. `key` is as it is stored."""

    namespace: tuple[str, ...]
    key: bytes
    encoded: bytes | None
    vectors: VectorSet | None = None
    ttl_us: int = 0
    words: Words | None = None


def prepare(puts: Iterable[Put]) -> list[Prepared]:
    """Return the last put of each item, in the order of the first ones.

    Raises:
        InvalidInputError: A namespace, a key, a value, a vector or a time is not usable.
    """
    last: dict[tuple[tuple[str, ...], bytes], Prepared] = {}
    known: set[tuple[str, ...]] = set()
    for namespace, key, value, vectors, ttl_seconds, text in puts:
        _check(namespace, known)
        raw = encode_text(check_key(key))
        if value is None:
            last[namespace, raw] = Prepared(namespace, raw, None)
            continue
        last[namespace, raw] = Prepared(
            namespace,
            raw,
            encode_value(value),
            None if vectors is None else vector_set(vectors),
            0 if ttl_seconds is None else ttl_us(ttl_seconds),
            None if text is None else count_words(text),
        )
    return list(last.values())


def _check(namespace: Any, known: set[tuple[str, ...]]) -> None:
    """Raise unless items can be stored in `namespace`; those that they can be in are `known`."""
    try:
        if namespace in known:
            return
    except TypeError:  # it is not a tuple of str, which the check says better
        pass
    if not check_namespace(namespace):
        raise InvalidInputError(
            "an item cannot be stored in the empty namespace (): give it a label"
        )
    known.add(namespace)
