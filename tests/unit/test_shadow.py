"""The shadows of `lgkv._shadow`, beside their Python twin: both must do the same."""

from __future__ import annotations

import copy
import datetime
import decimal
import enum
import gc
import math
import pickle
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from pydantic import BaseModel, ConfigDict, PrivateAttr

from lgkv import _shadow
from lgkv.codec import reference
from tests.unit.shadows import MODELS, Free, Point, Private, exactly, values, wreck

TWINS = [pytest.param(reference, id="python"), pytest.param(_shadow, id="native")]
both = pytest.mark.parametrize("twin", TWINS)


def built(twin: Any, value: Any, *, decoded: bool = True) -> Any:
    node = twin.build(value, MODELS, decoded)
    assert node is not None, value
    return node


# --- the twins do the same -------------------------------------------------------------------


@given(values(), values())
def test_twins_agree_on_what_has_a_node_and_what_matches(one: Any, other: Any) -> None:
    slow, fast = (twin.build(one, MODELS, decoded=True) for twin in (reference, _shadow))
    assert (slow is None) == (fast is None)
    if slow is None or fast is None:
        return
    for value in (one, copy.deepcopy(one), other, [one], {"a": one}):
        assert reference.matches(slow, value) == _shadow.matches(fast, value)
    assert exactly(reference.clone(slow)) == exactly(_shadow.clone(fast))
    assert exactly(reference.node_key(slow)) == exactly(_shadow.node_key(fast))
    assert slow.decoded == fast.decoded
    assert slow.raw == fast.raw


@given(values())
def test_twins_agree_on_keys(value: Any) -> None:
    assert exactly(reference.value_key(value)) == exactly(_shadow.value_key(value))


@given(st.lists(values(), max_size=6), st.data())
def test_twins_agree_on_runs(old: list[Any], data: st.DataObject) -> None:
    new = data.draw(st.lists(st.sampled_from(old) | values(), max_size=6) if old else st.just([]))
    new = [copy.deepcopy(value) for value in new]
    at = data.draw(st.integers(0, len(old)))
    start = data.draw(st.integers(0, len(new)))
    lengths = []
    for twin in (reference, _shadow):
        nodes = [
            node
            if (node := twin.build(value, MODELS, decoded=False))
            else twin.raw_node(dump(value))
            for value in old
        ]
        lengths.append(twin.run_length(nodes, at, new, start, dump))
    assert lengths[0] == lengths[1]


def dump(value: Any) -> bytes:
    """Stand for a serialiser; equal exactly where the exact form is."""
    return repr(exactly(value)).encode()


# --- what a node says of a value -------------------------------------------------------------


@both
@given(value=values())
def test_node_matches_its_value_and_clones_to_it(twin: Any, value: Any) -> None:
    node = twin.build(value, MODELS, decoded=True)
    if node is None:
        return
    assert twin.matches(node, value)
    assert twin.matches(node, copy.deepcopy(value))
    assert exactly(twin.clone(node)) == exactly(listed(value))
    key = exactly(twin.value_key(value))
    assert key == exactly(twin.value_key(copy.deepcopy(value)))
    assert key == exactly(twin.node_key(node))


def listed(value: Any) -> Any:
    """Return a value with lists for its tuples, as a serialiser gives it back."""
    if type(value) in (list, tuple):
        return [listed(item) for item in value]
    if type(value) is dict:
        return {key: listed(item) for key, item in value.items()}
    if type(value) in MODELS:
        twin = copy.copy(value)
        object.__setattr__(twin, "__dict__", listed(value.__dict__))
        object.__setattr__(twin, "__pydantic_extra__", listed(value.__pydantic_extra__))
        return twin
    return value


@both
@given(value=values(), other=values())
def test_values_that_match_differ_in_nothing_but_tuples(twin: Any, value: Any, other: Any) -> None:
    node = twin.build(value, MODELS, decoded=True)
    if node is not None and twin.matches(node, other):
        form, to = (exactly(listed(each), sets=False) for each in (value, other))
        assert form == to


DIFFERENT = [
    (0.0, -0.0),
    (1, True),
    (0, False),
    (1, 1.0),
    (True, 1.0),
    (None, 0),
    ("1", 1),
    ("a", b"a"),
    (math.nan, -math.nan),
    ([], {}),
    ([1], [1, 1]),
    ({"a": 1}, {"a": 1, "b": 1}),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({"a": 1}, {"b": 1}),
    ({"a": None}, {}),
    ([[1]], [[2]]),
    ("\ud800", "?"),
    (HumanMessage("a"), HumanMessage("b")),
    (HumanMessage("a"), AIMessage("a")),
    (HumanMessage("a", id="1"), HumanMessage("a", id="2")),
    (HumanMessage("a", example=1), HumanMessage("a")),
    (Free(a=1), Free(a=1, b=2)),
    (Free(a=1, b=2), Free(b=2, a=1)),
    (Free(), Point(x=1, y=2)),
]


@both
@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=str)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: {"a": [v, 1]}])
def test_values_that_are_stored_differently_do_not_match(
    twin: Any, one: Any, other: Any, wrap: Callable[[Any], Any]
) -> None:
    assert not twin.matches(built(twin, wrap(one)), wrap(other))
    assert not twin.matches(built(twin, wrap(other)), wrap(one))


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Colour(enum.IntEnum):
    RED = 1


class Pair(NamedTuple):
    a: int
    b: int


class Plain:
    """A class of which nothing is known."""


WITHOUT_NODE = [
    Text("a"),
    Number(1),
    Colour.RED,
    Pair(1, 2),
    OrderedDict(a=1),
    {1: 2},
    {Text("a"): 1},
    {"a": 1, None: 2},
    bytearray(b"a"),
    {1, 2},
    frozenset(),
    1j,
    decimal.Decimal(1),
    datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc),
    Plain(),
    Private(),
    [1, [2, Plain()]],
    HumanMessage("a", additional_kwargs={"x": Plain()}),
    HumanMessage("a", response_metadata={"x": {1: 2}}),
    HumanMessage("a", additional_kwargs={"x": Point(x=1, y=2)}),
    Free(a=Plain()),
]


@both
@pytest.mark.parametrize("value", WITHOUT_NODE, ids=lambda value: type(value).__name__)
def test_value_of_an_unknown_type_has_no_node(twin: Any, value: Any) -> None:
    for whole in (value, [value], {"a": [value]}):
        assert twin.build(whole, MODELS, decoded=False) is None
    for other in (1, "a", [1, 2], {"a": 1}):
        assert not twin.matches(built(twin, other), value)


@both
def test_type_that_says_it_equals_another_has_no_node(twin: Any) -> None:
    class Same(type):
        def __eq__(cls, other: object) -> bool:
            return True

        __hash__ = type.__hash__

    class Odd(metaclass=Same):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    assert twin.build(Odd(), MODELS, decoded=False) is None
    assert not twin.matches(built(twin, [1, "a"]), [Odd(), Odd()])
    assert not twin.matches(built(twin, 0.5), Odd())


@both
def test_model_that_is_not_named_has_no_node(twin: Any) -> None:
    assert twin.build(HumanMessage("a"), frozenset({AIMessage}), decoded=False) is None

    class Mine(HumanMessage):
        pass

    assert twin.build(Mine("a"), MODELS, decoded=False) is None
    assert not twin.matches(built(twin, HumanMessage("a")), Mine("a"))


MUTATIONS: dict[str, Callable[[Any], Any]] = {
    "content": lambda m: setattr(m, "content", "other"),
    "block": lambda m: m.content.append({"type": "text", "text": "b"}),
    "in a block": lambda m: m.content[0].update(text="other"),
    "id": lambda m: setattr(m, "id", "2"),
    "additional_kwargs": lambda m: m.additional_kwargs.update(x=1),
    "nested kwargs": lambda m: m.additional_kwargs["deep"]["er"].append(1),
    "response_metadata": lambda m: m.response_metadata["usage"].update(n=1.0),
    "tool call args": lambda m: m.tool_calls[0]["args"].update(q=2),
    "tool calls": lambda m: m.tool_calls.pop(),
    "extra": lambda m: setattr(m, "mood", "bad"),
    "extra value": lambda m: m.moods.append("bad"),
    "removed field": lambda m: m.__dict__.pop("name"),
    "added field": lambda m: m.__dict__.update(surprise=1),
    "order": lambda m: m.__dict__.update(content=m.__dict__.pop("content")),
}


def rich() -> AIMessage:
    return AIMessage(
        [{"type": "text", "text": "a"}],
        id="1",
        additional_kwargs={"deep": {"er": [1]}},
        response_metadata={"usage": {"n": 1}},
        tool_calls=[{"name": "f", "args": {"q": 1}, "id": "c"}],
        moods=["good"],
    )


@both
@pytest.mark.parametrize("name", MUTATIONS)
def test_message_changed_in_place_matches_no_more(twin: Any, name: str) -> None:
    message = rich()
    node = built(twin, message)
    assert twin.matches(node, message)
    MUTATIONS[name](message)
    assert not twin.matches(node, message)
    assert exactly(twin.clone(node)) == exactly(rich())


@both
@pytest.mark.parametrize("name", MUTATIONS)
def test_clone_changed_in_place_changes_neither_node_nor_other_clones(twin: Any, name: str) -> None:
    node = built(twin, [rich(), rich()])
    first, second = twin.clone(node)
    MUTATIONS[name](first)
    assert exactly(second) == exactly(rich())
    assert exactly(twin.clone(node)) == exactly([rich(), rich()])


@both
def test_set_fields_of_the_value_and_of_clones_are_their_own(twin: Any) -> None:
    message = HumanMessage("a", id="1")
    node = built(twin, message)
    before = set(message.__pydantic_fields_set__)
    message.__pydantic_fields_set__.clear()
    fresh = twin.clone(node)
    assert fresh.__pydantic_fields_set__ == before
    fresh.__pydantic_fields_set__.add("x")
    assert twin.clone(node).__pydantic_fields_set__ == before


@both
def test_clone_of_a_model_is_a_working_one(twin: Any) -> None:
    message = twin.clone(built(twin, rich()))
    assert message == rich()
    assert message.model_dump() == rich().model_dump()
    assert message.model_copy(update={"id": "9"}).id == "9"
    assert message.text == "a"
    assert repr(message) == repr(rich())
    assert copy.deepcopy(message) == pickle.loads(pickle.dumps(message)) == message
    message.name = "me"
    assert message.name == "me"


@both
def test_model_without_extra_fields_and_one_with_none_of_them(twin: Any) -> None:
    assert exactly(twin.clone(built(twin, Point(x=1, y=2)))) == exactly(Point(x=1, y=2))
    assert exactly(twin.clone(built(twin, Free()))) == exactly(Free())
    assert twin.clone(built(twin, Point(x=1, y=2))).__pydantic_extra__ is None
    assert twin.clone(built(twin, Free())).__pydantic_extra__ == {}


# --- depth -----------------------------------------------------------------------------------


def nested(depth: int, make: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = make(value)
    return value


@both
@pytest.mark.parametrize("make", [lambda v: [v], lambda v: {"a": v}, lambda v: (v,)])
def test_value_may_nest_a_hundred_deep(twin: Any, make: Callable[[Any], Any]) -> None:
    assert twin.matches(built(twin, nested(101, make)), nested(101, make))
    assert twin.build(nested(102, make), MODELS, decoded=False) is None
    assert twin.build(nested(100_000, make), MODELS, decoded=False) is None
    twin.value_key(nested(100_000, make))


@both
def test_value_that_holds_itself_has_no_node(twin: Any) -> None:
    loop: list[Any] = []
    loop.append(loop)
    knot: dict[str, Any] = {}
    knot["id"] = knot
    for value in (loop, knot, [knot, loop]):
        assert twin.build(value, MODELS, decoded=False) is None
        twin.value_key(value)
        assert not twin.matches(built(twin, [[[1]]]), value)


# --- keys ------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (HumanMessage("a", id="1"), HumanMessage("a", id="2")),
        (HumanMessage("a"), HumanMessage("b")),
        ({"id": "1", "x": 1}, {"id": "2", "x": 1}),
        ({"role": "user", "content": "a"}, {"role": "user", "content": "b"}),
        ({"type": "message", "data": {"id": "1"}}, {"type": "message", "data": {"id": "2"}}),
        (["a", 1], ["a", 2]),
        ("a", "b"),
        (1.5, 2.5),
    ],
    ids=str,
)
def test_elements_that_differ_early_have_keys_of_their_own(twin: Any, one: Any, other: Any) -> None:
    assert twin.value_key(one) != twin.value_key(other)
    assert twin.value_key(one) == twin.value_key(copy.deepcopy(one))
    assert twin.value_key(one) == twin.node_key(built(twin, one))
    hash(twin.value_key(one))


@both
@pytest.mark.parametrize("value", [{"id": 1}, {"id": ["x"]}, {"id": None, "a": 1}, [], {}, ()])
def test_key_of_what_has_no_text_for_an_id(twin: Any, value: Any) -> None:
    assert twin.value_key(value) == twin.node_key(built(twin, value))
    hash(twin.value_key(value))


@both
def test_key_of_a_model_of_somebody_elses(twin: Any) -> None:
    class Thing(BaseModel):
        model_config = ConfigDict(extra="allow")
        id: str = "7"
        _hidden: int = PrivateAttr(default=3)

    assert twin.value_key(Thing()) == "7"
    twin.value_key(Thing)  # a class has the attribute too, but is no model
    twin.value_key(Plain())


# --- runs and lists of nodes -----------------------------------------------------------------


@both
def test_run_ends_where_something_differs_or_either_side_ends(twin: Any) -> None:
    nodes = [built(twin, value) for value in (1, 2, 3)]

    def run(at: int, values: list[Any], start: int) -> int:
        return int(twin.run_length(nodes, at, values, start, dump))

    assert run(0, [1, 2, 3], 0) == 3
    assert run(0, [1, 2, 4], 0) == 2
    assert run(0, [1, 2, 3, 4], 0) == 3
    assert run(1, [0, 2, 3], 1) == 2
    assert run(0, [], 0) == run(3, [1], 0) == run(0, [1], 1) == 0
    assert twin.run_length([], 0, [1], 0, dump) == 0


@both
def test_raw_node_is_compared_by_its_bytes(twin: Any) -> None:
    value = decimal.Decimal("1.0")
    node = twin.raw_node(dump(value))
    assert node.raw == dump(value)
    assert not node.decoded
    assert not twin.matches(node, value)
    assert twin.run_length([node], 0, [decimal.Decimal("1.0")], 0, dump) == 1
    assert twin.run_length([node], 0, [decimal.Decimal("1.00")], 0, dump) == 0
    assert twin.node_key(node) is None
    with pytest.raises(ValueError, match="raw node"):
        twin.clone(node)


@both
def test_what_comparing_or_loading_raises_reaches_the_caller(twin: Any) -> None:
    def fail(_: Any) -> Any:
        raise LookupError("no")

    with pytest.raises(LookupError):
        twin.run_length([twin.raw_node(b"")], 0, [1], 0, fail)
    assert gc.isenabled()
    with pytest.raises(LookupError):
        twin.clone_all([built(twin, 1), twin.raw_node(b"")], fail)
    assert gc.isenabled()


@both
def test_hole_is_a_missing_node_or_one_that_cannot_be_cloned(twin: Any) -> None:
    live, decoded, raw = (
        built(twin, 1, decoded=False),
        built(twin, 1, decoded=True),
        twin.raw_node(b""),
    )
    assert twin.has_hole([None], need_decoded=False)
    assert twin.has_hole([decoded, None], need_decoded=True)
    assert not twin.has_hole([], need_decoded=True)
    assert not twin.has_hole([live, decoded, raw], need_decoded=False)
    assert not twin.has_hole([decoded, raw], need_decoded=True)
    assert twin.has_hole([decoded, live], need_decoded=True)


@both
def test_node_with_a_source_gives_what_is_decoded_and_becomes_its_node(twin: Any) -> None:
    element = {"a": (1, [2])}
    nodes = twin.source_all([twin.build(element, MODELS, decoded=False)], [element], [b"the bytes"])
    assert not twin.has_hole(nodes, need_decoded=True)
    loaded: list[bytes] = []

    def load(source: bytes) -> Any:
        loaded.append(source)
        return {"a": [1, [2]]}

    for _ in range(3):
        [value] = twin.clone_all(nodes, load, None, MODELS)
        assert exactly(value) == exactly({"a": [1, [2]]})
        wreck(value)
        del value
    assert loaded == [b"the bytes"]
    assert nodes[0].decoded
    assert nodes[0].source is None
    assert twin.matches(nodes[0], {"a": (1, [2])})


@both
def test_nodes_of_what_changed_meanwhile_are_none_at_all(twin: Any) -> None:
    elements: list[Any] = [[1], {1}, {"a": [2]}]
    nodes = twin.build_all(elements, MODELS, decoded=False)
    parts = [b"a", b"b", b"c"]
    sourced = twin.source_all(nodes, elements, parts)
    assert [node.source for node in sourced] == [b"a", None, b"c"]
    assert [node.raw for node in sourced] == [None, b"b", None]
    elements[2]["a"].append(3)
    assert twin.source_all(twin.build_all(elements, MODELS, decoded=False), elements, parts)
    assert twin.source_all(nodes, elements, parts) == []
    with pytest.raises(ValueError):  # noqa: PT011
        twin.source_all(nodes, elements, parts[1:])


@both
def test_node_whose_source_decodes_to_what_has_no_node_is_decoded_each_time(twin: Any) -> None:
    nodes = twin.source_all(twin.build_all([1], MODELS, decoded=False), [1], [b"7"])
    for _ in range(2):
        assert twin.clone_all(nodes, lambda raw: decimal.Decimal(raw.decode()), None, MODELS) == [
            decimal.Decimal(7)
        ]
    assert twin.matches(nodes[0], 1)


@both
def test_only_what_is_missing_is_cloned(twin: Any) -> None:
    mine = [9]
    nodes = [built(twin, [1]), built(twin, [2]), twin.raw_node(b"x")]
    found = twin.clone_all(nodes, bytes.upper, [twin.MISSING, mine, twin.MISSING])
    assert found == [[1], [9], b"X"]
    assert found[1] is mine
    assert twin.clone_all(nodes, bytes.upper) == [[1], [2], b"X"]
    assert twin.clone_all([], bytes.upper) == []


@both
def test_collector_is_left_as_it_was(twin: Any) -> None:
    nodes = [built(twin, [1])]
    assert gc.isenabled()
    twin.clone_all(nodes, bytes)
    assert gc.isenabled()
    gc.disable()
    try:
        twin.clone_all(nodes, bytes)
        assert not gc.isenabled()
    finally:
        gc.enable()


# --- the extension alone ---------------------------------------------------------------------


def test_missing_nodes_are_refused_and_never_read() -> None:
    with pytest.raises(TypeError):
        _shadow.matches(None, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _shadow.clone(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _shadow.node_key(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no node"):
        _shadow.clone_all([None], bytes)  # type: ignore[list-item]
    assert _shadow.run_length([None], 0, [None], 0, dump) == 0  # type: ignore[list-item]


def test_weight_grows_with_what_a_node_holds() -> None:
    small, large = (_shadow.build(value, MODELS, decoded=False) for value in ("a", "a" * 10_000))
    assert small is not None
    assert large is not None
    assert large.weight - small.weight == 9_999
    many = _shadow.build([["a" * 100]] * 50, MODELS, decoded=False)
    assert many is not None
    assert many.weight > 50 * sys.getsizeof("a" * 100)
    assert _shadow.raw_node(b"a" * 500).weight > 500


@given(
    st.lists(st.none() | st.tuples(st.text(max_size=3), st.booleans()), max_size=6),
    st.lists(st.tuples(st.text(max_size=3), st.booleans()), max_size=4),
    st.integers(-1, 6),
)
def test_what_tells_more_is_put_in_place(
    before: list[tuple[str, bool] | None], new: list[tuple[str, bool]], at: int
) -> None:
    fast = [None if of is None else _shadow.build(of[0], MODELS, of[1]) for of in before]
    slow = [None if of is None else reference.build(of[0], MODELS, of[1]) for of in before]
    nodes = [node for of in new if (node := _shadow.build(of[0], MODELS, of[1]))]
    twins = [node for of in new if (node := reference.build(of[0], MODELS, of[1]))]
    gone: list[Any] = []
    gone_twins: list[Any] = []
    if not 0 <= at <= len(before) - len(new):
        for place, held, what in (
            (_shadow.place, fast, nodes), (reference.place, slow, twins)
        ):  # fmt: skip
            with pytest.raises(IndexError):
                place(held, at, what, [])  # type: ignore[operator]
        return
    weight = sum(node.weight for node in fast if node)
    grown = _shadow.place(fast, at, nodes, gone)
    reference.place(slow, at, twins, gone_twins)
    assert [node and _shadow.clone(node) for node in fast] == [node and node.leaf for node in slow]
    assert [_shadow.clone(node) for node in gone] == [node.leaf for node in gone_twins]
    assert weight + grown == sum(node.weight for node in fast if node)


def test_nodes_and_clones_leak_nothing() -> None:
    value = [rich(), {"a": [1.5, "x" * 50, None]}, ("t", b"raw" * 9)]
    node = _shadow.build(value, MODELS, decoded=True)
    assert node is not None

    def round_trip() -> None:
        for _ in range(200):
            other = _shadow.build(value, MODELS, decoded=True)
            assert other is not None
            _shadow.matches(other, value)
            _shadow.node_key(other)
            _shadow.value_key(value)
            _shadow.clone_all([other, other], bytes)

    round_trip()
    gc.collect()
    counts = [sys.getrefcount(part) for part in (value, AIMessage, value[1], value[2])]
    blocks = sys.getallocatedblocks()
    round_trip()
    gc.collect()
    assert [sys.getrefcount(part) for part in (value, AIMessage, value[1], value[2])] == counts
    assert sys.getallocatedblocks() - blocks < 100


def test_node_cannot_be_pickled() -> None:
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(_shadow.raw_node(b""))


def test_threads_clone_one_node_while_others_compare_with_it() -> None:
    value = [rich() for _ in range(20)]
    node = _shadow.build(value, MODELS, decoded=True)
    assert node is not None
    wrong: list[Any] = []

    def work() -> None:
        for _ in range(100):
            [fresh] = _shadow.clone_all([node], bytes)
            if not _shadow.matches(node, fresh):
                wrong.append(fresh)
            fresh[3].additional_kwargs.clear()
            if _shadow.matches(node, fresh):
                wrong.append(fresh)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert gc.isenabled()


@given(values())
@example([ToolMessage("x", tool_call_id="1", artifact={"a": [1]})])
@example([math.nan, -0.0, {"a": ("b", [])}])
def test_clone_of_a_clone_matches(value: Any) -> None:
    node = _shadow.build(value, MODELS, decoded=True)
    if node is not None:
        again = _shadow.build(_shadow.clone(node), MODELS, decoded=True)
        assert again is not None
        assert _shadow.matches(again, value)
