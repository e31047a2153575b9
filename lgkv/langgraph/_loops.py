"""Working and waiting on an event loop, whatever loop that is.

The writer thread tells a loop once for all the writes of a batch: waking a loop costs more
than a write does. The tasks that it wakes then work in turns, with room for others between.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from lgkv.database import Database
from lgkv.writer import Change, Pending

__all__ = ["breathe", "flush", "read", "write"]

T = TypeVar("T")

WORK_A_ROUND: Final = 8
"""So many tasks of a loop encode or read, before others of its tasks have their turn."""

TOLD_A_ROUND: Final = 16
"""So many tasks of a loop are told of their writes, before others of its tasks have their turn."""


class _OfLoop:
    """What is of one loop: whose turn it is to work, and the mailbox of its tasks' writes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = weakref.ref(loop)
        self._working = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take_turn(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None] | None:
        """Return None if the running task may work in this round, else what it has to wait for."""
        if self._waiting or self._working >= WORK_A_ROUND:
            waiter = loop.create_future()
            self._waiting.append(waiter)
            return waiter
        if not self._working:
            loop.call_soon(self._next, loop)
        self._working += 1
        return None

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._working = 0
        while self._waiting and self._working < WORK_A_ROUND:
            waiter = self._waiting.popleft()
            if not waiter.done():  # it was cancelled
                waiter.set_result(None)
                self._working += 1
        if self._working:
            loop.call_soon(self._next, loop)

    def deliver(self, ended: list[Pending]) -> None:
        loop = self.loop()
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(_tell, loop, ended)


_of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = (
    weakref.WeakKeyDictionary()
)
_last: _OfLoop | None = None
"""What is of the loop that was asked for last, nearly always the one that is asked for next."""


def _of(loop: asyncio.AbstractEventLoop) -> _OfLoop:
    global _last  # noqa: PLW0603
    found = _last
    if found is None or found.loop() is not loop:
        found = _of_loops.get(loop)
        if found is None:
            found = _of_loops[loop] = _OfLoop(loop)
        _last = found
    return found


def _tell(loop: asyncio.AbstractEventLoop, ended: list[Pending]) -> None:
    if len(ended) > TOLD_A_ROUND:
        loop.call_soon(_tell, loop, ended[TOLD_A_ROUND:])
    for pending in ended[:TOLD_A_ROUND]:
        waiter = pending.waiter
        if waiter.done():  # it was cancelled
            continue
        if pending.error is None:
            waiter.set_result(pending.result)
        elif isinstance(pending.error, StopIteration):  # which no asyncio future takes
            waiter.set_exception(RuntimeError("a change raised StopIteration"))
        else:
            waiter.set_exception(pending.error)


async def breathe() -> None:
    """Return when it is the task's turn to work: a few have it each time the loop goes round.

    Else hundreds of tasks that are told together would hold up the loop together.
    """
    loop = asyncio.get_running_loop()
    turn = _of(loop).take_turn(loop)
    if turn is not None:
        await turn


async def write(db: Database, change: Change[T] | None) -> T:
    """Write a change as `Database.commit` does, without holding up the loop; None is a flush.

    Cancelled, it is written whole or not at all.
    """
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[T] = loop.create_future()
    pending = db.post(change, _of(loop), waiter)
    try:
        return await waiter
    except asyncio.CancelledError:
        pending.give_up()  # unless it has begun: then it is written, whole
        raise


async def flush(db: Database) -> None:
    """Do what `Database.flush` does, without holding up the loop."""
    if db.unflushed:
        await write(db, None)


async def read(db: Database, call: Callable[[], T]) -> T:
    """Return what `call` reads, which sees all that this process has written before."""
    await breathe()
    if not db.unflushed:
        return call()
    await write(db, None)
    with db.as_committed():  # of what comes meanwhile nothing is waited for
        return call()
