"""Short ways to build the documents' chat graph and to talk to it."""

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph


def thread(thread_id: str, **configurable: Any) -> RunnableConfig:
    """Return the config of a thread; further names join `configurable`."""
    return {"configurable": {"thread_id": thread_id, **configurable}}


def user(text: str) -> dict[str, Any]:
    """Return the input of a turn in which the user says *text*."""
    return {"messages": [{"role": "user", "content": text}]}


def chat_builder(model: BaseChatModel) -> StateGraph:
    """Return the one-node chat graph, not compiled yet."""

    def call_model(state: MessagesState) -> dict[str, Any]:
        return {"messages": model.invoke(state["messages"])}

    return StateGraph(MessagesState).add_node(call_model).add_edge(START, "call_model")


def async_chat_builder(model: BaseChatModel) -> StateGraph:
    """Return the same graph with a node that awaits its model."""

    async def call_model(state: MessagesState) -> dict[str, Any]:
        return {"messages": await model.ainvoke(state["messages"])}

    return StateGraph(MessagesState).add_node(call_model).add_edge(START, "call_model")


def say(graph: Any, text: str, config: RunnableConfig, **options: Any) -> str:
    """Stream one turn as values and return the last message's text."""
    chunks = list(graph.stream(user(text), config, stream_mode="values", **options))
    assert chunks[0]["messages"][-1].content == text
    return str(chunks[-1]["messages"][-1].content)


async def asay(graph: Any, text: str, config: RunnableConfig, **options: Any) -> str:
    """Stream one turn as values on the event loop and return the last message's text."""
    turn = graph.astream(user(text), config, stream_mode="values", **options)
    chunks = [chunk async for chunk in turn]
    assert chunks[0]["messages"][-1].content == text
    return str(chunks[-1]["messages"][-1].content)


def texts(messages: list[Any]) -> list[str]:
    """Return what the messages say, in order."""
    return [str(message.content) for message in messages]
