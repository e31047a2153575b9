"""One thread inside a write transaction: its record, its interned names, its index entries."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from lgkv.checkpoints import order
from lgkv.checkpoints import records as rec
from lgkv.checkpoints.heads import (
    FRAMED_FROM,
    Head,
    changes_against,
    frame_key,
    pack_frame,
    pack_head,
    read_frame,
    unpack_head,
)
from lgkv.checkpoints.numbers import (
    NUMBER_BYTES,
    ROOT_NAMESPACE,
    channel_names,
    namespace_number,
    namespace_numbers,
)
from lgkv.errors import CorruptionError
from lgkv.keys import encode_text, pack_uint
from lgkv.layout import INDEX, THREADS, Kind, Table
from lgkv.names import add_thread, remove_thread, thread_number
from lgkv.snapshot import Snapshot
from lgkv.writer import Batch

__all__ = ["End", "ThreadEdit", "now_us", "read_thread"]

_THREAD: Final = Kind.THREAD
_CHANNELS: Final = Kind.CHANNELS


def now_us() -> int:
    """Return the time in microseconds since 1970."""
    return time.time_ns() // 1000


def read_thread(snapshot: Snapshot, number: int) -> rec.ThreadRecord:
    """Return the record of thread `number`."""
    key = rec.thread_key(number, Kind.THREAD)
    body = snapshot.get(THREADS, key)
    if body is None:
        raise CorruptionError(Table.THREADS.label, key, "the thread's record is missing")
    return rec.ThreadRecord.unpack(key, body)


class End(NamedTuple):
    """A piece as far as it is known without reading it: its elements, and how large it is.

    `raw_bytes` are those of a MessagePack array, 0 of anything else.
    """

    first: int
    size: int
    raw_bytes: int
    record_bytes: int


class _Known:
    """What a batch knows of a thread: as it is in the transaction at this point.

    `newest` are key and mark of the head that was put last, if it is there. `ends` are the last
    pieces of chains, the very last one last.
    """

    __slots__ = (
        "channels", "ends", "indexed", "namespaces", "newest", "number", "record", "record_bytes",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        record: rec.ThreadRecord,
        record_bytes: int,
        channels: dict[str, int] | None,
    ) -> None:
        self.number, self.record, self.record_bytes = number, record, record_bytes
        self.indexed = record_bytes > 0
        self.channels = channels
        self.namespaces: dict[str, int] = {}
        self.newest: tuple[bytes, bytes] | None = None
        self.ends: dict[int, list[End]] = {}


class ThreadEdit:
    """Changes to one thread. `save` stores its record once all of them are made."""

    __slots__ = (
        "_indexed_id", "_known", "_latest_gone", "batch", "ends", "number", "record",
    )  # fmt: skip

    def __init__(self, batch: Batch, known: _Known) -> None:
        self.batch, self._known = batch, known
        self.number, self.record = known.number, known.record
        self.ends = known.ends
        """What is known of the ends of chains; who deletes pieces forgets those of their chain."""
        self._indexed_id = known.record.latest_id
        self._latest_gone = False

    @classmethod
    def find(cls, batch: Batch, thread_id: str) -> ThreadEdit | None:
        """Return the thread, or None if there is none of this name."""
        known = batch.memo.get((_Known, thread_id))
        if known is None:
            number = thread_number(batch, thread_id)
            if number is None:
                return None
            record = read_thread(batch, number)
            size = len(record.pack(rec.thread_key(number, Kind.THREAD)))
            known = _Known(number, record, size, None)
            batch.memo[_Known, thread_id] = known
        return cls(batch, known)

    @classmethod
    def load(cls, batch: Batch, number: int) -> ThreadEdit:
        """Return the thread of this number."""
        thread_id = read_thread(batch, number).thread_id
        found = cls.find(batch, thread_id)
        if found is None or found.number != number:
            key = rec.thread_key(number, Kind.THREAD)
            raise CorruptionError(Table.THREADS.label, key, f"{thread_id!r} is not its name")
        return found

    @classmethod
    def add(
        cls, batch: Batch, thread_id: str, now: int, *, bare: bool = False
    ) -> ThreadEdit | None:
        """Return a new thread, made at a time, or None if there is one of this name.

        A `bare` one has no channels yet.
        """
        number = add_thread(batch, thread_id)
        if number is None:
            return None
        record = rec.ThreadRecord(thread_id, now, now)
        known = _Known(number, record, 0, {} if bare else None)
        batch.memo[_Known, thread_id] = known
        return cls(batch, known)

    @classmethod
    def find_or_add(cls, batch: Batch, thread_id: str, now: int) -> ThreadEdit:
        """Return the thread, made now if there is none."""
        known = batch.memo.get((_Known, thread_id))
        if known is not None:
            return cls(batch, known)
        found = cls.add(batch, thread_id, now, bare=True) or cls.find(batch, thread_id)
        if found is None:
            raise LookupError(thread_id)  # it is there, or was added
        return found

    # --- records, counted ---

    def put(self, key: bytes, body: bytes) -> None:
        """Store a record of the thread."""
        self.record.size_bytes += self.batch.put(THREADS, key, body)

    def put_new(self, key: bytes, body: bytes) -> bool:
        """Store a record of the thread unless its key is taken; return whether it was stored."""
        grown = self.batch.put_new(THREADS, key, body)
        self.record.size_bytes += grown
        return bool(grown)

    def put_over(self, key: bytes, body: bytes, old_bytes: int, *, compress: bool) -> int:
        """Store a record in place of one of so many bytes, 0 for none; return the new one's."""
        new_bytes = self.batch.put_over(THREADS, key, body, old_bytes, compress=compress)
        self.record.size_bytes += new_bytes - old_bytes + (0 if old_bytes else len(key))
        return new_bytes

    def delete_known(self, key: bytes, old_bytes: int) -> None:
        """Delete a record of the thread that is there and has so many bytes."""
        self.batch.discard(THREADS, key)
        self.record.size_bytes -= len(key) + old_bytes

    def delete(self, key: bytes) -> bool:
        """Delete a record of the thread; return whether it was there."""
        freed = self.batch.delete(THREADS, key)
        self.record.size_bytes -= freed
        return bool(freed)

    def delete_range(self, prefix: bytes) -> None:
        """Delete the records of the thread whose keys begin with `prefix`."""
        self.record.size_bytes -= self.batch.delete_range(THREADS, prefix)

    # --- names ---

    def namespace(self, namespace: str) -> int:
        """Return the number of a checkpoint namespace, given now if it is new."""
        if not namespace:
            return ROOT_NAMESPACE
        number = self._known.namespaces.get(namespace)
        if number is None:
            number = namespace_number(self.batch, self.number, namespace)
            if number is None:
                number = self._add_namespace(namespace)
            self._known.namespaces[namespace] = number
        return number

    def _add_namespace(self, namespace: str) -> int:
        number = self.record.namespaces
        self.record.namespaces += 1
        packed = number.to_bytes(NUMBER_BYTES, "big")
        self.put(rec.namespace_number_key(self.number, namespace), packed)
        self.put(rec.namespace_name_key(self.number, number), encode_text(namespace))
        return number

    def channels(self, names: Iterable[Mapping[str, object]]) -> dict[str, int]:
        """Return the numbers of channels, the keys of `names`, given now where they are new."""
        numbers = self._known.channels
        if numbers is None:
            found = channel_names(self.batch, self.number)
            numbers = {name: number for number, name in enumerate(found)}
            self._known.channels = numbers
        known = len(numbers)
        for some in names:
            if not some.keys() <= numbers.keys():
                for name in some:
                    numbers.setdefault(name, len(numbers))
        if len(numbers) > known:
            body = rec.pack_channels(tuple(numbers))
            self.put(rec.thread_key(self.number, _CHANNELS), body)
        return numbers

    # --- checkpoints ---

    def put_head(self, namespace: int, head: Head) -> tuple[Head | None, bytes, int]:
        """Store a checkpoint's head and its index entries.

        Return the one that it replaces, its mark, and the number of the frame that it is
        stored against.
        """
        key, old = rec.checkpoint_key(self.number, namespace, head.id), None
        body, frame = self._framed(namespace, head)
        if self.put_new(key, body):
            self.record.checkpoints += 1
            mark = self.batch.mark_put
            if self.record.carriers:
                old = self._take_carrier(namespace, head.id)
        else:
            old = self.head(namespace, head.id)
            self.put(key, body)
            mark = self.batch.mark_put
        self._known.newest = key, mark
        if old is not None and old.run_id != head.run_id:
            self._unindex_run(namespace, old)
        if head.run_id is not None:
            self.index_run(namespace, head)
        if self.record.latest_id is None or head.id > self.record.latest_id:
            self.record.latest_id = head.id
        return old, mark, frame

    def mark_of(self, namespace: int, checkpoint_id: str) -> bytes | None:
        """Return the mark of a head, or None."""
        key = rec.checkpoint_key(self.number, namespace, checkpoint_id)
        newest = self._known.newest
        if newest is not None and newest[0] == key:
            return newest[1]
        return self.batch.mark(THREADS, key)

    def _take_carrier(self, namespace: int, checkpoint_id: str) -> Head | None:
        old = self.head(namespace, checkpoint_id, Kind.CARRIER)
        if old is not None:
            self._delete_carrier(namespace, checkpoint_id)
        return old

    def _delete_carrier(self, namespace: int, checkpoint_id: str) -> None:
        self.delete(rec.checkpoint_key(self.number, namespace, checkpoint_id, Kind.CARRIER))
        self.record.carriers -= 1

    def _framed(self, namespace: int, head: Head) -> tuple[bytes, int]:
        """Return the body of a head and its frame; `head.frame` names the one that may serve it."""
        if len(head.channels) < FRAMED_FROM:
            return pack_head(head, head.channels, 0), 0
        number = head.frame
        frame = read_frame(self.batch, self.number, namespace, number) if number else None
        changes = None if frame is None else changes_against(frame, head.channels)
        if changes is None:
            self.batch.state.chains += 1
            number, changes = self.batch.state.chains, []
            self.put(frame_key(self.number, namespace, number), pack_frame(head.channels))
        return pack_head(head, changes, number), number

    def index_run(self, namespace: int, head: Head) -> None:
        """Store the index entry of a head's run, if it has one."""
        if head.run_id is not None:
            key = rec.run_key(head.run_id, self.number, namespace, head.id)
            self.batch.put(INDEX, key, encode_text(head.id))

    def _unindex_run(self, namespace: int, head: Head) -> None:
        if head.run_id is not None:
            self.batch.delete(INDEX, rec.run_key(head.run_id, self.number, namespace, head.id))

    def head(self, namespace: int, checkpoint_id: str, kind: Kind = Kind.CHECKPOINT) -> Head | None:
        """Return a checkpoint's head, or None."""
        key = rec.checkpoint_key(self.number, namespace, checkpoint_id, kind)
        body = self.batch.get(THREADS, key)
        return None if body is None else self._unpack(namespace, key, body)

    def heads(self, namespace: int, kind: Kind = Kind.CHECKPOINT) -> list[Head]:
        """Return the heads of a namespace, in the order of their keys."""
        prefix = rec.checkpoints_prefix(self.number, namespace, kind)
        found = self.batch.scan(THREADS, prefix)
        return [self._unpack(namespace, key, body) for key, body in found]

    @property
    def is_framed(self) -> bool:
        """Whether there are so many channels that a head may name a frame for some."""
        return len(self._known.channels or ()) >= FRAMED_FROM

    def _unpack(self, namespace: int, key: bytes, body: bytes) -> Head:
        return unpack_head(self.batch, self.number, namespace, key, body)

    def hide(self, namespace: int, head: Head) -> None:
        """Make a checkpoint a carrier: what channels of later ones are rebuilt from."""
        self._forget(namespace, head)
        self.put_carrier(namespace, head)
        self.record.carriers += 1

    def put_carrier(self, namespace: int, head: Head) -> None:
        """Store a carrier's head."""
        key = rec.checkpoint_key(self.number, namespace, head.id, Kind.CARRIER)
        self.put(key, self._framed(namespace, head)[0])

    def drop(self, namespace: int, head: Head, kind: Kind = Kind.CHECKPOINT) -> None:
        """Delete a checkpoint, or a carrier, with its pending writes and index entries."""
        if kind is Kind.CHECKPOINT:
            self._forget(namespace, head)
        else:
            self._delete_carrier(namespace, head.id)
        self._unindex_run(namespace, head)
        self.delete_range(rec.writes_prefix(self.number, namespace, head.id))

    def _forget(self, namespace: int, head: Head) -> None:
        self.delete(rec.checkpoint_key(self.number, namespace, head.id))
        self._known.newest = None
        self.record.checkpoints -= 1
        self._latest_gone |= head.id == self.record.latest_id

    # --- the thread itself ---

    def save(self) -> None:
        """Store the thread's record; a thread that holds nothing any more is removed."""
        record = self.record
        if not record.checkpoints and not self._has_writes():
            self.remove()
            return
        if self._latest_gone:
            record.latest_id = self._find_latest()
        if not self._known.indexed or record.latest_id != self._indexed_id:
            if self._known.indexed:
                self.batch.discard(INDEX, rec.latest_key(self._indexed_id, self.number))
            self.batch.set(INDEX, rec.latest_key(record.latest_id, self.number), b"")
            self._indexed_id, self._known.indexed = record.latest_id, True
        key = rec.thread_key(self.number, _THREAD)
        body = record.pack(key)
        self.batch.set(THREADS, key, body, self._known.record_bytes)
        self._known.record_bytes = len(body)

    def _find_latest(self) -> str | None:
        """Return the greatest id of a checkpoint in any namespace, None if there is none."""
        newest = []
        for namespace in namespace_numbers(self.batch, self.number):
            prefix = rec.checkpoints_prefix(self.number, namespace)
            for _, key in order.descending(self.batch, THREADS, prefix, None):
                body = self.batch.get(THREADS, key)
                if body is not None:
                    newest.append(self._unpack(namespace, key, body).id)
                break
        return max(newest, default=None)

    def _has_writes(self) -> bool:
        return self.batch.has(THREADS, rec.thread_key(self.number, Kind.WRITES))

    def remove(self) -> None:
        """Delete everything of the thread."""
        for namespace in namespace_numbers(self.batch, self.number):
            for kind in (Kind.CHECKPOINT, Kind.CARRIER):
                for head in self.heads(namespace, kind):
                    self._unindex_run(namespace, head)
        self.batch.delete_range(THREADS, pack_uint(self.number))
        self.batch.delete(INDEX, rec.latest_key(self._indexed_id, self.number))
        remove_thread(self.batch, self.record.thread_id)
        self.batch.memo.pop((_Known, self.record.thread_id), None)
