"""The HNSW graph in memory, through hnswlib: what it may do at one time, and how it is saved.

hnswlib allows many searches at once, but none beside a change. A search that comes while the
graph is changed does not wait: it is told so, and scans instead.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import hnswlib
import numpy as np

from lgkv.locks import Mutex
from lgkv.vectors.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LINKS", "Frame", "Graph", "Links", "graph_bytes"]

LINKS: Final = 16
"""HNSW's M: so many links a vector has on the upper levels, twice as many on the lowest."""

CONSTRUCTION_WIDTH: Final = 200
PARALLEL_ROWS: Final = 64
"""Fewer are added by one thread, and then always give the same graph."""

FIRST_SIZE: Final = 1 << 14
SEED: Final = 100
MOST_LEVELS: Final = 64
_LINK_BYTES: Final = 4


_numbers: Final = itertools.count()


def graph_bytes(vectors: int, dims: int) -> int:
    """Return about how much memory a graph takes."""
    return vectors * (4 * dims + 8 * LINKS + 4 + 8 + 60)


@dataclass(frozen=True, slots=True)
class Links:
    """What a graph is without its vectors: `count` of them, numbered in the order they came.

    `lowest` has a row of octets for each: how many links, whether it is dead, the links.
    `upper` has the links of the upper levels, for those that are on such, in their order.
    """

    labels: NDArray[np.uint64]
    levels: NDArray[np.int32]
    lowest: NDArray[np.uint8]
    upper: NDArray[np.uint8]
    entry: int
    max_level: int

    def check(self) -> None:
        """Raise ValueError unless every number is in its range: hnswlib trusts them."""
        count = len(self.labels)
        width, upper_bytes = _LINK_BYTES * (2 * LINKS + 1), _LINK_BYTES * (LINKS + 1)
        levels = self.levels
        if not count or levels.shape != (count,) or self.lowest.shape != (count, width):
            raise ValueError("the arrays do not go together")
        if levels.min() < 0 or levels.max() > MOST_LEVELS or levels.max() != self.max_level:
            raise ValueError("a level is out of its range")
        if self.upper.shape != (upper_bytes * int(levels.sum()),):
            raise ValueError("the upper levels do not have their size")
        if not 0 <= self.entry < count or levels[self.entry] != self.max_level:
            raise ValueError("the entry point is out of its range")
        if len(np.unique(self.labels)) != count:
            raise ValueError("a label is there twice")
        for rows, most in ((self.lowest, 2 * LINKS), (self.upper.reshape(-1, upper_bytes), LINKS)):
            words = rows.view("<u4")
            if rows.size and (int(rows.view("<u2")[:, 0].max()) > most or _beyond(words, count)):
                raise ValueError("a link is out of its range")

    @property
    def dead(self) -> NDArray[np.bool_]:
        """Which vectors were marked dead."""
        dead: NDArray[np.bool_] = self.lowest[:, 2] != 0
        return dead

    def neighbours(self, number: int) -> NDArray[np.uint32]:
        """Return what a vector is linked to on the lowest level."""
        words: NDArray[np.uint32] = self.lowest[number].view("<u4")
        return words[1 : 1 + int(words[0] & 0xFFFF)]


class Frame:
    """The memory of a graph that was saved: its links, and room for its vectors.

    It is what hnswlib copies, so there are two of it for a moment, and nothing else as large.
    """

    def __init__(self, settings: Settings, links: Links) -> None:
        """Take what is there of `links`, which were checked and are not needed afterwards."""
        empty = hnswlib.Index(_space(settings), settings.dims)
        empty.init_index(1, LINKS, CONSTRUCTION_WIDTH, SEED)
        self.state: dict[str, Any] = empty.__getstate__()[0]
        count, labels = len(links.labels), links.labels.astype("<u8")
        vector_at, label_at = self.state["offset_data"], self.state["label_offset"]
        data = np.zeros((count, self.state["size_data_per_element"]), np.uint8)
        data[:, :vector_at] = links.lowest
        data[:, label_at:] = labels[:, None].view(np.uint8)
        self.vectors: NDArray[np.float32] = data[:, vector_at:label_at].view(np.float32)
        """To be filled, as `Graph.add` takes them."""
        self.dead: set[int] = set(labels[links.dead].tolist())
        self.state.update(
            max_elements=count,
            cur_element_count=count,
            ep_added=True,
            has_deletions=bool(self.dead),
            enterpoint_node=links.entry,
            max_level=links.max_level,
            element_levels=links.levels.copy(),
            label_lookup_external=labels,
            label_lookup_internal=np.arange(count, dtype=np.uint32),
            data_level0=data.reshape(-1).view(np.int8),
            link_lists=links.upper.copy().view(np.int8),
        )


def _space(settings: Settings) -> str:
    """Return hnswlib's name for how vectors are compared."""
    return "l2" if settings.metric == "l2" else "ip"


def _beyond(words: NDArray[np.uint32], count: int) -> bool:
    """Whether a link is to none of `count` vectors; what stands behind the links has no sense."""
    counted = np.arange(words.shape[1] - 1)[None, :] < (words[:, :1] & 0xFFFF)
    return bool((words[:, 1:][counted] >= count).any())


class Graph:
    """A graph of vectors by label. Every label below `covered` that was alive is in it."""

    def __init__(
        self, settings: Settings, index: Any | None = None, *, first_size: int = FIRST_SIZE
    ) -> None:
        self.settings = settings
        self.covered = 1
        self.width = 0
        """How many candidates a search looks at; 0 as long as that was not tuned."""
        self._space = _space(settings)
        if index is None:
            index = hnswlib.Index(self._space, settings.dims)
            index.init_index(first_size, LINKS, CONSTRUCTION_WIDTH, SEED)
        self._index = index
        self._size = int(index.element_count)
        self._number = next(_numbers)
        self._lock = Mutex()
        self._idle = threading.Condition(self._lock)
        self._searches = 0
        self._changing = False
        self._buried: set[int] = set()

    def __len__(self) -> int:
        return self._size

    @property
    def version(self) -> tuple[int, int, int, int]:
        """What changes with all that a plan follows from, and is no other graph's."""
        return self._number, self.covered, len(self._buried), self.width

    @property
    def tombstones(self) -> int:
        """How many vectors in it are marked dead."""
        return len(self._buried)

    @property
    def living(self) -> int:
        """How many vectors in it are not marked dead."""
        return len(self) - self.tombstones

    # --- who may use it ---

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Be alone with the graph; waits for searches under way, which are short."""
        with self._lock:
            while self._changing:
                self._idle.wait()
            self._changing = True
            while self._searches:
                self._idle.wait()
        try:
            yield
        finally:
            with self._lock:
                self._changing = False
                self._idle.notify_all()

    def _enter(self) -> bool:
        with self._lock:
            if self._changing:
                return False
            self._searches += 1
            return True

    def _leave(self) -> None:
        with self._lock:
            self._searches -= 1
            if not self._searches:
                self._idle.notify_all()

    # --- searching ---

    def search(
        self, query: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32]] | None:
        """Return the labels of `count` near vectors, nearest first, and their keys.

        The more are asked for, the more of the nearest are among them. None while the graph
        is being changed, and if it does not find so many.
        """
        if not self._enter():
            return None
        try:
            labels, distances = self._index.knn_query(query, k=min(count, self.living))
        except RuntimeError:  # hnswlib's word for fewer than asked for
            return None
        finally:
            self._leave()
        keys = -distances[0] if self._space == "l2" else 1 - distances[0]
        return labels[0].astype(np.uint64, copy=False), keys

    # --- as it is saved ---

    def links(self) -> Links | None:
        """Return the graph without its vectors; None while it is being changed."""
        if not self._enter():
            return None
        try:
            state = self._index.__getstate__()[0]
        finally:
            self._leave()
        count = state["cur_element_count"]
        rows = state["data_level0"].view(np.uint8).reshape(-1, state["size_data_per_element"])
        at = state["label_offset"]
        return Links(
            rows[:count, at : at + 8].copy().view("<u8")[:, 0],
            state["element_levels"][:count].copy(),
            rows[:count, : state["offset_data"]].copy(),
            state["link_lists"].view(np.uint8).copy(),
            int(state["enterpoint_node"]),
            int(state["max_level"]),
        )

    @classmethod
    def of_frame(cls, settings: Settings, frame: Frame) -> Graph:
        """Return the graph that was saved, once `frame` has its vectors."""
        graph = cls(settings, hnswlib.Index(frame.state))
        graph._buried = frame.dead
        return graph

    # --- changing; inside `changing` ---

    def add(self, rows: NDArray[np.float32], labels: NDArray[np.uint64]) -> None:
        """Add vectors, many on all cores; rows of unit length where the metric is the cosine."""
        needed = len(self) + len(rows)
        if needed > self._index.max_elements:
            self._index.resize_index(max(needed, 2 * self._index.max_elements))
        threads = (os.cpu_count() or 1) if len(rows) >= PARALLEL_ROWS else 1
        self._index.add_items(rows, labels, num_threads=threads)
        self._size = int(self._index.element_count)

    def bury(self, labels: set[int]) -> None:
        """Mark vectors dead: searches pass through them and do not return them."""
        for label in labels - self._buried:
            self._index.mark_deleted(label)
            self._buried.add(label)

    def labels(self) -> NDArray[np.uint64]:
        """Return the labels of all vectors in it, dead ones too."""
        return np.array(self._index.get_ids_list(), np.uint64)
