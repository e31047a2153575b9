"""How a new value will be stored: what is tried first changes nothing about it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage

from lgkv.codec import plan
from lgkv.codec.plan import INLINE_BYTES, TINY_ELEMENTS, Form, Fresh, Plan, plan_value
from lgkv.langgraph.serde import SerdeCodec, StrictSerializer

CODEC = SerdeCodec(StrictSerializer())

texts = st.text(max_size=6) | st.integers(INLINE_BYTES - 8, INLINE_BYTES + 8).map(lambda n: "x" * n)
elements = (
    texts | st.integers(-(2**63), 2**64 - 1) | st.booleans() | st.none() | st.floats() | st.just([])
)
lists = st.lists(elements, max_size=TINY_ELEMENTS + 4)


def stored(planned: Plan) -> Any:
    """Return all of a plan that reaches the file; nodes are what memory keeps of it."""
    parts = [
        (part.payload, part.size) if isinstance(part, Fresh) else part for part in planned.parts
    ]
    return planned._replace(parts=(), entries=None), parts


@given(lists)
def test_list_that_is_tried_inline_first_is_planned_as_any_other(values: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "TINY_ELEMENTS", -1)
        whole = plan_value(values, None, CODEC)
    assert stored(plan_value(values, None, CODEC)) == stored(whole)


def test_list_that_grows_while_it_is_serialised_is_stored_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values: list[Any] = [HumanMessage("x" * INLINE_BYTES, id="1")]
    encode = SerdeCodec.encode

    def encode_late(self: SerdeCodec, value: Any) -> Any:
        values.append(HumanMessage("late", id="2"))
        return encode(self, value)

    monkeypatch.setattr(SerdeCodec, "encode", encode_late)
    (fresh,) = plan_value(values, None, CODEC).parts
    assert isinstance(fresh, Fresh)
    assert CODEC.decode(fresh.payload) == values[:1]
    assert (fresh.size, len(fresh.nodes), len(values)) == (1, 1, 2)


@pytest.mark.parametrize("fill", ["x", "é", "\U0001f600", 7, True, None])
def test_list_is_inline_up_to_its_limit_and_not_beyond(fill: Any) -> None:
    for size in range(1, INLINE_BYTES + 2):
        values = ["".join([fill] * size)] if isinstance(fill, str) else [fill] * size
        planned = plan_value(values, None, CODEC)
        assert (planned.form is Form.INLINE) == (len(CODEC.encode(values)[1]) <= INLINE_BYTES)
        assert planned.serialized == len(values)


@pytest.mark.parametrize("values", [["a", 1, None], ["x" * 60] * 3, ["x" * (INLINE_BYTES + 1)]])
def test_list_of_a_few_leaves_is_serialised_once(
    values: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[Any] = []
    encode = SerdeCodec.encode
    monkeypatch.setattr(
        SerdeCodec, "encode", lambda self, value: encoded.append(value) or encode(self, value)
    )
    plan_value(values, None, CODEC)
    assert encoded == [values]
