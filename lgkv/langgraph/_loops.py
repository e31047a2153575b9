"""Working and waiting on an event loop, whatever loop that is.

The writer thread tells a loop once for all the writes of a batch: waking a loop costs more
than a write does. The tasks that it wakes then work in turns, with room for others between.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from lgkv.database import Database
from lgkv.writer import Change, Pending

__all__ = ["breathe", "flush", "read", "write"]

T = TypeVar("T")

WORK_S: Final = 0.001
"""So long the tasks of a loop encode and read, before others of its tasks have their turn."""


class _Pace:
    """How long the tasks of a loop have worked since it went round last."""

    def __init__(self) -> None:
        self.began: float | None = None

    def go_round(self) -> None:
        self.began = None

    def is_late(self) -> bool:
        return self.began is not None and time.perf_counter() - self.began > WORK_S


_paces: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Pace] = weakref.WeakKeyDictionary()


async def breathe() -> None:
    """Return when there is time for some work: the loop goes round every `WORK_S` of it."""
    loop = asyncio.get_running_loop()
    pace = _paces.get(loop)
    if pace is None:
        pace = _paces[loop] = _Pace()
    while pace.is_late():  # noqa: ASYNC110  nothing happens but that the loop goes round
        await asyncio.sleep(0)
    if pace.began is None:
        pace.began = time.perf_counter()
        loop.call_soon(pace.go_round)


@dataclass(frozen=True, slots=True)
class _OfLoop:
    """The mailbox of a loop."""

    loop: asyncio.AbstractEventLoop

    def deliver(self, ended: list[Pending]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self.loop.call_soon_threadsafe(_tell, ended)


def _tell(ended: list[Pending]) -> None:
    for pending in ended:
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
