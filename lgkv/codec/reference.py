"""What the extensions of channel values do, in Python: to be read, and to be tested against.

Each function is the twin of the one of the same name in `lgkv._shadow`;
the tests demand the same results and the same errors of both. Nothing calls it otherwise.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import islice
from typing import Any, Final

__all__ = [
    "MISSING",
    "Node",
    "build",
    "build_all",
    "clone",
    "clone_all",
    "has_hole",
    "matches",
    "node_key",
    "place",
    "raw_node",
    "run_length",
    "source_all",
    "value_key",
]

MAX_DEPTH: Final = 100
KEY_DEPTH: Final = 3
KEY_PARTS: Final = 4
LEAVES: Final = (str, int, float, bool, bytes, type(None))

MISSING: Final = object()
"""Marks an element that is still to be cloned."""


class Shape(Enum):
    """What a node is of."""

    LEAF = auto()
    FLOAT = auto()
    LIST = auto()
    DICT = auto()
    MODEL = auto()
    RAW = auto()


@dataclass(frozen=True, slots=True)
class Node:
    """A value's structure with its immutable leaves.

    `leaf` is the value of a LEAF or FLOAT, the class of a MODEL, the bytes of a RAW.
    """

    shape: Shape
    leaf: Any = None
    keys: tuple[str, ...] = ()
    children: tuple[Node, ...] = ()
    fields: Node | None = None
    extra: Node | None = None
    names_set: frozenset[str] = frozenset()
    decoded: bool = False
    source: bytes | None = None

    @property
    def raw(self) -> bytes | None:
        """The serialised bytes of a value without structure, else None."""
        return self.leaf if self.shape is Shape.RAW else None


# --- building ------------------------------------------------------------------------------


def raw_node(data: bytes) -> Node:
    """Return the node of a value that is known by its serialised bytes alone."""
    return Node(Shape.RAW, data)


def source_all(nodes: list[Node | None], elements: list[Any], parts: list[bytes]) -> list[Node]:
    """Return nodes with the serialised bytes of their elements, a raw one for None.

    An empty list if an element is not any more what its node was made of.
    """
    sourced: list[Node] = []
    if not len(nodes) == len(elements) == len(parts):
        raise ValueError("each element has a node and its bytes")
    for node, element, part in zip(nodes, elements, parts, strict=True):
        if node is not None and not matches(node, element):
            return []
        sourced.append(raw_node(part) if node is None else replace(node, source=part))
    return sourced


def build(value: Any, models: frozenset[type], decoded: bool) -> Node | None:  # noqa: FBT001
    """Return the node of `value`, or None if a part of it has none."""
    node = _build(value, models, 0)
    return None if node is None else replace(node, decoded=decoded)


def build_all(
    values: list[Any],
    models: frozenset[type],
    decoded: bool,  # noqa: FBT001
) -> list[Node | None]:
    """Return what `build` gives for each of `values`."""
    return [build(value, models, decoded) for value in values]


def _build(value: Any, models: frozenset[type], depth: int) -> Node | None:
    kind = type(value)
    if _is_leaf(kind):
        return Node(Shape.FLOAT if kind is float else Shape.LEAF, value)
    if depth > MAX_DEPTH:
        return None
    if kind is dict:
        return _build_dict(value, models, depth)
    if kind is list or kind is tuple:
        children = [_build(item, models, depth + 1) for item in value]
        return None if None in children else Node(Shape.LIST, children=tuple(_whole(children)))
    return _build_model(value, depth) if kind in models else None


def _is_leaf(kind: type) -> bool:
    return any(kind is leaf for leaf in LEAVES)  # a metaclass may say that types are equal


def _build_dict(value: dict[Any, Any], models: frozenset[type], depth: int) -> Node | None:
    if not all(type(key) is str for key in value):
        return None
    children = [_build(item, models, depth + 1) for item in value.values()]
    if None in children:
        return None
    return Node(Shape.DICT, keys=tuple(value), children=tuple(_whole(children)))


def _build_model(value: Any, depth: int) -> Node | None:
    """Return the node of a model; inside it nested models are its own serialiser's affair."""
    if value.__pydantic_private__ is not None:
        return None
    none: frozenset[type] = frozenset()
    fields, extra = _build_dict(value.__dict__, none, depth + 1), None
    if value.__pydantic_extra__ is not None:
        if type(value.__pydantic_extra__) is not dict:
            return None
        extra = _build_dict(value.__pydantic_extra__, none, depth + 1)
        if extra is None:
            return None
    names = frozenset(value.__pydantic_fields_set__)
    if fields is None:
        return None
    return Node(Shape.MODEL, type(value), fields=fields, extra=extra, names_set=names)


def _whole(nodes: list[Node | None]) -> list[Node]:
    return [node for node in nodes if node is not None]


# --- keys ----------------------------------------------------------------------------------


def value_key(value: Any) -> Any:
    """Return what a value is looked up by among others; equal values have equal keys."""
    return _value_key(value, KEY_DEPTH)


def _value_key(value: Any, depth: int) -> Any:
    if _is_leaf(type(value)):
        return value
    if not depth:
        return None
    if hasattr(type(value), "__pydantic_fields__"):
        value = value.__dict__
    if type(value) is dict:
        if type(value.get("id")) is str:
            return value["id"]
        value = list(islice(value.values(), KEY_PARTS))
    if type(value) in (list, tuple):
        return tuple(_value_key(part, depth - 1) for part in value[:KEY_PARTS])
    return None


def node_key(node: Node) -> Any:
    """Return the `value_key` of the value that `node` was made of."""
    return _node_key(node, KEY_DEPTH)


def _node_key(node: Node, depth: int) -> Any:
    if node.shape in (Shape.LEAF, Shape.FLOAT):
        return node.leaf
    if not depth:
        return None
    if node.shape is Shape.MODEL and node.fields is not None:
        node = node.fields
    if node.shape is Shape.DICT and "id" in node.keys:
        child = node.children[node.keys.index("id")]
        if type(child.leaf) is str and child.shape is Shape.LEAF:
            return child.leaf
    if node.shape in (Shape.DICT, Shape.LIST):
        return tuple(_node_key(child, depth - 1) for child in node.children[:KEY_PARTS])
    return None


# --- comparing -----------------------------------------------------------------------------


def matches(node: Node, value: Any) -> bool:
    """Whether `value` is stored as the value of `node` was; never true of a raw node."""
    kind = type(value)
    if node.shape is Shape.LEAF:
        return kind is type(node.leaf) and bool(value == node.leaf)
    if node.shape is Shape.FLOAT:
        return kind is float and struct.pack("d", value) == struct.pack("d", node.leaf)
    if node.shape is Shape.DICT:
        return kind is dict and _matches_dict(node, value)
    if node.shape is Shape.LIST:
        return (kind is list or kind is tuple) and _match_all(node.children, value)
    if node.shape is Shape.MODEL:
        return kind is node.leaf and _matches_model(node, value)
    return False


def _match_all(nodes: tuple[Node, ...], values: Any) -> bool:
    return len(nodes) == len(values) and all(map(matches, nodes, values))


def _matches_dict(node: Node, value: dict[Any, Any]) -> bool:
    keys = list(value)
    return (
        keys == list(node.keys)
        and all(type(key) is str for key in keys)
        and _match_all(node.children, list(value.values()))
    )


def _matches_model(node: Node, value: Any) -> bool:
    extra = value.__pydantic_extra__
    if node.fields is None or not _matches_dict(node.fields, value.__dict__):
        return False
    if extra is None or node.extra is None:
        return extra is None and node.extra is None
    return type(extra) is dict and _matches_dict(node.extra, extra)


def has_hole(nodes: list[Node | None], need_decoded: bool) -> bool:  # noqa: FBT001
    """Whether a node is missing, or, if `need_decoded`, cannot be cloned or loaded."""
    return any(
        node is None
        or (need_decoded and not node.decoded and node.raw is None and node.source is None)
        for node in nodes
    )


def place(held: list[Node | None], at: int, nodes: Sequence[Node], gone: list[Any]) -> None:
    """Put `nodes` into `held` from `at` on, but for those that tell less than what is there.

    What was replaced goes to `gone`.
    """
    if at < 0 or at + len(nodes) > len(held):
        raise IndexError(at)
    for place, node in enumerate(nodes, at):
        old = held[place]
        if old is None or (node.decoded and not old.decoded):
            held[place] = node
            if old is not None:
                gone.append(old)


def run_length(
    nodes: list[Node], at: int, values: list[Any], start: int, dump: Callable[[Any], bytes]
) -> int:
    """Return how many of `values` from `start` match `nodes` from `at`, one after another."""
    count = 0
    for node, value in zip(nodes[at:], values[start:], strict=False):
        if not (matches(node, value) if node.raw is None else dump(value) == node.raw):
            break
        count += 1
    return count


# --- cloning -------------------------------------------------------------------------------


def clone(node: Node) -> Any:
    """Return a fresh value of `node`, which must not be raw."""
    if node.shape in (Shape.LEAF, Shape.FLOAT):
        return node.leaf
    if node.shape is Shape.LIST:
        return [clone(child) for child in node.children]
    if node.shape is Shape.DICT:
        return dict(zip(node.keys, map(clone, node.children), strict=True))
    if node.shape is Shape.RAW or node.fields is None:
        raise ValueError("a raw node has no structure to clone")
    fresh = node.leaf.__new__(node.leaf)
    object.__setattr__(fresh, "__dict__", clone(node.fields))
    object.__setattr__(fresh, "__pydantic_fields_set__", set(node.names_set))
    extra = None if node.extra is None else clone(node.extra)
    object.__setattr__(fresh, "__pydantic_extra__", extra)
    object.__setattr__(fresh, "__pydantic_private__", None)
    return fresh


def clone_all(
    nodes: list[Node],
    load: Callable[[bytes], Any],
    given: list[Any] | None = None,
    models: frozenset[type] = frozenset(),
) -> list[Any]:
    """Return fresh values of `nodes`, but for what `given` has that is not `MISSING`.

    A node that has a source becomes one of what was decoded, in `nodes`.
    """
    if given is None:
        given = [MISSING] * len(nodes)
    for at, node in enumerate(nodes):
        if given[at] is not MISSING:
            continue
        source = node.raw if node.source is None else node.source
        given[at] = clone(node) if source is None else load(source)
        if node.source is not None:
            nodes[at] = build(given[at], models, decoded=True) or node
    return given
