"""A lock for `with` that no interruption leaves behind taken.

A KeyboardInterrupt can come between any two steps of the interpreter. Before CPython 3.14 a
`with` statement takes a `threading.Lock` and is within its block in one step. Since then it
looks for interruptions in between, and one that comes there would leave the lock taken.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Final, Protocol

__all__ = ["Lockable", "Mutex", "acquire_if_free"]


class Lockable(Protocol):
    """What `acquire_if_free` takes."""

    def acquire(self, blocking: bool = ...) -> bool:  # noqa: FBT001  as the library has it
        """Take it; return whether that was done."""
        ...

    def locked(self) -> bool:
        """Whether somebody has it."""
        ...


if TYPE_CHECKING or sys.version_info < (3, 14):
    Mutex = threading.Lock
else:
    _RLock: Final = type(threading.RLock())

    class Mutex(_RLock):
        """A lock that knows its thread, and so whether that has it. It is not to be nested."""

        def __enter__(self) -> None:
            try:
                self.acquire()
            except BaseException:
                with contextlib.suppress(RuntimeError):  # it was not taken yet
                    self.release()
                raise


def acquire_if_free(lock: Lockable) -> bool:
    """Take `lock` unless somebody has it, be it this thread itself; return whether it did."""
    return not lock.locked() and lock.acquire(blocking=False)
