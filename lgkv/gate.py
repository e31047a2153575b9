"""Who of several processes writes next."""

from __future__ import annotations

import errno
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Final

from lgkv.errors import StorageError, WriteLockTimeoutError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["Gate"]


class Gate:
    """A lock between processes on the data file, taken before LMDB's own, with a time limit.

    LMDB's write lock cannot be waited for with a limit. The operating system drops the gate
    when its holder dies. One thread of a process at a time may use it.

    The system's lock knows no order, and who has just let go would nearly always be the next
    one. So a process that comes back at once, again and again, has a *turn*, and then a break
    that is longer than the others' pauses between two tries; and who has waited for long tries
    more often than who has just come.
    """

    _FIRST_PAUSE_S: Final = 0.0002
    _LONGEST_PAUSE_S: Final = 0.001  # a busy writer lets go for microseconds only
    _SHORTEST_PAUSE_S: Final = 0.0001
    _PATIENCE_S: Final = 0.02
    """After so long the pauses become shorter, in inverse proportion."""
    _BREAK_S: Final = 0.0015
    _TURN_S: Final = 0.02
    _LONGEST_TURN_S: Final = 0.16
    """Turns grow to this while nobody is found waiting."""
    _WINDOWS_OFFSET: Final = 1 << 40  # beyond any data: locked bytes cannot be read there

    def __init__(self, path: str) -> None:
        self._path = path
        self._turn_s = self._TURN_S
        self._turn_began = self._left_at = -math.inf
        self.descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        """Of the data file."""

    def acquire(
        self, timeout_s: float, before_waiting: Callable[[], object] | None = None
    ) -> float:
        """Take the gate; return the seconds that others had it, 0 if it was free.

        `before_waiting` is called if it was not.

        Raises:
            WriteLockTimeoutError: It was not free within `timeout_s` seconds.
        """
        began = time.monotonic()
        breaking = False
        if began - self._left_at > self._BREAK_S:
            self._turn_began = began
        elif began - self._turn_began >= self._turn_s:
            breaking, began = True, self._take_break()
        if self._try():
            if breaking:
                self._turn_s = min(2 * self._turn_s, self._LONGEST_TURN_S)
            return 0.0
        if before_waiting is not None:
            before_waiting()
        self._turn_s, pause = self._TURN_S, self._FIRST_PAUSE_S
        waited = 0.0
        while waited < timeout_s:
            time.sleep(pause)
            free = self._try()
            waited = time.monotonic() - began
            if free:
                self._turn_began = began + waited
                return waited
            if waited < self._PATIENCE_S:
                pause = min(pause * 1.5, self._LONGEST_PAUSE_S)
            else:
                share = self._PATIENCE_S / waited
                pause = max(self._LONGEST_PAUSE_S * share, self._SHORTEST_PAUSE_S)
        raise WriteLockTimeoutError(
            f"another process has held the write lock of {self._path!r} for {timeout_s:g} s: "
            "end its long write, or open with a larger lock_timeout_s"
        )

    def _take_break(self) -> float:
        """Stay away after a turn, so that others come in; return when the next one begins."""
        time.sleep(self._BREAK_S)
        self._turn_began = time.monotonic()
        return self._turn_began

    def release(self) -> None:
        """Let the next writer in."""
        self._left_at = time.monotonic()
        if sys.platform == "win32":
            os.lseek(self.descriptor, self._WINDOWS_OFFSET, os.SEEK_SET)
            msvcrt.locking(self.descriptor, msvcrt.LK_UNLCK, 1)
        else:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the descriptor, which releases the gate too."""
        os.close(self.descriptor)

    def _try(self) -> bool:
        try:
            if sys.platform == "win32":
                os.lseek(self.descriptor, self._WINDOWS_OFFSET, os.SEEK_SET)
                msvcrt.locking(self.descriptor, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                return False
            raise StorageError(f"{self._path!r} cannot be locked: {error.strerror}") from error
        return True
