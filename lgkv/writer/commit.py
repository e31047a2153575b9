"""One commit: the gate, the transaction, the changes, the flush.

The steps of the way are methods, so that a test can let each of them fail by its name.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from threading import get_ident
from typing import Any, Final

import lmdb

from lgkv.batch import Batch
from lgkv.env import Environment
from lgkv.errors import CommitFailedError, MapFullError
from lgkv.gate import Gate
from lgkv.opening import translate
from lgkv.snapshot import State
from lgkv.writer.changes import Pending, end_all
from lgkv.writer.headroom import Headroom

__all__ = ["Committer", "WriterFigures"]

BATCH_CHANGES: Final = 1024
"""The most changes in one commit."""

BATCH_BYTES: Final = 16 << 20
"""The bytes of records after which a commit takes no further change."""

MEMO_ENTRIES: Final = 4096
"""The most that is remembered from one commit to the next."""

HELD_S: Final = 0.005
"""After so long the next of the changes is not applied before those are told who are held."""

TURN_S: Final = 0.001
"""For so long changes are applied without a pause while an event loop waits for them."""

PAUSE_S: Final = 0.00005
"""LMDB's calls let go of the interpreter too, but for less than a thread needs to wake up."""

logger = logging.getLogger("lgkv")


@dataclass(slots=True)
class WriterFigures:
    """What the writer has done since the file was opened in this process.

    `waits` counts the commits that found another process at the gate.
    """

    commits: int = 0
    changes: int = 0
    failed_changes: int = 0
    largest_batch: int = 0
    flush_seconds: float = 0.0
    longest_flush_seconds: float = 0.0
    waits: int = 0
    wait_seconds: float = 0.0
    longest_wait_seconds: float = 0.0


class Committer:
    """Commits batches of changes, each at once. One thread at a time uses it."""

    unflushed = False
    """Whether something was acknowledged that is not durable."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self.figures = WriterFigures()
        self.last_flush_s = 0.0
        self.last_change_s = 0.0
        """What the last batch took for each of its changes, before its flush."""
        self.held: list[Pending] = []
        """What has ended, and nobody was told of yet; the next flush is a good time to tell.

        Only the writer thread puts something there, and tells.
        """
        self._turn_began = self._batch_began = 0.0
        self.applying: Batch | None = None
        """What the change that runs now writes to."""
        self.applier: int | None = None
        """The thread that runs it."""
        self._gate: Gate | None = None
        self._headroom = Headroom()
        self._memo: dict[Any, Any] = {}
        self._state: State | None = None
        self._known_as_of = -1

    def serve(self, waiting: list[Pending]) -> list[Pending]:
        """Commit what is waiting; return what is left for the next batch.

        What became of each of the others is in it afterwards. Nothing is raised.
        """
        self._turn_began = time.perf_counter()
        try:
            self._enter_gate()
            try:
                return self._commit_and_grow(waiting)
            finally:
                self._leave_gate()
        except BaseException as error:  # noqa: BLE001  it reaches the callers: this thread goes on
            self._fail_all(waiting, self._typed(error))
            return []

    def serve_here(self, pending: Pending) -> bool:
        """Acknowledge a change on its caller's thread; return whether that could be done."""
        del pending
        return False

    def _fail_all(self, waiting: list[Pending], reason: BaseException) -> None:
        """Tell the callers, in a frame that the error does not hold.

        Else it would keep itself alive, and after an interruption LMDB's lock with it.
        """
        if isinstance(reason, MapFullError) and len(waiting) > 1:
            for pending in waiting:  # those that fit are not to suffer for those that do not
                self.serve([pending])
            return
        for pending in waiting:
            pending.fail(reason)

    def tell(self) -> None:
        """Tell those who were not told yet; no future is among them, whose callbacks would run."""
        if self.held:
            end_all(self.held)

    def due_in(self) -> float | None:
        """Return the seconds until `finish` is to be called, None if there is nothing to do."""
        return None

    def finish(self) -> None:
        """Make durable what was acknowledged. Nothing is raised."""

    def close(self) -> None:
        """Give the gate's descriptor back."""
        if self._gate is not None:
            self._gate.close()
            self._gate = None

    def _typed(self, error: BaseException) -> BaseException:
        if isinstance(error, lmdb.Error):
            return translate(error, self._env.path)
        if isinstance(error, OSError):
            return CommitFailedError(f"{self._env.path!r}: {error}")
        return error

    # --- the steps of a commit ---

    def _enter_gate(self) -> float:
        """Take the gate; return the seconds that others had it."""
        if self._gate is None:
            self._gate = self._open_gate()
        waited = self._gate.acquire(self._env.options.lock_timeout_s, self.tell)
        if waited:
            figures = self.figures
            figures.waits += 1
            figures.wait_seconds += waited
            figures.longest_wait_seconds = max(figures.longest_wait_seconds, waited)
        return waited

    def _open_gate(self) -> Gate:
        self._env.check()
        gate = Gate(self._env.path)
        try:
            self._env.check()  # that it is the gate of this file, now and for as long as it is used
        except BaseException:
            gate.close()
            raise
        return gate

    def _leave_gate(self) -> None:
        try:
            if self._gate is not None:
                self._gate.release()
        except Exception:  # what is written stays written; closing lets the others in as well
            logger.exception("%s: the gate could not be released", self._env.path)
            self.close()

    def _commit_and_grow(self, waiting: list[Pending]) -> list[Pending]:
        while True:
            try:
                self._env.sharing.enter(self, self.tell)
                return self._commit_once(waiting)
            except lmdb.MapFullError:
                pass  # it is left before the map may grow
            finally:
                self._env.sharing.leave(self)
            self._grow()

    def _grow(self) -> None:
        self.tell()
        self._env.grow()
        logger.info("the map of %s was full and has grown", self._env.path)

    def _commit_once(self, waiting: list[Pending]) -> list[Pending]:
        """Commit what fits; return the others. A change that fails takes only itself down."""
        batch = self._begin()
        if len(waiting) > 1:
            batch.keep_log()
        done: list[tuple[Pending, Any]] = []
        failed: list[tuple[Pending, BaseException]] = []
        self._batch_began = time.perf_counter()
        try:
            left = self._apply_all(batch, waiting, done, failed)
            changes = 0
            for pending, _ in done:
                if pending.change is not None:
                    changes += 1
            if changes:
                self.last_change_s = (time.perf_counter() - self._batch_began) / changes
                self._flush(batch, changes)
        finally:
            batch.abort()  # unless it was committed; at once, for it holds LMDB's lock
        self._decide(done, failed)
        return left

    def _apply_all(
        self,
        batch: Batch,
        waiting: list[Pending],
        done: list[tuple[Pending, Any]],
        failed: list[tuple[Pending, BaseException]],
    ) -> list[Pending]:
        """Apply what fits, and say what became of it; return the others."""
        for at, pending in enumerate(waiting):
            if batch.written > BATCH_BYTES:
                return waiting[at:]
            if not pending.start():
                continue
            try:
                done.append((pending, self._apply(batch, pending)))
            except (lmdb.MapFullError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001  it reaches its caller
                failed.append((pending, error))
                if len(waiting) > 1:  # else there is nothing to commit
                    self._undo(batch)
            else:
                if len(waiting) > 1:
                    batch.settle()
        return []

    def _undo(self, batch: Batch) -> None:
        """Leave of the transaction what was settled."""
        batch.undo()
        if batch.dirty:
            self._redo(batch)

    def _redo(self, batch: Batch) -> None:
        """Do what was settled in a new transaction; nobody else has come through the gate."""
        batch.abort()
        batch.redo(*self._env.begin_write(self))

    def _begin(self) -> Batch:
        if self._headroom.is_due and self._gate is not None:
            self._headroom.keep(self._gate.descriptor, self._env.info())
        txn, databases = self._env.begin_write(self)
        try:
            env = self._env
            batch = Batch(env.sharing, env.tell, txn, databases, compress=env.options.compression)
            self._recall(batch, txn.id())
        except BaseException:
            txn.abort()
            raise
        return batch

    def _recall(self, batch: Batch, number: int) -> None:
        """Let transaction `number` know what the one before it left, if that was ours."""
        if number != self._known_as_of + 1:
            self._memo, self._state = {}, None
        elif len(self._memo) > MEMO_ENTRIES:
            self._memo = {}
        self._known_as_of = -1  # until it is committed
        batch.memo = self._memo
        batch.state = self._state or batch.read_state()

    def _apply(self, batch: Batch, pending: Pending) -> Any:
        change = pending.change
        if change is None:  # a flush: what is before it is in this commit, or was in an earlier one
            return None
        if self.held and not (change.is_short and self._is_early):
            self.tell()
        if pending.mailbox is not None:
            self._give_way()
        self.applying, self.applier, batch.dirty = batch, get_ident(), True
        try:
            return change.apply(batch)
        finally:
            self.applying = self.applier = None

    @property
    def _is_early(self) -> bool:
        """Whether those who are held may wait for one more change of the batch."""
        return time.perf_counter() - self._batch_began <= HELD_S

    def _give_way(self) -> None:
        """Let the loops have the interpreter now and then, else they would wait for the flush."""
        if time.perf_counter() - self._turn_began > TURN_S:
            time.sleep(PAUSE_S)
            self._turn_began = time.perf_counter()

    def is_applying(self) -> bool:
        """Whether the caller is within a change."""
        return self.applier == get_ident()

    def _flush(self, batch: Batch, changes: int) -> None:
        batch.state.commit += 1
        batch.put_state()
        number = batch._txn.id()  # noqa: SLF001
        self.tell()
        began = time.perf_counter()
        try:
            batch._txn.commit()  # noqa: SLF001
        except lmdb.MapFullError:
            batch.state.commit -= 1
            raise
        except (lmdb.Error, OSError, MemoryError) as error:
            self._env.fail(error)
            raise CommitFailedError(
                f"the commit to {self._env.path!r} failed ({error}): free disk space if there is "
                "none left, close the database and open it again"
            ) from error
        took = time.perf_counter() - began
        self._known_as_of, self._state = number, batch.state
        self.last_flush_s = took
        self._headroom.use(batch.written)
        figures = self.figures
        figures.commits += 1
        figures.changes += changes
        figures.flush_seconds += took
        figures.largest_batch = max(figures.largest_batch, changes)
        figures.longest_flush_seconds = max(figures.longest_flush_seconds, took)

    def _decide(
        self, done: list[tuple[Pending, Any]], failed: list[tuple[Pending, BaseException]]
    ) -> None:
        for pending, result in done:
            self._succeed(pending, result)
        for pending, reason in failed:
            self._fail(pending, reason)
        failed.clear()  # else an error would keep itself alive, by the frames that it holds

    def _succeed(self, pending: Pending, result: Any) -> None:
        change = pending.change
        if change is not None and change.committed is not None:
            try:
                change.committed(result)
            except Exception:  # it is written, whatever comes after
                logger.exception("%s: after a commit", self._env.path)
        pending.succeed(result)

    def _fail(self, pending: Pending, reason: BaseException) -> None:
        self.figures.failed_changes += 1
        pending.fail(self._typed(reason) if isinstance(reason, lmdb.Error) else reason)

    # --- fork ---

    def after_fork_in_child(self) -> None:
        """Drop what is the parent's."""
        gate = self._gate
        self.__init__(self._env)  # type: ignore[misc]
        if gate is not None:
            gate.close()
