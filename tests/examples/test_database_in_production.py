"""Use in production: the database's saver and store exchanged for lgkv's, nothing else."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.base import BaseStore

from conversations import asay, async_chat_builder, chat_builder, say, thread
from lgkv.langgraph import LgkvSaver, LgkvStore
from lgkv.langgraph.aio import AsyncLgkvSaver, AsyncLgkvStore
from rule_model import RuleChatModel

# What the examples do first: Postgres and Redis want their tables or indexes made, MongoDB nothing.
SETUP_STYLES: dict[str, Callable[[Any], object]] = {
    "postgres": lambda persistence: persistence.setup(),
    "mongodb": lambda _: None,
    "redis": lambda persistence: persistence.setup(),
}
each_database = pytest.mark.parametrize("set_up", SETUP_STYLES.values(), ids=SETUP_STYLES)


@each_database
def test_saver_takes_the_place_of_the_database(
    path: str, model: RuleChatModel, set_up: Callable[[Any], object]
) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        set_up(checkpointer)
        graph = chat_builder(model).compile(checkpointer=checkpointer)
        assert "Bob" in say(graph, "hi! I'm bob", thread("1"))

    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = chat_builder(model).compile(checkpointer=checkpointer)
        assert say(graph, "what's my name?", thread("1")) == "Your name is Bob."


@each_database
async def test_async_saver_takes_the_place_of_the_database(
    path: str, model: RuleChatModel, set_up: Callable[[Any], Any]
) -> None:
    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        made = set_up(checkpointer)
        if made is not None:
            await made
        graph = async_chat_builder(model).compile(checkpointer=checkpointer)
        assert "Bob" in await asay(graph, "hi! I'm bob", thread("1"))

    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        graph = async_chat_builder(model).compile(checkpointer=checkpointer)
        assert await asay(graph, "what's my name?", thread("1")) == "Your name is Bob."


def with_memories(question: str, memories: list[str]) -> list[dict[str, str]]:
    """Return what the model is asked, with what is known about the user before it."""
    known = "You are a helpful assistant talking to the user. User info: " + "\n".join(memories)
    return [{"role": "system", "content": known}, {"role": "user", "content": question}]


def remembering_builder(model: RuleChatModel) -> StateGraph:
    """Return a chat graph that keeps in the store what it is asked to remember."""

    def call_model(
        state: MessagesState, config: RunnableConfig, *, store: BaseStore
    ) -> dict[str, Any]:
        namespace = ("memories", config["configurable"]["user_id"])
        question = str(state["messages"][-1].content)
        found = [item.value["data"] for item in store.search(namespace, query=question)]
        if "remember" in question.lower():
            store.put(namespace, str(uuid.uuid4()), {"data": "User name is Bob"})
        return {"messages": model.invoke(with_memories(question, found))}

    return StateGraph(MessagesState).add_node(call_model).add_edge(START, "call_model")


def async_remembering_builder(model: RuleChatModel) -> StateGraph:
    """Return the same graph with a node that awaits its store and its model."""

    async def call_model(
        state: MessagesState, config: RunnableConfig, *, store: BaseStore
    ) -> dict[str, Any]:
        namespace = ("memories", config["configurable"]["user_id"])
        question = str(state["messages"][-1].content)
        found = [item.value["data"] for item in await store.asearch(namespace, query=question)]
        if "remember" in question.lower():
            await store.aput(namespace, str(uuid.uuid4()), {"data": "User name is Bob"})
        return {"messages": await model.ainvoke(with_memories(question, found))}

    return StateGraph(MessagesState).add_node(call_model).add_edge(START, "call_model")


@each_database
def test_store_and_saver_share_the_file_of_one_connection_string(
    path: str, model: RuleChatModel, set_up: Callable[[Any], object]
) -> None:
    with (
        LgkvStore.from_conn_string(path) as store,
        LgkvSaver.from_conn_string(path) as checkpointer,
    ):
        set_up(store)
        set_up(checkpointer)
        graph = remembering_builder(model).compile(checkpointer=checkpointer, store=store)

        told = say(graph, "Hi! Remember: my name is Bob", thread("1", user_id="1"))
        assert told.startswith("Hi Bob! I'll remember that your name is Bob.")
        asked = say(graph, "what is my name?", thread("2", user_id="1"))
        assert asked == "Your name is Bob."


@each_database
async def test_async_store_and_saver_share_the_file_of_one_connection_string(
    path: str, model: RuleChatModel, set_up: Callable[[Any], Any]
) -> None:
    async with (
        AsyncLgkvStore.from_conn_string(path) as store,
        AsyncLgkvSaver.from_conn_string(path) as checkpointer,
    ):
        for made in (set_up(store), set_up(checkpointer)):
            if made is not None:
                await made
        graph = async_remembering_builder(model).compile(checkpointer=checkpointer, store=store)

        told = await asay(graph, "Hi! Remember: my name is Bob", thread("1", user_id="1"))
        assert told.startswith("Hi Bob! I'll remember that your name is Bob.")
        asked = await asay(graph, "what is my name?", thread("2", user_id="1"))
        assert asked == "Your name is Bob."


def test_store_alone_makes_a_graph_remember(path: str, model: RuleChatModel) -> None:
    with LgkvStore.from_conn_string(path) as store:
        graph = remembering_builder(model).compile(store=store)
        say(graph, "Hi! Remember: my name is Bob", {"configurable": {"user_id": "1"}})

    with LgkvStore.from_conn_string(path) as store:
        graph = remembering_builder(model).compile(store=store)
        asked = say(graph, "what is my name?", {"configurable": {"user_id": "1"}})
        assert asked == "Your name is Bob."
        stranger = say(graph, "what is my name?", {"configurable": {"user_id": "2"}})
        assert "Bob" not in stranger


def test_a_graph_awaits_objects_made_before_any_loop_ran(path: str, model: RuleChatModel) -> None:
    store = LgkvStore.from_conn_string(path)
    checkpointer = LgkvSaver.from_conn_string(path)
    graph = async_remembering_builder(model).compile(checkpointer=checkpointer, store=store)

    asyncio.run(asay(graph, "Hi! Remember: my name is Bob", thread("1", user_id="1")))
    asked = asyncio.run(asay(graph, "what is my name?", thread("2", user_id="1")))

    assert asked == "Your name is Bob."
