"""Room at the end of the file that is written already.

A commit that makes the file longer waits for the file system's journal too. Where zeros were
written ahead, it overwrites blocks that are there.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Final

__all__ = ["Headroom"]

LARGEST_BYTES: Final = 256 << 10
SHARE: Final = 16
"""One part in so many of the file is written ahead at most."""

FROM_COMMITS: Final = 8
"""Room has to last for so many commits: ahead of larger ones zeros cost more than they save."""

COMMIT_BYTES: Final = 4096
"""What a commit may need of it beside its records."""


class Headroom:
    """Keeps a little of the file written ahead of its last page.

    Used behind the gate, where nobody else writes: what lies beyond the file's end is nobody's.
    """

    def __init__(self) -> None:
        self._commits = self._used_bytes = self._left_bytes = 0
        self.is_due = False
        """Whether it is time for `keep`."""

    def use(self, written_bytes: int) -> None:
        """Note a commit that has written so much."""
        self._commits += 1
        self._used_bytes += 2 * written_bytes + COMMIT_BYTES
        self.is_due = self._used_bytes > self._left_bytes

    def keep(self, descriptor: int, info: dict[str, int]) -> None:
        """Write zeros after the end of the file if its pages come close to that.

        `info` is LMDB's. That there is no room on the disk is for the commit to find.
        """
        page = info["psize"]
        used = (info["last_pgno"] + 1) * page
        wanted = min(used // SHARE, LARGEST_BYTES) // page * page
        end = min(used + wanted, info["map_size"] // page * page)
        size = os.fstat(descriptor).st_size
        lasts = self._used_bytes * FROM_COMMITS <= wanted * self._commits
        if lasts and size - used < wanted // 2 and size < end:
            with contextlib.suppress(OSError):
                _fill(descriptor, size, end)
        self._left_bytes = max(LARGEST_BYTES, size - used) // 2
        self._commits = self._used_bytes = 0
        self.is_due = False


def _fill(descriptor: int, start: int, end: int) -> None:
    if sys.platform == "win32":  # LMDB makes the file as long as its map there
        return
    while start < end:
        start += os.pwrite(descriptor, bytes(end - start), start)
