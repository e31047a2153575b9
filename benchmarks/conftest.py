"""Opens and fills each backend once for all of a suite's measures."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.backends import Opened
from benchmarks.measures import DEFAULT_SIZES, QUICK_SIZES, Measure, Sizes
from benchmarks.workloads import SUITES

RESULTS = Path(__file__).parent / "results"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of sizes; `python -m benchmarks` can set each one."""
    parser.addoption(
        "--sizes", choices=("quick", "default"), default="quick", help="how much a workload does"
    )


@pytest.fixture(scope="session")
def sizes(pytestconfig: pytest.Config) -> Sizes:
    """Return the chosen sizes."""
    return DEFAULT_SIZES if pytestconfig.getoption("--sizes") == "default" else QUICK_SIZES


@pytest.fixture(scope="session")
def filled(sizes: Sizes) -> Iterator[Callable[[str, int], Opened[Any]]]:
    """Return what opens a suite's backend by its number, filled; the same one at every call.

    It lies in benchmarks/results/, not in pytest's temporary folder, which may be in memory.
    """
    opened: dict[tuple[str, int], Opened[Any]] = {}
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS, prefix="run-") as folder, ExitStack() as stack:

        def open_once(name: str, number: int) -> Opened[Any]:
            if (name, number) not in opened:
                suite = SUITES[name]
                backend = suite.backends[number]
                fresh = stack.enter_context(Opened(backend, Path(folder, name, backend.name)))
                for _ in suite.workload(sizes).fill(fresh):
                    pass
                opened[name, number] = fresh
            return opened[name, number]

        yield open_once


@pytest.fixture
def take(benchmark: Any, sizes: Sizes) -> Callable[[Measure], None]:
    """Return what measures a `Measure`: `sizes.rounds` times its calls, one by one."""

    def take_measure(measure: Measure) -> None:
        benchmark.pedantic(
            measure.act,
            setup=lambda: (measure.prepare(), {}),
            rounds=sizes.rounds * measure.calls,
            iterations=1,
        )

    return take_measure
