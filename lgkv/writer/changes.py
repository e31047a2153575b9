"""What a caller wants written, and what becomes of it.

A *change* is a function on a `Batch`. Until its caller knows the end of it, it is *pending*.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from lgkv.batch import Batch

__all__ = ["Change", "Mailbox", "Pending", "end_all"]

T = TypeVar("T")

logger = logging.getLogger("lgkv")


@dataclass(slots=True, eq=False)
class Change(Generic[T]):
    """What one call wants written: `apply` may run again, and must depend on the batch alone."""

    apply: Callable[[Batch], T]
    committed: Callable[[T], None] | None = None
    """Called with the result once it is the caller's; must be short, and must not fail.

    With "full" durability it is on the disk by then. With "interval" it may be lost with
    the process, and if it is lost without, the file is closed to every use.
    """
    is_short: bool = False
    """Whether it is known to take no longer than others may wait for it."""


class Mailbox(Protocol):
    """Where the ends of several changes are told at once: those of equal mailboxes together."""

    def deliver(self, ended: list[Pending]) -> None:
        """Take what has ended, on the writer's thread."""

    def __hash__(self) -> int: ...


class Pending:
    """A change and what becomes of it, which its caller is told.

    What runs code of the caller's, a future, is told of it once every lock is released.

    Without a future and a mailbox the caller waits for `ended`: a plain lock, unlike a
    future's own, is never left behind taken by a KeyboardInterrupt. Without a change it is
    a flush: it ends once all that came before it is durable.
    """

    __slots__ = (
        "_claim", "_wanted", "change", "decided", "ended", "error", "future", "mailbox", "result",
        "waiter",
    )  # fmt: skip

    def __init__(
        self,
        change: Change[Any] | None,
        future: Future[Any] | None = None,
        mailbox: Mailbox | None = None,
        waiter: Any = None,
    ) -> None:
        self.change, self.future, self.mailbox, self.waiter = change, future, mailbox, waiter
        self.result: Any = None
        self.error: BaseException | None = None
        self.decided = False
        self._wanted: bool | None = True
        self._claim: threading.Lock | None = None
        self.ended: threading.Lock | None = None

    def queue(self) -> None:
        """Let the caller give it up while it waits."""
        self._wanted = None
        if self.future is None:
            self._claim = threading.Lock()
        if self.future is None and self.mailbox is None:
            self.ended = threading.Lock()
            self.ended.acquire()

    def start(self) -> bool:
        """Whether the caller still wants it; from here on it cannot be cancelled."""
        if self._wanted is None:  # it can be found out once only
            if self._claim is not None:
                self._wanted = self._claim.acquire(blocking=False)
            elif self.future is not None:
                self._wanted = self.future.set_running_or_notify_cancel()
        return bool(self._wanted)

    def give_up(self) -> bool:
        """Cancel it, unless it has started; return whether that was so."""
        return self._claim is not None and self._claim.acquire(blocking=False)

    def wait(self, timeout_s: float = -1) -> bool:
        """Wait for the end; return whether it came in time."""
        return self.ended is not None and self.ended.acquire(timeout=timeout_s)

    def succeed(self, result: Any) -> None:
        """Note the end: it is written."""
        self.result, self.decided = result, True

    def fail(self, error: BaseException) -> None:
        """Note the end: it is not written; no news for one that has ended."""
        if not self.decided:
            self.error, self.decided = error, True

    def outcome(self) -> Any:
        """Return what the change returned, or raise what it, or its commit, raised."""
        error, self.error = self.error, None
        try:
            if error is None:
                return self.result
            raise error
        finally:
            del error  # else it would keep itself alive

    def end(self) -> None:
        """Tell the caller; what the callbacks of a future do is the caller's own affair."""
        if self.ended is not None:
            self.ended.release()
        elif self.future is not None and self.start():
            if self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(self.result)


def end_all(batch: list[Pending]) -> None:
    """Tell the callers of `batch`, and empty it: nothing keeps a change alive that is done."""
    posted: dict[Mailbox, list[Pending]] = {}
    batch.reverse()
    while batch:
        pending = batch.pop()
        if pending.mailbox is not None:
            posted.setdefault(pending.mailbox, []).append(pending)
            continue
        with contextlib.suppress(BaseException):  # of a callback: the next one goes on
            pending.end()
        del pending
    for mailbox, ended in posted.items():
        try:
            mailbox.deliver(ended)
        except Exception:  # it is written, whatever its loop says to that
            logger.exception("a mailbox did not take the ends of %d changes", len(ended))
