"""What a thread may lose: old checkpoints, deleted runs, values that nothing uses.

A channel that LangGraph stores as changes (`DeltaChannel`) has no value of its own in most
checkpoints: it is rebuilt from the nearest ancestor that has one and the writes since. When
such an ancestor is pruned it stays as a *carrier*, which no listing shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lgkv.checkpoints import records as rec
from lgkv.checkpoints import values
from lgkv.checkpoints.heads import Head, frame_key
from lgkv.checkpoints.thread import ThreadEdit, namespace_numbers
from lgkv.codec.plan import Form
from lgkv.layout import Kind, Table

__all__ = ["Keep", "drop_checkpoints", "prune_thread"]


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
            _retain(thread, namespace, heads, kept)
    return dropped


def drop_checkpoints(thread: ThreadEdit, namespace: int, ids: Iterable[str]) -> None:
    """Delete checkpoints of a namespace by id, whether they are listed or carriers."""
    for checkpoint_id in ids:
        for kind in (Kind.CHECKPOINT, Kind.CARRIER):
            head = thread.head(namespace, checkpoint_id, kind)
            if head is not None:
                thread.drop(namespace, head, kind)
    heads = thread.heads(namespace)
    _retain(thread, namespace, heads, heads)


def _retain(thread: ThreadEdit, namespace: int, heads: list[Head], kept: list[Head]) -> None:
    """Drop the checkpoints that are not `kept`, but for what `kept` is rebuilt from."""
    carriers = {head.id: head for head in thread.heads(namespace, Kind.CARRIER)}
    by_id = {head.id: head for head in heads} | carriers
    stored = _stored_in(thread, namespace)
    rebuilt = _rebuilt_channels(by_id, stored)
    needed = _ancestors_needed(kept, by_id, rebuilt, stored)
    staying = {head.id for head in kept}
    for head in heads:
        if head.id in staying:
            continue
        if head.id in needed:
            thread.hide(namespace, head)
        else:
            thread.drop(namespace, head)
    for head in carriers.values():
        if head.id not in needed:
            thread.drop(namespace, head, Kind.CARRIER)
    _free_versions(thread, namespace, {c for head in kept for c in rebuilt[head.id]})


def _stored_in(thread: ThreadEdit, namespace: int) -> Callable[[Head, int], bool]:
    """Return a test of whether a checkpoint has a value of its own for a channel."""

    def stored(head: Head, channel: int) -> bool:
        for number, version in head.versions:
            if number == channel:
                found = values.read_version(
                    thread.batch, thread.number, namespace, channel, version
                )
                return found is not None and found.form is not Form.EMPTY
        return False

    return stored


def _rebuilt_channels(
    by_id: dict[str, Head], stored: Callable[[Head, int], bool]
) -> dict[str, set[int]]:
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
        rebuilt[head.id] = {channel for channel in channels if not stored(head, channel)}
    return rebuilt


def _ancestors_needed(
    kept: list[Head],
    by_id: dict[str, Head],
    rebuilt: dict[str, set[int]],
    stored: Callable[[Head, int], bool],
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
            wanted = {channel for channel in wanted if not stored(ancestor, channel)}
            parent = ancestor.parent_id
    return needed


def _free_versions(thread: ThreadEdit, namespace: int, rebuilt: set[int]) -> None:
    """Delete the values that no remaining checkpoint of the namespace uses.

    Of carriers the values of the channels in `rebuilt` are used.
    """
    used: set[bytes] = set()
    for head in thread.heads(namespace):
        used.update(_version_keys(thread, namespace, head.versions))
        used.add(frame_key(thread.number, namespace, head.frame))
    for head in thread.heads(namespace, Kind.CARRIER):
        used.add(frame_key(thread.number, namespace, head.frame))
        carried = [(channel, version) for channel, version in head.versions if channel in rebuilt]
        used.update(_version_keys(thread, namespace, carried))
    prefix = rec.checkpoints_prefix(thread.number, namespace, Kind.VERSION)
    frames = rec.checkpoints_prefix(thread.number, namespace, Kind.FRAME)
    for key in list(thread.batch.keys(Table.THREADS, frames)):
        if key not in used:
            thread.delete(key)
    dropped: dict[int, list[values.StoredVersion]] = defaultdict(list)
    staying: dict[int, list[values.StoredVersion]] = defaultdict(list)
    for key, body in list(thread.batch.scan(Table.THREADS, prefix)):
        channel = rec.channel_in_key(key, len(prefix))
        (staying if key in used else dropped)[channel].append(values.unpack_stored(key, body))
        if key not in used:
            thread.delete(key)
    for channel, versions in dropped.items():
        values.free_pieces(thread, versions, staying[channel])


def _version_keys(
    thread: ThreadEdit, namespace: int, versions: list[tuple[int, rec.Version]]
) -> Iterable[bytes]:
    return (rec.version_key(thread.number, namespace, channel, v) for channel, v in versions)
