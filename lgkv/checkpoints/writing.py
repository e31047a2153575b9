"""A checkpoint and pending writes on their way into the file: taken apart, then one change."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from lgkv._heads import has_usual_seen, has_usual_versions
from lgkv.checkpoints import records as rec
from lgkv.checkpoints.apart import Shared, is_there, pieces_in, shared_value, store_apart
from lgkv.checkpoints.channels import ChannelValues, Planned
from lgkv.checkpoints.heads import ChannelEntry, Head, Versions
from lgkv.checkpoints.numbers import ROOT_NAMESPACE
from lgkv.checkpoints.pruning import free_values
from lgkv.checkpoints.reading import NO_PARENT, Parent, stored_versions, values_at
from lgkv.checkpoints.recent import Name, Recent, digest_of
from lgkv.checkpoints.thread import ThreadEdit, now_us
from lgkv.checkpoints.types import check_mappings, check_texts, run_text
from lgkv.checkpoints.values import (
    BaseMovedError,
    StoredValue,
    pack_inline,
    pack_stored,
    store_plan,
)
from lgkv.codec import Codec, Payload
from lgkv.codec.plan import INLINE, OPAQUE, Fresh
from lgkv.errors import InvalidInputError
from lgkv.layout import THREADS
from lgkv.snapshot import Snapshot
from lgkv.writer import Batch, Change

__all__ = ["CheckpointPut", "Means", "Parts", "put_task_writes", "take_apart"]

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

MAX_VERSION_BITS: Final = 256

APART_BYTES: Final = 16 << 10
"""A write of as many bytes is a piece of its own, else it lies in the record of its task."""

SHORT_BYTES: Final = 64 << 10
SHORT_WRITES: Final = 16
"""While no more is stored than this, others may wait."""

Given = tuple[Any, str | None, Mapping[str, Any], Mapping[str, rec.Version] | None]
"""A checkpoint, its parent's id, its metadata, and its new versions (None: all are)."""


class Parts(NamedTuple):
    """A checkpoint taken apart.

    `payload` is its metadata and what else it has. `new` names the channels whose values are
    new at it, and `filled` has these values: a channel that has none there is empty. `values`
    are all that were given.
    """

    id: str
    parent_id: str | None
    run_id: str | None
    payload: Payload
    versions: dict[str, rec.Version]
    new: dict[str, rec.Version]
    filled: dict[str, Any]
    values: Mapping[str, Any]
    seen: dict[str, dict[str, rec.Version]] | None
    delta: list[str]


def take_apart(
    checkpoint: Any,
    parent_id: str | None,
    metadata: Mapping[str, Any],
    new_versions: Mapping[str, rec.Version] | None,
    codec: Codec,
) -> Parts:
    """Return the parts of a checkpoint, checked, and encoded but for the channels' values."""
    if type(checkpoint) is not dict:
        check_mappings(checkpoint=checkpoint)
    checkpoint_id: Any = checkpoint.get("id")
    if type(checkpoint_id) is not str:
        check_texts(checkpoint_id=checkpoint_id)
    if parent_id is not None and type(parent_id) is not str:
        check_texts(parent_id=parent_id)
    state = dict(checkpoint)
    del state["id"]
    channels = state.pop("channel_values", None) or {}
    if type(channels) is not dict or type(metadata) is not dict:
        check_mappings(channel_values=channels, metadata=metadata)
    versions = _checked_versions(state.pop("channel_versions", None) or {})
    new = versions if new_versions is None else _checked_versions(new_versions)
    delta = metadata.get(DELTA_COUNTERS)
    # A serialiser that may encrypt gets what the nodes have seen as well.
    seen = _take_seen(state) if codec.models is not None else None
    return Parts(
        checkpoint_id,
        parent_id,
        run_text(metadata.get(RUN_ID)),
        codec.encode_parts([dict(metadata), state]),
        versions,
        new,
        {name: channels[name] for name in new if name in channels},
        channels,
        seen,
        _delta_channels(delta, versions) if delta is not None else [],
    )


def _delta_channels(counters: Any, versions: Mapping[str, rec.Version]) -> list[str]:
    return [name for name in counters if name in versions] if isinstance(counters, Mapping) else []


class Means(NamedTuple):
    """What putting checkpoints takes: one codec's values, and what memory has of the parents.

    `parent` gives what a checkpoint may build on, by thread id, namespace, the parent's id and
    the values that are new, by channel. `snapshots` gives the file as it is.
    """

    codec: Codec
    values: ChannelValues
    recent: Recent
    parent: Callable[[str, str, str, Mapping[str, Any]], Parent]
    snapshots: Callable[[], Snapshot]


Stored = tuple[dict[str, StoredValue], Parent]
"""What was stored: by channel the new values, and all of the checkpoint as a parent.

Without the values that lie in the checkpoint's record: of them there is nothing to remember.
"""


class CheckpointPut:
    """A checkpoint and its new values on their way into the file.

    A channel's value is what is given if it is new, else what the parent, or whatever other
    checkpoint, has for the version. Where none has it, as it was pruned most likely, it is what
    is given after all.
    """

    __slots__ = (
        "_given", "_kept", "_large", "_lost", "_means", "_namespace", "_parent", "_parts",
        "_planned", "_rescued", "_thread_id",
    )  # fmt: skip

    def __init__(self, means: Means, thread_id: str, namespace: str, given: Given) -> None:
        self._means, self._given = means, given
        self._thread_id, self._namespace = thread_id, namespace

    def prepare(self) -> None:
        """Take the checkpoint apart and plan its values on what its parent has.

        Raises:
            InvalidInputError: It is of the wrong form, or a part of it cannot be encoded.
        """
        means = self._means
        self._parts = parts = take_apart(*self._given, means.codec)
        parent = NO_PARENT
        if parts.parent_id is not None:
            parent = means.parent(self._thread_id, self._namespace, parts.parent_id, parts.filled)
        self._parent = parent
        self._kept, self._lost = _unchanged(parts, parent)
        self._planned = means.values.plan(parent.bases, parts.filled)
        self._large, self._rescued = _large(self._planned), {}
        lost = {name: parts.versions[name] for name in self._lost if name in parts.values}
        if lost:
            with means.snapshots() as snapshot:
                stored = stored_versions(snapshot, self._thread_id, self._namespace, lost)
            given = {name: parts.values[name] for name in lost if name not in stored}
            self._rescued = means.values.plan({}, given)

    @property
    def is_short(self) -> bool:
        """Whether, prepared, it is known to store little, and to look for nothing."""
        parts = (part for plan, _ in self._planned.values() for part in plan.parts)
        size = sum(len(part.payload[1]) for part in parts if isinstance(part, Fresh))
        return size + len(self._parts.payload[1]) <= SHORT_BYTES and not self._lost

    def apply_in_turn(self, batch: Batch) -> Stored:
        """Prepare it and apply it: so it sees what came before, which is not flushed yet."""
        self.prepare()
        try:
            return self.apply(batch)
        except BaseMovedError:  # what memory has of the parent is out of date: it is read now
            self.prepare()
            return self.apply(batch)

    def apply(self, batch: Batch) -> Stored:
        """Store it.

        Raises:
            BaseMovedError: The parent is not what it was when this was prepared.
        """
        parts, parent, recent = self._parts, self._parent, self._means.recent
        stamp = now_us()
        thread = ThreadEdit.find_or_add(batch, self._thread_id, stamp)
        space = thread.namespace(self._namespace) if self._namespace else ROOT_NAMESPACE
        parent_id = parts.parent_id
        if parent.mark is not None and thread.mark_of(space, parent_id or "") != parent.mark:
            recent.forget((self._thread_id, self._namespace, parent_id or ""))
            raise BaseMovedError(f"the parent {parent_id!r} is gone, or another")
        versions, seen = parts.versions, parts.seen
        numbers = thread.channels([versions, seen, *seen.values()] if seen else [versions])
        packed, new = self._kept, self._planned
        if self._lost:
            wanted = {(numbers[name], versions[name]): name for name in self._lost}
            framed = thread.is_framed
            packed = {**packed, **values_at(batch, thread.number, space, wanted, framed=framed)}
            given = parts.values.keys() & set(self._lost)
            gone = given - packed.keys() - self._rescued.keys()
            if gone:  # it was there when this was prepared
                raise BaseMovedError(f"no checkpoint has the value of {min(gone)!r} any more")
            new = new | {name: plan for name, plan in self._rescued.items() if name not in packed}
        elif new:
            packed = packed.copy()
        stored = {}
        for name, (plan, base) in new.items():
            if plan.form is INLINE:  # there is nothing to store beside the checkpoint
                packed[name] = pack_inline(plan.inline)
                continue
            if name in self._large and parent_id is not None:
                written_at = self._thread_id, self._namespace, parent_id
                piece = _shared(thread, recent, written_at, *self._large[name])
                value = shared_value(piece.chain)
            else:
                value = store_plan(thread, plan, base)
            stored[name] = value
            packed[name] = pack_stored(value)
        entries: dict[str, ChannelEntry] = {
            name: (numbers[name], version, packed.get(name)) for name, version in versions.items()
        }
        thread.record.updated_us = stamp
        head = Head(
            parts.id,
            parent_id,
            stamp,
            parts.run_id,
            parts.payload,
            [*entries.values()],
            None if seen is None else _numbered(seen, numbers),
            [numbers[name] for name in parts.delta] if parts.delta else [],
            parent.frame,
        )
        replaced, mark, frame = thread.put_head(space, head)
        if replaced is not None:
            free_values(thread, space, [replaced])
        thread.save()
        return stored, Parent(thread.number, mark, entries, {}, frame)

    def adopt(self, result: Stored) -> None:
        """Remember what was stored, once it is the caller's."""
        stored, checkpoint = result
        for name, value in stored.items():
            plan = self._planned.get(name) or self._rescued[name]
            self._means.values.adopt(checkpoint.thread, plan, value)
        self._means.recent.hold((self._thread_id, self._namespace, self._parts.id), checkpoint)


def _large(planned: Mapping[str, Planned]) -> dict[str, tuple[bytes, Payload]]:
    """Return the new opaque values that a pending write may have too, with their digests."""
    found = {}
    for name, (plan, _) in planned.items():
        if plan.form is OPAQUE and isinstance(plan.parts[0], Fresh):
            payload = plan.parts[0].payload
            if len(payload[1]) >= APART_BYTES:
                found[name] = digest_of(payload), payload
    return found


def _shared(
    thread: ThreadEdit, recent: Recent, written_at: Name, digest: bytes, payload: Payload
) -> Shared:
    """Return the piece that has a payload: the one of the write or of the value, or a new one."""
    piece = recent.large(written_at, digest)
    if piece is None or not is_there(thread, piece):
        piece = store_apart(thread, payload)
        recent.hold_large(written_at, digest, piece)
    return piece


def _unchanged(parts: Parts, parent: Parent) -> tuple[dict[str, bytes | None], list[str]]:
    """Return the values that are the parent's, by channel, and the channels whose are not."""
    kept: dict[str, bytes | None] = {}
    lost: list[str] = []
    if parts.versions.keys() <= parts.new.keys():
        return kept, lost
    for name, version in parts.versions.items():
        if name not in parts.new:
            entry = parent.channels.get(name)
            if entry is not None and entry[1] == version:
                kept[name] = entry[2]
            else:
                lost.append(name)
    return kept, lost


def put_task_writes(
    thread_id: str, namespace: str, checkpoint_id: str, writes: Sequence[rec.Write], recent: Recent
) -> Change[None]:
    """Return the change that stores the pending writes of one task.

    Large values become pieces, which the next checkpoint's channels can share.
    """
    task_id = writes[0].task_id if writes else ""
    new = {write.idx: write for write in writes}
    large = {
        idx: digest_of(write.payload)
        for idx, write in new.items()
        if len(write.payload[1]) >= APART_BYTES
    }
    written_at = thread_id, namespace, checkpoint_id

    def apart(thread: ThreadEdit, idx: int) -> rec.Write:
        piece = _shared(thread, recent, written_at, large[idx], new[idx].payload)
        packed = pack_stored(shared_value(piece.chain)) or b""
        return new[idx]._replace(payload=(rec.PIECE_TYPE, packed))

    def apply(batch: Batch) -> None:
        if not new:
            return
        thread = ThreadEdit.find_or_add(batch, thread_id, now_us())
        space = thread.namespace(namespace)
        key = rec.task_key(thread.number, space, checkpoint_id, task_id)
        if large or not thread.put_new(key, _packed(checkpoint_id, task_id, new)):
            body = batch.get(THREADS, key)
            old = {} if body is None else {w.idx: w for w in rec.unpack_writes(key, body)}
            kept = {idx: write for idx, write in old.items() if idx >= 0}
            merged = old | new | kept
            merged |= {idx: apart(thread, idx) for idx in large if idx not in kept}
            thread.put(key, _packed(checkpoint_id, task_id, merged))
            replaced = [write for idx, write in old.items() if merged[idx] is not write]
            if any(write.payload[0] == rec.PIECE_TYPE for write in replaced):
                free_values(thread, space, [], pieces_in(key, replaced))
        thread.save()

    return Change(apply, is_short=not large and len(new) <= SHORT_WRITES)


def _packed(checkpoint_id: str, task_id: str, writes: Mapping[int, rec.Write]) -> bytes:
    return rec.pack_writes(checkpoint_id, task_id, list(writes.values()))


def _take_seen(state: dict[str, Any]) -> dict[str, dict[str, rec.Version]] | None:
    """Take `versions_seen` out of a checkpoint if it is of the usual form; else leave it in."""
    seen = state.get("versions_seen")
    if has_usual_seen(seen):
        del state["versions_seen"]
        return seen
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
    seen: Mapping[str, Mapping[str, rec.Version]], numbers: Mapping[str, int]
) -> list[tuple[int, Versions]]:
    return [
        (numbers[node], [(numbers[name], version) for name, version in of.items()])
        for node, of in seen.items()
    ]


def _checked_versions(versions: Mapping[Any, Any]) -> dict[str, rec.Version]:
    if has_usual_versions(versions):
        return dict(versions)
    check_mappings(versions=versions)
    for channel, version in versions.items():
        if (
            not isinstance(channel, str)
            or not isinstance(version, (str, int, float))
            or (isinstance(version, int) and version.bit_length() > MAX_VERSION_BITS)
            or (isinstance(version, float) and 2.0**MAX_VERSION_BITS <= abs(version) < math.inf)
        ):
            raise InvalidInputError(
                f"channel {channel!r} has the version {version!r:.100}: a channel is a str, "
                f"a version a str or a number of at most {MAX_VERSION_BITS} bits"
            )
    return dict(versions)
