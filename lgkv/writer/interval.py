"""Durability within an interval: changes are applied as they come, and flushed together.

Each change runs when it comes, in a write transaction that stays open, so all that can fail
about it fails while its caller waits, and it sees all that came before. What is lost in a
crash is what was not flushed: a tail, never a part of it. The transaction holds the gate, so
nobody else's commit comes between.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any, Final

import lmdb

from lgkv.batch import Batch
from lgkv.env import Environment
from lgkv.errors import LgkvError, MapFullError
from lgkv.writer import commit
from lgkv.writer.changes import Pending
from lgkv.writer.commit import Committer

__all__ = ["IntervalCommitter"]

GROWTHS: Final = 16
"""So many times the map may become larger for one flush."""

IDLE_SHARE: Final = 0.1
"""The part of the interval after which the transaction ends if nothing more comes."""

CONTENDED_S: Final = 0.02
"""The longest that the transaction stays open where other processes wait for theirs."""

logger = logging.getLogger("lgkv")


class IntervalCommitter(Committer):
    """Applies changes at once and makes them durable within `interval_ms`.

    LMDB's write lock belongs to a thread, so the writer thread begins and ends the transaction.
    In between it is of whoever has the turn: a caller applies its change itself.
    """

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self._batch: Batch | None = None
        self._applied = 0
        """How many changes are in it."""
        self._unlogged: Pending | None = None
        """The last of them, if it was too large for the log."""
        self._interval_s = env.options.interval_ms / 1000
        self._end_at = self._used_at = 0.0

    @property
    def unflushed(self) -> bool:  # type: ignore[override]
        """Whether something was acknowledged that is not durable."""
        return bool(self._applied)

    def due_in(self) -> float | None:
        """Return the seconds until the flush is due, None if there is nothing to flush."""
        if self._batch is None:
            return None
        if self._is_full:
            return 0.0
        end_at = min(self._end_at, self._used_at + self._interval_s * IDLE_SHARE)
        return end_at - time.monotonic()

    @property
    def _is_full(self) -> bool:
        return self._batch is not None and (
            self._batch.written > commit.BATCH_BYTES or self._applied >= commit.BATCH_CHANGES
        )

    def serve_here(self, pending: Pending) -> bool:
        """Apply a change in the transaction that is open, if there is one and it has room."""
        batch, now = self._batch, time.monotonic()
        if batch is None or batch.dirty or self._is_full or now >= self._end_at:
            return False
        if pending.change is None:
            return False
        try:
            result = self._apply(batch, pending)
        except lmdb.MapFullError:
            return False  # the writer thread grows the map, and applies it again
        except BaseException as error:  # noqa: BLE001  it reaches its caller
            batch.undo()  # what was done before it, the writer thread does again if it must be
            self._fail(pending, error)
        else:
            self._used_at = now
            self._keep(batch, pending, result)
        return True

    def _keep(self, batch: Batch, pending: Pending, result: Any) -> None:
        self._unlogged = pending if batch.overflowed else None
        self._applied += 1
        batch.settle()
        self._succeed(pending, result)

    def serve(self, waiting: list[Pending]) -> list[Pending]:
        """Apply what is waiting. What became of each is in it afterwards; nothing is raised.

        A future is for who wants to know that it is durable: then all is flushed at once.
        """
        self._turn_began = time.perf_counter()
        for pending in waiting:
            if pending.change is None:
                self._answer(pending)
            elif pending.start():
                self._add(pending)
        self._used_at = time.monotonic()
        due_in = self.due_in()
        if any(pending.future is not None for pending in waiting) or (due_in or 1) <= 0:
            self.finish()
            for pending in waiting:
                if pending.future is not None:
                    self._check(pending)
        return []

    def _answer(self, flush: Pending) -> None:
        self.finish()
        if flush.start():
            flush.succeed(None)
            self._check(flush)

    def _check(self, pending: Pending) -> None:
        """Let it fail if the file has failed."""
        try:
            self._env.check()
        except LgkvError as error:
            pending.decided = False
            pending.fail(error)

    def _add(self, pending: Pending) -> None:
        if self._is_full or (self._batch is not None and self._batch.dirty):
            self.finish()
        try:
            batch = self._batch or self._open()
        except BaseException as error:  # noqa: BLE001  it reaches its caller: this thread goes on
            self._fail(pending, self._typed(error))
            return
        try:
            result = self._apply(batch, pending)
        except lmdb.MapFullError:
            self.finish()
            super().serve([pending])  # which grows the map if it can, and flushes
        except BaseException as error:  # noqa: BLE001  likewise
            batch.undo()
            self._fail(pending, error)
        else:
            self._keep(batch, pending, result)
        if batch.dirty or self._is_full or not self._applied:
            self.finish()

    def _open(self) -> Batch:
        contended = self._enter_gate() > 0
        try:
            self._env.sharing.enter(self)
            self._batch = self._begin()
            self._batch.keep_log()
        except BaseException:
            self._env.sharing.leave(self)
            self._leave_gate()
            raise
        limit_s = min(self._interval_s, CONTENDED_S) if contended else self._interval_s
        self._end_at = time.monotonic() + limit_s
        return self._batch

    def finish(self) -> None:
        """Flush what was applied. Nothing is raised: a failure closes the file to every use."""
        batch, applied = self._batch, self._applied
        if batch is None:
            return
        try:
            try:
                if applied:
                    self._flush_all(batch, applied)
            finally:
                batch.abort()
                self._env.sharing.leave(self)
                self._leave_gate()
        except BaseException as error:  # noqa: BLE001  the next call is told
            self._lose(error, applied)
        self._batch, self._applied, self._unlogged = None, 0, None

    def _flush_all(self, batch: Batch, applied: int) -> None:
        try:
            if batch.dirty:
                self._redo(batch)
            self._flush(batch, applied)
        except lmdb.MapFullError:
            self._flush_beyond(batch, applied)

    def _flush_beyond(self, batch: Batch, applied: int) -> None:
        """Flush in a map that is larger: it was acknowledged, and a limit is for what comes next.

        Nobody else has come through the gate, so everything is done on what it was done on.
        """
        try:
            for _ in range(GROWTHS):
                batch.abort()
                self._env.sharing.leave(self)  # before the map may grow
                self._env.grow(beyond=True)
                self._env.sharing.enter(self)
                with contextlib.suppress(lmdb.MapFullError):
                    self._redo(batch)
                    if self._unlogged is not None:
                        self._succeed(self._unlogged, self._apply(batch, self._unlogged))
                    self._flush(batch, applied)
                    return
            raise MapFullError(
                f"{self._env.path!r} is full, and what was written last is not in it"
            )
        finally:
            batch.abort()
            self._env.sharing.leave(self)
            self._env.shrink()

    def _lose(self, error: BaseException, changes: int) -> None:
        reason = self._typed(error)
        logger.error(
            "%s: %d changes that were acknowledged are lost: %s", self._env.path, changes, reason
        )
        self._env.fail(reason, told=False)
