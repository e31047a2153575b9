"""Declared fields: an index of the values that items have in them, and what it can answer.

An entry has the field's number, the value as a part that sorts, and where the item is. It
is kept in the change that writes the item. A search takes from the index what can match at
all, newest first, and tests each item with the whole filter: so a part may be coarser than
the value, as a float is of a large int.
"""

from __future__ import annotations

import datetime
import decimal
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

from lgkv._items import find_value
from lgkv.errors import CorruptionError, InvalidInputError
from lgkv.expiry import is_past
from lgkv.filters import Test
from lgkv.keys import TEXT_LIMIT_BYTES, encode_text, next_prefix, pack_bytes, pack_uint
from lgkv.layout import INDEX, MEMORY, Kind, Table, decode_plain, encode_plain
from lgkv.memory.items import (
    ItemRecord,
    Place,
    checked,
    find_entry,
    node_of,
    packs_of,
    place_bytes,
    place_of,
    scan_pack,
    unpack_item,
)
from lgkv.memory.recency import Found
from lgkv.snapshot import Snapshot
from lgkv.writer import Batch

__all__ = [
    "Entry",
    "FieldIndex",
    "Match",
    "fields_of",
    "find_matches",
    "index_item",
    "matched",
    "read_fields",
    "unindex_item",
    "why_not",
    "write_fields",
]

MATCHES: Final = 2000
"""A value that more items have is not looked for in the index: the newest of them are near."""

_TAIL: Final = struct.Struct(">QQQ")
_FLOAT: Final = struct.Struct(">d")
_UINT: Final = struct.Struct(">Q")
_FIELDS_KEY: Final = bytes((Kind.FIELDS,))
_SIGN: Final = 1 << 63
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)

_SORTS: Final[dict[type, str]] = {
    str: "text",
    bytes: "bytes",
    int: "number",
    float: "number",
    bool: "number",
    decimal.Decimal: "number",
    datetime.datetime: "time",
}
"""What values of a declared type are compared with: only such are in the index."""


class Entry(NamedTuple):
    """An item that the index names: its place, its namespace's number, the entry's key."""

    updated_us: int
    sequence: int
    node: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Match:
    """What an index was asked for, and the newest first of what it has."""

    name: str
    entries: list[Entry]


@dataclass(slots=True)
class FieldIndex:
    """The declared fields of a file, each with its number and what it sorts as."""

    last_number: int = 0
    fields: dict[str, tuple[int, str]] = field(default_factory=dict)
    paths: dict[str, tuple[bytes, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.paths = {
            name: tuple(encode_text(label) for label in name.split(".")) for name in self.fields
        }

    def keys(self, node: int, record: ItemRecord) -> Iterator[bytes]:
        """Yield the keys of the entries that an item of `node` has."""
        for name, (number, sort) in self.fields.items():
            raw = find_value(record.encoded, self.paths[name])
            part = None if raw is None else value_part(sort, decode_plain(raw))
            if part is not None:
                tail = _TAIL.pack(record.updated_us, record.sequence, node)
                yield _prefix(number) + part + tail

    def declare(self, fields: Mapping[str, type]) -> FieldIndex:
        """Return the index of these fields; those that are here as they are keep their number."""
        declared: dict[str, tuple[int, str]] = {}
        last = self.last_number
        if not isinstance(fields, Mapping):
            raise InvalidInputError(
                f"fields is {fields!r:.100}: give a mapping such as {{'user': str}}"
            )
        for name, kind in fields.items():
            if not isinstance(name, str) or not all(name.split(".")):
                raise InvalidInputError(f"the field {name!r} has no name: write 'user' or 'a.b'")
            if not isinstance(kind, type) or kind not in _SORTS:
                kinds = ", ".join(each.__name__ for each in _SORTS)
                raise InvalidInputError(f"the field {name!r} is of type {kind!r}: use {kinds}")
            number, sort = self.fields.get(name, (0, ""))
            if sort != _SORTS[kind]:
                last += 1
                number = last
            declared[name] = number, _SORTS[kind]
        return FieldIndex(last, declared)


# --- the record ----------------------------------------------------------------------------


def read_fields(snapshot: Snapshot) -> FieldIndex:
    """Return the fields that the file declares."""
    body = snapshot.get(MEMORY, _FIELDS_KEY)
    if body is None:
        return FieldIndex()
    try:
        last, fields = decode_plain(body)
        declared = {name: (int(n), str(sort)) for name, (n, sort) in fields.items()}
        index = FieldIndex(int(last), declared)
    except (ValueError, TypeError, AttributeError) as error:
        raise CorruptionError(
            Table.MEMORY.label, _FIELDS_KEY, f"damaged declaration: {error!r}"
        ) from None
    for number, sort in declared.values():
        if not 0 < number <= index.last_number < 1 << 63 or sort not in _SORTS.values():
            raise CorruptionError(Table.MEMORY.label, _FIELDS_KEY, "a field that cannot be")
    return index


def fields_of(batch: Batch) -> FieldIndex:
    """Return the fields that a change maintains."""
    known = batch.memo.get(FieldIndex)
    if known is None:
        known = batch.memo[FieldIndex] = read_fields(batch)
    return known


# --- values that sort ----------------------------------------------------------------------


def value_part(sort: str, value: Any) -> bytes | None:
    """Return a value as a part of a key that sorts as values of its sort do; None for others."""
    if sort == "text":
        return pack_bytes(encode_text(value)) if type(value) is str else None
    if sort == "bytes":
        return pack_bytes(value) if type(value) is bytes else None
    if sort == "number":
        return _number_part(value) if isinstance(value, (int, float, decimal.Decimal)) else None
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return _UINT.pack((value - _EPOCH) // _MICROSECOND + _SIGN)
    return None


def _number_part(number: float | decimal.Decimal) -> bytes | None:
    """Return the nearest float, in eight bytes that sort; None for what is not a number."""
    try:
        real = float(number) + 0.0
    except OverflowError:
        real = math.inf if number > 0 else -math.inf
    except ValueError:  # a signalling NaN
        return None
    if math.isnan(real):
        return None
    (bits,) = _UINT.unpack(_FLOAT.pack(real))
    return _UINT.pack(bits ^ (2**64 - 1) if bits & _SIGN else bits | _SIGN)


# --- asking --------------------------------------------------------------------------------


class _Range(NamedTuple):
    """Parts from `low` on and before `high`."""

    low: bytes
    high: bytes


def find_matches(
    snapshot: Snapshot, index: FieldIndex, filter: Mapping[str, Any] | None
) -> Match | None:
    """Return what the best field's index has for `filter`; None if none is of use.

    Of no use are fields that the filter does not compare with a value of their type, and
    values that more than 2,000 items have.
    """
    best: Match | None = None
    for name, ranges in _asked(index, filter or {}, ()):
        number, _ = index.fields[name]
        entries = list(islice(_entries(snapshot, _prefix(number), ranges), MATCHES + 1))
        if len(entries) <= MATCHES and (best is None or len(entries) < len(best.entries)):
            best = Match(name, entries)
    if best is not None:
        best.entries.sort(reverse=True)
    return best


def why_not(index: FieldIndex, filter: Mapping[str, Any] | None) -> str:
    """Say why no index is of use for `filter`."""
    if not filter:
        return "there is no filter"
    if not index.fields:
        return "no field is declared"
    asked = sorted({name for name, _ in _asked(index, filter, ())})
    if not asked:
        return f"the filter compares none of {sorted(index.fields)} with a value of its type"
    return f"more than {MATCHES} items have what it asks of {', '.join(asked)}"


def matched(
    snapshot: Snapshot,
    match: Match,
    namespace_of: Callable[[int], tuple[str, ...] | None],
    test: Test | None,
    ended_by: int,
) -> Iterator[Found]:
    """Yield the items of a match that `test` keeps, newest first.

    `namespace_of` gives the namespace of a node, or None for one that is not searched. What
    has a deadline up to `ended_by` is left out, unless that is 0.
    """
    for entry in match.entries:
        namespace = namespace_of(entry.node)
        if namespace is None:
            continue
        found = _item_of(snapshot, entry, namespace)
        record = found.record()
        if ended_by and is_past(record.deadline_us, ended_by):
            continue
        if test is None or checked(found.key, test.holds, record.encoded):
            yield found


def _item_of(snapshot: Snapshot, entry: Entry, namespace: tuple[str, ...]) -> Found:
    body = snapshot.get(INDEX, entry.key)
    key = packs_of(entry.node) + (body or b"")
    pack = snapshot.get(MEMORY, key)
    at = -1 if pack is None else checked(key, find_entry, pack, entry.sequence)
    if pack is None or at < 0:
        raise CorruptionError(Table.INDEX.label, entry.key, "the item is not where the entry says")
    return Found(namespace, entry.node, key, pack, at)


# --- keeping it ----------------------------------------------------------------------------


def index_item(batch: Batch, index: FieldIndex, node: int, record: ItemRecord, pack: Place) -> None:
    """Add the entries of an item, which is in the pack at this place."""
    body = place_bytes(pack)
    for key in index.keys(node, record):
        batch.set(INDEX, key, body)


def unindex_item(batch: Batch, index: FieldIndex, node: int, record: ItemRecord) -> None:
    """Remove the entries of an item."""
    for key in index.keys(node, record):
        batch.delete(INDEX, key)


def write_fields(batch: Batch, fields: Mapping[str, type]) -> None:
    """Declare the fields of a file: the index is made of new ones, and dropped of others."""
    before = read_fields(batch)
    index = before.declare(fields)
    if index.fields == before.fields:
        return
    numbers = {number for number, _ in index.fields.values()}
    for number, _ in before.fields.values():
        if number not in numbers:
            batch.delete_range(INDEX, _prefix(number))
    declared = [index.last_number, {name: list(each) for name, each in index.fields.items()}]
    batch.set(MEMORY, _FIELDS_KEY, encode_plain(declared))
    batch.memo[FieldIndex] = index
    known = {number for number, _ in before.fields.values()}
    new = {name: each for name, each in index.fields.items() if each[0] not in known}
    if new:
        _index_all(batch, FieldIndex(index.last_number, new))


def _index_all(batch: Batch, index: FieldIndex) -> None:
    for key, pack in batch.scan(MEMORY, bytes((Kind.PACK,))):
        node = checked(key, node_of, key[1:])
        for at in checked(key, scan_pack, pack, None, 0):
            record = unpack_item(key, pack, at)
            checked(key, index_item, batch, index, node, record, place_of(key))


def _entries(snapshot: Snapshot, prefix: bytes, ranges: list[_Range]) -> Iterator[Entry]:
    for low, high in ranges:
        for key in snapshot.keys(
            INDEX, prefix, start=prefix + low, stop=prefix + high if high else None
        ):
            if len(key) < _TAIL.size:
                raise CorruptionError(Table.INDEX.label, key, "the entry is shorter than its place")
            updated, sequence, node = _TAIL.unpack_from(key, len(key) - _TAIL.size)
            yield Entry(updated, sequence, node, key)


def _asked(
    index: FieldIndex, filter: Any, above: tuple[str, ...]
) -> Iterator[tuple[str, list[_Range]]]:
    """Yield the declared fields that `filter` demands something of, with what it demands."""
    if not isinstance(filter, Mapping):
        return
    for name, condition in filter.items():
        if name == "$and":
            for part in condition:
                yield from _asked(index, part, above)
        if name.startswith("$"):
            continue
        path = ".".join((*above, name))
        if path in index.fields and "." not in name:
            ranges = _ranges(index.fields[path][1], condition)
            if ranges is not None:
                yield path, ranges
        if isinstance(condition, Mapping) and not any(key.startswith("$") for key in condition):
            yield from _asked(index, condition, (*above, name))


def _ranges(sort: str, condition: Any) -> list[_Range] | None:
    """Return the ranges of parts in which the condition may hold, None if it may elsewhere."""
    if not isinstance(condition, Mapping):
        return _equal_to(sort, [condition])
    if "$eq" in condition:
        return _equal_to(sort, [condition["$eq"]])
    if "$in" in condition:
        return _equal_to(sort, condition["$in"])
    low, high = b"", b""
    for operator, operand in condition.items():
        if operator in ("$gt", "$gte"):
            part = _bound(sort, operand)
            low = max(low, part) if part else low
        elif operator in ("$lt", "$lte"):
            part = _bound(sort, operand)
            if part:
                high = min(high, next_prefix_or_end(part)) if high else next_prefix_or_end(part)
    return [_Range(low, high)] if low or high else None


def _equal_to(sort: str, options: Any) -> list[_Range] | None:
    parts = [value_part(sort, option) for option in options]
    if not parts or any(part is None for part in parts):
        return None
    return [_Range(part, next_prefix_or_end(part)) for part in sorted({p for p in parts if p})]


def _bound(sort: str, operand: Any) -> bytes | None:
    """Return a part, or the beginning of parts, such that none before it is as large."""
    part = value_part(sort, operand)
    if part is not None and sort in ("text", "bytes"):
        return part[: TEXT_LIMIT_BYTES - 1] if len(part) > TEXT_LIMIT_BYTES else part[:-2]
    return part


def next_prefix_or_end(part: bytes) -> bytes:
    """Return the smallest key behind all that begin with `part`; nothing if there is none."""
    return next_prefix(part) if part.strip(b"\xff") else b""


def _prefix(number: int) -> bytes:
    return bytes((Kind.FIELD,)) + pack_uint(number)
