"""Giving new vectors labels, and packing them into slabs, of whatever generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lgkv.errors import CorruptionError, InvalidInputError
from lgkv.keys import pack_uint
from lgkv.layout import Kind, Table, check_record, decode_plain, encode_fields
from lgkv.snapshot import Snapshot
from lgkv.vectors.checks import VectorSet
from lgkv.vectors.settings import MOST_NUMBERS, Settings, VectorState
from lgkv.vectors.slabs import SLAB_BYTES, Slab, make_slab
from lgkv.writer import Batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NewVectors", "fields_of", "find_vectors", "pack_new", "vectors_key"]


class NewVectors(NamedTuple):
    """The vectors that an item is given; `node` is the number of its namespace."""

    node: int
    suffix: bytes
    vectors: VectorSet


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


def pack_new(
    batch: Batch, state: VectorState, settings: Settings, new: list[NewVectors]
) -> list[Slab]:
    """Give new vectors labels, write their items' records, and return slabs of them."""
    new.sort(key=lambda one: one.node)  # keeps the order inside a namespace
    most = max(1, SLAB_BYTES // (settings.dims * settings.float_bytes + 64))
    slabs: list[Slab] = []
    part: list[NewVectors] = []
    count = 0
    for one in new:
        if part and count + len(one.vectors.rows) > most:
            slabs.append(_slab(batch, state, settings, part))
            part, count = [], 0
        part.append(one)
        count += len(one.vectors.rows)
    return [*slabs, _slab(batch, state, settings, part)]


def _slab(batch: Batch, state: VectorState, settings: Settings, part: list[NewVectors]) -> Slab:
    first = state.labels + 1
    items: list[int] = []
    nodes: list[int] = []
    suffixes: list[bytes] = []
    records: list[tuple[bytes, bytes]] = []
    prefix = vectors_key(settings.generation, b"")
    for one in part:
        paths = [path.encode("utf-8", "surrogatepass") for path in one.vectors.paths]
        item, count = state.labels + 1, len(paths)
        records.append((prefix + one.suffix, encode_fields([item, paths])))
        state.labels += count
        items += [item] * count
        nodes += [one.node] * count
        suffixes += [one.suffix] * count
    batch.set_all(Table.MEMORY, records)
    rows = _stored([one.vectors.rows for one in part], settings)
    return make_slab(first, items, nodes, suffixes, rows)


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
