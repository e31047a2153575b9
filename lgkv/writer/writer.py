"""Who commits when: the caller, or the environment's one writer thread for all that wait.

A caller who finds nobody at work commits on its own thread, without a hop. Otherwise changes
queue, and the writer thread takes what has gathered while the last flush was under way.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from threading import get_ident
from typing import Any, Final, TypeVar

from lgkv.env import Environment, Snapshot
from lgkv.errors import (
    ClosedError,
    InvalidInputError,
    ReadOnlyError,
    StorageError,
    WriteLockTimeoutError,
)
from lgkv.locks import Mutex, acquire_if_free
from lgkv.writer import commit
from lgkv.writer.changes import Change, Mailbox, Pending, end_all
from lgkv.writer.commit import Committer, WriterFigures
from lgkv.writer.crowds import Crowd
from lgkv.writer.interval import IntervalCommitter

__all__ = ["Writer"]

T = TypeVar("T")

QUEUE_CHANGES: Final = 16 * commit.BATCH_CHANGES
"""As many changes may wait; who brings more waits too."""


class Writer:
    """Commits the changes of one environment in this process."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self.lazy = env.options.durability == "interval"
        """Whether a write is acknowledged before it is durable."""
        self._read_only = env.options.read_only
        self._commits = IntervalCommitter(env) if self.lazy else Committer(env)
        self._reset()

    def _reset(self) -> None:
        self._turn = Mutex()
        self._lock = Mutex()  # by `with` only, as `_turn`
        self._arrived = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._queue: deque[Pending] = deque()
        self._thread: threading.Thread | None = None
        self._own_ident: int | None = None
        """The writer thread's, once it runs."""
        self._idle = False
        """Whether the writer thread waits for a change."""
        self._closed = False
        self._crowd = Crowd(self._commits)

    @property
    def figures(self) -> WriterFigures:
        """What was done since the file was opened in this process."""
        return self._commits.figures

    @property
    def unflushed(self) -> bool:
        """Whether something was acknowledged that is not durable."""
        return self._commits.unflushed

    # --- for callers ---

    def commit(self, change: Change[T]) -> T:
        """Write `change` and return its result once it is durable, or within the interval.

        Raises:
            WriteLockTimeoutError: Others wrote for longer than `lock_timeout_s`.
        """
        if self._read_only:
            self._check()
        pending = Pending(change)
        if not (self._may_commit_here() and self._commit_here(pending)):
            self._queue_and_wait(pending)
        result: T = pending.outcome()
        return result

    def submit(self, change: Change[T]) -> Future[T]:
        """Queue `change`; the future is done once it is durable, or has failed."""
        self._check()
        future: Future[T] = Future()
        self._enqueue(Pending(change, future))
        return future

    def post(self, change: Change[Any] | None, mailbox: Mailbox, waiter: object) -> Pending:
        """Queue `change`, or a flush; its end is told as that of `commit`, to `mailbox`.

        `waiter` is in the pending change that the mailbox gets.
        """
        self._check()
        pending = Pending(change, mailbox=mailbox, waiter=waiter)
        self._enqueue(pending)
        return pending

    def flush(self) -> None:
        """Return once everything that was acknowledged, or queued, before is durable."""
        if not self._env.options.read_only:
            self._check()  # what was acknowledged may be lost already
        if self._queue or self._turn.locked() or self.unflushed:
            flush = Pending(None)
            if not (self._may_commit_here() and self._commit_here(flush)):
                self._queue_and_wait(flush)
            flush.outcome()

    def settle(self) -> Snapshot | None:
        """Let a snapshot see what was acknowledged; return the one that a change is to use."""
        if self._commits.applying is not None and self._commits.is_applying():
            return self._commits.applying.view()
        if self.unflushed:
            self.flush()
        return None

    def _queue_and_wait(self, pending: Pending) -> None:
        self._check()
        self._enqueue(pending)
        self._wait(pending)

    def _may_commit_here(self) -> bool:
        self.check_outside()
        if self._own_ident == get_ident():  # it cannot wait for itself
            return True
        if self._queue or self._turn.locked():
            return False
        return self._crowd.size <= 1 or not self._crowded

    def _commit_here(self, pending: Pending) -> bool:
        with self._turn:  # `with`, unlike a call of `acquire`, cannot be interrupted half-way
            if self._closed:
                self._check_open()
            if self._commits.held and not self.is_own_thread():
                return False  # some wait for the writer thread
            if self.lazy and self._own_ident != get_ident():
                return self._commits.serve_here(pending)
            self._commits.serve([pending])
            return True

    @property
    def _crowded(self) -> bool:
        """Whether those who write go together."""
        return not self.lazy and self._crowd.is_together

    def _enqueue(self, pending: Pending) -> None:
        pending.queue()
        with self._lock:
            if len(self._queue) >= QUEUE_CHANGES and not self.is_own_thread():
                self._wait_for_room()
            if self._closed:
                self._check_open()
            if self._thread is None:
                self._start_thread()
            self._queue.append(pending)
            if self._idle:  # all, for one who was told by an interrupted call is still listed
                self._arrived.notify_all()

    def _wait_for_room(self) -> None:
        end = time.monotonic() + self._limit_s
        while len(self._queue) >= QUEUE_CHANGES and not self._closed:
            if not self._room.wait(end - time.monotonic()):
                raise self._late()

    def _start_thread(self) -> None:
        """Start the writer thread, which waits for `_lock` to see whether it is the one.

        Of a start that is interrupted nobody knows whether there is a thread: it is none of ours.
        """
        self._thread = thread = threading.Thread(target=self._run, name="lgkv-writer", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is ending
            self._thread = None
            if isinstance(error.__context__, KeyboardInterrupt):  # it was an interrupted Condition
                raise error.__context__ from None
            raise StorageError(f"{self._env.path!r}: the writer thread: {error}") from error
        except BaseException:
            self._thread = None
            raise

    def _wait(self, pending: Pending) -> None:
        try:
            if pending.wait(self._limit_s):
                return
        except BaseException:
            pending.give_up()
            raise
        if not pending.give_up():
            pending.wait()  # it is being committed: it ends with the commit
            return
        raise self._late()

    @property
    def _limit_s(self) -> float:
        return min(self._env.options.lock_timeout_s, threading.TIMEOUT_MAX)

    def _late(self) -> WriteLockTimeoutError:
        return WriteLockTimeoutError(
            f"the write lock of {self._env.path!r} was not free within "
            f"{self._env.options.lock_timeout_s:g} s: open with a larger lock_timeout_s"
        )

    def _check(self) -> None:
        """Raise unless the file may be written; whether it is at its path, `begin` looks at."""
        if self._env.options.read_only:
            raise ReadOnlyError(
                f"{self._env.path!r} is open with mode='r': open it with mode='w' to write"
            )
        self._env.check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self._env.path!r} was closed: open it again")

    # --- the writer thread ---

    def _run(self) -> None:
        with self._lock:
            if self._thread is not threading.current_thread():
                return
            self._own_ident = get_ident()
        held = self._commits.held
        while self._await_work():
            if self._crowded and not held:
                self._crowd.gather(self._queue, self._crowd.size)
            with self._turn:
                held_before = len(held)
                batch = self._take(held_before)
                left = self._commits.serve(batch)
                if left:
                    self._put_back(left)
                    del batch[-len(left) :], left
                elif not batch:
                    self._commits.finish()
                self._hold(batch, held_before)
            end_all(batch)
        self._own_ident = None  # another thread may get it

    def _hold(self, batch: list[Pending], held_before: int) -> None:
        """Keep a half from being told before the other one is flushed, if there is another.

        With a future among them nobody is kept: its callbacks may wait for the others.
        """
        self._commits.tell()  # if nothing was flushed
        if held_before:
            self._crowd.gather(self._queue, held_before)
        if (
            self._queue
            and not self.lazy
            and self._crowd.goes_in_halves(self._crowd.size)
            and all(pending.future is None for pending in batch)
        ):
            self._commits.held += batch
            batch.clear()

    def _await_work(self) -> bool:
        """Wait for a change, or for the time to flush; False once it is closed and all is done."""
        with self._lock:
            while not self._queue:
                due_in = self._commits.due_in()
                if due_in is not None and (due_in <= 0 or self._closed):
                    return True
                if self._closed:
                    return False
                self._idle = True
                self._arrived.wait(None if due_in is None else min(due_in, threading.TIMEOUT_MAX))
                self._idle = False
        return True

    def _take(self, held: int) -> list[Pending]:
        with self._lock:
            waiting = len(self._queue)
            come_back = waiting > 0 and self._queue[0].future is None and not self.lazy
            count = self._crowd.count_in(waiting, held, come_back=come_back)
            self._room.notify_all()
            return [self._queue.popleft() for _ in range(count)]

    def _put_back(self, left: list[Pending]) -> None:
        with self._lock:
            self._queue.extendleft(reversed(left))

    def close(self) -> None:
        """Commit what is queued and stop."""
        with self._lock:
            self._closed = True
            self._arrived.notify_all()
            self._room.notify_all()
        if self._thread is not None:
            self._thread.join()
        with self._turn:
            self._commits.close()

    def check_outside(self) -> None:
        """Raise InvalidInputError if a change is being applied by this thread."""
        if self._commits.applier == get_ident():
            raise InvalidInputError(
                "a change cannot wait for another one: write, and close, outside of it"
            )

    def is_own_thread(self) -> bool:
        """Whether the caller is the writer thread, which cannot wait for itself."""
        return self._own_ident == get_ident()

    def close_if_idle(self) -> bool:
        """Stop if that needs no waiting; return whether it did."""
        if not acquire_if_free(self._lock):
            return False
        try:
            if self._queue or not acquire_if_free(self._turn):
                return False
            try:
                if self._commits.due_in() is not None:
                    return False
                self._closed = True
                self._arrived.notify_all()
                self._commits.close()
            finally:
                self._turn.release()
        finally:
            self._lock.release()
        return True

    # --- fork ---

    def after_fork_in_child(self) -> None:
        """Drop the parent's queue, thread and descriptor: what they held is the parent's."""
        self._reset()
        self._commits.after_fork_in_child()
