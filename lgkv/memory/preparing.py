"""Puts, checked and encoded outside every lock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from lgkv.errors import InvalidInputError
from lgkv.expiry import ttl_us
from lgkv.keys import encode_text
from lgkv.keywords import Words, count_words
from lgkv.memory.checks import check_key, check_namespace
from lgkv.memory.items import encode_value
from lgkv.vectors import VectorSet, vector_set

__all__ = ["Prepared", "Put", "PutFields", "prepare"]


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


PutFields = tuple[
    tuple[str, ...], str, Mapping[str, Any] | None, Any, float | None, str | Sequence[str] | None
]
"""What a `Put` is: a plain tuple of the same is taken too, and sooner made."""

_DELETED: Final = b""
"""Stands for the value of what is to be deleted: none is so short."""


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
    """The values."""
    vectors: dict[int, VectorSet] = field(default_factory=dict)
    ttl_us: dict[int, int] = field(default_factory=dict)
    words: dict[int, Words] = field(default_factory=dict)
    deleted: list[tuple[int, bytes]] = field(default_factory=list)
    """The items to delete: the place of the namespace, and the key. No row is theirs."""


def prepare(puts: Iterable[PutFields]) -> Prepared:
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
        raw = encode_text(key if type(key) is str else check_key(key))
        stored = _DELETED if value is None else encode_value(value)
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
    return prepared if all(encoded) else _divided(prepared)


def _divided(mixed: Prepared) -> Prepared:
    """Return puts with those that delete taken out of the columns."""
    stored = [row for row, value in enumerate(mixed.encoded) if value]
    deleted = [row for row, value in enumerate(mixed.encoded) if not value]
    rows = {row: number for number, row in enumerate(stored)}
    return Prepared(
        mixed.namespaces,
        [mixed.places[row] for row in stored],
        [mixed.keys[row] for row in stored],
        [mixed.encoded[row] for row in stored],
        {rows[row]: vectors for row, vectors in mixed.vectors.items()},
        {rows[row]: ttl for row, ttl in mixed.ttl_us.items()},
        {rows[row]: words for row, words in mixed.words.items()},
        [(mixed.places[row], mixed.keys[row]) for row in deleted],
    )


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
