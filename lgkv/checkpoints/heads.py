"""The record of a checkpoint: everything of it but its channels' values.

Versions make up most of it, and most are the same: each distinct one is stored once, and
names stand as their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lgkv.checkpoints.records import Version, checkpoints_prefix, unpack_fields
from lgkv.codec import Payload
from lgkv.errors import CorruptionError
from lgkv.keys import (
    TAG_BYTES,
    TAG_UUID,
    decode_text,
    encode_text,
    pack_id,
    pack_uint,
    pack_version,
    unpack_id,
    unpack_version,
)
from lgkv.layout import Kind, Table, check_record, encode_fields
from lgkv.snapshot import Snapshot

__all__ = [
    "FRAMED_FROM",
    "Head",
    "Versions",
    "changes_against",
    "frame_key",
    "pack_frame",
    "pack_head",
    "read_frame",
    "unpack_head",
]

FRAMED_FROM = 16
"""A checkpoint with this many channels or more stores its versions against a frame."""

Versions = list[tuple[int, Version]]


@dataclass(frozen=True, slots=True)
class Head:
    """A checkpoint without its values.

    `versions` are pairs of channel number and version, in the checkpoint's order; `seen` are
    the same by node number, None where the checkpoint has no `versions_seen` of the usual
    form. `delta` are the numbers of the channels whose value an ancestor and the writes since
    then make (LangGraph's `DeltaChannel`), unless the checkpoint has a value of its own.
    `frame` is the number of the frame that the versions are stored against, 0 for none.
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
    frame: int = 0


# --- frames: the versions of many channels, which checkpoints store their changes against ---


def frame_key(thread: int, namespace: int, number: int) -> bytes:
    """Return the key of a frame."""
    return checkpoints_prefix(thread, namespace, Kind.FRAME) + pack_uint(number)


def pack_frame(versions: Versions) -> bytes:
    """Return the body of a frame."""
    table: dict[bytes, int] = {}
    flat = _places(versions, table)
    return encode_fields([list(table), flat])


def read_frame(snapshot: Snapshot, thread: int, namespace: int, number: int) -> Versions | None:
    """Return the versions of a frame, or None if it is gone."""
    key = frame_key(thread, namespace, number)
    body = snapshot.get(Table.THREADS, key)
    if body is None:
        return None
    fields = unpack_fields(key, body)
    check_record(Table.THREADS, key, fields, list, list)
    try:
        return _pairs(fields[1], [_unpack_whole_version(packed) for packed in fields[0]])
    except (ValueError, IndexError, TypeError) as error:
        raise CorruptionError(Table.THREADS.label, key, f"damaged frame: {error}") from None


def changes_against(frame: Versions, versions: Versions) -> Versions | None:
    """Return what of `versions` a frame does not have, or None if it is no use for them.

    It is none if it has a channel that is not among them, or if the changes have become so
    many that a new frame is cheaper: with n channels and k changes a frame costs n every k
    checkpoints, and each of them up to k.
    """
    old, new = dict(frame), dict(versions)
    if len(old.keys() - new.keys()):
        return None
    changes = [(channel, version) for channel, version in versions if old.get(channel) != version]
    order = [channel for channel, _ in frame] + [c for c, _ in changes if c not in old]
    if order != [channel for channel, _ in versions]:
        return None
    return changes if len(changes) ** 2 <= 2 * len(versions) else None


def _apply_changes(frame: Versions, changes: Versions) -> Versions:
    return list((dict(frame) | dict(changes)).items())


# --- records -------------------------------------------------------------------------------


def _places(versions: Versions, table: dict[bytes, int]) -> list[int]:
    flat = []
    for number, version in versions:
        flat.append(number)
        flat.append(table.setdefault(_pack_whole_version(version), len(table)))
    return flat


def pack_head(head: Head, changes: Versions) -> bytes:
    """Return the body of a checkpoint's record; `changes` are its versions against its frame."""
    table: dict[bytes, int] = {}
    versions = _places(changes, table)
    seen = None if head.seen is None else [[node, *_places(of, table)] for node, of in head.seen]
    return encode_fields(
        [
            _pack_whole_id(head.id),
            None if head.parent_id is None else _pack_whole_id(head.parent_id),
            head.created_us,
            None if head.run_id is None else _pack_whole_id(head.run_id),
            list(head.metadata),
            list(head.state),
            list(table),
            head.frame,
            versions,
            seen,
            head.delta,
        ]
    )


def unpack_head(snapshot: Snapshot, thread: int, namespace: int, key: bytes, body: bytes) -> Head:
    """Return the head that `pack_head` made `body` from, its versions whole."""
    fields = unpack_fields(key, body)
    optional = (bytes, type(None))
    check_record(
        *(Table.THREADS, key, fields, bytes, optional, int, optional),
        *(list, list, list, int, list, (list, type(None)), list),
    )
    id_, parent, created_us, run, metadata, state, table, frame, versions, seen, delta = fields
    check_record(Table.THREADS, key, metadata, str, bytes)
    check_record(Table.THREADS, key, state, str, bytes)
    if not 0 <= frame < 1 << 63:
        raise CorruptionError(Table.THREADS.label, key, f"there is no frame {frame}")
    base = read_frame(snapshot, thread, namespace, frame) if frame else []
    if base is None:
        raise CorruptionError(Table.THREADS.label, key, f"its frame {frame} is missing")
    try:
        known = [_unpack_whole_version(packed) for packed in table]
        _check_numbers([*delta, *(node for node, *_ in seen or ())])
        return Head(
            _unpack_whole_id(id_),
            None if parent is None else _unpack_whole_id(parent),
            created_us,
            None if run is None else _unpack_whole_id(run),
            (metadata[0], metadata[1]),
            (state[0], state[1]),
            _apply_changes(base, _pairs(versions, known)) if frame else _pairs(versions, known),
            None if seen is None else [(node, _pairs(of, known)) for node, *of in seen],
            delta,
            frame,
        )
    except (ValueError, IndexError, TypeError) as error:
        raise CorruptionError(Table.THREADS.label, key, f"damaged checkpoint: {error}") from None


def _pairs(flat: Sequence[Any], known: list[Version]) -> Versions:
    _check_numbers(flat)
    return [(flat[at], known[flat[at + 1]]) for at in range(0, len(flat), 2)]


def _check_numbers(numbers: Sequence[Any]) -> None:
    for number in numbers:
        if type(number) is not int or not 0 <= number < 1 << 63:
            raise ValueError(f"{number!r} is no number of a name")


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
