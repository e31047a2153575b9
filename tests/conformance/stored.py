"""What lies in the file of channels' values: the one place where tests look at records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import lgkv
from lgkv.checkpoints import records as rec
from lgkv.checkpoints import values
from lgkv.checkpoints.apart import pieces_in
from lgkv.checkpoints.heads import Head, frame_key
from lgkv.checkpoints.numbers import namespace_numbers
from lgkv.checkpoints.reading import Place, read_head
from lgkv.checkpoints.values import Piece, StoredValue
from lgkv.codec.plan import Form
from lgkv.keys import unpack_id, unpack_uint
from lgkv.layout import Kind, Table
from lgkv.names import thread_number
from lgkv.snapshot import Snapshot

__all__ = ["StoredThread", "audit", "stored_thread"]


@dataclass
class StoredThread:
    """The values of a thread's checkpoints, and its pieces.

    `versions` are by namespace, channel, version and what stands in the checkpoint's record.
    `freed_tails` are chains whose end was freed, `writes` the pending writes that are pieces.
    """

    number: int
    size_bytes: int = 0
    versions: dict[tuple[int, int, rec.Version, bytes], StoredValue] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)
    frames: set[bytes] = field(default_factory=set)
    used_frames: set[bytes] = field(default_factory=set)
    freed_tails: set[int] = field(default_factory=set)
    writes: list[StoredValue] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def extents(self) -> int:
        """How many extents all versions have together."""
        return sum(len(version.extents) for version in self.versions.values())

    @property
    def payload_bytes(self) -> int:
        """The size of all pieces, unpacked."""
        return sum(len(piece.payload[1]) for piece in self.pieces)

    @property
    def chains(self) -> set[int]:
        """The chains that there are."""
        return {piece.chain for piece in self.pieces}

    def pieces_in(self, chain: int) -> list[Piece]:
        """Return the pieces of one chain."""
        return [piece for piece in self.pieces if piece.chain == chain]


def stored_thread(db: lgkv.Database, thread_id: str = "t") -> StoredThread | None:
    """Return what there is of a thread, or None if it is not there."""
    with db._connection.snapshot() as snapshot:
        number = thread_number(snapshot, thread_id)
        return None if number is None else _walk(snapshot, thread_id, number)


def _walk(snapshot: Snapshot, thread_id: str, number: int) -> StoredThread:
    found = StoredThread(number)
    prefix = rec.thread_key(number, Kind.THREAD)[:-1]
    for key, body in snapshot.scan(Table.THREADS, prefix):
        kind = Kind(key[len(prefix)])
        found.kinds[kind.name] += 1
        if kind is Kind.FRAME:
            found.frames.add(key)
        elif kind is Kind.PIECE:
            chain, at = unpack_uint(key, len(prefix) + 1)
            piece = values._unpack_piece(key, key[:at], chain, body)
            if piece.size:
                found.pieces.append(piece)
            else:
                found.freed_tails.add(chain)
        elif kind is Kind.WRITES:
            found.writes.extend(pieces_in(key, rec.unpack_writes(key, body)))
        elif kind is Kind.THREAD:
            found.size_bytes = rec.ThreadRecord.unpack(key, body).size_bytes
    _walk_heads(snapshot, thread_id, found)
    return found


def _walk_heads(snapshot: Snapshot, thread_id: str, found: StoredThread) -> None:
    for namespace in namespace_numbers(snapshot, found.number):
        for key, head in _heads(snapshot, thread_id, found.number, namespace):
            found.used_frames.add(frame_key(found.number, namespace, head.frame))
            for channel, version, packed in head.channels:
                if packed is not None:
                    place = namespace, channel, version, packed
                    found.versions[place] = values.unpack_stored(key, packed)


def _heads(
    snapshot: Snapshot, thread_id: str, number: int, namespace: int
) -> Iterator[tuple[bytes, Head]]:
    for kind in (Kind.CHECKPOINT, Kind.CARRIER):
        prefix = rec.checkpoints_prefix(number, namespace, kind)
        for key in snapshot.keys(Table.THREADS, prefix):
            raw, _, _ = unpack_id(key, len(prefix))
            head = read_head(snapshot, Place(number, thread_id, namespace, ""), raw.decode(), kind)
            assert head is not None
            yield key, head


def audit(db: lgkv.Database, thread_id: str = "t") -> StoredThread | None:
    """Check that nothing of a thread is missing, nothing is left over, and its size is right."""
    found = stored_thread(db, thread_id)
    if found is None:
        return None
    used: set[tuple[int, int]] = set()
    for version in [*found.versions.values(), *found.writes]:
        for chain, first, size in version.extents:
            used.update((chain, at) for at in range(first, first + size))
    stored: Counter[tuple[int, int]] = Counter()
    for piece in found.pieces:
        elements = {(piece.chain, at) for at in range(piece.first, piece.first + piece.size)}
        assert elements & used, f"a piece that nothing uses: {piece.chain}, {piece.first}"
        stored.update(elements)
    assert used <= stored.keys(), "elements are missing"
    assert set(stored.values()) <= {1}, "pieces overlap"
    assert found.freed_tails <= found.chains, "a chain of nothing"
    assert found.frames <= found.used_frames, "a frame that no checkpoint has"
    for version in found.versions.values():
        assert version.extents or version.form is Form.INLINE
    assert found.size_bytes == _size(db, found.number), "the thread's size is wrong"
    return found


def _size(db: lgkv.Database, number: int) -> int:
    own = rec.thread_key(number, Kind.THREAD)
    with db._connection.snapshot() as snapshot:
        return sum(
            len(key) + len(cursor.value())
            for key, cursor in snapshot._walk(Table.THREADS, own[:-1], None, None, reverse=False)
            if key != own
        )
