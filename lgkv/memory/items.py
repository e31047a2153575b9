"""Item records: the value of one key in one namespace, with its times.

The body is a fixed header (created, updated, sequence, time to live, deadline, length of
the key that follows), the whole key where the record's own key holds only a cut of it,
and the value as CBOR.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lgkv.errors import CorruptionError, InvalidInputError
from lgkv.keys import decode_text, encode_text, pack_bytes, pack_uint, unpack_bytes, unpack_uint
from lgkv.layout import Kind, Table, decode_plain, encode_plain, split_key

__all__ = [
    "ItemRecord",
    "encode_value",
    "item_key",
    "item_suffix",
    "node_of",
    "pack_item",
    "unpack_item",
    "whole_key",
]

_HEADER: Final = struct.Struct("<5QI")


@dataclass(slots=True)
class ItemRecord:
    """What is stored of an item; times are microseconds, 0 for none."""

    created_us: int
    updated_us: int
    sequence: int
    ttl_us: int
    deadline_us: int
    whole_key: bytes
    """The key, if it is too long to stand in the record's own; else empty."""
    encoded: bytes

    def value(self, key: bytes) -> dict[str, Any]:
        """Return the value, decoded anew; `key` is the record's."""
        try:
            value = decode_plain(self.encoded)
        except ValueError as error:
            raise CorruptionError(Table.MEMORY.label, key, str(error)) from None
        if type(value) is not dict:
            raise CorruptionError(Table.MEMORY.label, key, "the value is not a mapping")
        return value

    def key_text(self, key: bytes) -> str:
        """Return the item's key; `key` is the record's."""
        _, raw = split_key(Table.MEMORY, key, 1, "ub")
        try:
            return decode_text(self.whole_key if raw is None else raw)
        except UnicodeDecodeError as error:
            raise CorruptionError(Table.MEMORY.label, key, f"a damaged key: {error}") from None


def encode_value(value: Any) -> bytes:
    """Return an item's value as bytes.

    Raises:
        InvalidInputError: It is not a mapping with str keys, or holds what cannot be stored.
    """
    if not isinstance(value, Mapping):
        raise InvalidInputError(
            f"a value is a mapping, not {type(value).__name__}: wrap it in a dict"
        )
    for name in value:
        if not isinstance(name, str):
            raise InvalidInputError(f"a value's keys are str, not {name!r}: convert it with str()")
    return encode_plain(dict(value))


def item_suffix(node: int, key: str) -> bytes:
    """Return what the keys of all records of one item end in."""
    return pack_uint(node) + pack_bytes(encode_text(key))


def item_key(suffix: bytes) -> bytes:
    """Return the key of the item at `suffix`."""
    return bytes((Kind.ITEM,)) + suffix


def node_of(suffix: bytes) -> int:
    """Return the number of the node that the item at `suffix` is in."""
    return unpack_uint(suffix, 0)[0]


def whole_key(suffix: bytes, key: str) -> bytes:
    """Return `key` if `suffix` holds only a cut of it, else nothing."""
    _, start = unpack_uint(suffix, 0)
    return b"" if unpack_bytes(suffix, start)[1] else encode_text(key)


def pack_item(record: ItemRecord) -> bytes:
    """Return the record's body."""
    header = _HEADER.pack(
        record.created_us,
        record.updated_us,
        record.sequence,
        record.ttl_us,
        record.deadline_us,
        len(record.whole_key),
    )
    return header + record.whole_key + record.encoded


def unpack_item(key: bytes, body: bytes) -> ItemRecord:
    """Return the record that `pack_item` made `body` from."""
    if len(body) < _HEADER.size:
        raise CorruptionError(Table.MEMORY.label, key, "the item is shorter than its header")
    created, updated, sequence, ttl, deadline, size = _HEADER.unpack_from(body)
    start = _HEADER.size + size
    if start > len(body):
        raise CorruptionError(Table.MEMORY.label, key, "the item is shorter than its key")
    whole, encoded = body[_HEADER.size : start], body[start:]
    return ItemRecord(created, updated, sequence, ttl, deadline, whole, encoded)
