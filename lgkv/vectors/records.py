"""The vectors of items as records, and the log of what changed of them.

All of it is written in the transaction of the item's change. The log lets a process follow
what it has in memory; one that is too far behind reads the slabs again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from lgkv.errors import CorruptionError
from lgkv.keys import pack_uint
from lgkv.layout import Kind, Table, encode_fields
from lgkv.snapshot import Snapshot
from lgkv.vectors.checks import VectorSet
from lgkv.vectors.packing import NewVectors, fields_of, find_vectors, pack_new, vectors_key
from lgkv.vectors.pending import follow_pending
from lgkv.vectors.settings import (
    IndexConfig,
    Settings,
    VectorState,
    read_settings,
    read_state,
    settle,
    write_state,
)
from lgkv.vectors.slabs import add_slabs, kill
from lgkv.writer import Batch

__all__ = ["Entry", "VectorChanges", "read_entry"]

LOG_ENTRIES: Final = 1024
"""The most entries that the log keeps."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one change did to the vectors: slabs that are other now, and labels that are dead."""

    generation: int
    touched: list[int]
    dead: list[int]


# --- keys and bodies -----------------------------------------------------------------------


def _log_key(sequence: int) -> bytes:
    return bytes((Kind.VECTOR_LOG,)) + pack_uint(sequence)


def read_entry(snapshot: Snapshot, sequence: int) -> Entry | None:
    """Return an entry of the log, or None."""
    key = _log_key(sequence)
    body = snapshot.get(Table.MEMORY, key)
    if body is None:
        return None
    generation, touched, dead = fields_of(key, body, int, bytes, bytes)
    if len(touched) % 8 or len(dead) % 8:
        raise CorruptionError(Table.MEMORY.label, key, "the entry's labels are cut")
    return Entry(
        generation, np.frombuffer(touched, "<u8").tolist(), np.frombuffer(dead, "<u8").tolist()
    )


# --- changing ------------------------------------------------------------------------------


@dataclass(slots=True)
class VectorChanges:
    """What one change does to the vectors of items: gathered, then written by `save`."""

    batch: Batch
    config: IndexConfig | None = None
    _settings: Settings | None = None
    _state: VectorState | None = None
    _new: NewVectors | None = None
    _dead: list[int] = field(default_factory=list)
    _changed: set[bytes] = field(default_factory=set)

    def put(self, node: int, suffix: bytes, vectors: VectorSet) -> None:
        """Give the item at `suffix` in `node` vectors; `remove` has taken those it had."""
        if self._new is None:
            self._new = NewVectors()
        self._new.add(node, suffix, vectors)

    def remove(self, suffix: bytes) -> None:
        """Take the vectors of the item at `suffix`, if it has any."""
        state, settings = self._read()
        if settings is None or not state.vectors:
            return
        found = find_vectors(self.batch, settings.generation, suffix)
        if found is not None:
            first, paths = found
            self.batch.delete(Table.MEMORY, vectors_key(settings.generation, suffix))
            self._changed.add(suffix)
            self._dead += range(first, first + len(paths))
            state.vectors -= len(paths)

    def _read(self) -> tuple[VectorState, Settings | None]:
        if self._state is None:
            self._state = read_state(self.batch)
            self._settings = read_settings(self.batch)
        return self._state, self._settings

    def save(self) -> VectorState | None:
        """Write what was gathered: slabs, the items' records, an entry of the log.

        Returns the counters afterwards; None if there was nothing to write.
        """
        if not self._new and not self._dead:
            return None
        state, settings = self._read()
        touched: list[int] = []
        if self._dead and settings is not None:
            touched += kill(self.batch, settings.generation, self._dead)
        if self._new:
            dims = int(self._new.sets[0].rows.shape[1])
            settings = settle(self.batch, state, dims, self.config)
            slabs = pack_new(self.batch, state, settings, self._new)
            touched += add_slabs(self.batch, settings.generation, slabs)
            state.vectors += sum(map(len, slabs))
        if settings is not None:
            self._log(state, Entry(settings.generation, sorted(set(touched)), self._dead))
        given = set(self._new.suffixes) if self._new else set[bytes]()
        follow_pending(self.batch, state, given, self._changed - given)
        write_state(self.batch, state)
        return state

    def _log(self, state: VectorState, entry: Entry) -> None:
        state.sequence += 1
        if not state.vectors:  # who follows finds nothing, and needs no log for it
            for kind in (Kind.VECTOR_LOG, Kind.VECTOR_GRAPH):
                self.batch.delete_range(Table.MEMORY, bytes((kind,)))
            state.first = state.sequence + 1
            return
        body = encode_fields(
            [
                entry.generation,
                np.array(entry.touched, "<u8").tobytes(),
                np.array(entry.dead, "<u8").tobytes(),
            ]
        )
        self.batch.put(Table.MEMORY, _log_key(state.sequence), body)
        if state.sequence - state.first >= LOG_ENTRIES:
            self.batch.delete(Table.MEMORY, _log_key(state.first))
            state.first += 1
