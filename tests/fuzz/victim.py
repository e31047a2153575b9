"""A process that opens damaged files, makes every call on them, and tells what came of it.

What would kill a test, a crash, a hang or a lack of memory, ends this process instead. Run as a
module it reads paths from its standard input and writes what it found to its standard output,
both pickled; `Victim` is the end that asks.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import pickle
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import lgkv
from lgkv import CorruptionError, FormatVersionError, InvalidInputError
from tests.fuzz.sample import Call, reads, writes

__all__ = ["ALLOWANCE_BYTES", "Outcome", "Victim", "VictimError", "outcome_of"]

ROOT: Final = Path(__file__).resolve().parents[2]
LIMIT_S: Final = 90
"""A file on which all calls together take longer has made one of them hang."""

ALLOWANCE_BYTES: Final = 256 << 20
"""What a small file may take beyond what the process has before it; a bomb takes more."""

TYPED: Final = (CorruptionError, FormatVersionError, InvalidInputError)


class Outcome(NamedTuple):
    """What a call gave: a digest of its result, or its error, and how that is to be judged."""

    group: str
    verdict: str
    """"right", "typed" for an error that a damaged file may cause, or "wrong"."""
    result: str


class VictimError(AssertionError):
    """The process has died or hangs."""


class Victim:
    """The process; one that has died is started again.

    `what` names the function that it calls with each path, as "module:function".
    """

    def __init__(self, what: str = f"{__name__}:survey", limit_s: float = LIMIT_S) -> None:
        self._what, self._limit_s = what, limit_s
        self._child: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[Any] = queue.Queue()

    def __call__(self, path: str) -> dict[str, Outcome]:
        """Return the outcome of every call on the file at `path`, by the call's name."""
        child = self._child or self._start()
        assert child.stdin is not None
        pickle.dump(path, child.stdin)
        child.stdin.flush()
        try:
            answer = self._answers.get(timeout=self._limit_s)
        except queue.Empty:
            answer = f"hangs: nothing came back in {self._limit_s} s"
        if isinstance(answer, str):
            self.close()
            raise VictimError(f"the process that opened the file {answer}")
        found: dict[str, Outcome] = answer
        return found

    def close(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def _start(self) -> subprocess.Popen[bytes]:
        self._answers = queue.Queue()
        self._child = child = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", __name__, self._what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        threading.Thread(target=_listen, args=(child, self._answers), daemon=True).start()
        return child


def _listen(child: subprocess.Popen[bytes], answers: queue.Queue[Any]) -> None:
    assert child.stdout is not None
    while True:
        try:
            answers.put(pickle.load(child.stdout))
        except (EOFError, pickle.UnpicklingError, OSError, ValueError):
            answers.put(f"has ended with {child.wait()}")
            return


# --- in the process ------------------------------------------------------------------------


def survey(path: str) -> dict[str, Outcome]:
    """Open a file, make all calls on it, and close it."""
    found: dict[str, Outcome] = {}
    opened = outcome_of(Call("open", "", lambda: lgkv.open(path, mode="w").close()))
    found["open"] = opened
    if opened.verdict == "right":
        with lgkv.open(path, mode="w") as db:
            _make(found, "", reads(db))
            _make(found, "then ", writes(db))
    return found


def _make(found: dict[str, Outcome], when: str, calls: Iterable[Call]) -> None:
    for call in calls:
        found[when + call.name] = outcome_of(call)


def outcome_of(call: Call) -> Outcome:
    """Make a call and judge what comes of it."""
    try:
        result = hashlib.sha256(repr(call.run()).encode("utf-8", "backslashreplace")).hexdigest()
    except TYPED as error:
        return Outcome(call.group, "typed", f"{type(error).__name__}: {error}")
    except Exception:  # noqa: BLE001  any other is what is looked for
        return Outcome(call.group, "wrong", traceback.format_exc())
    return Outcome(call.group, "right", result)


def limit_memory() -> None:
    """Take away the memory that a bomb would need, where the system can count it.

    A sanitised build keeps accounts of its own, which this limit must not count.
    """
    with contextlib.suppress(ImportError, FileNotFoundError):
        import resource

        status = Path("/proc/self/status").read_text(encoding="ascii")
        loaded = "libasan" in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
        if not loaded:
            used = int(status.partition("VmData:")[2].split()[0]) << 10
            resource.setrlimit(resource.RLIMIT_DATA, (used + ALLOWANCE_BYTES,) * 2)


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    look = getattr(importlib.import_module(module), name)
    answers = sys.stdout.buffer
    limit_memory()
    while True:
        try:
            path = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(look(path), answers)
        answers.flush()


if __name__ == "__main__":
    main()
