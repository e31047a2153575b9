"""An agent that keeps its whole memory in one file, across two processes.

    python examples/agent.py [path]

The first process talks through the first half of `conversation.json` and ends while one thread
waits for an approval. The second opens the same file, carries on with the same threads, looks
at their history, replays it and forks it. Run it again on the same file, and it begins new
threads with a user whom it knows already. Nothing here needs the network.
"""

import argparse
import json
import operator
import os
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.base import BaseStore, IndexConfig
from langgraph.types import CachePolicy, Command, StateSnapshot, StreamWriter, interrupt

import lgkv
from hash_embeddings import HashEmbeddings
from lgkv.langgraph import LgkvCache, LgkvSaver, LgkvStore
from narration import Graph, report, show_history, title, turn
from rule_model import RuleChatModel

model = RuleChatModel()  # or init_chat_model("...") for a real one
embeddings = HashEmbeddings(dims=256)
NEAR = 0.3  # the similarity from which a fact that was found is worth a line of output

KNOWN = "You are a helpful assistant. What you know about the user:\n{facts}"
EXTRACT = "List the facts that the user states about themselves, one a line, and nothing else."
CONVERSATION = json.loads(Path(__file__).with_name("conversation.json").read_text("utf-8"))


# The agent.


class State(MessagesState):
    """The messages of a thread, and what was looked up for the next answer."""

    known: list[str]


class BookingState(MessagesState):
    """The subgraph's own memory: what it has booked in this thread."""

    booked: Annotated[list[str], operator.add]


def choose(state: State) -> str:
    """Choose the first node by the user's message."""
    text = state["messages"][-1].text.lower()
    return "booking" if "book " in text else "forecast" if "weather" in text else "recall"


def recall(
    state: State, config: RunnableConfig, *, writer: StreamWriter, store: BaseStore
) -> dict[str, Any]:
    """Find the facts that are nearest to the user's message in meaning."""
    found = store.search(memories(config), query=state["messages"][-1].text, limit=5)
    for item in found[:1]:
        if item.score and item.score > NEAR:
            writer(f'found by meaning: "{item.value["fact"]}", similarity {item.score:.2f}')
    return {"known": [item.value["fact"] for item in found]}


def forecast(state: State) -> dict[str, Any]:
    """Ask a slow service for the weather; the node cache saves the second call."""
    time.sleep(0.5)
    place = state["messages"][-1].text.split(" in ")[-1].strip("?")
    return {"known": [f"The forecast for {place} is dry and bright, 14 degrees"]}


def answer(state: State) -> dict[str, Any]:
    """Let the model answer with what is known."""
    system = SystemMessage(KNOWN.format(facts="\n".join(state["known"])))
    return {"messages": [model.invoke([system, *state["messages"]])]}


def remember(
    state: State, config: RunnableConfig, *, writer: StreamWriter, store: BaseStore
) -> None:
    """Let the model extract the facts that the user stated, and store them."""
    said = next(m for m in reversed(state["messages"]) if m.type == "human")
    for fact in model.invoke([SystemMessage(EXTRACT), said]).text.splitlines():
        store.put(memories(config), fact, {"fact": fact})
        writer(f'remembered: "{fact}"')


def approve(state: BookingState) -> dict[str, Any]:
    """Stop until a person says yes or no; then book, or leave it."""
    request = state["messages"][-1].text
    if interrupt(f"May I? {request}") != "yes":
        return {"messages": [AIMessage("All right, I have not booked it.")]}
    number = len(state.get("booked", [])) + 1
    text = f"Booked. That is booking number {number} in this conversation."
    return {"booked": [request], "messages": [AIMessage(text)]}


def memories(config: RunnableConfig) -> tuple[str, str]:
    """Return the namespace of what is known about the user."""
    return ("memories", config["configurable"]["user_id"])


def build(db: lgkv.Database) -> Graph:
    """Compile the agent; everything that it keeps goes into *db*."""
    booking = StateGraph(BookingState).add_node(approve).add_edge(START, "approve")
    by_question = CachePolicy(key_func=lambda state: state["messages"][-1].text, ttl=3600)
    builder = StateGraph(State, input_schema=MessagesState)
    builder.add_node(recall).add_node(answer).add_node(remember)
    builder.add_node(forecast, cache_policy=by_question)
    builder.add_node("booking", booking.compile(checkpointer=True))
    builder.add_conditional_edges(START, choose, ["booking", "forecast", "recall"])
    builder.add_edge("forecast", "answer").add_edge("recall", "answer")
    builder.add_edge("answer", "remember")
    index: IndexConfig = {"embed": embeddings, "dims": embeddings.dims, "fields": ["fact"]}
    return builder.compile(
        checkpointer=LgkvSaver(db), store=LgkvStore(db, index=index), cache=LgkvCache(db)
    )


# The demo.


def process_one(graph: Graph) -> None:
    """Begin the conversations, and end while one of them waits."""
    run = next(number for number in count(1) if not has_run(graph, number))
    title(f"Process 1 of 2, pid {os.getpid()}: begins")
    converse(graph, run, CONVERSATION["process 1"])
    waiting = graph.get_state(thread("trip", run)).interrupts
    print(f"\nProcess 1 ends. Thread trip-{run} still waits for: {waiting[0].value}")


def process_two(graph: Graph) -> None:
    """Carry on from what the file has."""
    run = next(number for number in count(1) if not has_run(graph, number + 1))
    title(f"Process 2 of 2, pid {os.getpid()}: carries on")
    converse(graph, run, CONVERSATION["process 2"])
    travel_in_time(graph, thread("home", run))


def converse(graph: Graph, run: int, scenes: list[dict[str, Any]]) -> None:
    """Say what the conversation file has for each thread."""
    for scene in scenes:
        config = thread(scene["thread"], run)
        print(f"\nThread {config['configurable']['thread_id']}: {scene['about']}")
        for said in scene["says"]:
            if isinstance(said, dict):
                print(f"  approval {said['resume']}")
                turn(graph, config, Command(resume=said["resume"]))
            else:
                print(f"  user     {said}")
                turn(graph, config, {"messages": [HumanMessage(said)]})


def travel_in_time(graph: Graph, config: RunnableConfig) -> None:
    """Show the history of a thread, run a part of it again, and run it differently."""
    title(f"History of thread {config['configurable']['thread_id']}")
    history = list(graph.get_state_history(config))
    show_history(history)

    old = before("recall", "I'm hungry", history)
    title('Replay from the checkpoint after "I\'m hungry"')
    turn(graph, at(old.config, config), None)

    old = before("forecast", "What is the weather in Zürich?", history)
    asked = HumanMessage("What is the weather in Rome?", id=old.values["messages"][-1].id)
    title('Fork where the user asked for Zürich: now it is "What is the weather in Rome?"')
    forked = graph.update_state(at(old.config, config), {"messages": [asked]}, as_node=START)
    turn(graph, at(forked, config), None)

    kept = graph.get_state(history[0].config).values["messages"]
    print(f"  The thread had {len(history)} checkpoints", end=" ")
    print(f"and now has {len(list(graph.get_state_history(config)))}.")
    print(f'  What was there stays: "... {kept[-2].text}" "{kept[-1].text}"')


def before(node: str, text: str, history: list[StateSnapshot]) -> StateSnapshot:
    """Return the newest checkpoint at which *text* was said last and *node* comes next."""
    return next(s for s in history if s.next == (node,) and s.values["messages"][-1].text == text)


def at(checkpoint: RunnableConfig, config: RunnableConfig) -> RunnableConfig:
    """Return *config* with the checkpoint to start from."""
    return {"configurable": {**config["configurable"], **checkpoint["configurable"]}}


def has_run(graph: Graph, run: int) -> bool:
    """Tell whether the file has the threads of this run."""
    return graph.get_state(thread("home", run)).created_at is not None


def thread(name: str, run: int) -> RunnableConfig:
    """Return the config of a thread."""
    user = CONVERSATION["user"]
    return {"configurable": {"thread_id": f"{name}-{run}", "user_id": user}}


def main() -> None:
    """Start the two processes, or be one of them."""
    parser = argparse.ArgumentParser(description="One agent, one file, two processes.")
    parser.add_argument("path", nargs="?", type=Path, default=Path("agent-demo.lgkv"))
    parser.add_argument("--process", choices=["1", "2"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process is None:
        known = "exists already" if options.path.exists() else "is new"
        print(f"One agent, one file: {options.path} {known}.", flush=True)
        for number in ("1", "2"):
            command = [sys.executable, __file__, str(options.path), "--process", number]
            if code := subprocess.call(command):
                sys.exit(code)
        return
    with lgkv.open(options.path) as db:
        graph = build(db)
        if options.process == "1":
            process_one(graph)
        else:
            process_two(graph)
            report(db, graph, options.path)


if __name__ == "__main__":
    main()
