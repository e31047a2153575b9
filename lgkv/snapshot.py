"""Reading the file as of one commit."""

from __future__ import annotations

import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from lgkv.errors import CorruptionError
from lgkv.keys import next_prefix
from lgkv.layout import MAIN, STATE_KEY, Table, open_record
from lgkv.locks import Mutex, acquire_if_free

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["OwnSnapshot", "Sharing", "Snapshot", "State"]

_STATE: Final = struct.Struct("<7Q")

MARK_BYTES: Final = 8
"""A record ends in its checksum, over all of it."""


@dataclass(slots=True)
class State:
    """The counters of the file; every commit stores them. Numbers are never used again."""

    commit: int = 0
    names_epoch: int = 0
    threads: int = 0
    nodes: int = 0
    caches: int = 0
    chains: int = 0
    sequence: int = 0

    @property
    def counters(self) -> tuple[int, ...]:
        """All of them, in the order of the fields."""
        return (
            self.commit,
            self.names_epoch,
            self.threads,
            self.nodes,
            self.caches,
            self.chains,
            self.sequence,
        )

    def pack(self) -> bytes:
        """Return the state as a record's body."""
        return _STATE.pack(*self.counters)

    @classmethod
    def unpack(cls, body: bytes) -> State:
        """Return the state that `pack` made `body` from."""
        if len(body) != _STATE.size:
            raise CorruptionError("main", STATE_KEY, "the counters do not have their size")
        counters = _STATE.unpack(body)
        if max(counters) >> 63:  # so many were never counted, and there must be numbers to give
            raise CorruptionError("main", STATE_KEY, "a counter is too large")
        return cls(*counters)


class Sharing:
    """Who uses the map: many at a time, or one alone, who may replace it.

    A use is known by an object that lives as long as it. A KeyboardInterrupt can come between
    any two lines, and must not leave a use behind that others wait for: so leaving is one
    step, may be repeated, and a thread never waits for itself. An object that an interruption
    kept from leaving ends its use by being collected: no code runs for that, which an
    interruption could come into again.

    Who enters says so before looking whether another is alone, and who becomes alone says so
    before looking who is inside: one of the two sees the other, and no lock is needed for that.
    """

    _FIRST_PAUSE_S: Final = 0.00005
    _LONGEST_PAUSE_S: Final = 0.002

    def __init__(self) -> None:
        self._lock = Mutex()  # by `with` only: no interruption comes between
        self._ended = threading.Condition(self._lock)
        self.users: dict[int, tuple[weakref.ref[Any], int]] = {}
        """Of each user its thread, by the user's id. Who has died uses nothing any more."""
        self._alone: int | None = None

    def enter(self, user: object, before_waiting: Callable[[], object] | None = None) -> None:
        """Begin a use; waits while another thread is alone, and calls `before_waiting` then."""
        me = get_ident()
        self.users[id(user)] = weakref.ref(user), me
        if self._alone is not None and self._alone != me:
            if before_waiting is not None:
                before_waiting()
            self._enter_after(user, me)

    def _enter_after(self, user: object, me: int) -> None:
        with self._lock:
            self.leave(user)
            while self._alone not in (None, me) and me not in self._threads():
                self._ended.wait()
            self.users[id(user)] = weakref.ref(user), me

    def leave(self, user: object) -> None:
        """End the use of `user`, if there is one."""
        self.users.pop(id(user), None)

    def _threads(self) -> set[int]:
        """Return the threads that use the map."""
        return {thread for user, thread in list(self.users.values()) if user() is not None}

    def become_alone(self) -> None:
        """Wait until no other thread uses the map, and let none begin."""
        me, pause = get_ident(), self._FIRST_PAUSE_S
        try:
            with self._lock:
                while self._alone not in (None, me):
                    self._ended.wait()
                self._alone = me
            while self._threads() - {me}:
                time.sleep(pause)  # a use is short, and its end is not told
                pause = min(pause * 2, self._LONGEST_PAUSE_S)
        except BaseException:
            self.end_alone()
            raise

    def become_alone_if_idle(self) -> bool:
        """Become alone if that needs no waiting; return whether it did."""
        if not acquire_if_free(self._lock):
            return False
        try:
            if self._alone is not None or self._threads():
                return False
            self._alone = get_ident()
            if self._threads():  # somebody has just entered, and may not have seen it
                self._alone = None
                self._ended.notify_all()
                return False
        finally:
            self._lock.release()
        return True

    def end_alone(self) -> None:
        """Let others begin again."""
        with self._lock:
            if self._alone == get_ident():
                self._alone = None
                self._ended.notify_all()


class Snapshot:
    """The file as of one commit. Every record is checked as it is read."""

    __slots__ = ("_databases", "_sharing", "_tell", "_txn", "owner")

    _sharing: Sharing | None
    """What it is a use of."""

    owner: object
    """Kept alive until the snapshot ends: the handle that it came from."""

    def begin(
        self,
        sharing: Sharing | None,
        tell: Callable[[BaseException], None],
        txn: Any,
        databases: tuple[Any, ...],
    ) -> None:
        """Read through `txn` from here on; `databases` are the tables, by number."""
        self._sharing, self._tell, self.owner = sharing, tell, None
        self._txn, self._databases = txn, databases

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._txn.abort()
        finally:
            if self._sharing is not None:
                self._sharing.users.pop(id(self), None)  # as `leave` does
            self.owner = None
        if error is not None:
            self._tell(error)

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Return the body under `key`, or None."""
        record = self._txn.get(key, None, self._databases[table])
        return None if record is None else open_record(table, key, record)

    def mapped(self, table: Table, key: bytes) -> memoryview | None:
        """Return the record under `key` where it is mapped, or None.

        It is not checked, and must not be touched once the snapshot has ended.
        """
        record: memoryview | None = self._txn.get(key, None, self._databases[table])
        return record

    def reader(self, table: Table) -> tuple[Callable[..., Any], Any]:
        """Return LMDB's own `get` and `table`, for an extension that reads, and checks."""
        return self._txn.get, self._databases[table]

    def size(self, table: Table, key: bytes) -> int:
        """Return the bytes of the record under `key`, 0 if there is none."""
        return len(self._txn.get(key, b"", self._databases[table]))

    def get_marked(self, table: Table, key: bytes) -> tuple[bytes, bytes] | None:
        """Return the body under `key` and the record's mark, or None."""
        record = self._txn.get(key, None, self._databases[table])
        if record is None:
            return None
        return open_record(table, key, record), bytes(record[-MARK_BYTES:])

    def mark(self, table: Table, key: bytes) -> bytes | None:
        """Return the mark of the record under `key`, which another body would not have."""
        record = self._txn.get(key, None, self._databases[table])
        return None if record is None else bytes(record[-MARK_BYTES:])

    def has(self, table: Table, prefix: bytes) -> bool:
        """Whether a key begins with `prefix`."""
        cursor = self._txn.cursor(self._databases[table])
        return bool(cursor.set_range(prefix)) and bytes(cursor.key()[: len(prefix)]) == prefix

    def at_or_before(self, table: Table, prefix: bytes, key: bytes) -> bytes | None:
        """Return `key` if it is there, else the greatest key below it with `prefix`, or None."""
        cursor = self._txn.cursor(self._databases[table])
        if cursor.set_range(key):
            if bytes(cursor.key()) == key:
                return key
            found = cursor.prev()
        else:
            found = cursor.last()
        below = bytes(cursor.key()) if found else b""
        return below if below.startswith(prefix) else None

    def last(self, table: Table, prefix: bytes) -> tuple[bytes, bytes, bytes] | None:
        """Return the last key with `prefix`, its body, and the key behind it, or None.

        Where no key is behind it, that is empty.
        """
        cursor = self._txn.cursor(self._databases[table])
        if cursor.set_range(next_prefix(prefix)):
            behind = bytes(cursor.key())
            found = cursor.prev()
        else:
            behind = b""
            found = cursor.last()
        if not found:
            return None
        mapped, record = cursor.item()
        key = bytes(mapped)
        return (key, open_record(table, key, record), behind) if key.startswith(prefix) else None

    def scan(
        self,
        table: Table,
        prefix: bytes,
        *,
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and bodies with `prefix`, from `start` on and before `stop`, in order."""
        for key, cursor in self._walk(table, prefix, start, stop, reverse=reverse):
            yield key, open_record(table, key, cursor.value())

    def keys(
        self,
        table: Table,
        prefix: bytes,
        *,
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
    ) -> Iterator[bytes]:
        """Yield the keys that `scan` would, without reading the records."""
        for key, _ in self._walk(table, prefix, start, stop, reverse=reverse):
            yield key

    def _walk(
        self, table: Table, prefix: bytes, start: bytes | None, stop: bytes | None, *, reverse: bool
    ) -> Iterator[tuple[bytes, Any]]:
        low = start or prefix
        high = stop or next_prefix(prefix)
        cursor = self._txn.cursor(self._databases[table])
        if reverse:
            found = cursor.prev() if cursor.set_range(high) else cursor.last()
        else:
            found = cursor.set_range(low)
        step = cursor.prev if reverse else cursor.next
        while found:
            key = bytes(cursor.key())
            if not low <= key < high:
                return
            yield key, cursor
            found = step()

    def entries(self, table: Table) -> int:
        """Return the number of records of `table`."""
        return int(self._txn.stat(self._databases[table])["entries"])

    def used_pages(self) -> int:
        """Return the number of pages that the tables take, the two meta pages included."""
        pages = 2
        for database in self._databases:
            stat = self._txn.stat(database)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return int(pages)

    def number(self) -> int:
        """Return the number of the transaction whose commit this shows; 0 while it is open.

        Two snapshots of one number are the same.
        """
        number: int = self._txn.id()
        return number

    def read_state(self) -> State:
        """Return the file's counters as of this snapshot."""
        body = self.get(MAIN, STATE_KEY)
        if body is None:
            raise CorruptionError("main", STATE_KEY, "the counters are missing")
        return State.unpack(body)


class OwnSnapshot(Snapshot):
    """A snapshot that is a use of the map itself."""

    __slots__ = ("__weakref__",)
