"""Messages that are made of their fields, beside the serialiser that validates these."""

from __future__ import annotations

from typing import Any

import ormsgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import field_validator

from lgkv._shadow import revive, revive_all
from lgkv.codec import models
from lgkv.errors import UnregisteredTypeError
from lgkv.langgraph import StrictSerializer, _messages
from lgkv.langgraph.serde import SerdeCodec
from tests.unit.shadows import Point, exactly, leaves

OPTION = ormsgpack.OPT_NON_STR_KEYS
CALL = {"name": "look", "args": {"at": [1]}, "id": "1", "type": "tool_call"}
USAGE = {
    "input_tokens": 1,
    "output_tokens": 2,
    "total_tokens": 3,
    "input_token_details": {"audio": 1, "cache_read": 2},
    "output_token_details": {"reasoning": 1},
}
USUAL = [
    HumanMessage("hello", id="1"),
    SystemMessage(["be", {"type": "text", "text": "kind"}], name="rules"),
    AIMessage("", id="2", tool_calls=[CALL], usage_metadata=USAGE),
    AIMessage("so", additional_kwargs={"refusal": None}, response_metadata={"model": {"a": [1]}}),
    ToolMessage("42", tool_call_id="1", artifact={"rows": [1, 2.5]}),
]
WHOLE = StrictSerializer().dumps_typed(USUAL)[1]


def serialised(kind: type, fields: Any) -> bytes:
    """Return the data of a message's extension type."""
    parts = (kind.__module__, kind.__name__, fields, "model_validate_json")
    return ormsgpack.packb(parts, option=OPTION)


def outcome(load: Any, argument: Any) -> Any:
    """Return what a call gives, or the type of its error."""
    try:
        return exactly(load(argument))
    except Exception as error:  # noqa: BLE001  whichever it is
        return type(error)


def some_fields() -> st.SearchStrategy[tuple[type, dict[Any, Any]]]:
    """Give the fields of a message, all as usual but for a few."""
    odd = (
        leaves()
        | st.lists(leaves(), max_size=2)
        | st.dictionaries(st.sampled_from(["a", "tool_calls", 1]), leaves(), max_size=2)
        | _changed(CALL).map(lambda call: [call])
        | _changed(USAGE)
        | _changed({"audio": 1, "reasoning": 2}).map(
            lambda details: {**USAGE, "output_token_details": details}
        )
    )
    return st.sampled_from(USUAL).flatmap(
        lambda message: st.tuples(st.just(type(message)), _changed(message.model_dump(), odd))
    )


def _changed(
    fields: dict[str, Any], odd: st.SearchStrategy[Any] | None = None
) -> st.SearchStrategy[dict[Any, Any]]:
    names = st.sampled_from([*fields, "more"])
    changes = st.dictionaries(names, leaves() if odd is None else odd, max_size=2)
    orders = st.just([*fields]) | st.permutations([*fields]) | st.just([*fields][:-1])
    return st.tuples(orders, changes).map(
        lambda drawn: {**{name: fields[name] for name in drawn[0]}, **drawn[1]}
    )


@given(some_fields())
@example((AIMessage, AIMessage("", tool_calls=[{**CALL, "id": None}]).model_dump()))
@example((HumanMessage, {**HumanMessage("").model_dump(), "type": "ai"}))
def test_messages_are_rebuilt_as_the_serialiser_does(made: tuple[type, dict[Any, Any]]) -> None:
    raw = ormsgpack.packb([ormsgpack.Ext(_messages.PYDANTIC, serialised(*made)), 1])
    for serde in (StrictSerializer(), JsonPlusSerializer(allowed_msgpack_modules=None)):
        decoded = outcome(SerdeCodec(serde).decode, ("msgpack", raw))
        assert decoded == outcome(serde.loads_typed, ("msgpack", raw))


@given(some_fields())
def test_twins_give_the_same(made: tuple[type, dict[Any, Any]]) -> None:
    data, known = serialised(*made), _messages.known_messages()
    assert exactly(revive(data, known)) == exactly(models._revive(data, known))
    raw = ormsgpack.packb([ormsgpack.Ext(_messages.PYDANTIC, data)] * 2)
    assert exactly(revive_all(raw, known)) == exactly(models._revive_all(raw, known))


@given(st.binary(max_size=8), st.integers(0, 3), st.integers(0, 60))
def test_damaged_messages_are_rebuilt_as_the_serialiser_does(
    tail: bytes, which: int, cut: int
) -> None:
    prefix, kind, _ = _messages.known_messages()[which]
    whole = serialised(kind, USUAL[0].model_dump())
    raw = ormsgpack.packb(ormsgpack.Ext(_messages.PYDANTIC, whole[: len(prefix) + cut] + tail))
    serde = StrictSerializer()
    decoded = outcome(SerdeCodec(serde).decode, ("msgpack", raw))
    assert decoded == outcome(serde.loads_typed, ("msgpack", raw))


def parts_of_any_size() -> st.SearchStrategy[Any]:
    """Give what takes every form that MessagePack has for it."""
    edges = [at + by for at in (0, 32, 128, 1 << 8, 1 << 16, 1 << 32) for by in (-1, 0, 1)]
    numbers = st.sampled_from([*edges, *(-edge for edge in edges), (1 << 64) - 1, -(1 << 63)])
    sizes = st.sampled_from([0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536])
    return (
        numbers
        | st.floats()
        | sizes.map(lambda size: "é" * (size // 2) + "a" * (size % 2))
        | sizes.map(lambda size: [None] * size)
        | st.sampled_from([0, 15, 16, 65536]).map(lambda size: {f"{n}": n for n in range(size)})
        | st.sampled_from([b"a", {1: 2}, {"a": {"b": [True, False, None]}}, [[[]]]])
    )


@settings(max_examples=50)
@given(parts_of_any_size(), st.integers(1, 3))
def test_values_of_every_size_are_read_as_the_serialiser_does(part: Any, count: int) -> None:
    fields = {**USUAL[-1].model_dump(), "artifact": part}
    data = serialised(ToolMessage, fields)
    known = _messages.known_messages()
    assert exactly(revive(data, known)) == exactly(models._revive(data, known))
    raw = ormsgpack.packb([ormsgpack.Ext(_messages.PYDANTIC, data)] * count)
    serde = StrictSerializer()
    decoded = outcome(SerdeCodec(serde).decode, ("msgpack", raw))
    assert decoded == outcome(serde.loads_typed, ("msgpack", raw))


@given(st.integers(0), st.binary(min_size=1, max_size=3), st.integers(0, 3))
def test_damaged_lists_are_read_as_the_serialiser_does(at: int, damage: bytes, cut: int) -> None:
    raw = WHOLE
    at %= len(raw)
    damaged = (raw[:at] + damage + raw[at + len(damage) :])[: len(raw) - cut]
    known = _messages.known_messages()
    assert exactly(revive_all(damaged, known)) == exactly(models._revive_all(damaged, known))
    serde = StrictSerializer()
    decoded = outcome(SerdeCodec(serde).decode, ("msgpack", damaged))
    assert decoded == outcome(serde.loads_typed, ("msgpack", damaged))


@pytest.mark.parametrize("depth", [98, 99, 100, 101, 300])
def test_what_nests_deep_is_read_as_the_serialiser_does(depth: int) -> None:
    data = serialised(ToolMessage, {**USUAL[-1].model_dump(), "artifact": "here"})
    data = data.replace(b"\xa4here", b"\x91" * depth + b"\xc0")
    raw = ormsgpack.packb([ormsgpack.Ext(_messages.PYDANTIC, data)])
    known, serde = _messages.known_messages(), StrictSerializer()
    assert outcome(lambda raw: revive_all(raw, known), raw) == outcome(
        lambda raw: models._revive_all(raw, known), raw
    )
    decoded = outcome(SerdeCodec(serde).decode, ("msgpack", raw))
    assert decoded == outcome(serde.loads_typed, ("msgpack", raw))


def test_a_usual_list_needs_no_serialiser() -> None:
    assert revive_all(WHOLE, _messages.known_messages()) == USUAL


@pytest.mark.parametrize("message", USUAL, ids=lambda message: message.type)
def test_a_usual_message_needs_no_serialiser(message: Any) -> None:
    data = serialised(type(message), message.model_dump())
    found = revive(data, _messages.known_messages())
    assert found == message
    assert found.model_copy(deep=True).model_dump() == message.model_dump()


def test_a_class_that_changes_its_fields_is_left_to_the_serialiser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Trimmed(HumanMessage):
        @field_validator("content")
        @classmethod
        def trim(cls, content: Any) -> Any:
            return content.strip("t")

    monkeypatch.setitem(globals(), "Trimmed", Trimmed)
    Trimmed.__qualname__ = "Trimmed"
    rules = _messages._rules(Trimmed)
    assert rules is not None
    assert not _messages._does_nothing_else(Trimmed, rules)


def test_a_class_with_a_field_that_is_not_known_is_left_to_the_serialiser() -> None:
    assert _messages._rules(Point) is None


def test_a_refused_type_inside_a_message_is_named() -> None:
    point = ormsgpack.Ext(_messages.PYDANTIC, serialised(Point, {"x": 1, "y": 2}))
    fields = {**USUAL[0].model_dump(), "additional_kwargs": {"at": point}}
    raw = ormsgpack.packb(ormsgpack.Ext(_messages.PYDANTIC, serialised(HumanMessage, fields)))
    with pytest.raises(UnregisteredTypeError, match="Point"):
        SerdeCodec(StrictSerializer()).decode(("msgpack", raw))
