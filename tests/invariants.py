"""What is true of every lgkv file between two calls, read record by record."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from lmdb import verify

from lgkv import Database
from lgkv.checkpoints import records as rec
from lgkv.checkpoints import values
from lgkv.checkpoints.apart import pieces_in
from lgkv.checkpoints.heads import Head, frame_key, read_frame, unpack_head
from lgkv.env import Snapshot
from lgkv.errors import CorruptionError
from lgkv.keys import decode_text, encode_text, pack_text, unpack_uint
from lgkv.layout import Kind, Table, open_record, split_key
from lgkv.memory.items import (
    PACK_BYTES,
    entry_place,
    item_suffix,
    node_of,
    place_of,
    read_item,
    scan_pack,
    unpack_item,
)
from lgkv.nodes import walk_nodes

__all__ = [
    "all_records",
    "broken_invariants",
    "broken_packs",
    "orphaned_values",
    "structural_damage",
]


def structural_damage(path: str) -> list[str]:
    """Return what LMDB's offline verifier finds wrong with a file that nobody writes to."""
    return list(verify.verify(path, subdir=False))


def all_records(snapshot: Snapshot, table: Table) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield every key of a table with its body, checked, and the size of key and record."""
    cursor = snapshot._txn.cursor(snapshot._databases[table])
    for key, record in cursor:
        name = bytes(key)
        if table is not Table.MAIN or name.startswith(b"lgkv."):  # not the roots of the tables
            yield name, open_record(table, name, record), len(name) + len(record)


class _Thread:
    def __init__(self, number: int) -> None:
        self.number = number
        self.record: rec.ThreadRecord | None = None
        self.size = 0
        self.channels: list[str] = []
        self.names: dict[int, str] = {0: ""}
        self.numbers: dict[str, int] = {}
        self.heads: dict[Kind, list[tuple[int, Head]]] = defaultdict(list)
        self.values: dict[bytes, values.StoredValue] = {}
        self.pieces: dict[bytes, tuple[int, int, int]] = {}
        self.frames: set[bytes] = set()

    def add(self, snapshot: Snapshot, key: bytes, body: bytes, size: int, start: int) -> None:
        kind = Kind(key[start])
        if kind is Kind.THREAD:
            self.record = rec.ThreadRecord.unpack(key, body)
            return
        self.size += size
        if kind is Kind.CHANNELS:
            self.channels = rec.unpack_channels(key, body)
        elif kind is Kind.NAMESPACE_NUMBER:
            self.numbers[key[start + 1 :].hex()] = int.from_bytes(body, "big")
        elif kind is Kind.NAMESPACE_NAME:
            self.names[unpack_uint(key, start + 1)[0]] = decode_text(body)
        elif kind in (Kind.CHECKPOINT, Kind.CARRIER):
            namespace, _ = split_key(Table.THREADS, key, start + 1, "ui")
            head = unpack_head(snapshot, self.number, namespace, key, body)
            self.heads[kind].append((namespace, head))
            for packed in head.values.values():
                self.values[packed] = values.unpack_stored(key, packed)
        elif kind is Kind.PIECE:
            chain, first = split_key(Table.THREADS, key, start + 1, "uu")
            count, at = unpack_uint(body, 0)
            rec.unpack_payload(key, body[at:])
            self.pieces[key] = chain, first, count
        elif kind is Kind.FRAME:
            namespace, number = split_key(Table.THREADS, key, start + 1, "uu")
            assert read_frame(snapshot, self.number, namespace, number) is not None
            self.frames.add(key)
        elif kind is Kind.WRITES:
            pieces = pieces_in(key, rec.unpack_writes(key, body))
            self.values |= {values.pack_stored(stored) or b"": stored for stored in pieces}
        else:
            raise AssertionError(f"{kind!r} does not belong among the threads")

    def faults(self) -> Iterator[str]:
        where = f"thread {self.number}"
        if self.record is None:
            yield f"{where} has records, but no record of its own"
            return
        yield from self.wrong_record(self.record)
        wanted = {pack_text(name).hex(): number for number, name in self.names.items() if number}
        if wanted != self.numbers:
            yield f"{where} has the namespace names {self.names}, but the numbers {self.numbers}"
        if any(number >= self.record.namespaces for number in self.names):
            yield f"{where} may give a namespace's number again"
        if len(set(self.channels)) != len(self.channels):
            yield f"{where} has a channel twice: {self.channels}"
        for namespace, head in [*self.heads[Kind.CHECKPOINT], *self.heads[Kind.CARRIER]]:
            if namespace not in self.names:
                yield f"{where} has {head.id!r} in the unknown namespace {namespace}"
            if any(number >= len(self.channels) for number, _ in head.versions):
                yield f"{where} has an unnamed channel in {head.id!r}"
        yield from self.missing_elements()

    def wrong_record(self, record: rec.ThreadRecord) -> Iterator[str]:
        """Yield what the thread's own record says that is not so."""
        listed, carriers = self.heads[Kind.CHECKPOINT], self.heads[Kind.CARRIER]
        if record.size_bytes != self.size:
            yield f"thread {self.number} counts {record.size_bytes} bytes and has {self.size}"
        if record.checkpoints != len(listed):
            yield f"thread {self.number} counts {record.checkpoints} checkpoints of {len(listed)}"
        if record.carriers != len(carriers):
            yield f"thread {self.number} counts {record.carriers} carriers of {len(carriers)}"
        latest = max((head.id for _, head in listed), default=None)
        if record.latest_id != latest:
            yield f"thread {self.number}: {record.latest_id!r} is not its newest, {latest!r} is"

    def missing_elements(self) -> Iterator[str]:
        """Yield the runs of elements that values name and no pieces hold."""
        held = {
            (chain, number)
            for chain, first, count in self.pieces.values()
            for number in range(first, first + count)
        }
        for stored in self.values.values():
            for extent in stored.extents:
                run = range(extent.first, extent.first + extent.size)
                if any((extent.chain, number) not in held for number in run):
                    yield f"thread {self.number}: elements of {extent} are missing"

    def index(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the index entries that the thread's records ask for."""
        if self.record is not None:
            yield rec.latest_key(self.record.latest_id, self.number), b""
        for namespace, head in [*self.heads[Kind.CHECKPOINT], *self.heads[Kind.CARRIER]]:
            if head.run_id is not None:
                key = rec.run_key(head.run_id, self.number, namespace, head.id)
                yield key, encode_text(head.id)

    def unused(self) -> set[bytes]:
        """Return the keys of pieces and frames that nothing names."""
        return self.unused_pieces() | self.unused_frames()

    def unused_pieces(self) -> set[bytes]:
        """Return the keys of pieces of which no value names an element.

        An empty piece keeps the end of a chain, and is used as long as the chain is.
        """
        named: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for stored in self.values.values():
            for extent in stored.extents:
                named[extent.chain].append((extent.first, extent.first + extent.size))
        return {
            key
            for key, (chain, first, count) in self.pieces.items()
            if not any(first < end and begin < first + count for begin, end in named[chain])
            and (count or not named[chain])
        }

    def unused_frames(self) -> set[bytes]:
        heads = [found for of_kind in self.heads.values() for found in of_kind]
        return self.frames - {frame_key(self.number, space, head.frame) for space, head in heads}


def _threads(snapshot: Snapshot) -> dict[int, _Thread]:
    threads: dict[int, _Thread] = {}
    for key, body, size in all_records(snapshot, Table.THREADS):
        number, start = unpack_uint(key, 0)
        threads.setdefault(number, _Thread(number)).add(snapshot, key, body, size, start)
    return threads


class _Packs:
    """What the packs of a file hold."""

    def __init__(self) -> None:
        self.ends: dict[int, tuple[int, int]] = {}
        self.entries: dict[bytes, int] = {}
        self.counts, self.expiring = Counter[int](), Counter[int]()

    def add(self, key: bytes, pack: bytes) -> Iterator[str]:
        """Take a pack in, and yield what does not hold of it."""
        node = node_of(key[1:])
        starts = scan_pack(pack, None, 0)
        places = [entry_place(pack, at) for at in starts]
        if not starts or (len(starts) > 1 and len(pack) > PACK_BYTES):
            yield f"the pack {key.hex()} has {len(starts)} entries in {len(pack)} bytes"
            return
        in_order = [self.ends.get(node, (0, 0)), place_of(key), places[0]]
        if in_order != sorted(in_order) or in_order[0] == in_order[1] or places != sorted(places):
            yield f"the pack {key.hex()} is out of order: {in_order}, {places}"
        self.ends[node] = places[-1]
        for at in starts:
            record = unpack_item(key, pack, at)
            self.entries[item_suffix(node, record.key_text(key))] = record.sequence
            self.counts[node] += 1
            self.expiring[node] += record.deadline_us > 0


def broken_packs(snapshot: Snapshot) -> Iterator[str]:
    """Yield what does not hold of items, packs and namespaces, read record by record."""
    seen = _Packs()
    for key, pack in snapshot.scan(Table.MEMORY, bytes((Kind.PACK,))):
        yield from seen.add(key, pack)
    for key in snapshot.keys(Table.MEMORY, bytes((Kind.ITEM,))):
        try:
            item = read_item(snapshot, key[1:])
        except CorruptionError as error:
            yield str(error)
            continue
        if item is None or seen.entries.pop(key[1:], None) != item[1].sequence:
            yield f"the item {key.hex()} is another's, or stands in no pack"
    if seen.entries:
        yield f"entries that no item names: {seen.entries}"
    for namespace, node in walk_nodes(snapshot, []):
        if (node.items, node.expiring) != (seen.counts[node.number], seen.expiring[node.number]):
            yield f"{namespace} counts {node.items} items, {node.expiring} of them expiring"
        if node.items and node.newest < seen.ends[node.number]:
            yield f"{namespace} has a newer item than {node.newest}"


def broken_invariants(db: Database) -> list[str]:
    """Return what does not hold: counts, sizes, names and index entries, each recounted."""
    faults: list[str] = []
    with db._connection.snapshot() as snapshot:
        faults += broken_packs(snapshot)
        threads = _threads(snapshot)
        state = snapshot.read_state()
        numbers: dict[bytes, int] = {}
        names = {
            number: pack_text(thread.record.thread_id)
            for number, thread in threads.items()
            if thread.record is not None
        }
        for key, body, _ in all_records(snapshot, Table.NAMES):
            if key[0] == Kind.THREAD_NUMBER:
                numbers[key[1:]] = int.from_bytes(body, "big")
        found: dict[Any, bytes] = {
            key: body
            for key, body, _ in all_records(snapshot, Table.INDEX)
            if key[0] in (Kind.LATEST, Kind.RUN)
        }
    for thread in threads.values():
        faults += thread.faults()
    if {number: name for name, number in numbers.items()} != names:
        faults.append(f"thread names {names} and numbers {numbers} do not match")
    if names.keys() != threads.keys():
        faults.append(f"threads {sorted(threads)} have the names of {sorted(names)}")
    if any(number > state.threads for number in names):
        faults.append("a thread's number may be given again")
    wanted = [entry for thread in threads.values() for entry in thread.index()]
    if len({key for key, _ in wanted}) != len(wanted):
        faults.append(f"index entries collide: {Counter(wanted).most_common(1)}")
    faults += [f"stray index entry {key!r}" for key in found.keys() - dict(wanted).keys()]
    faults += [f"missing index entry {key!r}" for key in dict(wanted).keys() - found.keys()]
    return faults


def orphaned_values(db: Database) -> set[bytes]:
    """Return the keys of pieces and frames that no checkpoint and no carrier uses."""
    with db._connection.snapshot() as snapshot:
        return {key for thread in _threads(snapshot).values() for key in thread.unused()}
