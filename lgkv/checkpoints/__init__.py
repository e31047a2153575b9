"""Short-term memory: the checkpoints of every thread, on plain data.

A checkpoint is a dict of the shape of LangGraph's `Checkpoint`: `id`, `ts`, `v`,
`channel_values`, `channel_versions`, `versions_seen` and whatever else there is. Values are
stored once for each channel and version.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from lgkv import filters
from lgkv.checkpoints import reading, upkeep
from lgkv.checkpoints import records as rec
from lgkv.checkpoints.channels import NOTHING, Bases, ChannelValues
from lgkv.checkpoints.heads import Head
from lgkv.checkpoints.thread import ThreadEdit, now_us
from lgkv.checkpoints.types import (
    PLAIN_TYPE,
    DecodedWrites,
    PlainCodec,
    StoredCheckpoint,
    ThreadInfo,
    decode_payload,
)
from lgkv.checkpoints.values import BaseMovedError, StoredVersion
from lgkv.codec import Codec, Payload
from lgkv.connection import Connection
from lgkv.env import Snapshot
from lgkv.errors import InvalidInputError
from lgkv.layout import Kind, Table
from lgkv.writer import Batch, Change

__all__ = ["PLAIN_TYPE", "Checkpoints", "PlainCodec", "StoredCheckpoint", "ThreadInfo"]

RUN_ID: Final = "run_id"
DELTA_COUNTERS: Final = "counters_since_delta_snapshot"
"""Metadata that LangGraph keeps for channels which a checkpoint has no value of."""

SPECIAL_WRITES: Final = {
    "__error__": -1,
    "__scheduled__": -2,
    "__interrupt__": -3,
    "__resume__": -4,
}
"""Channels whose writes replace an earlier one of the task (LangGraph's `WRITES_IDX_MAP`)."""


class Checkpoints:
    """The checkpoints in a file. Safe to use from any thread.

    `put_change` and `put_writes_change` prepare a write without doing it, for
    `Database.submit`; `lgkv.checkpoints.upkeep` has the rest of the prepared writes.
    """

    def __init__(self, connection: Connection, codec: Codec | None = None) -> None:
        self._connection = connection
        self._codec = codec or PlainCodec()
        self._values = ChannelValues(connection, self._codec)

    def with_codec(self, codec: Codec) -> Checkpoints:
        """Return the same checkpoints, read and written through another codec."""
        return Checkpoints(self._connection, codec)

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
        on. The values of the others are those stored before for their versions.

        Raises:
            InvalidInputError: A part is missing, is of the wrong type or cannot be encoded;
                nothing is stored then.
        """
        while True:
            try:
                self._connection.commit(
                    self.put_change(
                        thread_id,
                        checkpoint,
                        namespace=namespace,
                        parent_id=parent_id,
                        metadata=metadata,
                        new_versions=new_versions,
                    )
                )
            except BaseMovedError:  # somebody pruned or wrote the parent's version meanwhile
                continue
            return

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
        _check_texts(thread_id=thread_id, namespace=namespace, checkpoint_id=checkpoint.get("id"))
        if parent_id is not None:
            _check_texts(parent_id=parent_id)
        metadata = dict(metadata or {})
        state = dict(checkpoint)
        checkpoint_id = state.pop("id")
        channels = state.pop("channel_values", None) or {}
        versions = _checked_versions(state.pop("channel_versions", None) or {})
        new = versions if new_versions is None else _checked_versions(new_versions)
        filled = {name: channels[name] for name in new if name in channels}
        bases = Bases()
        if parent_id is not None:
            with self._connection.snapshot() as snapshot:
                bases = reading.bases(snapshot, thread_id, namespace, parent_id, filled)
        planned = dict.fromkeys(new, NOTHING) | self._values.plan(bases, filled)
        run_id = metadata.get(RUN_ID)
        delta = metadata.get(DELTA_COUNTERS)
        delta_names = (
            [name for name in delta if name in versions] if isinstance(delta, Mapping) else []
        )
        seen = _plain_seen(state) if self._codec.models is not None else None
        names = [*versions, *new, *itertools.chain(seen or (), *(seen or {}).values())]
        stored_metadata = self._codec.encode_metadata(metadata)
        stored_state = self._codec.encode_metadata(state)

        def apply(batch: Batch) -> tuple[int, dict[str, StoredVersion]]:
            thread = ThreadEdit.find_or_add(batch, thread_id)
            space = thread.namespace(namespace)
            numbers = thread.channels(names)
            stored = {
                name: self._values.store(thread, space, numbers[name], new[name], plan)
                for name, plan in planned.items()
            }
            now = now_us()
            head = Head(
                checkpoint_id,
                parent_id,
                now,
                run_id if isinstance(run_id, str) else None,
                stored_metadata,
                stored_state,
                _numbered(versions, numbers),
                None
                if seen is None
                else [(numbers[node], _numbered(of, numbers)) for node, of in seen.items()],
                [numbers[name] for name in delta_names],
                bases.frame,
            )
            thread.put_head(space, head)
            thread.record.updated_us = now
            thread.save()
            return thread.number, stored

        def adopt(result: tuple[int, dict[str, StoredVersion]]) -> None:
            number, stored = result
            for name, plan in planned.items():
                self._values.adopt(number, plan, stored[name])

        return Change(apply, adopt)

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
        _check_texts(
            thread_id=thread_id,
            namespace=namespace,
            checkpoint_id=checkpoint_id,
            task_id=task_id,
            task_path=task_path,
        )
        new: dict[int, rec.Write] = {}
        for position, (channel, value) in enumerate(writes):
            index = SPECIAL_WRITES.get(channel, position)
            new[index] = rec.Write(task_id, index, task_path, channel, self._codec.encode(value))

        def apply(batch: Batch) -> None:
            thread = ThreadEdit.find_or_add(batch, thread_id)
            space = thread.namespace(namespace)
            key = rec.task_key(thread.number, space, checkpoint_id, task_id)
            if not thread.put_new(key, rec.pack_writes(checkpoint_id, task_id, list(new.values()))):
                body = batch.get(Table.THREADS, key)
                old = {} if body is None else {w.index: w for w in rec.unpack_writes(key, body)}
                kept = {index: write for index, write in old.items() if index >= 0}
                merged = old | new | kept
                thread.put(key, rec.pack_writes(checkpoint_id, task_id, list(merged.values())))
            thread.save()

        return Change(apply if new else _nothing)

    # --- reading ---

    def get(
        self, thread_id: str, *, namespace: str = "", checkpoint_id: str | None = None
    ) -> StoredCheckpoint | None:
        """Return a checkpoint, the newest of the namespace if no id is given, or None."""
        _check_texts(thread_id=thread_id, namespace=namespace)
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
        if filter:
            filters.validate_filter(filter)
        if thread_id is not None:
            _check_texts(thread_id=thread_id)
        if limit is not None and limit <= 0:
            return iter(())
        snapshots = self._connection.snapshot
        if thread_id is None:
            heads = reading.heads_of_all(snapshots, before)
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
            and (not filter or filters.matches(self._metadata(head), filter))
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
        metadata = self._value(head.metadata)
        return metadata if isinstance(metadata, dict) else {}

    def _decode_write(self, write: rec.Write) -> tuple[str, str, Any]:
        return write.task_id, write.channel, self._value(write.payload)

    def _decode(self, found: reading.Found) -> StoredCheckpoint:
        state = self._value(found.head.state)
        checkpoint = {
            **state,
            "id": found.head.id,
            **found.seen,
            "channel_versions": found.versions,
            "channel_values": {
                name: self._values.decode(value) for name, value in found.values.items()
            },
        }
        return StoredCheckpoint(
            found.place.thread_id,
            found.place.namespace_name,
            found.head.id,
            found.head.parent_id,
            checkpoint,
            self._metadata(found.head),
            [self._decode_write(write) for write in found.writes],
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
        if filter:
            filters.validate_filter(filter)
        found: list[ThreadInfo] = []
        with self._connection.snapshot() as snapshot:
            for info in upkeep.iterate_threads(snapshot, before):
                if len(found) >= limit:
                    break
                if not filter or filters.matches(info.metadata, filter):
                    found.append(info)
        return found

    @staticmethod
    def count(snapshot: Snapshot) -> int:
        """Return the number of threads."""
        return sum(1 for _ in snapshot.keys(Table.INDEX, bytes((Kind.THREAD_UPDATED,))))


def _nothing(_batch: Batch) -> None:
    """Write nothing."""


def _plain_seen(state: dict[str, Any]) -> dict[str, dict[str, rec.Version]] | None:
    """Take `versions_seen` out of a checkpoint if it is of the usual form; else leave it in."""
    seen = state.get("versions_seen")
    if type(seen) is not dict:
        return None
    for node, of in seen.items():
        if type(node) is not str or type(of) is not dict:
            return None
        for channel, version in of.items():
            if type(channel) is not str or type(version) not in (str, int, float):
                return None
    del state["versions_seen"]
    return seen


def _numbered(
    versions: Mapping[str, rec.Version], numbers: Mapping[str, int]
) -> Sequence[tuple[int, rec.Version]]:
    return [(numbers[name], version) for name, version in versions.items()]


def _check_texts(**texts: Any) -> None:
    for name, text in texts.items():
        if not isinstance(text, str):
            raise InvalidInputError(f"{name} is {text!r}: give a str")


def _checked_versions(versions: Mapping[Any, Any]) -> dict[str, rec.Version]:
    for channel, version in versions.items():
        if not isinstance(channel, str) or not isinstance(version, (str, int, float)):
            raise InvalidInputError(
                f"channel {channel!r} has the version {version!r}: "
                "a channel is a str, a version a str or a number"
            )
    return dict(versions)
