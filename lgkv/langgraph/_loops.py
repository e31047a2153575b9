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
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from lgkv.database import Database
from lgkv.writer import Change, Pending

__all__ = ["breathe", "flush", "read", "write"]

T = TypeVar("T")

WORK_A_ROUND: Final = 8
"""So many tasks of a loop encode or read, before others of its tasks have their turn."""

TOLD_A_ROUND: Final = 16
"""So many tasks of a loop are told of their writes, before others of its tasks have their turn."""


class _Round:
    """Who of a loop's tasks works in this round of it, and who waits for the next, in order."""

    def __init__(self) -> None:
        self._working = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def join(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting or self._working >= WORK_A_ROUND:
            waiter = loop.create_future()
            self._waiting.append(waiter)
            await waiter
            return
        if not self._working:
            loop.call_soon(self._next, loop)
        self._working += 1

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._working = 0
        while self._waiting and self._working < WORK_A_ROUND:
            waiter = self._waiting.popleft()
            if not waiter.done():  # it was cancelled
                waiter.set_result(None)
                self._working += 1
        if self._working:
            loop.call_soon(self._next, loop)


_rounds: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Round] = weakref.WeakKeyDictionary()


async def breathe() -> None:
    """Return when it is the task's turn to work: a few have it each time the loop goes round.

    Else hundreds of tasks that are told together would hold up the loop together.
    """
    loop = asyncio.get_running_loop()
    of_loop = _rounds.get(loop)
    if of_loop is None:
        of_loop = _rounds[loop] = _Round()
    await of_loop.join(loop)


@dataclass(frozen=True, slots=True)
class _OfLoop:
    """The mailbox of a loop."""

    loop: asyncio.AbstractEventLoop

    def deliver(self, ended: list[Pending]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self.loop.call_soon_threadsafe(_tell, self.loop, ended)


def _tell(loop: asyncio.AbstractEventLoop, ended: list[Pending]) -> None:
    if len(ended) > TOLD_A_ROUND:
        loop.call_soon(_tell, loop, ended[TOLD_A_ROUND:])
    for pending in ended[:TOLD_A_ROUND]:
        waiter = pending.waiter
        if waiter.done():  # it was cancelled
            continue
        if isinstance(pending.error, StopIteration):  # which no asyncio future takes
            waiter.set_exception(RuntimeError("a change raised StopIteration"))
        elif pending.error is not None:
            waiter.set_exception(pending.error)
        else:
            waiter.set_result(pending.result)


async def _post(db: Database, change: Change[Any] | None) -> Any:
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()
    pending = db.post(change, _OfLoop(loop), waiter)
    try:
        return await waiter
    except asyncio.CancelledError:
        pending.give_up()  # unless it has begun: then it is written, whole
        raise


async def write(db: Database, change: Change[T]) -> T:
    """Write a change as `Database.commit` does, without holding up the loop.

    Cancelled, it is written whole or not at all.
    """
    return cast("T", await _post(db, change))


async def flush(db: Database) -> None:
    """Do what `Database.flush` does, without holding up the loop."""
    if db.unflushed:
        await _post(db, None)


async def read(db: Database, call: Callable[[], T]) -> T:
    """Return what `call` reads, which sees all that this process has written before."""
    await breathe()
    if not db.unflushed:
        return call()
    await _post(db, None)
    with db.as_committed():  # of what comes meanwhile nothing is waited for
        return call()
