"""Values that channels hold, types of somebody's own, and the exact form to compare them by."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import functools
import struct
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, NamedTuple

from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel, ConfigDict, PrivateAttr

__all__ = [
    "MODELS",
    "TYPES",
    "Card",
    "Colour",
    "Free",
    "Loud",
    "Pair",
    "Point",
    "Private",
    "changes",
    "exactly",
    "leaves",
    "messages",
    "plain",
    "storable",
    "values",
    "wreck",
]


class Point(BaseModel):
    """A model that takes no other fields."""

    x: int
    y: int


class Free(BaseModel):
    """A model that takes any field."""

    model_config = ConfigDict(extra="allow")


class Private(BaseModel):
    """A model with an attribute that is not serialised."""

    model_config = ConfigDict(extra="allow")
    _hidden: int = PrivateAttr(default=3)


class Loud(HumanMessage):
    """A message class of somebody's own."""

    volume: int = 11


@dataclasses.dataclass
class Card:
    """A dataclass, with a part that can be changed in place."""

    name: str
    tags: list[Any] = dataclasses.field(default_factory=list)


class Colour(Enum):
    """An enumeration."""

    RED = 1
    BLUE = 2


class Pair(NamedTuple):
    """A tuple with names."""

    a: Any
    b: Any


TYPES = [Point, Free, Private, Loud, Card, Colour, Pair]
"""The types of somebody's own, for a serialiser's allowlist."""

MODELS = frozenset(
    {HumanMessage, AIMessage, SystemMessage, ToolMessage, Document, Point, Free, Private}
)


def exactly(value: Any, *, sets: bool = True) -> Any:
    """Return a form that two values share only if nothing tells them apart: types, order, bits.

    Without `sets` the names of a model's set fields do not count.
    """
    form = functools.partial(exactly, sets=sets)
    found: Any
    if isinstance(value, float):
        found = struct.pack("d", value)
    elif isinstance(value, (list, tuple)):
        found = [form(item) for item in value]
    elif isinstance(value, dict):
        found = [(form(key), form(item)) for key, item in value.items()]
    elif isinstance(value, (set, frozenset)):
        found = sorted(repr(form(item)) for item in value)
    elif isinstance(value, BaseModel):
        parts = (value.__dict__, value.__pydantic_extra__, value.__pydantic_private__)
        found = [form(part) for part in parts]
        found.append(sorted(value.__pydantic_fields_set__) if sets else None)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = form({each.name: getattr(value, each.name) for each in dataclasses.fields(value)})
    else:
        found = repr(value)
    return (type(value), found)


def leaves() -> st.SearchStrategy[Any]:
    """Give what has no parts, dense in what is easily confused."""
    numbers = [None, True, False, 0, 1, -1, 2**63, 0.0, -0.0, 1.0, 1.5, float("nan")]
    texts = ["", "a", "id", "1", b"", b"a", "é", "\U0001f600"]
    return st.sampled_from([*numbers, *texts]) | st.text(max_size=5)


def _others() -> st.SearchStrategy[Any]:
    numbers = [decimal.Decimal("1.0"), decimal.Decimal("1.00"), 1j]
    time = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
    return st.sampled_from([*numbers, time, {1: 2}, {1}, bytearray(b"a"), Private()])


def _mixed(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["a", "b", "id", "content", "role"]) | st.text(max_size=3)
    return (
        st.lists(parts, max_size=4)
        | st.lists(parts, max_size=3).map(tuple)
        | st.dictionaries(names, parts, max_size=4)
    )


def plain() -> st.SearchStrategy[Any]:
    """Give leaves, lists, tuples and dicts of them."""
    return st.recursive(leaves(), _mixed, max_leaves=8)


def messages() -> st.SearchStrategy[Any]:
    """Give messages and other models, with extra fields and nested parts."""
    ids = st.sampled_from([None, "1", "2", "3"])
    kwargs = st.dictionaries(st.sampled_from(["a", "b"]), plain(), max_size=2)
    content = st.sampled_from(["", "a", "b", [{"type": "text", "text": "a"}]])
    calls = st.lists(
        st.builds(lambda args: {"name": "f", "args": args, "id": "c", "type": "tool_call"}, kwargs),
        max_size=2,
    )
    return (
        st.builds(HumanMessage, content, id=ids, additional_kwargs=kwargs)
        | st.builds(AIMessage, content, id=ids, response_metadata=kwargs, tool_calls=calls)
        | st.builds(ToolMessage, content, id=ids, tool_call_id=st.just("c"), artifact=plain())
        | st.builds(SystemMessage, content, id=ids, mood=plain())
        | st.builds(Document, page_content=st.text(max_size=3), metadata=kwargs)
        | st.builds(Free, a=plain(), id=ids)
        | st.builds(Point, x=st.integers(0, 2), y=st.integers(0, 2))
    )


def values() -> st.SearchStrategy[Any]:
    """Give whatever a channel may hold, with and without a node."""
    return st.recursive(leaves() | messages() | _others(), _mixed, max_leaves=8)


def storable() -> st.SearchStrategy[Any]:
    """Give what LangGraph's serialiser stores, with types of somebody's own here and there."""
    others = st.sampled_from(
        [
            decimal.Decimal("1.0"),
            decimal.Decimal("1.00"),
            datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.timezone.utc),
            datetime.datetime(
                2024, 1, 1, 13, tzinfo=datetime.timezone(datetime.timedelta(hours=1))
            ),
            {1: 2},
            {None: 1, "a": 2},
            {1, 2},
            bytearray(b"a"),
            Colour.RED,
            Pair(1, [2]),
        ]
    )
    made = (
        st.builds(Card, st.sampled_from(["a", "b"]), st.lists(plain(), max_size=2))
        | st.builds(Loud, st.sampled_from(["a", "b"]), volume=st.integers(0, 3))
        | st.builds(Private, a=plain())
    )
    return st.recursive(leaves() | messages() | others | made, _mixed, max_leaves=8)


def changes(value: Any) -> Iterator[Callable[[], Any]]:
    """Yield ways to change a value in place, anywhere inside."""
    parts: list[Any] = []
    if isinstance(value, (list, tuple)):
        parts = list(value)
    elif isinstance(value, dict):
        yield lambda: value.update(new=1.5)
        parts = list(value.values())
    elif isinstance(value, BaseModel):
        yield lambda: value.__dict__.update(id="new")
        parts = [*value.__dict__.values(), *(value.__pydantic_extra__ or {}).values()]
    elif isinstance(value, Card):
        yield lambda: setattr(value, "name", "new")
        parts = [value.tags]
    if isinstance(value, list):
        yield lambda: value.append("new")
    if parts and isinstance(value, (list, dict)):
        yield value.pop if isinstance(value, list) else value.popitem
    for part in parts:
        yield from changes(part)


def wreck(value: Any) -> None:
    """Change everything in a value that can be changed in place."""
    if isinstance(value, (list, tuple)):
        for item in value:
            wreck(item)
    if isinstance(value, list):
        value.append("wrecked")
    elif isinstance(value, dict):
        for item in value.values():
            wreck(item)
        value.clear()
        value["wrecked"] = True
    elif isinstance(value, BaseModel):
        for item in value.__dict__.values():
            wreck(item)
        wreck(value.__pydantic_extra__)
        wreck(value.__pydantic_private__)
        value.__dict__.clear()
        value.__dict__["wrecked"] = True
        value.__pydantic_fields_set__.add("wrecked")
    elif isinstance(value, Card):
        wreck(value.tags)
        value.name = "wrecked"
    elif isinstance(value, (set, bytearray)):
        value.clear()
