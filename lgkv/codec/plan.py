"""What of a value is new against a stored version of its channel.

A version is a sequence of *extents*: runs of elements of append-only chains. A list's
elements are its own; a dict is a log, a key-frame and the patches since, each
`[entries to set, keys to delete]`; anything else is one opaque element. A plan names the
runs of the base that stay and the elements that are new; numbers are given when it is
written.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from functools import partial
from typing import Any, Final, NamedTuple, cast

from lgkv._msgpack import split_array
from lgkv._shadow import Node, build, build_all, matches, raw_node, source_all
from lgkv.codec import EMPTY, Codec, Payload
from lgkv.codec.runs import MAX_EXTENTS, Extent, Kept, bounded, is_same, runs_of

__all__ = [
    "DICT",
    "EMPTY_FORM",
    "INLINE",
    "LIST",
    "OPAQUE",
    "Base",
    "Extent",
    "Form",
    "Fresh",
    "Kept",
    "Plan",
    "plan_value",
    "replay",
    "with_raw",
]

INLINE_BYTES: Final = 128
"""A value up to this size lies in the records of the checkpoints that have it."""

TINY_ELEMENTS: Final = 16
"""Of a list with more elements nobody tries whether it is inline before it is looked into."""

FRAMED_ENTRIES: Final = 8
FRAMED_BYTES: Final = 4 << 10
"""A dict of fewer entries and bytes is opaque: it is written again at less cost than compared."""

ONE_FRAME: Final = b"\x91\x92"
NO_KEYS: Final = b"\x90"
"""MessagePack around a dict that make it the log `[[entries, []]]`."""

LOG_TO_FRAME: Final = 2
"""Patches may take this many times the bytes of their key-frame before a new one is due."""

MSGPACK: Final = "msgpack"


class Form(IntEnum):
    """How a version's value is stored. On disk: DO NOT RENUMBER."""

    EMPTY = 0
    INLINE = 1
    OPAQUE = 2
    LIST = 3
    DICT = 4


# Before Python 3.12 a member is slow to find in its enumeration.
EMPTY_FORM: Final = Form.EMPTY
INLINE: Final = Form.INLINE
OPAQUE: Final = Form.OPAQUE
LIST: Final = Form.LIST
DICT: Final = Form.DICT


class Base(NamedTuple):
    """A stored version that a new one may refer to, with what memory holds of it.

    `nodes` are those of a list's elements; `entries` those of a dict's values.
    `frame_bytes` and `log_bytes` are the sizes of a dict's key-frame and of the patches
    since. `payload` is an opaque value's.
    """

    form: Form
    extents: tuple[Extent, ...]
    nodes: list[Node]
    entries: dict[str, Node]
    frame_bytes: int = 0
    log_bytes: int = 0
    payload: Payload = EMPTY


class Fresh(NamedTuple):
    """New elements: serialised together, their number, and their nodes."""

    payload: Payload
    size: int
    nodes: list[Node]


class Plan(NamedTuple):
    """How to store a value. `parts` are in the value's order; `serialized` counts elements."""

    form: Form
    parts: tuple[Kept | Fresh, ...] = ()
    inline: Payload = EMPTY
    entries: dict[str, Node] | None = None
    frame_bytes: int = 0
    log_bytes: int = 0
    serialized: int = 0


class _OpaqueError(Exception):
    """A part of a value is not MessagePack, so neither is the value: it is stored whole."""


def plan_value(value: Any, base: Base | None, codec: Codec) -> Plan:
    """Return how to store `value`, given a stored version of its channel or none."""
    try:
        if codec.models is not None and type(value) is list and value:
            return _plan_list(value, base, codec, codec.models)
        if codec.models is not None and type(value) is dict and value:
            return _plan_dict(value, base, codec, codec.models)
    except _OpaqueError:
        pass
    return _plan_opaque(codec.encode(value), base)


def _encode(value: Any, codec: Codec) -> bytes:
    kind, raw = codec.encode(value)
    if kind != MSGPACK:  # a serialiser may fall back on another form
        raise _OpaqueError
    return raw


def _dump(element: Any, codec: Codec) -> bytes:
    """Return what stands for `element` in a serialised list."""
    return _encode([element], codec)[1:]


def _plan_opaque(payload: Payload, base: Base | None) -> Plan:
    if len(payload[1]) <= INLINE_BYTES:
        return _inline(payload, 1)
    if base is not None and base.form is OPAQUE and base.payload == payload:
        return Plan(OPAQUE, (Kept(0, 1),), serialized=1)
    return Plan(OPAQUE, (Fresh(payload, 1, []),), serialized=1)


def _inline(payload: Payload, size: int) -> Plan:
    return Plan(INLINE, (), payload, None, 0, 0, size)


# --- lists ---------------------------------------------------------------------------------


def _plan_list(values: list[Any], base: Base | None, codec: Codec, models: frozenset[type]) -> Plan:
    """Return the plan of a list."""
    alike = base is not None and base.form is LIST
    old = base.nodes if base is not None and alike else []
    if not old and _is_tiny(values):
        raw = _encode(values, codec)
        if len(raw) <= INLINE_BYTES:
            return _inline((MSGPACK, raw), len(values))
    if not old:
        only = _fresh([*values], codec, models)  # somebody else may add to it meanwhile
        if len(only.payload[1]) <= INLINE_BYTES:
            return _inline(only.payload, only.size)
        return Plan(LIST, (only,), EMPTY, None, 0, 0, only.size)
    runs = runs_of(values, old, partial(_dump, codec=codec))
    runs = bounded(runs, values, base.extents if base is not None and alike else ())
    parts = [run if isinstance(run, Kept) else _fresh(run, codec, models) for run in runs]
    serialized = sum(part.size for part in parts if isinstance(part, Fresh))
    return Plan(LIST, tuple(parts), serialized=serialized)


def _is_tiny(values: list[Any]) -> bool:
    """Whether a list is likely to be inline: then its elements need no nodes."""
    if len(values) > TINY_ELEMENTS:
        return False
    room = INLINE_BYTES
    for element in values:
        kind = type(element)
        if kind is str:
            room -= len(element)  # it takes as many bytes at least
            if room < 0:
                return False
        elif kind is not int and kind is not bool and element is not None:
            return False
    return True


def _fresh(elements: list[Any], codec: Codec, models: frozenset[type]) -> Fresh:
    """Return new elements, serialised.

    Their nodes are made before and hold afterwards, or are none at all: somebody else may
    change an element meanwhile, and what memory holds must be what was serialised.
    """
    made = build_all(elements, models, decoded=False)
    raw = _encode(elements, codec)
    return Fresh((MSGPACK, raw), len(elements), source_all(made, elements, split_array(raw)))


def with_raw(nodes: list[Node | None], raw: bytes) -> list[Node]:
    """Return nodes of elements that are serialised together; what has none gets a raw one."""
    if None not in nodes:
        return cast("list[Node]", nodes)
    parts = split_array(raw)
    return [raw_node(parts[at]) if node is None else node for at, node in enumerate(nodes)]


# --- dicts ---------------------------------------------------------------------------------


def _plan_dict(
    value: dict[Any, Any], base: Base | None, codec: Codec, models: frozenset[type]
) -> Plan:
    """Return the plan of a dict: a patch, a key-frame, or opaque if it is small."""
    named = all(type(key) is str for key in value)
    if named and base is not None and base.form is DICT:
        patch = _plan_patch(value, base, codec, models)
        if patch is not None:
            return patch
    if not named or len(value) < FRAMED_ENTRIES:
        raw = _encode(value, codec)
        if not named or len(raw) < FRAMED_BYTES:
            return _plan_opaque((MSGPACK, raw), base)
    entries = _entries(value, codec, models)
    raw = _encode(value, codec)
    held = entries if _still(entries, value, raw) else None
    raw = ONE_FRAME + raw + NO_KEYS
    frame = Fresh((MSGPACK, raw), 1, [])
    return Plan(DICT, (frame,), entries=held, frame_bytes=len(raw), serialized=len(value))


def _plan_patch(
    value: dict[str, Any], base: Base, codec: Codec, models: frozenset[type]
) -> Plan | None:
    """Return the plan of a patch on the base, or None if a new key-frame is due."""
    old, dump = base.entries, partial(_dump, codec=codec)
    changed = {
        key: element
        for key, element in value.items()
        if key not in old or not is_same(old[key], element, dump)
    }
    deleted = [key for key in old if key not in value]
    if not changed and not deleted and list(old) == list(value):
        return _same_dict(base)
    order = [key for key in old if key in value] + [key for key in value if key not in old]
    if order != list(value):
        return None
    new = _entries(changed, codec, models)
    raw = _encode(changed, codec)
    entries = {key: new.get(key) or old[key] for key in value} if _still(new, value, raw) else None
    raw = ONE_FRAME + raw + _encode(deleted, codec)
    if base.log_bytes + len(raw) > LOG_TO_FRAME * base.frame_bytes:
        return None
    if len(base.extents) >= MAX_EXTENTS:  # so often has it forked
        return None
    log = sum(extent.size for extent in base.extents)
    return Plan(
        DICT,
        (Kept(0, log), Fresh((MSGPACK, raw), 1, [])),
        entries=entries,
        frame_bytes=base.frame_bytes,
        log_bytes=base.log_bytes + len(raw),
        serialized=len(changed),
    )


def _same_dict(base: Base) -> Plan:
    """Return the plan of a dict that is what its base is."""
    log = sum(extent.size for extent in base.extents)
    return Plan(
        DICT,
        (Kept(0, log),),
        entries=base.entries,
        frame_bytes=base.frame_bytes,
        log_bytes=base.log_bytes,
    )


def _entries(value: dict[str, Any], codec: Codec, models: frozenset[type]) -> dict[str, Node]:
    """Return the nodes of a dict's values."""
    found = {}
    for key, element in value.items():
        node = build(element, models, decoded=False)
        found[key] = raw_node(_dump(element, codec)) if node is None else node
    return found


def _still(entries: dict[str, Node], value: dict[str, Any], raw: bytes) -> bool:
    """Whether nodes that were made before a dict was serialised are of what was serialised.

    Somebody else may have changed a value meanwhile: memory then learns nothing.
    """
    return all(
        matches(node, value[key]) if node.raw is None else node.raw in raw
        for key, node in entries.items()
    )


def replay(log: Iterable[Any]) -> dict[str, Any]:
    """Return the dict that a key-frame and patches make; ValueError if they are damaged."""
    value: dict[str, Any] = {}
    for element in log:
        if type(element) is not list or len(element) != 2:
            raise ValueError("a patch is not a pair")
        entries, deleted = element
        if type(entries) is not dict or type(deleted) is not list:
            raise ValueError("a patch does not have its fields")
        if not all(type(key) is str for part in (entries, deleted) for key in part):
            raise ValueError("a patch names what is no key")
        for key in deleted:
            value.pop(key, None)
        value.update(entries)
    return value
