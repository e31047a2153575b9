"""The LMDB environment of one file in this process: its snapshots and its growth.

An `Environment` is shared by every handle of the process on the file. Its snapshots are
read transactions; they are short, and no user code runs inside one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final, TypeVar

import lmdb

from lgkv.datafile import FileId, Options, file_id
from lgkv.errors import ClosedError, CommitFailedError, LgkvError, MapFullError, StorageError
from lgkv.gate import Gate
from lgkv.layout import META_KEY, Table
from lgkv.meta import check_meta
from lgkv.opening import ATTEMPTS, LARGE_MAP_BYTES, open_lmdb, restless, translate
from lgkv.snapshot import OwnSnapshot, Sharing, Snapshot, State

__all__ = ["Environment", "Options", "Snapshot", "State"]

T = TypeVar("T")

RESERVE_BYTES: Final = 1 << 20
"""What a full map gets to write what was acknowledged."""
BUFFERS: Final = True
"""What is read is a view of the map: py-lmdb's parameter, by position, which is quicker."""


@contextlib.contextmanager
def _at_gate(path: str, options: Options) -> Iterator[None]:
    """Wait until nobody writes: opening tables takes LMDB's write lock, which has no limit."""
    if options.read_only:
        yield
        return
    gate = Gate(path)
    try:
        gate.acquire(options.lock_timeout_s)
        yield
    finally:
        gate.close()


class Environment:
    """One file, open in this process."""

    def __init__(self, path: str, identity: FileId, options: Options) -> None:
        self.path, self.identity, self.options = path, identity, options
        self.map_growths = 0
        self.map_epoch = 0
        """Raised whenever the map may lie elsewhere: addresses in it hold as long as this."""
        self.stale_readers = 0
        self._failure: BaseException | None = None
        self._failure_told = True
        self._closed = False
        self.sharing = Sharing()
        with _at_gate(path, options):
            self._lmdb, self._databases = open_lmdb(path, options)
        try:
            self.stale_readers += self._clear_stale_readers()
            with self.snapshot() as snapshot:
                self.file_id = check_meta(snapshot.get(Table.MAIN, META_KEY), path)
        except BaseException as error:
            self._lmdb.close()
            if isinstance(error, lmdb.Error):
                raise translate(error, path) from error
            raise

    # --- transactions ---

    def tell(self, error: BaseException) -> None:
        """Raise lgkv's error for one of LMDB's; of others nothing is to be told."""
        if isinstance(error, lmdb.Error):
            raise translate(error, self.path) from error

    def snapshot(self) -> Snapshot:
        """Return a consistent view of the newest commit, to be used in a `with` statement."""
        snapshot, sharing = OwnSnapshot(), self.sharing
        try:
            sharing.enter(snapshot)
            txn = self._begin(snapshot, write=False)
            snapshot.begin(sharing, self.tell, txn, self._databases)
        except lmdb.Error as error:
            sharing.leave(snapshot)
            raise translate(error, self.path) from error
        except BaseException:
            sharing.leave(snapshot)
            raise
        return snapshot

    def begin_write(self, user: object) -> tuple[Any, tuple[Any, ...]]:
        """Return a write transaction and the tables by number; `user` has entered, at the gate."""
        return self._begin(user, write=True), self._databases

    def _begin(self, user: object, *, write: bool) -> Any:
        self.check()
        try:
            return self._lmdb.begin(None, None, write, BUFFERS)
        except (lmdb.MapResizedError, lmdb.ReadersFullError):
            pass  # as it seldom is: so it is begun again
        return self._begin_again(user, write=write)

    def _begin_again(self, user: object, *, write: bool) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                return self._lmdb.begin(None, None, write, BUFFERS)
            except lmdb.MapResizedError:  # another process has written beyond this map
                self.sharing.leave(user)
                self._follow()
                self.sharing.enter(user)
                self.check()
            except lmdb.ReadersFullError:
                if attempt or not self._clear_stale_readers():
                    raise
        raise restless(self.path)

    def check_open(self) -> None:
        """Raise unless the file is open and sound."""
        if self._closed:
            raise ClosedError(f"{self.path!r} was closed: open it again")
        if self._failure is not None:
            self._failure_told = True
            raise CommitFailedError(
                f"{self.path!r} has failed earlier ({self._failure}): close it and open it again"
            ) from self._failure

    def check(self) -> None:
        """Raise unless the file is open, sound, and still the one at its path."""
        if self._closed or self._failure is not None:
            self.check_open()
        try:
            found = os.lstat(self.path)
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self.identity:
            raise StorageError(
                f"the file at {self.path!r} was replaced or removed while it was open: "
                "close it, and open it again"
            )

    # --- growth ---

    def grow(self, *, beyond: bool = False) -> None:
        """Double the map after MapFullError; the caller has left its transaction.

        With `beyond` a map that may not grow gets a little more, until `shrink`.

        Raises:
            MapFullError: `map_size_bytes` was given and is reached, or the address space ends.
        """
        self.sharing.become_alone()
        try:
            size = int(self._lmdb.info()["map_size"])
            limited = self.options.map_size_bytes is not None or size >= LARGE_MAP_BYTES
            if limited and not beyond:
                raise MapFullError(
                    f"{self.path!r} is full at {size:,} bytes: open it with a larger map_size_bytes"
                )
            self._resize(size, size + RESERVE_BYTES if limited else size * 2)
            self.map_growths += 1
        finally:
            self.sharing.end_alone()

    def shrink(self) -> None:
        """Make the map as large as it may be again; what is in it stays."""
        size = self.options.map_size_bytes
        if size is not None:
            self.sharing.become_alone()
            try:
                self._resize(size, size)  # LMDB takes no less than what is used
            finally:
                self.sharing.end_alone()

    def _follow(self) -> None:
        """Map what another process has written beyond this map, and room to write.

        Only what the file needs, not what the other could map; and no room where
        `map_size_bytes` is exceeded already.
        """
        self.sharing.become_alone()
        try:
            info = self._lmdb.info()
            size = int(info["map_size"])
            needed = (int(info["last_pgno"]) + 1) * int(self._lmdb.stat()["psize"])
            wanted = needed if self.options.map_size_bytes is not None else size
            while wanted < needed:
                wanted *= 2
            if wanted > size:
                self._resize(size, wanted)
        finally:
            self.sharing.end_alone()

    def _resize(self, size: int, wanted: int) -> None:
        self.map_epoch += 1
        try:
            self._lmdb.set_mapsize(wanted)
        except lmdb.Error as error:
            # LMDB has unmapped the file by now: go on with the map as it was.
            self._reopen(replace(self.options, map_size_bytes=size))
            raise MapFullError(
                f"{self.path!r} cannot be mapped at {wanted:,} bytes ({error}): "
                "allow the process more address space"
            ) from error

    def _reopen(self, options: Options) -> None:
        self.map_epoch += 1
        self._lmdb.close()
        try:
            self._lmdb, self._databases = open_lmdb(self.path, options)
        except LgkvError as error:
            self.fail(error)
            raise

    # --- life ---

    def fail(self, error: BaseException, *, told: bool = True) -> None:
        """Refuse every further use: what the disk holds is no longer known.

        `told` is whether a caller hears of it; if not, the next one does, or who closes it.
        """
        self._failure, self._failure_told = error, told

    def check_told(self) -> None:
        """Raise if it has failed and nobody was told."""
        if not self._failure_told:
            self._failure_told = True
            raise CommitFailedError(
                f"what was written to {self.path!r} last is lost: {self._failure}"
            ) from self._failure

    def close(self) -> None:
        """Close once no transaction is open."""
        if self._closed:
            return
        self.sharing.become_alone()
        try:
            self._closed = True
            self._lmdb.close()
        finally:
            self.sharing.end_alone()

    def close_if_idle(self) -> bool:
        """Close if that needs no waiting; return whether it did."""
        if not self.sharing.become_alone_if_idle():
            return False
        try:
            self._closed = True
            self._lmdb.close()
        finally:
            self.sharing.end_alone()
        return True

    def before_fork(self) -> None:
        """Come to rest, so that the child inherits no open transaction."""
        self.sharing.become_alone()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self.sharing.end_alone()

    def after_fork_in_child(self) -> None:
        """Drop what belongs to the parent; the map is opened anew."""
        self.sharing = Sharing()
        if self._closed:
            return
        if file_id(self.path) != self.identity:
            self._lmdb.close()  # what lies at the path now was not looked at: every use says so
            return
        with contextlib.suppress(LgkvError):  # a fork handler cannot raise: the next use does
            self._reopen(self.options)

    # --- the rest ---

    def _clear_stale_readers(self) -> int:
        return 0 if self.options.read_only else int(self._lmdb.reader_check())

    def info(self) -> dict[str, int]:
        """Return LMDB's figures: page size, pages, map size, readers, transaction."""
        return self._use(lambda: {**self._lmdb.stat(), **self._lmdb.info()})

    def copy_to(self, descriptor: int) -> None:
        """Write a compact copy of the newest commit; others go on writing."""
        self._use(lambda: self._lmdb.copyfd(descriptor, compact=True))

    def _use(self, call: Callable[[], T]) -> T:
        try:
            self.sharing.enter(call)
            self.check()
            return call()
        except lmdb.Error as error:
            raise translate(error, self.path) from error
        finally:
            self.sharing.leave(call)
