"""Whether a file holds what was acknowledged, and nothing by halves.

Run as a module it reads one JSON line for each file and answers in one:

    {"path": "...", "ack": ["0:1", ...], "may": ["0:2"]}
    {"ok": true, "last": {"0": 2}}    or    {"ok": false, "why": "lane 0 lost 0:1"}

`may` are steps that were tried and not acknowledged: each is wholly there or not at all.
`Checker` is the end that asks. A checker that dies or hangs is a failure, and is started again.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lgkv
from tests.crash.workload import expected, last_step, take_step
from tests.invariants import broken_invariants, orphaned_values, structural_damage

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ROOT", "Answer", "Checker", "check"]

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 120


@dataclass(frozen=True)
class Answer:
    """What a checker says of a file. `why` is empty if all is well."""

    why: str = ""
    last: dict[str, int] = field(default_factory=dict)


def check(path: str, ack: Iterable[str], may: Iterable[str]) -> Answer:
    """Check a file that nobody writes to."""
    steps = _by_lane(ack), _by_lane(may)
    if not os.path.exists(path):
        return Answer("there is no file" if steps[0] else "")
    faults = structural_damage(path)
    if faults:
        return Answer(f"damaged: {faults[0]}")
    with lgkv.open(path, mode="w", map_size_bytes=1 << 28) as db:
        return _check_open(db, *steps)


def _by_lane(tokens: Iterable[str]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for token in tokens:
        lane, number = map(int, token.split(":"))
        found.setdefault(lane, set()).add(number)
    return found


def _check_open(db: lgkv.Database, ack: dict[int, set[int]], may: dict[int, set[int]]) -> Answer:
    last: dict[str, int] = {}
    for lane in sorted(ack.keys() | may.keys()):
        number = last_step(db, lane)
        if number is None:
            return Answer(f"lane {lane} holds a step by halves")
        acknowledged = max(ack.get(lane, {-1}))
        if number < acknowledged:
            return Answer(f"lane {lane} lost {lane}:{acknowledged}, its last is {number}")
        allowed = {acknowledged} | may.get(lane, set())
        if number not in allowed and expected(lane, number) not in (
            expected(lane, each) for each in allowed if each >= acknowledged
        ):
            return Answer(f"lane {lane} has step {number}, which nobody tried")
        last[str(lane)] = number
    faults = broken_invariants(db)
    orphans = orphaned_values(db)
    if faults or orphans:
        return Answer(f"invariants: {[*faults, *orphans][0]!r}")
    return Answer(_not_writable(db), last)


def _not_writable(db: lgkv.Database) -> str:
    """Write in a lane that no worker has, take it back, and say what is wrong after that."""
    lane = 999
    for number in range(3):
        take_step(db, lane, number)
    if last_step(db, lane) != 2:
        return "what is written now is not read"
    db.checkpoints.delete_thread(f"lane {lane}")
    db.memory.delete((f"{lane}", "one"), "0")
    faults = broken_invariants(db)
    return f"invariants after a write: {faults[0]}" if faults else ""


def answer(request: dict[str, Any]) -> Answer:
    try:
        return check(request["path"], request["ack"], request["may"])
    except Exception as error:  # noqa: BLE001  whatever it is, it is the answer
        return Answer(f"{type(error).__name__}: {error}")


def main() -> None:
    for line in sys.stdin:
        found = answer(json.loads(line))
        print(json.dumps({"ok": not found.why, "why": found.why, "last": found.last}), flush=True)


class Checker:
    """A checker process. To be used in a `with` statement, by one thread at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def check(self, path: str | os.PathLike[str], ack: Iterable[str], may: Iterable[str]) -> Answer:
        """Return what is wrong with a file."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        request = {"path": os.fspath(path), "ack": list(ack), "may": list(may)}
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], LIMIT_S)[0]:
            self.close()
            return Answer("the checker hangs")
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self.close()
            return Answer(f"the checker ended with {signal.strsignal(-code) or code}")
        found = json.loads(line)
        return Answer(found["why"], found["last"])

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.crash.checker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


if __name__ == "__main__":
    main()
