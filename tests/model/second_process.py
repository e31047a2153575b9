"""A process that has the same file open: it answers requests until its input ends.

Run as a module it reads requests from its standard input and writes answers to its
standard output, both pickled; `SecondProcess` is the end that asks.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import lgkv
from lgkv.langgraph import LgkvSaver, LgkvStore
from tests.model.embedding import INDEX

__all__ = ["SecondProcess"]

ROOT = Path(__file__).resolve().parents[2]


class SecondProcess:
    """Calls the methods of a saver or a store in another process."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", __spec__.name if __spec__ else __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )

    def call(self, path: str, target: str, method: str, *args: Any, **options: Any) -> Any:
        """Return what `method` returns there; an iterator comes as a list."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        pickle.dump((path, target, method, args, options), self._child.stdin)
        self._child.stdin.flush()
        error, result = pickle.load(self._child.stdout)
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """End the process."""
        self._child.communicate(timeout=20)


def answer(handles: dict[str, dict[str, Any]], request: tuple[Any, ...]) -> Any:
    path, target, method, args, options = request
    if path not in handles:
        db = lgkv.open(path, mode="w")
        handles[path] = {"db": db, "saver": LgkvSaver(db), "store": LgkvStore(db, index=INDEX)}
    if method == "close":
        handles.pop(path)["db"].close()
        return None
    result = getattr(handles[path][target], method)(*args, **options)
    return list(result) if hasattr(result, "__next__") else result


def main() -> None:
    handles: dict[str, dict[str, Any]] = {}
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            reply = (None, answer(handles, request))
        except Exception as error:  # noqa: BLE001  it is raised again where it was asked for
            reply = (error, None)
        pickle.dump(reply, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
