"""A graph that runs in several processes at once; run as a module it is one of them."""

import sys
from typing import Annotated, Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.store.base import BaseStore
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

import lgkv
from lgkv.langgraph import LgkvSaver, LgkvStore
from tests.conformance.checkpoints import config_of

__all__ = ["agent", "run"]


class State(TypedDict):
    messages: Annotated[list[Any], add_messages]
    count: int


def reply(state: State, *, store: BaseStore) -> dict[str, Any]:
    count = state.get("count", 0) + 1
    said = state["messages"][-1].content
    store.put(("said",), f"{said}", {"text": said, "count": count})
    return {"messages": [AIMessage(f"{said} {count}")], "count": count}


def confirm(state: State) -> dict[str, Any]:
    if "?" in state["messages"][-1].content:
        return {"messages": [AIMessage(f"answer: {interrupt('which?')}")]}
    return {}


def agent(db: lgkv.Database) -> Any:
    """Return the graph with short-term and long-term memory in one file."""
    builder = StateGraph(State)
    builder.add_node("reply", reply)
    builder.add_node("confirm", confirm)
    builder.add_edge(START, "reply")
    builder.add_edge("reply", "confirm")
    builder.add_edge("confirm", END)
    return builder.compile(checkpointer=LgkvSaver(db), store=LgkvStore(db))


def run(db: lgkv.Database, name: str, turns: int) -> None:
    """Talk in a thread of one's own; each turn sees all of those before."""
    graph, config = agent(db), config_of(name)
    for turn in range(1, turns + 1):
        result = graph.invoke({"messages": [HumanMessage(f"{name}.{turn}")]}, config)
        assert result["count"] == turn
        assert len(result["messages"]) == 2 * turn


def main(path: str, name: str, action: str) -> None:
    with lgkv.open(path) as db:
        if action == "ask":
            agent(db).invoke({"messages": [HumanMessage("really?")]}, config_of(name))
        elif action == "answer":
            print(agent(db).invoke(Command(resume="this"), config_of(name))["messages"][-1].content)
        else:
            print("ready", flush=True)
            sys.stdin.readline()
            run(db, name, int(action))


if __name__ == "__main__":
    main(*sys.argv[1:])
