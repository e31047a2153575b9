"""Tuning a graph: how many candidates it has to look at for the recall that was asked for.

It is measured against exact search, on recent queries and on points amid neighbours, as far
from the middle of two as they are: those are strewn as the corpus is, and not in the graph.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from lgkv.env import Environment
from lgkv.snapshot import Snapshot
from lgkv.vectors.directory import Directory
from lgkv.vectors.graph import Graph
from lgkv.vectors.ranking import Query, Records, scan_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NEAREST", "WIDTHS", "Tuning"]

WIDTHS: Final = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
SAMPLE: Final = 128
NEAREST: Final = 10
"""A graph is tuned on so many queries, by so many of their nearest."""

HEADROOM: Final = 0.5
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
        """Return the smallest width that has `recall`, or 0, and what was found with it.

        Each of `queries` counts once.
        """
        target = recall + HEADROOM * (1 - recall)
        queries = list({query.tobytes(): query for query in queries}.values())
        while len(queries) < SAMPLE and not self._stop.is_set():
            query = self._amid(graph)
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

    def _amid(self, graph: Graph) -> NDArray[np.float32] | None:
        """Return a point beside the middle of a vector and a neighbour, as far as they are from it.

        If both are a centre and as much noise, so is the point: the middle has half its variance.
        """
        with self._env.snapshot() as snapshot:
            directory = self._directory(snapshot)
            if directory is None:
                return None
            records = Records(snapshot, directory, self._env.map_epoch)
            everything = directory.everything
            some = self._random.integers(everything.rows, size=1)
            vector = _row(records, *everything.locate(some))
            answer = graph.search(vector, min(2 * NEAREST, graph.living))
            if answer is None:
                return None
            labels, _ = answer
            near = labels[min(len(labels) - 1, 1 + int(self._random.integers(NEAREST)))]
            slabs, rows = directory.locate(np.array([near]))
            other = vector if slabs[0] < 0 else _row(records, slabs, rows)  # it may have died
            half = (other - vector) / 2
            away = self._random.standard_normal(vector.size)
            away *= np.linalg.norm(half) / np.linalg.norm(away)
            return Query(
                (vector + half + away).astype(np.float32), directory.settings.metric
            ).narrow

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


def _row(
    records: Records, slabs: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the one vector there, as the graph has it."""
    found: NDArray[np.float32] = records.graph_rows(int(slabs[0]), rows)[0]
    return found


def _found(graph: Graph, probe: _Probe, width: int) -> float:
    """Return which part of the nearest the graph finds."""
    answer = graph.search(probe.query, max(width, NEAREST))
    if answer is None:
        return 0.0
    _, keys = answer
    return min(probe.count, int(np.count_nonzero(keys >= probe.floor))) / probe.count
