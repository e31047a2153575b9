"""Clients that put small checkpoints side by side: threads, tasks and processes."""

from __future__ import annotations

import asyncio
import gc
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from benchmarks.measures import Measured
from benchmarks.thread import thread_config

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint

__all__ = [
    "Latencies", "longest_gap", "p99", "put_on_new_threads", "run_tasks", "run_threads",
    "small_steps",
]  # fmt: skip

TICK_S: Final = 0.001


@dataclass(frozen=True)
class Latencies:
    """What a crowd of clients did: every call's seconds, and all of it."""

    calls: list[float]
    seconds: float

    @property
    def a_call(self) -> Measured:
        """The seconds that all of it took, for each call."""
        return Measured(self.seconds / len(self.calls), range(len(self.calls)))


def p99(calls: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return sorted(calls)[len(calls) * 99 // 100]


def small_steps(count: int) -> list[Checkpoint]:
    """Return the checkpoints of a thread whose state is a number and a text."""
    steps = []
    for number in range(count):
        version = f"{number + 1:032}.{number:016}"
        checkpoint = empty_checkpoint()
        checkpoint["id"] = str(uuid6(clock_seq=number))
        checkpoint["channel_values"] = {"count": number, "text": f"step {number}"}
        checkpoint["channel_versions"] = {"count": version, "text": version}
        steps.append(checkpoint)
    return steps


def run_threads(saver: BaseCheckpointSaver[Any], names: Sequence[str], puts: int) -> Latencies:
    """Let a thread for each name put that many checkpoints, and wait for all of them."""
    calls: list[float] = []
    began: list[float] = []
    begin = threading.Barrier(len(names), lambda: began.append(time.perf_counter()))

    def work(name: str) -> None:
        steps, config = small_steps(puts), thread_config(name)
        begin.wait()
        for checkpoint in steps:
            start = time.perf_counter()
            config = saver.put(config, checkpoint, {}, checkpoint["channel_versions"])
            calls.append(time.perf_counter() - start)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Latencies(calls, time.perf_counter() - began[0])


def put_on_new_threads(
    saver: BaseCheckpointSaver[Any], names: Sequence[str], messages: Sequence[Any]
) -> Measured:
    """Put a message on each of some new threads, one call after another.

    Return the median of what a call took of the processor, on the thread that called.
    """
    calls = []
    for name, message, checkpoint in zip(names, messages, small_steps(len(names)), strict=True):
        checkpoint["channel_values"] = {"count": 1, "messages": [message]}
        versions = checkpoint["channel_versions"]
        checkpoint["channel_versions"] = new = {
            "count": versions["count"],
            "messages": versions["text"],
        }
        config = thread_config(name)
        began = time.thread_time()
        saver.put(config, checkpoint, {"source": "input", "step": -1, "parents": {}}, new)
        calls.append(time.thread_time() - began)
    return Measured(statistics.median(calls), calls)


async def run_tasks(saver: Any, work: Sequence[tuple[Any, list[Checkpoint]]]) -> Latencies:
    """Let a task for each config put its checkpoints, and wait for all of them."""
    calls: list[float] = []

    async def put_all(config: Any, steps: list[Checkpoint]) -> None:
        for checkpoint in steps:
            start = time.perf_counter()
            config = await saver.aput(config, checkpoint, {}, checkpoint["channel_versions"])
            calls.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(put_all(config, steps) for config, steps in work))
    return Latencies(calls, time.perf_counter() - start)


async def longest_gap(run: Callable[[], Any]) -> float:
    """Return the longest time that the loop was held up while `run()` was awaited.

    What was there before is kept from the garbage collector: a full collection of all that a
    process has loaded takes 50 to 90 ms, whoever makes the objects that set it off.
    """
    gaps = [0.0]

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.perf_counter()
            gaps.append(now - last - TICK_S)
            last = now

    gc.collect()
    gc.freeze()
    ticking = asyncio.create_task(tick())
    try:
        await run()
    finally:
        ticking.cancel()
        gc.unfreeze()
    return max(gaps)
