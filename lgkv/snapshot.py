"""Reading the file as of one commit, and LMDB's errors as lgkv's."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import lmdb

from lgkv.errors import (
    CorruptionError,
    FormatVersionError,
    InvalidInputError,
    LgkvError,
    MapFullError,
    ReadOnlyError,
    StorageError,
)
from lgkv.keys import next_prefix
from lgkv.layout import STATE_KEY, Table, open_record

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Snapshot", "State", "translate"]

_STATE: Final = struct.Struct("<7Q")


@dataclass(slots=True)
class State:
    """The counters of the file; every commit stores them. Numbers are never used again."""

    commit: int = 0
    names_epoch: int = 0
    threads: int = 0
    nodes: int = 0
    caches: int = 0
    stamps: int = 0
    sequence: int = 0

    def pack(self) -> bytes:
        """Return the state as a record's body."""
        return _STATE.pack(
            self.commit,
            self.names_epoch,
            self.threads,
            self.nodes,
            self.caches,
            self.stamps,
            self.sequence,
        )

    @classmethod
    def unpack(cls, body: bytes) -> State:
        """Return the state that `pack` made `body` from."""
        if len(body) != _STATE.size:
            raise CorruptionError("main", STATE_KEY, "the counters do not have their size")
        return cls(*_STATE.unpack(body))


def translate(error: lmdb.Error, path: str) -> LgkvError:
    """Return lgkv's error for LMDB's: the one place where the two meet."""
    if isinstance(error, lmdb.MapFullError):
        return MapFullError(
            f"{path!r} is full: open it with a larger map_size_bytes, or free disk space"
        )
    if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError)):
        return CorruptionError(path, None, str(error))
    if isinstance(error, lmdb.InvalidError):
        return InvalidInputError(f"{path!r} is not an lgkv file: {error}")
    if isinstance(error, lmdb.VersionMismatchError):
        return FormatVersionError(
            f"another LMDB format ({error})", "LMDB 0.9", "export it with what wrote it"
        )
    if isinstance(error, (lmdb.ReadonlyError, lmdb.LockError)):
        return ReadOnlyError(f"{path!r} cannot be locked or written: {error}")
    return StorageError(f"{path!r}: {error}")


class Snapshot:
    """The file as of one commit. Every record is checked as it is read."""

    __slots__ = ("_databases", "_leave", "_path", "_txn")

    def __init__(
        self, path: str, txn: Any, databases: dict[Table, Any], leave: Callable[[], None]
    ) -> None:
        self._path, self._txn, self._databases, self._leave = path, txn, databases, leave

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._txn.abort()
        self._leave()
        if isinstance(error, lmdb.Error):
            raise translate(error, self._path) from error

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Return the body under `key`, or None."""
        record = self._txn.get(key, None, self._databases[table])
        return None if record is None else open_record(table, key, record)

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
        for key, record in self._walk(table, prefix, start, stop, reverse=reverse):
            yield key, open_record(table, key, record)

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
            yield key, cursor.value()
            found = step()

    def entries(self, table: Table) -> int:
        """Return the number of records of `table`."""
        return int(self._txn.stat(self._databases[table])["entries"])

    def used_pages(self) -> int:
        """Return the number of pages that the tables take, the two meta pages included."""
        pages = 2
        for database in self._databases.values():
            stat = self._txn.stat(database)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return int(pages)

    def read_state(self) -> State:
        """Return the file's counters as of this snapshot."""
        body = self.get(Table.MAIN, STATE_KEY)
        if body is None:
            raise CorruptionError("main", STATE_KEY, "the counters are missing")
        return State.unpack(body)
