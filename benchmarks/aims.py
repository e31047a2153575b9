"""What lgkv aims at, beside what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Final

from benchmarks.backends import BASE
from benchmarks.measures import DEFAULT_SIZES, Sizes
from benchmarks.runner import Results

__all__ = ["AIMS", "Aim", "Figures", "Verdict", "judge"]

SQLITE: Final = "sqlite"
SQLITE_WAL: Final = "sqlite-wal"
MEMORY: Final = "memory"
CHAT, SHORT_CHAT, LONG_CHAT = "put_history", "put_history_short", "put_history_long"
CROWD: Final = "concurrent_puts"
SIZES_AIMED_AT: Final = (
    "short_turns", "turns", "long_turns", "steps", "long_steps", "channels", "entries", "blobs",
    "blob_bytes", "threads", "puts", "long_items",
)  # fmt: skip


class Figures:
    """What was measured, by name; KeyError where something was not."""

    def __init__(self, results: Results, sizes: Sizes) -> None:
        self.sizes = sizes
        self._rounds = {
            (series.suite, series.measure, series.backend): series.round_medians
            for series in results.series
        }
        self._bytes = {
            (suite, label, backend): (size, new)
            for suite, label, backend, size, new in results.stored_bytes
        }

    def median(self, suite: str, measure: str, backend: str = BASE) -> float:
        """Return the median of a measure's rounds."""
        return statistics.median(self._rounds[suite, measure, backend])

    def ratio(
        self, suite: str, measure: str, backend: str, to_measure: str, to_backend: str = BASE
    ) -> float:
        """Return how many times as much one measure is as another, paired by round."""
        return _paired(
            self._rounds[suite, measure, backend], self._rounds[suite, to_measure, to_backend]
        )

    def times_as_fast(self, suite: str, measure: str, peer: str) -> float:
        """Return how many times as long a peer takes."""
        return self.ratio(suite, measure, peer, measure)

    def overhead(self, suite: str, peer: str) -> float:
        """Return how many times as much time a peer adds to a graph."""
        added = {
            backend: [
                with_saver - without
                for with_saver, without in zip(
                    self._rounds[suite, "with_saver", backend],
                    self._rounds[suite, "without_saver", backend],
                    strict=True,
                )
            ]
            for backend in (BASE, peer)
        }
        return _paired(added[peer], added[BASE])

    def size(self, suite: str, label: str) -> int:
        """Return the length of lgkv's file."""
        return self._bytes[suite, label, BASE][0]

    def size_to_new(self, suite: str, label: str) -> float:
        """Return the length of lgkv's file as a multiple of what was new in it."""
        size, new = self._bytes[suite, label, BASE]
        if new is None:
            raise KeyError(suite)
        return size / new

    def grown_to_new(self, suite: str, since: str, label: str) -> float:
        """Return the growth of lgkv's file between two labels as a multiple of what was new."""
        (before, old), (after, new) = (self._bytes[suite, at, BASE] for at in (since, label))
        if old is None or new is None:
            raise KeyError(suite)
        return (after - before) / (new - old)


@dataclass(frozen=True)
class Aim:
    """A bound on a figure, and what is hoped for beyond it. `suite` is where it is measured."""

    suite: str
    what: str
    figure: Callable[[Figures], float]
    bound: float
    hoped: float | None = None
    at_least: bool = False


@dataclass(frozen=True)
class Verdict:
    """An aim, what was measured if all of it was, and "met", "short" or why neither."""

    what: str
    figure: float | None
    aim: str
    says: str


def judge(results: Results, sizes: Sizes, aims: Sequence[Aim] | None = None) -> list[Verdict]:
    """Return a verdict on each aim whose suite was run."""
    figures = Figures(results, sizes)
    run = {series.suite for series in results.series}
    other_sizes = [
        field.name
        for field in fields(Sizes)
        if field.name in SIZES_AIMED_AT
        and getattr(sizes, field.name) != getattr(DEFAULT_SIZES, field.name)
    ]
    return [
        _verdict(aim, figures, judged=not other_sizes)
        for aim in (AIMS if aims is None else aims)
        if aim.suite in run
    ]


def _verdict(aim: Aim, figures: Figures, *, judged: bool) -> Verdict:
    word = "at least" if aim.at_least else "at most"
    text = f"{word} {aim.bound:g}"
    if aim.hoped is not None:
        text += f", better {aim.hoped:g}"
    try:
        figure = aim.figure(figures)
    except KeyError:
        return Verdict(aim.what, None, text, "not run")
    met = figure >= aim.bound if aim.at_least else figure <= aim.bound
    says = "met" if met else "short"
    return Verdict(aim.what, figure, text, says if judged else "other sizes")


def _paired(more: Sequence[float], less: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(more, less, strict=True))


def _exponent(more: float, less: float, times: float) -> float:
    """Return the power of its size that something grows with."""
    return math.log(more / less) / math.log(times)


# --- the aims ------------------------------------------------------------------------------


def _turns(number: int) -> str:
    return f"{number} turns"


def _bytes_growth(figures: Figures) -> float:
    turns = figures.sizes.long_turns
    more = figures.size(LONG_CHAT, _turns(turns))
    return _exponent(more, figures.size(LONG_CHAT, _turns(max(1, turns // 10))), 10)


def _time_growth(figures: Figures) -> float:
    times = figures.sizes.long_turns / figures.sizes.short_turns
    return _exponent(figures.median(LONG_CHAT, "run"), figures.median(SHORT_CHAT, "run"), times)


def _memory_growth(figures: Figures) -> float:
    more = figures.median("list_history_long", "all_peak_memory")
    less = figures.median("list_history", "all_peak_memory")
    return _exponent(more, less, figures.sizes.long_turns / figures.sizes.turns)


def _wide_bytes(figures: Figures) -> float:
    narrow, wide = (
        figures.grown_to_new(
            "wide_state", f"{name}: the first checkpoint", f"{name}: {figures.sizes.steps} steps"
        )
        for name in ("narrow", "wide")
    )
    return wide / narrow


def _dict_bytes(suite: str) -> Callable[[Figures], float]:
    def figure(figures: Figures) -> float:
        steps = figures.sizes.long_steps if suite.endswith("_long") else figures.sizes.steps
        return figures.grown_to_new(suite, "the first checkpoint", f"{steps} puts")

    return figure


def _blob_bytes(figures: Figures) -> float:
    return figures.size_to_new("opaque_channel", f"{figures.sizes.blobs} puts")


def _blob_bytes_of_steps(figures: Figures) -> float:
    label = f"{figures.sizes.blobs} steps of put_writes and put more"
    return figures.grown_to_new("opaque_channel", f"{figures.sizes.blobs} puts", label)


def _store(measure: str, backend: str) -> Callable[[Figures], float]:
    return lambda figures: figures.ratio("store_items", measure, SQLITE_WAL, measure, backend)


AIMS: Final = (
    Aim(LONG_CHAT, "long chat: bytes on disk to new bytes, each message and write once",
        lambda f: f.size_to_new(LONG_CHAT, _turns(f.sizes.long_turns)), 2.5),
    Aim(LONG_CHAT, "long chat: exponent of the bytes' growth from a tenth", _bytes_growth, 1.05),
    Aim(LONG_CHAT, "long chat: times as fast as sqlite",
        lambda f: f.times_as_fast(LONG_CHAT, "run", SQLITE), 8, 15, at_least=True),
    Aim(LONG_CHAT, "long chat: times as fast as memory",
        lambda f: f.times_as_fast(LONG_CHAT, "run", MEMORY), 4, 6, at_least=True),
    Aim(LONG_CHAT, "long chat: exponent of the time's growth from a short one", _time_growth, 1.35),
    Aim(SHORT_CHAT, "short chat: times as fast as sqlite",
        lambda f: f.times_as_fast(SHORT_CHAT, "run", SQLITE), 1, at_least=True),
    Aim(LONG_CHAT, "put at its end, without the flush: times as fast as memory",
        lambda f: f.times_as_fast(LONG_CHAT, "put_at_end_cpu", MEMORY), 8, 15, at_least=True),
    Aim("get_latest_long", "latest of a long chat, warm: times as fast as memory",
        lambda f: f.times_as_fast("get_latest_long", "latest", MEMORY), 5, 10, at_least=True),
    Aim("get_latest_long", "latest of a long chat, file just opened: to a plain decode",
        lambda f: f.ratio("get_latest_long", "latest_after_open", BASE, "plain_decode"), 1.4),
    Aim("list_history_long", "history of a long chat: times as fast as sqlite",
        lambda f: f.times_as_fast("list_history_long", "all", SQLITE), 8, at_least=True),
    Aim("list_history_long", "history: exponent of the peak memory's growth with the chat",
        _memory_growth, 1.1),
    Aim("wide_state", "a step of many channels: bytes to those of one channel", _wide_bytes, 1.5),
    Aim("wide_state", "a step of many channels: time to that of one channel",
        lambda f: f.ratio("wide_state", "wide_step", BASE, "narrow_step"), 1.5),
    Aim("dict_channel", "a put of a dict, one entry changed: bytes to the entry's",
        _dict_bytes("dict_channel"), 2),
    Aim("dict_channel_long", "as many puts as make new key-frames: bytes to the entry's",
        _dict_bytes("dict_channel_long"), 2),
    Aim("opaque_channel", "puts of a large value: bytes to its own", _blob_bytes, 1.1),
    Aim("opaque_channel", "put_writes and put of a large value: bytes to its own",
        _blob_bytes_of_steps, 1.1),
    Aim("copy_thread_long", "copy of a long chat: times as fast as sqlite, read and put again",
        lambda f: f.times_as_fast("copy_thread_long", "copy", SQLITE), 500, at_least=True),
    *(
        Aim("store_items", f"store, {what}: times as fast as sqlite-wal",
            _store(measure, backend), bound, hoped, at_least=True)
        for what, measure, backend, bound, hoped in (
            ("put of 500 in a batch", "put_batch_of_500", BASE, 1.5, 2.5),
            ("put", "put", BASE, 0.7, 1.0),
            ("a filter that finds its page early", "search_found_early", BASE, 50, None),
            ("a filter that finds nothing", "search_found_nowhere", BASE, 1.2, None),
            ("a declared field", "search_of_a_user", "lgkv-fields", 50, None),
            ("list_namespaces", "list_namespaces", BASE, 10, None),
        )
    ),
    Aim("store_items", "store, get: microseconds",
        lambda f: 1e6 * f.median("store_items", "get"), 12),
    Aim("graph_invoke_long", "graph.invoke: sqlite's overhead to lgkv's",
        lambda f: f.overhead("graph_invoke_long", SQLITE), 5, at_least=True),
    Aim("raw_commits", "commit of a step's records: LMDB's own time to lgkv's",
        lambda f: f.times_as_fast("raw_commits", "commit", "lmdb"), 0.95, 1, at_least=True),
    Aim(CROWD, "puts of one thread: times as fast as sqlite",
        lambda f: f.times_as_fast(CROWD, "threads_1", SQLITE), 0.75, 1, at_least=True),
    Aim(CROWD, "puts of 16 threads: times as fast as sqlite",
        lambda f: f.times_as_fast(CROWD, "threads_16", SQLITE), 3.5, 6, at_least=True),
    Aim(CROWD, "puts of 64 threads: times as fast as sqlite",
        lambda f: f.times_as_fast(CROWD, "threads_64", SQLITE), 4, 8, at_least=True),
    Aim(CROWD, "puts of 16 threads: sqlite's p99 to lgkv's",
        lambda f: f.times_as_fast(CROWD, "threads_16_p99", SQLITE), 3, at_least=True),
    Aim(CROWD, "puts of 64 threads: sqlite's p99 to lgkv's",
        lambda f: f.times_as_fast(CROWD, "threads_64_p99", SQLITE), 3, at_least=True),
    Aim("task_puts", "puts of 64 tasks: times as fast as sqlite's async saver",
        lambda f: f.times_as_fast("task_puts", "tasks_64", SQLITE), 10, at_least=True),
    Aim("task_puts", "puts of 64 tasks: longest time that the loop is held up, ms",
        lambda f: 1e3 * f.median("task_puts", "tasks_64_longest_gap"), 5),
    Aim("process_puts", "four processes of 4 threads: speed to one process of 16",
        lambda f: f.ratio("process_puts", "one_of_16", BASE, "four_of_4"), 0.6, at_least=True),
    Aim("process_puts", "four processes of 4 threads: longest put, s",
        lambda f: f.median("process_puts", "four_of_4_longest"), 1),
    Aim("single_puts", "puts flushed within an interval: speed to that of durable ones",
        lambda f: 1 / f.times_as_fast("single_puts", "put", "lgkv-interval"), 5, at_least=True),
    Aim("single_puts", "puts flushed within an interval: speed to memory's",
        lambda f: f.ratio("single_puts", "put", MEMORY, "put", "lgkv-interval"), 0.4,
        at_least=True),
    Aim("single_puts", "put of 1 KB on a new thread, within an interval: processor's microseconds",
        lambda f: 1e6 * f.median("single_puts", "put_on_new_threads_cpu", "lgkv-interval"), 60),
    Aim("concurrent_graphs", "graph.invoke of one: times as fast as sqlite",
        lambda f: f.times_as_fast("concurrent_graphs", "graphs_1", SQLITE), 1, at_least=True),
    Aim("concurrent_graphs", "graph.invoke of 16 side by side: times as fast as sqlite",
        lambda f: f.times_as_fast("concurrent_graphs", "graphs_16", SQLITE), 1, at_least=True),
    Aim("concurrent_graphs", "graph.invoke of 64 side by side: times as fast as sqlite",
        lambda f: f.times_as_fast("concurrent_graphs", "graphs_64", SQLITE), 1, at_least=True),
    Aim("busy_reads", "get_tuple beside another process that writes: p99 to the idle one",
        lambda f: f.ratio("busy_reads", "beside_process_p99", BASE, "idle_p99"), 3),
    Aim("busy_reads", "get_tuple beside a thread that writes: p99 to the idle one",
        lambda f: f.ratio("busy_reads", "beside_thread_p99", BASE, "idle_p99"), 3),
    Aim("many_threads", "get_tuple of a random thread of many: times as fast as sqlite",
        lambda f: f.times_as_fast("many_threads", "get_random", SQLITE), 1, at_least=True),
    Aim("many_threads", "close and open a file of many threads, ms",
        lambda f: 1e3 * f.median("many_threads", "open_and_close"), 5),
    Aim("many_threads", "first page of many threads, ms",
        lambda f: 1e3 * f.median("many_threads", "first_page"), 1),
)  # fmt: skip
