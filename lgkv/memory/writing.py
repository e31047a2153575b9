"""Writing items: what one change does to records, packs, deadlines and indexes.

New entries go behind a namespace's last pack, so a namespace's packs are in the order of
its updates, whatever the clocks of several processes say: no item of a namespace is given
an earlier time than the one before it. An entry that is replaced or deleted is cut out of
its pack, and the pack goes with its last entry.
"""

from __future__ import annotations

from collections.abc import Collection
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
    """What the keys of its items' records begin with."""
    updated: int
    """When its items are updated: never earlier than the one before them."""
    packs: dict[bytes, _Pack] = field(default_factory=dict)
    keys: list[bytes] = field(default_factory=list)
    """Of the items that are added; and their sequences and entries, in the same order."""
    sequences: list[int] = field(default_factory=list)
    entries: list[bytes] = field(default_factory=list)


def apply(
    batch: Batch,
    puts: Prepared,
    refresh: Collection[bytes],
    now: int,
    config: IndexConfig | None = None,
) -> VectorState | None:
    """Write `puts`, and move the deadlines of `refresh`.

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

    def put_all(self, puts: Prepared) -> None:
        """Store and delete items."""
        works: list[_Work | None] = [None] * len(puts.namespaces)
        rows: list[int] = []
        owners: list[_Work] = []
        keys: list[bytes] = []
        for row, (place, raw) in enumerate(zip(puts.places, puts.keys, strict=True)):
            work = works[place]
            if work is None:
                find = self._tree.make if puts.encoded[row] else self._tree.find
                node = find(puts.namespaces[place])
                if node is None:
                    continue
                work = works[place] = self._work(node)
            rows.append(row)
            owners.append(work)
            keys.append(work.prefix + pack_bytes(raw))
        bodies = self._batch.get_all(MEMORY, keys)
        for row, work, key, body in zip(rows, owners, keys, bodies, strict=True):
            old = None if body is None else self._take(work, key[1:], body)
            if puts.encoded[row]:
                self._store(work, key, puts, row, old)
            elif old is not None:
                self._remove(work, key[1:], old)

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
        self, work: _Work, key: bytes, puts: Prepared, row: int, old: ItemRecord | None
    ) -> None:
        state, now = self._batch.state, self._now
        state.sequence = sequence = state.sequence + 1
        updated = created = work.updated
        if old is None:
            work.node.items += 1
        elif not is_past(old.deadline_us, now):
            created = old.created_us
        raw, encoded, ttl_us = puts.keys[row], puts.encoded[row], puts.ttl_us.get(row, 0)
        deadline = now + ttl_us if ttl_us else 0
        work.keys.append(key)
        work.sequences.append(sequence)
        work.entries.append(pack_entry(updated, sequence, created, ttl_us, deadline, raw, encoded))
        if old is not None or ttl_us or row in puts.vectors or row in puts.words:
            self._store_more(work.node, key[1:], puts, row, old)

    def _store_more(
        self, node: Node, suffix: bytes, puts: Prepared, row: int, old: ItemRecord | None
    ) -> None:
        """Store what an item has beside its entry, in place of what it had."""
        vectors, words, ttl_us = puts.vectors.get(row), puts.words.get(row), puts.ttl_us.get(row)
        if old is not None:
            self._vectors.remove(suffix)
        if vectors is not None:
            self._vectors.put(node.number, suffix, vectors)
        if words is not None or old is not None:
            self._keywords.put(node.number, suffix, words or {})
        before = 0 if old is None else old.deadline_us
        deadline = self._now + ttl_us if ttl_us else 0
        if before or deadline:
            move_deadline(self._batch, Kind.ITEM_DEADLINE, suffix, before, deadline)
            node.expiring += (deadline > 0) - (before > 0)

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
            updated = max(self._now, node.newest[0])
            prefix = item_key(pack_uint(node.number))
            work = self._works[node.number] = _Work(node, prefix, updated)
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
        keys: list[bytes] = []
        bodies: list[bytes] = []
        for work in self._works.values():
            self._tree.changed(work.node)
            if work.keys:
                keys += work.keys
                bodies += self._append(work)
            for pack in work.packs.values():
                if pack.gone:
                    rest = checked(pack.key, without_entries, pack.stored, pack.gone)
                    self._write(pack, rest)
        self._batch.set_all(MEMORY, keys, bodies)
        self._keywords.save()
        self._tree.save()
        return self._vectors.save()

    def _append(self, work: _Work) -> list[bytes]:
        """Put the new entries behind the last pack, and into new ones as it fills up.

        Returns what the items' records say: the place of the pack, and the item's sequence.
        """
        node = work.node
        last = self._pack(work, pack_key(node.number, node.last_pack))
        if last is None:
            last = self._begin(work, work.sequences[0])
        body = last.stored
        if last.gone:
            body = checked(last.key, without_entries, body, last.gone)
        parts, size = [body], len(body)
        bodies, place = [], place_bytes(node.last_pack)
        for sequence, entry in zip(work.sequences, work.entries, strict=True):
            if size and size + len(entry) > PACK_BYTES:
                self._write(last, b"".join(parts))
                last, parts, size = self._begin(work, sequence), [], 0
                place = place_bytes(node.last_pack)
            parts.append(entry)
            size += len(entry)
            bodies.append(place + sequence.to_bytes(8, "big"))
            if self._fields.fields:
                record = unpack_item(last.key, entry, 0)
                index_item(self._batch, self._fields, node.number, record, node.last_pack)
        self._write(last, b"".join(parts))
        node.newest = work.updated, work.sequences[-1]
        return bodies

    @staticmethod
    def _begin(work: _Work, sequence: int) -> _Pack:
        """Begin a pack with the entry that has this sequence."""
        work.node.last_pack = place = work.updated, sequence
        key = pack_key(work.node.number, place)
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
