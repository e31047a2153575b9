"""Serialised values checked and lists taken apart: `lgkv._msgpack` and its Python twin."""

from __future__ import annotations

import datetime
from typing import Any
from uuid import uuid4

import numpy as np
import ormsgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Command, Send

from lgkv import _msgpack
from lgkv.codec import arrays
from lgkv.langgraph.serde import SerdeCodec, StrictSerializer
from tests.unit.shadows import values

both = pytest.mark.parametrize(
    "twin", [pytest.param(arrays, id="python"), pytest.param(_msgpack, id="native")]
)

SERDE = JsonPlusSerializer()


def outcome(twin: Any, data: bytes) -> Any:
    """Return what the call gave, or the text of its ValueError."""
    try:
        return twin.split_array(data)
    except ValueError as error:
        return str(error)


@both
@given(elements=st.lists(values(), max_size=20))
def test_elements_are_what_each_is_serialised_to(twin: Any, elements: list[Any]) -> None:
    data = whole(elements)
    if data is not None:
        assert twin.split_array(data) == [whole([element])[1:] for element in elements]


def whole(elements: list[Any]) -> Any:
    try:
        return SERDE.dumps_typed(elements)[1]
    except TypeError:
        return None


SIZES = [0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536]


@both
@pytest.mark.parametrize("size", SIZES)
def test_every_width_of_a_length_is_read(twin: Any, size: int) -> None:
    for element in (
        "a" * size,
        b"a" * size,
        [0] * size,
        dict.fromkeys(range(size), 0),
        ormsgpack.Ext(5, b"a" * size),
    ):
        data = ormsgpack.packb([element, 1], option=ormsgpack.OPT_NON_STR_KEYS)
        parts = twin.split_array(data)
        assert b"".join(parts) == data[1:]
        assert len(parts) == 2
        assert parts[1] == b"\x01"


@both
@pytest.mark.parametrize("size", SIZES)
def test_every_width_of_a_list_is_read(twin: Any, size: int) -> None:
    data = ormsgpack.packb([7] * size)
    assert twin.split_array(data) == [b"\x07"] * size


@both
@pytest.mark.parametrize("number", [0, 127, 128, 2**8, 2**16, 2**32, 2**63, -1, -33, -(2**63)])
def test_every_number_is_read(twin: Any, number: int) -> None:
    data = ormsgpack.packb([number, 1.5, None, True, False])
    assert b"".join(twin.split_array(data)) == data[1:]
    assert len(twin.split_array(data)) == 5


BROKEN = [
    b"",
    b"\x01",
    b"\xc0",
    b"\x80",
    b"\xdc",
    b"\xdc\x00",
    b"\xdd\x00\x00\x00",
    b"\x91",
    b"\x90\x01",
    b"\x92\x01",
    b"\x91\xc1",
    b"\x91\xa5abcd",
    b"\x91\xd9",
    b"\x91\xda\x01",
    b"\x91\xc6\xff\xff\xff\xff",
    b"\x91\xdb\xff\xff\xff\xff" + b"a" * 100,
    b"\x91\xdd\xff\xff\xff\xff" + b"a" * 100,
    b"\x91\xdf\xff\xff\xff\xff" + b"a" * 100,
    b"\x91\xc9\xff\xff\xff\xff\x00",
    b"\xdd\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff" + b"\x00" * 100,
    b"\x91" + b"\xcf" + b"\x00" * 7,
    b"\x91\xd8" + b"\x00" * 16,
    b"\x91" * 1_000_000,
    b"\x91" + b"\x81\x00" * 1_000_000,
    b"\x91" + b"\xdf\x7f\xff\xff\xff" * 1_000,
]


@both
@pytest.mark.parametrize("data", BROKEN, ids=lambda data: data[:8].hex() or "empty")
def test_what_is_no_whole_list_is_an_error(twin: Any, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"list|value"):
        twin.split_array(data)


@both
def test_deep_nesting_needs_no_stack(twin: Any) -> None:
    data = b"\x91" * 300_000 + b"\x01"
    assert twin.split_array(data) == [data[1:]]


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda raw: b"\x92" + raw))
@example(b"\xdd\x00\x00\x00\x01\xdd\x00\x00\x00\x00")
@example(b"\x91\xdd\xff\xff\xff\xff")
def test_twins_agree_on_any_bytes(data: bytes) -> None:
    assert outcome(arrays, data) == outcome(_msgpack, data)


@given(st.data())
def test_twins_agree_on_damaged_lists(data: st.DataObject) -> None:
    good = bytearray(whole(data.draw(st.lists(st.text() | st.integers(0, 2**40), max_size=9))))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(good[: data.draw(st.integers(0, len(good)))])
    assert outcome(arrays, damaged) == outcome(_msgpack, damaged)


@pytest.mark.parametrize("data", [bytearray(b"\x90"), memoryview(b"\x90"), "\x90", None, []])
def test_only_bytes_are_taken(data: Any) -> None:
    with pytest.raises(TypeError):
        _msgpack.split_array(data)


# --- values as they are checked before they are decoded -------------------------------------


def verdict(twin: Any, data: bytes) -> Any:
    """Return None, or the text of the ValueError."""
    try:
        return twin.check_value(data)
    except ValueError as error:
        return str(error)


@both
@given(value=values())
def test_what_the_serialiser_writes_is_whole(twin: Any, value: Any) -> None:
    data = whole([value])
    if data is not None:
        assert verdict(twin, data) is None
        assert verdict(twin, data + b"\x01") == "there are bytes behind the value"
        assert verdict(twin, data[:-1]) is not None


@both
@pytest.mark.parametrize(
    "value",
    [
        HumanMessage("text", id="1", additional_kwargs={"a": [1, {"b": None}]}),
        [Send("node", {"messages": [AIMessage("a"), Document("b")]}), {"c": (1, {2}, b"3")}],
        {
            "when": datetime.datetime.now(datetime.timezone.utc),
            "many": np.arange(9.0),
            "u": uuid4(),
        },
        Command(update={"a": [HumanMessage("b")]}, goto=["c"]),
    ],
    ids=["message", "send", "objects", "command"],
)
def test_what_langgraph_has_of_its_own_is_whole(twin: Any, value: Any) -> None:
    data = SERDE.dumps_typed(value)[1]
    assert verdict(twin, data) is None
    assert verdict(twin, data[:-1]) is not None


ENDLESS = [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdc\xff\xff", b"\x9f", b"\x8f"]


@both
@pytest.mark.parametrize("count", ENDLESS, ids=bytes.hex)
@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("kind", range(8))
def test_count_that_cannot_be_is_refused_in_every_extension(
    twin: Any, count: bytes, depth: int, kind: int
) -> None:
    data = count + b"\x01"
    for _ in range(depth):
        data = ormsgpack.packb([1, ormsgpack.Ext(kind, data), 2])
    assert verdict(twin, data) == "the value is cut short"


@both
def test_other_extensions_hold_what_they_like(twin: Any) -> None:
    assert verdict(twin, ormsgpack.packb(ormsgpack.Ext(8, b"\xdd\xff\xff\xff\xff\x01"))) is None


@both
def test_nesting_has_an_end(twin: Any) -> None:
    data = b"\x01"
    for _ in range(1000):
        data = ormsgpack.packb(ormsgpack.Ext(5, data))
    assert verdict(twin, data) is None
    assert (
        verdict(twin, ormsgpack.packb(ormsgpack.Ext(5, data))) == "the value is nested too deeply"
    )


extended = st.recursive(
    st.binary(max_size=6) | st.sampled_from(ENDLESS),
    lambda inner: st.builds(
        lambda kind, parts: ormsgpack.packb(ormsgpack.Ext(kind, b"".join(parts))),
        st.integers(0, 9),
        st.lists(inner, max_size=3),
    ),
)


@given(data=st.lists(extended, max_size=4).map(b"".join))
def test_verdicts_are_those_of_the_twin(data: bytes) -> None:
    assert verdict(_msgpack, data) == verdict(arrays, data)


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a message"])
def test_serialiser_gets_no_count_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, *, inside: bool
) -> None:
    def unpacking(*_: Any, **options: Any) -> Any:
        raise AssertionError(options)  # which an ormsgpack before 1.13.1 would not survive

    data = b"\xdd\xff\xff\xff\xff\x01"
    if inside:
        data = ormsgpack.packb([ormsgpack.Ext(5, b"\x94\xa1a\xa1b" + data)])
    codec = SerdeCodec(StrictSerializer())
    monkeypatch.setattr(ormsgpack, "unpackb", unpacking)
    for read in (codec.decode, StrictSerializer().loads_typed, SerdeCodec(SERDE).decode):
        with pytest.raises(ValueError, match="the value is cut short"):
            read(("msgpack", data))
