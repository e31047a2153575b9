"""Writing items: what one change does to records, packs, deadlines and indexes.

New entries go behind a namespace's last pack, so a namespace's packs are in the order of
its updates, whatever the clocks of several processes say: no item of a namespace is given
an earlier time than the one before it. An entry that is replaced or deleted is cut out of
its pack, and the pack goes with its last entry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import count, islice, repeat
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
    rows: list[int] = field(default_factory=list)
    """The rows of the items that are added."""


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
        self._first = 0
        self._keys: list[bytes] = []
        self._entries: list[bytes] = []
        """The items that are added: their records' keys and entries, and the first's sequence."""

    # --- items ---

    def put_all(self, puts: Prepared) -> None:
        """Delete and store items."""
        for place, raw in puts.deleted:
            node = self._tree.find(puts.namespaces[place])
            if node is not None:
                self._delete(self._work(node), pack_bytes(raw))
        if not puts.keys:
            return
        batch = self._batch
        works: dict[int, _Work] = {}
        owners: list[_Work] = []
        keys: list[bytes] = []
        for row, place in enumerate(puts.places):
            work = works.get(place)
            if work is None:
                work = works[place] = self._work(self._tree.make(puts.namespaces[place]))
            work.rows.append(row)
            owners.append(work)
            keys.append(work.prefix + pack_bytes(puts.keys[row]))
        before: dict[int, ItemRecord] = {}
        for row, body in enumerate(batch.get_all(MEMORY, keys)):
            if body is None:
                owners[row].node.items += 1
            else:
                before[row] = self._take(owners[row], keys[row][1:], body)
        self._first = batch.state.sequence + 1
        batch.state.sequence += len(keys)
        self._keys, self._entries = keys, self._entries_of(puts, owners, before)
        if before or puts.vectors or puts.ttl_us or puts.words:
            for row in sorted({*puts.vectors, *puts.ttl_us, *puts.words, *before}):
                self._store_beside(owners[row].node, keys[row][1:], puts, row, before.get(row))

    def _entries_of(
        self, puts: Prepared, owners: list[_Work], before: dict[int, ItemRecord]
    ) -> list[bytes]:
        """Return the entries of items, each with the next sequence."""
        now, updated = self._now, [work.updated for work in owners]
        created: list[int] = updated
        if before:
            created = updated.copy()
            for row, old in before.items():
                if not is_past(old.deadline_us, now):
                    created[row] = old.created_us
        ttls: Iterable[int] = repeat(0)
        deadlines: Iterable[int] = repeat(0)
        if puts.ttl_us:
            ttls = [puts.ttl_us.get(row, 0) for row in range(len(updated))]
            deadlines = [now + ttl if ttl else 0 for ttl in ttls]
        columns = updated, count(self._first), created, ttls, deadlines, puts.keys, puts.encoded
        return list(map(pack_entry, *columns))

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

    def _store_beside(
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

    def _delete(self, work: _Work, part: bytes) -> None:
        """Delete the item whose key is packed as `part`, if it is there."""
        suffix = (work.prefix + part)[1:]
        body = self._batch.get(MEMORY, item_key(suffix))
        if body is not None:
            self._remove(work, suffix, self._take(work, suffix, body))

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
        bodies = [b""] * len(self._keys)
        for work in self._works.values():
            self._tree.changed(work.node)
            if work.rows:
                self._append(work, bodies)
            for pack in work.packs.values():
                if pack.gone:
                    rest = checked(pack.key, without_entries, pack.stored, pack.gone)
                    self._write(pack, rest)
        self._batch.set_all(MEMORY, self._keys, bodies)
        self._keywords.save()
        self._tree.save()
        return self._vectors.save()

    def _append(self, work: _Work, bodies: list[bytes]) -> None:
        """Put the new entries behind the last pack, and into new ones as it fills up.

        In the row of each item `bodies` gets what its record says: the place of the pack, and
        the item's sequence.
        """
        node, entries, first = work.node, self._entries, self._first
        last = self._pack(work, pack_key(node.number, node.last_pack))
        if last is None:
            last = self._begin(work, work.rows[0])
        body = last.stored
        if last.gone:
            body = checked(last.key, without_entries, body, last.gone)
        parts, size = [body], len(body)
        place = place_bytes(node.last_pack)
        for row in work.rows:
            entry = entries[row]
            if size and size + len(entry) > PACK_BYTES:
                self._write(last, b"".join(parts))
                last, parts, size = self._begin(work, row), [], 0
                place = place_bytes(node.last_pack)
            parts.append(entry)
            size += len(entry)
            bodies[row] = place + (first + row).to_bytes(8, "big")
            if self._fields.fields:
                record = unpack_item(last.key, entry, 0)
                index_item(self._batch, self._fields, node.number, record, node.last_pack)
        self._write(last, b"".join(parts))
        node.newest = work.updated, first + work.rows[-1]

    def _begin(self, work: _Work, row: int) -> _Pack:
        """Begin a pack with the entry of a row."""
        work.node.last_pack = place = work.updated, self._first + row
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
