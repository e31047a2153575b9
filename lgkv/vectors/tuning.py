"""Tuning a graph: how many candidates it has to look at for the recall that was asked for.

It is measured against exact search, on recent queries and on points between neighbours:
those are as the corpus is, and not in the graph.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from lgkv.env import Environment
from lgkv.snapshot import Snapshot
from lgkv.vectors.directory import Directory, Ranges
from lgkv.vectors.graph import Graph
from lgkv.vectors.ranking import Query, Records, scan_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NEAREST", "WIDTHS", "Tuning"]

WIDTHS: Final = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
SAMPLE: Final = 64
NEAREST: Final = 10
"""A graph is tuned on so many queries, by so many of their nearest."""

HEADROOM: Final = 0.3
"""So much of what a recall lacks to 1 is asked for beyond it, since a sample is a sample."""


@dataclass(frozen=True, slots=True)
class _Probe:
    """A query, and the key that `count` vectors have at least."""

    query: NDArray[np.float32]
    floor: float
    count: int


class Tuning:
    """Measures graphs; each query reads a snapshot of its own, and `stop` ends it early."""

    def __init__(
        self,
        env: Environment,
        directory: Callable[[Snapshot], Directory | None],
        stop: threading.Event,
    ) -> None:
        self._env, self._directory, self._stop = env, directory, stop
        self._random = np.random.default_rng(7)

    def tune(
        self, graph: Graph, queries: list[NDArray[np.float32]], recall: float
    ) -> tuple[int, float]:
        """Return the smallest width that has `recall`, or 0, and what was found with it."""
        target = recall + HEADROOM * (1 - recall)
        while len(queries) < SAMPLE and not self._stop.is_set():
            query = self._between_neighbours()
            if query is None:
                break
            queries.append(query)
        probes = [probe for probe in map(self._probe, queries) if probe is not None]
        found = 0.0
        for width in WIDTHS:
            if self._stop.is_set() or not probes:
                return 0, 0.0
            found = float(np.mean([_found(graph, probe, width) for probe in probes]))
            if found >= target:
                return width, found
        return 0, found

    def _between_neighbours(self) -> NDArray[np.float32] | None:
        """Return a point between a vector and one of those of its slab that are near to it."""
        with self._env.snapshot() as snapshot:
            directory = self._directory(snapshot)
            if directory is None:
                return None
            records = Records(snapshot, directory, self._env.map_epoch)
            number = int(self._random.integers(len(directory.slabs)))
            count = len(directory.slabs[number])
            row = int(self._random.integers(count))
            start = records.graph_rows(number, np.array([row]))[0]
            slab = Ranges(directory.slabs, [number], [0], [count])
            metric = directory.settings.metric
            nearest = np.argsort(-scan_ranges(records, slab, Query(start, metric)).keys)
            other = nearest[min(count - 1, 1 + int(self._random.integers(NEAREST)))]
            between = (start + records.graph_rows(number, np.array([other]))[0]) / 2
            return Query(between, metric).narrow

    def _probe(self, vector: NDArray[np.float32]) -> _Probe | None:
        if self._stop.is_set():
            return None
        with self._env.snapshot() as snapshot:
            directory = self._directory(snapshot)
            if directory is None or vector.size != directory.settings.dims:
                return None
            query = Query(vector, directory.settings.metric)
            records = Records(snapshot, directory, self._env.map_epoch)
            keys = scan_ranges(records, directory.everything, query).keys
            count = min(NEAREST, directory.vectors)
            first = len(keys) - count
            floor = float(np.partition(keys, first)[first])
            margin, part = query.margin(directory.longest)
        return _Probe(query.narrow, floor - margin - abs(floor) * part, count)


def _found(graph: Graph, probe: _Probe, width: int) -> float:
    """Return which part of the nearest the graph finds."""
    answer = graph.search(probe.query, max(width, NEAREST))
    if answer is None:
        return 0.0
    _, keys = answer
    return min(probe.count, int(np.count_nonzero(keys >= probe.floor))) / probe.count
