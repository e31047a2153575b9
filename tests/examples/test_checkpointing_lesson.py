"""Checkpointing and Memory: a lesson from threads to a memory store, with its exercise."""

import asyncio
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from conversations import texts, thread
from hash_embeddings import HashEmbeddings
from lgkv.langgraph import LgkvSaver, LgkvStore
from lgkv.langgraph.aio import AsyncLgkvSaver, AsyncLgkvStore

ALICE = ("users", "alice")
COUNT_CHECKPOINTS = """
import sys
from lgkv.langgraph import LgkvSaver

checkpointer = LgkvSaver.from_conn_string("checkpoints.db")
for thread_id in sys.argv[1:]:
    listed = checkpointer.list({"configurable": {"thread_id": thread_id}})
    print(thread_id, sum(1 for _ in listed))
"""


def human(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(content=text)]}


def echo(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(content=f"Echo: {state['messages'][-1].content}")]}


def one_node(respond: Any) -> StateGraph:
    """Return the lesson's graph: START, respond, END."""
    builder = StateGraph(MessagesState).add_node("respond", respond)
    return builder.add_edge(START, "respond").add_edge("respond", END)


def test_threads_keep_conversations_apart(path: str) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = one_node(echo).compile(checkpointer=checkpointer)
        alice = graph.invoke(human("Hello!"), thread("alice-001"))
        assert alice["messages"][-1].content == "Echo: Hello!"

    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = one_node(echo).compile(checkpointer=checkpointer)
        alice = graph.invoke(human("How are you?"), thread("alice-001"))
        assert len(alice["messages"]) == 4
        bob = graph.invoke(human("Hi there!"), thread("bob-001"))
        assert len(bob["messages"]) == 2


def test_a_config_without_a_thread_is_refused_and_writes_nothing(path: str) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = one_node(echo).compile(checkpointer=checkpointer)
        with pytest.raises(ValueError, match="thread_id"):
            graph.invoke(human("Hello!"))
        assert list(checkpointer.list(None)) == []


def test_a_saver_is_usable_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpointer = LgkvSaver.from_conn_string("checkpoints.db")
    checkpointer.setup()
    graph = one_node(echo).compile(checkpointer=checkpointer)
    graph.invoke(human("Hello!"), thread("sync"))

    async def converse() -> None:
        async_checkpointer = AsyncLgkvSaver.from_conn_string("checkpoints.db")
        await async_checkpointer.setup()
        async_graph = one_node(echo).compile(checkpointer=async_checkpointer)
        await async_graph.ainvoke(human("Hello!"), thread("async"))
        state = await async_graph.aget_state(thread("async"))
        assert texts(state.values["messages"]) == ["Hello!", "Echo: Hello!"]

    asyncio.run(converse())
    assert (tmp_path / "checkpoints.db").is_file()
    assert count_checkpoints_elsewhere("sync", "async", "none") == ["sync 3", "async 3", "none 0"]


def count_checkpoints_elsewhere(*thread_ids: str) -> list[str]:
    """Open checkpoints.db in a process of its own and return what it counts."""
    setup = f"import sys; sys.path[:0] = {sys.path!r}\n"
    command = [sys.executable, "-c", setup + COUNT_CHECKPOINTS, *thread_ids]
    counted = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return counted.stdout.splitlines()


def test_a_store_is_usable_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = LgkvStore.from_conn_string("memories.db")
    store.setup()
    store.put(ALICE, "preferences", {"theme": "dark"})

    async def read() -> dict[str, Any]:
        async_store = AsyncLgkvStore.from_conn_string("memories.db")
        await async_store.setup()
        item = await async_store.aget(ALICE, "preferences")
        assert item is not None
        return item.value

    assert asyncio.run(read()) == {"theme": "dark"}


def test_a_snapshot_shows_values_next_and_config(path: str) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = one_node(echo).compile(checkpointer=checkpointer)
        graph.invoke(human("Hello"), thread("thread-1"))

        snapshot = graph.get_state(thread("thread-1"))

    said = [(type(message), message.content) for message in snapshot.values["messages"]]
    assert said == [(HumanMessage, "Hello"), (AIMessage, "Echo: Hello")]
    assert snapshot.next == ()
    place = snapshot.config["configurable"]
    assert place["thread_id"] == "thread-1"
    assert uuid.UUID(place["checkpoint_id"])


def test_history_goes_back_to_before_the_first_message(path: str) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = one_node(echo).compile(checkpointer=checkpointer)
        graph.invoke(human("Hello"), thread("thread-1"))

    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = one_node(echo).compile(checkpointer=checkpointer)
        seen = [
            (state.metadata["step"], state.next, len(state.values.get("messages", [])))
            for state in graph.get_state_history(thread("thread-1"))
        ]
    assert seen == [(1, (), 2), (0, ("respond",), 1), (-1, ("__start__",), 0)]


def test_replay_from_the_earliest_state_answers_again(path: str) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = one_node(echo).compile(checkpointer=checkpointer)
        graph.invoke(human("Hello"), thread("thread-1"))
        graph.invoke(human("How are you?"), thread("thread-1"))
        earliest = list(graph.get_state_history(thread("thread-1")))[-1]

        result = graph.invoke(None, earliest.config)

        assert texts(result["messages"]) == ["Hello", "Echo: Hello"]
        assert graph.get_state(thread("thread-1")).values == result


def test_an_injected_message_is_there_in_the_next_turn(path: str) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = one_node(echo).compile(checkpointer=checkpointer)
        graph.invoke(human("Hello"), thread("thread-1"))
        injected = {"messages": [AIMessage(content="Injected message")]}
        graph.update_state(thread("thread-1"), values=injected, as_node="respond")

    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = one_node(echo).compile(checkpointer=checkpointer)
        result = graph.invoke(human("What was your last message?"), thread("thread-1"))
    assert texts(result["messages"]) == [
        "Hello",
        "Echo: Hello",
        "Injected message",
        "What was your last message?",
        "Echo: What was your last message?",
    ]


def test_a_node_reads_and_writes_the_store_it_is_given(path: str) -> None:
    def respond(state: MessagesState, *, store) -> dict[str, Any]:  # noqa: ANN001
        namespace = ("users", "user-123")
        known = "; ".join(item.value.get("fact", "") for item in store.search(namespace))
        heard = state["messages"][-1].content
        store.put(namespace, key="greeting", value={"fact": f"User said {heard}"})
        return {"messages": [AIMessage(content=f"Known facts: {known}")]}

    with LgkvSaver.from_conn_string(path) as saver, LgkvStore.from_conn_string(path) as store:
        graph = one_node(respond).compile(checkpointer=saver, store=store)
        first = graph.invoke(human("hello"), thread("1"))
        second = graph.invoke(human("bye"), thread("2"))

    assert first["messages"][-1].content == "Known facts: "
    assert second["messages"][-1].content == "Known facts: User said hello"


def test_namespaces_are_like_folders(path: str) -> None:
    preferences = {"theme": "dark", "language": "en"}
    with LgkvStore.from_conn_string(path) as store:
        store.put(ALICE, "preferences", preferences)
        store.put(("projects", "project-1"), "config", {"model": "rules"})

    with LgkvStore.from_conn_string(path) as store:
        found = [(item.key, item.value) for item in store.search(ALICE)]
        assert found == [("preferences", preferences)]
        assert {item.namespace for item in store.search(())} == {ALICE, ("projects", "project-1")}
        assert store.list_namespaces() == [("projects", "project-1"), ALICE]


async def test_namespaces_are_like_folders_on_the_event_loop(path: str) -> None:
    async with AsyncLgkvStore.from_conn_string(path) as store:
        await store.aput(ALICE, "preferences", {"theme": "dark"})
        await store.aput(("projects", "project-1"), "config", {"model": "rules"})

    async with AsyncLgkvStore.from_conn_string(path) as store:
        assert [item.value for item in await store.asearch(ALICE)] == [{"theme": "dark"}]
        assert await store.alist_namespaces(prefix=("projects",)) == [("projects", "project-1")]


def test_a_fact_is_found_by_what_it_is_about(path: str, embeddings: HashEmbeddings) -> None:
    facts = {
        "fact-1": "Alice loves hiking in the mountains",
        "fact-2": "Alice is a software engineer",
        "fact-3": "Alice prefers dark mode",
    }
    index = {"embed": embeddings, "dims": embeddings.dims, "fields": ["fact"]}
    with LgkvStore.from_conn_string(path, index=index) as store:
        for key, fact in facts.items():
            store.put(ALICE, key, {"fact": fact})

    with LgkvStore.from_conn_string(path, index=index) as store:
        results = store.search(ALICE, query="outdoor activities", limit=1)
    assert [item.value["fact"] for item in results] == [facts["fact-1"]]


def know_the_user(state: MessagesState, *, store, config) -> dict[str, Any]:  # noqa: ANN001
    """Solve the exercise and two of its bonus challenges: keep facts, tell them, forget one."""
    namespace = ("users", config.get("configurable", {}).get("user_id", "default"))
    said = state["messages"][-1].content
    if "what do you know" in said.lower():
        facts = [item.value["fact"] for item in store.search(namespace, query=said)]
        answer = f"I know: {', '.join(facts)}" if facts else "I don't know anything yet!"
    elif said.lower().startswith("forget "):
        (nearest,) = store.search(namespace, query=said.removeprefix("forget "), limit=1)
        store.delete(namespace, nearest.key)
        answer = f"Forgotten: {nearest.value['fact']}"
    else:
        store.put(namespace, str(uuid.uuid4()), {"fact": said})
        answer = "Got it! I'll remember that."
    return {"messages": [AIMessage(content=answer)]}


def test_exercise_facts_span_threads_and_conversations_do_not(
    path: str, embeddings: HashEmbeddings
) -> None:
    index = {"embed": embeddings, "dims": embeddings.dims, "fields": ["fact"]}
    first, second = (thread(name, user_id="alice") for name in ("t1", "t2"))
    with LgkvSaver.from_conn_string(path) as saver, LgkvStore.from_conn_string(path) as store:
        graph = one_node(know_the_user).compile(checkpointer=saver, store=store)
        graph.invoke(human("I love Python"), first)

    saver = LgkvSaver.from_conn_string(path)
    with saver, LgkvStore.from_conn_string(path, index=index) as store:
        graph = one_node(know_the_user).compile(checkpointer=saver, store=store)
        told = graph.invoke(human("What do you know about me?"), second)
        assert told["messages"][-1].content == "I know: I love Python"
        assert len(told["messages"]) == 2
        assert len(graph.get_state(first).values["messages"]) == 2
        stranger = graph.invoke(human("What do you know?"), thread("t3", user_id="bob"))
        assert stranger["messages"][-1].content == "I don't know anything yet!"


def test_bonus_the_fact_that_is_meant_is_forgotten(path: str, embeddings: HashEmbeddings) -> None:
    index = {"embed": embeddings, "dims": embeddings.dims, "fields": ["fact"]}
    alice = thread("t1", user_id="alice")
    saver = LgkvSaver.from_conn_string(path)
    with saver, LgkvStore.from_conn_string(path, index=index) as store:
        graph = one_node(know_the_user).compile(checkpointer=saver, store=store)
        for text in ("I love pizza", "I am a plumber", "forget my job"):
            graph.invoke(human(text), alice)
        told = graph.invoke(human("What do you know about me?"), alice)

        assert texts(told["messages"])[-3] == "Forgotten: I am a plumber"
        assert told["messages"][-1].content == "I know: I love pizza"
        steps = [state.metadata["step"] for state in graph.get_state_history(alice)]
        assert steps == list(range(10, -2, -1))


async def test_the_lessons_agent_runs_on_the_event_loop(path: str) -> None:
    async def respond(state: MessagesState, *, store) -> dict[str, Any]:  # noqa: ANN001
        known = [item.value["fact"] for item in await store.asearch(ALICE)]
        await store.aput(ALICE, str(uuid.uuid4()), {"fact": state["messages"][-1].content})
        return {"messages": [AIMessage(content=f"Known facts: {'; '.join(known)}")]}

    async with (
        AsyncLgkvSaver.from_conn_string(path) as saver,
        AsyncLgkvStore.from_conn_string(path) as store,
    ):
        graph = one_node(respond).compile(checkpointer=saver, store=store)
        await graph.ainvoke(human("I love Python"), thread("1"))
        second = await graph.ainvoke(human("hello"), thread("2"))
        assert second["messages"][-1].content == "Known facts: I love Python"

        injected = {"messages": [AIMessage(content="Injected message")]}
        await graph.aupdate_state(thread("2"), values=injected, as_node="respond")
        history = [state async for state in graph.aget_state_history(thread("2"))]
        assert [state.metadata["step"] for state in history] == [2, 1, 0, -1]
        earliest = await graph.ainvoke(None, history[-1].config)
        assert texts(earliest["messages"])[0] == "hello"
        assert len(earliest["messages"]) == 2
