"""Another process that has the file open, and does with it what it is told."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import lgkv
from lgkv.langgraph import LgkvSaver
from tests.model.serialisers import serialiser
from tests.unit.shadows import exactly

__all__ = ["Elsewhere", "digest", "digests"]


def digest(values: dict[str, Any]) -> str:
    """Return a text that two states of channels share only if nothing tells them apart."""
    return repr(sorted((name, repr(exactly(value))) for name, value in values.items()))


def digests(saver: LgkvSaver, thread_id: str) -> dict[str, str]:
    """Return the digests of all checkpoints of a thread by id."""
    config: Any = {"configurable": {"thread_id": thread_id}}
    return {
        found.checkpoint["id"]: digest(found.checkpoint["channel_values"])
        for found in saver.list(config)
    }


class Elsewhere:
    """The process, as seen from here. It keeps files open until it is told to close them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __call__(self, what: str, path: str, serde: str, *arguments: Any) -> Any:
        """Return what a call of `LgkvSaver`, or one of `ACTIONS`, gives there."""
        self.begin(what, path, serde, *arguments)
        return self.result()

    def begin(self, what: str, path: str, serde: str, *arguments: Any) -> None:
        """Start a call without waiting for its end."""
        assert self._process.stdin is not None
        pickle.dump((what, path, serde, arguments), self._process.stdin)
        self._process.stdin.flush()

    def result(self) -> Any:
        """Return what the call that was begun gives."""
        assert self._process.stdout is not None
        result, error = pickle.load(self._process.stdout)
        if error is not None:
            raise AssertionError(f"elsewhere: {error}")
        return result

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def append_all(saver: LgkvSaver, config: Any, elements: list[Any], channel: str) -> list[str]:
    """Put a checkpoint for each element, appended to what its parent has; return the ids."""
    from tests.conformance.checkpoints import put

    ids = []
    for number, element in enumerate(elements):
        found = saver.get_tuple(config)
        value = [] if found is None else found.checkpoint["channel_values"].get(channel, [])
        config = put(saver, config, {channel: [*value, element]}, {channel: f"{element}:{number}"})
        ids.append(config["configurable"]["checkpoint_id"])
    return ids


def prune_often(saver: LgkvSaver, thread_id: str, times: int, keep_last: int) -> None:
    """Prune a thread over and over."""
    for _ in range(times):
        saver.prune([thread_id], keep_last=keep_last)


ACTIONS: dict[str, Callable[..., Any]] = {
    "digests": digests,
    "append_all": append_all,
    "prune_often": prune_often,
}


def main() -> None:
    """Do as told until there is nothing more."""
    handles: dict[str, lgkv.Database] = {}
    while True:
        try:
            what, path, serde, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        result, error = None, None
        try:
            if what == "close":
                if path in handles:
                    handles.pop(path).close()
            else:
                if path not in handles:
                    handles[path] = lgkv.open(path)
                saver = LgkvSaver(handles[path], serde=serialiser(serde))
                if what in ACTIONS:
                    result = ACTIONS[what](saver, *arguments)
                else:
                    getattr(saver, what)(*arguments)
        except Exception as caught:  # noqa: BLE001  it is told to the test
            error = repr(caught)
        pickle.dump((result, error), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
