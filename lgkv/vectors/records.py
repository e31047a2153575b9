"""The vectors of items as records, and the log of what changed of them.

All of it is written in the transaction of the item's change. The log lets a process follow
what it has in memory; one that is too far behind reads the slabs again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lgkv.errors import CorruptionError, InvalidInputError
from lgkv.keys import pack_uint
from lgkv.layout import Kind, Table, check_record, decode_plain, encode_fields
from lgkv.snapshot import Snapshot
from lgkv.vectors.checks import VectorSet
from lgkv.vectors.settings import (
    IndexConfig,
    Settings,
    VectorState,
    read_settings,
    read_state,
    settle,
    write_state,
)
from lgkv.vectors.slabs import SLAB_BYTES, Slab, add_slabs, kill, make_slab
from lgkv.writer import Batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Entry", "VectorChanges", "find_vectors", "read_entry"]

LOG_ENTRIES: Final = 1024
"""The most entries that the log keeps."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one change did to the vectors: slabs that are other now, and labels that are dead."""

    generation: int
    touched: list[int]
    dead: list[int]


# --- keys and bodies -----------------------------------------------------------------------


def _vectors_key(generation: int, suffix: bytes) -> bytes:
    return bytes((Kind.VECTORS,)) + pack_uint(generation) + suffix


def _log_key(sequence: int) -> bytes:
    return bytes((Kind.VECTOR_LOG,)) + pack_uint(sequence)


def find_vectors(
    snapshot: Snapshot, generation: int, suffix: bytes
) -> tuple[int, tuple[str, ...]] | None:
    """Return the label of the first vector of the item at `suffix`, and the path of each."""
    key = _vectors_key(generation, suffix)
    body = snapshot.get(Table.MEMORY, key)
    if body is None:
        return None
    first, paths = _fields(key, body, int, list)
    check_record(Table.MEMORY, key, paths, *[bytes] * len(paths))
    return first, tuple(str(path, "utf-8", "surrogatepass") for path in paths)


def read_entry(snapshot: Snapshot, sequence: int) -> Entry | None:
    """Return an entry of the log, or None."""
    key = _log_key(sequence)
    body = snapshot.get(Table.MEMORY, key)
    if body is None:
        return None
    generation, touched, dead = _fields(key, body, int, bytes, bytes)
    if len(touched) % 8 or len(dead) % 8:
        raise CorruptionError(Table.MEMORY.label, key, "the entry's labels are cut")
    return Entry(
        generation, np.frombuffer(touched, "<u8").tolist(), np.frombuffer(dead, "<u8").tolist()
    )


def _fields(key: bytes, body: bytes, *types: type) -> list[Any]:
    try:
        fields: list[Any] = decode_plain(body)
    except ValueError as error:
        raise CorruptionError(Table.MEMORY.label, key, str(error)) from None
    check_record(Table.MEMORY, key, fields, *types)
    return fields


# --- changing ------------------------------------------------------------------------------


@dataclass(slots=True)
class VectorChanges:
    """What one change does to the vectors of items: gathered, then written by `save`."""

    batch: Batch
    config: IndexConfig | None = None
    _settings: Settings | None = None
    _state: VectorState | None = None
    _new: list[tuple[int, bytes, VectorSet]] = field(default_factory=list)
    _dead: list[int] = field(default_factory=list)

    def put(self, node: int, suffix: bytes, vectors: VectorSet) -> None:
        """Give the item at `suffix` in `node` vectors; `remove` has taken those it had."""
        self._new.append((node, suffix, vectors))

    def remove(self, suffix: bytes) -> None:
        """Take the vectors of the item at `suffix`, if it has any."""
        state, settings = self._read()
        if settings is None or not state.vectors:
            return
        found = find_vectors(self.batch, settings.generation, suffix)
        if found is not None:
            first, paths = found
            self.batch.delete(Table.MEMORY, _vectors_key(settings.generation, suffix))
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
            settings = settle(self.batch, state, self._dims(), self.config)
            touched += add_slabs(self.batch, settings.generation, self._slabs(state, settings))
        if settings is not None:
            self._log(state, Entry(settings.generation, sorted(set(touched)), self._dead))
        write_state(self.batch, state)
        return state

    def _dims(self) -> int:
        return int(self._new[0][2].rows.shape[1])

    def _slabs(self, state: VectorState, settings: Settings) -> list[Slab]:
        """Give the new vectors labels and pack them into slabs, by namespace."""
        self._new.sort(key=lambda new: new[0])  # keeps the order inside a namespace
        most = max(1, SLAB_BYTES // (settings.dims * settings.float_bytes + 64))
        slabs: list[Slab] = []
        part: list[tuple[int, bytes, VectorSet]] = []
        count = 0
        for new in self._new:
            if part and count + len(new[2].rows) > most:
                slabs.append(self._slab(state, settings, part))
                part, count = [], 0
            part.append(new)
            count += len(new[2].rows)
        return [*slabs, self._slab(state, settings, part)]

    def _slab(
        self, state: VectorState, settings: Settings, part: list[tuple[int, bytes, VectorSet]]
    ) -> Slab:
        first = state.labels + 1
        items: list[int] = []
        nodes: list[int] = []
        suffixes: list[bytes] = []
        for node, suffix, vectors in part:
            paths = [path.encode("utf-8", "surrogatepass") for path in vectors.paths]
            item, count = state.labels + 1, len(paths)
            self.batch.put(
                Table.MEMORY,
                _vectors_key(settings.generation, suffix),
                encode_fields([item, paths]),
            )
            state.labels += count
            state.vectors += count
            items += [item] * count
            nodes += [node] * count
            suffixes += [suffix] * count
        rows = _stored([vectors.rows for _, _, vectors in part], settings)
        return make_slab(first, items, nodes, suffixes, rows)

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


def _stored(several: list[NDArray[np.float32]], settings: Settings) -> NDArray[Any]:
    """Return rows one below the other, as they are stored."""
    rows = np.concatenate(several)
    if settings.storage == "float32":
        return rows.astype("<f4", copy=False)
    with np.errstate(over="ignore"):
        halves = rows.astype("<f2")
    if not np.isfinite(halves).all():
        raise InvalidInputError(
            "a vector has a number beyond 65504, too large for float16: store float32, or scale it"
        )
    return halves
