"""Ranking: which vectors are nearest to a query, exactly, from scores that are nearly right.

A *key* is what vectors are ordered by: the cosine, the inner product, or the negative squared
distance. Keys of many vectors come from float32 arithmetic, by the scan kernel or the graph,
within a bound of the true ones. The best are computed again in float64, and given out once no
other can be better: so the order is that of the true keys, and equal vectors tie wherever
they lie.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np

from lgkv._vectors import rescore, scan
from lgkv.errors import CorruptionError
from lgkv.layout import Table, open_record
from lgkv.snapshot import Snapshot
from lgkv.vectors.directory import Directory, Ranges, SlabPlace
from lgkv.vectors.slabs import WILD, slab_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Hit", "Named", "Query", "Ranking", "Records", "scan_ranges"]

UNIT_ROUNDOFF: Final = 2.0**-24
OWN_PAGES_BYTES: Final = 1 << 16
"""A record of so many bytes has pages of its own, whatever the page size."""

HALVES_ROWS: Final = 512
"""So many rows of float16 are made float32 at a time: they stay in the cache."""

FIRST_EXTRA: Final = 4
"""So many more than wanted are looked at first: enough to tell ties apart from what follows."""


class Query:
    """A query vector, made ready for one metric."""

    def __init__(self, vector: NDArray[np.float32], metric: str) -> None:
        self.metric = metric
        wide = vector.astype(np.float64)
        length = float(np.sqrt(np.dot(wide, wide)))
        if metric == "cosine" and length:
            wide = wide / length
            self.length = 1.0
        else:
            self.length = length
        self.wide = np.ascontiguousarray(wide)
        self.narrow = np.ascontiguousarray(wide, np.float32)
        self.wild = metric != "cosine" and length > 0 and not 1 / WILD < length < WILD

    def margin(self, longest: float) -> tuple[float, float]:
        """Return how far a key in float32 can be off: absolutely, and as a part of itself."""
        part = 2 * (self.wide.size / 4 + 16) * UNIT_ROUNDOFF
        if self.metric == "cosine":
            return part, 0.0
        if self.metric == "inner_product":
            return part * self.length * longest, 0.0
        return 0.0, part

    def keys(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the true keys of rows by what `rescore` gives for them."""
        if self.metric == "inner_product":
            return sums[:, 0].copy()
        if self.metric == "l2":
            return -sums[:, 2]
        lengths = np.sqrt(sums[:, 1])
        lengths[lengths == 0] = 1.0
        return np.clip(sums[:, 0] / lengths, -1.0, 1.0)

    def score(self, key: float) -> float:
        """Return what a caller is told for a key: for "l2" the negative distance."""
        return -math.sqrt(-key) if self.metric == "l2" else key


class Records:
    """The records of slabs, as they are mapped in one snapshot."""

    def __init__(self, snapshot: Snapshot, directory: Directory, map_epoch: int) -> None:
        self._snapshot, self.directory, self._map_epoch = snapshot, directory, map_epoch
        self._records: dict[int, memoryview] = {}

    def record(self, number: int) -> memoryview:
        """Return the record of a slab, by its place in the directory."""
        place = self.directory.slabs[number]
        mapped = place.mapped
        if mapped is not None and mapped[0] == self._map_epoch:
            return mapped[1]
        record = self._records.get(number)
        if record is None:
            record = self._records[number] = self._read(place)
        return record

    def _read(self, place: SlabPlace) -> memoryview:
        key = slab_key(self.directory.settings.generation, place.first)
        record = self._snapshot.mapped(Table.MEMORY, key)
        if record is None:
            raise CorruptionError(Table.MEMORY.label, key, "the slab is missing")
        if record[0]:  # it was not stored as it is
            return memoryview(b"\x00" + open_record(Table.MEMORY, key, bytes(record)))
        if len(record) >= OWN_PAGES_BYTES:
            place.mapped = self._map_epoch, record
        return record

    def suffix(self, number: int, row: int) -> bytes:
        """Return the name of the item that a row is a vector of."""
        return self.directory.slabs[number].suffix(self.record(number), row)

    def rows(self, number: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows of a slab."""
        settings, place = self.directory.settings, self.directory.slabs[number]
        kind, count = f"<f{settings.float_bytes}", len(place) * settings.dims
        every = np.frombuffer(self.record(number), kind, count, place.rows_at)
        found: NDArray[np.float32] = every.reshape(len(place), settings.dims)[rows].astype("f4")
        return found

    def graph_rows(self, number: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows of a slab as the graph takes them: of unit length for the cosine."""
        found = self.rows(number, rows)
        if self.directory.settings.metric == "cosine":
            found *= self.directory.slabs[number].scales[rows][:, None]
        return found

    def true_keys(
        self, query: Query, slabs: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the keys of rows in float64."""
        sums = np.empty((len(rows), 3))
        parts = [
            (self.record(number), self.directory.slabs[number].rows_at, row)
            for number, row in zip(slabs.tolist(), rows.tolist(), strict=True)
        ]
        rescore(parts, query.wide, self.directory.settings.float_bytes, sums)
        return query.keys(sums)


class Candidates(Protocol):
    """Vectors with their keys in float32; -inf for what is known to be none."""

    keys: NDArray[np.float32]

    def locate(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return slab and row of the vectors at `places`; -1 for what is none."""
        ...


@dataclass(slots=True)
class Scanned:
    """All rows of ranges."""

    keys: NDArray[np.float32]
    ranges: Ranges

    def locate(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return slab and row of the vectors at `places`."""
        return self.ranges.locate(places)


def scan_ranges(records: Records, ranges: Ranges, query: Query, *, behind: int = 0) -> Scanned:
    """Return the keys of all rows in `ranges` that are alive, of labels from `behind` on."""
    directory = records.directory
    keys = np.empty(ranges.rows, np.float32)
    if directory.settings.storage == "float16":
        _scan_halves(records, ranges, query, keys)
    else:
        slabs = directory.slabs
        parts = [
            (records.record(number), slabs[number].rows_at, start, stop)
            for number, start, stop in zip(ranges.slabs, ranges.starts, ranges.stops, strict=True)
        ]
        scan(parts, query.narrow, keys, query.metric == "l2")
    if query.metric == "cosine":
        keys *= ranges.scales
    elif query.metric == "l2":
        np.negative(keys, out=keys)
    if query.wild:
        keys[:] = np.inf
    elif directory.wild:
        keys[np.isnan(ranges.scales)] = np.inf
    if ranges.dead is not None:
        keys[ranges.dead] = -np.inf
    if behind:
        keys[ranges.labels < behind] = -np.inf
    return Scanned(keys, ranges)


def _scan_halves(records: Records, ranges: Ranges, query: Query, out: NDArray[np.float32]) -> None:
    """Fill `out` with the keys of rows that are stored in float16, some of them at a time."""
    dims, at = records.directory.settings.dims, 0
    for number, start, stop in zip(ranges.slabs, ranges.starts, ranges.stops, strict=True):
        record, rows_at = records.record(number), records.directory.slabs[number].rows_at
        for first in range(start, stop, HALVES_ROWS):
            count = min(HALVES_ROWS, stop - first)
            rows = np.frombuffer(record, "<f2", dims * count, rows_at + 2 * dims * first)
            part = out[at : at + count]
            scan([(rows.astype(np.float32), 0, 0, count)], query.narrow, part, query.metric == "l2")
            at += count


@dataclass(slots=True)
class Named:
    """Vectors by label, of which some may be dead, or not in `nodes`: one or more, sorted."""

    keys: NDArray[np.float32]
    labels: NDArray[np.uint64]
    directory: Directory
    nodes: NDArray[np.uint64] | None

    def locate(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return slab and row of the vectors at `places`; -1 for what is none."""
        slabs, rows = self.directory.locate(self.labels[places])
        if self.nodes is not None:
            nodes = self._nodes_of(slabs, rows)
            at = np.searchsorted(self.nodes[:-1], nodes)
            slabs[self.nodes[at] != nodes] = -1
        return slabs, rows

    def _nodes_of(self, slabs: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return the numbers of the namespaces that rows are in; 0, which has none, for no row."""
        places = self.directory.slabs
        each = zip(slabs.tolist(), rows.tolist(), strict=True)
        return np.array([places[s].nodes[row] if s >= 0 else 0 for s, row in each], np.uint64)


class Hit(NamedTuple):
    """An item that was found, by its best vector."""

    suffix: bytes
    score: float


class Ranking:
    """Candidates, ranked by their true keys as far as that is asked for."""

    def __init__(self, records: Records, query: Query, several: list[Candidates]) -> None:
        self._records, self._query, self._several = records, query, several
        parts = [candidates.keys for candidates in several]
        self._keys = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self._bounds = np.cumsum([0, *map(len, parts)]).tolist()
        self._known: dict[tuple[int, int], tuple[float, int, int]] = {}

    def hits(self, wanted: int) -> Iterator[Hit]:
        """Yield items, best first, by the true keys of their best vectors; each once.

        `wanted` is how many will be taken, as far as that is known.
        """
        margin, part = self._query.margin(self._records.directory.longest)
        total = int(np.count_nonzero(self._keys > -np.inf))
        given: set[tuple[int, int]] = set()
        seen = np.zeros(0, np.int64)
        count = wanted + FIRST_EXTRA
        while True:
            places, floor = self._best(min(count, total), total)
            if floor > -np.inf:
                floor += margin + abs(floor) * part
            self._look(np.setdiff1d(places, seen, assume_unique=True) if seen.size else places)
            seen = places
            ready = [
                (key, item)
                for item, (key, _, _) in self._known.items()
                if key > floor and item not in given
            ]
            ready.sort(key=lambda one: -one[0])
            for key, item in ready:
                given.add(item)
                _, number, row = self._known[item]
                yield Hit(self._records.suffix(number, row), self._query.score(key))
            if count >= total:
                return
            count *= 4

    def _best(self, count: int, total: int) -> tuple[NDArray[np.int64], float]:
        """Return the places of the `count` greatest keys, and what no other key is above."""
        if count >= total:
            return np.flatnonzero(self._keys > -np.inf), -np.inf
        first = len(self._keys) - count
        places = np.argpartition(self._keys, first)[first:]
        return places, float(self._keys[places].min())

    def _look(self, places: NDArray[np.int64]) -> None:
        """Note the true keys of the vectors at `places`, by item; of an item the best."""
        for which, candidates in enumerate(self._several):
            low, high = self._bounds[which : which + 2]
            mine = places
            if len(self._several) > 1:
                mine = places[(places >= low) & (places < high)] - low
            if mine.size:
                self._note(*candidates.locate(mine))

    def _note(self, slabs: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        if slabs.min() < 0:
            slabs, rows = slabs[slabs >= 0], rows[slabs >= 0]
        keys = self._records.true_keys(self._query, slabs, rows).tolist()
        for key, number, row in zip(keys, slabs.tolist(), rows.tolist(), strict=True):
            item = number, int(self._records.directory.slabs[number].items[row])
            best = self._known.get(item)
            if best is None or key > best[0]:
                self._known[item] = key, number, row
