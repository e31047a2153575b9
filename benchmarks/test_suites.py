"""Every suite under pytest-benchmark: `pytest benchmarks/ --benchmark-only`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from benchmarks.backends import Opened
from benchmarks.measures import Gauge, Measure, Sizes
from benchmarks.workloads import SUITES

Filled = Callable[[str, int], Opened[Any]]


@dataclass(frozen=True)
class Case:
    """One measure of a suite on one of its backends, by its place among them."""

    suite: str
    measure: str
    backend: int


def _cases() -> Iterator[Any]:
    for name, suite in SUITES.items():
        for measure in suite.measure_names:
            for number, backend in enumerate(suite.backends):
                if backend.name in suite.slow:
                    continue
                case = Case(name, measure, number)
                yield pytest.param(case, id=f"{name}-{measure}-{backend.name}")


@pytest.mark.parametrize("case", [*_cases()])
def test_suite(
    case: Case, sizes: Sizes, filled: Filled, take: Callable[[Measure], None], benchmark: Any
) -> None:
    """Measure one act of one suite on one backend."""
    opened = filled(case.suite, case.backend)
    backend = opened.backend
    measures = SUITES[case.suite].workload(sizes).measures(opened)
    measure = next(measure for measure in measures if measure.name == case.measure)
    if reason := measure.missing(backend.lacks):
        pytest.skip(reason)
    if measure.gauge is not Gauge.SECONDS:
        pytest.skip("pytest-benchmark measures time only")
    benchmark.group = f"{case.suite}: {case.measure}"
    benchmark.extra_info["durability"] = backend.durability(opened.subject)
    take(measure)
