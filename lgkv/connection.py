"""One opened handle on a file, and the registry of the files open in this process.

LMDB allows a file to be open once a process, so handles on one file share an environment
and a writer, counted, whatever path they came by. The registry is of this process: a fork
takes it along, at rest, and opens the files anew.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Final, Protocol, TypeVar, cast

from lgkv.codec.shelf import Shelf
from lgkv.datafile import FileId, file_id
from lgkv.env import Environment, Options, Snapshot
from lgkv.errors import ClosedError, InvalidInputError, LgkvError
from lgkv.locks import Mutex, acquire_if_free
from lgkv.opening import prepare
from lgkv.writer import Change, Mailbox, Pending, Writer

__all__ = ["Companion", "Connection", "connect"]

T = TypeVar("T")

MODES: Final = ("c", "w", "r")
DURABILITIES: Final = ("full", "interval")


class _AsCommitted(threading.local):
    """How many times a thread has said that what is committed will do."""

    depth = 0


class Companion(Protocol):
    """What a layer above keeps for an open file, one for all handles of the process."""

    def close(self) -> None:
        """Come to an end before the file is closed; may wait, and may be called again."""
        ...

    def close_if_idle(self) -> bool:
        """Come to an end if that needs no waiting; return whether it did."""
        ...

    def before_fork(self) -> None:
        """Come to rest."""
        ...

    def after_fork_in_parent(self) -> None:
        """Go on."""
        ...

    def after_fork_in_child(self) -> None:
        """Let go of what is the parent's."""
        ...


C = TypeVar("C", bound=Companion)


class _Shared:
    """An environment, its writer, and how many handles hold them."""

    def __init__(self, path: str, identity: FileId, options: Options) -> None:
        self.env = Environment(path, identity, options)
        self.writer = Writer(self.env)
        self.shelf = Shelf(options.cache_bytes)
        self.as_committed = _AsCommitted()
        self.handles = 0
        self.companions: dict[type, Companion] = {}

    def close(self) -> None:
        for companion in list(self.companions.values()):
            companion.close()
        try:
            self.writer.close()
        finally:
            self.env.close()

    def close_if_idle(self) -> bool:
        return (
            all(companion.close_if_idle() for companion in list(self.companions.values()))
            and self.writer.close_if_idle()
            and self.env.close_if_idle()
        )


class _Registry:
    """The files open in this process, by identity."""

    def __init__(self) -> None:
        self.lock = Mutex()
        self.open: dict[FileId, _Shared] = {}
        self._dropped: deque[_Shared] = deque()

    def acquire(self, path: str, mode: str, options: Options) -> _Shared:
        with self.lock:
            self._release_dropped()
            identity = prepare(path, mode)
            shared = self.open.get(identity)
            if shared is None:
                shared = self.open[identity] = _Shared(path, identity, options)
            elif shared.env.options != options:
                raise InvalidInputError(
                    f"{path!r} is already open in this process with {shared.env.options}: "
                    f"open it with the same options, or close the other handle first "
                    f"(asked for {options})"
                )
            shared.handles += 1
            return shared

    def release(self, shared: _Shared) -> None:
        """Give a handle's share back; the last one waits for what is queued."""
        with self.lock:
            self._dropped.append(shared)
            self._release_dropped()

    def drop(self, shared: _Shared) -> None:
        """Give back the share of a handle that was collected, without waiting for anything.

        A collection may run in any thread at any point, in the writer thread too, and under
        any lock: what cannot be closed at once is closed by the next call that opens or
        closes a file, or at the interpreter's exit.
        """
        self._dropped.append(shared)
        if acquire_if_free(self.lock):
            try:
                self._release_dropped(wait=False)
            finally:
                self.lock.release()

    def _release_dropped(self, *, wait: bool = True) -> None:
        for _ in range(len(self._dropped)):
            shared = self._dropped.popleft()
            released = False
            try:
                released = shared.handles > 1 or self._close(shared, wait=wait)
            finally:  # interrupted, it is tried again
                if released:
                    shared.handles -= 1
                else:
                    self._dropped.append(shared)

    def _close(self, shared: _Shared, *, wait: bool) -> bool:
        if wait and not shared.writer.is_own_thread():
            shared.close()
        elif not shared.close_if_idle():
            return False
        if self.open.get(shared.env.identity) is shared:
            del self.open[shared.env.identity]
        return True

    def close_all(self) -> None:
        with self.lock:
            remaining = list(self.open.values())
            self.open.clear()
        for shared in remaining:
            shared.close()

    # --- fork: come to rest, and let the child begin with clean locks ---

    def before_fork(self) -> None:
        self.lock.acquire()
        for shared in self.open.values():
            for companion in shared.companions.values():
                companion.before_fork()
            if shared.writer.unflushed:
                with contextlib.suppress(LgkvError):  # the next call is told
                    shared.writer.flush()
            shared.env.before_fork()

    def after_fork_in_parent(self) -> None:
        for shared in self.open.values():
            shared.env.after_fork_in_parent()
            for companion in shared.companions.values():
                companion.after_fork_in_parent()
        self.lock.release()

    def after_fork_in_child(self) -> None:
        self.lock = Mutex()
        for shared in self.open.values():
            shared.env.after_fork_in_child()
            shared.writer.after_fork_in_child()
            shared.shelf.after_fork_in_child()
            for companion in shared.companions.values():
                companion.after_fork_in_child()


_registry: Final = _Registry()
atexit.register(_registry.close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_registry.before_fork,
        after_in_parent=_registry.after_fork_in_parent,
        after_in_child=_registry.after_fork_in_child,
    )


class Connection:
    """One handle on a file: snapshots and changes until it is closed.

    Used from any thread. A handle that is dropped without `close` releases its share when
    it is collected, or at the interpreter's exit.
    """

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._finalizer = weakref.finalize(self, _registry.drop, shared)
        self._finalizer.atexit = False  # the registry closes what is left, in one go
        self._closed = False

    @property
    def env(self) -> Environment:
        """The environment; ClosedError once this handle is closed."""
        self._check()
        return self._shared.env

    @property
    def writer(self) -> Writer:
        """The writer; ClosedError once this handle is closed."""
        self._check()
        return self._shared.writer

    @property
    def path(self) -> str:
        """The file's absolute path."""
        return self._shared.env.path

    @property
    def options(self) -> Options:
        """What the file was opened with."""
        return self._shared.env.options

    @property
    def shelf(self) -> Shelf:
        """What memory holds of stored elements."""
        return self._shared.shelf

    def companion(self, kind: type[C], make: Callable[[Environment, Writer], C]) -> C:
        """Return the process's one object of `kind` for this file, made if there is none yet."""
        self._check()
        found = self._shared.companions.get(kind)
        if found is None:
            found = self._shared.companions.setdefault(
                kind, make(self._shared.env, self._shared.writer)
            )
        return cast("C", found)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def snapshot(self) -> Snapshot:
        """Return a consistent view of the newest commit, to be used in a `with` statement."""
        if self._closed:
            self._check()
        shared = self._shared
        if shared.writer.lazy and not shared.as_committed.depth:
            view = shared.writer.settle()
            if view is not None:
                return view
        snapshot = shared.env.snapshot()
        snapshot.owner = self  # else a handle that is used once only would close under it
        return snapshot

    @contextlib.contextmanager
    def as_committed(self) -> Iterator[None]:
        """Let the snapshots of this thread wait for nothing: what is not flushed is not seen."""
        local = self._shared.as_committed
        local.depth += 1
        try:
            yield
        finally:
            local.depth -= 1

    @property
    def is_lazy(self) -> bool:
        """Whether a write is acknowledged before it is durable."""
        return self._shared.writer.lazy

    def commit(self, change: Change[T]) -> T:
        """Write `change` and return its result once it is durable, or within the interval."""
        if self._closed:
            self._check()
        return self._shared.writer.commit(change)

    def post(self, change: Change[Any] | None, mailbox: Mailbox, waiter: object) -> Pending:
        """Queue `change`, or a flush; its end is told to `mailbox`, as `commit` would tell it."""
        if self._closed:
            self._check()
        return self._shared.writer.post(change, mailbox, waiter)

    def flush(self) -> None:
        """Return once everything that was written before is durable."""
        self._check()
        if not self.options.read_only:
            self._shared.writer.flush()

    @property
    def unflushed(self) -> bool:
        """Whether something was acknowledged that is not durable."""
        return self._shared.writer.unflushed

    def submit(self, change: Change[T]) -> Future[T]:
        """Queue `change`; the future is done once it is durable, or has failed."""
        self._check()
        return self._shared.writer.submit(change)

    @staticmethod
    def is_open_here(path: str) -> bool:
        """Whether this process has the file at `path` open."""
        identity = file_id(path)
        return identity is not None and identity in _registry.open

    def close(self) -> None:
        """Release this handle, all of it durable; the last one closes the file.

        Raises:
            CommitFailedError: What was acknowledged is lost, and no call has said so yet.
            InvalidInputError: It is called from within a change.
        """
        self._shared.writer.check_outside()
        self._closed = True
        if self._finalizer.detach() is None:
            return
        writer, env = self._shared.writer, self._shared.env
        try:
            if writer.unflushed and not writer.is_own_thread():
                with contextlib.suppress(LgkvError):  # it is told below
                    writer.flush()
        finally:
            _registry.release(self._shared)
        env.check_told()

    def _check(self) -> None:
        if self._closed:
            raise ClosedError(f"{self._shared.env.path!r} was closed: open it again")


def connect(path: str | os.PathLike[str], mode: str, options: Options) -> Connection:
    """Open the file at `path`, or share it if this process has it open."""
    if mode not in MODES:
        raise InvalidInputError(
            f"unknown mode {mode!r}: use 'c' (create), 'w' (must exist) or 'r' (read)"
        )
    if options.durability not in DURABILITIES:
        raise InvalidInputError(
            f"unknown durability {options.durability!r}: use 'full' or 'interval'"
        )
    if not isinstance(options.lock_timeout_s, (int, float)) or not options.lock_timeout_s >= 0:
        raise InvalidInputError(
            f"lock_timeout_s is {options.lock_timeout_s!r}: give seconds, 0 or more"
        )
    if not isinstance(options.interval_ms, (int, float)) or not options.interval_ms > 0:
        raise InvalidInputError(
            f"interval_ms is {options.interval_ms!r}: give milliseconds, 1 or more"
        )
    if isinstance(options.cache_bytes, bool) or not isinstance(options.cache_bytes, int):
        raise InvalidInputError(f"cache_bytes is {options.cache_bytes!r}: give a number of bytes")
    if options.cache_bytes < 0:
        raise InvalidInputError(f"cache_bytes is {options.cache_bytes!r}: give 0 or more bytes")
    if not isinstance(options.compression, bool):
        raise InvalidInputError(f"compression is {options.compression!r}: give True or False")
    size = options.map_size_bytes
    if size is not None and not (isinstance(size, int) and 1 << 20 <= size < 1 << 63):
        raise InvalidInputError(
            f"map_size_bytes is {size!r}: give a whole number of bytes, at least 1048576"
        )
    return Connection(_registry.acquire(os.path.abspath(os.fsdecode(path)), mode, options))
