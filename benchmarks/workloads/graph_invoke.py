"""graph_invoke: a compiled graph that is invoked once a turn, with and without a saver."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from langgraph.graph import START, MessagesState, StateGraph

from benchmarks import corpus
from benchmarks.measures import Filled, Measure, Sizes
from benchmarks.thread import thread_config

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from benchmarks.backends import Opened

__all__ = ["GraphInvoke"]


class GraphInvoke:
    """A graph of one node that answers at once; a chat of `turns` turns on one thread.

    Without a saver the caller keeps the messages and hands all of them in again. What the two
    differ by is what persistence costs.
    """

    name: ClassVar[str] = "graph_invoke"
    measure_names: ClassVar[tuple[str, ...]] = ("with_saver", "without_saver")

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    def fill(self, opened: Opened[BaseCheckpointSaver[Any]]) -> Iterator[Filled]:
        """Have one turn, so that nothing is done for the first time later."""
        _chat_with(opened.subject, 1)()
        yield Filled("1 turn")

    def measures(self, opened: Opened[BaseCheckpointSaver[Any]]) -> list[Measure]:
        """Return the chat in an empty file, and the same chat without a saver."""
        turns = self._sizes.turns

        def with_saver() -> tuple[Callable[[], int]]:
            return (_chat_with(opened.beside().subject, turns),)

        def without_saver() -> tuple[Callable[[], int]]:
            return (_chat_without(turns),)

        def have(chat: Callable[[], int]) -> range:
            return range(chat())

        return [
            Measure("with_saver", have, 1, with_saver),
            Measure("without_saver", have, 1, without_saver),
        ]


def _graph(turns: int, saver: BaseCheckpointSaver[Any] | None) -> tuple[Any, list[BaseMessage]]:
    """Return the graph, and the questions that it has answers to."""
    said = corpus.conversation(random.Random("graph"), turns)
    answers = iter(said[1::2])
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda _: {"messages": [next(answers)]})
    builder.add_edge(START, "model")
    return builder.compile(checkpointer=saver), said[::2]


def _chat_with(saver: BaseCheckpointSaver[Any], turns: int) -> Callable[[], int]:
    """Return what has the chat and returns the number of messages at its end."""
    graph, questions = _graph(turns, saver)

    def chat() -> int:
        state: dict[str, Any] = {}
        for question in questions:
            state = graph.invoke({"messages": [question]}, thread_config("chat"), durability="sync")
        return len(state["messages"])

    return chat


def _chat_without(turns: int) -> Callable[[], int]:
    graph, questions = _graph(turns, None)

    def chat() -> int:
        messages: list[BaseMessage] = []
        for question in questions:
            messages = graph.invoke({"messages": [*messages, question]})["messages"]
        return len(messages)

    return chat
