"""Puts, checked and encoded outside every lock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class Prepared:
    """Puts of different items, checked and encoded: a column for each field, a row for each put.

    They are columns because the collector passes over every object that a put would be.
    What few puts have stands by the put's row.
    """

    namespaces: list[tuple[str, ...]] = field(default_factory=list)
    """Each namespace once; `places` says which of them a put is in."""
    places: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    """The items' keys, as they are stored."""
    encoded: list[bytes] = field(default_factory=list)
    """The values; none is as short as b"", which deletes."""
    vectors: dict[int, VectorSet] = field(default_factory=dict)
    ttl_us: dict[int, int] = field(default_factory=dict)
    words: dict[int, Words] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)


def prepare(puts: Iterable[Put]) -> Prepared:
    """Return the last put of each item, in the order of the first ones.

    Raises:
        InvalidInputError: A namespace, a key, a value, a vector or a time is not usable.
    """
    prepared = Prepared()
    places, keys, encoded = prepared.places, prepared.keys, prepared.encoded
    known: dict[tuple[str, ...], _Namespace] = {}
    for namespace, key, value, vectors, ttl_seconds, text in puts:
        try:
            within = known.get(namespace)
        except TypeError:  # it is not a tuple of str, which the check says better
            within = None
        if within is None:
            within = known[_checked(namespace)] = _Namespace(len(known))
            prepared.namespaces.append(namespace)
        raw = encode_text(check_key(key))
        stored = b"" if value is None else encode_value(value)
        row = within.rows.setdefault(raw, len(keys))
        if row == len(keys):
            places.append(within.place)
            keys.append(raw)
            encoded.append(stored)
        else:
            encoded[row] = stored
            for column in (prepared.vectors, prepared.ttl_us, prepared.words):
                column.pop(row, None)
        if value is None:
            continue
        if vectors is not None and (several := vector_set(vectors)) is not None:
            prepared.vectors[row] = several
        if ttl_seconds is not None:
            prepared.ttl_us[row] = ttl_us(ttl_seconds)
        if text is not None:
            prepared.words[row] = count_words(text)
    return prepared


@dataclass(slots=True)
class _Namespace:
    """The puts of one namespace so far: the row of each key."""

    place: int
    rows: dict[bytes, int] = field(default_factory=dict)


def _checked(namespace: Any) -> tuple[str, ...]:
    """Return `namespace`; raise unless items can be stored in it."""
    checked = check_namespace(namespace)
    if not checked:
        raise InvalidInputError(
            "an item cannot be stored in the empty namespace (): give it a label"
        )
    return checked
