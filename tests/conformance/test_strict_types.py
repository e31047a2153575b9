"""Nothing in the file runs code, and a type that is not rebuilt is named, never a silent dict."""

import dataclasses
import enum
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import ormsgpack
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel
from typing_extensions import NotRequired, TypedDict

import lgkv
from lgkv.errors import UnregisteredTypeError
from lgkv.langgraph import LgkvSaver, StrictSerializer
from tests.conformance.checkpoints import config_of, put

HERE = __name__


@dataclasses.dataclass
class Point:
    x: int
    label: str = ""


@dataclasses.dataclass
class Nested:
    points: list[Point]


class Model(BaseModel):
    name: str
    point: Point | None = None


class Color(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    left: int
    right: int


VALUES = {
    "dataclass": Point(1),
    "model": Model(name="m"),
    "enum": Color.RED,
    "named tuple": Pair(1, 2),
    "deep": {"a": [{"b": Point(2)}]},
}
NAMES = {
    "dataclass": "Point",
    "model": "Model",
    "enum": "Color",
    "named tuple": "Pair",
    "deep": "Point",
}


# --- what is not registered ----------------------------------------------------------------


@pytest.mark.parametrize("kind", VALUES)
def test_value_of_an_unregistered_type_is_an_error_that_names_it_and_the_remedy(
    saver: LgkvSaver, kind: str
) -> None:
    config = put(saver, None, {"a": VALUES[kind]})
    name = NAMES[kind]
    for read in (lambda: saver.get_tuple(config), lambda: list(saver.list(None))):
        with pytest.raises(UnregisteredTypeError) as caught:
            read()
        assert caught.value.type_name == f"{HERE}.{name}"
        assert f"allowed_types=[({HERE!r}, {name!r})]" in str(caught.value)
        assert "state schema" in str(caught.value)
    assert isinstance(caught.value, lgkv.InvalidInputError)


def test_unregistered_type_is_found_wherever_it_lies(saver: LgkvSaver) -> None:
    config = put(saver, None, {"a": 1})
    saver.put_writes(config, [("a", Point(1))], "task")
    with pytest.raises(UnregisteredTypeError):
        saver.get_tuple(config)
    with pytest.raises(UnregisteredTypeError):
        saver.get_delta_channel_history(config=put(saver, config), channels=["a"])
    seeded = put(saver, config_of("seed"), {"a": Point(1)})
    with pytest.raises(UnregisteredTypeError):
        saver.get_delta_channel_history(config=put(saver, seeded, {}, {"a": 2}), channels=["a"])
    put(saver, config_of("metadata"), metadata={"point": Point(1)})
    with pytest.raises(UnregisteredTypeError):
        saver.get_tuple(config_of("metadata"))


def test_error_of_one_value_does_not_stick_to_the_next(saver: LgkvSaver) -> None:
    bad, good = put(saver, None, {"a": Point(1)}), put(saver, config_of("good"), {"a": [1]})
    for _ in range(2):
        with pytest.raises(UnregisteredTypeError):
            saver.get_tuple(bad)
        assert saver.get_tuple(good) is not None


def test_other_savers_serialisers_raise_nothing_new() -> None:
    memory = InMemorySaver(serde=JsonPlusSerializer(allowed_msgpack_modules=None))
    put(memory, None, {"a": Point(1)})
    found = memory.get_tuple(config_of())
    assert found is not None
    assert found.checkpoint["channel_values"]["a"] == {"x": 1, "label": ""}
    assert InMemorySaver().with_allowlist([("m", "N")]) is not None


@pytest.fixture
def module_with_side_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Write a module that leaves a mark when it is imported; give the mark's path."""
    mark = tmp_path / "imported"
    (tmp_path / "trap.py").write_text(
        f"import dataclasses, pathlib\npathlib.Path({str(mark)!r}).touch()\n"
        "@dataclasses.dataclass\nclass Trap:\n    x: int\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield mark
    sys.modules.pop("trap", None)


def test_unregistered_type_is_not_imported(saver: LgkvSaver, module_with_side_effect: Path) -> None:
    config = put(saver, None, {"a": importlib.import_module("trap").Trap(1)})
    del sys.modules["trap"]
    module_with_side_effect.unlink()
    with pytest.raises(UnregisteredTypeError, match=r"trap\.Trap"):
        saver.get_tuple(config)
    assert "trap" not in sys.modules
    assert not module_with_side_effect.exists()
    allowing = LgkvSaver(saver.db, allowed_types=[("trap", "Trap")])
    found = allowing.get_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"]["a"].x == 1
    assert module_with_side_effect.exists()  # else the test could not fail


def forged(code: int, *parts: Any) -> bytes:
    """Return msgpack that asks for something to be called."""
    return ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(parts)))


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        (0, ("os", "system", "touch {mark}")),
        (1, ("os", "system", ["touch {mark}"])),
        (1, ("subprocess", "run", [["touch", "{mark}"]])),
        (2, ("subprocess", "run", {"args": ["touch", "{mark}"]})),
        (0, ("builtins", "eval", "open('{mark}', 'w')")),
        (0, ("builtins", "exec", "open('{mark}', 'w')")),
        (1, ("builtins", "open", ["{mark}", "w"])),
        (3, ("os", "path", "{mark}", "exists")),
        (3, ("pathlib", "Path", "{mark}", "touch")),
        (4, ("subprocess", "Popen", {"args": ["touch", "{mark}"]})),
        (5, ("subprocess", "Popen", {"args": ["touch", "{mark}"]}, "model_validate_json")),
        (0, ("langgraph.types", "os.system", "touch {mark}")),
    ],
)
@pytest.mark.parametrize(
    "wrap", [lambda raw: raw, lambda raw: ormsgpack.packb([1, {"a": 2}])[:1] + b"\x01" + raw]
)
def test_forged_payload_runs_nothing_and_is_an_error(
    tmp_path: Path,
    db: lgkv.Database,
    code: int,
    parts: tuple[Any, ...],
    wrap: Callable[[bytes], bytes],
) -> None:
    mark = tmp_path / "mark"

    def filled(part: Any) -> Any:
        if isinstance(part, str):
            return part.replace("{mark}", str(mark))
        if isinstance(part, dict):
            return {key: filled(value) for key, value in part.items()}
        return [filled(each) for each in part]

    payload = wrap(forged(code, *map(filled, parts)))

    class Forging(StrictSerializer):
        def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
            return ("msgpack", payload) if obj == "forge" else super().dumps_typed(obj)

    config = put(LgkvSaver(db, serde=Forging()), None, {"a": "forge"})
    with pytest.raises(UnregisteredTypeError):
        LgkvSaver(db).get_tuple(config)
    assert not mark.exists()


def test_forged_json_runs_nothing(tmp_path: Path, db: lgkv.Database) -> None:
    mark = tmp_path / "mark"
    raw = (
        b'{"lc": 2, "type": "constructor", "id": ["os", "system"], "args": ["touch %s"]}'
        % str(mark).encode()
    )

    class Forging(StrictSerializer):
        def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
            return ("json", raw) if obj == "forge" else super().dumps_typed(obj)

    config = put(LgkvSaver(db, serde=Forging()), None, {"a": "forge"})
    LgkvSaver(db).get_tuple(config)
    assert not mark.exists()


def test_strict_serialiser_inside_an_encrypting_one_is_strict_as_well(db: lgkv.Database) -> None:
    serde = EncryptedSerializer.from_pycryptodome_aes(StrictSerializer(), key=b"0123456789abcdef")
    saver = LgkvSaver(db, serde=serde)
    config = put(saver, None, {"a": Point(1)})
    with pytest.raises(UnregisteredTypeError, match="Point"):
        saver.get_tuple(config)
    found = saver.with_allowlist([(HERE, "Point")]).get_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"]["a"] == Point(1)


# --- what is registered --------------------------------------------------------------------


@pytest.mark.parametrize("as_names", [False, True])
def test_allowed_types_come_back_as_themselves(db: lgkv.Database, as_names: bool) -> None:  # noqa: FBT001
    classes = [Point, Model, Color, Pair]
    allowed: Any = [(HERE, each.__name__) for each in classes] if as_names else classes
    saver = LgkvSaver(db, allowed_types=allowed)
    config = put(saver, None, VALUES)
    saver.put_writes(config, list(VALUES.items()), "task")
    found = saver.get_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"] == VALUES
    assert [value for _, _, value in found.pending_writes or ()] == list(VALUES.values())


def test_clone_that_allows_more_leaves_the_saver_strict(saver: LgkvSaver) -> None:
    config = put(saver, None, {"a": Point(1)})
    assert saver.with_allowlist([(HERE, "Point")]).get_tuple(config) is not None
    with pytest.raises(UnregisteredTypeError):
        saver.get_tuple(config)


def test_known_types_need_no_permission(saver: LgkvSaver) -> None:
    import datetime
    import decimal
    import ipaddress
    import re
    import uuid
    from collections import deque
    from zoneinfo import ZoneInfo

    from langchain_core.documents import Document

    values: dict[str, Any] = {
        "human": HumanMessage("hi", id="1"),
        "ai": AIMessage(
            "", tool_calls=[{"name": "f", "args": {"x": 1}, "id": "c", "type": "tool_call"}]
        ),
        "tool": ToolMessage("r", tool_call_id="c", artifact={"a": [1]}),
        "document": Document("text", metadata={"n": 1}),
        "time": datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.timezone.utc),
        "date": datetime.date(2024, 5, 1),
        "span": datetime.timedelta(seconds=1.5),
        "decimal": decimal.Decimal("1.10"),
        "uuid": uuid.UUID(int=7),
        "path": Path("/tmp/x"),
        "pattern": re.compile("a+", re.IGNORECASE),
        "zone": ZoneInfo("UTC"),
        "address": ipaddress.ip_address("::1"),
        "sets": [{1}, frozenset({2}), deque([3])],
        "send": Send("node", {"x": 1}),
        "command": Command(goto="a", update={"x": 1}),
    }
    config = put(saver, None, values)
    found = saver.get_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"] == values


# --- the graph's own schemas ---------------------------------------------------------------


class State(TypedDict):
    point: Point
    colors: NotRequired[list[Color]]
    model: Model | None
    messages: Annotated[list[Any], add_messages]


class Input(TypedDict):
    nested: Nested


class Private(TypedDict):
    secret: "Secret"


@dataclasses.dataclass
class Secret:
    code: int


def nothing(_state: Any) -> dict[str, Any]:
    return {}


def test_schemas_of_a_graph_are_merged_in_by_compile(saver: LgkvSaver) -> None:
    def work(_state: State) -> dict[str, Any]:
        return {"point": Point(3), "colors": [Color.RED], "model": Model(name="m", point=Point(4))}

    def send(_state: State) -> list[Send]:
        return [Send("private", {"secret": Secret(at)}) for at in range(2)]

    def private(state: Private) -> dict[str, Any]:
        return {
            "messages": [
                HumanMessage(str(interrupt(state["secret"].code)), id=str(state["secret"].code))
            ]
        }

    builder = StateGraph(State, input_schema=Input)
    builder.add_node("work", work)
    builder.add_node("private", private)
    builder.add_edge(START, "work")
    builder.add_conditional_edges("work", send, ["private"])
    builder.add_edge("private", END)
    graph = builder.compile(checkpointer=saver)
    graph.invoke({"nested": Nested([Point(1)])}, config_of())
    state = graph.get_state(config_of())
    assert state.values["point"] == Point(3)
    assert [each.value for each in state.interrupts] == [0, 1]
    answers = {each.id: f"yes {each.value}" for each in state.interrupts}
    result = graph.invoke(Command(resume=answers), config_of())
    assert result["model"] == Model(name="m", point=Point(4))
    assert sorted(each.content for each in result["messages"]) == ["yes 0", "yes 1"]
    history = list(graph.get_state_history(config_of()))
    assert history[-1].tasks[0].result is not None
    assert history[-2].values == {"messages": [], "nested": Nested([Point(1)])}
    with pytest.raises(UnregisteredTypeError):
        saver.get_tuple(config_of())  # the saver that was passed in is not changed


def test_schemas_of_subgraphs_are_merged_in(saver: LgkvSaver) -> None:
    class Inner(TypedDict):
        secret: Secret
        answer: str

    class Outer(TypedDict):
        answer: str

    def begin(_state: Inner) -> dict[str, Any]:
        return {"secret": Secret(7)}

    def ask(state: Inner) -> dict[str, Any]:
        return {"answer": f"{interrupt('?')} {state['secret'].code}"}

    inner = StateGraph(Inner)
    inner.add_node("begin", begin)
    inner.add_node("ask", ask)
    inner.add_edge(START, "begin")
    inner.add_edge("begin", "ask")
    for checkpointer in (None, True):
        outer = StateGraph(Outer)
        outer.add_node("inner", inner.compile(checkpointer=checkpointer))
        outer.add_edge(START, "inner")
        graph = outer.compile(checkpointer=saver)
        config = config_of(f"t{checkpointer}")
        graph.invoke({"answer": ""}, config)
        state = graph.get_state(config, subgraphs=True)
        assert state.tasks[0].state.values["secret"] == Secret(7)
        assert graph.invoke(Command(resume="code"), config)["answer"] == "code 7"


@dataclasses.dataclass
class Order:
    number: int


@dataclasses.dataclass
class Receipt:
    order: Order
    status: Literal["paid"] = "paid"


def test_types_of_an_entrypoint_are_merged_in(saver: LgkvSaver) -> None:
    @task
    def charge(number: int) -> int:
        return number + 1

    @entrypoint(checkpointer=saver)
    def pay(order: Order, *, previous: Receipt | None) -> Receipt:
        number = charge(order.number).result() + (previous.order.number if previous else 0)
        interrupt("really?")
        return Receipt(Order(number))

    for expected in (2, 4):
        pay.invoke(Order(1), config_of())
        assert pay.invoke(Command(resume=True), config_of()) == Receipt(Order(expected))
        assert pay.get_state(config_of()).values == Receipt(Order(expected))


def test_type_that_no_schema_names_is_an_error_on_reading(saver: LgkvSaver) -> None:
    class Loose(TypedDict):
        anything: Any

    builder = StateGraph(Loose)
    builder.add_node("node", lambda _state: {"anything": Point(1)})
    builder.add_edge(START, "node")
    graph = builder.compile(checkpointer=saver)
    assert graph.invoke({"anything": None}, config_of()) == {"anything": Point(1)}
    with pytest.raises(UnregisteredTypeError, match="Point"):
        graph.get_state(config_of())
    allowing = builder.compile(checkpointer=LgkvSaver(saver.db, allowed_types=[Point]))
    assert allowing.get_state(config_of()).values == {"anything": Point(1)}


def test_no_environment_variable_is_needed_for_any_of_this(tmp_path: Path) -> None:
    program = f"""
import dataclasses, sys
from typing import TypedDict
from langgraph.graph import START, StateGraph
from lgkv.langgraph import LgkvSaver
@dataclasses.dataclass
class Point:
    x: int
class State(TypedDict):
    point: Point
builder = StateGraph(State)
builder.add_node("node", lambda state: {{"point": Point(state["point"].x + 1)}})
builder.add_edge(START, "node")
config = {{"configurable": {{"thread_id": "t"}}}}
with LgkvSaver.from_conn_string({str(tmp_path / "a.lgkv")!r}) as saver:
    builder.compile(checkpointer=saver).invoke({{"point": Point(1)}}, config)
    print(builder.compile(checkpointer=saver).get_state(config).values["point"].x)
    try:
        saver.get_tuple(config)
    except ValueError as error:
        print(type(error).__name__)
"""
    environment = {
        key: value for key, value in os.environ.items() if key != "LANGGRAPH_STRICT_MSGPACK"
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["2", "UnregisteredTypeError"]
