"""Building the graph in the background: in chunks, tuned against exact search, then current.

The thread lives only while there is work. A first graph, and one that replaces a graph with
too many dead vectors, is built aside; one that is in use is extended in small chunks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from lgkv.env import Environment
from lgkv.errors import ClosedError, CorruptionError, LgkvError
from lgkv.locks import Mutex
from lgkv.snapshot import Snapshot
from lgkv.vectors.directory import Directory
from lgkv.vectors.graph import Graph, graph_bytes
from lgkv.vectors.planning import IndexOptions
from lgkv.vectors.ranking import Records
from lgkv.vectors.saving import drop_graph, load_graph, read_refusal, save_graph, save_refusal
from lgkv.vectors.settings import VectorState
from lgkv.vectors.tuning import NEAREST, WIDTHS, Tuning
from lgkv.writer import Change, Writer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Builder", "tail_limit"]

ASIDE_ROWS: Final = 1024
LIVE_ROWS: Final = 64
"""So many vectors are added at a time, to a graph that is built aside or is in use."""

SAVED_GROWTH: Final = 0.1
"""A graph is saved again when so much of it is new."""

TOMBSTONES: Final = 0.3
"""Beyond this part of dead vectors a graph is built anew."""

STALE: Final = 1.2
"""When it has so many times the vectors of the file, those that died are looked for."""

RETUNE: Final = 1.5
"""A graph is tuned again when it has grown by this factor."""

RETRY_VECTORS: Final = float("inf")
"""After a failure a graph is tried again when the options change, or the file is opened again."""

RECENT_QUERIES: Final = 64
QUIET_S: Final = 0.2
LONGEST_QUIET_S: Final = 10.0
"""Building waits until nothing was put for a while, so as not to take the cores from puts."""

logger = logging.getLogger("lgkv")


def tail_limit(vectors: int) -> int:
    """Return how many vectors a graph in use may lack before it is extended."""
    return max(512, vectors // 50)


class Builder:
    """Keeps the graph of one file in this process."""

    def __init__(
        self,
        env: Environment,
        writer: Writer,
        directory: Callable[[Snapshot], Directory | None],
    ) -> None:
        self._env, self._writer, self._directory = env, writer, directory
        self.options = IndexOptions()
        self._reset()

    def _reset(self) -> None:
        self._lock = Mutex()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._resting = Mutex()
        self._graph: Graph | None = None
        self._aside: Graph | None = None
        self._why_not = "the graph is not built yet"
        self._tuned_at = self._tuned_by = 0
        """Of how many vectors the graph was when it was tuned, and by how many queries it was."""
        self._saved_at = 0
        self._damaged = False
        self._useless_below = 0.0
        self._last_put = 0.0
        self._asked = self._again = False
        self.queries: deque[NDArray[np.float32]] = deque(maxlen=RECENT_QUERIES)

    # --- for searches ---

    def stale(self, directory: Directory, tail: int) -> bool:
        """Whether the graph that a search used lacks much, or has many that are dead."""
        graph = self._graph
        return graph is None or (
            tail > tail_limit(directory.vectors)
            or graph.living > STALE * directory.vectors
            or self._is_blind()
        )

    def _is_blind(self) -> bool:
        """Whether the graph was tuned by few queries, and there are enough now."""
        return self._tuned_by < RECENT_QUERIES // 2 and len(self.queries) == RECENT_QUERIES

    def ready(self, directory: Directory) -> tuple[Graph | None, str]:
        """Return the graph that may be asked, or None and why there is none."""
        graph = self._graph
        if graph is None:
            return None, self._why_not
        if graph.settings.generation != directory.settings.generation:
            return None, "the graph is of vectors that were replaced since"
        return graph, ""

    # --- life of the thread ---

    def noticed(self, state: VectorState, dims: int) -> None:
        """Take notice of a committed change; `state` are the counters after it."""
        self._last_put = time.monotonic()
        if state.vectors * dims <= self.options.exact_floats:
            return
        graph = self._graph
        if graph is None or state.labels - graph.covered >= tail_limit(state.vectors):
            self.wake(state.vectors)

    def wake(self, vectors: int, *, asked: bool = False) -> None:
        """Have the graph brought up to date; `asked` if a search would have used it."""
        if vectors < self._useless_below:
            return
        self._asked = self._asked or asked
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                thread = threading.Thread(target=self._run, name="lgkv-vectors", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # no more threads, or the interpreter is ending
                    self._why_not = f"there is no thread to build the graph: {error}"
                    return
                self._thread = thread

    def _run(self) -> None:
        try:
            self._wait_for_quiet()
            while not self._stop.is_set() and (self._step() or not self._is_done()):
                pass
        except ClosedError as error:
            self._give_up(str(error))
        except (LgkvError, RuntimeError, MemoryError) as error:  # RuntimeError is hnswlib's
            self._give_up(f"building the graph failed: {error}", RETRY_VECTORS)
            logger.warning("the graph of %s was not built: %s", self._env.path, error)
        finally:
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None
                    self._stop.clear()

    def _is_done(self) -> bool:
        """Whether there are no new options; the thread is then over for those who would wake it."""
        with self._lock:
            if not self._again:
                self._thread = None
            self._again = False
            return self._thread is None

    def _wait_for_quiet(self) -> None:
        until = time.monotonic() + LONGEST_QUIET_S
        while not self._asked and time.monotonic() < until:
            quiet = time.monotonic() - self._last_put
            if quiet >= QUIET_S or self._stop.wait(QUIET_S - quiet):
                break
        self._asked = False

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until there is nothing to do; return whether that came within the time."""
        thread = self._thread
        if thread is not None:
            self._asked = True
            thread.join(timeout_s)
        return self._thread is None

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._stop.clear()  # without a thread nobody else does

    def close_if_idle(self) -> bool:
        """Tell the thread to stop; return whether there is none."""
        with self._lock:
            if self._thread is not None:
                self._stop.set()
            return self._thread is None

    def configure(self, options: IndexOptions) -> None:
        """Take new options; a graph in use is put aside and tuned to them."""
        with self._lock:
            self.options = options  # who tunes by others begins again
            self._again = self._thread is not None
            self._tuned_at = 0
            graph, self._graph = self._graph, None
            if graph is not None and self._aside is None:
                self._aside = graph
            self._why_not = "the options are new, and the graph is being tuned to them"
        self._useless_below = 0
        self.wake(0, asked=True)

    # --- fork ---

    def before_fork(self) -> None:
        """Bring the graph to rest."""
        self._resting.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._resting.release()

    def after_fork_in_child(self) -> None:
        """Let go of the parent's thread and graph."""
        self._reset()

    # --- one step ---

    def _give_up(self, reason: str, useless_below: float = 0) -> None:
        """Go without a graph, until there are so many vectors."""
        self._graph = self._aside = None
        self._why_not = reason
        self._useless_below = useless_below

    def _step(self) -> bool:
        """Do one piece of work; return whether there may be more."""
        with self._env.snapshot() as snapshot:
            directory = self._directory(snapshot)
            if directory is None or self._is_small(directory):
                self._give_up("the vectors are few enough to be scanned")
                return False
            if self._is_too_much(directory):
                return False
            if directory.wild:
                self._give_up(
                    "a vector is too long or too short for float32", RETUNE * directory.vectors
                )
                return False
            self._check_generation(directory)
            if self._is_refused(snapshot, directory):
                return False
            graph = self._target(snapshot, directory)
            chunk = self._chunk(snapshot, directory, graph)
        if chunk is None:
            return self._finish(graph, directory)
        rows, labels, covered = chunk
        with self._resting, graph.changing():
            if len(labels):
                graph.add(rows, labels)
            graph.covered = covered
        return True

    def _is_small(self, directory: Directory) -> bool:
        return directory.vectors * directory.settings.dims <= self.options.exact_floats

    def _is_too_much(self, directory: Directory) -> bool:
        needed = graph_bytes(directory.vectors, directory.settings.dims)
        most = self.options.memory_bytes
        if most is None or needed <= most:
            return False
        self._give_up(
            f"a graph would take {needed:,} bytes, more than memory_bytes={most:,}",
            RETUNE * directory.vectors,
        )
        return True

    def _is_refused(self, snapshot: Snapshot, directory: Directory) -> bool:
        """Whether it was found before that no graph has the recall, by this process or another."""
        if self._graph is not None or self._aside is not None or self._damaged:
            return False
        recall, generation = self.options.recall, directory.settings.generation
        until = read_refusal(snapshot, generation, directory.vectors, recall)
        if until:
            self._give_up(f"no graph of these vectors was found to have recall={recall}", until)
        return until > 0

    def _check_generation(self, directory: Directory) -> None:
        generation = directory.settings.generation
        if self._graph is not None and self._graph.settings.generation != generation:
            self._give_up("the graph is not built yet")
        if self._aside is not None and self._aside.settings.generation != generation:
            self._aside = None

    def _target(self, snapshot: Snapshot, directory: Directory) -> Graph:
        """Return the graph to work on: the one in use, unless one is or has to be built aside."""
        graph = self._graph if self._aside is None else self._aside
        if graph is None:
            graph = self._load(snapshot, directory)
            if graph is None:
                graph = Graph(directory.settings)
            self._aside = graph
        return graph

    def _load(self, snapshot: Snapshot, directory: Directory) -> Graph | None:
        """Return the graph that the file has; None without one, or if it is damaged."""
        if self._damaged:
            return None
        try:
            found = load_graph(snapshot, directory, self._env.map_epoch)
        except CorruptionError as error:
            self._damaged = True
            logger.warning("the saved graph of %s is built anew: %s", self._env.path, error)
            return None
        if found is None:
            return None
        graph, saved = found
        self._saved_at = len(graph)
        self._tuned_at = graph.living
        if saved.recall != self.options.recall:
            graph.width = 0
        return graph

    def _save(self, graph: Graph) -> None:
        """Save the graph in the file, if it has grown by much since."""
        if self._damaged:
            self._writer.commit(Change(drop_graph))
            self._damaged, self._saved_at = False, 0
        if len(graph) - self._saved_at > SAVED_GROWTH * len(graph):
            save_graph(self._writer, graph, self.options.recall, self._stop.is_set)
            self._saved_at = len(graph)

    def _chunk(
        self, snapshot: Snapshot, directory: Directory, graph: Graph
    ) -> tuple[NDArray[np.float32], NDArray[np.uint64], int] | None:
        """Return the next vectors that the graph lacks, and the label it then covers up to."""
        lacks = directory.behind(directory.everything, graph.covered)
        if not lacks.rows:
            return None
        number = lacks.slabs[0]
        place = directory.slabs[number]
        labels = place.labels[place.order] + np.uint64(place.first)
        rows = place.order[labels >= graph.covered]
        most = LIVE_ROWS if graph is self._graph else ASIDE_ROWS
        rest, rows = rows[most:], rows[:most]
        covered = int(place.labels[rows[-1]]) + place.first + 1 if rest.size else place.last + 1
        if place.alive is not None:
            rows = rows[place.alive[rows]]
        records = Records(snapshot, directory, self._env.map_epoch)
        found = records.graph_rows(number, rows)
        return found, place.labels[rows] + np.uint64(place.first), covered

    def _finish(self, graph: Graph, directory: Directory) -> bool:
        """Bury what has died, tune, publish; return whether there may be more to do."""
        labels = graph.labels()
        slabs, _ = directory.locate(labels)
        dead = set(labels[slabs < 0].tolist())
        with self._resting, graph.changing():
            graph.bury(dead)
        if graph.tombstones > TOMBSTONES * len(graph):
            self._aside, self._saved_at = Graph(directory.settings), 0
            return True
        if graph.width and graph.living < RETUNE * self._tuned_at and not self._is_blind():
            self._graph, self._aside = graph, None
        elif not self._publish(graph):
            return graph is self._aside and not self._stop.is_set()
        if not self._env.options.read_only:
            self._save(graph)
        return False

    def _publish(self, graph: Graph) -> bool:
        """Tune the graph and let searches use it; return whether that was possible."""
        options = self.options
        tuning = Tuning(self._env, self._directory, self._stop)
        queries = list(self.queries)
        width, found = tuning.tune(graph, queries, options.recall)
        with self._lock:
            if self._stop.is_set() or options is not self.options:
                return False
            self._tuned_at, self._tuned_by = graph.living, len(queries)
            self._aside = None
            graph.width = width
            self._graph = graph if width else None
        if not width:
            until = RETUNE * graph.living
            if not self._env.options.read_only:
                save_refusal(self._writer, graph.settings.generation, int(until), options.recall)
            self._give_up(
                f"of the {NEAREST} nearest the graph finds {found:.3f} at a width of "
                f"{WIDTHS[-1]}, less than recall={options.recall}",
                until,
            )
            return False
        return True
