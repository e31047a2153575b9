"""Checkpoints read back: found in a snapshot, decoded after it is closed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from lgkv.checkpoints import records as rec
from lgkv.checkpoints.channels import Bases, Fetched
from lgkv.checkpoints.heads import Head, unpack_head
from lgkv.checkpoints.thread import (
    channel_names,
    namespace_name,
    namespace_number,
    namespace_numbers,
)
from lgkv.checkpoints.values import StoredVersion, read_version
from lgkv.codec.plan import Form
from lgkv.env import Snapshot
from lgkv.errors import CorruptionError
from lgkv.keys import TAG_BYTES, TAG_UUID, encode_text, pack_id
from lgkv.layout import Kind, Table, split_key
from lgkv.names import thread_name, thread_number

__all__ = [
    "Found",
    "Place",
    "find",
    "heads_of_all",
    "heads_of_id",
    "heads_of_thread",
    "load",
    "load_history",
    "newest_head",
    "place_of",
    "read_head",
    "writes_of",
]

PAGE: Final = 64
"""The most heads that one snapshot reads for a listing."""

_RECENT: Final = bytes((Kind.RECENT,))

Snapshots = Callable[[], Snapshot]
Fetch = Callable[[Snapshot, int, StoredVersion], Fetched]
"""Reads what decoding a value will need."""
FetchBase = Callable[[Snapshot, int, StoredVersion, Any], Fetched | None]
"""Reads what comparing a new value with a stored one will need, None if they have nothing alike."""


class Place(NamedTuple):
    """Where checkpoints lie, by number and by name."""

    thread: int
    thread_id: str
    namespace: int
    namespace_name: str


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint as stored: nothing of it is decoded yet."""

    place: Place
    head: Head
    versions: dict[str, rec.Version]
    seen: dict[str, dict[str, dict[str, rec.Version]]]
    values: dict[str, Fetched]
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
    body = snapshot.get(Table.THREADS, key)
    if body is None:
        return None
    return unpack_head(snapshot, place.thread, place.namespace, key, body)


def newest_head(snapshot: Snapshot, place: Place) -> Head | None:
    """Return the head with the greatest id of a namespace, or None."""
    newest = _heads_before(snapshot, place, None, 1)
    return newest[0] if newest else None


def find(
    snapshot: Snapshot, thread_id: str, namespace: str, checkpoint_id: str | None, fetch: Fetch
) -> Found | None:
    """Return one checkpoint, the newest of the namespace if no id is given."""
    place = place_of(snapshot, thread_id, namespace)
    if place is None:
        return None
    if checkpoint_id is None:
        head = newest_head(snapshot, place)
    else:
        head = read_head(snapshot, place, checkpoint_id, Kind.CHECKPOINT)
    return None if head is None else load(snapshot, place, head, fetch)


def load(snapshot: Snapshot, place: Place, head: Head, fetch: Fetch) -> Found:
    """Return the checkpoint of `head` with its values and pending writes."""
    names = channel_names(snapshot, place.thread)
    seen = {}
    try:
        versions = {names[channel]: version for channel, version in head.versions}
        if head.seen is not None:
            seen["versions_seen"] = {
                names[node]: {names[channel]: version for channel, version in of}
                for node, of in head.seen
            }
    except IndexError:
        key = rec.checkpoint_key(place.thread, place.namespace, head.id)
        raise CorruptionError(Table.THREADS.label, key, "a channel has no name") from None
    values = {}
    for channel, version in head.versions:
        value = _value(snapshot, place, channel, version, fetch)
        if value is not None:
            values[names[channel]] = value
    return Found(place, head, versions, seen, values, writes_of(snapshot, place, head.id))


def _value(
    snapshot: Snapshot, place: Place, channel: int, version: rec.Version, fetch: Fetch
) -> Fetched | None:
    stored = read_version(snapshot, place.thread, place.namespace, channel, version)
    if stored is None or stored.form is Form.EMPTY:
        return None
    return fetch(snapshot, place.thread, stored)


def bases(
    snapshot: Snapshot,
    place: Place | None,
    parent_id: str,
    new: Mapping[str, Any],
    fetch: FetchBase,
) -> Bases:
    """Return what a new checkpoint with values `new` may build on: what its parent has."""
    head = None if place is None else read_head(snapshot, place, parent_id, Kind.CHECKPOINT)
    if place is None or head is None:
        return Bases()
    versions, found = dict(head.versions), {}
    numbers = {name: at for at, name in enumerate(channel_names(snapshot, place.thread))}
    for name, value in new.items():
        number = numbers.get(name, -1)
        if number in versions:
            version = versions[number]
            stored = read_version(snapshot, place.thread, place.namespace, number, version)
            base = None if stored is None else fetch(snapshot, place.thread, stored, value)
            if base is not None:
                found[name] = version, base
    return Bases(place.thread, found, head.frame, parent=True)


def writes_of(snapshot: Snapshot, place: Place, checkpoint_id: str) -> list[rec.Write]:
    """Return the pending writes of a checkpoint in LangGraph's `writes_sort_key` order."""
    prefix = rec.writes_prefix(place.thread, place.namespace, checkpoint_id)
    writes: list[rec.Write] = []
    for key, body in snapshot.scan(Table.THREADS, prefix):
        writes.extend(rec.unpack_writes(key, body))
    return sorted(writes, key=lambda write: write.order)


# --- listings: newest id first, a page of heads to a snapshot ------------------------------


class _Bound(NamedTuple):
    """An id as UTF-8 and the key that it has, or would have: listings go on below it."""

    raw: bytes
    key: bytes


def _bound(prefix: bytes, before: str | None) -> _Bound | None:
    return None if before is None else _Bound(encode_text(before), prefix + pack_id(before))


def _descending(
    snapshot: Snapshot, table: Table, prefix: bytes, below: _Bound | None
) -> Iterator[_Bound]:
    """Yield ids and keys, descending as the ids do as texts.

    Ids that are UUIDs and ids that are not lie in two ranges, which are merged.
    """
    ranges = (_range(snapshot, table, prefix, tag, below) for tag in (TAG_UUID, TAG_BYTES))
    return heapq.merge(*ranges, reverse=True)


def _range(
    snapshot: Snapshot, table: Table, prefix: bytes, tag: int, below: _Bound | None
) -> Iterator[_Bound]:
    same = below is not None and below.key[len(prefix)] == tag
    stop = below.key if below is not None and same else None
    for key in snapshot.keys(table, prefix + bytes((tag,)), stop=stop, reverse=True):
        raw = rec.id_in_key(key, len(prefix))
        if below is None or same or raw < below.raw:
            yield _Bound(raw, key)


def _heads_before(snapshot: Snapshot, place: Place, before: str | None, count: int) -> list[Head]:
    prefix = rec.checkpoints_prefix(place.thread, place.namespace)
    heads = []
    for _, key in _descending(snapshot, Table.THREADS, prefix, _bound(prefix, before)):
        body = snapshot.get(Table.THREADS, key)
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


def heads_of_all(snapshots: Snapshots, before: str | None) -> Iterator[tuple[Place, Head]]:
    """Yield the heads of all threads, newest id first."""
    names: dict[int, str] = {}
    count, below = 1, _bound(_RECENT, before)
    while True:
        with snapshots() as snapshot:
            page, below = _recent_page(snapshot, names, below, count)
        yield from page
        if below is None:
            return
        count = min(count * 4, PAGE)


def _recent_page(
    snapshot: Snapshot, names: dict[int, str], below: _Bound | None, count: int
) -> tuple[list[tuple[Place, Head]], _Bound | None]:
    """Return a page of heads, and where to go on, or None at the end."""
    page = []
    for bound in _descending(snapshot, Table.INDEX, _RECENT, below):
        key = bound.key
        _, thread, namespace = split_key(Table.INDEX, key, 1, "iuu")
        head_key = rec.checkpoints_prefix(thread, namespace) + key[1 : rec.id_end(key, 1)]
        body = snapshot.get(Table.THREADS, head_key)
        if body is None:
            raise CorruptionError(
                Table.INDEX.label, key, "the index names a checkpoint that is missing"
            )
        if thread not in names:
            names[thread] = thread_name(snapshot, thread)
        name = namespace_name(snapshot, thread, namespace)
        head = unpack_head(snapshot, thread, namespace, head_key, body)
        page.append((Place(thread, names[thread], namespace, name), head))
        if len(page) == count:
            return page, bound
    return page, None


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
        versions = dict(head.versions)
        for name in list(remaining):
            number = numbers.get(name)
            if number is None or number not in versions:
                continue
            seed = _value(snapshot, place, number, versions[number], fetch)
            if seed is not None:
                seeds[name] = seed
                remaining.discard(name)
        parent = head.parent_id
    return {name: found[::-1] for name, found in writes.items()}, seeds


def _target(snapshot: Snapshot, place: Place, checkpoint_id: str | None) -> Head | None:
    if checkpoint_id is not None:
        return read_head(snapshot, place, checkpoint_id, Kind.CHECKPOINT)
    return newest_head(snapshot, place)
