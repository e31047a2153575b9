"""Slabs: vectors that lie together in the file, so that a scan reads them where they are mapped.

Every vector has a *label*, a number that is never given again. A slab holds vectors of a
range of labels, sorted by namespace; no two ranges overlap. New vectors are merged with the
slab before them while that is at most twice as large, so a vector is written O(log n) times.
A deleted vector stays in its slab, marked dead beside it, until half of the slab is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lgkv._vectors import measure_rows
from lgkv.errors import CorruptionError
from lgkv.keys import pack_uint, unpack_uint
from lgkv.layout import Kind, Table
from lgkv.snapshot import Snapshot
from lgkv.writer import Batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "SLAB_BYTES",
    "Slab",
    "add_slabs",
    "dead_labels",
    "drop_slabs",
    "first_rows_at",
    "kill",
    "make_slab",
    "read_slab",
    "slab_firsts",
    "slab_holding",
    "slab_key",
]

SLAB_BYTES: Final = 4 << 20
"""The most bytes of one slab, unless a single item has more."""

COLUMN_BYTES: Final = 24
"""The bytes of a row's label, item, scale, node and end of suffix."""

WILD: Final = 1e15
"""A vector longer than this, or shorter than its inverse, is not compared in float32."""

_HEADER: Final = struct.Struct("<IIII")
_FLAGS_BYTES: Final = 1
_PAGE_HEADER_BYTES: Final = 16
_ALIGNED: Final = 64


@dataclass(slots=True)
class Slab:
    """Vectors as they lie together: row `n` of each column is of one vector.

    `labels` and `items` (the label of the first vector of the same item) count from
    `first`; `scales` are inverse lengths, 0 for none and NaN for a wild vector.
    """

    first: int
    labels: NDArray[np.uint32]
    items: NDArray[np.uint32]
    scales: NDArray[np.float32]
    nodes: NDArray[np.uint64]
    suffixes: list[bytes]
    rows: NDArray[Any]

    def __len__(self) -> int:
        return len(self.labels)


def slab_key(generation: int, first: int) -> bytes:
    """Return the key of the slab whose labels begin at `first`."""
    return _prefix(Kind.VECTOR_SLAB, generation) + pack_uint(first)


def _dead_key(generation: int, first: int) -> bytes:
    return _prefix(Kind.VECTOR_DEAD, generation) + pack_uint(first)


def _prefix(kind: Kind, generation: int) -> bytes:
    return bytes((kind,)) + pack_uint(generation)


# --- bytes ---------------------------------------------------------------------------------


def first_rows_at(count: int, suffix_bytes: int) -> int:
    """Return where in a body the rows begin: so that on a page of its own they are aligned."""
    end = _HEADER.size + COLUMN_BYTES * count + suffix_bytes
    return end + -(end + _FLAGS_BYTES + _PAGE_HEADER_BYTES) % _ALIGNED


def _pack(slab: Slab) -> bytes:
    count, dims = slab.rows.shape
    suffixes = b"".join(slab.suffixes)
    ends = np.cumsum([len(suffix) for suffix in slab.suffixes], dtype="<u4")
    columns = b"".join(
        column.astype(kind, copy=False).tobytes()
        for column, kind in (
            (slab.labels, "<u4"),
            (slab.items, "<u4"),
            (slab.scales, "<f4"),
            (slab.nodes, "<u8"),
            (ends, "<u4"),
        )
    )
    header = _HEADER.pack(count, dims, len(suffixes), slab.rows.dtype.itemsize)
    start = first_rows_at(count, len(suffixes))
    head = (header + columns + suffixes).ljust(start, b"\x00")
    return b"".join((head, np.ascontiguousarray(slab.rows).data))


def _unpack(key: bytes, first: int, body: bytes) -> Slab:
    try:
        count, dims, suffix_bytes, size = _HEADER.unpack_from(body)
        start = first_rows_at(count, suffix_bytes)
        whole = size in (2, 4) and len(body) == start + count * dims * size
        _demand(count > 0 and dims > 0 and whole, "the number of vectors")
        at, columns = _HEADER.size, []
        for kind in ("<u4", "<u4", "<f4", "<u8", "<u4"):
            columns.append(np.frombuffer(body, kind, count, at))
            at += columns[-1].nbytes
        labels, items, scales, nodes, ends = columns
        bounds = [0, *ends.tolist()]
        _demand(bounds[-1] == suffix_bytes and sorted(bounds) == bounds, "the names' sizes")
        suffixes = [body[at + a : at + b] for a, b in pairwise(bounds)]
        rows = np.frombuffer(body, f"<f{size}", count * dims, start).reshape(count, dims)
        _demand(bool(np.isfinite(rows).all()), "a number that is not finite")
        _demand(bool((nodes[1:] >= nodes[:-1]).all()), "the order of the namespaces")
        _demand(len(np.unique(labels)) == count, "a label that is there twice")
    except (struct.error, ValueError) as error:
        raise CorruptionError(Table.MEMORY.label, key, str(error)) from None
    return Slab(first, labels, items, scales, nodes, suffixes, rows)


def _demand(condition: bool, what: str) -> None:  # noqa: FBT001  it reads as a sentence
    if not condition:
        raise ValueError(f"{what} cannot be")


def make_slab(
    first: int,
    items: NDArray[np.int64],
    nodes: NDArray[np.uint64],
    suffixes: list[bytes],
    rows: NDArray[Any],
) -> Slab:
    """Return a slab of new vectors, labelled from `first` on; `items` are whole labels."""
    lengths = np.empty(len(rows))
    measure_rows(np.ascontiguousarray(rows).view(np.uint8), rows.shape[1], lengths)
    scales = np.zeros(len(rows), np.float32)
    sane = (lengths < WILD) & (lengths > 1 / WILD)
    scales[sane] = 1 / lengths[sane]
    scales[~sane & (lengths > 0)] = np.nan
    return Slab(
        first,
        np.arange(len(rows), dtype=np.uint32),
        (items - first).astype(np.uint32),
        scales,
        nodes,
        suffixes,
        rows,
    )


def _joined(slabs: list[Slab]) -> Slab:
    """Return one slab of several neighbours, sorted by namespace, then label."""
    if len(slabs) == 1:
        return slabs[0]
    first = slabs[0].first
    labels = np.concatenate([slab.labels + np.uint32(slab.first - first) for slab in slabs])
    items = np.concatenate([slab.items + np.uint32(slab.first - first) for slab in slabs])
    nodes = np.concatenate([slab.nodes for slab in slabs])
    order = np.lexsort((labels, nodes))
    suffixes = [suffix for slab in slabs for suffix in slab.suffixes]
    rows = np.empty((len(order), slabs[0].rows.shape[1]), slabs[0].rows.dtype)
    places, at = np.empty(len(order), np.int64), 0
    places[order] = np.arange(len(order))
    for slab in slabs:
        rows[places[at : at + len(slab)]] = slab.rows
        at += len(slab)
    return Slab(
        first,
        labels[order],
        items[order],
        np.concatenate([slab.scales for slab in slabs])[order],
        nodes[order],
        [suffixes[place] for place in order.tolist()],
        rows,
    )


def _without(slab: Slab, dead: set[int]) -> Slab | None:
    """Return the slab without what is dead; None if nothing is left."""
    if not dead:
        return slab
    keep = ~np.isin(slab.labels, np.fromiter(dead, np.uint32, len(dead)))
    if not keep.any():
        return None
    return Slab(
        slab.first,
        slab.labels[keep],
        slab.items[keep],
        slab.scales[keep],
        slab.nodes[keep],
        [slab.suffixes[place] for place in np.flatnonzero(keep).tolist()],
        slab.rows[keep],
    )


# --- reading -------------------------------------------------------------------------------


def read_slab(snapshot: Snapshot, generation: int, first: int) -> Slab | None:
    """Return the slab at `first`, its dead vectors among it, or None."""
    key = slab_key(generation, first)
    body = snapshot.get(Table.MEMORY, key)
    return None if body is None else _unpack(key, first, body)


def dead_labels(snapshot: Snapshot, generation: int, first: int) -> set[int]:
    """Return which vectors of the slab at `first` are dead, counted from `first`."""
    key = _dead_key(generation, first)
    body = snapshot.get(Table.MEMORY, key)
    if body is None:
        return set()
    if len(body) % 4:
        raise CorruptionError(Table.MEMORY.label, key, "the list of the dead is cut")
    return set(np.frombuffer(body, "<u4").tolist())


def slab_firsts(snapshot: Snapshot, generation: int) -> list[int]:
    """Return where the slabs of `generation` begin, in order."""
    prefix = _prefix(Kind.VECTOR_SLAB, generation)
    return [_first_of(key, prefix) for key in snapshot.keys(Table.MEMORY, prefix)]


def _first_of(key: bytes, prefix: bytes) -> int:
    try:
        first, end = unpack_uint(key, len(prefix))
    except ValueError as error:
        raise CorruptionError(Table.MEMORY.label, key, str(error)) from None
    if end != len(key) or not 0 < first < 1 << 62:
        raise CorruptionError(Table.MEMORY.label, key, "the key is not that of a slab")
    return first


def slab_holding(snapshot: Snapshot, generation: int, label: int) -> int | None:
    """Return where the slab begins whose range `label` is in, or None."""
    prefix = _prefix(Kind.VECTOR_SLAB, generation)
    key = snapshot.at_or_before(Table.MEMORY, prefix, prefix + pack_uint(label))
    return None if key is None else _first_of(key, prefix)


def _count(snapshot: Snapshot, generation: int, first: int) -> int:
    """Return how many vectors the slab at `first` has, dead ones too, without checking it."""
    record = snapshot.mapped(Table.MEMORY, slab_key(generation, first))
    if record is None or len(record) < _FLAGS_BYTES + _HEADER.size:
        return 0
    count: int = _HEADER.unpack_from(record, _FLAGS_BYTES)[0]
    return count


# --- writing -------------------------------------------------------------------------------


def add_slabs(batch: Batch, generation: int, slabs: list[Slab]) -> list[int]:
    """Store new slabs, the first merged with those before it; return which were touched."""
    touched: list[int] = []
    joined = [slabs[0]]
    total, most = len(slabs[0]), _most_rows(slabs[0])
    while True:
        before = slab_holding(batch, generation, joined[0].first - 1)
        if before is None:
            break
        count = _count(batch, generation, before)
        if not 0 < count <= 2 * total or count + total > most:
            break
        old = _read_living(batch, generation, before)
        _drop(batch, generation, before)
        touched.append(before)
        if old is not None:
            joined.insert(0, old)
            total += len(old)
    for slab in (_joined(joined), *slabs[1:]):
        touched.append(slab.first)
        _write(batch, generation, slab)
    return touched


def _most_rows(slab: Slab) -> int:
    row_bytes: int = slab.rows.shape[1] * slab.rows.dtype.itemsize
    return max(1, SLAB_BYTES // (COLUMN_BYTES + row_bytes))


def _read_living(batch: Batch, generation: int, first: int) -> Slab | None:
    slab = read_slab(batch, generation, first)
    return None if slab is None else _without(slab, dead_labels(batch, generation, first))


def _write(batch: Batch, generation: int, slab: Slab) -> None:
    batch.put(Table.MEMORY, slab_key(generation, slab.first), _pack(slab), compress=False)


def _drop(batch: Batch, generation: int, first: int) -> None:
    batch.delete(Table.MEMORY, slab_key(generation, first))
    batch.delete(Table.MEMORY, _dead_key(generation, first))


def kill(batch: Batch, generation: int, labels: Iterable[int]) -> list[int]:
    """Mark vectors dead; return the slabs that were written anew or dropped for it."""
    by_slab: dict[int, set[int]] = {}
    for label in labels:
        first = slab_holding(batch, generation, label)
        if first is None or label - first >= 1 << 32:
            raise CorruptionError(
                Table.MEMORY.label,
                slab_key(generation, label),
                "the vectors of an item are missing",
            )
        by_slab.setdefault(first, set()).add(label - first)
    touched: list[int] = []
    for first, newly in sorted(by_slab.items()):
        dead = dead_labels(batch, generation, first) | newly
        if 2 * len(dead) < _count(batch, generation, first):
            body = np.array(sorted(dead), "<u4").tobytes()
            batch.put(Table.MEMORY, _dead_key(generation, first), body)
        else:
            touched += _shrink(batch, generation, first, dead)
    return touched


def _shrink(batch: Batch, generation: int, first: int, dead: set[int]) -> list[int]:
    """Write a slab again without what is dead, joined with the one before it if both are small."""
    slab = read_slab(batch, generation, first)
    _drop(batch, generation, first)
    living = None if slab is None else _without(slab, dead)
    if living is None:
        return [first]
    before = slab_holding(batch, generation, first - 1)
    if before is not None and (
        _count(batch, generation, before) + len(living) <= _most_rows(living)
    ):
        neighbour = _read_living(batch, generation, before)
        _drop(batch, generation, before)
        if neighbour is not None:
            living = _joined([neighbour, living])
        _write(batch, generation, living)
        return [before, first]
    _write(batch, generation, living)
    return [first]


def drop_slabs(batch: Batch, generation: int) -> None:
    """Delete all slabs of `generation`."""
    for kind in (Kind.VECTOR_SLAB, Kind.VECTOR_DEAD):
        batch.delete_range(Table.MEMORY, _prefix(kind, generation))
