"""Kills writers at random times, and checks every acknowledged step after each kill."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.crash.checker import ROOT, Checker
from tests.crash.result import Result

__all__ = ["kill_loop"]

LIMIT_S = 100


class Worker:
    """A worker process, and what it has told so far."""

    def __init__(self, path: Path, lane: int, options: Sequence[str]) -> None:
        self.tried: list[str] = []
        self.acknowledged: list[str] = []
        self.begun = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.worker", str(path), str(lane), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, _, token = line.decode().strip().partition(" ")
            (self.acknowledged if word == "ACK" else self.tried).append(token)
            if word == "ACK":
                self.begun.set()
        self.begun.set()  # or it has ended

    def kill(self) -> str:
        """End it; return what it did that it should not, if anything."""
        self._process.send_signal(signal.SIGKILL)
        errors = self._process.stderr
        assert errors is not None
        text = errors.read().decode()
        code = self._process.wait()
        self._listener.join()
        for stream in (self._process.stdout, errors):
            if stream is not None:
                stream.close()
        if code == -signal.SIGKILL and self.acknowledged:
            return ""
        return f"a worker ended with {code}: {text.strip()[-300:]}"


def kill_loop(
    folder: Path,
    *,
    seed: int,
    cycles: int,
    writers: int = 1,
    worker: Sequence[str] = (),
    fresh_every: int = 50,
    longest_s: float = 0.06,
    until: float = float("inf"),
) -> Result:
    """Run `cycles` cycles, each with `writers` writers on one file, or until a time is reached.

    They are killed up to `longest_s` after all of them have had a step acknowledged. The file
    is a new one after `fresh_every` cycles.
    """
    chance, result = (
        random.Random(seed),
        Result("kill -9", ", ".join([f"{writers} writers", *worker])),
    )
    acknowledged: set[str] = set()
    tried: set[str] = set()
    path = folder / "killed.lgkv"
    with Checker() as checker:
        for cycle in range(cycles):
            if time.monotonic() > until:
                break
            if cycle % fresh_every == 0:
                path = folder / f"killed{cycle}.lgkv"
                acknowledged, tried = set(), set()
            started = [Worker(path, lane, worker) for lane in range(writers)]
            for each in started:
                each.begun.wait(LIMIT_S)
            time.sleep(chance.random() * longest_s)
            chance.shuffle(started)
            for each in started:
                result.count(each.kill())
                acknowledged.update(each.acknowledged)
                tried.update(each.tried)
                result.steps += len(each.acknowledged)
            found = checker.check(path, acknowledged, tried - acknowledged)
            result.count(found.why and f"cycle {cycle}: {found.why}", checked=1)
    return result
