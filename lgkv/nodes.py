"""The tree of namespaces: each label of each namespace is a node with a number of its own.

Item keys begin with a node's number, so a namespace of any length costs its items a few
bytes, and labels match as wholes. A node counts its items and its children; one that has
neither is removed. It also knows the place of its newest item, so that a search can begin
where it need not look further. The root is number 0, is not stored and holds no items.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lgkv.errors import CorruptionError
from lgkv.keys import (
    TEXT_LIMIT_BYTES,
    decode_text,
    encode_text,
    pack_bytes,
    pack_uint,
    unpack_bytes,
    unpack_uint,
)
from lgkv.layout import MEMORY, Kind, Table, check_record, decode_plain, encode_fields
from lgkv.snapshot import Snapshot
from lgkv.writer import Batch

__all__ = ["Node", "Paths", "Tree", "Wanted", "find_node", "path_of", "walk_nodes"]

ROOT: Final = 0
LONG_LABEL_BYTES: Final = TEXT_LIMIT_BYTES // 2
"""A key holds all of a shorter label, however it is escaped."""

MAX_US: Final = 253_402_300_799_999_999
"""The last microsecond of the calendar."""

MAX_PATHS: Final = 10_000
"""As many namespaces' numbers are remembered."""

_BODY: Final = struct.Struct("<8Q")
_NODE: Final = bytes((Kind.NODE,))
_NODE_PATH: Final = bytes((Kind.NODE_PATH,))

Wanted = frozenset[str] | None
"""The labels that may stand at one depth of a namespace; None for any."""


@dataclass(slots=True)
class Node:
    """One label under its parent."""

    number: int
    parent: int
    label: bytes
    items: int = 0
    children: int = 0
    expiring: int = 0
    """How many of the items have a deadline."""
    newest: tuple[int, int] = (0, 0)
    """No item of the node was updated later: microseconds, and the sequence of the put."""
    last_pack: tuple[int, int] = (0, 0)
    """The place of the pack that takes the next item, if it is there."""


# --- reading -------------------------------------------------------------------------------


def find_node(snapshot: Snapshot, namespace: Sequence[str]) -> Node | None:
    """Return the node of `namespace`, or None."""
    node: Node | None = None
    for label in namespace:
        node = _child(snapshot, ROOT if node is None else node.number, encode_text(label))
        if node is None:
            return None
    return node


class Paths:
    """The numbers of namespaces, remembered from one snapshot to the next.

    Numbers are given in order and names of removed nodes raise an epoch: while neither
    counter moves, what was found, and what was not there, stays so.
    """

    def __init__(self) -> None:
        self._known: tuple[int, tuple[int, int], dict[tuple[str, ...], int | None]]
        self._known = 0, (0, 0), {}
        """A snapshot by its number, the counters in it, and what was found as of these."""

    def known(self, snapshot: Snapshot) -> dict[tuple[str, ...], int | None]:
        """Return the numbers of namespaces that are known as of `snapshot`, None for none.

        The counters are read once for each number. Of a transaction that is open nothing is known:
        what it gave may be given again.
        """
        number = snapshot.number()
        known_as_of, found_as_of, numbers = self._known
        if not number:
            return {}
        if number != known_as_of:
            try:
                state = snapshot.read_state()
            except CorruptionError:  # what can be read without the counters stays readable
                return {}
            as_of = state.nodes, state.names_epoch
            if as_of != found_as_of:
                numbers = {}
            self._known = number, as_of, numbers
        return numbers

    def number(self, snapshot: Snapshot, namespace: tuple[str, ...]) -> int | None:
        """Return the number of `namespace`, or None; as of `snapshot`, which is no batch."""
        numbers = self.known(snapshot)
        if namespace in numbers:
            return numbers[namespace]
        if len(numbers) >= MAX_PATHS:
            numbers.clear()
        node = find_node(snapshot, namespace)
        number = numbers[namespace] = None if node is None else node.number
        return number


def path_of(snapshot: Snapshot, number: int) -> tuple[str, ...]:
    """Return the namespace of the node with this number, which has items."""
    labels: list[str] = []
    while number != ROOT:
        key = _path_key(number)
        body = snapshot.get(MEMORY, key)
        if body is None:
            raise CorruptionError(Table.MEMORY.label, key, "the namespace of an item is missing")
        parent, label = _fields(key, body, int, bytes)
        if not 0 <= parent < number:
            raise CorruptionError(Table.MEMORY.label, key, "a number of the namespace cannot be")
        number = parent
        labels.append(_text(key, label))
    return tuple(reversed(labels))


def walk_nodes(
    snapshot: Snapshot, wanted: Sequence[Wanted]
) -> Iterator[tuple[tuple[str, ...], Node]]:
    """Yield the namespaces that `wanted` allows, with their nodes, in the order of `sorted`.

    They have at least as many labels as `wanted`, and may go on with any. Namespaces
    without items of their own, which lie on the way to others, are among them.
    """
    path: list[str] = []
    levels = [_level(snapshot, ROOT, wanted, 0)]
    while levels:
        node = next(levels[-1], None)
        if node is None:
            levels.pop()
            if path:
                path.pop()
            continue
        path.append(_label(node))
        if len(path) >= len(wanted):
            yield tuple(path), node
        levels.append(
            _level(snapshot, node.number, wanted, len(path)) if node.children else iter(())
        )


def _level(snapshot: Snapshot, parent: int, wanted: Sequence[Wanted], depth: int) -> Iterator[Node]:
    labels = wanted[depth] if depth < len(wanted) else None
    if labels is None:
        yield from _children(snapshot, parent)
    else:
        for label in sorted(labels):
            node = _child(snapshot, parent, encode_text(label))
            if node is not None:
                yield node


def _children(snapshot: Snapshot, parent: int) -> Iterator[Node]:
    """Yield the children of `parent` by label.

    Keys sort as labels do, but for those that are cut at the same bytes.
    """
    prefix = _NODE + pack_uint(parent)
    alike: list[Node] = []
    for key, body in snapshot.scan(MEMORY, prefix):
        node = _unpack(key, body)
        if alike and _kept(node) != _kept(alike[0]):
            yield from sorted(alike, key=lambda node: node.label)
            alike.clear()
        if len(node.label) < LONG_LABEL_BYTES and not alike:
            yield node
        else:
            alike.append(node)
    yield from sorted(alike, key=lambda node: node.label)


def _kept(node: Node) -> bytes:
    """Return what a key keeps of the label."""
    return unpack_bytes(pack_bytes(node.label), 0)[0]


def _label(node: Node) -> str:
    return _text(_node_key(node.parent, node.label), node.label)


def _text(key: bytes, label: bytes) -> str:
    try:
        return decode_text(label)
    except UnicodeDecodeError as error:
        raise CorruptionError(Table.MEMORY.label, key, f"a damaged label: {error}") from None


def _child(snapshot: Snapshot, parent: int, label: bytes) -> Node | None:
    key = _node_key(parent, label)
    body = snapshot.get(MEMORY, key)
    return None if body is None else _unpack(key, body)


# --- writing -------------------------------------------------------------------------------


class _Memo:
    """The nodes that earlier changes have read or written, as the file has them."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.below: dict[tuple[int, str], Node] = {}
        self.paths: dict[tuple[str, ...], Node] = {}
        self.keys: dict[int, tuple[bytes, bytes]] = {}

    def forget(self, node: Node) -> None:
        """Drop a node that is removed."""
        del self.nodes[node.number]
        self.keys.pop(node.number, None)
        self.below.pop((node.parent, _label(node)), None)
        self.paths.clear()


class Tree:
    """The nodes that one change touches: each is read once, and written once by `save`.

    Those that earlier changes of the process touched are not read again: the batch's memo
    has them, until somebody else commits or a change fails.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        memo = batch.memo.get(_Memo)
        if memo is None or len(memo.nodes) > MAX_PATHS:
            memo = batch.memo[_Memo] = _Memo()
        self._memo: _Memo = memo
        self._nodes, self._below = memo.nodes, memo.below
        self._changed: set[int] = set()

    def find(self, namespace: tuple[str, ...]) -> Node | None:
        """Return the node of `namespace`, or None."""
        node = self._memo.paths.get(namespace)
        if node is not None:
            return node
        for label in namespace:
            node = self._child(ROOT if node is None else node.number, label)
            if node is None:
                return None
        if node is not None:
            self._memo.paths[namespace] = node
        return node

    def make(self, namespace: tuple[str, ...]) -> Node:
        """Return the node of `namespace`, which has a label, made with its parents if need be."""
        node = self._memo.paths.get(namespace)
        if node is None:
            node = self._have_child(None, namespace[0])
            for label in namespace[1:]:
                node = self._have_child(node, label)
            self._memo.paths[namespace] = node
        return node

    def _child(self, parent: int, label: str) -> Node | None:
        node = self._below.get((parent, label))
        if node is None:
            node = _child(self._batch, parent, encode_text(label))
            if node is not None:
                node = self._below[parent, label] = self._nodes.setdefault(node.number, node)
        return node

    def _have_child(self, parent: Node | None, label: str) -> Node:
        found = self._child(ROOT if parent is None else parent.number, label)
        if found is not None:
            return found
        self._batch.state.nodes += 1
        number = self._batch.state.nodes
        node = Node(number, ROOT if parent is None else parent.number, encode_text(label))
        self._nodes[number] = self._below[node.parent, label] = node
        self._changed.add(number)
        self._batch.put(MEMORY, _path_key(number), encode_fields([node.parent, node.label]))
        if parent is not None:
            parent.children += 1
            self._changed.add(parent.number)
        return node

    def node(self, number: int) -> Node:
        """Return the node with this number; it is there as long as it has items."""
        node = self._nodes.get(number)
        if node is None:
            key = _path_key(number)
            body = self._batch.get(MEMORY, key)
            if body is None:
                raise CorruptionError(
                    Table.MEMORY.label, key, "the namespace of an item is missing"
                )
            parent, label = _fields(key, body, int, bytes)
            node = _child(self._batch, parent, label) if 0 <= parent < number else None
            if node is None or node.number != number:
                raise CorruptionError(Table.MEMORY.label, key, "the namespace is not where it says")
            self._nodes[number] = node
        return node

    def changed(self, node: Node) -> None:
        """Note that the fields of `node` were set."""
        self._changed.add(node.number)

    def save(self) -> None:
        """Write what has changed, and remove what is empty."""
        pending = [self._nodes[number] for number in self._changed]
        while pending:
            node = pending.pop()
            if node.items or node.children or node.number not in self._changed:
                continue
            self._remove(node)
            if node.parent != ROOT:
                parent = self.node(node.parent)
                parent.children -= 1
                self._changed.add(parent.number)
                pending.append(parent)
        keys, bodies = [], []
        for number in sorted(self._changed):
            node = self._nodes[number]
            key, whole = self._memo.keys.get(number) or self._key(node)
            numbers = number, node.items, node.children, node.expiring
            body = _BODY.pack(*numbers, *node.newest, *node.last_pack)
            if whole:
                self._batch.set(MEMORY, key, body + whole)
            else:
                keys.append(key)
                bodies.append(body)
        self._batch.set_all(MEMORY, keys, bodies)
        self._changed.clear()

    def _remove(self, node: Node) -> None:
        self._changed.discard(node.number)
        self._memo.forget(node)
        self._batch.delete(MEMORY, _node_key(node.parent, node.label))
        self._batch.delete(MEMORY, _path_key(node.number))
        self._batch.state.names_epoch += 1

    def _key(self, node: Node) -> tuple[bytes, bytes]:
        """Return the key of a node's record, and the label if the key does not hold all of it."""
        packed = pack_bytes(node.label)
        whole = b"" if unpack_bytes(packed, 0)[1] else node.label
        found = self._memo.keys[node.number] = _NODE + pack_uint(node.parent) + packed, whole
        return found


# --- records -------------------------------------------------------------------------------


def _node_key(parent: int, label: bytes) -> bytes:
    return _NODE + pack_uint(parent) + pack_bytes(label)


def _path_key(number: int) -> bytes:
    return _NODE_PATH + pack_uint(number)


def _unpack(key: bytes, body: bytes) -> Node:
    if len(body) < _BODY.size:
        raise CorruptionError(Table.MEMORY.label, key, "the namespace is shorter than its fields")
    number, items, children, expiring, *places = _BODY.unpack_from(body)
    try:
        parent, start = unpack_uint(key, 1)
        label, whole, end = unpack_bytes(key, start)
    except ValueError as error:
        raise CorruptionError(Table.MEMORY.label, key, str(error)) from None
    if end != len(key):
        raise CorruptionError(Table.MEMORY.label, key, "the key is longer than its parts")
    if not parent < number or max(items, children, expiring) >> 63 or places[0] > MAX_US:
        # Numbers grow from parent to child, so no walk down the tree goes round.
        raise CorruptionError(Table.MEMORY.label, key, "a number of the namespace cannot be")
    if not whole:
        label = body[_BODY.size :]
    newest, last_pack = (places[0], places[1]), (places[2], places[3])
    return Node(number, parent, label, items, children, expiring, newest, last_pack)


def _fields(key: bytes, body: bytes, *types: type | tuple[type, ...]) -> list[Any]:
    try:
        fields: list[Any] = decode_plain(body)
    except ValueError as error:
        raise CorruptionError(Table.MEMORY.label, key, str(error)) from None
    check_record(MEMORY, key, fields, *types)
    return fields
