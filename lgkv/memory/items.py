"""Item records: where an item is, and the packs of entries that hold the items.

A pack is a record with the entries of several items of one namespace, oldest update first.
It is keyed by the place of its first entry: when that was updated, and the sequence of the
put. So a namespace's packs, read backwards, give its items newest first, and what a search
has to read of an item it reads together with its neighbours.

The functions between the two marks below are the reference; `lgkv._items` holds the same
functions in Cython, and a test demands identical bytes and answers.
"""

from __future__ import annotations

import datetime
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from lgkv._items import (
    entry_place,
    fetch_item,
    find_entry,
    pack_entry,
    pack_of,
    read_entry,
    scan_pack,
    unpack_entry,
    utc_time,
    without_entries,
)
from lgkv._plain import decode_mapping, encode_mapping
from lgkv.errors import CorruptionError, InvalidInputError, ValueTooLargeError
from lgkv.keys import decode_text, pack_numbered, pack_uint, unpack_uint
from lgkv.layout import MAX_VALUE_BYTES, MEMORY, Kind, Table, decode_plain, encode_plain
from lgkv.snapshot import Snapshot

__all__ = [
    "PACK_BYTES",
    "ItemRecord",
    "Place",
    "checked",
    "decode_mapping",
    "encode_value",
    "entry_place",
    "fetch_item",
    "find_entry",
    "item_key",
    "item_suffix",
    "node_of",
    "pack_entry",
    "pack_key",
    "packs_of",
    "place_bytes",
    "place_of",
    "read_item",
    "read_place",
    "scan_pack",
    "unpack_item",
    "unpack_place",
    "utc_time",
    "without_entries",
]

T = TypeVar("T")

Place = tuple[int, int]
"""When something was updated, in microseconds, and the sequence of the put."""

PACK_BYTES: Final = 4000
"""A pack takes no more entries than fit into this: with its envelope a page of the file."""

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_ITEM_KIND: Final = bytes((Kind.ITEM,))
_PACK_KIND: Final = bytes((Kind.PACK,))
_ENTRY: Final = struct.Struct("<I5QI")
_PLACE: Final = struct.Struct(">QQ")


class ItemRecord(NamedTuple):
    """What is stored of an item; times are microseconds, 0 for none."""

    updated_us: int
    sequence: int
    created_us: int
    ttl_us: int
    deadline_us: int
    key: bytes
    encoded: bytes

    def value(self, pack: bytes) -> dict[str, Any]:
        """Return the value, decoded anew; `pack` is the key of the record it is from."""
        value = decode_mapping(self.encoded)
        if value is not None:
            return value
        try:
            value = decode_plain(self.encoded)
        except ValueError as error:
            raise CorruptionError(Table.MEMORY.label, pack, str(error)) from None
        if type(value) is not dict:
            raise CorruptionError(Table.MEMORY.label, pack, "the value is not a mapping")
        return value

    def key_text(self, pack: bytes) -> str:
        """Return the item's key; `pack` is as for `value`."""
        try:
            return decode_text(self.key)
        except UnicodeDecodeError as error:
            raise CorruptionError(Table.MEMORY.label, pack, f"a damaged key: {error}") from None

    def entry(self) -> bytes:
        """Return the entry of a pack that `unpack_item` makes this of."""
        return pack_entry(*self)


def encode_value(value: Any) -> bytes:
    """Return an item's value as bytes.

    Raises:
        InvalidInputError: It is not a mapping with str keys, or holds what cannot be stored.
    """
    encoded = encode_mapping(value)
    if encoded is None:
        encoded = _encode_any(value)
    if len(encoded) > MAX_VALUE_BYTES // 2:
        raise ValueTooLargeError("an item", len(encoded), MAX_VALUE_BYTES // 2)
    return encoded


def _encode_any(value: Any) -> bytes:
    if not isinstance(value, Mapping):
        raise InvalidInputError(
            f"a value is a mapping, not {type(value).__name__}: wrap it in a dict"
        )
    for name in value:
        if not isinstance(name, str):
            raise InvalidInputError(f"a value's keys are str, not {name!r}: convert it with str()")
    return encode_plain(dict(value))


# --- keys ----------------------------------------------------------------------------------


item_suffix: Final = pack_numbered
"""Of a node and a key's text what the keys of all records of the item end in."""


def item_key(suffix: bytes) -> bytes:
    """Return the key of the record that says where the item at `suffix` is."""
    return _ITEM_KIND + suffix


def node_of(suffix: bytes) -> int:
    """Return the number of the node that the item at `suffix` is in."""
    return unpack_uint(suffix, 0)[0]


def packs_of(node: int) -> bytes:
    """Return what the keys of a node's packs begin with."""
    return _PACK_KIND + pack_uint(node)


def pack_key(node: int, place: Place) -> bytes:
    """Return the key of the pack of `node` that begins at `place`."""
    return packs_of(node) + place_bytes(place)


def place_bytes(place: Place) -> bytes:
    """Return a place as it stands in keys and records: in 16 bytes that sort."""
    return _PLACE.pack(*place)


def place_of(key: bytes) -> Place:
    """Return the place at which the pack of this key begins."""
    if len(key) < _PLACE.size:
        raise CorruptionError(Table.MEMORY.label, key, "the key of a pack is too short")
    updated, sequence = _PLACE.unpack_from(key, len(key) - _PLACE.size)
    return updated, sequence


# --- records -------------------------------------------------------------------------------


def read_place(snapshot: Snapshot, suffix: bytes) -> tuple[bytes, int] | None:
    """Return the key of the pack that the item at `suffix` is in, and its sequence."""
    body = snapshot.get(MEMORY, item_key(suffix))
    return None if body is None else unpack_place(suffix, body)


def unpack_place(suffix: bytes, body: bytes) -> tuple[bytes, int]:
    """Return what `read_place` does; `body` is that of the item's record.

    It has the place of the item's pack, and the item's own sequence in 8 bytes.
    """
    try:
        return pack_of(suffix, body)
    except ValueError as error:
        raise CorruptionError(Table.MEMORY.label, item_key(suffix), str(error)) from None


def read_item(snapshot: Snapshot, suffix: bytes) -> tuple[bytes, ItemRecord] | None:
    """Return the item at `suffix`, and the key of its pack; None if there is none."""
    body = snapshot.get(MEMORY, _ITEM_KIND + suffix)
    if body is None:
        return None
    try:
        key, sequence = pack_of(suffix, body)
    except ValueError as error:
        raise CorruptionError(Table.MEMORY.label, item_key(suffix), str(error)) from None
    pack = snapshot.get(MEMORY, key)
    try:
        fields = None if pack is None else read_entry(pack, sequence)
    except ValueError as error:
        raise CorruptionError(Table.MEMORY.label, key, str(error)) from None
    if fields is None:
        raise CorruptionError(Table.MEMORY.label, key, "the item is not where it should be")
    return key, tuple.__new__(ItemRecord, fields)  # sooner than by `_make`


def unpack_item(key: bytes, pack: bytes, at: int) -> ItemRecord:
    """Return the item whose entry stands at `at` of the pack; `key` is the pack's."""
    try:
        return tuple.__new__(ItemRecord, unpack_entry(pack, at))
    except ValueError as error:
        raise CorruptionError(Table.MEMORY.label, key, str(error)) from None


def checked(key: bytes, read: Callable[..., T], *arguments: Any) -> T:
    """Return what `read` gives; CorruptionError of the record `key` for its ValueError."""
    try:
        return read(*arguments)
    except ValueError as error:
        raise CorruptionError(Table.MEMORY.label, key, str(error)) from None


# --- Python reference: begin ---------------------------------------------------------------


def _utc_time(microseconds: int) -> datetime.datetime:
    """Return the time that is so long after 1970 began; OverflowError beyond the calendar."""
    return _EPOCH + datetime.timedelta(microseconds=microseconds)


def _pack_entry(  # noqa: PLR0917  the fields, in their order
    updated: int, sequence: int, created: int, ttl: int, deadline: int, key: bytes, value: bytes
) -> bytes:
    """Return an item as an entry of a pack."""
    size = _ENTRY.size + len(key) + len(value)
    if size > 0xFFFF_FFFF:
        raise ValueError(f"an item of {size} bytes does not fit into a pack")
    header = _ENTRY.pack(size, updated, sequence, created, ttl, deadline, len(key))
    return header + key + value


def _entry_end(pack: bytes, at: int) -> int:
    """Return where the entry at `at` ends; ValueError if it does not fit."""
    if at < 0 or len(pack) - at < _ENTRY.size:
        raise ValueError("an entry is shorter than its header")
    size, *_, key_size = _ENTRY.unpack_from(pack, at)
    if not _ENTRY.size + key_size <= size <= len(pack) - at:
        raise ValueError("an entry does not have its size")
    return int(at + size)


def _unpack_entry(pack: bytes, at: int) -> tuple[int, int, int, int, int, bytes, bytes]:
    """Return the times, the sequence, the key and the value of the entry at `at`."""
    end = _entry_end(pack, at)
    _, updated, sequence, created, ttl, deadline, size = _ENTRY.unpack_from(pack, at)
    start = at + _ENTRY.size
    key, value = pack[start : start + size], pack[start + size : end]
    return updated, sequence, created, ttl, deadline, key, value


def _pack_of(suffix: bytes, body: bytes) -> tuple[bytes, int]:
    """Return the key of the pack that an item is in, and its sequence, by the item's record."""
    if len(body) != _PLACE.size + 8 or not suffix:
        raise ValueError("the item's place does not have its size")
    node = suffix[: 1 + suffix[0]]
    return _PACK_KIND + node + body[: _PLACE.size], int.from_bytes(body[_PLACE.size :], "big")


def _read_entry(pack: bytes, sequence: int) -> tuple[int, int, int, int, int, bytes, bytes] | None:
    """Return what `_unpack_entry` does of the entry with this sequence; None without one."""
    at = _find_entry(pack, sequence)
    return None if at < 0 else _unpack_entry(pack, at)


def _entry_place(pack: bytes, at: int) -> tuple[int, int]:
    """Return when the entry at `at` was updated, and its sequence."""
    _entry_end(pack, at)
    _, updated, sequence, *_ = _ENTRY.unpack_from(pack, at)
    return updated, sequence


def _starts(pack: bytes) -> list[int]:
    starts, at = [], 0
    while at < len(pack):
        starts.append(at)
        at = _entry_end(pack, at)
    return starts


def _find_entry(pack: bytes, sequence: int) -> int:
    """Return where the entry with this sequence stands, -1 if it is not there."""
    at = 0
    while at < len(pack):
        end = _entry_end(pack, at)
        if _entry_place(pack, at)[1] == sequence:
            return at
        at = end
    return -1


def _without_entries(pack: bytes, sequences: set[int]) -> bytes:
    """Return the pack without the entries that have these sequences."""
    kept = [at for at in _starts(pack) if _entry_place(pack, at)[1] not in sequences]
    return b"".join(pack[at : _entry_end(pack, at)] for at in kept)


def _scan_pack(pack: bytes, test: Callable[[bytes], bool] | None, now: int) -> list[int]:
    """Return where the entries stand that `test` keeps and that have not ended by `now`.

    With 0 for `now` none has ended; without a test all are kept.
    """
    found = []
    for at in _starts(pack):
        *_, deadline, _, value = _unpack_entry(pack, at)
        if now and 0 < deadline <= now:
            continue
        if test is None or test(value):
            found.append(at)
    return found


# --- Python reference: end -----------------------------------------------------------------
