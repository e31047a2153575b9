"""A process that writes and tells what was acknowledged, to be killed at any time.

    python -m tests.crash.worker PATH LANE [COUNT] [durability=interval] [wrong=early|unsynced]

It prints `TRY lane:step` before a call and `ACK lane:step` once the call has returned, and
goes on from what the file holds. With interval durability a step is acknowledged once a
flush after it has returned. `wrong` makes it a worker that a checker must catch: one that
acknowledges too early, or one that does not wait for the disk.
"""

from __future__ import annotations

import os
import sys
import time

import lmdb

import lgkv
from tests.crash.workload import last_step, take_step

__all__ = ["main"]

EARLY_S = 0.02
FLUSHED_TOGETHER = 7
INTERVAL_MS = 20


def tell(word: str, lane: int, number: int) -> None:
    os.write(1, f"{word} {lane}:{number}\n".encode())


def work(
    db: lgkv.Database, lane: int, count: int, *, early: bool = False, together: int = 1
) -> None:
    last = last_step(db, lane)
    if last is None:
        raise SystemExit(f"lane {lane} is not whole")
    taken: list[int] = []
    for number in range(last + 1, last + 1 + count):
        tell("TRY", lane, number)
        if early:
            tell("ACK", lane, number)
            time.sleep(EARLY_S)
        take_step(db, lane, number)
        taken.append(number)
        if len(taken) >= together and not early:
            db.flush()
            while taken:
                tell("ACK", lane, taken.pop(0))


def main(path: str, lane: str, *rest: str) -> None:
    count = next((int(each) for each in rest if each.isdecimal()), sys.maxsize)
    if "wrong=unsynced" in rest:
        real = lmdb.open
        vars(lmdb)["open"] = lambda *given, **options: real(*given, **options | {"sync": False})
    lazy = "durability=interval" in rest
    durability, together = ("interval", FLUSHED_TOGETHER) if lazy else ("full", 1)
    with lgkv.open(
        path, map_size_bytes=1 << 28, durability=durability, interval_ms=INTERVAL_MS
    ) as db:
        work(db, int(lane), count, early="wrong=early" in rest, together=together)


if __name__ == "__main__":
    main(*sys.argv[1:])
