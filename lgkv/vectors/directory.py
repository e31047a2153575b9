"""The directory: where every vector lies, in memory, as of one entry of the log.

A directory is never changed. The next one shares with it what did not change, so threads
that read different commits each have their own.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lgkv._vectors import SlabRows, locate, locate_in_ranges
from lgkv.errors import CorruptionError
from lgkv.layout import Kind, Table
from lgkv.snapshot import Snapshot
from lgkv.vectors.records import read_entry
from lgkv.vectors.settings import Settings, VectorState
from lgkv.vectors.slabs import (
    COLUMN_BYTES,
    dead_labels,
    first_rows_at,
    read_slab,
    slab_firsts,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Directory", "Ranges", "SlabPlace", "advance", "load_directory"]

MEMO_SELECTIONS: Final = 64
"""So many selections of namespaces are remembered by a directory."""


@dataclass(eq=False)
class SlabPlace:
    """What memory holds of a slab, which was checked: all but its rows and its items' names.

    `labels` and `items` count from `first`; rows are sorted by node, then label. `alive`
    is None if all are.
    """

    first: int
    labels: NDArray[np.uint32]
    items: NDArray[np.uint32]
    scales: NDArray[np.float32]
    nodes: NDArray[np.uint64]
    rows_at: int
    suffixes_at: int
    alive: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def last(self) -> int:
        """The greatest label."""
        return self.first + int(self.labels.max())

    @cached_property
    def living(self) -> int:
        """How many are alive."""
        return len(self) if self.alive is None else int(np.count_nonzero(self.alive))

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The rows by label."""
        return np.argsort(self.labels, kind="stable")

    @cached_property
    def items_by_label(self) -> NDArray[np.uint32] | None:
        """The items of the rows by label, which ascend; None if each has but one vector."""
        return self.items[self.order] if np.any(self.items != self.labels) else None

    @cached_property
    def native(self) -> SlabRows:
        """The slab as the kernels use it; it also holds what they find once and keep."""
        return SlabRows(
            self.first,
            np.ascontiguousarray(self.labels[self.order]),
            self.order,
            self.items,
            self.scales,
            None if self.alive is None else self.alive.view(np.uint8),
            self.rows_at,
            self.suffixes_at,
        )

    @cached_property
    def longest(self) -> float:
        """The length of the longest vector that is compared in float32."""
        scales = self.scales[self.scales > 0]
        return float(1 / scales.min()) if scales.size else 0.0

    @cached_property
    def wild(self) -> bool:
        """Whether a vector cannot be compared in float32."""
        return bool(np.isnan(self.scales).any())

    def without(self, dead: NDArray[np.int64]) -> SlabPlace:
        """Return the slab with these rows dead."""
        alive = np.ones(len(self), np.bool_) if self.alive is None else self.alive.copy()
        alive[dead] = False
        place = replace(self, alive=alive)
        place.native.share_codes(self.native)
        return place


class Ranges:
    """Rows of slabs, as ranges: of `slabs`, by their place, from `starts` to before `stops`."""

    def __init__(
        self, places: list[SlabPlace], slabs: list[int], starts: list[int], stops: list[int]
    ) -> None:
        self._places = places
        self.slabs, self.starts, self.stops = slabs, starts, stops
        self.rows = sum(stops) - sum(starts)
        self.planned: tuple[Any, Any] = None, None
        """What the last plan followed from, and the plan."""

    def _column(self, of: Callable[[SlabPlace], NDArray[Any]]) -> NDArray[Any]:
        """Return a column of all rows."""
        each = zip(self.slabs, self.starts, self.stops, strict=True)
        parts = [of(self._places[number])[start:stop] for number, start, stop in each]
        return np.concatenate(parts) if parts else np.zeros(0)

    @cached_property
    def scales(self) -> NDArray[np.float32]:
        """The scales of all rows."""
        return self._column(lambda place: place.scales)

    @cached_property
    def dead(self) -> NDArray[np.bool_] | None:
        """Which rows are dead; None if none is."""
        if all(self._places[number].alive is None for number in self.slabs):
            return None
        return ~self._column(
            lambda place: np.ones(len(place), np.bool_) if place.alive is None else place.alive
        )

    @cached_property
    def labels(self) -> NDArray[np.uint64]:
        """The labels of all rows."""
        return self._column(lambda place: place.labels + np.uint64(place.first))

    @cached_property
    def vectors(self) -> int:
        """How many vectors are alive."""
        return self.rows - (0 if self.dead is None else int(np.count_nonzero(self.dead)))

    @cached_property
    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The slabs, where their rows start, and where they stop."""
        return (
            np.array(self.slabs, np.int64),
            np.array(self.starts, np.int64),
            np.array(self.stops, np.int64),
        )

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Behind how many rows each range ends."""
        _, starts, stops = self.columns
        return np.cumsum(stops - starts)

    def locate(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the slab and the place in it of rows, counted over all ranges."""
        slabs, _, stops = self.columns
        numbers = np.empty(len(rows), np.int64)
        found = np.empty(len(rows), np.int64)
        locate_in_ranges(self.ends, slabs, stops, rows, numbers, found)
        return numbers, found


@dataclass
class Directory:
    """Every slab of a generation, in the order of their labels, as of entry `sequence`."""

    settings: Settings
    sequence: int
    slabs: list[SlabPlace]
    _selections: dict[bytes, Ranges] = field(default_factory=dict)

    @cached_property
    def firsts(self) -> NDArray[np.uint64]:
        """Where the slabs begin."""
        return np.array([slab.first for slab in self.slabs], np.uint64)

    @cached_property
    def lasts(self) -> list[int]:
        """Where the slabs end."""
        return [slab.last for slab in self.slabs]

    @cached_property
    def vectors(self) -> int:
        """How many vectors are alive."""
        return sum(slab.living for slab in self.slabs)

    @cached_property
    def last(self) -> int:
        """The greatest label; 0 without any."""
        return self.lasts[-1] if self.slabs else 0

    @cached_property
    def wild(self) -> bool:
        """Whether a vector cannot be compared in float32."""
        return any(slab.wild for slab in self.slabs)

    @cached_property
    def longest(self) -> float:
        """The length of the longest vector that is compared in float32."""
        return max((slab.longest for slab in self.slabs), default=0.0)

    @cached_property
    def everything(self) -> Ranges:
        """All rows."""
        sizes = [len(slab) for slab in self.slabs]
        return Ranges(self.slabs, list(range(len(sizes))), [0] * len(sizes), sizes)

    @cached_property
    def nothing(self) -> Ranges:
        """No rows."""
        return Ranges(self.slabs, [], [], [])

    # --- choosing rows ---

    def select(self, nodes: NDArray[np.uint64] | None) -> Ranges:
        """Return the rows of the items in `nodes`, sorted numbers; None for all."""
        if nodes is None:
            return self.everything
        name = nodes.tobytes()
        found = self._selections.get(name)
        if found is None:
            if len(self._selections) >= MEMO_SELECTIONS:
                self._selections.clear()
            found = self._selections[name] = self._select(nodes)
        return found

    def _select(self, nodes: NDArray[np.uint64]) -> Ranges:
        slabs: list[int] = []
        starts: list[int] = []
        stops: list[int] = []
        for number, slab in enumerate(self.slabs):
            low = np.searchsorted(slab.nodes, nodes, "left")
            high = np.searchsorted(slab.nodes, nodes, "right")
            some = high > low
            for start, stop in _runs(low[some].tolist(), high[some].tolist()):
                slabs.append(number)
                starts.append(start)
                stops.append(stop)
        return Ranges(self.slabs, slabs, starts, stops)

    def behind(self, ranges: Ranges, label: int) -> Ranges:
        """Return those of `ranges` that are in slabs with labels from `label` on."""
        first = bisect.bisect_left(self.lasts, label)
        if first == len(self.slabs):
            return self.nothing
        kept = [place for place, number in enumerate(ranges.slabs) if number >= first]
        return Ranges(
            self.slabs,
            [ranges.slabs[place] for place in kept],
            [ranges.starts[place] for place in kept],
            [ranges.stops[place] for place in kept],
        )

    def vectors_below(self, label: int) -> int:
        """Return how many vectors with labels below this are alive."""
        count = 0
        for slab in self.slabs:
            below = slab.labels < max(0, min(label - slab.first, 1 << 32))
            count += int(np.count_nonzero(below if slab.alive is None else below & slab.alive))
        return count

    def locate(self, labels: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return slab and row of each label, -1 for what is not there or is dead."""
        slabs = np.empty(len(labels), np.int64)
        rows = np.empty(len(labels), np.int64)
        locate(self.natives, self.firsts, labels, slabs, rows)
        return slabs, rows

    @cached_property
    def has_several(self) -> bool:
        """Whether an item has several vectors."""
        return any(slab.items_by_label is not None for slab in self.slabs)

    @cached_property
    def natives(self) -> list[SlabRows]:
        """The slabs as the kernels use them."""
        return [slab.native for slab in self.slabs]


def _runs(starts: list[int], stops: list[int]) -> list[tuple[int, int]]:
    """Return ranges with those put together that touch."""
    runs: list[tuple[int, int]] = []
    for start, stop in zip(starts, stops, strict=True):
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], stop)
        else:
            runs.append((start, stop))
    return runs


# --- reading and following -----------------------------------------------------------------


def load_directory(snapshot: Snapshot, state: VectorState, settings: Settings) -> Directory:
    """Return the directory as of `snapshot`, read from the slabs, each of which is checked."""
    slabs = [
        _place(snapshot, settings, first) for first in slab_firsts(snapshot, settings.generation)
    ]
    found = Directory(settings, state.sequence, [slab for slab in slabs if slab is not None])
    if found.vectors != state.vectors:
        raise CorruptionError(
            Table.MEMORY.label,
            bytes((Kind.VECTOR_STATE,)),
            f"{found.vectors} vectors where {state.vectors} are counted",
        )
    return found


def advance(
    directory: Directory, snapshot: Snapshot, state: VectorState, settings: Settings
) -> Directory | None:
    """Return the directory as of `snapshot`, by the log; None if the log does not reach back."""
    if settings.generation != directory.settings.generation or (
        not state.first - 1 <= directory.sequence <= state.sequence
    ):
        return None
    touched: set[int] = set()
    dead: list[int] = []
    for sequence in range(directory.sequence + 1, state.sequence + 1):
        entry = read_entry(snapshot, sequence)
        if entry is None or entry.generation != settings.generation:
            return None
        touched.update(entry.touched)
        dead += entry.dead
    places = {slab.first: slab for slab in directory.slabs}
    for first in touched:
        place = _place(snapshot, settings, first)
        if place is None:
            places.pop(first, None)
        else:
            places[first] = place
    slabs = [place for _, place in sorted(places.items())]
    return _mark(Directory(settings, state.sequence, slabs), dead)


def _mark(found: Directory, dead: list[int]) -> Directory:
    """Return the directory with labels marked dead where they still lie."""
    if not dead:
        return found
    numbers, rows = found.locate(np.array(dead, np.uint64))
    slabs = list(found.slabs)
    for number in sorted({number for number in numbers.tolist() if number >= 0}):
        slabs[number] = slabs[number].without(rows[numbers == number])
    return Directory(found.settings, found.sequence, slabs)


def _place(snapshot: Snapshot, settings: Settings, first: int) -> SlabPlace | None:
    slab = read_slab(snapshot, settings.generation, first)
    if slab is None:
        return None
    if slab.rows.shape[1] != settings.dims or slab.rows.dtype.itemsize != settings.float_bytes:
        raise CorruptionError(
            Table.MEMORY.label, b"", f"the slab at {first} is not of {settings.dims} dimensions"
        )
    dead = dead_labels(snapshot, settings.generation, first)
    alive: NDArray[Any] | None = None
    if dead:
        alive = ~np.isin(slab.labels, np.fromiter(dead, np.uint32, len(dead)))
    suffix_bytes = sum(len(suffix) for suffix in slab.suffixes)
    return SlabPlace(
        first,
        slab.labels.copy(),
        slab.items.copy(),
        slab.scales.copy(),
        slab.nodes.copy(),
        1 + first_rows_at(len(slab), suffix_bytes),
        1 + 16 + COLUMN_BYTES * len(slab),
        alive,
    )
