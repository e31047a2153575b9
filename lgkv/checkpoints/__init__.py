"""Short-term memory: the checkpoints of every thread, on plain data.

A checkpoint is a dict of the shape of LangGraph's `Checkpoint`: `id`, `ts`, `v`,
`channel_values`, `channel_versions`, `versions_seen` and whatever else there is. Values are
stored once for each channel and version.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lgkv.checkpoints import merging, order, reading, upkeep
from lgkv.checkpoints import records as rec
from lgkv.checkpoints.channels import ChannelValues, Fetched
from lgkv.checkpoints.heads import Head
from lgkv.checkpoints.recent import Recent
from lgkv.checkpoints.types import (
    PLAIN_TYPE,
    DecodedWrites,
    PlainCodec,
    StoredCheckpoint,
    ThreadInfo,
    check_limit,
    check_texts,
    decode_parts,
    decode_payload,
)
from lgkv.checkpoints.values import BaseMovedError
from lgkv.checkpoints.writing import (
    SPECIAL_WRITES,
    CheckpointPut,
    Given,
    Means,
    put_task_writes,
)
from lgkv.codec import Codec, Payload
from lgkv.connection import Connection
from lgkv.env import Snapshot
from lgkv.errors import InvalidInputError
from lgkv.filters import compile_filter
from lgkv.layout import Kind, Table
from lgkv.writer import Change

__all__ = ["PLAIN_TYPE", "Checkpoints", "PlainCodec", "StoredCheckpoint", "ThreadInfo"]


class Checkpoints:
    """The checkpoints in a file. Safe to use from any thread.

    `put_change` and `put_writes_change` prepare a write without doing it, for
    `Database.submit`; `lgkv.checkpoints.upkeep` has the rest of the prepared writes.
    """

    def __init__(
        self, connection: Connection, codec: Codec | None = None, recent: Recent | None = None
    ) -> None:
        self._connection = connection
        self._codec = codec or PlainCodec()
        self._values = ChannelValues(connection, self._codec)
        self._recent = recent or Recent()
        reads = self._parent, connection.snapshot
        self._means = Means(self._codec, self._values, self._recent, *reads)

    def with_codec(self, codec: Codec) -> Checkpoints:
        """Return the same checkpoints, read and written through another codec."""
        return Checkpoints(self._connection, codec, self._recent)

    # --- writing ---

    def put(
        self,
        thread_id: str,
        checkpoint: Mapping[str, Any],
        *,
        namespace: str = "",
        parent_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        new_versions: Mapping[str, rec.Version] | None = None,
    ) -> None:
        """Store a checkpoint, in place of one of the same id.

        `new_versions` names the channels whose value is new at this checkpoint (None: all of
        its `channel_versions`); one that has no value in `channel_values` is empty from here
        on. The values of the others are those stored before for their versions; where nothing
        has one, that of `channel_values`. A value that has no version is not stored.

        Raises:
            InvalidInputError: A part is missing, is of the wrong type or cannot be encoded;
                nothing is stored then.
        """
        while True:
            try:
                self._connection.commit(
                    self.put_in_turn(
                        thread_id, namespace, (checkpoint, parent_id, metadata or {}, new_versions)
                    )
                )
            except BaseMovedError:  # somebody pruned or wrote the parent's version meanwhile
                continue
            return

    def put_in_turn(self, thread_id: str, namespace: str, given: Given) -> Change[Any]:
        """Return the change that `put` commits: with "interval" it is prepared as it is applied.

        What is not flushed yet can be seen by a change alone. It fails with BaseMovedError if
        it has to be made anew.
        """
        if type(thread_id) is not str or type(namespace) is not str:
            check_texts(thread_id=thread_id, namespace=namespace)
        put = CheckpointPut(self._means, thread_id, namespace, given)
        if self._connection.is_lazy:
            return Change(put.apply_in_turn, put.adopt)
        put.prepare()
        return Change(put.apply, put.adopt, put.is_short)

    def put_change(
        self,
        thread_id: str,
        checkpoint: Mapping[str, Any],
        *,
        namespace: str = "",
        parent_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        new_versions: Mapping[str, rec.Version] | None = None,
    ) -> Change[Any]:
        """Prepare `put`. The change fails with BaseMovedError if it has to be prepared anew."""
        if type(thread_id) is not str or type(namespace) is not str:
            check_texts(thread_id=thread_id, namespace=namespace)
        given = checkpoint, parent_id, metadata or {}, new_versions
        put = CheckpointPut(self._means, thread_id, namespace, given)
        put.prepare()
        return Change(put.apply, put.adopt, put.is_short)

    def _parent(
        self, thread_id: str, namespace: str, parent_id: str, new: Mapping[str, Any]
    ) -> reading.Parent:
        fetch = self._values.fetch_base
        recent = self._recent.get((thread_id, namespace, parent_id))
        if recent is not None:
            try:
                return reading.with_bases(recent, None, b"", new, fetch)
            except LookupError:  # memory does not hold what is needed: it is read
                pass
        with self._connection.snapshot() as snapshot:
            place = reading.place_of(snapshot, thread_id, namespace)
            return reading.read_parent(snapshot, place, parent_id, new, fetch)

    def put_writes(
        self,
        thread_id: str,
        checkpoint_id: str,
        task_id: str,
        writes: Sequence[tuple[str, Any]],
        *,
        namespace: str = "",
        task_path: str = "",
    ) -> None:
        """Store the pending writes of a task, which may come before their checkpoint.

        A write is known by its task and its position: one that is stored already stays as it
        is, except on the special channels, where the newest counts.
        """
        self._connection.commit(
            self.put_writes_change(
                thread_id, checkpoint_id, task_id, writes, namespace=namespace, task_path=task_path
            )
        )

    def put_writes_change(
        self,
        thread_id: str,
        checkpoint_id: str,
        task_id: str,
        writes: Sequence[tuple[str, Any]],
        *,
        namespace: str = "",
        task_path: str = "",
    ) -> Change[None]:
        """Prepare `put_writes`."""
        check_texts(
            thread_id=thread_id,
            namespace=namespace,
            checkpoint_id=checkpoint_id,
            task_id=task_id,
            task_path=task_path,
        )
        encode, new = self._codec.encode, []
        for position, write in enumerate(writes):
            if not isinstance(write, (tuple, list)) or len(write) != 2:
                raise InvalidInputError(f"a write is {write!r:.100}: give a channel and its value")
            channel, value = write
            if not isinstance(channel, str):
                raise InvalidInputError(f"a write's channel is {channel!r:.100}: give a str")
            index = SPECIAL_WRITES.get(channel, position)
            new.append(rec.Write(task_id, index, task_path, channel, encode(value)))
        return put_task_writes(thread_id, namespace, checkpoint_id, new, self._recent)

    # --- reading ---

    def get(
        self, thread_id: str, *, namespace: str = "", checkpoint_id: str | None = None
    ) -> StoredCheckpoint | None:
        """Return a checkpoint, the newest of the namespace if no id is given, or None."""
        if type(thread_id) is not str or type(namespace) is not str:
            check_texts(thread_id=thread_id, namespace=namespace)
        with self._connection.snapshot() as snapshot:
            found = reading.find(snapshot, thread_id, namespace, checkpoint_id, self._values.fetch)
        return None if found is None else self._decode(found)

    def list(
        self,
        thread_id: str | None = None,
        *,
        namespace: str | None = None,
        checkpoint_id: str | None = None,
        before: str | None = None,
        filter: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> Iterator[StoredCheckpoint]:
        """Return an iterator over checkpoints, newest id first.

        Of all threads if no thread is given, of all namespaces if none is given; `before` is
        an id that all of them are below. `filter` is tried on the metadata, with the
        operators of `lgkv.filters`; nothing else is decoded of a checkpoint that it rejects.
        Each page is read from a snapshot of its own: what is written meanwhile below the
        point that was reached is seen.

        Raises:
            FilterError: `filter` has an unknown operator.
        """
        keeps = compile_filter(filter) if filter else None
        if thread_id is not None:
            check_texts(thread_id=thread_id)
        limit = None if limit is None else check_limit(limit)
        if limit is not None and limit <= 0:
            return iter(())
        snapshots = self._connection.snapshot
        if thread_id is None:
            heads = merging.heads_of_all(snapshots, before)
        elif checkpoint_id is None:
            heads = reading.heads_of_thread(snapshots, thread_id, namespace, before)
        else:
            heads = reading.heads_of_id(snapshots, thread_id, namespace, checkpoint_id)
        wanted = (
            (place, head)
            for place, head in heads
            if (checkpoint_id is None or head.id == checkpoint_id)
            and (before is None or head.id < before)
            and (namespace is None or place.namespace_name == namespace)
            and (keeps is None or keeps(self._metadata(head)))
        )
        return itertools.islice(self._loaded(wanted), limit)

    def _loaded(self, heads: Iterator[tuple[reading.Place, Head]]) -> Iterator[StoredCheckpoint]:
        for place, head in heads:
            with self._connection.snapshot() as snapshot:
                current = reading.read_head(snapshot, place, head.id, Kind.CHECKPOINT)
                found = (
                    None
                    if current is None
                    else reading.load(snapshot, place, current, self._values.fetch)
                )
            if found is not None:  # else it was deleted since its page was read
                yield self._decode(found)

    def writes(self, thread_id: str, checkpoint_id: str, *, namespace: str = "") -> DecodedWrites:
        """Return the pending writes of a checkpoint, which itself need not exist."""
        with self._connection.snapshot() as snapshot:
            place = reading.place_of(snapshot, thread_id, namespace)
            found = [] if place is None else reading.writes_of(snapshot, place, checkpoint_id)
        return [self._decode_write(write) for write in found]

    def delta_history(
        self,
        thread_id: str,
        channels: Sequence[str],
        *,
        namespace: str = "",
        checkpoint_id: str | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Return what channels that are stored as changes are rebuilt from.

        For each channel a dict with `writes`, oldest first, and `seed`, the value before
        them, if there is one: LangGraph's `DeltaChannelHistory`.
        """
        with self._connection.snapshot() as snapshot:
            writes, seeds = reading.load_history(
                snapshot, thread_id, namespace, checkpoint_id, [*channels], self._values.fetch
            )
        history: dict[str, dict[str, Any]] = {}
        for name in channels:
            history[name] = {"writes": [self._decode_write(write) for write in writes[name]]}
            if name in seeds:
                history[name]["seed"] = self._values.decode(seeds[name])
        return history

    def _value(self, payload: Payload) -> Any:
        return decode_payload(self._codec, payload)

    def _metadata(self, head: Head) -> dict[str, Any]:
        return decode_parts(self._codec, head.payload)[0]

    def _decode_write(self, write: rec.Write) -> tuple[str, str, Any]:
        return write.task_id, write.channel, self._value(write.payload)

    def _decode(self, found: reading.Found) -> StoredCheckpoint:
        place, head, versions, seen, stored, writes = found
        codec, decode = self._codec, self._values.decode
        metadata, checkpoint = decode_parts(codec, head.payload)
        checkpoint["id"] = head.id
        if seen is not None:
            checkpoint["versions_seen"] = seen
        checkpoint["channel_versions"] = versions
        checkpoint["channel_values"] = {
            name: decode(value) if isinstance(value, Fetched) else decode_payload(codec, value)
            for name, value in stored.items()
        }
        return StoredCheckpoint(
            place.thread_id,
            place.namespace_name,
            head.id,
            head.parent_id,
            checkpoint,
            metadata,
            [self._decode_write(write) for write in writes],
        )

    # --- upkeep ---

    def delete_thread(self, thread_id: str) -> None:
        """Delete everything of a thread; nothing happens if there is none."""
        self._connection.commit(upkeep.delete_thread(thread_id))

    def delete_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints whose metadata has one of these `run_id`s, with their writes.

        Channels that are stored as changes lose what such a run contributed.
        """
        self._connection.commit(upkeep.delete_runs(run_ids))

    def copy_thread(self, source: str, target: str) -> None:
        """Copy everything of thread `source` to the new thread `target`.

        Raises:
            InvalidInputError: There is no `source`, or there is a `target`.
        """
        self._connection.commit(upkeep.copy_thread(source, target))

    def prune(
        self,
        thread_ids: Sequence[str],
        *,
        strategy: str = "keep_latest",
        keep_last: int | None = None,
        older_than: datetime.timedelta | datetime.datetime | None = None,
    ) -> None:
        """Delete old checkpoints of these threads, in each of their namespaces.

        "keep_latest" leaves the newest; with `keep_last=N` the newest N; with `older_than`
        (an age or a time) whatever is not older, and the newest in any case; with both, what
        either leaves. "delete" leaves nothing. Pending writes whose checkpoint is yet to
        come stay. Channels that are stored as changes stay readable.

        Raises:
            InvalidInputError: An unknown strategy, or options that contradict each other.
        """
        self._connection.commit(upkeep.prune(thread_ids, strategy, keep_last, older_than))

    def threads(
        self,
        limit: int = 20,
        before: ThreadInfo | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> Sequence[ThreadInfo]:
        """Return up to `limit` threads, the one with the newest checkpoint first.

        `before` is the last of the page before. `filter` is tried on `ThreadInfo.metadata`.
        """
        limit = check_limit(limit)
        if before is not None and not isinstance(before, ThreadInfo):
            raise InvalidInputError(
                f"before is {before!r:.100}: give the last ThreadInfo of a page"
            )
        keeps = compile_filter(filter) if filter else None
        found: list[ThreadInfo] = []
        with self._connection.snapshot() as snapshot:
            for info in upkeep.iterate_threads(snapshot, before):
                if len(found) >= limit:
                    break
                if keeps is None or keeps(info.metadata):
                    found.append(info)
        return found

    @staticmethod
    def count(snapshot: Snapshot) -> int:
        """Return the number of threads."""
        return sum(1 for _ in snapshot.keys(Table.INDEX, order.LATEST))
