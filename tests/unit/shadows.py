"""Values to make shadows of, and the exact form by which they are compared."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import functools
import struct
from typing import Any

from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel, ConfigDict, PrivateAttr

__all__ = ["MODELS", "Free", "Point", "Private", "exactly", "leaves", "messages", "plain", "values"]


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


MODELS = frozenset(
    {HumanMessage, AIMessage, SystemMessage, ToolMessage, Document, Point, Free, Private}
)


def exactly(value: Any, *, sets: bool = True) -> Any:
    """Return a form that two values share only if nothing tells them apart: types, order, bits.

    Without `sets` the names of a model's set fields do not count.
    """
    form = functools.partial(exactly, sets=sets)
    found: Any = repr(value)
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
        found = form(
            {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        )
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
