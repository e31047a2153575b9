"""What a thread may lose: old checkpoints, deleted runs, values that nothing uses.

A channel that LangGraph stores as changes (`DeltaChannel`) has no value of its own in most
checkpoints: it is rebuilt from the nearest ancestor that has one and the writes since. When
such an ancestor is pruned it stays as a *carrier*, which no listing shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lgkv.checkpoints import records as rec
from lgkv.checkpoints import values
from lgkv.checkpoints.apart import in_writes
from lgkv.checkpoints.heads import ChannelEntry, Head, frame_key
from lgkv.checkpoints.numbers import namespace_numbers
from lgkv.checkpoints.thread import ThreadEdit
from lgkv.layout import Kind, Table

__all__ = ["Keep", "drop_checkpoints", "free_values", "prune_thread"]


@dataclass(frozen=True, slots=True)
class Keep:
    """Which checkpoints of a namespace stay: the newest `newest`, and those made since."""

    newest: int = 1
    since_us: int | None = None

    def choose(self, heads: list[Head]) -> list[Head]:
        """Return what stays of `heads`, which are newest first."""
        if self.since_us is None:
            return heads[: self.newest]
        return [
            head
            for at, head in enumerate(heads)
            if at < self.newest or head.created_us >= self.since_us
        ]


def prune_thread(thread: ThreadEdit, keep: Keep) -> int:
    """Delete the checkpoints that `keep` does not choose; return how many."""
    dropped = 0
    for namespace in namespace_numbers(thread.batch, thread.number):
        heads = sorted(thread.heads(namespace), key=lambda head: head.id, reverse=True)
        kept = keep.choose(heads)
        dropped += len(heads) - len(kept)
        if len(kept) < len(heads) or thread.heads(namespace, Kind.CARRIER):
            _retain(_Dropped(thread, namespace), heads, kept)
    return dropped


def drop_checkpoints(thread: ThreadEdit, namespace: int, ids: Iterable[str]) -> None:
    """Delete checkpoints of a namespace by id, whether they are listed or carriers."""
    dropped = _Dropped(thread, namespace)
    for checkpoint_id in ids:
        for kind in (Kind.CHECKPOINT, Kind.CARRIER):
            head = thread.head(namespace, checkpoint_id, kind)
            if head is not None:
                dropped.drop(head, kind)
    heads = thread.heads(namespace)
    _retain(dropped, heads, heads)


class _Dropped:
    """Checkpoints of a namespace that are dropped, and what is to be freed with them."""

    def __init__(self, thread: ThreadEdit, namespace: int) -> None:
        self.thread, self.namespace = thread, namespace
        self.changed: list[Head] = []
        self._released: list[values.StoredValue] = []

    def drop(self, head: Head, kind: Kind = Kind.CHECKPOINT) -> None:
        """Delete a checkpoint, or a carrier, with its pending writes."""
        prefix = rec.writes_prefix(self.thread.number, self.namespace, head.id)
        self._released.extend(in_writes(self.thread.batch, prefix))
        self.thread.drop(self.namespace, head, kind)
        self.changed.append(head)

    def free(self) -> None:
        """Delete what nobody has any more."""
        free_values(self.thread, self.namespace, self.changed, self._released)


def _retain(dropped: _Dropped, heads: list[Head], kept: list[Head]) -> None:
    """Drop the checkpoints that are not `kept`, but for what `kept` is rebuilt from."""
    thread, namespace = dropped.thread, dropped.namespace
    carriers = {head.id: head for head in thread.heads(namespace, Kind.CARRIER)}
    by_id = {head.id: head for head in heads} | carriers
    rebuilt = _rebuilt_channels(by_id)
    needed = _ancestors_needed(kept, by_id, rebuilt)
    carried = {channel for head in kept for channel in rebuilt[head.id]}
    staying = {head.id for head in kept}
    for head in heads:
        if head.id in staying:
            continue
        if head.id in needed:
            thread.hide(namespace, _carrier(head, carried))
            dropped.changed.append(head)
        else:
            dropped.drop(head)
    for head in carriers.values():
        left = _carrier(head, carried)
        if head.id not in needed:
            dropped.drop(head, Kind.CARRIER)
        elif left != head:
            thread.put_carrier(namespace, left)
            dropped.changed.append(head)
    dropped.free()


def _carrier(head: Head, carried: set[int]) -> Head:
    """Return what a carrier keeps of a checkpoint: the values of the channels `carried`."""
    channels: list[ChannelEntry] = [
        (channel, version, packed if channel in carried else None)
        for channel, version, packed in head.channels
    ]
    return head._replace(channels=channels)


def _rebuilt_channels(by_id: dict[str, Head]) -> dict[str, set[int]]:
    """Return, by checkpoint, the channels that are rebuilt from its ancestors.

    They are those that its metadata counts, and those that are as they were in a parent of
    which this is true: a graph that has another type for the channel by now, or does not
    have it, counts it no more.
    """
    rebuilt: dict[str, set[int]] = {}
    for head in sorted(by_id.values(), key=lambda head: head.id):  # parents first
        channels = set(head.delta)
        if head.parent_id in rebuilt:
            unchanged = set(head.versions) & set(by_id[head.parent_id].versions)
            channels |= rebuilt[head.parent_id] & {channel for channel, _ in unchanged}
        rebuilt[head.id] = channels - head.values.keys() if channels else channels
    return rebuilt


def _ancestors_needed(
    kept: list[Head], by_id: dict[str, Head], rebuilt: dict[str, set[int]]
) -> set[str]:
    """Return the ids of the ancestors from which channels of `kept` are rebuilt."""
    needed: set[str] = set()
    for head in kept:
        wanted = rebuilt[head.id]
        parent, seen = head.parent_id, {head.id}
        while wanted and parent is not None and parent in by_id and parent not in seen:
            needed.add(parent)
            seen.add(parent)
            ancestor = by_id[parent]
            wanted = wanted - ancestor.values.keys()
            parent = ancestor.parent_id
    return needed


def free_values(
    thread: ThreadEdit,
    namespace: int,
    dropped: Iterable[Head],
    released: Iterable[values.StoredValue] = (),
) -> None:
    """Delete what nothing that remains of the namespace has.

    `dropped` are checkpoints that are no more, `released` the values of such writes.
    """
    left = [*thread.heads(namespace), *thread.heads(namespace, Kind.CARRIER)]
    frames = {frame_key(thread.number, namespace, head.frame) for head in left}
    prefix = rec.checkpoints_prefix(thread.number, namespace, Kind.FRAME)
    for key in list(thread.batch.keys(Table.THREADS, prefix)):
        if key not in frames:
            thread.delete(key)
    writes = rec.checkpoints_prefix(thread.number, namespace, Kind.WRITES)
    values.free_pieces(
        thread,
        itertools.chain(_values(thread, namespace, dropped), released),
        itertools.chain(_values(thread, namespace, left), in_writes(thread.batch, writes)),
    )


def _values(
    thread: ThreadEdit, namespace: int, heads: Iterable[Head]
) -> Iterator[values.StoredValue]:
    """Yield the values of checkpoints, each once."""
    met: set[bytes] = set()
    for head in heads:
        for packed in head.values.values():
            if packed not in met:
                met.add(packed)
                key = rec.checkpoint_key(thread.number, namespace, head.id)
                yield values.unpack_stored(key, packed)
