"""What the demo prints: the turns of a conversation, a history, and what the file costs."""

import json
import time
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage, messages_to_dict
from langchain_core.runnables import RunnableConfig
from langgraph.graph import MessagesState
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, StateSnapshot

import lgkv

Graph = CompiledStateGraph[Any, None, MessagesState, Any]


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n{text}\n{'-' * len(text)}")


def turn(graph: Graph, config: RunnableConfig, given: MessagesState | Command[str] | None) -> None:
    """Run the graph until it ends or waits, and print each thing that it does."""
    begun = time.perf_counter()
    for part in graph.stream(given, config, stream_mode=["updates", "custom"], version="v2"):
        if part["type"] == "custom":
            print(f"           ({part['data']})")
        elif part["type"] == "updates":
            updates = part["data"]
            if "forecast" in updates:
                source = "the node cache" if "__metadata__" in updates else "the slow service"
                print(f"           (from {source}, {time.perf_counter() - begun:.2f} s)")
            for pause in updates.get("__interrupt__", ()):
                print(f"  waits    {pause.value}")
            for update in updates.values():
                if isinstance(update, dict) and "messages" in update:
                    say(update["messages"][-1])


def say(message: BaseMessage) -> None:
    """Print an answer of the agent."""
    print(f"  agent    {message.text}".replace("\n", "\n           "))


def show_history(history: list[StateSnapshot], shown: int = 6) -> None:
    """Print the newest checkpoints of a thread."""
    print("  step  next       messages  the last one")
    for state in history[:shown]:
        messages = state.values["messages"]
        step, then = (state.metadata or {}).get("step"), ", ".join(state.next) or "-"
        print(f"  {step:4}  {then:9}  {len(messages):8}  {messages[-1].text[:50]}")
    print(f"  ... {len(history)} checkpoints in all")


def report(db: lgkv.Database, graph: Graph, path: Path) -> None:
    """Print what the file holds, and for comparison what its messages cost as JSON."""
    threads = db.threads(limit=1_000)
    checkpoints = sum(info.checkpoints for info in threads)
    facts = len(db.memory.search(("memories",), limit=1_000))
    once = every = 0
    for info in threads:
        history = graph.get_state_history({"configurable": {"thread_id": info.thread_id}})
        sizes = [json_bytes(state.values["messages"]) for state in history]
        once += sizes[0]
        every += sum(sizes)
    title("The file")
    print(f"  {path.resolve()}")
    print(f"  {path.stat().st_size:>11,} bytes, with {len(threads)} threads, ", end="")
    print(f"{checkpoints} checkpoints and {facts} facts with their vectors")
    print("  For comparison, only the messages, as JSON:")
    print(f"  {once:>11,} bytes, those of each thread once")
    print(f"  {every:>11,} bytes, those of every checkpoint in the histories")


def json_bytes(messages: list[BaseMessage]) -> int:
    """Return the size of *messages* as JSON."""
    return len(json.dumps(messages_to_dict(messages), ensure_ascii=False).encode())
