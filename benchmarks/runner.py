"""Runs a suite against its backends in paired rounds."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.backends import Backend, Opened
from benchmarks.measures import Measure, Sizes, Workload, answer_size

if TYPE_CHECKING:
    from benchmarks.workloads import Suite

__all__ = ["Results", "Series", "run_suite"]

Report = Callable[[str], None]


@dataclass
class Series:
    """What one backend did in one measure: seconds of every call, round by round."""

    suite: str
    measure: str
    backend: str
    rounds: list[list[float]] = field(default_factory=list)
    answer_size: int = 0

    @property
    def round_medians(self) -> list[float]:
        """The median call of every round."""
        return [statistics.median(seconds) for seconds in self.rounds]


@dataclass
class Results:
    """Everything that came out of a run."""

    series: list[Series] = field(default_factory=list)
    stored_bytes: list[tuple[str, str, str, int]] = field(default_factory=list)
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
    another one, so that what disturbs the machine disturbs all of them.
    """
    workload = suite.workload(sizes)
    with ExitStack() as stack:
        contestants = []
        for backend in suite.backends:
            report(f"{workload.name}: filling {backend.name}")
            opened = stack.enter_context(Opened(backend, folder / workload.name / backend.name))
            contestants.append(_fill(workload, opened, results))
        series = _empty_series(workload, contestants, results)
        for number in range(sizes.rounds):
            report(f"{workload.name}: round {number + 1} of {sizes.rounds}")
            _run_round(workload, _rotated(contestants, number), series)
    results.series.extend(series.values())


def _fill(workload: Workload[Any], opened: Opened[Any], results: Results) -> _Contestant:
    backend: Backend[Any] = opened.backend
    subject, says = type(opened.subject).__name__, backend.durability(opened.subject)
    results.durability.append((workload.name, backend.name, subject, says))
    for filled in workload.fill(opened):
        if "file" not in backend.lacks:
            count = (workload.name, filled, backend.name, opened.count_bytes())
            results.stored_bytes.append(count)
    measures = {measure.name: measure for measure in workload.measures(opened)}
    return _Contestant(opened, measures)


def _empty_series(
    workload: Workload[Any], contestants: Sequence[_Contestant], results: Results
) -> dict[tuple[str, str], Series]:
    """Return a series for each measure and backend; what cannot be measured is noted as skipped."""
    series: dict[tuple[str, str], Series] = {}
    for name in workload.measure_names:
        for contestant in contestants:
            backend = contestant.opened.backend
            reason = contestant.measures[name].missing(backend.lacks)
            if reason is not None:
                results.skipped.append((workload.name, name, backend.name, reason))
            else:
                series[name, backend.name] = Series(workload.name, name, backend.name)
    return series


def _run_round(
    workload: Workload[Any],
    contestants: Sequence[_Contestant],
    series: dict[tuple[str, str], Series],
) -> None:
    gc.collect()
    for name in workload.measure_names:
        for contestant in contestants:
            of_backend = series.get((name, contestant.opened.backend.name))
            if of_backend is not None:
                _take(contestant.measures[name], of_backend)


def _take(measure: Measure, series: Series) -> None:
    """Call *measure* as often as it asks for, after what others left young was collected."""
    gc.collect(1)
    seconds = []
    answer = None
    for _ in range(measure.calls):
        arguments = measure.prepare()
        start = time.perf_counter()
        answer = measure.act(*arguments)
        seconds.append(time.perf_counter() - start)
    series.rounds.append(seconds)
    series.answer_size = answer_size(answer)


def _rotated(contestants: Sequence[_Contestant], by: int) -> list[_Contestant]:
    shift = by % len(contestants)
    return [*contestants[shift:], *contestants[:shift]]
