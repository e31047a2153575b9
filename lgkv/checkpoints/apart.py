"""Large pending writes: pieces of their own, which channels of the next checkpoint share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lgkv.checkpoints import records as rec
from lgkv.checkpoints.thread import ThreadEdit
from lgkv.checkpoints.values import (
    StoredValue,
    pack_piece,
    piece_key,
    stored_payload,
    unpack_stored,
)
from lgkv.codec import EMPTY, Payload
from lgkv.codec.plan import OPAQUE, Extent
from lgkv.errors import CorruptionError
from lgkv.layout import Table
from lgkv.snapshot import Snapshot

__all__ = [
    "Shared",
    "in_writes",
    "is_there",
    "pieces_in",
    "resolved",
    "shared_value",
    "store_apart",
]


class Shared(NamedTuple):
    """A piece that a pending write and a channel's value may share: its chain and its mark."""

    chain: int
    mark: bytes


def resolved(snapshot: Snapshot, thread: int, key: bytes, write: rec.Write) -> rec.Write:
    """Return a write of the record under `key` with its value, wherever that lies."""
    if write.payload[0] != rec.PIECE_TYPE:
        return write
    payload = stored_payload(snapshot, thread, unpack_stored(key, write.payload[1]))
    if payload[0] == rec.PIECE_TYPE:
        raise CorruptionError(Table.THREADS.label, key, "a write's piece names another one")
    return write._replace(payload=payload)


def in_writes(snapshot: Snapshot, prefix: bytes) -> Iterator[StoredValue]:
    """Yield the values of pending writes that are pieces; `prefix` is that of their keys."""
    for key, body in snapshot.scan(Table.THREADS, prefix):
        yield from pieces_in(key, rec.unpack_writes(key, body))


def pieces_in(key: bytes, writes: Iterable[rec.Write]) -> Iterator[StoredValue]:
    """Yield the values that are pieces of writes of the record under `key`."""
    for write in writes:
        if write.payload[0] == rec.PIECE_TYPE:
            yield unpack_stored(key, write.payload[1])


def store_apart(thread: ThreadEdit, payload: Payload) -> Shared:
    """Store a payload as a piece of its own; return where it is."""
    thread.batch.state.chains += 1
    chain = thread.batch.state.chains
    thread.put(piece_key(thread.number, chain, 0), pack_piece(1, payload))
    return Shared(chain, thread.batch.mark_put)


def shared_value(chain: int) -> StoredValue:
    """Return the value that is the one element of a chain."""
    return StoredValue(OPAQUE, EMPTY, (Extent(chain, 0, 1),))


def is_there(thread: ThreadEdit, shared: Shared) -> bool:
    """Whether a piece that was stored is there still, and is the same."""
    key = piece_key(thread.number, shared.chain, 0)
    return thread.batch.mark(Table.THREADS, key) == shared.mark
