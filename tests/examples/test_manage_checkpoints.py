"""Manage checkpoints: view the state of a thread, its history, and delete it."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.types import StateSnapshot

from conversations import asay, async_chat_builder, chat_builder, say, texts, thread
from lgkv.langgraph import LgkvSaver
from lgkv.langgraph.aio import AsyncLgkvSaver
from rule_model import RuleChatModel

HELLO, QUESTION = "hi! I'm bob", "what's my name?"
GREETING, ANSWER = "Hi Bob! How are you doing today?", "Your name is Bob."
TALK = [HELLO, GREETING, QUESTION, ANSWER]
ONE = thread("1")

# The history of two turns, newest first: source, step, what comes next, messages so far.
STEPS = [
    ("loop", 4, (), 4),
    ("loop", 3, ("call_model",), 3),
    ("input", 2, ("__start__",), 2),
    ("loop", 1, (), 2),
    ("loop", 0, ("call_model",), 1),
    ("input", -1, ("__start__",), 0),
]
# What the task of each of these steps wrote, by channel.
RESULTS: list[dict[str, Any]] = [
    {},
    {"messages": ANSWER},
    {"messages": [{"role": "user", "content": QUESTION}]},
    {},
    {"messages": GREETING},
    {"messages": [{"role": "user", "content": HELLO}]},
]
PARTS = {"v", "ts", "id", "channel_versions", "versions_seen", "channel_values"}
VERSION = re.compile(r"\d{32}\.\d")


@pytest.fixture
def checkpointer(path: str, model: RuleChatModel) -> Iterator[LgkvSaver]:
    """Give a saver whose thread "1" has two turns; the file was reopened after them."""
    with LgkvSaver.from_conn_string(path) as saver:
        graph = chat_builder(model).compile(checkpointer=saver)
        assert [say(graph, text, ONE) for text in (HELLO, QUESTION)] == [GREETING, ANSWER]
    with LgkvSaver.from_conn_string(path) as saver:
        yield saver


@pytest.fixture
def graph(checkpointer: LgkvSaver, model: RuleChatModel) -> Any:
    """Give the graph that talked on the thread."""
    return chat_builder(model).compile(checkpointer=checkpointer)


def as_text(value: Any) -> Any:
    """Replace a message by what it says."""
    return value.content if isinstance(value, AIMessage | HumanMessage) else value


def names_a_checkpoint(config: Any, checkpoint_id: str | None = None) -> bool:
    """Tell whether *config* has exactly the three names that identify a checkpoint."""
    place = config["configurable"]
    return (
        set(config) == {"configurable"}
        and set(place) == {"thread_id", "checkpoint_ns", "checkpoint_id"}
        and (place["thread_id"], place["checkpoint_ns"]) == ("1", "")
        and checkpoint_id in {None, place["checkpoint_id"]}
    )


def check_latest_state(state: StateSnapshot) -> None:
    assert [type(message) for message in state.values["messages"]] == [HumanMessage, AIMessage] * 2
    assert texts(state.values["messages"]) == TALK
    assert state.next == ()
    assert names_a_checkpoint(state.config)
    assert state.metadata == {"source": "loop", "step": 4, "parents": {}}
    assert state.created_at is not None
    assert datetime.fromisoformat(state.created_at).utcoffset() == timedelta(0)
    assert names_a_checkpoint(state.parent_config)
    assert state.parent_config != state.config
    assert state.tasks == ()
    assert state.interrupts == ()


def check_latest_tuple(kept: CheckpointTuple | None) -> None:
    assert kept is not None
    checkpoint = kept.checkpoint
    assert names_a_checkpoint(kept.config, checkpoint["id"])
    assert set(checkpoint) >= PARTS
    assert datetime.fromisoformat(checkpoint["ts"]).utcoffset() == timedelta(0)
    check_versions(checkpoint["channel_versions"], checkpoint["versions_seen"])
    assert list(checkpoint["channel_values"]) == ["messages"]
    assert texts(checkpoint["channel_values"]["messages"]) == TALK
    assert kept.metadata == {"source": "loop", "step": 4, "parents": {}}
    assert names_a_checkpoint(kept.parent_config)
    assert kept.pending_writes == []


def check_versions(versions: dict[str, Any], seen: dict[str, dict[str, Any]]) -> None:
    """Check the version numbers after the second turn against those of the document."""
    assert {name: number(version) for name, version in versions.items()} == {
        "__start__": 5,
        "messages": 6,
        "branch:to:call_model": 6,
    }
    assert {node: {k: number(v) for k, v in of.items()} for node, of in seen.items()} == {
        "__input__": {},
        "__start__": {"__start__": 4},
        "call_model": {"branch:to:call_model": 5},
    }


def number(version: str) -> int:
    assert VERSION.match(version), version
    return int(version.partition(".")[0])


def check_state_history(history: list[StateSnapshot]) -> None:
    assert len(history) == len(STEPS)
    for state, result, step in zip(history, RESULTS, STEPS, strict=True):
        *origin, following, count = step
        assert [state.metadata["source"], state.metadata["step"]] == origin
        assert state.next == following
        assert texts(state.values["messages"]) == TALK[:count]
        assert tuple(task.name for task in state.tasks) == state.next
        for task in state.tasks:
            assert task.path == ("__pregel_pull", task.name)
            assert (task.error, task.interrupts, task.state) == (None, (), None)
            assert {key: as_text(value) for key, value in task.result.items()} == result
    parents = [state.parent_config for state in history]
    assert parents == [*(state.config for state in history[1:]), None]
    created = [state.created_at for state in history]
    assert created == sorted(created, reverse=True)


def check_tuple_history(history: list[CheckpointTuple]) -> None:
    assert [(kept.metadata["source"], kept.metadata["step"]) for kept in history] == [
        step[:2] for step in STEPS
    ]
    channels = [set(kept.checkpoint["channel_values"]) for kept in history]
    assert channels == [
        {"messages"},
        {"messages", "branch:to:call_model"},
        {"messages", "__start__"},
        {"messages"},
        {"messages", "branch:to:call_model"},
        {"__start__"},
    ]
    assert history[1].checkpoint["channel_values"]["branch:to:call_model"] is None
    assert history[-1].checkpoint["channel_values"]["__start__"] == RESULTS[-1]
    for kept, result in zip(history, RESULTS, strict=True):
        check_pending_writes(kept.pending_writes, result)
    parents = [kept.parent_config for kept in history]
    assert parents == [*(kept.config for kept in history[1:]), None]


def check_pending_writes(writes: list[tuple[str, str, Any]] | None, result: dict[str, Any]) -> None:
    assert writes is not None
    written = {channel: as_text(value) for _, channel, value in writes}
    assert len(written) == len(writes)
    assert len({task_id for task_id, _, _ in writes}) == bool(writes)
    if written.get("messages") == result.get("messages") and "branch:to:call_model" in written:
        assert written.pop("branch:to:call_model") is None
    assert written == result


def test_get_state_shows_the_latest_checkpoint(graph: Any) -> None:
    check_latest_state(graph.get_state(ONE))


def test_get_state_shows_the_checkpoint_it_is_asked_for(graph: Any) -> None:
    first_answer = list(graph.get_state_history(ONE))[3]

    state = graph.get_state(first_answer.config)

    assert state == first_answer
    assert texts(state.values["messages"]) == [HELLO, GREETING]
    assert state.metadata["step"] == 1


def test_get_tuple_shows_the_latest_checkpoint(checkpointer: LgkvSaver) -> None:
    check_latest_tuple(checkpointer.get_tuple(ONE))


def test_get_tuple_shows_the_checkpoint_it_is_asked_for(checkpointer: LgkvSaver) -> None:
    for listed in checkpointer.list(ONE):
        assert checkpointer.get_tuple(listed.config) == listed


def test_get_tuple_of_an_unknown_checkpoint_is_none(checkpointer: LgkvSaver) -> None:
    unknown = thread("1", checkpoint_id="1f029ca3-1f5b-6704-8004-820c16b69a5a")

    assert checkpointer.get_tuple(unknown) is None
    assert checkpointer.get_tuple(thread("nobody")) is None


def test_state_history_has_every_step_newest_first(graph: Any) -> None:
    check_state_history(list(graph.get_state_history(ONE)))


def test_list_has_every_checkpoint_newest_first(checkpointer: LgkvSaver) -> None:
    check_tuple_history(list(checkpointer.list(ONE)))


def test_tasks_and_pending_writes_name_the_same_task(graph: Any, checkpointer: LgkvSaver) -> None:
    for state, kept in zip(graph.get_state_history(ONE), checkpointer.list(ONE), strict=True):
        assert state.config == kept.config
        writers = {write[0] for write in kept.pending_writes or ()}
        assert {task.id for task in state.tasks} == writers


def test_history_can_be_limited_and_cut_off(graph: Any) -> None:
    history = list(graph.get_state_history(ONE))

    assert list(graph.get_state_history(ONE, limit=2)) == history[:2]
    assert list(graph.get_state_history(ONE, before=history[1].config)) == history[2:]


def test_delete_thread_removes_its_checkpoints_and_no_others(
    graph: Any, checkpointer: LgkvSaver, path: str
) -> None:
    say(graph, "hi! I'm alice", thread("2"))

    checkpointer.delete_thread("1")

    with LgkvSaver.from_conn_string(path) as again:
        for saver in (checkpointer, again):
            assert saver.get_tuple(ONE) is None
            assert list(saver.list(ONE)) == []
            assert len(list(saver.list(thread("2")))) == 3
    state = graph.get_state(ONE)
    assert (state.values, state.next, state.created_at) == ({}, (), None)
    assert say(graph, QUESTION, thread("2")) == "Your name is Alice."
    assert "Bob" not in say(graph, QUESTION, ONE)


async def test_async_view_shows_the_same_shapes(path: str, model: RuleChatModel) -> None:
    async with AsyncLgkvSaver.from_conn_string(path) as saver:
        graph = async_chat_builder(model).compile(checkpointer=saver)
        assert [await asay(graph, text, ONE) for text in (HELLO, QUESTION)] == [GREETING, ANSWER]

    async with AsyncLgkvSaver.from_conn_string(path) as saver:
        graph = async_chat_builder(model).compile(checkpointer=saver)
        check_latest_state(await graph.aget_state(ONE))
        check_latest_tuple(await saver.aget_tuple(ONE))
        check_state_history([state async for state in graph.aget_state_history(ONE)])
        check_tuple_history([kept async for kept in saver.alist(ONE)])


async def test_async_view_agrees_with_the_sync_one(checkpointer: LgkvSaver) -> None:
    assert [kept async for kept in checkpointer.alist(ONE)] == list(checkpointer.list(ONE))
    assert await checkpointer.aget_tuple(ONE) == checkpointer.get_tuple(ONE)


async def test_adelete_thread_removes_its_checkpoints_and_no_others(
    checkpointer: LgkvSaver, graph: Any, path: str
) -> None:
    await asay(graph, "hi! I'm alice", thread("2"))

    await checkpointer.adelete_thread("1")

    async with AsyncLgkvSaver.from_conn_string(path) as again:
        assert await again.aget_tuple(ONE) is None
        assert [kept async for kept in again.alist(ONE)] == []
        assert len([kept async for kept in again.alist(thread("2"))]) == 3
