"""A checkpoint and pending writes on their way into the file: taken apart, then one change."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lgkv.checkpoints import records as rec
from lgkv.checkpoints.channels import NOTHING, Bases, ChannelValues
from lgkv.checkpoints.heads import Head, Versions
from lgkv.checkpoints.thread import ThreadEdit, now_us
from lgkv.checkpoints.values import BaseMovedError, StoredVersion
from lgkv.codec import Codec, Payload
from lgkv.errors import InvalidInputError
from lgkv.layout import Table
from lgkv.writer import Batch, Change

__all__ = ["Parts", "check_texts", "put_checkpoint", "put_task_writes", "take_apart"]

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

Stored = tuple[int, dict[str, StoredVersion]]
"""The thread's number, and by channel what was stored."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A checkpoint taken apart.

    `new` are the versions whose values are new at it, and `filled` those values; `kept` are
    the values of the others, which are stored already unless its parent was pruned.
    """

    id: str
    parent_id: str | None
    run_id: str | None
    metadata: Payload
    state: Payload
    versions: dict[str, rec.Version]
    new: dict[str, rec.Version]
    filled: dict[str, Any]
    kept: dict[str, Any]
    seen: dict[str, dict[str, rec.Version]] | None
    delta: list[str]

    @property
    def names(self) -> list[str]:
        """All the names that stand as numbers in its record."""
        seen = self.seen or {}
        return [*self.versions, *self.new, *itertools.chain(seen, *seen.values())]


def take_apart(
    checkpoint: Any,
    parent_id: str | None,
    metadata: Mapping[str, Any],
    new_versions: Mapping[str, rec.Version] | None,
    codec: Codec,
) -> Parts:
    """Return the parts of a checkpoint, checked, and encoded but for the channels' values."""
    if not isinstance(checkpoint, Mapping):
        raise InvalidInputError(f"the checkpoint is {checkpoint!r:.100}: give a dict")
    check_texts(checkpoint_id=checkpoint.get("id"))
    if parent_id is not None:
        check_texts(parent_id=parent_id)
    state = dict(checkpoint)
    checkpoint_id = state.pop("id")
    channels = state.pop("channel_values", None) or {}
    versions = _checked_versions(state.pop("channel_versions", None) or {})
    new = versions if new_versions is None else _checked_versions(new_versions)
    run_id, delta = metadata.get(RUN_ID), metadata.get(DELTA_COUNTERS)
    # A serialiser that may encrypt gets what the nodes have seen as well.
    seen = _take_seen(state) if codec.models is not None else None
    return Parts(
        checkpoint_id,
        parent_id,
        str(run_id) if isinstance(run_id, (str, uuid.UUID)) else None,
        codec.encode_metadata(dict(metadata)),
        codec.encode_metadata(state),
        versions,
        new,
        {name: channels[name] for name in new if name in channels},
        {name: channels[name] for name in versions if name in channels and name not in new},
        seen,
        [name for name in delta if name in versions] if isinstance(delta, Mapping) else [],
    )


def put_checkpoint(
    thread_id: str, namespace: str, parts: Parts, bases: Bases, values: ChannelValues
) -> Change[Stored]:
    """Return the change that stores a checkpoint and its new values."""
    planned = dict.fromkeys(parts.new, NOTHING) | values.plan(bases, parts.filled)
    orphaned = parts.parent_id is not None and not bases.parent
    rescued = values.plan(bases, parts.kept) if orphaned else {}

    def apply(batch: Batch) -> Stored:
        thread = ThreadEdit.find_or_add(batch, thread_id)
        space = thread.namespace(namespace)
        if bases.parent and parts.parent_id and not thread.has_checkpoint(space, parts.parent_id):
            raise BaseMovedError(f"the parent {parts.parent_id!r} is gone")
        numbers = thread.channels(parts.names)
        stored = {
            name: values.store(thread, space, numbers[name], parts.new[name], plan)
            for name, plan in planned.items()
        }
        for name, plan in rescued.items():
            key = rec.version_key(thread.number, space, numbers[name], parts.versions[name])
            if not batch.has(Table.THREADS, key):
                version = parts.versions[name]
                stored[name] = values.store(thread, space, numbers[name], version, plan)
        thread.record.updated_us = now_us()
        head = _head(parts, numbers, thread.record.updated_us, bases.frame)
        thread.put_head(space, head)
        thread.save()
        return thread.number, stored

    def adopt(result: Stored) -> None:
        number, stored = result
        for name, version in stored.items():
            values.adopt(number, planned.get(name) or rescued[name], version)

    return Change(apply, adopt)


def _head(parts: Parts, numbers: Mapping[str, int], created_us: int, frame: int) -> Head:
    return Head(
        parts.id,
        parts.parent_id,
        created_us,
        parts.run_id,
        parts.metadata,
        parts.state,
        _numbered(parts.versions, numbers),
        None
        if parts.seen is None
        else [(numbers[node], _numbered(of, numbers)) for node, of in parts.seen.items()],
        [numbers[name] for name in parts.delta],
        frame,
    )


def put_task_writes(
    thread_id: str,
    namespace: str,
    checkpoint_id: str,
    writes: Sequence[rec.Write],
) -> Change[None]:
    """Return the change that stores the pending writes of one task."""
    task_id = writes[0].task_id if writes else ""
    new = {write.index: write for write in writes}

    def apply(batch: Batch) -> None:
        if not new:
            return
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

    return Change(apply)


def check_texts(**texts: Any) -> None:
    """Raise InvalidInputError for an argument that is not a str."""
    for name, text in texts.items():
        if not isinstance(text, str):
            raise InvalidInputError(f"{name} is {text!r}: give a str")


def _take_seen(state: dict[str, Any]) -> dict[str, dict[str, rec.Version]] | None:
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


def _numbered(versions: Mapping[str, rec.Version], numbers: Mapping[str, int]) -> Versions:
    return [(numbers[name], version) for name, version in versions.items()]


def _checked_versions(versions: Mapping[Any, Any]) -> dict[str, rec.Version]:
    for channel, version in versions.items():
        if (
            not isinstance(channel, str)
            or not isinstance(version, (str, int, float))
            or (isinstance(version, int) and version.bit_length() > MAX_VERSION_BITS)
        ):
            raise InvalidInputError(
                f"channel {channel!r} has the version {version!r:.100}: a channel is a str, "
                f"a version a str or a number of at most {MAX_VERSION_BITS} bits"
            )
    return dict(versions)
