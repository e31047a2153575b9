"""Giving new vectors labels, and packing them into slabs, of whatever generation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lgkv.errors import CorruptionError, InvalidInputError
from lgkv.keys import encode_text, pack_uint
from lgkv.layout import Kind, Table, check_record, decode_plain, encode_fields
from lgkv.snapshot import Snapshot
from lgkv.vectors.checks import VectorSet
from lgkv.vectors.settings import MOST_NUMBERS, Settings, VectorState
from lgkv.vectors.slabs import SLAB_BYTES, Slab, make_slab
from lgkv.writer import Batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NewVectors", "fields_of", "find_vectors", "pack_new", "vectors_key"]

_LIST_OF_TWO: Final = b"\x82"


@dataclass(slots=True)
class NewVectors:
    """The vectors that items are given: a column for each field, a row for each item."""

    nodes: list[int] = field(default_factory=list)
    """The numbers of their namespaces."""
    suffixes: list[bytes] = field(default_factory=list)
    sets: list[VectorSet] = field(default_factory=list)

    def add(self, node: int, suffix: bytes, vectors: VectorSet) -> None:
        """Give an item vectors."""
        self.nodes.append(node)
        self.suffixes.append(suffix)
        self.sets.append(vectors)

    def by_node(self) -> NewVectors:
        """Return the same, sorted by namespace; the order inside a namespace is kept."""
        order = sorted(range(len(self.nodes)), key=self.nodes.__getitem__)
        return NewVectors(
            [self.nodes[row] for row in order],
            [self.suffixes[row] for row in order],
            [self.sets[row] for row in order],
        )

    def part(self, start: int, stop: int) -> NewVectors:
        """Return rows from `start` on and before `stop`."""
        part = slice(start, stop)
        return NewVectors(self.nodes[part], self.suffixes[part], self.sets[part])

    def __len__(self) -> int:
        return len(self.nodes)


def vectors_key(generation: int, suffix: bytes) -> bytes:
    """Return the key of the record that says which vectors an item has."""
    return bytes((Kind.VECTORS,)) + pack_uint(generation) + suffix


def find_vectors(
    snapshot: Snapshot, generation: int, suffix: bytes
) -> tuple[int, tuple[str, ...]] | None:
    """Return the label of the first vector of the item at `suffix`, and the path of each."""
    key = vectors_key(generation, suffix)
    body = snapshot.get(Table.MEMORY, key)
    if body is None:
        return None
    first, paths = fields_of(key, body, int, list)
    check_record(Table.MEMORY, key, paths, *[bytes] * len(paths))
    try:
        names = tuple(str(path, "utf-8", "surrogatepass") for path in paths)
    except UnicodeDecodeError as error:
        raise CorruptionError(Table.MEMORY.label, key, f"a damaged path: {error}") from None
    if not 0 < first < MOST_NUMBERS or not names:
        raise CorruptionError(Table.MEMORY.label, key, "the vectors of an item cannot be there")
    return first, names


def fields_of(key: bytes, body: bytes, *types: type) -> list[Any]:
    """Return the fields of a record, checked."""
    try:
        fields: list[Any] = decode_plain(body)
    except ValueError as error:
        raise CorruptionError(Table.MEMORY.label, key, str(error)) from None
    check_record(Table.MEMORY, key, fields, *types)
    return fields


def pack_new(batch: Batch, state: VectorState, settings: Settings, new: NewVectors) -> list[Slab]:
    """Give new vectors labels, write their items' records, and return slabs of them."""
    new = new.by_node()
    most = max(1, SLAB_BYTES // (settings.dims * settings.float_bytes + 64))
    slabs: list[Slab] = []
    start = count = 0
    for row, vectors in enumerate(new.sets):
        if count and count + len(vectors.paths) > most:
            slabs.append(_slab(batch, state, settings, new.part(start, row)))
            start, count = row, 0
        count += len(vectors.paths)
    return [*slabs, _slab(batch, state, settings, new.part(start, len(new)))]


def _slab(batch: Batch, state: VectorState, settings: Settings, new: NewVectors) -> Slab:
    first = state.labels + 1
    counts = np.array([len(vectors.paths) for vectors in new.sets])
    items = first + np.cumsum(counts) - counts
    state.labels += int(counts.sum())
    prefix = vectors_key(settings.generation, b"")
    keys = [prefix + suffix for suffix in new.suffixes]
    batch.set_all(Table.MEMORY, keys, _bodies(items.tolist(), new.sets))
    several = counts.tolist()
    return make_slab(
        first,
        np.repeat(items, counts),
        np.repeat(np.array(new.nodes, np.uint64), counts),
        [suffix for suffix, count in zip(new.suffixes, several, strict=True) for _ in range(count)],
        _stored(_rows(new.sets, counts), settings),
    )


def _bodies(items: list[int], sets: list[VectorSet]) -> list[bytes]:
    """Return the records of items: the label of the first vector, and the paths.

    Each is what `encode_fields` makes of both in a list; nearly all items have the same paths.
    """
    known: dict[tuple[str, ...], bytes] = {}
    bodies: list[bytes] = []
    for item, vectors in zip(items, sets, strict=True):
        paths = known.get(vectors.paths)
        if paths is None:
            paths = encode_fields([encode_text(path) for path in vectors.paths])
            known[vectors.paths] = paths
        bodies.append(_LIST_OF_TWO + encode_fields(item) + paths)
    return bodies


def _rows(sets: list[VectorSet], counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the vectors one below the other."""
    rows = sets[0].rows
    if any(vectors.rows is not rows for vectors in sets):
        return np.concatenate([vectors.own for vectors in sets])
    firsts = np.array([vectors.first for vectors in sets])
    ends = np.cumsum(counts)
    places = np.arange(ends[-1]) + np.repeat(firsts - ends + counts, counts)
    gathered: NDArray[np.float32] = rows[places]
    return gathered


def _stored(rows: NDArray[np.float32], settings: Settings) -> NDArray[Any]:
    """Return rows as they are stored."""
    if settings.storage == "float32":
        return rows.astype("<f4", copy=False)
    with np.errstate(over="ignore"):
        halves = rows.astype("<f2")
    if not np.isfinite(halves).all():
        raise InvalidInputError(
            "a vector has a number beyond 65504, too large for float16: store float32, or scale it"
        )
    return halves
