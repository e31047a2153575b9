"""A write or sync that fails, is cut short, or is the last thing a worker does: for each of them.

A worker may end with an error, which is right when its disk fails, but neither by a signal
that it was not sent nor not at all. What it acknowledged must be in the file afterwards, and
the error that ends it is one of lgkv's.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests.crash.checker import Checker
from tests.crash.result import Result
from tests.crash.shim import Run, clear_folder, run_worker

__all__ = ["MODES", "count_events", "io_faults"]

EIO, ENOSPC = "5", "28"
STICKY = {"FAIL_STICKY": "1"}
SHORT = {"FAIL_ERRNO": ENOSPC, "FAIL_SHORT": "1"}
MODES: Final[dict[str, dict[str, str]]] = {
    "eio": {"FAIL_ERRNO": EIO},
    "eio-sticky": {"FAIL_ERRNO": EIO, **STICKY},
    "enospc": {"FAIL_ERRNO": ENOSPC},
    "enospc-sticky": {"FAIL_ERRNO": ENOSPC, **STICKY},
    "short": SHORT,
    "short-sticky": SHORT | STICKY,
    "kill-before": {"KILL_MODE": "before"},
    "kill-after": {"KILL_MODE": "after"},
    "kill-torn": {"KILL_MODE": "torn"},
}
TYPED: Final = re.compile(r"^lgkv\.errors\.\w+", re.MULTILINE)


def count_events(shim: Path, folder: Path, options: Sequence[str]) -> int:
    """Return how many writes and syncs a worker makes, from the creation of its file on."""
    path, count = folder / "counted" / "f.lgkv", folder / "count"
    clear_folder(path.parent)
    run = run_worker(shim, path, options, {"COUNT": str(count)})
    assert run.code == 0, run.errors
    return int(count.read_text())


def io_faults(
    shim: Path,
    folder: Path,
    points: Iterable[tuple[str, int]],
    options: Sequence[str],
    *,
    jobs: int = 2,
    until: float = float("inf"),
) -> Result:
    """Let a worker meet each fault: a mode and the number of the write or sync that it hits."""
    result, idle = Result("I/O faults", " ".join(options)), SimpleQueue[tuple[Path, Checker]]()
    checkers = [Checker() for _ in range(jobs)]
    for at, checker in enumerate(checkers):
        idle.put((folder / f"fault{at}", checker))

    def meet(point: tuple[str, int]) -> tuple[str, int]:
        if time.monotonic() > until:
            return "", -1
        mode, number = point
        slot, checker = idle.get()
        try:
            clear_folder(slot)
            path = slot / "f.lgkv"
            when = "KILL_AT" if mode.startswith("kill") else "FAIL_AT"
            run = run_worker(shim, path, options, MODES[mode] | {when: str(number)})
            maybe = set(run.tried) - set(run.acknowledged)
            why = bad_end(run, mode) or checker.check(path, run.acknowledged, maybe).why
            return why and f"{mode} at {number}: {why}", len(run.acknowledged)
        finally:
            idle.put((slot, checker))

    try:
        with ThreadPoolExecutor(jobs) as pool:
            for why, steps in pool.map(meet, points):
                if steps >= 0:
                    result.count(why, checked=1)
                    result.steps += steps
    finally:
        for checker in checkers:
            checker.close()
    return result


def bad_end(run: Run, mode: str) -> str:
    """Return what is wrong with how a worker ended, if anything."""
    if run.code is None:
        return "the worker hangs"
    if run.code < 0 and not (mode.startswith("kill") and run.code == -signal.SIGKILL):
        return f"the worker ended with {signal.strsignal(-run.code)}"
    if run.code > 0 and not TYPED.search(run.errors):
        return f"an error that is not lgkv's: {run.errors.strip()[-300:]}"
    return ""
