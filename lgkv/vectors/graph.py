"""The HNSW graph in memory, through hnswlib: what it may do at one time, and how it is saved.

hnswlib allows many searches at once, but none beside a change. A search that comes while the
graph is changed does not wait: it is told so, and scans instead.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import hnswlib
import numpy as np

from lgkv.vectors.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LINKS", "Graph", "graph_bytes"]

LINKS: Final = 16
"""HNSW's M: so many links a vector has on the upper levels, twice as many on the lowest."""

CONSTRUCTION_WIDTH: Final = 200
FIRST_SIZE: Final = 1 << 14
SEED: Final = 100


def graph_bytes(vectors: int, dims: int) -> int:
    """Return about how much memory a graph takes."""
    return vectors * (4 * dims + 8 * LINKS + 4 + 8 + 60)


class Graph:
    """A graph of vectors by label. Every label below `covered` that was alive is in it."""

    def __init__(self, settings: Settings, index: Any | None = None) -> None:
        self.settings = settings
        self.covered = 1
        self.width = 0
        """How many candidates a search looks at; 0 as long as that was not tuned."""
        self._space = "l2" if settings.metric == "l2" else "ip"
        if index is None:
            index = hnswlib.Index(self._space, settings.dims)
            index.init_index(FIRST_SIZE, LINKS, CONSTRUCTION_WIDTH, SEED)
        self._index = index
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._searches = 0
        self._changing = False
        self._buried: set[int] = set()

    def __len__(self) -> int:
        return int(self._index.element_count)

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

    # --- changing; inside `changing` ---

    def add(self, rows: NDArray[np.float32], labels: NDArray[np.uint64]) -> None:
        """Add vectors on all cores; rows of unit length where the metric is the cosine."""
        needed = len(self) + len(rows)
        if needed > self._index.max_elements:
            self._index.resize_index(max(needed, 2 * self._index.max_elements))
        self._index.add_items(rows, labels, num_threads=os.cpu_count() or 1)

    def bury(self, labels: set[int]) -> None:
        """Mark vectors dead: searches pass through them and do not return them."""
        for label in labels - self._buried:
            self._index.mark_deleted(label)
            self._buried.add(label)

    def labels(self) -> NDArray[np.uint64]:
        """Return the labels of all vectors in it, dead ones too."""
        return np.array(self._index.get_ids_list(), np.uint64)
