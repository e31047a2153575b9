"""The tree of namespaces: each label of each namespace is a node with a number of its own.

Item keys begin with a node's number, so a namespace of any length costs its items a few
bytes, and labels match as wholes. A node counts its items and its children; one that has
neither is removed. The root is number 0, is not stored and holds no items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from lgkv.errors import CorruptionError
from lgkv.keys import decode_text, encode_text, pack_bytes, pack_uint, unpack_bytes
from lgkv.layout import Kind, Table, check_record, decode_plain, encode_fields, split_key
from lgkv.snapshot import Snapshot
from lgkv.writer import Batch

__all__ = ["Node", "Tree", "Wanted", "find_node", "walk_nodes"]

ROOT: Final = 0

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


# --- reading -------------------------------------------------------------------------------


def find_node(snapshot: Snapshot, namespace: Sequence[str]) -> Node | None:
    """Return the node of `namespace`, or None."""
    node: Node | None = None
    for label in namespace:
        node = _child(snapshot, ROOT if node is None else node.number, encode_text(label))
        if node is None:
            return None
    return node


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
    prefix = bytes((Kind.NODE,)) + pack_uint(parent)
    found = (_unpack(key, body) for key, body in snapshot.scan(Table.MEMORY, prefix))
    for _, alike in groupby(found, lambda node: unpack_bytes(pack_bytes(node.label), 0)[0]):
        yield from sorted(alike, key=lambda node: node.label)


def _label(node: Node) -> str:
    try:
        return decode_text(node.label)
    except UnicodeDecodeError as error:
        key = _node_key(node.parent, node.label)
        raise CorruptionError(Table.MEMORY.label, key, f"a damaged label: {error}") from None


def _child(snapshot: Snapshot, parent: int, label: bytes) -> Node | None:
    key = _node_key(parent, label)
    body = snapshot.get(Table.MEMORY, key)
    return None if body is None else _unpack(key, body)


# --- writing -------------------------------------------------------------------------------


class Tree:
    """The nodes that one change touches: each is read once, and written once by `save`."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._nodes: dict[int, Node] = {}
        self._below: dict[tuple[int, str], Node] = {}
        self._changed: set[int] = set()

    def find(self, namespace: Sequence[str]) -> Node | None:
        """Return the node of `namespace`, or None."""
        node: Node | None = None
        for label in namespace:
            node = self._child(ROOT if node is None else node.number, label)
            if node is None:
                return None
        return node

    def make(self, namespace: Sequence[str]) -> Node:
        """Return the node of `namespace`, which has a label, made with its parents if need be."""
        node = self._have_child(None, namespace[0])
        for label in namespace[1:]:
            node = self._have_child(node, label)
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
        self._batch.put(Table.MEMORY, _path_key(number), encode_fields([node.parent, node.label]))
        if parent is not None:
            parent.children += 1
            self._changed.add(parent.number)
        return node

    def node(self, number: int) -> Node:
        """Return the node with this number; it is there as long as it has items."""
        node = self._nodes.get(number)
        if node is None:
            key = _path_key(number)
            body = self._batch.get(Table.MEMORY, key)
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

    def count_items(self, node: Node, change: int) -> None:
        """Add `change` to the number of items in `node`."""
        node.items += change
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
        for number in sorted(self._changed):
            self._write(self._nodes[number])
        self._changed.clear()

    def _remove(self, node: Node) -> None:
        self._changed.discard(node.number)
        self._batch.delete(Table.MEMORY, _node_key(node.parent, node.label))
        self._batch.delete(Table.MEMORY, _path_key(node.number))
        self._batch.state.names_epoch += 1

    def _write(self, node: Node) -> None:
        packed = pack_bytes(node.label)
        whole = None if unpack_bytes(packed, 0)[1] else node.label
        key = bytes((Kind.NODE,)) + pack_uint(node.parent) + packed
        self._batch.put(
            Table.MEMORY, key, encode_fields([node.number, node.items, node.children, whole])
        )


# --- records -------------------------------------------------------------------------------


def _node_key(parent: int, label: bytes) -> bytes:
    return bytes((Kind.NODE,)) + pack_uint(parent) + pack_bytes(label)


def _path_key(number: int) -> bytes:
    return bytes((Kind.NODE_PATH,)) + pack_uint(number)


def _unpack(key: bytes, body: bytes) -> Node:
    number, items, children, whole = _fields(key, body, int, int, int, (bytes, type(None)))
    parent, label = split_key(Table.MEMORY, key, 1, "ub")
    if not parent < number < 1 << 64 or items < 0 or children < 0:
        # Numbers grow from parent to child, so no walk down the tree goes round.
        raise CorruptionError(Table.MEMORY.label, key, "a number of the namespace cannot be")
    if label is None:
        label = whole
    if label is None:
        raise CorruptionError(Table.MEMORY.label, key, "the whole label is missing")
    return Node(number, parent, label, items, children)


def _fields(key: bytes, body: bytes, *types: type | tuple[type, ...]) -> list[Any]:
    try:
        fields: list[Any] = decode_plain(body)
    except ValueError as error:
        raise CorruptionError(Table.MEMORY.label, key, str(error)) from None
    check_record(Table.MEMORY, key, fields, *types)
    return fields
