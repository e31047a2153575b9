"""Channel values between a caller and the file: planned, stored, fetched, decoded.

Planning and decoding happen outside every transaction; what they need of the file is
fetched in a snapshot first. What memory learns of stored elements goes to the shelf.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from lgkv._msgpack import split_array
from lgkv._shadow import MISSING, Node, build, build_all, clone_all, has_hole, raw_node
from lgkv.checkpoints import values
from lgkv.checkpoints.types import decode_payload
from lgkv.checkpoints.values import Piece, StoredValue
from lgkv.codec import EMPTY, Codec, Payload
from lgkv.codec.plan import (
    DICT,
    INLINE,
    LIST,
    MSGPACK,
    OPAQUE,
    Base,
    Extent,
    Fresh,
    Plan,
    plan_value,
    replay,
    with_raw,
)
from lgkv.connection import Connection
from lgkv.errors import CorruptionError, UnregisteredTypeError
from lgkv.layout import Table
from lgkv.snapshot import Snapshot

__all__ = ["ChannelValues", "Fetched", "Planned"]


class Fetched(NamedTuple):
    """A stored value as read in a snapshot. `pieces` are those that memory does not hold."""

    thread: int
    stored: StoredValue
    payload: Payload = EMPTY
    nodes: list[Node | None] | None = None
    entries: dict[str, Node] | None = None
    pieces: Sequence[Piece] = ()


Planned = tuple[Plan, Base | None]
"""How to store a new value of a channel, and the stored value that this builds on."""

CHECKED_ELEMENTS: Final = 1 << 16
"""A longer list is looked for in the file before there is room made for it."""


class ChannelValues:
    """The values of channels through one codec."""

    def __init__(self, connection: Connection, codec: Codec) -> None:
        self._connection, self._codec = connection, codec
        self._shelf = connection.shelf
        self._models = codec.models or frozenset()

    # --- from the caller to the file ---

    def plan(self, bases: Mapping[str, Fetched], new: Mapping[str, Any]) -> dict[str, Planned]:
        """Return how to store new values, given what they may build on, both by channel."""
        planned: dict[str, Planned] = {}
        codec = self._codec
        for name, value in new.items():
            known = self._base(bases[name]) if name in bases else None
            planned[name] = plan_value(value, known, codec), known
        return planned

    def fetch_base(
        self, snapshot: Snapshot | None, thread: int, old: StoredValue, value: Any
    ) -> Fetched | None:
        """Read what comparing a value with a stored one will need, None if it cannot build on it.

        It is read in the snapshot that it was found in: later it may be gone. Without a
        snapshot it is what memory holds, and a LookupError if that is not enough.
        """
        if old.form is OPAQUE:
            if snapshot is None:
                raise LookupError
            return Fetched(thread, old, payload=values.stored_payload(snapshot, thread, old))
        if self._codec.models is None:
            return None
        if old.form is LIST and type(value) is list:
            return self._fetch_list(snapshot, thread, old, need_decoded=False)
        if old.form is DICT and type(value) is dict:
            return self._fetch_dict(snapshot, thread, old, need_decoded=False)
        return None

    def _base(self, fetched: Fetched) -> Base | None:
        """Return what a value may build on, with the nodes that comparing it needs."""
        old = fetched.stored
        nodes: list[Any] = fetched.nodes or []
        entries = fetched.entries
        try:
            if fetched.pieces and old.form is LIST:
                nodes, _ = self._complete(fetched)
            if entries is None and old.form is DICT:
                entries = self._entries_of(fetched, self._replay(fetched))
        except UnregisteredTypeError:  # nobody needs it rebuilt: the value is stored anew
            return None
        return Base(
            old.form,
            old.extents,
            nodes,
            entries or {},
            old.frame_bytes,
            old.log_bytes,
            fetched.payload,
        )

    def adopt(self, thread: int, planned: Planned, stored: StoredValue) -> None:
        """Remember what was stored, once it is committed."""
        owner, plan = self._owner(thread), planned[0]
        if plan.form is DICT and plan.entries is not None:
            self._shelf.hold_entries(owner, stored.extents, plan.entries)
        if plan.form is not LIST:
            return
        position = 0
        for part in plan.parts:
            if isinstance(part, Fresh):
                chain, first = _element(stored.extents, position)
                self._shelf.hold(owner, chain, first, part.nodes)
            position += part.size

    # --- from the file to the caller ---

    def fetch(self, snapshot: Snapshot, thread: int, stored: StoredValue) -> Fetched:
        """Read what decoding a value will need."""
        if stored.form is INLINE:
            return Fetched(thread, stored, stored.inline)
        if stored.form is LIST:
            return self._fetch_list(snapshot, thread, stored, need_decoded=True)
        if stored.form is DICT:
            return self._fetch_dict(snapshot, thread, stored, need_decoded=True)
        return Fetched(thread, stored, payload=values.stored_payload(snapshot, thread, stored))

    def _fetch_dict(
        self, snapshot: Snapshot | None, thread: int, stored: StoredValue, *, need_decoded: bool
    ) -> Fetched:
        entries = self._shelf.entries(self._owner(thread), stored.extents)
        if entries is not None and not has_hole(list(entries.values()), need_decoded):
            return Fetched(thread, stored, entries=entries)
        if snapshot is None:
            raise LookupError
        pieces = values.pieces_of(snapshot, thread, stored.extents)
        return Fetched(thread, stored, pieces=pieces)

    def _fetch_list(
        self, snapshot: Snapshot | None, thread: int, stored: StoredValue, *, need_decoded: bool
    ) -> Fetched:
        size = 0
        for extent in stored.extents:
            size += extent.size
        if size > CHECKED_ELEMENTS and snapshot is not None:
            values.pieces_of(snapshot, thread, stored.extents)  # there are as many as it says
        if self._codec.models is None:
            nodes: list[Node | None] = [None] * size
        else:
            nodes = self._shelf.elements(self._owner(thread), stored.extents)
        if not has_hole(nodes, need_decoded):
            return Fetched(thread, stored, nodes=nodes)
        missing: Sequence[Extent] = (
            stored.extents
            if nodes.count(None) == size
            else _missing(stored.extents, nodes, need_decoded=need_decoded)
        )
        if snapshot is None:
            raise LookupError
        pieces = values.pieces_of(snapshot, thread, missing)
        return Fetched(thread, stored, nodes=nodes, pieces=pieces)

    def decode(self, fetched: Fetched) -> Any:
        """Return a fresh value of what was fetched."""
        form = fetched.stored.form
        if form is LIST:
            if not fetched.pieces:
                whole: list[Any] = fetched.nodes or []
                return clone_all(whole, self._load, None, self._models)
            if len(fetched.pieces) == 1:
                return self._decode_list(fetched)
            with uncollected():
                return self._decode_list(fetched)
        if form is DICT:
            if fetched.entries is not None:
                keys = list(fetched.entries)
                nodes = [fetched.entries[key] for key in keys]
                fresh = clone_all(nodes, self._load, None, self._models)
                return dict(zip(keys, fresh, strict=True))
            value = self._replay(fetched)
            if self._codec.models is not None:
                self._entries_of(fetched, value)
            return value
        return decode_payload(self._codec, fetched.payload)

    def _decode_list(self, fetched: Fetched) -> list[Any]:
        nodes, given = self._complete(fetched)
        return clone_all(nodes, self._load, given, self._models)

    def _load(self, raw: bytes) -> Any:
        return self._codec.decode((MSGPACK, b"\x91" + raw))[0]

    def _complete(self, fetched: Fetched) -> tuple[list[Any], list[Any]]:
        """Return the nodes of a list, and its elements where they were decoded just now.

        An element that was not is `MISSING` among the latter. One that a list has twice is
        given once: every place gets an object of its own.
        """
        nodes = list(fetched.nodes or ())
        given: list[Any] = [MISSING] * len(nodes)
        owner = self._owner(fetched.thread)
        for piece in fetched.pieces:
            elements = self._elements(fetched.thread, piece)
            made = self._nodes(fetched.thread, piece, elements)
            if made:
                self._shelf.hold(owner, piece.chain, piece.first, made)
            if fetched.stored.extents == ((piece.chain, piece.first, piece.size),):
                return made or nodes, elements  # as it is of a short list that nothing changed in
            position, used = 0, False
            for extent in fetched.stored.extents:
                low = max(extent.first, piece.first)
                high = min(extent.first + extent.size, piece.first + piece.size)
                if extent.chain == piece.chain and low < high:
                    to = slice(position + low - extent.first, position + high - extent.first)
                    of = slice(low - piece.first, high - piece.first)
                    if made:
                        nodes[to] = made[of]
                    if used:
                        elements = (
                            [MISSING] * len(elements)
                            if made
                            else self._elements(fetched.thread, piece)
                        )
                    given[to] = elements[of]
                    used = True
                position += extent.size
        return nodes, given

    def _elements(self, thread: int, piece: Piece) -> list[Any]:
        key = values.piece_key(thread, piece.chain, piece.first)
        elements = decode_payload(self._codec, piece.payload, key)
        if type(elements) is not list or len(elements) != piece.size:
            raise CorruptionError(Table.THREADS.label, key, "a piece has not its elements")
        return elements

    def _nodes(self, thread: int, piece: Piece, elements: list[Any]) -> list[Node]:
        models = self._codec.models
        if models is None:
            return []
        made = build_all(elements, models, decoded=True)
        try:
            return with_raw(made, piece.payload[1])
        except ValueError as error:  # a decoder may overlook what stands behind the list
            key = values.piece_key(thread, piece.chain, piece.first)
            raise CorruptionError(Table.THREADS.label, key, str(error)) from None

    def _replay(self, fetched: Fetched) -> dict[str, Any]:
        log: list[Any] = []
        for extent in fetched.stored.extents:
            for piece in fetched.pieces:
                if piece.chain == extent.chain:
                    elements = self._elements(fetched.thread, piece)
                    low = max(extent.first - piece.first, 0)
                    high = max(extent.first + extent.size - piece.first, 0)
                    log.extend(elements[low:high])
        try:
            return replay(log)
        except ValueError as error:
            key = values.chain_prefix(fetched.thread, fetched.stored.extents[0].chain)
            raise CorruptionError(Table.THREADS.label, key, str(error)) from None

    def _entries_of(self, fetched: Fetched, value: dict[str, Any]) -> dict[str, Node]:
        models = self._models
        entries: dict[str, Node] = {}
        for key, element in value.items():
            node = build(element, models, decoded=True)
            entries[key] = (
                raw_node(split_array(self._codec.encode([element])[1])[0]) if node is None else node
            )
        self._shelf.hold_entries(self._owner(fetched.thread), fetched.stored.extents, entries)
        return entries

    def _owner(self, thread: int) -> tuple[int, Any]:
        return thread, self._codec.signature


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Pause the garbage collector while much is made that stays."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _element(extents: Sequence[Extent], position: int) -> tuple[int, int]:
    """Return chain and number of the element at `position`."""
    for chain, first, count in extents:
        if position < count:
            return chain, first + position
        position -= count
    raise IndexError(position)


def _missing(
    extents: tuple[Extent, ...], nodes: list[Node | None], *, need_decoded: bool
) -> list[Extent]:
    """Return the runs of elements that memory does not hold in the form that is needed."""
    missing: list[Extent] = []
    position = 0
    for chain, first, count in extents:
        wanted = [
            at
            for at in range(count)
            if (node := nodes[position + at]) is None
            or (need_decoded and not node.decoded and node.raw is None and node.source is None)
        ]
        if wanted:
            missing.append(Extent(chain, first + wanted[0], wanted[-1] - wanted[0] + 1))
        position += count
    return missing
