"""The record of a checkpoint: everything of it but its channels' values.

Versions make up most of it, and most are the same: each distinct one is stored once, and
names stand as their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lgkv.checkpoints.records import Version, unpack_fields
from lgkv.codec import Payload
from lgkv.errors import CorruptionError
from lgkv.keys import (
    TAG_BYTES,
    TAG_UUID,
    decode_text,
    encode_text,
    pack_id,
    pack_version,
    unpack_id,
    unpack_version,
)
from lgkv.layout import Table, check_record, encode_fields

__all__ = ["Head", "pack_head", "unpack_head"]

Versions = list[tuple[int, Version]]


@dataclass(frozen=True, slots=True)
class Head:
    """A checkpoint without its values.

    `versions` are pairs of channel number and version, in the checkpoint's order; `seen` are
    the same by node number, None where the checkpoint has no `versions_seen` of the usual
    form. `delta` are the numbers of the channels whose value an ancestor and the writes since
    then make (LangGraph's `DeltaChannel`), unless the checkpoint has a value of its own.
    """

    id: str
    parent_id: str | None
    created_us: int
    run_id: str | None
    metadata: Payload
    state: Payload
    versions: Versions
    seen: list[tuple[int, Versions]] | None
    delta: list[int]


def pack_head(head: Head) -> bytes:
    """Return the body of a checkpoint's record."""
    table: dict[bytes, int] = {}

    def places(versions: Versions) -> list[int]:
        flat = []
        for number, version in versions:
            flat.append(number)
            flat.append(table.setdefault(_pack_whole_version(version), len(table)))
        return flat

    versions = places(head.versions)
    seen = None if head.seen is None else [[node, *places(of)] for node, of in head.seen]
    return encode_fields(
        [
            _pack_whole_id(head.id),
            None if head.parent_id is None else _pack_whole_id(head.parent_id),
            head.created_us,
            None if head.run_id is None else _pack_whole_id(head.run_id),
            list(head.metadata),
            list(head.state),
            list(table),
            versions,
            seen,
            head.delta,
        ]
    )


def unpack_head(key: bytes, body: bytes) -> Head:
    """Return the head that `pack_head` made `body` from."""
    fields = unpack_fields(key, body)
    optional = (bytes, type(None))
    check_record(
        *(Table.THREADS, key, fields, bytes, optional, int, optional),
        *(list, list, list, list, (list, type(None)), list),
    )
    id_, parent, created_us, run, metadata, state, table, versions, seen, delta = fields
    check_record(Table.THREADS, key, metadata, str, bytes)
    check_record(Table.THREADS, key, state, str, bytes)
    try:
        known = [_unpack_whole_version(packed) for packed in table]
        return Head(
            _unpack_whole_id(id_),
            None if parent is None else _unpack_whole_id(parent),
            created_us,
            None if run is None else _unpack_whole_id(run),
            (metadata[0], metadata[1]),
            (state[0], state[1]),
            _pairs(versions, known),
            None if seen is None else [(node, _pairs(of, known)) for node, *of in seen],
            delta,
        )
    except (ValueError, IndexError, TypeError) as error:
        raise CorruptionError(Table.THREADS.label, key, f"damaged checkpoint: {error}") from None


def _pairs(flat: Sequence[Any], known: list[Version]) -> Versions:
    return [(flat[at], known[flat[at + 1]]) for at in range(0, len(flat), 2)]


_TEXT = b"\x00"


def _pack_whole_id(text: str) -> bytes:
    """Return an id whole: a UUID in 17 bytes, any other as NUL and its text."""
    packed = pack_id(text)
    return packed if packed[0] == TAG_UUID else _TEXT + encode_text(text)


def _pack_whole_version(version: Version) -> bytes:
    """Return a version whole: packed if that tells all of it, else as NUL and its text."""
    packed = pack_version(version)
    return _TEXT + encode_text(str(version)) if packed[0] == TAG_BYTES else packed


def _unpack_whole_version(raw: bytes) -> Version:
    return decode_text(raw[1:]) if raw[:1] == _TEXT else unpack_version(raw)


def _unpack_whole_id(raw: bytes) -> str:
    return decode_text(raw[1:] if raw[:1] == _TEXT else unpack_id(raw, 0)[0])
