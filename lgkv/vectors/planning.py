"""The planner: whether a search scans or asks the graph, and how many candidates it asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from lgkv.errors import InvalidInputError
from lgkv.vectors.directory import Directory, Ranges

if TYPE_CHECKING:
    from lgkv.vectors.graph import Graph

__all__ = ["IndexOptions", "Plan", "plan_search"]

EXACT_FLOATS: Final = 8_000_000
"""Up to so many numbers a scan takes about a millisecond, and no graph is asked or built."""

SCAN_US: Final = 1.6e-4
"""What a scan takes for one number: 6 ms for 100,000 vectors of 384."""

GRAPH_US: Final = 1.3e-2
"""What the graph takes for one number of one candidate: 1.2 ms for 256 candidates of 384."""

MOST_CANDIDATES: Final = 4096
FILTER_OVERFETCH: Final = 4


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """What a search may cost and has to find, for all handles of this process on a file.

    `recall` is the part of the ten nearest that a search by graph has to find on average;
    `memory_bytes` is the most that a graph may take (None: any amount); stores of up to
    `exact_floats` numbers (vectors times dimensions) are always scanned.

    Raises:
        InvalidInputError: One of them is out of its range.
    """

    recall: float = 0.99
    memory_bytes: int | None = None
    exact_floats: int = EXACT_FLOATS

    def __post_init__(self) -> None:
        if not isinstance(self.recall, (int, float)) or not 0 < self.recall <= 1:
            raise InvalidInputError(f"recall is {self.recall!r}: give more than 0, at most 1")
        for name, value in (
            ("memory_bytes", self.memory_bytes),
            ("exact_floats", self.exact_floats),
        ):
            good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            if not (good or (value is None and name == "memory_bytes")):
                raise InvalidInputError(f"{name} is {value!r}: give a whole number, 0 or more")


@dataclass(frozen=True, slots=True)
class Plan:
    """How a search by vector goes: what `explain` tells.

    `kind` is "exact" or "graph". `vectors` are in the file, `candidates` among them under the
    prefix. With "graph", `width` candidates are asked for, and the `tail` vectors that the
    graph does not cover yet are scanned.
    """

    kind: str
    reason: str
    vectors: int
    candidates: int
    width: int = 0
    tail: int = 0

    def widened(self) -> Plan | None:
        """Return the plan that asks for four times as many, or None if that is too many."""
        width = self.width * 4
        if width > MOST_CANDIDATES:
            return None
        reason = f"the {self.width} nearest of the graph did not fill the page"
        return replace(self, width=width, reason=reason)


def plan_search(
    directory: Directory,
    ranges: Ranges,
    graph: Graph | None,
    without_graph: str,
    *,
    wanted: int,
    filtered: bool,
    options: IndexOptions,
) -> Plan:
    """Return the plan for the `wanted` best of `ranges`; `without_graph` says why there is none."""
    dims, vectors = directory.settings.dims, directory.vectors
    exact_us = ranges.rows * dims * SCAN_US

    def exact(reason: str) -> Plan:
        return Plan("exact", reason, vectors, ranges.vectors)

    if ranges.rows * dims <= options.exact_floats:
        return exact(
            f"{ranges.vectors} candidates of {dims} dimensions take about {exact_us / 1000:.2g} ms"
        )
    if graph is None:
        return exact(without_graph)
    share = ranges.vectors / vectors
    width = math.ceil(max(graph.width, 2 * wanted * (FILTER_OVERFETCH if filtered else 1)) / share)
    tail = directory.behind(ranges, graph.covered)
    graph_us = width * dims * GRAPH_US + tail.rows * dims * SCAN_US
    if width > min(MOST_CANDIDATES, graph.living) or graph_us >= exact_us:
        return exact(
            f"{ranges.vectors} of {vectors} vectors are candidates: the graph would have to give "
            f"{width} to have {wanted} of them"
        )
    return Plan(
        "graph",
        f"about {graph_us / 1000:.2g} ms where a scan takes {exact_us / 1000:.2g} ms",
        vectors,
        ranges.vectors,
        width,
        tail.vectors,
    )
