"""Channels whose versions share what they have alike: what comes back is exactly what was put.

Exactly is what the serialiser gives for the whole value: types, order, bits, tuples as lists.
"""

from __future__ import annotations

import copy
import datetime
import decimal
import math
import sys
import uuid
import zoneinfo
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Interrupt, Send
from pydantic import BaseModel, ConfigDict, PrivateAttr, SecretStr

import lgkv
from lgkv.langgraph import LgkvSaver
from tests.conformance.checkpoints import config_of, put
from tests.conformance.stored import audit
from tests.unit.shadows import Card, Colour, Free, Loud, Pair, Point, Private, exactly, wreck

UTC = datetime.timezone.utc


class Text(str):
    __slots__ = ()


class Count(int):
    pass


class Level(IntEnum):
    LOW = 1


class Flags(IntFlag):
    A = 1


class Nested(BaseModel):
    model_config = ConfigDict(extra="allow")
    point: Point
    messages: list[BaseMessage] = []
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)


def deep(depth: int) -> Any:
    value: Any = 1.5
    for _ in range(depth):
        value = [value]
    return value


def rich(**fields: Any) -> AIMessage:
    return AIMessage(
        [{"type": "text", "text": "a"}],
        id="rich",
        additional_kwargs={"deep": {"er": [1, {"x": None}]}, "t": (1, 2)},
        response_metadata={"usage": {"n": 1, "f": 0.1}},
        tool_calls=[{"name": "f", "args": {"q": {"r": [1]}}, "id": "c"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        **fields,
    )


ODD: dict[str, Any] = {
    "none": None,
    "bools": [True, False],
    "ints": [0, 1, -1, 2**63, 2**64 - 1, -(2**63)],
    "floats": [0.0, -0.0, 1.0, math.nan, -math.nan, math.inf, 5e-324, 0.1],
    "texts": ["", "é", "\x00", "\U0001f600", "\ud800 lone", "x" * 70_000],
    "bytes": [b"", b"\xff" * 300],
    "bytearray": bytearray(b"abc"),
    "tuple": (1, (2, [3, ()])),
    "named tuple": Pair(1, [2]),
    "sets": [{1, 2}, frozenset({3})],
    "deque": deque([1, 2], maxlen=5),
    "dict keys": {1: 2, None: 3, "a": 4, 1.5: 5, (1, 2): 6, b"x": 7},
    "true key": {True: 1, 0: 2},
    "ordered dict": OrderedDict(b=1, a=2),
    "default dict": defaultdict(list, a=[1]),
    "str subclass": Text("a"),
    "int subclass": Count(5),
    "int enum": Level.LOW,
    "flags": Flags.A,
    "enum": Colour.BLUE,
    "decimals": [decimal.Decimal("1.0"), decimal.Decimal("1.00"), decimal.Decimal("NaN")],
    "datetimes": [
        datetime.datetime(2024, 1, 1),  # noqa: DTZ001  a naive one is what is tried
        datetime.datetime(2024, 1, 1, tzinfo=UTC),
        datetime.datetime(2024, 1, 1, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
    ],
    "dates": [datetime.date(2024, 1, 1), datetime.time(1, 2), datetime.timedelta(days=1.5)],
    "uuid": uuid.UUID(int=5),
    "array": np.arange(5, dtype=np.float32),
    "secret": SecretStr("s"),
    "exception": ValueError("x"),
    "send": Send("node", {"a": [1]}),
    "interrupt": Interrupt(value={"a": 1}, id="i"),
    "dataclass": Card("a", ["b", {"c": (1,)}]),
    "model": Point(x=1, y=2),
    "free model": Free(a=1, b=[2]),
    "private model": Private(a=1),
    "nested model": Nested(point=Point(x=1, y=2), messages=[HumanMessage("a")], more={"a": 1}),
    "human": HumanMessage("a", id="1", name="me", example=True),
    "rich": rich(extra_field={"a": [1]}),
    "chunk": AIMessageChunk("a", id="1", tool_call_chunks=[]),
    "tool": ToolMessage("a", tool_call_id="c", artifact={"a": (1, {2})}, status="error"),
    "system": SystemMessage([{"type": "text", "text": "a"}, "b"]),
    "remove": RemoveMessage(id="1"),
    "own message": Loud("a", volume=3, id="1"),
    "message of odd parts": HumanMessage("a", additional_kwargs={"d": decimal.Decimal(1)}),
    "message of a subclass": HumanMessage(Text("a"), additional_kwargs={"n": Level.LOW}),
    "document": Document(page_content="a", metadata={"s": {1, 2}, "t": (1,)}),
    "unvalidated": AIMessage.model_construct(content=None, tool_calls=[{"odd": 1}], type="ai"),
    "deep list": deep(150),
    "messages in a dict": {"a": [rich(), {"b": HumanMessage("x")}]},
    "empty": [[], {}, "", (), [[]]],
}


def as_serde_gives(saver: LgkvSaver, value: Any) -> Any:
    """Return what the serialiser gives back of a whole value."""
    return exactly(saver.serde.loads_typed(saver.serde.dumps_typed(value)))


def read(saver: LgkvSaver, config: Any, name: str = "a") -> Any:
    found = saver.get_tuple(config)
    assert found is not None
    return found.checkpoint["channel_values"][name]


def permissive(db: lgkv.Database) -> LgkvSaver:
    return LgkvSaver(db, serde=JsonPlusSerializer())


PAD = "p" * 400
"""Makes a value large enough to be stored in pieces."""

PLACES: dict[str, Callable[[Any], Any]] = {
    "list": lambda value: [PAD, value, PAD],
    "twice in a list": lambda value: [value, PAD, value],
    "dict": lambda value: {"pad": PAD * 3, "value": value},
    "list in a list": lambda value: [[PAD, [value]], PAD],
    "dict in a list": lambda value: [{"a": {"b": value}, "pad": PAD}],
    "message": lambda value: [HumanMessage(PAD, additional_kwargs={"v": value})],
    "extra field": lambda value: [HumanMessage(PAD, more=value)],
    "opaque": lambda value: value,
}


def placed(value: Any) -> dict[str, Any]:
    """Return channels that hold a value in every place where it may stand."""
    return {place: make(value) for place, make in PLACES.items()}


def state(saver: LgkvSaver, config: Any) -> dict[str, Any]:
    """Return the channels of a checkpoint in their exact form, and wreck what was returned."""
    found = saver.get_tuple(config)
    assert found is not None
    values = found.checkpoint["channel_values"]
    forms = {name: exactly(value) for name, value in values.items()}
    wreck(values)
    return forms


def as_given(saver: LgkvSaver, values: dict[str, Any]) -> dict[str, Any]:
    """Return channels in the exact form of what the serialiser gives back of each."""
    return {name: as_serde_gives(saver, value) for name, value in values.items()}


def step(saver: LgkvSaver, config: Any, values: dict[str, Any]) -> Any:
    """Put a checkpoint at which every channel is new."""
    step.number = number = getattr(step, "number", 0) + 1
    return put(saver, config, values, dict.fromkeys(values, f"{number}"))


def grown(value: Any, more: Any) -> Any:
    """Return a value with something new in it, its other parts the same objects."""
    if type(value) is list:
        return [*value, "more", more]
    return {**value, "more": more} if type(value) is dict else value


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("name", ODD)
def test_value_comes_back_as_the_serialiser_gives_it(path: str, name: str) -> None:
    values = placed(ODD[name])
    with lgkv.open(path) as db:
        saver = permissive(db)
        wants = [as_given(saver, values)]
        configs = [step(saver, None, values)]
        assert state(saver, configs[0]) == wants[0]
        assert state(saver, configs[0]) == wants[0]  # from memory, by now
        live = {place: copy.copy(value) for place, value in values.items()}
        configs.append(step(saver, configs[-1], live))
        live = {place: grown(value, ODD[name]) for place, value in values.items()}
        configs.append(step(saver, configs[-1], live))
        found = saver.get_tuple(configs[-1])
        assert found is not None
        configs.append(step(saver, configs[-1], found.checkpoint["channel_values"]))
        wants += [wants[0], as_given(saver, live), as_given(saver, live)]
        check_all(saver, configs, wants)
    for cache_bytes in (0, 64 << 20):
        with lgkv.open(path, cache_bytes=cache_bytes) as db:
            check_all(permissive(db), configs, wants)
            check_all(permissive(db), configs, wants)


def check_all(saver: LgkvSaver, configs: list[Any], wants: list[Any]) -> None:
    for config, want in zip(configs, wants, strict=True):
        assert state(saver, config) == want
    listed = saver.list(config_of())
    for found, want in zip(listed, reversed(wants), strict=True):
        values = found.checkpoint["channel_values"]
        assert {name: exactly(value) for name, value in values.items()} == want
        wreck(values)


EQUAL = [
    (0.0, -0.0),
    (1, True),
    (1, 1.0),
    (0, False),
    (math.nan, -math.nan),
    (2**53, float(2**53)),
    (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
    (
        datetime.datetime(2024, 1, 1, 12, tzinfo=UTC),
        datetime.datetime(2024, 1, 1, 13, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
    ),
    (
        datetime.datetime(2024, 10, 27, 2, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
        datetime.datetime(2024, 10, 27, 2, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
    ),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({"a": 1}, {"a": True}),
    ({1: "a"}, {True: "a"}),
    ({1: "a"}, {1.0: "a"}),
    (b"a", bytearray(b"a")),
    (1, Level.LOW),
    (Pair(1, 2), (1, 2)),
    ({1}, frozenset({1})),
    ([1], deque([1])),
    (Card("a", [0.0]), Card("a", [-0.0])),
    (Point(x=1, y=2), Point.model_construct(x=True, y=2)),
    (Free(a=0.0), Free(a=-0.0)),
    (Private(a=1), Private(a=True)),
    (HumanMessage("a", n=1), HumanMessage("a", n=True)),
    (HumanMessage("a", n={"x": 1, "y": 2}), HumanMessage("a", n={"y": 2, "x": 1})),
    (
        HumanMessage("a", additional_kwargs={"p": 0.0}),
        HumanMessage("a", additional_kwargs={"p": -0.0}),
    ),
    (Loud("a", n=[1]), Loud("a", n=[1.0])),
    (
        Document("a", metadata={"d": uuid.UUID(int=1)}),
        Document("a", metadata={"d": str(uuid.UUID(int=1))}),
    ),
    (np.array([1, 2], dtype="int32"), np.array([1, 2], dtype="int64")),
]


@pytest.mark.parametrize("memory", ["warm", "cold"])
@pytest.mark.parametrize(("one", "other"), EQUAL, ids=repr)
def test_equal_values_that_are_stored_differently_are_told_apart(
    db: lgkv.Database, one: Any, other: Any, memory: str
) -> None:
    saver, config = permissive(db), None
    for value in (one, other, one, other):
        config = step(saver, config, placed(value))
        if memory == "cold":
            db._connection.shelf.clear()
        assert state(saver, config) == as_given(saver, placed(value))


def test_model_that_is_the_same_but_another_object_is_stored_once(
    db: lgkv.Database, saver: LgkvSaver
) -> None:
    config = put(saver, None, {"a": [rich(), PAD]}, {"a": "1"})
    same = put(saver, config, {"a": [copy.deepcopy(rich()), PAD]}, {"a": "2"})
    assert read(saver, same) == read(saver, config)
    thread = audit(db)
    assert thread is not None
    assert len(thread.pieces) == 1


ENTRIES = {f"k{number}": [number, PAD] for number in range(20)}
LAST = {"k0": ENTRIES["k0"]}
REST = {key: value for key, value in ENTRIES.items() if key != "k0"}
DICTS: dict[str, dict[Any, Any]] = {
    "reversed": dict(reversed(ENTRIES.items())),
    "one at the end": REST | LAST,
    "one at the end, changed": REST | {"k0": "new"},
    "two exchanged": {"k1": ENTRIES["k1"]} | LAST | ENTRIES,
    "values exchanged": ENTRIES | {"k0": ENTRIES["k1"], "k1": ENTRIES["k0"]},
    "one less": REST,
    "one in place of another": REST | {"new": 1},
    "one in front": {"new": 1} | ENTRIES,
    "one in the middle": LAST | {"new": 1} | REST,
    "none for one": ENTRIES | {"k3": None},
    "equal values": ENTRIES | {"k3": [3.0, PAD]},
    "equal keys": ENTRIES | {3: "three"},
    "keys of a subclass": {Text(key): value for key, value in ENTRIES.items()},
    "few": {"k3": ENTRIES["k3"]},
    "empty": {},
    "an id": ENTRIES | {"id": "k0"},
    "tuples": {key: tuple(value) for key, value in ENTRIES.items()},
    "ordered": OrderedDict(reversed(ENTRIES.items())),
}


@pytest.mark.parametrize("memory", ["warm", "cold"])
@pytest.mark.parametrize("name", DICTS)
def test_dict_comes_back_in_its_order(db: lgkv.Database, name: str, memory: str) -> None:
    saver, config = LgkvSaver(db), None
    for value in (ENTRIES, DICTS[name], ENTRIES | {"more": 1}, DICTS[name], ENTRIES):
        config = step(saver, config, {"a": value})
        if memory == "cold":
            db._connection.shelf.clear()
        assert state(saver, config) == as_given(saver, {"a": value})
        assert state(saver, config) == as_given(saver, {"a": value})


MUTATIONS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "dict": ({"a": {"b": [1]}}, lambda v: v["a"]["b"].append(2)),
    "dict order": ({"a": 1, "b": 2}, lambda v: v.update(a=v.pop("a"))),
    "dict key": ({"a": 1}, lambda v: v.update(b=v.pop("a"))),
    "dict in place of a list": ({"a": []}, lambda v: v.update(a={})),
    "list of lists": ([[1], [2, [3]]], lambda v: v[1][1].append(4)),
    "list item": ([1, 2], lambda v: v.__setitem__(0, 1.0)),
    "tuple's part": ((1, [2]), lambda v: v[1].append(3)),
    "content": (rich(), lambda v: setattr(v, "content", "b")),
    "block": (rich(), lambda v: v.content[0].update(text="b")),
    "kwargs": (rich(), lambda v: v.additional_kwargs["deep"]["er"][1].update(x=1)),
    "new kwarg": (rich(), lambda v: v.additional_kwargs.setdefault("n", 1)),
    "tool call args": (rich(), lambda v: v.tool_calls[0]["args"]["q"]["r"].append(2)),
    "metadata": (rich(), lambda v: v.response_metadata["usage"].update(n=2)),
    "usage": (rich(), lambda v: v.usage_metadata.update(total_tokens=4)),
    "id": (rich(), lambda v: setattr(v, "id", "new")),
    "name": (rich(), lambda v: setattr(v, "name", "me")),
    "extra": (rich(more=[1]), lambda v: v.more.append(2)),
    "new extra": (rich(), lambda v: setattr(v, "more", 1)),
    "no extra": (rich(more=1), lambda v: v.__pydantic_extra__.clear()),
    "artifact": (ToolMessage("a", tool_call_id="c", artifact=[1]), lambda v: v.artifact.append(2)),
    "document": (Document("a", metadata={"a": [1]}), lambda v: v.metadata["a"].append(2)),
    "own message": (Loud("a"), lambda v: setattr(v, "volume", 2)),
    "own message's extra": (Loud("a", more={}), lambda v: v.more.update(a=1)),
    "dataclass": (Card("a"), lambda v: setattr(v, "name", "b")),
    "dataclass's part": (Card("a", [[1]]), lambda v: v.tags[0].append(2)),
    "model": (Point(x=1, y=2), lambda v: setattr(v, "x", 2)),
    "model's extra": (Free(a={"b": 1}), lambda v: v.a.update(b=2)),
    "model's own extra": (Free(), lambda v: setattr(v, "new", 1)),
    "model in a model": (
        Nested(point=Point(x=1, y=2)),
        lambda v: setattr(v.point, "x", 2),
    ),
    "message in a model": (
        Nested(point=Point(x=1, y=2), messages=[HumanMessage("a")]),
        lambda v: v.messages[0].additional_kwargs.update(a=1),
    ),
    "model in a message": (
        HumanMessage("a", additional_kwargs={"p": Point(x=1, y=2)}),
        lambda v: v.additional_kwargs.update(p=Point(x=1, y=3)),
    ),
    "set": ({1}, lambda v: v.add(2)),
    "bytearray": (bytearray(b"a"), lambda v: v.extend(b"b")),
    "named tuple's part": (Pair(1, [2]), lambda v: v.b.append(3)),
    "send": (Send("n", {"a": [1]}), lambda v: v.arg["a"].append(2)),
}


PICKS: dict[str, Callable[[Any], Any]] = {
    "list": lambda whole: whole[1],
    "twice in a list": lambda whole: whole[2],
    "dict": lambda whole: whole["value"],
    "list in a list": lambda whole: whole[0][1][0],
    "dict in a list": lambda whole: whole[0]["a"]["b"],
    "opaque": lambda whole: whole,
}
"""Where the value stands in those of `PLACES` that bring it back as it is."""


@pytest.mark.parametrize("source", ["live", "read", "listed", "cold"])
@pytest.mark.parametrize("name", MUTATIONS)
def test_change_in_place_is_noticed(db: lgkv.Database, name: str, source: str) -> None:
    original, change = MUTATIONS[name]
    saver = permissive(db)
    values = {place: PLACES[place](copy.deepcopy(original)) for place in PICKS}
    first = step(saver, None, values)
    before = as_given(saver, values)
    if source != "live":
        found = saver.get_tuple(first) if source != "listed" else next(saver.list(config_of()))
        assert found is not None
        values = found.checkpoint["channel_values"]
    if source == "cold":
        db._connection.shelf.clear()
    for place, pick in PICKS.items():
        if type(pick(values[place])) is type(original):  # a tuple comes back as a list
            change(pick(values[place]))
    second = step(saver, first, values)
    after = as_given(saver, values)
    assert source == "read" or after != before or type(original) is tuple
    for _ in range(2):
        assert state(saver, second) == after
        assert state(saver, first) == before
        db._connection.shelf.clear()


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_what_a_caller_does_to_a_result_reaches_nobody(db: lgkv.Database, name: str) -> None:
    saver, values = permissive(db), placed(ODD[name])
    want = as_given(saver, values)
    config = step(saver, None, values)
    for _ in range(3):
        for found in saver.list(config_of()):
            wreck(found.checkpoint["channel_values"])
        for reader in (saver, permissive(db)):
            assert state(reader, config) == want
    same = step(saver, config, values)
    assert state(saver, same) == want


def test_what_a_caller_does_to_what_it_put_reaches_nobody(saver: LgkvSaver) -> None:
    value = [rich(), {"a": [1]}, HumanMessage("b")]
    config = put(saver, None, {"a": value, "d": {"pad": PAD * 3, "m": value[0]}}, None)
    want = exactly(read(saver, config)), exactly(read(saver, config, "d"))
    wreck(value)
    assert (exactly(read(saver, config)), exactly(read(saver, config, "d"))) == want


def test_element_that_stands_twice_in_a_list_is_two_objects(
    db: lgkv.Database, saver: LgkvSaver
) -> None:
    message, box = rich(), {"a": []}
    config = put(saver, None, {"a": [message, box, PAD]}, {"a": "1"})
    config = put(saver, config, {"a": [message, box, PAD, message, box]}, {"a": "2"})
    first = [message, box, PAD]
    config = put(saver, config, {"a": [*first, *first, *first]}, {"a": "3"})
    for _ in range(2):
        got = read(saver, config)
        assert len({id(part) for part in got if part != PAD}) == 6
        for at in range(3):
            for other in range(at):
                assert got[3 * at].additional_kwargs is not got[3 * other].additional_kwargs
        got[0].additional_kwargs.clear()
        got[1]["a"].append(1)
        assert got[3] == got[6] == read(saver, config)[0]
        assert got[4] == got[7] == box
        db._connection.shelf.clear()


def test_two_results_share_nothing_that_can_change(saver: LgkvSaver) -> None:
    config = put(saver, None, {"a": [rich(), {"a": [1]}, (1, [2])] * 3}, None)
    one, other = read(saver, config), read(saver, config)
    assert not mutable(one) & mutable(other)


def mutable(value: Any) -> set[int]:
    """Return the ids of everything in a value that can be changed."""
    found: set[int] = set()
    if isinstance(value, (list, tuple)):
        for item in value:
            found |= mutable(item)
    elif isinstance(value, dict):
        for item in value.values():
            found |= mutable(item)
    elif isinstance(value, BaseModel):
        found |= mutable(value.__dict__) | mutable(value.__pydantic_extra__)
        found |= {id(value.__pydantic_fields_set__)}
    else:
        return found
    return found | {id(value)}


def test_text_that_is_held_is_not_copied(saver: LgkvSaver) -> None:
    config = put(saver, None, {"a": [PAD * 50]}, None)
    one, other = read(saver, config)[0], read(saver, config)[0]
    assert one is other
    assert sys.getrefcount(one) > 2
