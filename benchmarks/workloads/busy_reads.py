"""busy_reads: reading while others write without a pause."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.clients import p99, run_threads
from benchmarks.measures import Filled, Gauge, Measure, Measured, Sizes
from benchmarks.thread import thread_config
from benchmarks.writers import endless_writer

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from benchmarks.backends import Opened

__all__ = ["BusyReads"]

THREADS = 20


class BusyReads:
    """The p99 of `get_tuple` on an idle file, beside a writer's process, and beside its thread."""

    name: ClassVar[str] = "busy_reads"
    measure_names: ClassVar[tuple[str, ...]] = (
        "idle_p99",
        "beside_process_p99",
        "beside_thread_p99",
    )

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._numbers = itertools.count()

    def fill(self, opened: Opened[BaseCheckpointSaver[Any]]) -> Iterator[Filled]:
        """Put the threads that are read."""
        names = [f"thread {number}" for number in range(THREADS)]
        run_threads(opened.subject, names, self._sizes.puts)
        yield Filled(f"{THREADS} threads")

    def measures(self, opened: Opened[BaseCheckpointSaver[Any]]) -> list[Measure]:
        """Return the reads, alone and beside writers."""

        def read(beside: AbstractContextManager[None]) -> Measured:
            with beside:
                calls = [_read(opened, number) for number in range(50 * self._sizes.puts)]
            return Measured(p99(calls), calls)

        def process() -> AbstractContextManager[None]:
            name = f"writer {next(self._numbers)}"
            return endless_writer(opened.backend.name, opened.folder, name)

        told = Gauge.TOLD_SECONDS
        return [
            Measure("idle_p99", lambda: read(nullcontext()), 1, gauge=told),
            Measure("beside_process_p99", lambda: read(process()), 1, gauge=told),
            Measure("beside_thread_p99", lambda: read(self._thread(opened)), 1, gauge=told),
        ]

    @contextmanager
    def _thread(self, opened: Opened[BaseCheckpointSaver[Any]]) -> Iterator[None]:
        ended = threading.Event()

        def write() -> None:
            while not ended.is_set():
                run_threads(opened.subject, [f"writer {next(self._numbers)}"], 20)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _read(opened: Opened[BaseCheckpointSaver[Any]], number: int) -> float:
    config = thread_config(f"thread {number % THREADS}")
    start = time.perf_counter()
    assert opened.subject.get_tuple(config) is not None
    return time.perf_counter() - start
