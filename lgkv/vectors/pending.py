"""Vectors that are made anew beside those that are searched, until they take their place.

The pending generation has slabs and records as the live one has. An item that is changed
meanwhile loses its pending vectors and is noted as to do; once nothing is to do, the
generations are switched in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from lgkv.errors import CorruptionError, InvalidInputError
from lgkv.layout import Kind, Table, decode_plain, encode_plain
from lgkv.snapshot import Snapshot
from lgkv.vectors.packing import NewVectors, find_vectors, pack_new, vectors_key
from lgkv.vectors.settings import (
    IndexConfig,
    Settings,
    VectorState,
    read_settings,
    read_state,
    write_settings,
    write_state,
)
from lgkv.vectors.slabs import add_slabs, drop_slabs, kill
from lgkv.writer import Batch

__all__ = [
    "Pending",
    "begin_pending",
    "drop_generation",
    "follow_pending",
    "put_pending",
    "read_pending",
    "still_pending",
    "still_to_do",
    "switch",
]

_PENDING_KEY: Final = bytes((Kind.VECTOR_SETTINGS, 0x01))
TO_DO: Final = 0
"""Under this generation stand the items that changed: no vectors are of it."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What is being made: its settings, how many vectors, and the last item that was seen."""

    settings: Settings
    vectors: int
    cursor: bytes


def read_pending(snapshot: Snapshot) -> Pending | None:
    """Return what is being made, or None."""
    body = snapshot.get(Table.MEMORY, _PENDING_KEY)
    if body is None:
        return None
    try:
        fields = decode_plain(body)
        vectors, cursor = int(fields.pop("vectors")), bytes(fields.pop("cursor"))
        return Pending(Settings.unpack(fields), vectors, cursor)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptionError(
            Table.MEMORY.label, _PENDING_KEY, f"damaged settings: {error!r}"
        ) from None


def _write(batch: Batch, pending: Pending) -> None:
    fields = {**pending.settings.pack(), "vectors": pending.vectors, "cursor": pending.cursor}
    batch.put(Table.MEMORY, _PENDING_KEY, encode_plain(fields))


def begin_pending(batch: Batch, dims: int, config: IndexConfig) -> Pending | None:
    """Begin to make all vectors anew, or go on where that was left off; None without vectors."""
    state, live, before = read_state(batch), read_settings(batch), read_pending(batch)
    if live is None or not state.vectors:
        return None
    wanted = Settings(
        dims,
        config.metric or live.metric,
        config.storage or live.storage,
        config.model,
        0 if before is None else before.settings.generation,
    )
    if before is not None:
        if before.settings == wanted:
            return before
        drop_generation(batch, before.settings.generation)
    drop_generation(batch, TO_DO)
    state.generation += 1
    begun = Pending(replace(wanted, generation=state.generation), 0, b"")
    _write(batch, begun)
    write_state(batch, state)
    return begun


def follow_pending(
    batch: Batch, state: VectorState, given: set[bytes], removed: set[bytes]
) -> None:
    """Take the pending vectors of items that changed; those in `given` are to do again."""
    pending = read_pending(batch)
    if pending is None:
        return
    if pending.settings.generation <= state.live:  # the vectors all went, and others came
        _forget(batch, pending)
        return
    pending = _without(batch, pending, given | removed)
    for suffix in given:
        batch.put(Table.MEMORY, vectors_key(TO_DO, suffix), b"")
    for suffix in removed:
        batch.delete(Table.MEMORY, vectors_key(TO_DO, suffix))
    _write(batch, pending)


def _forget(batch: Batch, pending: Pending) -> None:
    drop_generation(batch, pending.settings.generation)
    drop_generation(batch, TO_DO)
    batch.delete(Table.MEMORY, _PENDING_KEY)


def _without(batch: Batch, pending: Pending, suffixes: set[bytes]) -> Pending:
    dead: list[int] = []
    for suffix in suffixes:
        found = find_vectors(batch, pending.settings.generation, suffix)
        if found is not None:
            first, paths = found
            batch.delete(Table.MEMORY, vectors_key(pending.settings.generation, suffix))
            dead += range(first, first + len(paths))
    kill(batch, pending.settings.generation, dead)
    return replace(pending, vectors=pending.vectors - len(dead))


def still_pending(snapshot: Snapshot, pending: Pending) -> Pending:
    """Return how far the making of `pending` is; InvalidInputError if it is no longer made."""
    now = read_pending(snapshot)
    if now is None or now.settings != pending.settings:
        raise InvalidInputError(
            "another process has ended this reindexing, or has begun one with another model: "
            "let only one process reindex"
        )
    return now


def still_to_do(snapshot: Snapshot, pending: Pending, live: int) -> Iterator[bytes]:
    """Yield the items that the pending generation lacks: behind the cursor, then changed ones."""
    prefix = vectors_key(live, b"")
    start = prefix + pending.cursor + b"\x00" if pending.cursor else None
    for key in snapshot.keys(Table.MEMORY, prefix, start=start):
        yield key[len(prefix) :]
    prefix = vectors_key(TO_DO, b"")
    for key in snapshot.keys(Table.MEMORY, prefix):
        yield key[len(prefix) :]


def put_pending(batch: Batch, pending: Pending, seen: list[bytes], new: NewVectors) -> bool:
    """Add vectors for some of the items in `seen`; False if others took over meanwhile."""
    state, now = read_state(batch), read_pending(batch)
    if now is None or now.settings != pending.settings:
        return False
    now = _without(batch, now, set(seen))
    added = 0
    if new:
        slabs = pack_new(batch, state, now.settings, new)
        add_slabs(batch, now.settings.generation, slabs)
        added = sum(map(len, slabs))
    for suffix in seen:
        batch.delete(Table.MEMORY, vectors_key(TO_DO, suffix))
    _write(batch, replace(now, vectors=now.vectors + added, cursor=max([now.cursor, *seen])))
    write_state(batch, state)
    return True


def switch(batch: Batch, pending: Pending) -> int | None:
    """Search the pending vectors from here on, if nothing is to do; return what they replace."""
    state, now = read_state(batch), read_pending(batch)
    if now is None or now.settings != pending.settings:
        return None
    if any(True for _ in islice(still_to_do(batch, now, state.live), 1)):
        return None
    replaced, state.live, state.vectors = state.live, now.settings.generation, now.vectors
    state.sequence += 1
    state.first = state.sequence + 1
    batch.delete_range(Table.MEMORY, bytes((Kind.VECTOR_LOG,)))
    write_settings(batch, now.settings)
    batch.delete(Table.MEMORY, _PENDING_KEY)
    write_state(batch, state)
    return replaced


def drop_generation(batch: Batch, generation: int) -> None:
    """Delete all vectors of a generation."""
    batch.delete_range(Table.MEMORY, vectors_key(generation, b""))
    drop_slabs(batch, generation)
