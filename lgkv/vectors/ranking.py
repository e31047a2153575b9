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
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np

from lgkv._vectors import measure, prepare, scan, scan_slabs, top
from lgkv.errors import CorruptionError
from lgkv.layout import Table, open_record
from lgkv.snapshot import Snapshot
from lgkv.vectors.directory import Directory, Ranges, SlabPlace
from lgkv.vectors.settings import METRICS
from lgkv.vectors.slabs import WILD, slab_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FIRST_EXTRA", "Hit", "Named", "Query", "Ranking", "Records", "others_of", "scan_ranges",
]  # fmt: skip

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
        self.wide = np.empty(vector.size)
        self.narrow = np.empty(vector.size, np.float32)
        unit = metric == "cosine"
        length = prepare(vector, unit, self.wide, self.narrow)
        self.length = 1.0 if unit and length else length
        self.wild = metric != "cosine" and length > 0 and not 1 / WILD < length < WILD

    def margin(self, longest: float) -> tuple[float, float]:
        """Return how far a key in float32 can be off: absolutely, and as a part of itself."""
        part = 2 * (self.wide.size / 4 + 16) * UNIT_ROUNDOFF
        if self.metric == "cosine":
            return part, 0.0
        if self.metric == "inner_product":
            return part * self.length * longest, 0.0
        return 0.0, part

    def score(self, key: float) -> float:
        """Return what a caller is told for a key: for "l2" the negative distance."""
        return -math.sqrt(-key) if self.metric == "l2" else key


class Records:
    """The records of slabs, as they are mapped in one snapshot."""

    def __init__(self, snapshot: Snapshot, directory: Directory, map_epoch: int) -> None:
        self._snapshot, self.directory, self.map_epoch = snapshot, directory, map_epoch
        self._records: dict[int, memoryview] = {}

    def record(self, number: int) -> memoryview:
        """Return the record of a slab, by its place in the directory."""
        place = self.directory.slabs[number]
        held: memoryview | None = place.native.held(self.map_epoch)
        if held is not None:
            return held
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
            place.native.hold(self.map_epoch, record)
        return record

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

    def measured(
        self, query: Query, slabs: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> list[tuple[float, int, bytes]]:
        """Return the keys of rows in float64, the first labels of their items, and their names.

        Rows of slab -1 are left out.
        """
        directory = self.directory
        return measure(
            directory.natives,
            self.record,
            self.map_epoch,
            slabs,
            rows,
            query.wide,
            directory.settings.float_bytes,
            METRICS.index(query.metric),
        )


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
        scan_slabs(
            directory.natives,
            records.record,
            records.map_epoch,
            *ranges.columns,
            query.narrow,
            keys,
            query.metric == "l2",
        )
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


def others_of(directory: Directory, labels: NDArray[np.uint64], limit: int) -> NDArray[np.uint64]:
    """Return the labels of the other vectors, alive, of the items that `labels` are of.

    Of `limit` in all at most: what an item has is left out if that is exceeded with it.
    """
    slabs, rows = directory.locate(labels)
    found, room = [np.empty(0, np.uint64)], limit
    for number in np.unique(slabs[slabs >= 0]).tolist():
        place = directory.slabs[number]
        ordered = place.items_by_label
        if ordered is None:
            continue
        items = np.unique(place.items[rows[slabs == number]])
        lows, highs = (np.searchsorted(ordered, items, side) for side in ("left", "right"))
        for low, high in zip(lows.tolist(), highs.tolist(), strict=True):
            if high - low <= room:
                room -= high - low
                own = place.labels[place.order[low:high]]
                found.append(own.astype(np.uint64) + np.uint64(place.first))
    others = np.setdiff1d(np.concatenate(found), labels)
    return others[directory.locate(others)[0] >= 0]


class Hit(NamedTuple):
    """An item that was found, by its best vector."""

    suffix: bytes
    score: float


class Ranking:
    """Candidates, ranked by their true keys as far as that is asked for.

    What is not above `bottom` is not given: a vector that is no candidate may be better.
    """

    def __init__(
        self,
        records: Records,
        query: Query,
        several: list[Candidates],
        *,
        bottom: float = -math.inf,
    ) -> None:
        self._records, self._query, self._several = records, query, several
        parts = [candidates.keys for candidates in several]
        self._keys = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self._bounds = [0, *accumulate(map(len, parts))]
        self._bottom = bottom
        self._known: dict[int, tuple[float, bytes]] = {}
        """The key of an item's best vector, and its name, by the label of its first."""

    def hits(self, wanted: int) -> Iterator[Hit]:
        """Yield items, best first, by the true keys of their best vectors; each once.

        `wanted` is how many will be taken, as far as that is known.
        """
        margin, part = self._query.margin(self._records.directory.longest)
        known = self._known
        seen: NDArray[np.int64] | None = None
        given: set[int] = set()
        count = wanted + FIRST_EXTRA
        while True:
            places = np.empty(min(count, len(self._keys)), np.int64)
            found, floor = top(self._keys, places)
            places, more = places[:found], floor > -np.inf
            floor = max(floor + margin + abs(floor) * part if more else floor, self._bottom)
            fresh = places if seen is None else np.setdiff1d(places, seen, assume_unique=True)
            self._look(fresh)
            seen = places
            ready = sorted(
                (
                    (key, item)
                    for item, (key, _) in known.items()
                    if key > floor and item not in given
                ),
                key=itemgetter(0),
                reverse=True,
            )
            for key, item in ready:
                given.add(item)
                yield Hit(known[item][1], self._query.score(key))
            if not more:
                return
            count *= 4

    def _look(self, places: NDArray[np.int64]) -> None:
        """Note the true keys of the vectors at `places`, by item; of an item the best."""
        for which, candidates in enumerate(self._several):
            mine = places
            if len(self._several) > 1:
                low, high = self._bounds[which : which + 2]
                mine = places[(places >= low) & (places < high)] - low
            if mine.size:
                self._note(*candidates.locate(mine))

    def _note(self, slabs: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        known = self._known
        for key, item, name in self._records.measured(self._query, slabs, rows):
            best = known.get(item)
            if best is None or key > best[0]:
                known[item] = key, name
