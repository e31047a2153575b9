"""The one way to the disk: changes, in batches, behind the gate.

A *change* is what one call wants written: a function on a `Batch`, prepared outside every
lock. Changes that wait together are committed together, each in a nested transaction of
its own, so that a failing one takes only itself down. A caller's change is durable when
`commit` returns, or when the future of `submit` is done.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar, cast

import lmdb

from lgkv.batch import Batch
from lgkv.datafile import Gate
from lgkv.env import Environment, translate
from lgkv.errors import (
    ClosedError,
    CommitFailedError,
    ReadOnlyError,
    StorageError,
    WriteLockTimeoutError,
)
from lgkv.layout import STATE_KEY, Table

__all__ = ["Batch", "Change", "Writer", "WriterFigures"]

T = TypeVar("T")


BATCH_CHANGES: Final = 1024
"""The most changes in one commit."""

MEMO_ENTRIES: Final = 4096
"""The most that is remembered from one commit to the next."""

logger = logging.getLogger("lgkv")


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What one call wants written: `apply` may run again, and must depend on the batch alone."""

    apply: Callable[[Batch], T]
    committed: Callable[[T], None] | None = None
    """Called with the result once it is durable; must be short, and must not fail."""


@dataclass(slots=True)
class WriterFigures:
    """What the writer has done since the file was opened in this process."""

    commits: int = 0
    changes: int = 0
    failed_changes: int = 0
    flush_seconds: float = 0.0
    wait_seconds: float = 0.0


def _taken_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(slots=True)
class _Pending:
    """A change and what becomes of it, which its caller is told once every lock is released.

    Without a future the caller waits for `ended`: a plain lock, unlike a future's own, is
    never left behind taken by a KeyboardInterrupt.
    """

    change: Change[Any]
    future: Future[Any] | None = None
    wanted: bool | None = None
    result: Any = None
    error: BaseException | None = None
    decided: bool = False
    claim: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Lock = field(default_factory=_taken_lock)

    def start(self) -> bool:
        """Whether the caller still wants it; from here on it cannot be cancelled."""
        if self.wanted is None:  # it can be found out once only
            if self.future is None:
                self.wanted = self.claim.acquire(blocking=False)
            else:
                self.wanted = self.future.set_running_or_notify_cancel()
        return self.wanted

    def give_up(self) -> bool:
        """Cancel it, unless it has started; return whether that was so."""
        return self.claim.acquire(blocking=False)

    def succeed(self, result: Any) -> None:
        self.result, self.decided = result, True

    def fail(self, error: BaseException) -> None:
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
        if self.future is None:
            self.ended.release()
        elif self.start():
            if self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(self.result)


class Writer:
    """Commits the changes of one environment in this process."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self.figures = WriterFigures()
        self._reset()

    def _reset(self) -> None:
        self._turn = threading.Lock()
        self._lock = threading.Lock()  # by `with` only, as `_turn`
        self._arrived = threading.Condition(self._lock)
        self._queue: deque[_Pending] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._gate: Gate | None = None
        self._memo: dict[Any, Any] = {}
        self._memo_as_of = -1

    # --- for callers ---

    def commit(self, change: Change[T]) -> T:
        """Write `change` and return its result once it is durable.

        Raises:
            WriteLockTimeoutError: Others wrote for longer than `lock_timeout_s`.
        """
        self._check()
        pending = _Pending(change)
        if not self._queue and not self._turn.locked():
            with self._turn:  # `with`, unlike a call of `acquire`, cannot be interrupted half-way
                self._check_open()
                self._commit_all([pending])
        else:
            self._enqueue(pending)
            self._wait(pending)
        return cast("T", pending.outcome())

    def submit(self, change: Change[T]) -> Future[T]:
        """Queue `change`; the future is done once it is durable, or has failed."""
        self._check()
        future: Future[T] = Future()
        self._enqueue(_Pending(change, future))
        return future

    def _enqueue(self, pending: _Pending) -> None:
        with self._lock:
            self._check_open()
            if self._thread is None:
                self._thread = self._start_thread()
            self._queue.append(pending)
            self._arrived.notify()

    def _start_thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="lgkv-writer", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is ending
            raise StorageError(f"{self._env.path!r}: the writer thread: {error}") from error
        return thread

    def _wait(self, pending: _Pending) -> None:
        limit = self._env.options.lock_timeout_s
        try:
            if pending.ended.acquire(timeout=min(limit, threading.TIMEOUT_MAX)):
                return
        except BaseException:
            pending.give_up()
            raise
        if not pending.give_up():
            pending.ended.acquire()  # it is being committed: it ends with the commit
            return
        raise WriteLockTimeoutError(
            f"the write lock of {self._env.path!r} was not free within {limit:g} s: "
            "open with a larger lock_timeout_s"
        )

    def _check(self) -> None:
        if self._env.options.read_only:
            raise ReadOnlyError(
                f"{self._env.path!r} is open with mode='r': open it with mode='w' to write"
            )
        self._env.check()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self._env.path!r} was closed: open it again")

    # --- the writer thread ---

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._queue and not self._closed:
                    self._arrived.wait()
                if not self._queue:
                    return
            with self._turn:
                batch = self._take()
                self._commit_all(batch)
            while batch:  # nothing here keeps a change alive that is done
                with contextlib.suppress(BaseException):  # of a callback: the next one goes on
                    batch.pop(0).end()

    def _take(self) -> list[_Pending]:
        with self._lock:
            count = min(len(self._queue), BATCH_CHANGES)
            return [self._queue.popleft() for _ in range(count)]

    def close(self) -> None:
        """Commit what is queued and stop."""
        with self._lock:
            self._closed = True
            self._arrived.notify_all()
        if self._thread is not None:
            self._thread.join()
        with self._turn:
            self._close_gate()

    def is_own_thread(self) -> bool:
        """Whether the caller is the writer thread, which cannot wait for itself."""
        return self._thread is threading.current_thread()

    def close_if_idle(self) -> bool:
        """Stop if that needs no waiting; return whether it did."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._queue or not self._turn.acquire(blocking=False):
                return False
            try:
                self._closed = True
                self._arrived.notify_all()
                self._close_gate()
            finally:
                self._turn.release()
        finally:
            self._lock.release()
        return True

    def _close_gate(self) -> None:
        if self._gate is not None:
            self._gate.close()
            self._gate = None

    # --- one commit ---

    def _commit_all(self, batch: list[_Pending]) -> None:
        """Commit `batch`. What became of each change is in it afterwards; nothing is raised."""
        try:
            self._commit_behind_gate(batch)
        except OSError as error:
            self._fail_all(batch, CommitFailedError(f"{self._env.path!r}: {error}"))
        except BaseException as error:  # noqa: BLE001  it reaches the callers: this thread goes on
            self._fail_all(batch, self._ours(error))

    @staticmethod
    def _fail_all(batch: list[_Pending], error: BaseException) -> None:
        for pending in batch:
            pending.fail(error)

    def _ours(self, error: BaseException) -> BaseException:
        return translate(error, self._env.path) if isinstance(error, lmdb.Error) else error

    def _commit_behind_gate(self, batch: list[_Pending]) -> None:
        began = time.perf_counter()
        if self._gate is None:
            self._gate = Gate(self._env.path)
        self._gate.acquire(self._env.options.lock_timeout_s)
        self.figures.wait_seconds += time.perf_counter() - began
        try:
            self._commit_and_grow(batch)
        finally:
            self._gate.release()

    def _commit_and_grow(self, batch: list[_Pending]) -> None:
        wanted = [pending for pending in batch if pending.start()]
        while wanted:
            try:
                self._env.sharing.enter(wanted)
                self._commit_once(wanted)
            except lmdb.MapFullError:
                full = True
            else:
                full = False
            finally:
                self._env.sharing.leave(wanted)
            if not full:
                return
            self._env.grow()
            logger.info("the map of %s was full and has grown", self._env.path)

    def _commit_once(self, wanted: list[_Pending]) -> None:
        txn, databases = self._env.begin_write(wanted)
        done: list[tuple[_Pending, Any]] = []
        failed: list[tuple[_Pending, BaseException]] = []
        try:
            batch = Batch(self._env.sharing, self._env.tell)
            batch.begin(txn, databases)
            batch.memo = self._take_memo(txn.id())
            batch.state = batch.read_state()
            batch._compress = self._env.options.compression  # noqa: SLF001
            for pending in wanted:
                try:
                    done.append(
                        (pending, self._apply(batch, pending.change, alone=len(wanted) == 1))
                    )
                except (lmdb.MapFullError, MemoryError):
                    raise
                except Exception as error:  # noqa: BLE001  it reaches its caller through the future
                    batch.memo.clear()
                    failed.append((pending, error))
            if done:
                batch.state.commit += 1
                batch.put(Table.MAIN, STATE_KEY, batch.state.pack())
                number = txn.id()
                self._flush(txn)
                self._memo_as_of = number
        finally:
            txn.abort()  # unless it was committed; at once, for it holds LMDB's lock
        self.figures.changes += len(done)
        self.figures.failed_changes += len(failed)
        self._decide(done, failed)

    def _take_memo(self, number: int) -> dict[Any, Any]:
        """Return what is known of the file for transaction `number`; it is so until a failure."""
        if number != self._memo_as_of + 1 or len(self._memo) > MEMO_ENTRIES:
            self._memo = {}
        self._memo_as_of = -1
        return self._memo

    def _decide(
        self, done: list[tuple[_Pending, Any]], failed: list[tuple[_Pending, BaseException]]
    ) -> None:
        for pending, result in done:
            if pending.change.committed is not None:
                pending.change.committed(result)
            pending.succeed(result)
        for pending, reason in failed:
            pending.fail(self._ours(reason))
        failed.clear()  # else an error would keep itself alive, by the frames that it holds

    def _apply(self, batch: Batch, change: Change[T], *, alone: bool) -> T:
        if alone:  # the whole transaction is the change's own, and is aborted with it
            return change.apply(batch)
        outer, state = batch._txn, replace(batch.state)  # noqa: SLF001
        batch._txn = self._env.begin_nested(outer)  # noqa: SLF001
        try:
            result = change.apply(batch)
            batch._txn.commit()  # noqa: SLF001
        except BaseException:
            batch._txn.abort()  # noqa: SLF001
            batch.state = state
            batch.memo.clear()
            raise
        finally:
            batch._txn = outer  # noqa: SLF001
        return result

    def _flush(self, txn: Any) -> None:
        began = time.perf_counter()
        try:
            txn.commit()
        except lmdb.MapFullError:
            raise
        except (lmdb.Error, OSError, MemoryError) as error:
            self._env.fail(error)
            raise CommitFailedError(
                f"the commit to {self._env.path!r} failed ({error}): free disk space if there is "
                "none left, close the database and open it again"
            ) from error
        self.figures.commits += 1
        self.figures.flush_seconds += time.perf_counter() - began

    # --- fork ---

    def after_fork_in_child(self) -> None:
        """Drop the parent's queue, thread and descriptor: what they held is the parent's."""
        gate = self._gate
        self._reset()
        self.figures = WriterFigures()
        if gate is not None:
            gate.close()
