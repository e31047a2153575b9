"""Keys and records of a thread: its own, its checkpoints, versions and pending writes.

`docs/FORMAT.md` describes them byte by byte.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from lgkv.codec import Payload
from lgkv.errors import CorruptionError
from lgkv.keys import (
    TAG_UUID,
    decode_text,
    encode_text,
    pack_id,
    pack_key,
    pack_text,
    pack_uint,
    unpack_id,
)
from lgkv.layout import KIND_BYTES, Kind, Table, check_record, decode_plain, encode_fields

__all__ = [
    "ThreadRecord",
    "Write",
    "pack_payload",
    "pack_whole_id",
    "pack_writes",
    "unpack_payload",
    "unpack_whole_id",
    "unpack_writes",
]

Version = str | int | float

_THREAD: Final = struct.Struct("<6QI")

PIECE_TYPE: Final = "+piece"
"""The type of a write whose value is a piece; its bytes are as for a channel's value."""

NO_ID: Final = b"\x00"
"""In the place of an id in a key: sorts before every id."""

# Where it counts: before Python 3.12 a member is slow to find in its enumeration.
_LATEST: Final = KIND_BYTES[Kind.LATEST]
_WRITES: Final = Kind.WRITES


# --- keys ----------------------------------------------------------------------------------


def thread_key(thread: int, kind: Kind) -> bytes:
    """Return the key, or the prefix of the keys, of one kind in a thread."""
    return pack_key(thread, kind)


def namespace_number_key(thread: int, namespace: str) -> bytes:
    """Return the key under which a checkpoint namespace has its number."""
    return thread_key(thread, Kind.NAMESPACE_NUMBER) + pack_text(namespace)


def namespace_name_key(thread: int, number: int) -> bytes:
    """Return the key under which a checkpoint namespace has its name."""
    return pack_key(thread, Kind.NAMESPACE_NAME, number)


def checkpoints_prefix(thread: int, namespace: int, kind: Kind = Kind.CHECKPOINT) -> bytes:
    """Return the prefix of a namespace's checkpoints, or of another kind in it."""
    return pack_key(thread, kind, namespace)


def checkpoint_key(
    thread: int, namespace: int, checkpoint_id: str, kind: Kind = Kind.CHECKPOINT
) -> bytes:
    """Return the key of a checkpoint, or of what is left of it as a carrier."""
    return pack_key(thread, kind, namespace) + pack_id(checkpoint_id)


def writes_prefix(thread: int, namespace: int, checkpoint_id: str) -> bytes:
    """Return the prefix of the pending writes of a checkpoint."""
    return pack_key(thread, _WRITES, namespace) + pack_id(checkpoint_id)


def task_key(thread: int, namespace: int, checkpoint_id: str, task_id: str) -> bytes:
    """Return the key of the pending writes of one task."""
    return writes_prefix(thread, namespace, checkpoint_id) + pack_text(task_id)


def latest_key(checkpoint_id: str | None, thread: int) -> bytes:
    """Return the index key that orders threads by their newest checkpoint's id."""
    packed = NO_ID if checkpoint_id is None else pack_id(checkpoint_id)
    return _LATEST + packed + pack_uint(thread)


def run_prefix(run_id: str) -> bytes:
    """Return the prefix of the index keys of a run."""
    return bytes((Kind.RUN,)) + pack_text(run_id)


def run_key(run_id: str, thread: int, namespace: int, checkpoint_id: str) -> bytes:
    """Return the index key from a run to one of its checkpoints."""
    return run_prefix(run_id) + pack_uint(thread) + pack_uint(namespace) + pack_id(checkpoint_id)


# --- the thread's own record ---------------------------------------------------------------


@dataclass(slots=True)
class ThreadRecord:
    """Times in microseconds since 1970; `size_bytes` counts keys and records in `THREADS`.

    `latest_id` is the greatest id of a checkpoint in any of its namespaces, None if there is
    none.
    """

    thread_id: str
    created_us: int
    updated_us: int
    checkpoints: int = 0
    size_bytes: int = 0
    namespaces: int = 1
    carriers: int = 0
    latest_id: str | None = None

    def pack(self, key: bytes) -> bytes:
        """Return the record's body; CorruptionError if it has counted what was not there."""
        latest = b"" if self.latest_id is None else pack_whole_id(self.latest_id)
        try:
            numbers = _THREAD.pack(
                self.created_us,
                self.updated_us,
                self.checkpoints,
                self.size_bytes,
                self.namespaces,
                self.carriers,
                len(latest),
            )
        except struct.error:
            reason = "the thread's record counts what is not there"
            raise CorruptionError(Table.THREADS.label, key, reason) from None
        return numbers + latest + encode_text(self.thread_id)

    @classmethod
    def unpack(cls, key: bytes, body: bytes) -> ThreadRecord:
        """Return the record that `pack` made `body` from."""
        if len(body) < _THREAD.size:
            raise CorruptionError(Table.THREADS.label, key, "the thread record is cut short")
        *numbers, size = _THREAD.unpack_from(body)
        latest = body[_THREAD.size : _THREAD.size + size]
        try:
            latest_id = unpack_whole_id(latest) if latest else None
        except ValueError as error:
            raise CorruptionError(Table.THREADS.label, key, f"no checkpoint id: {error}") from None
        if len(latest) != size:
            raise CorruptionError(Table.THREADS.label, key, "the thread record is cut short")
        record = cls(text_of(key, body[_THREAD.size + size :]), *numbers)
        record.latest_id = latest_id
        return record


# --- values and writes ---------------------------------------------------------------------


class Write(NamedTuple):
    """One pending write. Its identity is task and `idx`; its order is path, task, `idx`."""

    task_id: str
    idx: int
    task_path: str
    channel: str
    payload: Payload

    @property
    def order(self) -> tuple[str, str, int]:
        """Return LangGraph's `writes_sort_key`."""
        return (self.task_path, self.task_id, self.idx)


def pack_writes(checkpoint_id: str, task_id: str, writes: list[Write]) -> bytes:
    """Return the body of the record of one task's writes."""
    return encode_fields(
        [
            encode_text(checkpoint_id),
            encode_text(task_id),
            [[w.idx, encode_text(w.task_path), encode_text(w.channel), *w.payload] for w in writes],
        ]
    )


def unpack_writes(key: bytes, body: bytes) -> list[Write]:
    """Return the writes that `pack_writes` made `body` from."""
    fields = unpack_fields(key, body)
    check_record(Table.THREADS, key, fields, bytes, bytes, list)
    task_id, writes = text_of(key, fields[1]), []
    for entry in fields[2]:
        check_record(Table.THREADS, key, entry, int, bytes, bytes, str, bytes)
        index, path, channel, kind, raw = entry
        name = text_of(key, channel)
        writes.append(Write(task_id, index, text_of(key, path) if path else "", name, (kind, raw)))
    return writes


def pack_payload(payload: Payload) -> bytes:
    """Return the body of a channel value's record."""
    kind, raw = payload
    return pack_type(kind) + raw


@functools.lru_cache(maxsize=256)
def pack_type(kind: str) -> bytes:
    """Return what stands before a payload's bytes: there are few types."""
    tag = encode_text(kind)
    return len(tag).to_bytes(2, "big") + tag


def unpack_payload(key: bytes, body: bytes, start: int = 0) -> Payload:
    """Return the payload that `pack_payload` made `body` from, which begins at `start`."""
    at = start + 2
    end = at + int.from_bytes(body[start:at], "big")
    if not at <= end <= len(body):
        raise CorruptionError(Table.THREADS.label, key, "the value has no type")
    try:
        return _unpack_type(body[at:end]), body[end:]
    except ValueError as error:
        raise CorruptionError(Table.THREADS.label, key, f"a damaged text: {error}") from None


@functools.lru_cache(maxsize=256)
def _unpack_type(tag: bytes) -> str:
    return decode_text(tag)


_TEXT: Final = b"\x00"


def pack_whole_id(text: str) -> bytes:
    """Return an id whole: a UUID in 17 bytes, any other as NUL and its text."""
    packed = pack_id(text)
    return packed if packed[0] == TAG_UUID else _TEXT + encode_text(text)


def unpack_whole_id(raw: bytes) -> str:
    """Return the id that `pack_whole_id` made `raw` from; ValueError if it is damaged."""
    return decode_text(raw[1:] if raw[:1] == _TEXT else unpack_id(raw, 0)[0])


@functools.lru_cache(maxsize=256)
def pack_channels(names: tuple[str, ...]) -> bytes:
    """Return the body of the record of a thread's channel names; a number is a position.

    Nearly every thread has the same.
    """
    return encode_fields([encode_text(name) for name in names])


def unpack_channels(key: bytes, body: bytes) -> list[str]:
    """Return the names that `pack_channels` made `body` from."""
    try:
        return [*_channel_names(body)]
    except (ValueError, TypeError):
        fields = unpack_fields(key, body)
        check_record(Table.THREADS, key, fields, *[bytes] * len(fields))
        return [text_of(key, name) for name in fields]


@functools.lru_cache(maxsize=256)
def _channel_names(body: bytes) -> tuple[str, ...]:
    """Return the names of a record that is as it must be: nearly every thread has the same."""
    return tuple(decode_text(name) for name in decode_plain(body))


def text_of(key: bytes, raw: bytes) -> str:
    """Return a text of the record under `key`."""
    try:
        return decode_text(raw)
    except ValueError as error:
        raise CorruptionError(Table.THREADS.label, key, f"a damaged text: {error}") from None


def unpack_fields(key: bytes, body: bytes) -> list[Any]:
    """Return the fields of a record of THREADS."""
    try:
        fields = decode_plain(body)
    except ValueError as error:
        raise CorruptionError(Table.THREADS.label, key, str(error)) from None
    if not isinstance(fields, list):
        raise CorruptionError(Table.THREADS.label, key, "the record is not a list of fields")
    return fields


def id_in_key(key: bytes, start: int) -> bytes:
    """Return the id at `start` of `key` as UTF-8; of a cut id, what the key has of it."""
    try:
        return unpack_id(key, start)[0]
    except ValueError as error:
        raise CorruptionError(Table.THREADS.label, key, str(error)) from None
