"""The index of a file's vectors in this process: the directory, the graph, and the plans.

Every search follows the log to its own snapshot first, so it gives nothing that is deleted
and finds what is committed. The graph follows in the background; what it lacks is scanned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from lgkv.env import Environment
from lgkv.errors import CorruptionError
from lgkv.layout import Kind, Table
from lgkv.locks import Mutex
from lgkv.snapshot import Snapshot
from lgkv.vectors.building import Builder
from lgkv.vectors.directory import Directory, Ranges, advance, load_directory
from lgkv.vectors.graph import graph_bytes
from lgkv.vectors.packing import find_vectors
from lgkv.vectors.planning import IndexOptions, Plan, plan_search
from lgkv.vectors.pruning import encode, prune
from lgkv.vectors.ranking import (
    FIRST_EXTRA,
    Candidates,
    Hit,
    Named,
    Query,
    Ranking,
    Records,
    others_of,
    scan_ranges,
)
from lgkv.vectors.settings import VectorState, read_settings, read_state
from lgkv.writer import Writer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["VectorIndex"]

RECENT_DIRECTORIES: Final = 4

OTHERS: Final = 1024
"""So many more vectors of the items that the graph gives first are measured at most."""


class VectorIndex:
    """What this process knows of the vectors of one file; shared by all handles on it."""

    def __init__(self, env: Environment, writer: Writer) -> None:
        self._env = env
        self._builder = Builder(env, writer, self.directory)
        self._following = Mutex()
        self._recent: tuple[Directory, ...] = ()
        self._newest: tuple[int, Directory | None] = 0, None
        """The number of the snapshot that was asked about last, and the answer."""

    # --- following ---

    def directory(self, snapshot: Snapshot) -> Directory | None:
        """Return where the vectors lie as of `snapshot`; None if there are none."""
        number = snapshot.number()
        known_as_of, directory = self._newest
        if not number:  # it is open: nothing of it is remembered, for it may not come to be
            state = read_state(snapshot)
            return _load(snapshot, state) if state.vectors else None
        if number != known_as_of:
            directory = self._follow(snapshot)
            self._newest = number, directory
        return directory

    def _follow(self, snapshot: Snapshot) -> Directory | None:
        state = read_state(snapshot)
        if not state.vectors:
            return None
        as_of = state.live, state.sequence
        found = self._known(as_of)
        if found is not None:
            return found
        with self._following:  # one thread reads, and the others find what it read
            found = self._known(as_of)
            if found is None:
                before = [one for one in self._recent if _as_of(one) <= as_of]
                found = _load(snapshot, state, before[-1] if before else None)
                self._recent = tuple(sorted((*self._recent, found), key=_as_of))[
                    -RECENT_DIRECTORIES:
                ]
        return found

    def _known(self, as_of: tuple[int, int]) -> Directory | None:
        for one in reversed(self._recent):
            if _as_of(one) == as_of:
                return one
        return None

    def vectors(self, snapshot: Snapshot, suffix: bytes) -> NDArray[np.float32] | None:
        """Return the vectors of the item at `suffix`, of shape (count, dims), or None."""
        directory = self.directory(snapshot)
        if directory is None:
            return None
        found = find_vectors(snapshot, directory.settings.generation, suffix)
        if found is None:
            return None
        first, paths = found
        slabs, rows = directory.locate(np.arange(first, first + len(paths), dtype=np.uint64))
        if len(set(slabs.tolist())) != 1 or slabs[0] < 0:
            raise CorruptionError(
                Table.MEMORY.label, suffix, "the item's vectors are not where they should be"
            )
        return Records(snapshot, directory, self._env.map_epoch).rows(int(slabs[0]), rows)

    # --- searching ---

    def plan(
        self,
        directory: Directory,
        nodes: NDArray[np.uint64] | None,
        *,
        wanted: int,
        filtered: bool = False,
    ) -> Plan:
        """Return how a search for the `wanted` best in `nodes` goes; None for everywhere."""
        graph, why = self._builder.ready(directory)
        if self._recent and _as_of(directory) < _as_of(self._recent[-1]):
            graph, why = None, "the search reads an older commit than others do"
        ranges, options = directory.select(nodes), self._builder.options
        asked = why if graph is None else graph.version, wanted, filtered, options
        known, plan = ranges.planned
        if known != asked:  # making it takes longer than asking what it follows from
            plan = plan_search(
                directory, ranges, graph, why, wanted=wanted, filtered=filtered, options=options
            )
            ranges.planned = asked, plan
        return cast("Plan", plan)

    def attempts(
        self,
        snapshot: Snapshot,
        directory: Directory,
        vector: NDArray[np.float32],
        nodes: NDArray[np.uint64] | None,
        *,
        wanted: int,
        filtered: bool,
    ) -> Iterator[Iterator[Hit]]:
        """Yield the items nearest to `vector`, best first, by one plan after the other.

        A caller goes on to the next if one did not give what it needs; the last is exact.
        """
        if nodes is not None and directory.select(nodes).vectors == directory.vectors:
            nodes = None
        query = Query(vector, directory.settings.metric)
        records = Records(snapshot, directory, self._env.map_epoch)
        first = self.plan(directory, nodes, wanted=wanted, filtered=filtered)
        self._note(directory, query, first)
        plan: Plan | None = first
        while plan is not None and plan.kind == "graph":
            candidates = self._by_graph(records, query, nodes, plan, wanted)
            if candidates is None:
                break
            yield Ranking(records, query, candidates).hits(wanted)
            plan = plan.widened()
        ranges = directory.select(nodes)
        if self._has_codes(records, ranges, query):
            for count in (wanted, 4 * wanted):
                pruned = prune(records, ranges, query, count)
                if pruned is None:
                    break
                ranking = Ranking(records, query, [pruned], bottom=pruned.floor)
                yield ranking.hits(len(pruned.places))
        yield Ranking(records, query, [scan_ranges(records, ranges, query)]).hits(wanted)

    def _has_codes(self, records: Records, ranges: Ranges, query: Query) -> bool:
        """Return whether a search can begin with the codes of `ranges`."""
        settings, options = records.directory.settings, self._builder.options
        numbers = ranges.rows * settings.dims
        if numbers > options.exact_floats and 4 * ranges.rows > records.directory.vectors:
            return False  # the graph is for that, or will be
        room = math.inf
        if options.memory_bytes is not None:
            graph, _ = self._builder.ready(records.directory)
            taken = 0 if graph is None else graph_bytes(len(graph), settings.dims)
            room = options.memory_bytes - taken
        return encode(records, ranges, query, room)

    def _by_graph(
        self,
        records: Records,
        query: Query,
        nodes: NDArray[np.uint64] | None,
        plan: Plan,
        wanted: int,
    ) -> list[Candidates] | None:
        """Return what the graph gives and the tail; None if the graph cannot be asked now."""
        directory = records.directory
        graph, _ = self._builder.ready(directory)
        if graph is None or query.wild:
            return None
        covered = graph.covered  # first: what is added from here on is in both, and counts once
        found = graph.search(query.narrow, plan.width)
        if found is None:
            return None
        labels, keys = found
        if directory.has_several:  # an item counts as its best vector, which may not be among them
            others = others_of(directory, labels[: 2 * wanted + FIRST_EXTRA], OTHERS)
            true = [key for key, *_ in records.measured(query, *directory.locate(others))]
            labels = np.concatenate([labels, others])
            keys = np.concatenate([keys, np.array(true, np.float32)])
        several: list[Candidates] = [Named(keys, labels, directory, nodes)]
        tail = directory.behind(directory.select(nodes), covered)
        if tail.rows:
            several.append(scan_ranges(records, tail, query, behind=covered))
        return several

    def _note(self, directory: Directory, query: Query, plan: Plan) -> None:
        """Remember the query to tune by, and have the graph built if there is work."""
        builder = self._builder
        if directory.vectors * directory.settings.dims <= builder.options.exact_floats:
            return
        builder.queries.append(query.narrow)
        if builder.stale(directory, plan.tail):
            builder.wake(directory.vectors, asked=True)

    # --- upkeep ---

    @property
    def options(self) -> IndexOptions:
        """What a search may cost and has to find."""
        return self._builder.options

    def configure(self, options: IndexOptions) -> None:
        """Take new options; the graph is tuned anew, or dropped, as they ask for."""
        self._builder.configure(options)

    def noticed(self, state: VectorState, dims: int) -> None:
        """Take notice of a committed change to the vectors."""
        self._builder.noticed(state, dims)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the background has nothing to do; whether that came within the time."""
        return self._builder.wait(timeout_s)

    def close(self) -> None:
        """Stop the background thread and wait for it; what comes later starts it again."""
        self._builder.close()

    def close_if_idle(self) -> bool:
        """Stop it if that needs no waiting; return whether it did."""
        return self._builder.close_if_idle()

    def before_fork(self) -> None:
        """Bring the graph to rest, so that the child can let go of it."""
        self._builder.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._builder.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Begin anew, without thread and graph."""
        self._builder.after_fork_in_child()
        self._following = Mutex()
        self._recent = ()
        self._newest = 0, None


def _as_of(directory: Directory) -> tuple[int, int]:
    return directory.settings.generation, directory.sequence


def _load(snapshot: Snapshot, state: VectorState, before: Directory | None = None) -> Directory:
    """Return the directory as of `snapshot`, which goes on from `before` if the log does."""
    settings = read_settings(snapshot)
    if settings is None or settings.generation != state.live:
        raise CorruptionError(
            Table.MEMORY.label,
            bytes((Kind.VECTOR_SETTINGS,)),
            f"there are vectors of generation {state.live}, but not their settings",
        )
    found = None if before is None else advance(before, snapshot, state, settings)
    return load_directory(snapshot, state, settings) if found is None else found
