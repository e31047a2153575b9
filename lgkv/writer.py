"""The one way to the disk: changes, in batches, behind the gate.

A *change* is what one call wants written: a function on a `Batch`, prepared outside every
lock. Changes that wait together are committed together, each in a nested transaction of
its own, so that a failing one takes only itself down. A caller's change is durable when
`commit` returns, or when the future of `submit` is done.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

import lmdb

from lgkv.datafile import Gate
from lgkv.env import Environment, Snapshot, State, translate
from lgkv.errors import (
    ClosedError,
    CommitFailedError,
    LgkvError,
    ReadOnlyError,
    WriteLockTimeoutError,
)
from lgkv.layout import STATE_KEY, Table, seal_record

__all__ = ["Batch", "Change", "Writer", "WriterFigures"]

T = TypeVar("T")

BATCH_CHANGES: Final = 1024
"""The most changes in one commit."""

logger = logging.getLogger("lgkv")


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What one call wants written: `apply` may run again, and must depend on the batch alone."""

    apply: Callable[[Batch], T]
    committed: Callable[[T], None] | None = None
    """Called with the result once it is durable; must be short, and must not fail."""


class Batch(Snapshot):
    """A write transaction: a snapshot that sees and takes writes, and gives out numbers."""

    __slots__ = ("_compress", "state")

    _compress: bool
    """Whether records are compressed where it pays."""

    state: State
    """The file's counters; the commit stores them."""

    def put(self, table: Table, key: bytes, body: bytes) -> int:
        """Store `body` under `key`; return the growth in bytes of keys and records."""
        record = seal_record(table, key, body, compress=self._compress)
        database = self._databases[table]
        if self._txn.put(key, record, overwrite=False, db=database):
            return len(key) + len(record)
        old = len(self._txn.get(key, b"", database))
        self._txn.put(key, record, db=database)
        return len(record) - old

    def put_new(self, table: Table, key: bytes, body: bytes) -> int:
        """Store `body` unless `key` is there; return the growth in bytes, 0 if it is there."""
        record = seal_record(table, key, body, compress=self._compress)
        if self._txn.put(key, record, overwrite=False, db=self._databases[table]):
            return len(key) + len(record)
        return 0

    def delete(self, table: Table, key: bytes) -> int:
        """Delete `key`; return the bytes that this frees, 0 if it is not there."""
        old = self._txn.get(key, None, self._databases[table])
        if old is None:
            return 0
        size = len(key) + len(old)
        self._txn.delete(key, db=self._databases[table])
        return size

    def delete_range(self, table: Table, prefix: bytes) -> int:
        """Delete every key that begins with `prefix`; return the bytes that this frees."""
        cursor, freed = self._txn.cursor(self._databases[table]), 0
        found = cursor.set_range(prefix)
        while found and bytes(cursor.key()[: len(prefix)]) == prefix:
            freed += len(cursor.key()) + len(cursor.value())
            cursor.delete()
            found = bool(cursor.key())
        return freed


@dataclass(slots=True)
class WriterFigures:
    """What the writer has done since the file was opened in this process."""

    commits: int = 0
    changes: int = 0
    failed_changes: int = 0
    flush_seconds: float = 0.0
    wait_seconds: float = 0.0


@dataclass(slots=True)
class _Pending:
    change: Change[Any]
    future: Future[Any]
    running: bool = False

    def start(self) -> bool:
        """Whether the caller still wants it; from here on it cannot be cancelled."""
        self.running = self.running or self.future.set_running_or_notify_cancel()
        return self.running

    def fail(self, error: BaseException) -> None:
        if (self.running or self.start()) and not self.future.done():
            self.future.set_exception(error)


class Writer:
    """Commits the changes of one environment in this process."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self.figures = WriterFigures()
        self._reset()

    def _reset(self) -> None:
        self._turn = threading.Lock()
        self._arrived = threading.Condition(threading.Lock())
        self._queue: deque[_Pending] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._gate: Gate | None = None

    # --- for callers ---

    def commit(self, change: Change[T]) -> T:
        """Write `change` and return its result once it is durable.

        Raises:
            WriteLockTimeoutError: Others wrote for longer than `lock_timeout_s`.
        """
        self._check()
        if not self._queue and self._turn.acquire(blocking=False):
            future: Future[T] = Future()
            try:
                self._commit_all([_Pending(change, future)])
            finally:
                self._turn.release()
            return future.result()
        return self._wait(self.submit(change))

    def submit(self, change: Change[T]) -> Future[T]:
        """Queue `change`; the future is done once it is durable, or has failed."""
        self._check()
        pending = _Pending(change, Future())
        with self._arrived:
            if self._closed:
                raise ClosedError(f"{self._env.path!r} was closed: open it again")
            self._queue.append(pending)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lgkv-writer", daemon=True)
                self._thread.start()
            self._arrived.notify()
        return pending.future

    def _wait(self, future: Future[T]) -> T:
        limit = self._env.options.lock_timeout_s
        try:
            return future.result(limit)
        except FutureTimeoutError:
            if future.cancel():
                raise WriteLockTimeoutError(
                    f"the write lock of {self._env.path!r} was not free within {limit:g} s: "
                    "open with a larger lock_timeout_s"
                ) from None
            return future.result()  # it is being committed: it ends with the commit

    def _check(self) -> None:
        if self._env.options.read_only:
            raise ReadOnlyError(
                f"{self._env.path!r} is open with mode='r': open it with mode='w' to write"
            )
        self._env.check()

    # --- the writer thread ---

    def _run(self) -> None:
        while True:
            with self._arrived:
                while not self._queue and not self._closed:
                    self._arrived.wait()
                if not self._queue:
                    return
            with self._turn:
                self._commit_all(self._take())

    def _take(self) -> list[_Pending]:
        with self._arrived:
            count = min(len(self._queue), BATCH_CHANGES)
            return [self._queue.popleft() for _ in range(count)]

    def close(self) -> None:
        """Commit what is queued and stop."""
        with self._arrived:
            self._closed = True
            self._arrived.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._turn:
            if self._gate is not None:
                self._gate.close()
                self._gate = None

    # --- one commit ---

    def _commit_all(self, batch: list[_Pending]) -> None:
        """Commit `batch`; every future is done afterwards, whatever happens."""
        try:
            began = time.perf_counter()
            if self._gate is None:
                self._gate = Gate(self._env.path)
            self._gate.acquire(self._env.options.lock_timeout_s)
            self.figures.wait_seconds += time.perf_counter() - began
            try:
                self._commit_and_grow(batch)
            finally:
                self._gate.release()
        except lmdb.Error as error:
            self._fail_all(batch, translate(error, self._env.path))
        except OSError as error:
            self._fail_all(batch, CommitFailedError(f"{self._env.path!r}: {error}"))
        except LgkvError as error:
            self._fail_all(batch, error)
        except BaseException as error:
            self._fail_all(batch, error)
            raise

    @staticmethod
    def _fail_all(batch: list[_Pending], error: BaseException) -> None:
        for pending in batch:
            pending.fail(error)

    def _commit_and_grow(self, batch: list[_Pending]) -> None:
        wanted = [pending for pending in batch if pending.start()]
        while wanted:
            self._env.enter()
            try:
                self._commit_once(wanted)
            except lmdb.MapFullError:
                full = True
            else:
                full = False
            finally:
                self._env.leave()
            if not full:
                return
            self._env.grow()
            logger.info("the map of %s was full and has grown", self._env.path)

    def _commit_once(self, wanted: list[_Pending]) -> None:
        txn, databases = self._env.begin_write()
        done: list[tuple[_Pending, Any]] = []
        failed: list[tuple[_Pending, BaseException]] = []
        try:
            batch = Batch(self._env.path, txn, databases, self._env.leave)
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
                    failed.append((pending, error))
            if done:
                batch.state.commit += 1
                batch.put(Table.MAIN, STATE_KEY, batch.state.pack())
        except BaseException:
            txn.abort()
            raise
        if done:
            self._flush(txn)
        else:
            txn.abort()
        self.figures.changes += len(done)
        self.figures.failed_changes += len(failed)
        for pending, result in done:
            if pending.change.committed is not None:
                pending.change.committed(result)
            pending.future.set_result(result)
        for pending, reason in failed:
            pending.future.set_exception(
                translate(reason, self._env.path) if isinstance(reason, lmdb.Error) else reason
            )

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
