"""One thread inside a write transaction: its record, its interned names, its index entries."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

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
from lgkv.env import Snapshot
from lgkv.errors import CorruptionError
from lgkv.keys import encode_text, pack_uint
from lgkv.layout import Kind, Table
from lgkv.names import add_thread, remove_thread, thread_number
from lgkv.writer import Batch

__all__ = [
    "ThreadEdit",
    "channel_names",
    "namespace_name",
    "namespace_number",
    "namespace_numbers",
    "now_us",
]


def now_us() -> int:
    """Return the time in microseconds since 1970."""
    return time.time_ns() // 1000


def channel_names(snapshot: Snapshot, thread: int) -> list[str]:
    """Return the channel names of a thread; a channel's number is its position."""
    key = rec.thread_key(thread, Kind.CHANNELS)
    body = snapshot.get(Table.THREADS, key)
    return [] if body is None else rec.unpack_channels(key, body)


def namespace_number(snapshot: Snapshot, thread: int, namespace: str) -> int | None:
    """Return the number of a checkpoint namespace, or None."""
    body = snapshot.get(Table.THREADS, rec.namespace_number_key(thread, namespace))
    return None if body is None else int.from_bytes(body, "big")


def namespace_name(snapshot: Snapshot, thread: int, number: int) -> str:
    """Return the name of checkpoint namespace `number`."""
    key = rec.namespace_name_key(thread, number)
    body = snapshot.get(Table.THREADS, key)
    if body is None:
        raise CorruptionError(
            Table.THREADS.label, key, "the checkpoint namespace's name is missing"
        )
    return rec.text_of(key, body)


def namespace_numbers(snapshot: Snapshot, thread: int) -> dict[int, str]:
    """Return the checkpoint namespaces of a thread by number."""
    prefix = rec.thread_key(thread, Kind.NAMESPACE_NAME)
    return {
        int.from_bytes(key[len(prefix) + 1 :], "big"): rec.text_of(key, body)
        for key, body in snapshot.scan(Table.THREADS, prefix)
    }


class ThreadEdit:
    """Changes to one thread. `save` stores its record once all of them are made."""

    def __init__(self, batch: Batch, thread_id: str, number: int, record: rec.ThreadRecord) -> None:
        self.batch, self.thread_id, self.number, self.record = batch, thread_id, number, record
        self._indexed_us = record.updated_us
        self._channels: list[str] | None = None

    @classmethod
    def find(cls, batch: Batch, thread_id: str) -> ThreadEdit | None:
        """Return the thread, or None if there is none of this name."""
        number = thread_number(batch, thread_id)
        return None if number is None else cls.load(batch, thread_id, number)

    @classmethod
    def load(cls, batch: Batch, thread_id: str, number: int) -> ThreadEdit:
        """Return the thread of this name and number."""
        key = rec.thread_key(number, Kind.THREAD)
        body = batch.get(Table.THREADS, key)
        if body is None:
            raise CorruptionError(Table.THREADS.label, key, "the thread's record is missing")
        return cls(batch, thread_id, number, rec.ThreadRecord.unpack(key, body))

    @classmethod
    def find_or_add(cls, batch: Batch, thread_id: str) -> ThreadEdit:
        """Return the thread, made now if there is none."""
        found = cls.find(batch, thread_id)
        if found is not None:
            return found
        now = now_us()
        edit = cls(batch, thread_id, add_thread(batch, thread_id), rec.ThreadRecord(now, now))
        batch.put(Table.INDEX, rec.updated_key(now, edit.number), b"")
        return edit

    # --- records, counted ---

    def put(self, key: bytes, body: bytes) -> None:
        """Store a record of the thread."""
        self.record.size_bytes += self.batch.put(Table.THREADS, key, body)

    def put_new(self, key: bytes, body: bytes) -> bool:
        """Store a record of the thread unless its key is taken; return whether it was stored."""
        grown = self.batch.put_new(Table.THREADS, key, body)
        self.record.size_bytes += grown
        return bool(grown)

    def delete(self, key: bytes) -> bool:
        """Delete a record of the thread; return whether it was there."""
        freed = self.batch.delete(Table.THREADS, key)
        self.record.size_bytes -= freed
        return bool(freed)

    def delete_range(self, prefix: bytes) -> None:
        """Delete the records of the thread whose keys begin with `prefix`."""
        self.record.size_bytes -= self.batch.delete_range(Table.THREADS, prefix)

    # --- names ---

    def namespace(self, namespace: str) -> int:
        """Return the number of a checkpoint namespace, given now if it is new."""
        number = namespace_number(self.batch, self.number, namespace)
        if number is not None:
            return number
        number = self.record.namespaces
        self.record.namespaces += 1
        self.put(rec.namespace_number_key(self.number, namespace), number.to_bytes(8, "big"))
        self.put(rec.namespace_name_key(self.number, number), encode_text(namespace))
        return number

    def channels(self, names: Iterable[str]) -> dict[str, int]:
        """Return the numbers of channels, given now where they are new."""
        if self._channels is None:
            self._channels = channel_names(self.batch, self.number)
        numbers = {name: number for number, name in enumerate(self._channels)}
        new = [name for name in dict.fromkeys(names) if name not in numbers]
        for name in new:
            numbers[name] = len(self._channels)
            self._channels.append(name)
        if new:
            self.put(rec.thread_key(self.number, Kind.CHANNELS), rec.pack_channels(self._channels))
        return numbers

    # --- checkpoints ---

    def put_head(self, namespace: int, head: Head) -> None:
        """Store a checkpoint's head and its index entries, in place of an older one."""
        recent = rec.recent_key(head.id, self.number, namespace)
        if self.batch.put_new(Table.INDEX, recent, b""):
            self.record.checkpoints += 1
            old = self.head(namespace, head.id, Kind.CARRIER)
            self.delete(rec.checkpoint_key(self.number, namespace, head.id, Kind.CARRIER))
        else:
            old = self.head(namespace, head.id)
        if old is not None and old.run_id != head.run_id:
            self._unindex_run(namespace, old)
        self._index_run(namespace, head)
        self._put_framed(namespace, head, Kind.CHECKPOINT)

    def _put_framed(self, namespace: int, head: Head, kind: Kind) -> None:
        """Store a head; `head.frame` names the frame that may serve it."""
        number, changes = 0, head.versions
        if len(head.versions) >= FRAMED_FROM:
            number = head.frame
            frame = read_frame(self.batch, self.number, namespace, number) if number else None
            known = None if frame is None else changes_against(frame, head.versions)
            if known is None:
                self.batch.state.stamps += 1
                number, known = self.batch.state.stamps, []
                key = frame_key(self.number, namespace, number)
                self.put(key, pack_frame(head.versions))
            changes = known
        key = rec.checkpoint_key(self.number, namespace, head.id, kind)
        self.put(key, pack_head(replace(head, frame=number), changes))

    def index(self, namespace: int, head: Head, kind: Kind) -> None:
        """Store the index entries of a head that is there already."""
        if kind is Kind.CHECKPOINT:
            self.batch.put(Table.INDEX, rec.recent_key(head.id, self.number, namespace), b"")
        self._index_run(namespace, head)

    def _index_run(self, namespace: int, head: Head) -> None:
        if head.run_id is not None:
            key = rec.run_key(head.run_id, self.number, namespace, head.id)
            self.batch.put(Table.INDEX, key, encode_text(head.id))

    def _unindex_run(self, namespace: int, head: Head) -> None:
        if head.run_id is not None:
            self.batch.delete(
                Table.INDEX, rec.run_key(head.run_id, self.number, namespace, head.id)
            )

    def head(self, namespace: int, checkpoint_id: str, kind: Kind = Kind.CHECKPOINT) -> Head | None:
        """Return a checkpoint's head, or None."""
        key = rec.checkpoint_key(self.number, namespace, checkpoint_id, kind)
        body = self.batch.get(Table.THREADS, key)
        return None if body is None else self._unpack(namespace, key, body)

    def has_checkpoint(self, namespace: int, checkpoint_id: str) -> bool:
        """Whether a checkpoint is there."""
        key = rec.checkpoint_key(self.number, namespace, checkpoint_id)
        return self.batch.has(Table.THREADS, key)

    def heads(self, namespace: int, kind: Kind = Kind.CHECKPOINT) -> list[Head]:
        """Return the heads of a namespace, in the order of their keys."""
        prefix = rec.checkpoints_prefix(self.number, namespace, kind)
        found = self.batch.scan(Table.THREADS, prefix)
        return [self._unpack(namespace, key, body) for key, body in found]

    def _unpack(self, namespace: int, key: bytes, body: bytes) -> Head:
        return unpack_head(self.batch, self.number, namespace, key, body)

    def hide(self, namespace: int, head: Head) -> None:
        """Keep of a checkpoint only what channels of later ones are rebuilt from."""
        self._forget(namespace, head)
        self._put_framed(namespace, head, Kind.CARRIER)

    def drop(self, namespace: int, head: Head, kind: Kind = Kind.CHECKPOINT) -> None:
        """Delete a checkpoint, or a carrier, with its pending writes and index entries."""
        if kind is Kind.CHECKPOINT:
            self._forget(namespace, head)
        else:
            self.delete(rec.checkpoint_key(self.number, namespace, head.id, kind))
        self._unindex_run(namespace, head)
        self.delete_range(rec.writes_prefix(self.number, namespace, head.id))

    def _forget(self, namespace: int, head: Head) -> None:
        self.delete(rec.checkpoint_key(self.number, namespace, head.id))
        self.batch.delete(Table.INDEX, rec.recent_key(head.id, self.number, namespace))
        self.record.checkpoints -= 1

    # --- the thread itself ---

    def save(self) -> None:
        """Store the thread's record; a thread that holds nothing any more is removed."""
        if not self.record.checkpoints and not self._has_writes():
            self.remove()
            return
        if self.record.updated_us != self._indexed_us:
            self.batch.delete(Table.INDEX, rec.updated_key(self._indexed_us, self.number))
            self.batch.put(Table.INDEX, rec.updated_key(self.record.updated_us, self.number), b"")
        key = rec.thread_key(self.number, Kind.THREAD)
        self.batch.put(Table.THREADS, key, self.record.pack())

    def _has_writes(self) -> bool:
        return self.batch.has(Table.THREADS, rec.thread_key(self.number, Kind.WRITES))

    def remove(self) -> None:
        """Delete everything of the thread."""
        for namespace in namespace_numbers(self.batch, self.number):
            for kind in (Kind.CHECKPOINT, Kind.CARRIER):
                for head in self.heads(namespace, kind):
                    self.batch.delete(Table.INDEX, rec.recent_key(head.id, self.number, namespace))
                    self._unindex_run(namespace, head)
        self.batch.delete_range(Table.THREADS, pack_uint(self.number))
        self.batch.delete(Table.INDEX, rec.updated_key(self._indexed_us, self.number))
        remove_thread(self.batch, self.number, self.thread_id)
