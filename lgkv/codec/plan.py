"""What of a value is new against a stored version of its channel.

A version is a sequence of *extents*: runs of elements of append-only chains. A list's
elements are its own; a dict is a log, a key-frame and the patches since, each
`[entries to set, keys to delete]`; anything else is one opaque element. A plan names the
runs of the base that stay and the elements that are new; numbers are given when it is
written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, NamedTuple

from lgkv._msgpack import split_array
from lgkv._shadow import Node, build, matches, node_key, raw_node, run_length, value_key
from lgkv.codec import EMPTY, Codec, Payload

__all__ = [
    "Base",
    "Extent",
    "Form",
    "Fresh",
    "Kept",
    "Plan",
    "join_arrays",
    "nodes_of",
    "plan_value",
    "replay",
]

INLINE_BYTES: Final = 256
"""An opaque value up to this size lies in the version's own record."""

FRAMED_ENTRIES: Final = 8
FRAMED_BYTES: Final = 4 << 10
"""A dict of fewer entries and bytes is opaque: it is written again at less cost than compared."""

ONE_FRAME: Final = b"\x91\x92"
NO_KEYS: Final = b"\x90"
"""MessagePack around a dict that make it the log `[[entries, []]]`."""

LOG_TO_FRAME: Final = 2
"""Patches may take this many times the bytes of their key-frame before a new one is due."""

MAX_EXTENTS: Final = 64
"""A list in more runs than this is stored again in one."""

MSGPACK: Final = "msgpack"


class Form(IntEnum):
    """How a version's value is stored. On disk: DO NOT RENUMBER."""

    EMPTY = 0
    INLINE = 1
    OPAQUE = 2
    LIST = 3
    DICT = 4


class Extent(NamedTuple):
    """`size` elements of a chain from element `first` on."""

    chain: int
    first: int
    size: int


@dataclass(frozen=True, slots=True)
class Base:
    """A stored version that a new one may refer to, with what memory holds of it.

    `nodes` are those of a list's elements; `entries` those of a dict's values.
    `frame_bytes` and `log_bytes` are the sizes of a dict's key-frame and
    of the patches since.
    """

    form: Form
    stamp: int
    extents: tuple[Extent, ...] = ()
    nodes: list[Node] = field(default_factory=list)
    entries: dict[str, Node] = field(default_factory=dict)
    frame_bytes: int = 0
    log_bytes: int = 0


class Kept(NamedTuple):
    """Elements of the base, by position, that the new version has."""

    first: int
    size: int


class Fresh(NamedTuple):
    """New elements: serialised together, their number, and their nodes."""

    payload: Payload
    size: int
    nodes: list[Node]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to store a value. `parts` are in the value's order; `serialized` counts elements."""

    form: Form
    parts: tuple[Kept | Fresh, ...] = ()
    inline: Payload = EMPTY
    entries: dict[str, Node] | None = None
    frame_bytes: int = 0
    log_bytes: int = 0
    serialized: int = 0


def plan_value(
    value: Any, base: Base | None, codec: Codec, is_stored: Callable[[Payload], bool]
) -> Plan:
    """Return how to store `value`, given a stored version of its channel or none.

    `is_stored` tells whether a payload is, byte for byte, the base's.
    """
    models = codec.models
    if models is not None:
        if type(value) is list and value:
            plan = _plan_list(value, base, codec, models)
            if plan is not None:
                return plan
        elif type(value) is dict and value:
            return _plan_dict(value, base, codec, models, is_stored)
    return _plan_opaque(codec.encode(value), base, is_stored)


def _plan_opaque(payload: Payload, base: Base | None, is_stored: Callable[[Payload], bool]) -> Plan:
    if len(payload[1]) <= INLINE_BYTES:
        return Plan(Form.INLINE, inline=payload, serialized=1)
    if base is not None and base.form is Form.OPAQUE and is_stored(payload):
        return Plan(Form.OPAQUE, (Kept(0, 1),), serialized=1)
    return Plan(Form.OPAQUE, (Fresh(payload, 1, []),), serialized=1)


# --- lists ---------------------------------------------------------------------------------


def _plan_list(
    values: list[Any], base: Base | None, codec: Codec, models: frozenset[type]
) -> Plan | None:
    """Return the plan of a list, or None for a small one that is better opaque."""

    def dump(element: Any) -> bytes:
        return bytes(split_array(codec.encode([element])[1])[0])

    old = base.nodes if base is not None and base.form is Form.LIST else []
    runs = _runs(values, old, dump)
    if len(runs) > MAX_EXTENTS:
        runs = [values]
    parts = [run if isinstance(run, Kept) else _fresh(run, codec, models) for run in runs]
    if not old and len(parts) == 1:
        only = parts[0]
        if isinstance(only, Fresh) and len(only.payload[1]) <= INLINE_BYTES:
            return Plan(Form.INLINE, inline=only.payload, serialized=only.size)
    serialized = sum(part.size for part in parts if isinstance(part, Fresh))
    return Plan(Form.LIST, tuple(parts), serialized=serialized)


def _fresh(elements: list[Any], codec: Codec, models: frozenset[type]) -> Fresh:
    payload = codec.encode(elements)
    return Fresh(payload, len(elements), nodes_of(elements, payload, models, decoded=False))


def nodes_of(
    elements: list[Any], payload: Payload, models: frozenset[type], *, decoded: bool
) -> list[Node]:
    """Return the nodes of elements and of the payload that they are serialised in together."""
    made = [build(element, models, decoded=decoded) for element in elements]
    if None in made:
        raw = split_array(payload[1])
        return [raw_node(raw[at]) if node is None else node for at, node in enumerate(made)]
    return [node for node in made if node is not None]


def _runs(values: list[Any], old: list[Node], dump: Any) -> list[Kept | list[Any]]:
    """Return `values` as runs of `old` and lists of new elements, in order.

    Elements are matched in step with the base; where they fall out of step, an element is
    looked up by its key, so that trimming, inserting, removing and moving keep what is
    there. Behind the end of the base all is new.
    """
    runs: list[Kept | list[Any]] = []
    index: dict[Any, list[int]] | None = None
    at = position = 0
    while position < len(values):
        count = run_length(old, at, values, position, dump)
        if count:
            _keep(runs, at, count)
            at += count
            position += count
            continue
        if index is None and at < len(old):
            index = _index(old)
        found = None if index is None else _find(index, old, values[position], dump)
        if found is not None:
            at = found
            continue
        if runs and isinstance(runs[-1], list):
            runs[-1].append(values[position])
        else:
            runs.append([values[position]])
        position += 1
        at += 1
    return runs


def _keep(runs: list[Kept | list[Any]], first: int, count: int) -> None:
    last = runs[-1] if runs else None
    if isinstance(last, Kept) and last.first + last.size == first:
        runs[-1] = Kept(last.first, last.size + count)
    else:
        runs.append(Kept(first, count))


def _index(nodes: list[Node]) -> dict[Any, list[int]]:
    index: dict[Any, list[int]] = {}
    for at, node in enumerate(nodes):
        index.setdefault(node_key(node), []).append(at)
    return index


_CANDIDATES: Final = 4


def _find(index: dict[Any, list[int]], old: list[Node], value: Any, dump: Any) -> int | None:
    for at in index.get(value_key(value), ())[:_CANDIDATES]:
        node = old[at]
        if _is_same(node, value, dump):
            return at
    return None


def _is_same(node: Node, value: Any, dump: Any) -> bool:
    return bool(dump(value) == node.raw if node.raw is not None else matches(node, value))


def join_arrays(payloads: Iterable[tuple[bytes, int]]) -> bytes:
    """Return one MessagePack array of the elements of several, given with their counts."""
    total, bodies = 0, []
    for raw, count in payloads:
        total += count
        bodies.append(raw[_header_size(count) :])
    return _header(total) + b"".join(bodies)


def _header_size(count: int) -> int:
    return 1 if count < 16 else 3 if count < 1 << 16 else 5


def _header(count: int) -> bytes:
    if count < 16:
        return bytes((0x90 | count,))
    if count < 1 << 16:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


# --- dicts ---------------------------------------------------------------------------------


def _plan_dict(
    value: dict[Any, Any],
    base: Base | None,
    codec: Codec,
    models: frozenset[type],
    is_stored: Callable[[Payload], bool],
) -> Plan:
    """Return the plan of a dict: a patch, a key-frame, or opaque if it is small."""

    def dump(element: Any) -> bytes:
        return bytes(split_array(codec.encode([element])[1])[0])

    named = all(type(key) is str for key in value)
    if named and base is not None and base.form is Form.DICT:
        patch = _plan_patch(value, base, codec, models, dump)
        if patch is not None:
            return patch
    payload = codec.encode(value)
    if not named or (len(value) < FRAMED_ENTRIES and len(payload[1]) < FRAMED_BYTES):
        return _plan_opaque(payload, base, is_stored)
    entries = {key: _entry(element, models, dump) for key, element in value.items()}
    raw = ONE_FRAME + payload[1] + NO_KEYS
    frame = Fresh((MSGPACK, raw), 1, [])
    return Plan(Form.DICT, (frame,), entries=entries, frame_bytes=len(raw), serialized=len(value))


def _plan_patch(
    value: dict[str, Any], base: Base, codec: Codec, models: frozenset[type], dump: Any
) -> Plan | None:
    """Return the plan of a patch on the base, or None if a new key-frame is due."""
    old = base.entries
    changed = {}
    for key, element in value.items():
        node = old.get(key)
        if node is None or not (
            dump(element) == node.raw if node.raw is not None else matches(node, element)
        ):
            changed[key] = element
    deleted = [key for key in old if key not in value]
    if not changed and not deleted and list(old) == list(value):
        return _same_dict(base)
    order = [key for key in old if key in value] + [key for key in value if key not in old]
    if order != list(value):
        return None
    payload = codec.encode([[changed, deleted]])
    size = len(payload[1])
    if base.log_bytes + size > LOG_TO_FRAME * base.frame_bytes:
        return None
    entries = {
        key: _entry(value[key], models, dump) if key in changed else old[key] for key in value
    }
    log = sum(extent.size for extent in base.extents)
    return Plan(
        Form.DICT,
        (Kept(0, log), Fresh(payload, 1, [])),
        entries=entries,
        frame_bytes=base.frame_bytes,
        log_bytes=base.log_bytes + size,
        serialized=len(changed),
    )


def _same_dict(base: Base) -> Plan:
    """Return the plan of a dict that is what its base is."""
    log = sum(extent.size for extent in base.extents)
    return Plan(
        Form.DICT,
        (Kept(0, log),),
        entries=base.entries,
        frame_bytes=base.frame_bytes,
        log_bytes=base.log_bytes,
    )


def _entry(element: Any, models: frozenset[type], dump: Any) -> Node:
    node = build(element, models, decoded=False)
    return raw_node(dump(element)) if node is None else node


def replay(log: Iterable[Any]) -> dict[str, Any]:
    """Return the dict that a key-frame and patches make; ValueError if they are damaged."""
    value: dict[str, Any] = {}
    for element in log:
        if type(element) is not list or len(element) != 2:
            raise ValueError("a patch is not a pair")
        entries, deleted = element
        if type(entries) is not dict or type(deleted) is not list:
            raise ValueError("a patch does not have its fields")
        for key in deleted:
            value.pop(key, None)
        value.update(entries)
    return value
