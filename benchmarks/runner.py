"""Runs a suite against its backends in paired rounds."""

from __future__ import annotations

import gc
import shutil
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.backends import Backend, Opened
from benchmarks.measures import Gauge, Measure, Measured, Sizes, answer_size

if TYPE_CHECKING:
    from benchmarks.workloads import Suite

__all__ = ["Results", "Series", "run_suite"]

Report = Callable[[str], None]


@dataclass
class Series:
    """What one backend did in one measure: every call, round by round, in the gauge's unit."""

    suite: str
    measure: str
    backend: str
    rounds: list[list[float]] = field(default_factory=list)
    answer_size: int = 0
    gauge: Gauge = Gauge.SECONDS

    @property
    def round_medians(self) -> list[float]:
        """The median call of every round."""
        return [statistics.median(calls) for calls in self.rounds]


@dataclass
class Results:
    """Everything that came out of a run.

    Of stored bytes: suite, filled with what, backend, length of the file, and how many of the
    bytes were new (`Filled`).
    """

    series: list[Series] = field(default_factory=list)
    stored_bytes: list[tuple[str, str, str, int, int | None]] = field(default_factory=list)
    durability: list[tuple[str, str, str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Contestant:
    opened: Opened[Any]
    measures: dict[str, Measure]


def run_suite(
    suite: Suite, sizes: Sizes, folder: Path, results: Results, *, report: Report
) -> None:
    """Fill every backend of *suite*, then measure them in turns, and add to *results*.

    In each round every measure is taken on one backend after the other, each time starting with
    another one, so that what disturbs the machine disturbs all of them. The files are removed.
    """
    rounds = suite.sized(sizes).rounds
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder / suite.name, ignore_errors=True)
        contestants = []
        for backend in suite.backends:
            report(f"{suite.name}: filling {backend.name}")
            opened = stack.enter_context(Opened(backend, folder / suite.name / backend.name))
            contestants.append(_fill(suite, sizes, opened, results))
        series = _empty_series(suite, contestants, results)
        for number in range(rounds):
            report(f"{suite.name}: round {number + 1} of {rounds}")
            _run_round(suite, _rotated(contestants, number), series)
    results.series.extend(series.values())


def _fill(suite: Suite, sizes: Sizes, opened: Opened[Any], results: Results) -> _Contestant:
    backend: Backend[Any] = opened.backend
    workload = suite.workload(sizes)
    subject, says = type(opened.subject).__name__, backend.durability(opened.subject)
    results.durability.append((suite.name, backend.name, subject, says))
    for filled in workload.fill(opened):
        if "file" not in backend.lacks:
            size = opened.count_bytes()
            count = (suite.name, filled.label, backend.name, size, filled.new_bytes)
            results.stored_bytes.append(count)
    measures = {measure.name: measure for measure in workload.measures(opened)}
    return _Contestant(opened, measures)


def _empty_series(
    suite: Suite, contestants: Sequence[_Contestant], results: Results
) -> dict[tuple[str, str], Series]:
    """Return a series for each measure and backend; what cannot be measured is noted as skipped."""
    series: dict[tuple[str, str], Series] = {}
    for name in suite.measure_names:
        for contestant in contestants:
            backend, measure = contestant.opened.backend, contestant.measures[name]
            reason = measure.missing(backend.lacks)
            if backend.name in suite.slow and measure.gauge is Gauge.PEAK_BYTES:
                reason = "slow: tracing its memory takes very long"
            if reason is not None:
                results.skipped.append((suite.name, name, backend.name, reason))
            else:
                new = Series(suite.name, name, backend.name, gauge=measure.gauge)
                series[name, backend.name] = new
    return series


def _run_round(
    suite: Suite,
    contestants: Sequence[_Contestant],
    series: dict[tuple[str, str], Series],
) -> None:
    gc.collect()
    for name in suite.measure_names:
        for contestant in contestants:
            of_backend = series.get((name, contestant.opened.backend.name))
            measure = contestant.measures[name]
            if of_backend is not None and not (measure.once and of_backend.rounds):
                _take(measure, contestant.opened, of_backend)


def _take(measure: Measure, opened: Opened[Any], series: Series) -> None:
    """Call *measure* as often as it asks for, after what others left young was collected."""
    gc.collect(1)
    gauge = _GAUGES[measure.gauge]
    calls = []
    answer = None
    for _ in range(measure.calls):
        arguments = measure.prepare()
        answer = None  # what the call before has returned is not freed in this one's time
        used, answer = gauge(partial(measure.act, *arguments), opened)
        calls.append(used)
    series.rounds.append(calls)
    series.answer_size = answer_size(answer)


_Used = tuple[float, Any]
"""What a call took, and what it returned."""


def _seconds(call: Callable[[], Any], _opened: Opened[Any]) -> _Used:
    start = time.perf_counter()
    answer = call()
    return time.perf_counter() - start, answer


def _told_seconds(call: Callable[[], Any], _opened: Opened[Any]) -> _Used:
    measured: Measured = call()
    return measured.seconds, measured.answer


def _seconds_without_flush(call: Callable[[], Any], opened: Opened[Any]) -> _Used:
    """Measure a call on this thread: the processor's time, or the clock's less the flush.

    Both are at least what is meant. The one has the processor's part of the flush in it, the
    other what others took of the processor; the smaller one is nearer.
    """
    flushed = opened.backend.flush_seconds(opened.subject)
    began = time.thread_time()
    seconds, answer = _seconds(call, opened)
    of_processor = time.thread_time() - began
    flushed = opened.backend.flush_seconds(opened.subject) - flushed
    return min(of_processor, seconds - flushed), answer


def _peak_bytes(call: Callable[[], Any], _opened: Opened[Any]) -> _Used:
    tracemalloc.start()
    try:
        answer = call()
        return tracemalloc.get_traced_memory()[1], answer
    finally:
        tracemalloc.stop()


_GAUGES: Final = {
    Gauge.SECONDS: _seconds,
    Gauge.TOLD_SECONDS: _told_seconds,
    Gauge.SECONDS_WITHOUT_FLUSH: _seconds_without_flush,
    Gauge.PEAK_BYTES: _peak_bytes,
}


def _rotated(contestants: Sequence[_Contestant], by: int) -> list[_Contestant]:
    shift = by % len(contestants)
    return [*contestants[shift:], *contestants[:shift]]
