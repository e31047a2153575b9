"""Checkpoint ids in keys, newest first.

Ids that are UUIDs and ids that are not lie in two ranges of keys; a listing merges them, so
that they come in the order of their texts.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Final, NamedTuple

from lgkv.checkpoints import records as rec
from lgkv.keys import TAG_BYTES, TAG_UUID, encode_text, pack_id
from lgkv.layout import Kind, Table
from lgkv.snapshot import Snapshot

__all__ = ["LATEST", "Bound", "bound_of", "descending"]

LATEST: Final = bytes((Kind.LATEST,))
"""The prefix of the index keys that order threads by their newest checkpoint."""


class Bound(NamedTuple):
    """An id as UTF-8 and the key that it has, or would have: listings go on below it."""

    raw: bytes
    key: bytes


def bound_of(prefix: bytes, checkpoint_id: str | None) -> Bound | None:
    """Return the bound of an id among the keys with `prefix`."""
    if checkpoint_id is None:
        return None
    return Bound(encode_text(checkpoint_id), prefix + pack_id(checkpoint_id))


def descending(
    snapshot: Snapshot, table: Table, prefix: bytes, below: Bound | None
) -> Iterator[Bound]:
    """Yield ids and keys with `prefix`, descending as the ids do as texts."""
    uuids = _range(snapshot, table, prefix, TAG_UUID, below)
    others = _range(snapshot, table, prefix, TAG_BYTES, below)
    first = next(others, None)
    if first is None:  # as it is most often
        return uuids
    return heapq.merge(uuids, itertools.chain((first,), others), reverse=True)


def _range(
    snapshot: Snapshot, table: Table, prefix: bytes, tag: int, below: Bound | None
) -> Iterator[Bound]:
    same = below is not None and below.key[len(prefix)] == tag
    stop = below.key if below is not None and same else None
    for key in snapshot.keys(table, prefix + bytes((tag,)), stop=stop, reverse=True):
        raw = rec.id_in_key(key, len(prefix))
        if below is None or same or raw < below.raw:
            yield Bound(raw, key)
