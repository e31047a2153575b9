"""What a damaged file must never make a process do, done on purpose."""

from __future__ import annotations

import os
import threading

from tests.fuzz.sample import Call
from tests.fuzz.victim import Outcome, outcome_of

__all__ = ["crash_once", "hang", "take"]


def crash_once(path: str) -> dict[str, Outcome]:
    """End the process at once, if told to."""
    if path == "crash":
        os._exit(139)
    return {}


def hang(path: str) -> dict[str, Outcome]:
    """Wait for what never comes."""
    threading.Event().wait()
    return {path: Outcome("", "right", "")}


def take(size: str) -> dict[str, Outcome]:
    """Take so many bytes of memory."""
    return {"take": outcome_of(Call("take", "", lambda: len(bytearray(int(size)))))}
