"""Memory store: basic use, and its use in a graph, by the store parameter or the runtime."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import Item, SearchItem

from conversations import thread, user
from lgkv.langgraph import LgkvSaver, LgkvStore
from lgkv.langgraph.aio import AsyncLgkvSaver, AsyncLgkvStore
from rule_model import RuleChatModel

NAMESPACE = ("1", "memories")
PIZZA = {"food_preference": "I like pizza"}


def check_memory(item: Item, key: str) -> None:
    """Check the attributes that the document lists, and the item as a dictionary."""
    assert item.value == PIZZA
    assert item.key == key
    assert item.namespace == NAMESPACE
    assert item.created_at <= item.updated_at
    now = datetime.now(timezone.utc)
    assert timedelta(0) <= now - item.created_at < timedelta(minutes=1)
    printed = item.dict()
    assert printed["namespace"] == ["1", "memories"]
    assert (printed["key"], printed["value"]) == (key, PIZZA)
    assert datetime.fromisoformat(printed["created_at"]) == item.created_at
    assert datetime.fromisoformat(printed["updated_at"]) == item.updated_at


def test_a_memory_has_the_attributes_of_the_document(path: str) -> None:
    memory_id = str(uuid.uuid4())
    with LgkvStore.from_conn_string(path) as store:
        store.put(NAMESPACE, memory_id, PIZZA)

    with LgkvStore.from_conn_string(path) as store:
        memories = store.search(NAMESPACE)
        assert len(memories) == 1
        assert isinstance(memories[-1], SearchItem)
        check_memory(memories[-1], memory_id)
        assert memories[-1].score is None
        item = store.get(NAMESPACE, memory_id)
        assert item is not None
        check_memory(item, memory_id)


async def test_a_memory_has_the_same_attributes_on_the_event_loop(path: str) -> None:
    memory_id = str(uuid.uuid4())
    async with AsyncLgkvStore.from_conn_string(path) as store:
        await store.aput(NAMESPACE, memory_id, PIZZA)

    async with AsyncLgkvStore.from_conn_string(path) as store:
        (memory,) = await store.asearch(NAMESPACE)
        check_memory(memory, memory_id)
        item = await store.aget(NAMESPACE, memory_id)
        assert item is not None
        check_memory(item, memory_id)
        await store.adelete(NAMESPACE, memory_id)
        assert await store.aget(NAMESPACE, memory_id) is None


def test_memories_are_listed_newest_first(path: str) -> None:
    with LgkvStore.from_conn_string(path) as store:
        for number in range(3):
            store.put(NAMESPACE, f"memory-{number}", {"number": number})
        assert [item.value["number"] for item in store.search(NAMESPACE)] == [2, 1, 0]
        assert [item.value["number"] for item in store.search(NAMESPACE, limit=1)] == [2]


def test_a_changed_memory_keeps_the_time_of_its_creation(path: str) -> None:
    with LgkvStore.from_conn_string(path) as store:
        store.put(NAMESPACE, "food", {"food_preference": "I like soup"})
        before = store.get(NAMESPACE, "food")
        store.put(NAMESPACE, "food", PIZZA)
        after = store.get(NAMESPACE, "food")

    assert before is not None
    assert after is not None
    assert after.value == PIZZA
    assert after.created_at == before.created_at
    assert after.updated_at > before.updated_at


@dataclass
class Context:
    """Who is talking."""

    user_id: str


def chat_with_memories(model: RuleChatModel) -> StateGraph:
    """Return a graph that saves what it hears and knows it in every thread of the user."""

    def update_memory(state: MessagesState, runtime: Runtime[Context]) -> None:
        assert runtime.store is not None
        namespace = (runtime.context.user_id, "memories")
        heard = str(state["messages"][-1].content)
        if heard.startswith("I "):
            runtime.store.put(namespace, str(uuid.uuid4()), {"memory": heard})

    def call_model(state: MessagesState, runtime: Runtime[Context]) -> dict[str, Any]:
        assert runtime.store is not None
        namespace = (runtime.context.user_id, "memories")
        question = str(state["messages"][-1].content)
        memories = runtime.store.search(namespace, query=question, limit=3)
        known = "\n".join(item.value["memory"] for item in memories)
        system = {"role": "system", "content": f"You are helpful. User info: {known}"}
        return {"messages": model.invoke([system, *state["messages"]])}

    builder = StateGraph(MessagesState, context_schema=Context)
    builder.add_node(update_memory).add_node(call_model)
    return builder.add_edge(START, "update_memory").add_edge("update_memory", "call_model")


def updates(graph: Any, text: str, thread_id: str, user_id: str) -> list[dict[str, Any]]:
    """Stream one turn of the user as updates."""
    turn = graph.stream(
        user(text), thread(thread_id), context=Context(user_id), stream_mode="updates"
    )
    return list(turn)


def test_a_memory_is_known_in_a_new_thread_of_the_same_user(
    path: str, model: RuleChatModel
) -> None:
    with LgkvSaver.from_conn_string(path) as saver, LgkvStore.from_conn_string(path) as store:
        graph = chat_with_memories(model).compile(checkpointer=saver, store=store)
        told = updates(graph, "I like pizza", "1", "1")
        assert [list(update) for update in told] == [["update_memory"], ["call_model"]]

    with LgkvSaver.from_conn_string(path) as saver, LgkvStore.from_conn_string(path) as store:
        graph = chat_with_memories(model).compile(checkpointer=saver, store=store)
        asked = updates(graph, "hi, tell me about my memories", "2", "1")
        assert asked[-1]["call_model"]["messages"].content == "I know: you like pizza."
        stranger = updates(graph, "hi, tell me about my memories", "3", "2")
        assert "pizza" not in stranger[-1]["call_model"]["messages"].content
        assert store.list_namespaces(suffix=("memories",)) == [("1", "memories")]


async def test_a_memory_is_known_in_a_new_thread_on_the_event_loop(
    path: str, model: RuleChatModel
) -> None:
    async def call_model(state: MessagesState, runtime: Runtime[Context]) -> dict[str, Any]:
        assert runtime.store is not None
        namespace = (runtime.context.user_id, "memories")
        heard = str(state["messages"][-1].content)
        known = "\n".join(item.value["memory"] for item in await runtime.store.asearch(namespace))
        if heard.startswith("I "):
            await runtime.store.aput(namespace, str(uuid.uuid4()), {"memory": heard})
        system = {"role": "system", "content": f"You are helpful. User info: {known}"}
        return {"messages": await model.ainvoke([system, *state["messages"]])}

    builder = StateGraph(MessagesState, context_schema=Context)
    builder.add_node(call_model).add_edge(START, "call_model")
    async with (
        AsyncLgkvSaver.from_conn_string(path) as saver,
        AsyncLgkvStore.from_conn_string(path) as store,
    ):
        graph = builder.compile(checkpointer=saver, store=store)
        await graph.ainvoke(user("I like pizza"), thread("1"), context=Context("1"))
        question = user("hi, tell me about my memories")
        answer = await graph.ainvoke(question, thread("2"), context=Context("1"))

    assert answer["messages"][-1].content == "I know: you like pizza."
