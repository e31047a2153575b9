"""Where the time of a put on a new thread goes: calls and microseconds, by what they are for.

    python -m benchmarks.put_profile

The profiler makes every call dearer, so the shares count and the sum does not: beside them
stands what a put takes without it. What is left if lgkv's own Python took nothing is the
limit that no layout of the records can go below.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint
from langgraph.checkpoint.base.id import uuid6

from benchmarks.machine import describe_machine, describe_python
from lgkv.langgraph import LgkvSaver

PUTS: Final = 500

LIBRARIES: Final = (
    ("method 'commit' of 'Transaction'", "LMDB's commit, with both flushes"),
    ("of 'Transaction' objects", "LMDB's gets and puts"),
    ("of 'Cursor' objects", "LMDB's gets and puts"),
    ("of 'Environment' objects", "LMDB's gets and puts"),
    ("cbor2", "CBOR"),
    ("ormsgpack", "the message's MessagePack, LangGraph's serialiser"),
    ("jsonplus", "the message's MessagePack, LangGraph's serialiser"),
    ("pydantic", "the message's MessagePack, LangGraph's serialiser"),
    ("langchain_core", "the message's MessagePack, LangGraph's serialiser"),
    ("zstandard", "compression"),
    ("posix", "calls of the operating system"),
    ("fcntl", "calls of the operating system"),
    ("lgkv/checkpoints", "lgkv: taking apart, planning, the records of a checkpoint"),
    ("lgkv/codec", "lgkv: taking apart, planning, the records of a checkpoint"),
    ("lgkv/langgraph", "lgkv: LangGraph's calls"),
    ("lgkv/", "lgkv: keys, envelope, batch, writer, gate"),
)
OTHER: Final = "built-in functions and methods"


def _put(saver: LgkvSaver, thread_id: str, message: HumanMessage) -> None:
    version = saver.get_next_version(None, None)
    checkpoint: Any = {
        "v": 4,
        "id": str(uuid6(clock_seq=1)),
        "ts": "2026-01-01T00:00:00+00:00",
        "channel_values": {"messages": [message]},
        "channel_versions": {"messages": version},
        "versions_seen": {"__input__": {}},
        "updated_channels": ["messages"],
    }
    config: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    stored: Checkpoint = checkpoint
    saver.put(config, stored, {"source": "loop", "step": 0, "parents": {}}, {"messages": version})


def _what_for(name: tuple[str, int, str]) -> str:
    text = f"{name[0].replace(chr(92), '/')} {name[2]}"
    return next((purpose for part, purpose in LIBRARIES if part in text), OTHER)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", default="benchmarks/results", help="must be on a real disk")
    folder = Path(parser.parse_args().folder)
    folder.mkdir(parents=True, exist_ok=True)
    message = HumanMessage("hi", id="1")
    with (
        tempfile.TemporaryDirectory(dir=folder) as name,
        LgkvSaver.from_conn_string(f"{name}/agent.lgkv") as saver,
    ):
        taken, flushed = [], []
        for at in range(2 * PUTS):
            before = saver.db.stats().flush_seconds
            began = time.perf_counter()
            _put(saver, f"plain {at}", message)
            taken.append(time.perf_counter() - began)
            flushed.append(saver.db.stats().flush_seconds - before)
        profile = cProfile.Profile()
        with profile:
            for at in range(PUTS):
                _put(saver, f"profiled {at}", message)
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for function, (_, count, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        seconds[_what_for(function)] += own
        calls[_what_for(function)] += count
    machine = describe_machine(folder) | describe_python()
    print(f"{machine['cpu']}, CPython {machine['version']}, file system {machine['file_system']}")
    print(f"a put on a new thread: {1e6 * statistics.median(taken):.0f} µs,")
    print(f"of it the commit:      {1e6 * statistics.median(flushed):.0f} µs\n")
    print(f"{'under the profiler':<60} {'calls':>7} {'µs':>7}")
    for purpose in sorted(seconds, key=seconds.__getitem__, reverse=True):
        print(f"{purpose:<60} {calls[purpose] / PUTS:>7.1f} {1e6 * seconds[purpose] / PUTS:>7.1f}")


if __name__ == "__main__":
    main()
