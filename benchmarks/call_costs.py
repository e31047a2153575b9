"""What calls take of the processor: the thread's own time, without what it waits for.

    python -m benchmarks.call_costs --folder /dev/shm

In a folder in memory a flush does nothing, so that what is left is Python, LMDB and the
operating system's part. The smallest twentieth counts where other work disturbs. Two
versions are compared by running this in turns with each, by `PYTHONPATH`.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base.id import uuid6

import lgkv
from benchmarks.machine import describe_machine, describe_python
from lgkv.langgraph import LgkvSaver, LgkvStore

T = TypeVar("T")

STEPS: Final = 20


class Costs:
    """Nanoseconds of the processor, by what was called."""

    def __init__(self) -> None:
        self.taken: dict[str, list[int]] = defaultdict(list)

    def call(self, what: str, function: Callable[..., T], *arguments: Any) -> T:
        """Return what the call gives, and note what it took."""
        began = time.thread_time_ns()
        result = function(*arguments)
        self.taken[what].append(time.thread_time_ns() - began)
        return result

    def show(self) -> None:
        """Print the table."""
        print(f"{'µs of the processor':<34} {'median':>8} {'smallest':>8}")
        for what, taken in self.taken.items():
            taken.sort()
            median, small = statistics.median(taken), taken[len(taken) // 20]
            print(f"{what:<34} {median / 1000:>8.1f} {small / 1000:>8.1f}")


def _config(thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


def _checkpoint(values: dict[str, Any], version: str, seen: dict[str, Any]) -> Any:
    return {
        "v": 4,
        "id": str(uuid6(clock_seq=1)),
        "ts": "2026-01-01T00:00:00+00:00",
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, version),
        "versions_seen": seen,
        "updated_channels": None,
    }


def _metadata(step: int) -> Any:
    return {"source": "loop", "step": step, "parents": {}}


def _new_thread(costs: Costs, saver: LgkvSaver, number: int) -> None:
    version = saver.get_next_version(None, None)
    values = {"count": number, "messages": ["hello"]}
    checkpoint, config = _checkpoint(values, version, {}), _config(f"new {number}")
    new = dict.fromkeys(values, version)
    costs.call("put on a new thread", saver.put, config, checkpoint, _metadata(1), new)
    costs.call("get of it", saver.get_tuple, config)


def _in_a_row(
    costs: Costs, folder: str, durability: Literal["full", "interval"], calls: int
) -> None:
    """Put on new threads, one call after another, so that the processor stays warm.

    Within an interval it is what the caller's own thread takes, the flush being another's.
    """
    with lgkv.open(f"{folder}/{durability}.lgkv", durability=durability) as db:
        saver = LgkvSaver(db)
        version = saver.get_next_version(None, None)
        for state, value in (("small", "hello"), ("1 KB", HumanMessage("hello " * 160, id="1"))):
            values = {"count": 1, "messages": [value]}
            new = dict.fromkeys(values, version)
            puts = [
                (_config(f"{state} {number}"), _checkpoint(values, version, {}), _metadata(1), new)
                for number in range(calls)
            ]
            for put in puts:
                costs.call(f"put in a row, {durability}, {state}", saver.put, *put)


def _chat(costs: Costs, saver: LgkvSaver, number: int) -> None:
    config, version, messages = _config(f"chat {number}"), None, []
    for step in range(STEPS):
        version = saver.get_next_version(version, None)
        message = HumanMessage(f"hello {step} " * 5, id=f"{number}-{step}")
        messages = [*messages, message]
        new = {"count": version, "messages": version}
        checkpoint = _checkpoint({"count": step, "messages": messages}, version, {"agent": new})
        config = costs.call("put of a chat", saver.put, config, checkpoint, _metadata(step), new)
        writes = [("count", step + 1), ("messages", ["x"])]
        costs.call("put_writes", saver.put_writes, config, writes, f"task {step}")
        costs.call("get of a chat", saver.get_tuple, _config(f"chat {number}"))


def _store(costs: Costs, store: LgkvStore, number: int) -> None:
    namespace, key = ("users", f"{number % 50}"), f"key {number}"
    costs.call("store: put", store.put, namespace, key, {"text": "likes tea", "n": number})
    costs.call("store: get", store.get, namespace, key)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", default="/dev/shm", help="best in memory")  # noqa: S108
    parser.add_argument("--calls", type=int, default=2000)
    options = parser.parse_args()
    costs = Costs()
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        lgkv.open(f"{folder}/agent.lgkv") as db,
    ):
        saver, store = LgkvSaver(db), LgkvStore(db)
        gc.freeze()
        for number in range(options.calls):
            _new_thread(costs, saver, number)
        for number in range(options.calls // STEPS):
            _chat(costs, saver, number)
        for number in range(options.calls):
            _store(costs, store, number)
        _in_a_row(costs, folder, "full", options.calls)
        _in_a_row(costs, folder, "interval", options.calls)
        machine = describe_machine(Path(folder)) | describe_python()
    print(f"{machine['cpu']}, CPython {machine['version']}, file system {machine['file_system']}")
    costs.show()


if __name__ == "__main__":
    main()
