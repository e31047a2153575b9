"""Those who write together: how many of them go into one commit, and for how long it waits.

Threads and tasks that write without a pause come back soon after they are told of a commit.
Left to themselves they would fall into two parts: while one is flushed the other queues, and
each waits for two flushes.

So all of them go into one commit, which waits for those who were told of the last one. Where
it takes them longer to come back than a flush takes, they go in *halves*: those of one commit
are told of it while the next one is flushed, so that they come back beside a flush, which
needs no interpreter, and not beside the writer, which has to get it back at each call of LMDB.
"""

from __future__ import annotations

import time
from collections.abc import Sized
from typing import Final

from lgkv.writer import commit

__all__ = ["Crowd"]

GATHER_SHARE: Final = 0.5
"""For so long, in flushes, a commit waits at most for those who were told of the last one."""

GATHER_STEPS: Final = 4
"""In so many steps; it waits no longer once a step brings nobody."""

GATHER_FROM_S: Final = 0.0002
"""Of flushes that are shorter there is nothing to save."""

GATHER_UP_TO_S: Final = 0.02
"""As such a flush a longer one counts."""

HALVES_FROM: Final = 16
"""Fewer than so many go together: what a commit costs besides its changes, halves pay twice."""

COMING_BACK: Final = 2
"""To be told and to come back takes about as long as to apply so many changes."""


class Crowd:
    """Those whose changes were in the last commit, or the last two of halves."""

    def __init__(self, commits: commit.Committer) -> None:
        self._commits = commits
        self.size = 0

    @property
    def is_together(self) -> bool:
        """Whether there are several, and it pays to wait for them."""
        return self.size > 1 and self._commits.last_flush_s >= GATHER_FROM_S

    def goes_in_halves(self, size: int) -> bool:
        """Whether so many should."""
        flush_s, change_s = self._commits.last_flush_s, self._commits.last_change_s
        return size >= HALVES_FROM and GATHER_FROM_S <= flush_s < COMING_BACK * change_s * size

    def count_in(self, waiting: int, held: int, *, come_back: bool) -> int:
        """Note how many there are, and return how many that wait go into the next commit.

        `held` are those of the last one who have not been told of it. Who writes together for
        the first time is no crowd yet, nor is who does not wait for the end of a change.
        """
        count = min(waiting, commit.BATCH_CHANGES)
        before, self.size = self.size, count + held
        if come_back and self.goes_in_halves(min(before, self.size)):
            return min(count, (self.size + 1) // 2)
        return count

    def gather(self, queue: Sized, expected: int) -> None:
        """Wait until so many queue, while a wait brings some; not for long."""
        flush_s = min(self._commits.last_flush_s, GATHER_UP_TO_S)
        for _ in range(GATHER_STEPS):
            found = len(queue)
            if found >= min(expected, commit.BATCH_CHANGES):
                return
            time.sleep(flush_s * GATHER_SHARE / GATHER_STEPS)
            if len(queue) == found:
                return
