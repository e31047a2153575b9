"""Writing items: what one change does to records, packs, deadlines and indexes.

New entries go behind a namespace's last pack, so a namespace's packs are in the order of
its updates, whatever the clocks of several processes say: no item of a namespace is given
an earlier time than the one before it. An entry that is replaced or deleted is cut out of
its pack, and the pack goes with its last entry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from lgkv.errors import CorruptionError
from lgkv.expiry import due, is_past, move_deadline
from lgkv.keys import pack_bytes, pack_uint
from lgkv.keywords import KeywordChanges
from lgkv.layout import MEMORY, Kind, Table
from lgkv.memory.fields import fields_of, index_item, unindex_item
from lgkv.memory.items import (
    PACK_BYTES,
    ItemRecord,
    Place,
    checked,
    find_entry,
    item_key,
    node_of,
    pack_entry,
    pack_key,
    place_bytes,
    read_place,
    unpack_item,
    unpack_place,
    without_entries,
)
from lgkv.memory.preparing import Prepared
from lgkv.nodes import Node, Tree
from lgkv.vectors import IndexConfig, VectorChanges, VectorState
from lgkv.writer import Batch

__all__ = ["SWEEP_ITEMS", "apply", "sweep"]

SWEEP_ITEMS: Final = 1000
"""The most expired items that one commit deletes: others need not wait long for the lock."""


@dataclass(slots=True)
class _Pack:
    """A pack that a change has read."""

    key: bytes
    stored: bytes
    gone: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Work:
    """What a change does to one namespace: the packs it cuts, the entries it adds."""

    node: Node
    prefix: bytes
    packs: dict[bytes, _Pack] = field(default_factory=dict)
    new: list[tuple[bytes, Place, bytes]] = field(default_factory=list)


def apply(
    batch: Batch,
    puts: Iterable[Prepared],
    refresh: Collection[bytes],
    now: int,
    config: IndexConfig | None = None,
) -> VectorState | None:
    """Write `puts`, of which no two are of one item, and move the deadlines of `refresh`.

    Returns the counters of the vectors, if any were changed.
    """
    for suffix in refresh:
        _refresh(batch, suffix, now)
    change = _Change(batch, now, config)
    change.put_all(puts)
    return change.save()


def sweep(batch: Batch, now: int) -> int:
    """Delete up to 1,000 items that have expired by `now`; return how many."""
    change = _Change(batch, now)
    swept = 0
    for deadline, suffix in list(islice(due(batch, Kind.ITEM_DEADLINE, now), SWEEP_ITEMS)):
        swept += change.expire(suffix, deadline)
    change.save()
    return swept


class _Change:
    """The items of one change. What it does to packs and namespaces is written by `save`."""

    def __init__(self, batch: Batch, now: int, config: IndexConfig | None = None) -> None:
        self._batch, self._now = batch, now
        self._vectors = VectorChanges(batch, config)
        self._tree = Tree(batch)
        self._fields = fields_of(batch)
        self._keywords = KeywordChanges(batch)
        self._works: dict[int, _Work] = {}

    # --- items ---

    def put_all(self, puts: Iterable[Prepared]) -> None:
        """Store and delete items, of which no two are the same."""
        places, keys = [], []
        works: dict[tuple[str, ...], _Work] = {}
        for put in puts:
            namespace = put.namespace
            work = works.get(namespace)
            if work is None:
                node = (self._tree.find if put.encoded is None else self._tree.make)(namespace)
                if node is None:
                    continue
                work = works[namespace] = self._work(node)
            suffix = work.prefix + pack_bytes(put.key)
            places.append((put, work, suffix))
            keys.append(item_key(suffix))
        bodies = self._batch.get_all(MEMORY, keys)
        for (put, work, suffix), body in zip(places, bodies, strict=True):
            old = None if body is None else self._take(work, suffix, body)
            if put.encoded is not None:
                self._store(work, suffix, put, put.encoded, old)
            elif old is not None:
                self._remove(work, suffix, old)

    def expire(self, suffix: bytes, deadline: int) -> int:
        """Delete the item if it has this deadline; return how many were deleted."""
        found = read_place(self._batch, suffix)
        if found is None:  # a stray entry of the index
            move_deadline(self._batch, Kind.ITEM_DEADLINE, suffix, deadline, 0)
            return 0
        work = self._work(self._tree.node(checked(item_key(suffix), node_of, suffix)))
        pack, old = self._find(work, *found)
        if old.deadline_us != deadline:  # likewise
            move_deadline(self._batch, Kind.ITEM_DEADLINE, suffix, deadline, 0)
            return 0
        self._cut(work.node, pack, old)
        self._remove(work, suffix, old)
        return 1

    def _store(
        self, work: _Work, suffix: bytes, put: Prepared, encoded: bytes, old: ItemRecord | None
    ) -> None:
        batch, node, now = self._batch, work.node, self._now
        _, key, _, vectors, ttl_us, words = put
        state = batch.state
        state.sequence = sequence = state.sequence + 1
        updated = node.newest[0]
        updated = max(now, updated)
        node.newest = place = updated, sequence
        created = updated if old is None or is_past(old.deadline_us, now) else old.created_us
        deadline = now + ttl_us if ttl_us else 0
        entry = pack_entry(updated, sequence, created, ttl_us, deadline, key, encoded)
        work.new.append((suffix, place, entry))
        if old is not None:
            self._vectors.remove(suffix)
        if vectors is not None:
            self._vectors.put(node.number, suffix, vectors)
        if words is not None or old is not None:
            self._keywords.put(node.number, suffix, words or {})
        before = 0 if old is None else old.deadline_us
        if before or deadline:
            move_deadline(batch, Kind.ITEM_DEADLINE, suffix, before, deadline)
            node.expiring += (deadline > 0) - (before > 0)
        if old is None:
            node.items += 1

    def _remove(self, work: _Work, suffix: bytes, old: ItemRecord) -> None:
        self._batch.delete(MEMORY, item_key(suffix))
        self._vectors.remove(suffix)
        move_deadline(self._batch, Kind.ITEM_DEADLINE, suffix, old.deadline_us, 0)
        work.node.expiring -= old.deadline_us > 0
        work.node.items -= 1
        self._keywords.put(work.node.number, suffix, {})

    # --- where things are ---

    def _work(self, node: Node) -> _Work:
        work = self._works.get(node.number)
        if work is None:
            work = self._works[node.number] = _Work(node, pack_uint(node.number))
        return work

    def _take(self, work: _Work, suffix: bytes, body: bytes) -> ItemRecord:
        """Return the item at `suffix`, which is to be cut out of its pack."""
        pack, old = self._find(work, *unpack_place(suffix, body))
        self._cut(work.node, pack, old)
        return old

    def _cut(self, node: Node, pack: _Pack, old: ItemRecord) -> None:
        """Note that an entry is to leave its pack, and take it out of the fields' index."""
        pack.gone.add(old.sequence)
        if self._fields.fields:
            checked(pack.key, unindex_item, self._batch, self._fields, node.number, old)

    def _find(self, work: _Work, key: bytes, sequence: int) -> tuple[_Pack, ItemRecord]:
        pack = self._pack(work, key)
        at = -1 if pack is None else checked(key, find_entry, pack.stored, sequence)
        if pack is None or at < 0:
            raise CorruptionError(Table.MEMORY.label, key, "the item is not where it should be")
        return pack, unpack_item(key, pack.stored, at)

    def _pack(self, work: _Work, key: bytes) -> _Pack | None:
        pack = work.packs.get(key)
        if pack is None:
            stored = self._batch.get(MEMORY, key)
            if stored is None:
                return None
            pack = work.packs[key] = _Pack(key, stored)
        return pack

    # --- saving ---

    def save(self) -> VectorState | None:
        """Write the packs, the namespaces and the vectors; return the counters of these."""
        for work in self._works.values():
            self._tree.changed(work.node)
            if work.new:
                self._append(work)
            for pack in work.packs.values():
                if pack.gone:
                    rest = checked(pack.key, without_entries, pack.stored, pack.gone)
                    self._write(pack, rest)
        self._keywords.save()
        self._tree.save()
        return self._vectors.save()

    def _append(self, work: _Work) -> None:
        """Put the new entries behind the last pack, and into new ones as it fills up."""
        node = work.node
        last = self._pack(work, pack_key(node.number, node.last_pack))
        if last is None:
            last = self._begin(work, node, work.new[0][1])
        body = last.stored
        if last.gone:
            body = checked(last.key, without_entries, body, last.gone)
        parts, size = [body], len(body)
        records, pack = [], place_bytes(node.last_pack)
        for suffix, place, entry in work.new:
            if size and size + len(entry) > PACK_BYTES:
                self._write(last, b"".join(parts))
                last, parts, size = self._begin(work, node, place), [], 0
                pack = place_bytes(place)
            parts.append(entry)
            size += len(entry)
            records.append((item_key(suffix), pack + place[1].to_bytes(8, "big")))
            if self._fields.fields:
                record = unpack_item(last.key, entry, 0)
                index_item(self._batch, self._fields, node.number, record, node.last_pack)
        self._write(last, b"".join(parts))
        self._batch.set_all(MEMORY, records)

    @staticmethod
    def _begin(work: _Work, node: Node, place: Place) -> _Pack:
        node.last_pack = place
        key = pack_key(node.number, place)
        pack = work.packs[key] = _Pack(key, b"")
        return pack

    def _write(self, pack: _Pack, body: bytes) -> None:
        pack.gone.clear()
        if body:
            self._batch.set(MEMORY, pack.key, body, len(pack.stored))
        elif pack.stored:
            self._batch.delete(MEMORY, pack.key)


def _refresh(batch: Batch, suffix: bytes, now: int) -> None:
    """Move an item's deadline, unless it was deleted or put anew in the meantime."""
    found = read_place(batch, suffix)
    if found is None:
        return
    key, sequence = found
    pack = batch.get(MEMORY, key)
    at = -1 if pack is None else checked(key, find_entry, pack, sequence)
    if pack is None or at < 0:
        raise CorruptionError(Table.MEMORY.label, key, "the item is not where it should be")
    record = unpack_item(key, pack, at)
    if not record.ttl_us or now + record.ttl_us <= record.deadline_us:
        return
    move_deadline(batch, Kind.ITEM_DEADLINE, suffix, record.deadline_us, now + record.ttl_us)
    entry = record._replace(deadline_us=now + record.ttl_us).entry()
    batch.set(MEMORY, key, pack[:at] + entry + pack[at + len(entry) :], len(pack))
