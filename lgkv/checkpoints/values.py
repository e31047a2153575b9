"""Channel values in the file: what checkpoints name, chains and pieces.

A checkpoint's record says for each channel which elements of which chains make the value; a
*piece* is a run of consecutive elements of a chain, serialised together, under the number of
its first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from lgkv._heads import pack_extents, unpack_extents
from lgkv.checkpoints import records as rec
from lgkv.checkpoints.thread import End, ThreadEdit
from lgkv.codec import EMPTY, Payload
from lgkv.codec.arrays import join_arrays
from lgkv.codec.plan import (
    EMPTY_FORM,
    INLINE,
    MSGPACK,
    OPAQUE,
    Base,
    Extent,
    Form,
    Fresh,
    Kept,
    Plan,
)
from lgkv.codec.runs import MAX_EXTENTS
from lgkv.errors import CorruptionError, LgkvError
from lgkv.keys import pack_key, pack_uint, unpack_uint
from lgkv.layout import THREADS, Kind, Table
from lgkv.snapshot import Snapshot

__all__ = [
    "INLINE_BYTE",
    "BaseMovedError",
    "Piece",
    "StoredValue",
    "free_pieces",
    "pack_inline",
    "pack_stored",
    "pieces_of",
    "store_plan",
    "stored_payload",
    "unpack_stored",
]

PIECE_BYTES: Final = 15 << 10
"""Neighbouring pieces are merged up to this size: it fills four pages but for a header."""


COMPRESSED_BYTES: Final = 1536
"""A smaller piece is mostly soon one with its neighbours, and not compressed before."""

KNOWN_CHAINS: Final = 64
KNOWN_ENDS: Final = 16
"""How many last pieces of how many chains of a thread are remembered."""


class BaseMovedError(LgkvError):
    """The checkpoint that a plan builds on is gone or another; plan again."""


class StoredValue(NamedTuple):
    """How to make a channel's value. Sizes are as in `lgkv.codec.plan.Base`."""

    form: Form
    inline: Payload = EMPTY
    extents: tuple[Extent, ...] = ()
    frame_bytes: int = 0
    log_bytes: int = 0


class Piece(NamedTuple):
    """A run of `size` elements of a chain from `first` on."""

    chain: int
    first: int
    size: int
    payload: Payload


# --- records -------------------------------------------------------------------------------

INLINE_BYTE: Final = bytes((INLINE,))
_PIECE: Final = Kind.PIECE


def pack_inline(payload: Payload) -> bytes:
    """Return what stands for a value that lies in the checkpoint's record."""
    kind, raw = payload
    return INLINE_BYTE + rec.pack_type(kind) + raw


def pack_stored(stored: StoredValue) -> bytes | None:
    """Return what stands for a value in a checkpoint's record, None for none."""
    if stored.form is EMPTY_FORM:
        return None
    if stored.form is INLINE:
        return pack_inline(stored.inline)
    return pack_extents(stored.form, stored.frame_bytes, stored.log_bytes, stored.extents)


_FORMS: Final = tuple(Form)
"""By number, from 0 on without a gap."""


def unpack_stored(key: bytes, packed: bytes) -> StoredValue:
    """Return the value that `pack_stored` packed, from the record under `key`."""
    try:
        form = _FORMS[packed[0]]
        if form is INLINE:
            return StoredValue(form, rec.unpack_payload(key, packed, 1))
        frame_bytes, log_bytes, extents = unpack_extents(packed, 1, 2 * MAX_EXTENTS, Extent)
    except (ValueError, IndexError) as error:
        raise CorruptionError(Table.THREADS.label, key, f"damaged value: {error}") from None
    if form is EMPTY_FORM:
        raise CorruptionError(Table.THREADS.label, key, "a value that is none")
    return StoredValue(form, EMPTY, extents, frame_bytes, log_bytes)


def piece_key(thread: int, chain: int, first: int) -> bytes:
    """Return the key of a piece."""
    return pack_key(thread, _PIECE, chain, first)


def chain_prefix(thread: int, chain: int) -> bytes:
    """Return the prefix of the pieces of a chain."""
    return pack_key(thread, _PIECE, chain)


def pack_piece(count: int, payload: Payload) -> bytes:
    """Return the body of a piece."""
    kind, raw = payload
    return pack_uint(count) + rec.pack_type(kind) + raw


def _unpack_piece(key: bytes, prefix: bytes, chain: int, body: bytes) -> Piece:
    try:
        first, _ = unpack_uint(key, len(prefix))
        count, at = unpack_uint(body, 0)
    except ValueError as error:
        raise CorruptionError(Table.THREADS.label, key, f"damaged piece: {error}") from None
    payload = rec.unpack_payload(key, body, at)
    if count > max(len(payload[1]), 1):
        raise CorruptionError(Table.THREADS.label, key, f"{count} elements cannot be in the piece")
    return Piece(chain, first, count, payload)


# --- reading -------------------------------------------------------------------------------


def pieces_of(snapshot: Snapshot, thread: int, extents: Sequence[Extent]) -> list[Piece]:
    """Return the pieces that hold the elements of `extents`, each once."""
    if len(extents) == 1:
        return _run_of_pieces(snapshot, thread, extents[0])
    found: dict[tuple[int, int], Piece] = {}
    for extent in extents:
        for piece in _run_of_pieces(snapshot, thread, extent):
            found[piece.chain, piece.first] = piece
    return list(found.values())


def _run_of_pieces(snapshot: Snapshot, thread: int, extent: Extent) -> list[Piece]:
    """Return the pieces that hold the elements of an extent, one behind the other."""
    prefix, end = chain_prefix(thread, extent.chain), extent.first + max(extent.size, 1)
    key = prefix + pack_uint(extent.first)
    pieces, reached = [], -1
    start: bytes | None
    body = snapshot.get(THREADS, key)
    if body is not None:  # as it is most often, and found sooner
        pieces = [_unpack_piece(key, prefix, extent.chain, body)]
        reached = extent.first + pieces[0].size
        if reached >= end:
            return pieces
        start = prefix + pack_uint(reached)
    else:
        start = snapshot.at_or_before(THREADS, prefix, key)
    if start is not None:
        stop = prefix + pack_uint(end)
        for key, body in snapshot.scan(THREADS, prefix, start=start, stop=stop):
            piece = _unpack_piece(key, prefix, extent.chain, body)
            if piece.first != reached >= 0:
                break
            pieces.append(piece)
            reached = piece.first + piece.size
    if reached < end:
        key = piece_key(thread, extent.chain, extent.first)
        raise CorruptionError(Table.THREADS.label, key, "elements of the chain are missing")
    return pieces


def stored_payload(snapshot: Snapshot, thread: int, stored: StoredValue) -> Payload:
    """Return the payload of an inline or opaque value."""
    if stored.form is INLINE:
        return stored.inline
    pieces = pieces_of(snapshot, thread, stored.extents)
    if len(pieces) != 1:
        key = rec.thread_key(thread, Kind.PIECE)
        raise CorruptionError(Table.THREADS.label, key, "an opaque value is not one piece")
    return pieces[0].payload


# --- writing -------------------------------------------------------------------------------


def store_plan(thread: ThreadEdit, plan: Plan, base: Base | None) -> StoredValue:
    """Store the new elements of a planned value; return how to make it.

    The caller has checked that the base is still there.
    """
    extents: list[Extent] = []
    for part in plan.parts:
        if isinstance(part, Kept):
            for extent in _slice(base.extents if base is not None else (), part):
                _extend(extents, extent)
        else:
            _extend(extents, _append(thread, extents, part, merge=plan.form is not OPAQUE))
    return StoredValue(plan.form, plan.inline, tuple(extents), plan.frame_bytes, plan.log_bytes)


def _slice(extents: Sequence[Extent], part: Kept) -> Iterator[Extent]:
    """Yield the extents of the elements of `part`, which are positions in `extents`."""
    at = 0
    for chain, first, count in extents:
        low, high = max(part.first, at), min(part.first + part.size, at + count)
        if low < high:
            yield Extent(chain, first + low - at, high - low)
        at += count


def _extend(extents: list[Extent], new: Extent) -> None:
    last = extents[-1] if extents else None
    if last is not None and last.chain == new.chain and last.first + last.size == new.first:
        extents[-1] = Extent(last.chain, last.first, last.size + new.size)
    else:
        extents.append(new)


def _append(thread: ThreadEdit, extents: list[Extent], fresh: Fresh, *, merge: bool) -> Extent:
    """Store new elements behind the last extent if its chain ends there, else in a new chain."""
    last = extents[-1] if extents else None
    if last is not None and merge:
        end = last.first + last.size
        ends = _ends(thread, last.chain)
        if ends and ends[-1].first + ends[-1].size == end:
            _store_merged(thread, ends, Piece(last.chain, end, fresh.size, fresh.payload))
            return Extent(last.chain, end, fresh.size)
    state = thread.batch.state
    chain = state.chains = state.chains + 1
    _put_piece(thread, Piece(chain, 0, fresh.size, fresh.payload), 0, alone=not merge)
    return Extent(chain, 0, fresh.size)


def _store_merged(thread: ThreadEdit, ends: list[End], new: Piece) -> None:
    """Store `new` behind the last of `ends`, as one with the small pieces before it.

    A piece takes in its neighbour while that one is at most twice its size, so that each
    element is written again O(log) times until its piece is full.
    """
    old_bytes = 0
    if not ends[-1].size:  # the empty piece, which stands where `new` will
        old_bytes = ends.pop().record_bytes
    while (tail := _last_end(thread, ends, new)) is not None and _mergeable(tail, new):
        if old_bytes:
            thread.delete_known(piece_key(thread.number, new.chain, new.first), old_bytes)
        whole = _read_piece(thread, new.chain, ends.pop())
        raw = join_arrays([(whole.payload[1], whole.size), (new.payload[1], new.size)])
        new = Piece(new.chain, whole.first, whole.size + new.size, (MSGPACK, raw))
        old_bytes = tail.record_bytes
    _put_piece(thread, new, old_bytes)


def _mergeable(tail: End, new: Piece) -> bool:
    small, large = tail.raw_bytes, len(new.payload[1])
    return (
        small > 0
        and tail.first + tail.size == new.first  # else what was between them was freed
        and new.payload[0] == MSGPACK
        and small <= 2 * large
        and small + large <= PIECE_BYTES
    )


def _put_piece(thread: ThreadEdit, piece: Piece, old_bytes: int, *, alone: bool = False) -> None:
    """Store a piece, the last of its chain, in place of a record of so many bytes, 0 for none.

    One that stays `alone` has no neighbours to come.
    """
    key = piece_key(thread.number, piece.chain, piece.first)
    compress = alone or len(piece.payload[1]) >= COMPRESSED_BYTES
    body = pack_piece(piece.size, piece.payload)
    record_bytes = thread.put_over(key, body, old_bytes, compress=compress)
    known = thread.ends
    if len(known) >= KNOWN_CHAINS:
        known.clear()
    ends = known.setdefault(piece.chain, [])
    ends.append(_end_of(piece, record_bytes))
    if len(ends) > KNOWN_ENDS:
        del ends[0]


def _end_of(piece: Piece, record_bytes: int) -> End:
    kind, raw = piece.payload
    return End(piece.first, piece.size, len(raw) if kind == MSGPACK else 0, record_bytes)


def _ends(thread: ThreadEdit, chain: int) -> list[End]:
    """Return what is known of the last pieces of a chain, at least the last if there is one."""
    ends = thread.ends.get(chain)
    if ends is None:
        found = _end_before(thread, chain, None)
        ends = [] if found is None else [found]
        if len(thread.ends) >= KNOWN_CHAINS:
            thread.ends.clear()
        thread.ends[chain] = ends
    return ends


def _last_end(thread: ThreadEdit, ends: list[End], new: Piece) -> End | None:
    """Return the piece before `new`."""
    if not ends and new.first:
        found = _end_before(thread, new.chain, new.first)
        if found is not None:
            ends.append(found)
    return ends[-1] if ends else None


def _end_before(thread: ThreadEdit, chain: int, before: int | None) -> End | None:
    """Read the last piece of a chain that begins below an element."""
    prefix = chain_prefix(thread.number, chain)
    stop = None if before is None else prefix + pack_uint(before)
    for key in thread.batch.keys(THREADS, prefix, stop=stop, reverse=True):
        body, record_bytes = (
            thread.batch.get(THREADS, key),
            thread.batch.size(THREADS, key),
        )
        if body is not None:
            return _end_of(_unpack_piece(key, prefix, chain, body), record_bytes)
    return None


def _read_piece(thread: ThreadEdit, chain: int, end: End) -> Piece:
    prefix = chain_prefix(thread.number, chain)
    key = prefix + pack_uint(end.first)
    body = thread.batch.get(THREADS, key)
    piece = None if body is None else _unpack_piece(key, prefix, chain, body)
    if piece is None or piece.size != end.size:
        raise CorruptionError(Table.THREADS.label, key, "a piece is not as it was stored")
    return piece


# --- freeing -------------------------------------------------------------------------------


def free_pieces(
    thread: ThreadEdit, dropped: Iterable[StoredValue], used: Iterable[StoredValue]
) -> None:
    """Delete the pieces of the values `dropped` that none of the values `used` needs."""
    ranges: dict[int, set[tuple[int, int]]] = {
        extent.chain: set() for stored in dropped for extent in stored.extents
    }
    if not ranges:
        return
    for stored in used:
        for chain, first, size in stored.extents:
            if chain in ranges:
                ranges[chain].add((first, first + size))
    for chain, wanted in ranges.items():
        _free_chain(thread, chain, sorted(wanted))


def _free_chain(thread: ThreadEdit, chain: int, wanted: list[tuple[int, int]]) -> None:
    """Delete the pieces of a chain that have nothing of the runs `wanted`, which are sorted."""
    prefix = chain_prefix(thread.number, chain)
    thread.ends.pop(chain, None)
    if not wanted:
        thread.delete_range(prefix)
        return
    pieces = [
        _unpack_piece(key, prefix, chain, body) for key, body in thread.batch.scan(THREADS, prefix)
    ]
    unused, at, reached = [], 0, -1
    for piece in pieces:
        while at < len(wanted) and wanted[at][0] < piece.first + piece.size:
            reached, at = max(reached, wanted[at][1]), at + 1
        if reached <= piece.first:
            unused.append(piece)
    for piece in unused:
        thread.delete(piece_key(thread.number, chain, piece.first))
    if unused and unused[-1] is pieces[-1]:
        # An empty piece keeps the chain's end: a number is never another element's.
        end = unused[-1].first + unused[-1].size
        _put_piece(thread, Piece(chain, end, 0, EMPTY), 0)
