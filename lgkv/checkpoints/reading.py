"""Checkpoints read back: found in a snapshot, decoded after it is closed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from lgkv.checkpoints import records as rec
from lgkv.checkpoints.apart import resolved
from lgkv.checkpoints.channels import Fetched
from lgkv.checkpoints.heads import (
    FRAMED_FROM,
    ChannelEntry,
    Head,
    name_channels,
    pack_whole_version,
    unpack_head,
)
from lgkv.checkpoints.numbers import (
    channel_names,
    namespace_number,
    namespace_numbers,
)
from lgkv.checkpoints.order import bound_of, descending
from lgkv.checkpoints.values import INLINE_BYTE, StoredValue, unpack_stored
from lgkv.codec import Payload
from lgkv.env import Snapshot
from lgkv.errors import CorruptionError
from lgkv.keys import TAG_UUID, encode_text, pack_uint
from lgkv.layout import KIND_BYTES, THREADS, Kind, Table
from lgkv.names import thread_number

__all__ = [
    "NO_PARENT",
    "Found",
    "Parent",
    "Place",
    "find",
    "heads_of_id",
    "heads_of_thread",
    "load",
    "load_history",
    "newest_head",
    "place_of",
    "read_head",
    "read_parent",
    "stored_versions",
    "values_at",
    "with_bases",
    "writes_of",
]

_BEHIND_WRITES: Final = KIND_BYTES[Kind.WRITES + 1]

PAGE: Final = 64
"""The most heads that one snapshot reads for a listing."""

Snapshots = Callable[[], Snapshot]
Fetch = Callable[[Snapshot, int, StoredValue], Fetched]
"""Reads what decoding a value will need."""
FetchBase = Callable[[Snapshot | None, int, StoredValue, Any], Fetched | None]
"""Reads what comparing a new value with a stored one will need, None if they have nothing alike."""


class Place(NamedTuple):
    """Where checkpoints lie, by number and by name."""

    thread: int
    thread_id: str
    namespace: int
    namespace_name: str


class Found(NamedTuple):
    """A checkpoint as stored: nothing of it is decoded yet.

    A value that lies in the checkpoint's record is a payload.
    """

    place: Place
    head: Head
    versions: dict[str, rec.Version]
    seen: dict[str, dict[str, rec.Version]] | None
    values: dict[str, Fetched | Payload]
    writes: list[rec.Write]


def place_of(snapshot: Snapshot, thread_id: str, namespace: str) -> Place | None:
    """Return the place of a namespace of a thread, or None."""
    thread = thread_number(snapshot, thread_id)
    if thread is None:
        return None
    number = namespace_number(snapshot, thread, namespace)
    return None if number is None else Place(thread, thread_id, number, namespace)


def read_head(snapshot: Snapshot, place: Place, checkpoint_id: str, kind: Kind) -> Head | None:
    """Return the head of a checkpoint, or None."""
    key = rec.checkpoint_key(place.thread, place.namespace, checkpoint_id, kind)
    body = snapshot.get(THREADS, key)
    if body is None:
        return None
    return unpack_head(snapshot, place.thread, place.namespace, key, body)


def newest_head(snapshot: Snapshot, place: Place) -> Head | None:
    """Return the head with the greatest id of a namespace, or None."""
    return _newest(snapshot, place)[0]


def _newest(snapshot: Snapshot, place: Place) -> tuple[Head | None, bool]:
    """Return the head with the greatest id of a namespace, and whether writes may be pending."""
    prefix = rec.checkpoints_prefix(place.thread, place.namespace)
    found = snapshot.last(THREADS, prefix)
    if found is None:
        return None, True
    key, body, behind = found
    if key[len(prefix)] == TAG_UUID:  # it is the last: so there are no other ids
        head = unpack_head(snapshot, place.thread, place.namespace, key, body)
        # All checkpoints of the thread come before all of its pending writes.
        return head, bool(behind) and behind < pack_uint(place.thread) + _BEHIND_WRITES
    newest = _heads_before(snapshot, place, None, 1)
    return (newest[0] if newest else None), True


def find(
    snapshot: Snapshot, thread_id: str, namespace: str, checkpoint_id: str | None, fetch: Fetch
) -> Found | None:
    """Return one checkpoint, the newest of the namespace if no id is given."""
    place = place_of(snapshot, thread_id, namespace)
    if place is None:
        return None
    written = True
    if checkpoint_id is None:
        head, written = _newest(snapshot, place)
    else:
        head = read_head(snapshot, place, checkpoint_id, Kind.CHECKPOINT)
    return None if head is None else load(snapshot, place, head, fetch, written=written)


def load(
    snapshot: Snapshot, place: Place, head: Head, fetch: Fetch, *, written: bool = True
) -> Found:
    """Return the checkpoint of `head` with its values and, if any can be, its pending writes."""
    names = channel_names(snapshot, place.thread)
    key = rec.checkpoint_key(place.thread, place.namespace, head.id)
    try:
        versions, packed, seen = name_channels(head.channels, head.seen, names)
    except IndexError:
        raise CorruptionError(Table.THREADS.label, key, "a channel has no name") from None
    values: dict[str, Fetched | Payload] = {}
    for name, value in packed.items():
        values[name] = (
            fetch(snapshot, place.thread, unpack_stored(key, value))
            if isinstance(value, bytes)
            else value
        )
    writes = writes_of(snapshot, place, head.id) if written else []
    return Found(place, head, versions, seen, values, writes)


def _stored(place: Place, head: Head, packed: bytes) -> StoredValue:
    return unpack_stored(rec.checkpoint_key(place.thread, place.namespace, head.id), packed)


NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Parent(NamedTuple):
    """What a new checkpoint may build on: its parent as it was read, or written just now.

    `mark` is that of its record, None if there is no parent. By channel: `channels` are
    number, version and packed value, `bases` what comparing new values with the parent's needs.
    """

    thread: int = 0
    mark: bytes | None = None
    channels: Mapping[str, ChannelEntry] = NOTHING
    bases: Mapping[str, Fetched] = NOTHING
    frame: int = 0


NO_PARENT: Final = Parent()


def read_parent(
    snapshot: Snapshot,
    place: Place | None,
    parent_id: str,
    new: Mapping[str, Any],
    fetch: FetchBase,
) -> Parent:
    """Return what a checkpoint with the new values `new` may build on."""
    if place is None:
        return NO_PARENT
    key = rec.checkpoint_key(place.thread, place.namespace, parent_id)
    found = snapshot.get_marked(THREADS, key)
    if found is None:
        return NO_PARENT
    body, mark = found
    head = unpack_head(snapshot, place.thread, place.namespace, key, body)
    names = channel_names(snapshot, place.thread)
    try:
        channels = {names[entry[0]]: entry for entry in head.channels}
    except IndexError:
        raise CorruptionError(Table.THREADS.label, key, "a channel has no name") from None
    parent = Parent(place.thread, mark, channels, {}, head.frame)
    return with_bases(parent, snapshot, key, new, fetch)


def stored_versions(
    snapshot: Snapshot, thread_id: str, namespace: str, versions: Mapping[str, rec.Version]
) -> Collection[str]:
    """Return the channels of which a checkpoint of the namespace has the value at a version."""
    place = place_of(snapshot, thread_id, namespace)
    if place is None:
        return ()
    names = channel_names(snapshot, place.thread)
    numbers = {name: number for number, name in enumerate(names)}
    wanted = {(numbers[name], versions[name]): name for name in versions if name in numbers}
    framed = len(names) >= FRAMED_FROM
    return values_at(snapshot, place.thread, place.namespace, wanted, framed=framed)


def values_at(
    snapshot: Snapshot,
    thread: int,
    namespace: int,
    wanted: Mapping[tuple[int, rec.Version], str],
    *,
    framed: bool,
) -> dict[str, bytes]:
    """Return what the checkpoints of a namespace have for versions, by the name of the channel.

    `wanted` has the names by the channels' numbers and versions; `framed` is whether a head may
    name a frame instead of a version.
    """
    packed = [pack_whole_version(version) for _, version in wanted]
    missing, found = dict(wanted), {}
    prefix = rec.checkpoints_prefix(thread, namespace)
    for key, body in snapshot.scan(THREADS, prefix, reverse=True):
        if not missing:
            break
        if framed or any(each in body for each in packed):
            head = unpack_head(snapshot, thread, namespace, key, body)
            for channel, version, value in head.channels:
                if value is not None and (channel, version) in missing:
                    found[missing.pop((channel, version))] = value
    return found


def with_bases(
    parent: Parent,
    snapshot: Snapshot | None,
    key: bytes,
    new: Mapping[str, Any],
    fetch: FetchBase,
) -> Parent:
    """Return the parent under `key` with what comparing the new values with its own needs.

    Raises:
        LookupError: There is no snapshot, and memory does not hold all of it.
    """
    bases = {}
    for name, value in new.items():
        packed = parent.channels[name][2] if name in parent.channels else None
        if packed is not None and packed[:1] != INLINE_BYTE:  # of which none is a base
            base = fetch(snapshot, parent.thread, unpack_stored(key, packed), value)
            if base is not None:
                bases[name] = base
    if not bases:
        return parent
    return Parent(parent.thread, parent.mark, parent.channels, bases, parent.frame)


def writes_of(snapshot: Snapshot, place: Place, checkpoint_id: str) -> list[rec.Write]:
    """Return the pending writes of a checkpoint in LangGraph's `writes_sort_key` order."""
    prefix = rec.writes_prefix(place.thread, place.namespace, checkpoint_id)
    if not snapshot.has(THREADS, prefix):  # as it is most often, and found sooner
        return []
    writes: list[rec.Write] = []
    for key, body in snapshot.scan(THREADS, prefix):
        stored = rec.unpack_writes(key, body)
        writes.extend(resolved(snapshot, place.thread, key, write) for write in stored)
    return sorted(writes, key=lambda write: write.order)


# --- listings: newest id first, a page of heads to a snapshot ------------------------------


def _heads_before(snapshot: Snapshot, place: Place, before: str | None, count: int) -> list[Head]:
    prefix = rec.checkpoints_prefix(place.thread, place.namespace)
    heads = []
    for _, key in descending(snapshot, THREADS, prefix, bound_of(prefix, before)):
        body = snapshot.get(THREADS, key)
        if body is not None:
            heads.append(unpack_head(snapshot, place.thread, place.namespace, key, body))
        if len(heads) == count:
            break
    return heads


def heads_of_thread(
    snapshots: Snapshots, thread_id: str, namespace: str | None, before: str | None
) -> Iterator[tuple[Place, Head]]:
    """Yield the heads of a thread, of all its namespaces if none is given, newest id first."""
    with snapshots() as snapshot:
        places = _places(snapshot, thread_id, namespace)
    pages = [_pages(snapshots, place, before) for place in places]
    yield from heapq.merge(*pages, key=lambda found: encode_text(found[1].id), reverse=True)


def heads_of_id(
    snapshots: Snapshots, thread_id: str, namespace: str | None, checkpoint_id: str
) -> Iterator[tuple[Place, Head]]:
    """Yield the heads of one id in a thread, of all its namespaces if none is given."""
    with snapshots() as snapshot:
        found = [
            (place, read_head(snapshot, place, checkpoint_id, Kind.CHECKPOINT))
            for place in _places(snapshot, thread_id, namespace)
        ]
    return ((place, head) for place, head in found if head is not None)


def _places(snapshot: Snapshot, thread_id: str, namespace: str | None) -> list[Place]:
    if namespace is not None:
        place = place_of(snapshot, thread_id, namespace)
        return [] if place is None else [place]
    thread = thread_number(snapshot, thread_id)
    if thread is None:
        return []
    return [
        Place(thread, thread_id, number, name)
        for number, name in namespace_numbers(snapshot, thread).items()
    ]


def _pages(snapshots: Snapshots, place: Place, before: str | None) -> Iterator[tuple[Place, Head]]:
    count = 1
    while True:
        with snapshots() as snapshot:
            heads = _heads_before(snapshot, place, before, count)
        for head in heads:
            yield place, head
        if len(heads) < count:
            return
        before, count = heads[-1].id, min(count * 4, PAGE)


# --- channels that are stored as changes ---------------------------------------------------


def load_history(  # noqa: PLR0917  what names a checkpoint, and what to read of it
    snapshot: Snapshot,
    thread_id: str,
    namespace: str,
    checkpoint_id: str | None,
    channels: list[str],
    fetch: Fetch,
) -> tuple[dict[str, list[rec.Write]], dict[str, Fetched]]:
    """Return, by channel, the writes since the seed, oldest first, and the seed if there is one.

    The walk begins at the parent of the checkpoint and follows parents, through carriers
    too. A channel ends at the nearest ancestor that has a value of its own; that one's
    writes are in.
    """
    writes: dict[str, list[rec.Write]] = {name: [] for name in channels}
    seeds: dict[str, Fetched] = {}
    place = place_of(snapshot, thread_id, namespace)
    target = None if place is None else _target(snapshot, place, checkpoint_id)
    if place is None or target is None:
        return writes, seeds
    numbers = {name: number for number, name in enumerate(channel_names(snapshot, place.thread))}
    remaining, parent, seen = set(channels), target.parent_id, {target.id}
    while remaining and parent is not None and parent not in seen:
        seen.add(parent)
        head = read_head(snapshot, place, parent, Kind.CHECKPOINT) or read_head(
            snapshot, place, parent, Kind.CARRIER
        )
        if head is None:
            break
        for write in reversed(writes_of(snapshot, place, parent)):
            if write.channel in remaining:
                writes[write.channel].append(write)
        values = head.values
        for name in list(remaining):
            packed = values.get(numbers.get(name, -1))
            if packed is not None:
                seeds[name] = fetch(snapshot, place.thread, _stored(place, head, packed))
                remaining.discard(name)
        parent = head.parent_id
    return {name: found[::-1] for name, found in writes.items()}, seeds


def _target(snapshot: Snapshot, place: Place, checkpoint_id: str | None) -> Head | None:
    if checkpoint_id is not None:
        return read_head(snapshot, place, checkpoint_id, Kind.CHECKPOINT)
    return newest_head(snapshot, place)
