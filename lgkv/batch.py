"""A write transaction: what changes see and write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, Final

from lgkv.layout import MAIN, STATE_KEY, Table, open_record, seal, seal_record
from lgkv.snapshot import MARK_BYTES, Sharing, Snapshot, State

__all__ = ["Batch"]

# What py-lmdb's `put` takes, by position: given by name it costs half as much again.
_DUPDATA: Final = True
_OVERWRITE: Final = True
_NO_OVERWRITE: Final = False
_NO_APPEND: Final = False

LARGE_RECORD_BYTES: Final = 1000
"""A record of more than this may have pages of its own."""

FEW_RECORDS: Final = 8
"""For so many a cursor does not pay."""

LOG_BYTES: Final = 32 << 20
"""Of a change with which a batch comes to more than this it is not logged what it did."""


class Batch(Snapshot):
    """A write transaction: a snapshot that sees and takes writes, and gives out numbers."""

    __slots__ = (
        "_compress", "_log", "_logging", "_settled", "dirty", "mark_put", "memo", "overflowed",
        "state", "written",
    )  # fmt: skip

    _compress: bool
    """Whether records are compressed where it pays."""

    state: State
    """The file's counters; the commit stores them."""

    memo: dict[Any, Any]
    """What earlier changes of this process read or wrote, as of this point of the transaction.

    It is emptied whenever somebody else has committed, and when a change fails.
    """

    written: int
    """The bytes of the records that were put so far, and of the keys that were deleted."""

    mark_put: bytes
    """The mark of the record that `put` or `put_new` has stored last."""

    dirty: bool
    """Whether a change has begun that is neither settled nor undone."""

    overflowed: bool
    """Whether the last change was too large for the log, which is without it."""

    def __init__(
        self,
        sharing: Sharing,
        tell: Callable[[BaseException], None],
        txn: Any,
        databases: tuple[Any, ...],
        *,
        compress: bool,
    ) -> None:
        self.begin(sharing, tell, txn, databases)
        self._compress, self.written = compress, 0
        self._logging = self.dirty = self.overflowed = False

    def view(self) -> Snapshot:
        """Return this transaction as a snapshot that ends without ending it."""
        view = _View()
        view.begin(None, self._tell, self._txn, self._databases)  # which is the use of the map
        return view

    def number(self) -> int:
        """Return 0: what it shows changes."""
        return 0

    # --- what was done, and can be done again ---

    def keep_log(self) -> None:
        """Log from here on what is done, so that a change can be undone, or all be done again."""
        self._log: list[Any] = []
        # Of each operation table, key and record (None: it was deleted), one behind the other:
        # so the collector has no objects of theirs to look at.
        self._logging = True
        self.settle()

    def settle(self) -> None:
        """Keep what the change that has ended did."""
        self._settled = len(self._log), self.written, self.state.counters
        self.dirty = False

    def undo(self) -> None:
        """Forget what a change did that has failed; `dirty` says whether `redo` is due.

        An operation is logged before it is done: where an interruption comes does not matter.
        """
        self.memo.clear()
        count, self.written, counters = self._settled
        self.state = State(*counters)
        self.dirty = self.overflowed or len(self._log) > count
        del self._log[count:]
        self._logging, self.overflowed = True, False

    def redo(self, txn: Any, databases: tuple[Any, ...]) -> None:
        """Do in another transaction what is settled, and go on there."""
        if self.dirty:
            self.undo()
        self._txn, self._databases = txn, databases
        steps = iter(self._log)
        for table, key, record in zip(steps, steps, steps, strict=True):
            if record is None:
                txn.delete(key, db=databases[table])
            else:
                txn.put(key, record, db=databases[table])
        self.dirty = False

    def _overflow(self) -> None:
        del self._log[self._settled[0] :]
        self._logging, self.overflowed = False, True

    # --- records ---

    def put(self, table: Table, key: bytes, body: bytes, *, compress: bool = True) -> int:
        """Store `body` under `key`; return the growth in bytes of keys and records.

        Without `compress` the record lies in the file as it is, to be read where it is mapped.
        """
        record = seal_record(table, key, body, compress=compress and self._compress)
        self.written += len(record)
        self.mark_put = record[-MARK_BYTES:]
        database = self._databases[table]
        if self._logging:
            self._log += (table, key, record)
            if self.written > LOG_BYTES:
                self._overflow()
        if self._txn.put(key, record, _DUPDATA, _NO_OVERWRITE, _NO_APPEND, database):
            return len(key) + len(record)
        old = len(self._txn.get(key, b"", database))
        if old > len(record) and old > LARGE_RECORD_BYTES:
            # Of one written in this transaction LMDB would keep all pages, but count fewer.
            self._txn.delete(key, db=database)
        self._txn.put(key, record, _DUPDATA, _OVERWRITE, _NO_APPEND, database)
        return len(record) - old

    def abort(self) -> None:
        """End the transaction, unless it was committed."""
        self._txn.abort()

    def put_state(self) -> None:
        """Store the counters, which are there and always of one size."""
        record = seal_record(MAIN, STATE_KEY, self.state.pack())
        self._txn.put(STATE_KEY, record, db=self._databases[MAIN])

    def put_new(self, table: Table, key: bytes, body: bytes) -> int:
        """Store `body` unless `key` is there; return the growth in bytes, 0 if it is there."""
        record = seal_record(table, key, body, compress=self._compress)
        self.written += len(record)
        self.mark_put = record[-MARK_BYTES:]
        if self._logging:
            self._log += (table, key, record)
            if self.written > LOG_BYTES:
                self._overflow()
        database = self._databases[table]
        if self._txn.put(key, record, _DUPDATA, _NO_OVERWRITE, _NO_APPEND, database):
            return len(key) + len(record)
        if self._logging:
            del self._log[-3:]
        return 0

    def put_over(
        self, table: Table, key: bytes, body: bytes, old_bytes: int, *, compress: bool
    ) -> int:
        """Store `body` in place of a record of so many bytes, 0 for none; return the new one's."""
        record = seal_record(table, key, body, compress=compress and self._compress)
        self.written += len(record)
        if self._logging:
            self._log += (table, key, record)
            if self.written > LOG_BYTES:
                self._overflow()
        if old_bytes > len(record) and old_bytes > LARGE_RECORD_BYTES:
            self._txn.delete(key, db=self._databases[table])  # see `put`
        self._txn.put(key, record, _DUPDATA, _OVERWRITE, _NO_APPEND, self._databases[table])
        return len(record)

    def set(self, table: Table, key: bytes, body: bytes, old_bytes: int = 0) -> None:
        """Store `body` under `key`, uncompressed unless it is large.

        `old_bytes` is the length of the body that is there, as far as it is known to be large.
        """
        compress = self._compress and len(body) > LARGE_RECORD_BYTES * 4
        record = seal_record(table, key, body, compress=compress)
        self.written += len(record)
        if self._logging:
            self._log += (table, key, record)
            if self.written > LOG_BYTES:
                self._overflow()
        if old_bytes > LARGE_RECORD_BYTES and old_bytes > len(body):
            self._txn.delete(key, db=self._databases[table])  # see `put`
        self._txn.put(key, record, _DUPDATA, _OVERWRITE, _NO_APPEND, self._databases[table])

    def set_all(self, table: Table, keys: Sequence[bytes], bodies: Sequence[bytes]) -> None:
        """Store small bodies, each under its key."""
        if len(keys) <= FEW_RECORDS:
            for key, body in zip(keys, bodies, strict=True):
                record = seal(table, key, 0, body)
                self.written += len(record)
                if self._logging:
                    self._log += (table, key, record)
                    if self.written > LOG_BYTES:
                        self._overflow()
                self._txn.put(key, record, _DUPDATA, _OVERWRITE, _NO_APPEND, self._databases[table])
            return
        records = list(map(seal, repeat(int(table)), keys, repeat(0), bodies))
        self.written += sum(map(len, records))
        if self._logging:
            for key, record in zip(keys, records, strict=True):
                self._log += (table, key, record)
            if self.written > LOG_BYTES:
                self._overflow()
        self._txn.cursor(self._databases[table]).putmulti(zip(keys, records, strict=True))

    def get_all(self, table: Table, keys: list[bytes]) -> list[bytes | None]:
        """Return the body under each of `keys`, None where there is none."""
        get, database = self._txn.get, self._databases[table]
        records = [get(key, None, database) for key in keys]
        return [
            None if record is None else open_record(table, key, record)
            for key, record in zip(keys, records, strict=True)
        ]

    def delete(self, table: Table, key: bytes) -> int:
        """Delete `key`; return the bytes that this frees, 0 if it is not there."""
        old = self._txn.get(key, None, self._databases[table])
        if old is None:
            return 0
        size = len(key) + len(old)
        self.discard(table, key)
        return size

    def discard(self, table: Table, key: bytes) -> None:
        """Delete `key` if it is there."""
        self.written += len(key)
        if self._logging:
            self._log += (table, key, None)
            if self.written > LOG_BYTES:
                self._overflow()
        self._txn.delete(key, b"", self._databases[table])

    def delete_range(self, table: Table, prefix: bytes) -> int:
        """Delete every key that begins with `prefix`; return the bytes that this frees."""
        cursor, freed = self._txn.cursor(self._databases[table]), 0
        found = cursor.set_range(prefix)
        while found and (key := bytes(cursor.key())).startswith(prefix):
            freed += len(key) + len(cursor.value())
            self.written += len(key)
            if self._logging:
                self._log += (table, key, None)
                if self.written > LOG_BYTES:
                    self._overflow()
            cursor.delete()
            found = bool(cursor.key())
        return freed


class _View(Snapshot):
    """A transaction that somebody else ends."""

    __slots__ = ()

    def number(self) -> int:
        """Return 0: what it shows changes."""
        return 0

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._tell(error)
