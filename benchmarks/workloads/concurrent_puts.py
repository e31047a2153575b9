"""concurrent_puts: threads, tasks and processes that put small checkpoints into one file."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final

from benchmarks import clients, corpus
from benchmarks.clients import (
    Latencies,
    longest_gap,
    p99,
    run_tasks,
    run_threads,
    small_steps,
)
from benchmarks.measures import Filled, Gauge, Measure, Measured, Sizes
from benchmarks.thread import thread_config
from benchmarks.writers import run_processes

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from benchmarks.backends import Opened, Session

__all__ = ["ConcurrentPuts", "ProcessPuts", "SinglePuts", "TaskPuts"]

FEW, MANY = 16, 64
Figure = Callable[[list[float]], float]
PROCESSES: Final = 4


class _Puts:
    """What these workloads have in common: a file with one thread in it, and new names."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._numbers = itertools.count()

    def _names(self, count: int) -> list[str]:
        """Return the names of threads that are not there yet."""
        crowd = next(self._numbers)
        return [f"crowd {crowd}, {number}" for number in range(count)]

    def _told(self, name: str, act: Callable[[], Measured]) -> Measure:
        return Measure(name, act, self._sizes.calls(2), gauge=Gauge.TOLD_SECONDS)

    def _crowd(
        self, name: str, run: Callable[[], Latencies], suffix: str, of_calls: Figure
    ) -> list[Measure]:
        """Return two measures of the same runs: the seconds a put, and a figure of all puts."""
        runs: list[Latencies] = []

        def a_call() -> Measured:
            runs.append(run())
            return runs[-1].a_call

        def figure() -> Measured:
            calls = [seconds for one in runs or [run()] for seconds in one.calls]
            runs.clear()
            return Measured(of_calls(calls), range(self._sizes.puts))

        return [
            self._told(name, a_call),
            Measure(f"{name}_{suffix}", figure, 1, gauge=Gauge.TOLD_SECONDS),
        ]


class SinglePuts(_Puts):
    """One thread that puts one checkpoint after the other.

    `put` is the seconds of a small one on the same thread, `put_on_new_threads_cpu` what one with
    a message of 1 KB takes of the caller's processor on a new one.
    """

    name: ClassVar[str] = "single_puts"
    measure_names: ClassVar[tuple[str, ...]] = ("put", "put_on_new_threads_cpu")

    def fill(self, opened: Opened[BaseCheckpointSaver[Any]]) -> Iterator[Filled]:
        """Put once."""
        run_threads(opened.subject, ["first"], 1)
        yield Filled("1 checkpoint")

    def measures(self, opened: Opened[BaseCheckpointSaver[Any]]) -> list[Measure]:
        """Return the puts of one thread."""
        puts = self._sizes.puts * 10

        def put() -> Measured:
            return run_threads(opened.subject, self._names(1), puts).a_call

        def put_on_new_threads() -> Measured:
            rng = random.Random("new threads")
            messages = [corpus.question(rng) for _ in range(puts)]
            return clients.put_on_new_threads(opened.subject, self._names(puts), messages)

        return [
            self._told("put", put),
            self._told("put_on_new_threads_cpu", put_on_new_threads),
        ]


class ConcurrentPuts(_Puts):
    """OS threads, a thread id each: the seconds of all of them for each put, and the p99."""

    name: ClassVar[str] = "concurrent_puts"
    measure_names: ClassVar[tuple[str, ...]] = (
        "threads_1",
        "threads_16",
        "threads_16_p99",
        "threads_64",
        "threads_64_p99",
    )

    def fill(self, opened: Opened[BaseCheckpointSaver[Any]]) -> Iterator[Filled]:
        """Put once in each of some threads."""
        run_threads(opened.subject, self._names(FEW), 1)
        yield Filled(f"{FEW} checkpoints")

    def measures(self, opened: Opened[BaseCheckpointSaver[Any]]) -> list[Measure]:
        """Return crowds of one, of few and of many."""

        def crowd(count: int) -> Latencies:
            return run_threads(opened.subject, self._names(count), self._sizes.puts)

        return [
            self._told("threads_1", lambda: crowd(1).a_call),
            *self._crowd("threads_16", lambda: crowd(FEW), "p99", p99),
            *self._crowd("threads_64", lambda: crowd(MANY), "p99", p99),
        ]


class TaskPuts(_Puts):
    """Tasks on one loop: the seconds for each put, and the longest that the loop was held up."""

    name: ClassVar[str] = "task_puts"
    measure_names: ClassVar[tuple[str, ...]] = ("tasks_64", "tasks_64_p99", "tasks_64_longest_gap")

    def fill(self, opened: Opened[Session[Any]]) -> Iterator[Filled]:
        """Put once in each of some threads."""
        self._tasks(opened, FEW, 1)
        yield Filled(f"{FEW} checkpoints")

    def measures(self, opened: Opened[Session[Any]]) -> list[Measure]:
        """Return crowds of many."""
        puts = self._sizes.puts

        def longest() -> Measured:
            return Measured(self._tasks(opened, MANY, puts)[1], range(puts))

        return [
            *self._crowd("tasks_64", lambda: self._tasks(opened, MANY, puts)[0], "p99", p99),
            self._told("tasks_64_longest_gap", longest),
        ]

    def _tasks(
        self, opened: Opened[Session[Any]], count: int, puts: int
    ) -> tuple[Latencies, float]:
        work = [(thread_config(name), small_steps(puts)) for name in self._names(count)]
        found: list[Latencies] = []

        async def run() -> float:
            async with opened.subject.open() as saver:

                async def put_all() -> None:
                    found.append(await run_tasks(saver, work))

                return await longest_gap(put_all)

        gap = asyncio.run(run())
        return found[0], gap


class ProcessPuts(_Puts):
    """Processes of some threads each: the seconds for each put, and the longest that one took."""

    name: ClassVar[str] = "process_puts"
    measure_names: ClassVar[tuple[str, ...]] = (
        "one_of_16",
        "four_of_4",
        "four_of_4_longest",
    )

    def fill(self, opened: Opened[BaseCheckpointSaver[Any]]) -> Iterator[Filled]:
        """Put once."""
        run_threads(opened.subject, ["first"], 1)
        yield Filled("1 checkpoint")

    def measures(self, opened: Opened[BaseCheckpointSaver[Any]]) -> list[Measure]:
        """Return as many threads in one process and in four."""

        def crowd(processes: int) -> Latencies:
            return run_processes(
                opened.backend.name,
                opened.folder,
                f"crowd {next(self._numbers)}",
                processes=processes,
                threads=FEW // processes,
                puts=self._sizes.puts,
            )

        return [
            self._told("one_of_16", lambda: crowd(1).a_call),
            *self._crowd("four_of_4", lambda: crowd(PROCESSES), "longest", max),
        ]

    def _told(self, name: str, act: Callable[[], Measured]) -> Measure:
        return Measure(name, act, 1, gauge=Gauge.TOLD_SECONDS)  # starting them takes long
