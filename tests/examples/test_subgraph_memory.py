"""Use in subgraphs: a saver given to the parent serves its children."""

import operator
import sys
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from conversations import thread
from lgkv.langgraph import LgkvSaver
from lgkv.langgraph.aio import AsyncLgkvSaver


class Greeting(TypedDict):
    """State shared by parent and child."""

    foo: str


class Diary(TypedDict):
    """What an agent inside the graph keeps to itself."""

    foo: str
    heard: Annotated[list[str], operator.add]


def add_bar(state: Greeting) -> dict[str, Any]:
    return {"foo": state["foo"] + "bar"}


def ask_for_more(state: Greeting) -> dict[str, Any]:
    return {"foo": state["foo"] + interrupt("what comes next?")}


def listen(state: Diary) -> dict[str, Any]:
    heard = [*state["heard"], state["foo"]]
    return {"foo": f"heard {len(heard)}: {', '.join(heard)}", "heard": [state["foo"]]}


async def listen_awaited(state: Diary) -> dict[str, Any]:
    return listen(state)


def single(schema: type, name: str, node: Any) -> StateGraph:
    """Return a graph of one node."""
    return StateGraph(schema).add_node(name, node).add_edge(START, name)


def namespaces(checkpointer: LgkvSaver, config: RunnableConfig) -> set[str]:
    """Return the namespaces that the thread has checkpoints in."""
    return {entry.config["configurable"]["checkpoint_ns"] for entry in checkpointer.list(config)}


def test_child_checkpoints_go_to_the_parents_saver(path: str) -> None:
    child = single(Greeting, "subgraph_node_1", add_bar).compile()
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = single(Greeting, "node_1", child).compile(checkpointer=checkpointer)

        assert graph.invoke({"foo": "hi! "}, thread("1")) == {"foo": "hi! bar"}

        root, inner = sorted(namespaces(checkpointer, thread("1")))
        assert root == ""
        assert inner.startswith("node_1:")
        kept = list(checkpointer.list(thread("1", checkpoint_ns=inner)))
        assert [entry.metadata["step"] for entry in kept] == [1, 0, -1]
        assert kept[0].checkpoint["channel_values"] == {"foo": "hi! bar"}
        parents = {entry.metadata["parents"][""] for entry in kept}
        (called_at,) = checkpointer.list(thread("1", checkpoint_ns=""), filter={"step": 0})
        assert parents == {called_at.checkpoint["id"]}


def test_nested_namespaces_join_with_a_bar(path: str) -> None:
    innermost = single(Greeting, "deepest", add_bar).compile()
    middle = single(Greeting, "inner_node", innermost).compile()
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = single(Greeting, "outer_node", middle).compile(checkpointer=checkpointer)
        graph.invoke({"foo": ""}, thread("1"))

        root, outer, inner = sorted(namespaces(checkpointer, thread("1")))
        assert root == ""
        assert outer.startswith("outer_node:")
        assert inner.startswith(f"{outer}|inner_node:")


def test_a_node_can_see_the_namespace_it_runs_in(path: str) -> None:
    seen: dict[str, str] = {}

    def note_namespace(state: Greeting, config: RunnableConfig) -> dict[str, Any]:
        seen[config["metadata"]["langgraph_node"]] = config["configurable"]["checkpoint_ns"]
        return {"foo": state["foo"]}

    child = single(Greeting, "child_node", note_namespace).compile()
    with LgkvSaver.from_conn_string(path) as checkpointer:
        builder = single(Greeting, "first", note_namespace)
        builder = builder.add_node("second", child).add_edge("first", "second")
        builder.compile(checkpointer=checkpointer).invoke({"foo": ""}, thread("1"))
        (inner,) = namespaces(checkpointer, thread("1")) - {""}

    assert seen["first"].startswith("first:")
    assert inner.startswith("second:")
    assert seen["child_node"].startswith(f"{inner}|child_node:")


def test_state_of_a_waiting_child_is_shown_and_resumed_after_reopening(path: str) -> None:
    child = single(Greeting, "ask", ask_for_more).compile()
    builder = single(Greeting, "node_1", child)
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = builder.compile(checkpointer=checkpointer)
        result = graph.invoke({"foo": "hi! "}, thread("1"))
        assert [asked.value for asked in result["__interrupt__"]] == ["what comes next?"]

    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = builder.compile(checkpointer=checkpointer)
        outside = graph.get_state(thread("1"))
        assert outside.next == ("node_1",)
        inner = outside.tasks[0].state["configurable"]["checkpoint_ns"]
        assert inner.startswith("node_1:")

        inside = graph.get_state(thread("1"), subgraphs=True).tasks[0].state
        assert inside.values == {"foo": "hi! "}
        assert inside.next == ("ask",)
        assert inside.config["configurable"]["checkpoint_ns"] == inner
        assert [asked.value for asked in inside.interrupts] == ["what comes next?"]

        assert graph.invoke(Command(resume="bar"), thread("1")) == {"foo": "hi! bar"}


def diary_parent(child: Any) -> StateGraph:
    return single(Greeting, "agent", child)


def test_a_child_without_own_memory_starts_anew_each_time(path: str) -> None:
    child = single(Diary, "listen", listen).compile()
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = diary_parent(child).compile(checkpointer=checkpointer)

        assert graph.invoke({"foo": "one"}, thread("1")) == {"foo": "heard 1: one"}
        assert graph.invoke({"foo": "two"}, thread("1")) == {"foo": "heard 1: two"}


def test_a_child_compiled_with_checkpointer_true_keeps_its_own_history(path: str) -> None:
    child = single(Diary, "listen", listen).compile(checkpointer=True)
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = diary_parent(child).compile(checkpointer=checkpointer)
        assert graph.invoke({"foo": "one"}, thread("1")) == {"foo": "heard 1: one"}

    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = diary_parent(child).compile(checkpointer=checkpointer)
        assert graph.invoke({"foo": "two"}, thread("1")) == {"foo": "heard 2: one, two"}
        assert graph.invoke({"foo": "new"}, thread("2")) == {"foo": "heard 1: new"}

        assert namespaces(checkpointer, thread("1")) == {"", "agent"}
        own = checkpointer.get_tuple(thread("1", checkpoint_ns="agent"))
        assert own is not None
        assert own.checkpoint["channel_values"]["heard"] == ["one", "two"]
        assert "heard" not in graph.get_state(thread("1")).values


async def test_a_child_keeps_its_own_history_on_the_event_loop(path: str) -> None:
    child = single(Diary, "listen", listen_awaited).compile(checkpointer=True)
    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        graph = diary_parent(child).compile(checkpointer=checkpointer)
        assert await graph.ainvoke({"foo": "one"}, thread("1")) == {"foo": "heard 1: one"}

    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        graph = diary_parent(child).compile(checkpointer=checkpointer)
        assert await graph.ainvoke({"foo": "two"}, thread("1")) == {"foo": "heard 2: one, two"}
        own = await checkpointer.aget_tuple(thread("1", checkpoint_ns="agent"))
        assert own is not None
        assert own.checkpoint["channel_values"]["heard"] == ["one", "two"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="interrupts in async nodes need 3.11")
async def test_a_waiting_child_is_resumed_on_the_event_loop(path: str) -> None:
    async def ask(state: Greeting) -> dict[str, Any]:
        return {"foo": state["foo"] + interrupt("what comes next?")}

    builder = single(Greeting, "node_1", single(Greeting, "ask", ask).compile())
    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        graph = builder.compile(checkpointer=checkpointer)
        await graph.ainvoke({"foo": "hi! "}, thread("1"))

    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        graph = builder.compile(checkpointer=checkpointer)
        state = await graph.aget_state(thread("1"), subgraphs=True)
        assert state.tasks[0].state.next == ("ask",)
        assert await graph.ainvoke(Command(resume="bar"), thread("1")) == {"foo": "hi! bar"}
