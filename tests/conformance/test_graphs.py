"""Real compiled graphs on the saver: what a user does with them works as with any other."""

import asyncio
import operator
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import HumanMessage, RemoveMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.store.base import BaseStore
from langgraph.types import CachePolicy, Command, Send, interrupt
from typing_extensions import TypedDict

import lgkv
from lgkv.langgraph import LgkvCache, LgkvSaver, LgkvStore
from tests.conformance import counting_agent
from tests.conformance.checkpoints import config_of, id_of, ids_of
from tests.conformance.delta_graphs import Mirrored

ROOT = Path(__file__).resolve().parents[2]
needs_context = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="LangGraph hands async nodes their context from 3.11 on"
)
DURABILITIES: list[Any] = ["sync", "async", "exit"]


class State(TypedDict):
    n: int
    log: Annotated[list[str], operator.add]


def chain(saver: Any, nodes: dict[str, Callable[[State], Any]], **options: Any) -> Any:
    """Return a graph of nodes one after the other."""
    builder = StateGraph(State)
    before = START
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge(before, name)
        before = name
    builder.add_edge(before, END)
    return builder.compile(checkpointer=saver, **options)


def step(name: str) -> Callable[[State], Any]:
    return lambda state: {"n": state["n"] + 1, "log": [f"{name}{state['n'] + 1}"]}


THREE = {name: step(name) for name in "abc"}


# --- durability ----------------------------------------------------------------------------


@pytest.mark.parametrize("durability", DURABILITIES)
def test_each_durability_ends_in_the_same_state(saver: LgkvSaver, durability: Any) -> None:
    graph = chain(saver, THREE)
    for _ in range(2):
        graph.invoke({"n": 0, "log": ["in"]}, config_of(), durability=durability)
    state = graph.get_state(config_of())
    assert state.values == {"n": 3, "log": ["in", "a1", "b2", "c3"] * 2}
    assert state.next == ()
    assert len(list(saver.list(config_of()))) == (2 if durability == "exit" else 10)


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_each_durability_ends_in_the_same_state_async(
    saver: LgkvSaver, durability: Any
) -> None:
    graph = chain(saver, THREE)
    for _ in range(2):
        await graph.ainvoke({"n": 0, "log": ["in"]}, config_of(), durability=durability)
    state = await graph.aget_state(config_of())
    assert state.values == {"n": 3, "log": ["in", "a1", "b2", "c3"] * 2}
    assert len([each async for each in graph.aget_state_history(config_of())]) == (
        2 if durability == "exit" else 10
    )


def test_sync_durability_has_each_step_stored_before_the_next(path: str, saver: LgkvSaver) -> None:
    stored: list[Any] = []

    def look(state: State) -> dict[str, Any]:
        with lgkv.open(path) as other:
            found = LgkvSaver(other).get_tuple(config_of())
        stored.append((found.metadata["step"], found.checkpoint["channel_values"]["n"]))
        return {"n": state["n"] + 1}

    graph = chain(saver, {"a": look, "b": look, "c": look})
    graph.invoke({"n": 5, "log": []}, config_of(), durability="sync")
    assert stored == [(0, 5), (1, 6), (2, 7)]


def test_history_is_that_of_the_memory_saver(db: lgkv.Database) -> None:
    mirrored = Mirrored(db)
    graph, twin = chain(mirrored, THREE), chain(mirrored.memory, THREE)
    for n in range(3):
        graph.invoke({"n": n, "log": []}, config_of())
    assert list(graph.get_state_history(config_of())) == list(twin.get_state_history(config_of()))
    for options in ({"limit": 4}, {"filter": {"source": "input"}}, {"filter": {"step": 2}}):
        mine = list(graph.get_state_history(config_of(), **options))
        assert mine == list(twin.get_state_history(config_of(), **options))
        assert 0 < len(mine) < 15


# --- interrupts and failures ---------------------------------------------------------------


def asking(state: State) -> dict[str, Any]:
    return {"log": [f"{interrupt({'n': state['n']})}", f"{interrupt('again')}"]}


def test_interrupts_resume_where_they_stopped(saver: LgkvSaver) -> None:
    graph = chain(saver, {"a": step("a"), "ask": asking, "b": step("b")})
    assert graph.invoke({"n": 0, "log": []}, config_of())["__interrupt__"][0].value == {"n": 1}
    assert graph.get_state(config_of()).next == ("ask",)
    assert graph.invoke(Command(resume="yes"), config_of())["__interrupt__"][0].value == "again"
    result = graph.invoke(Command(resume="sure"), config_of())
    assert result["log"] == ["a1", "yes", "sure", "b2"]


@needs_context
async def test_interrupts_resume_async(saver: LgkvSaver) -> None:
    graph = chain(saver, {"a": step("a"), "ask": asking})
    await graph.ainvoke({"n": 0, "log": []}, config_of())
    await graph.ainvoke(Command(resume="yes"), config_of())
    result = await graph.ainvoke(Command(resume="sure"), config_of())
    assert result["log"] == ["a1", "yes", "sure"]


def test_static_breakpoints_and_edited_state(saver: LgkvSaver) -> None:
    graph = chain(saver, THREE, interrupt_before=["b"], interrupt_after=["b"])
    graph.invoke({"n": 0, "log": []}, config_of())
    assert graph.get_state(config_of()).next == ("b",)
    graph.update_state(config_of(), {"n": 10})
    graph.invoke(None, config_of())
    assert graph.get_state(config_of()).values["n"] == 11
    assert graph.invoke(None, config_of())["log"] == ["a1", "b11", "c12"]


def test_parallel_interrupts_are_answered_by_id(saver: LgkvSaver) -> None:
    builder = StateGraph(State)
    for name in "ab":
        builder.add_node(name, lambda _state, name=name: {"log": [f"{name}: {interrupt(name)}"]})
        builder.add_edge(START, name)
    graph = builder.compile(checkpointer=saver)
    graph.invoke({"n": 0, "log": []}, config_of())
    interrupts = {each.value: each.id for each in graph.get_state(config_of()).interrupts}
    graph.invoke(Command(resume={interrupts["b"]: "2"}), config_of())
    assert [each.value for each in graph.get_state(config_of()).interrupts] == ["a"]
    assert graph.invoke(Command(resume={interrupts["a"]: "1"}), config_of())["log"] == [
        "a: 1",
        "b: 2",
    ]


def test_what_succeeded_beside_a_failure_is_not_run_again(saver: LgkvSaver) -> None:
    runs: Counter[str] = Counter()

    def good(_state: State) -> dict[str, Any]:
        runs["good"] += 1
        return {"log": ["good"]}

    def bad(_state: State) -> dict[str, Any]:
        runs["bad"] += 1
        if runs["bad"] == 1:
            raise ValueError("first time")
        return {"log": ["bad"]}

    builder = StateGraph(State)
    for name, node in (("good", good), ("bad", bad)):
        builder.add_node(name, node)
        builder.add_edge(START, name)
    graph = builder.compile(checkpointer=saver)
    with pytest.raises(ValueError, match="first time"):
        graph.invoke({"n": 0, "log": []}, config_of())
    tasks = {each.name: each for each in graph.get_state(config_of()).tasks}
    assert tasks["good"].result == {"log": ["good"]}
    assert "first time" in tasks["bad"].error
    assert graph.invoke(None, config_of())["log"] == ["bad", "good"]
    assert runs == {"good": 1, "bad": 2}


# --- time travel ---------------------------------------------------------------------------


def test_branches_of_one_checkpoint_keep_their_own_values(saver: LgkvSaver) -> None:
    graph = chain(saver, THREE)
    graph.invoke({"n": 0, "log": ["in"]}, config_of())
    [before_b] = [
        each.config for each in graph.get_state_history(config_of()) if each.next == ("b",)
    ]
    heads = {}
    for branch in range(1, 4):
        forked = graph.update_state(before_b, {"n": branch * 100, "log": [f"fork{branch}"]})
        graph.invoke(None, forked)
        heads[branch] = graph.get_state(config_of()).config
    # each has given its channels the next version after the same one
    versions = [
        saver.get_tuple(head).checkpoint["channel_versions"]["n"] for head in heads.values()
    ]
    assert len({str(version).split(".")[0] for version in versions}) == 1
    assert len(set(versions)) == 3
    for branch, head in heads.items():
        assert graph.get_state(head).values == {
            "n": branch * 100 + 2,
            "log": ["in", "a1", f"fork{branch}", f"b{branch * 100 + 1}", f"c{branch * 100 + 2}"],
        }
    ends = [each.values for each in graph.get_state_history(config_of()) if not each.next]
    assert [each["n"] for each in ends] == [302, 202, 102, 3]
    assert ends[-1]["log"] == ["in", "a1", "b2", "c3"]


def test_replay_runs_from_the_checkpoint_on(saver: LgkvSaver) -> None:
    graph = chain(saver, THREE)
    graph.invoke({"n": 0, "log": []}, config_of())
    [before_c] = [
        each.config for each in graph.get_state_history(config_of()) if each.next == ("c",)
    ]
    stored = len(list(saver.list(config_of())))
    assert graph.invoke(None, before_c)["log"] == ["a1", "b2", "c3"]
    assert len(list(saver.list(config_of()))) > stored
    assert graph.get_state(before_c).values == {"n": 2, "log": ["a1", "b2"]}


def test_branches_survive_pruning_as_far_as_they_are_kept(saver: LgkvSaver) -> None:
    graph = chain(saver, THREE)
    graph.invoke({"n": 0, "log": ["in"]}, config_of())
    [before_b] = [
        each.config for each in graph.get_state_history(config_of()) if each.next == ("b",)
    ]
    graph.invoke(None, graph.update_state(before_b, {"n": 100, "log": ["fork"]}))
    expected = [(id_of(each.config), each.values) for each in graph.get_state_history(config_of())]
    saver.prune(["t"], keep_last=5)
    kept = [(id_of(each.config), each.values) for each in graph.get_state_history(config_of())]
    assert kept == expected[:5]
    graph.invoke({"n": 7}, config_of())
    assert graph.get_state(config_of()).values["n"] == 10


class Counted(InMemorySaver):
    """A saver whose versions are whole numbers, as the base class's are."""

    def get_next_version(self, current: Any, channel: None) -> Any:  # noqa: ARG002
        return 1 if current is None else current + 1


def test_thread_of_another_saver_goes_on(saver: LgkvSaver) -> None:
    other = Counted()
    chain(other, {"a": step("a"), "ask": asking, "b": step("b")}).invoke(
        {"n": 0, "log": []}, config_of()
    )
    for found in reversed(list(other.list(config_of()))):
        config = found.parent_config or config_of()
        stored = saver.put(
            config, found.checkpoint, found.metadata, found.checkpoint["channel_versions"]
        )
        for task_id, channel, value in found.pending_writes or ():
            saver.put_writes(stored, [(channel, value)], task_id)
    graph = chain(saver, {"a": step("a"), "ask": asking, "b": step("b")})
    graph.invoke(Command(resume="yes"), config_of())
    assert graph.invoke(Command(resume="sure"), config_of())["log"] == ["a1", "yes", "sure", "b2"]
    assert graph.invoke({"n": 7, "log": []}, config_of())["__interrupt__"]
    versions = saver.get_tuple(config_of()).checkpoint["channel_versions"].values()
    assert {type(version) for version in versions} == {int}


# --- subgraphs and Send --------------------------------------------------------------------


def nested(saver: LgkvSaver, checkpointer: Any) -> Any:
    inner = StateGraph(State)
    inner.add_node("count", step("inner"))
    inner.add_node("ask", lambda _state: {"log": [f"said {interrupt('?')}"]})
    inner.add_edge(START, "count")
    inner.add_edge("count", "ask")
    outer = StateGraph(State)
    outer.add_node("inner", inner.compile(checkpointer=checkpointer))
    outer.add_node("after", step("after"))
    outer.add_edge(START, "inner")
    outer.add_edge("inner", "after")
    return outer.compile(checkpointer=saver)


@pytest.mark.parametrize("checkpointer", [None, True])
def test_subgraph_is_interrupted_seen_edited_and_resumed(
    saver: LgkvSaver, checkpointer: Any
) -> None:
    graph = nested(saver, checkpointer)
    graph.invoke({"n": 0, "log": []}, config_of())
    state = graph.get_state(config_of(), subgraphs=True)
    inside = state.tasks[0].state
    assert inside.values == {"n": 1, "log": ["inner1"]}
    assert inside.next == ("ask",)
    graph.update_state(inside.config, {"n": 50})
    result = graph.invoke(Command(resume="yes"), config_of())
    assert result["n"] == 51
    assert result["log"][-2:] == ["said yes", "after51"]
    namespaces = {
        each.config["configurable"]["checkpoint_ns"] for each in saver.list(config_of(ns=None))
    }
    assert len(namespaces) == 2
    assert ids_of(saver.list(config_of())) != ids_of(saver.list(config_of(ns=None)))
    within = config_of("t", inside.config["configurable"]["checkpoint_ns"])
    assert [each.values.get("n") for each in graph.get_state_history(within)][-2:] == [0, None]


def test_subgraph_with_a_memory_of_its_own_remembers(saver: LgkvSaver) -> None:
    class Inner(TypedDict):
        log: Annotated[list[str], operator.add]
        notes: Annotated[list[str], operator.add]

    seen: list[list[str]] = []

    def note(state: Inner) -> dict[str, Any]:
        seen.append(list(state["notes"]))
        return {"notes": [state["log"][-1]]}

    for remembers, expected in ((True, [[], ["one"], ["one", "two"]]), (None, [[], [], []])):
        seen.clear()
        inner = StateGraph(Inner)
        inner.add_node("note", note)
        inner.add_edge(START, "note")
        outer = StateGraph(State)
        outer.add_node("inner", inner.compile(checkpointer=remembers))
        outer.add_edge(START, "inner")
        graph = outer.compile(checkpointer=saver)
        for word in ("one", "two", "three"):
            graph.invoke({"n": 0, "log": [word]}, config_of(f"t{remembers}"))
        assert seen == expected


def test_subgraph_is_replayed_from_the_past_of_its_parent(saver: LgkvSaver) -> None:
    graph = nested(saver, None)
    graph.invoke({"n": 0, "log": []}, config_of())
    graph.invoke(Command(resume="first"), config_of())
    [past] = [
        each.config for each in graph.get_state_history(config_of()) if each.next == ("inner",)
    ]
    graph.invoke(None, past)
    result = graph.invoke(Command(resume="second"), config_of())
    assert result["log"][-2:] == ["said second", "after2"]


@pytest.mark.parametrize("durability", DURABILITIES)
def test_map_reduce_by_send(saver: LgkvSaver, durability: Any) -> None:
    builder = StateGraph(State)
    builder.add_node("square", lambda state: {"log": [f"{state['item'] ** 2:03}"]})
    builder.add_node("join", lambda state: {"n": len(state["log"])})
    builder.add_conditional_edges(
        START, lambda state: [Send("square", {"item": at}) for at in range(state["n"])], ["square"]
    )
    builder.add_edge("square", "join")
    graph = builder.compile(checkpointer=saver)
    result = graph.invoke({"n": 20, "log": []}, config_of(), durability=durability)
    assert result == {"n": 20, "log": [f"{at**2:03}" for at in range(20)]}
    assert graph.get_state(config_of()).values == result


def test_messages_are_edited_and_removed(saver: LgkvSaver) -> None:
    builder = StateGraph(MessagesState)
    builder.add_node(
        "reply", lambda state: {"messages": [("ai", f"re: {state['messages'][-1].content}")]}
    )
    builder.add_edge(START, "reply")
    graph = builder.compile(checkpointer=saver)
    for at in range(5):
        graph.invoke({"messages": [HumanMessage(f"m{at}", id=f"id{at}")]}, config_of())
    graph.update_state(
        config_of(), {"messages": [HumanMessage("edited", id="id1"), RemoveMessage(id="id0")]}
    )
    contents = [each.content for each in graph.get_state(config_of()).values["messages"]]
    assert contents == [
        "re: m0",
        "edited",
        "re: m1",
        "m2",
        "re: m2",
        "m3",
        "re: m3",
        "m4",
        "re: m4",
    ]
    firsts = [len(each.values["messages"]) for each in graph.get_state_history(config_of())]
    assert firsts == [9, 10, 9, 8, 8, 7, 6, 6, 5, 4, 4, 3, 2, 2, 1, 0]


# --- the functional API --------------------------------------------------------------------


def test_entrypoint_has_its_previous_value_and_tasks_are_not_repeated(saver: LgkvSaver) -> None:
    runs: Counter[int] = Counter()

    @task
    def double(number: int) -> int:
        runs[number] += 1
        return number * 2

    @entrypoint(checkpointer=saver)
    def total(numbers: list[int], *, previous: int | None) -> Any:
        doubled = [each.result() for each in [double(number) for number in numbers]]
        answer = interrupt("add?")
        value = (previous or 0) + sum(doubled) + answer
        return entrypoint.final(value={"total": value}, save=value)

    total.invoke([1, 2, 3], config_of())
    assert total.invoke(Command(resume=1), config_of()) == {"total": 13}
    total.invoke([10], config_of())
    assert total.invoke(Command(resume=0), config_of()) == {"total": 33}
    assert runs == {1: 1, 2: 1, 3: 1, 10: 1}
    assert total.get_state(config_of()).values == {"total": 33}


@needs_context
async def test_async_entrypoint(saver: LgkvSaver) -> None:
    @task
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    @entrypoint(checkpointer=saver)
    async def total(numbers: list[int], *, previous: int | None = None) -> int:
        return (previous or 0) + sum(await asyncio.gather(*(double(number) for number in numbers)))

    assert await total.ainvoke([1, 2], config_of()) == 6
    assert await total.ainvoke([3], config_of()) == 12


# --- all in one file -----------------------------------------------------------------------


def test_saver_store_and_cache_share_a_file(path: str) -> None:
    runs: Counter[str] = Counter()

    def slow(state: State) -> dict[str, Any]:
        runs["slow"] += 1
        return {"log": [f"slow{state['n']}"]}

    def remember(state: State, *, store: BaseStore) -> dict[str, Any]:
        store.put(("facts", "u1"), str(state["n"]), {"text": f"fact {state['n']}"})
        return {"log": [str(len(store.search(("facts",))))]}

    builder = StateGraph(State)
    builder.add_node(
        "slow", slow, cache_policy=CachePolicy(ttl=600, key_func=lambda state: str(state["n"]))
    )
    builder.add_node("remember", remember)
    builder.add_edge(START, "slow")
    builder.add_edge("slow", "remember")
    for reopened in range(2):
        with lgkv.open(path) as db:
            graph = builder.compile(
                checkpointer=LgkvSaver(db), store=LgkvStore(db), cache=LgkvCache(db)
            )
            for n in (1, 2, 1):
                graph.invoke({"n": n, "log": []}, config_of(f"t{n}"))
            assert runs["slow"] == 2  # also after the file was closed and opened
            assert graph.get_state(config_of("t1")).values["log"][:2] == ["slow1", "1"]
            assert len(graph.get_state(config_of("t1")).values["log"]) == 4 * (reopened + 1)
            assert [item.key for item in LgkvStore(db).search(("facts", "u1"))] == ["1", "2"]


def test_many_threads_run_at_once(db: lgkv.Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(counting_agent.run, db, f"t{at}", 4) for at in range(24)]
        for future in running:
            future.result()
    assert db.stats().threads == 24
    graph = counting_agent.agent(db)
    for at in range(24):
        assert graph.get_state(config_of(f"t{at}")).values["count"] == 4
    assert len(LgkvStore(db).search(("said",), limit=200)) == 24 * 4


async def test_many_runs_on_one_loop(db: lgkv.Database) -> None:
    graph = counting_agent.agent(db)

    async def talk(name: str) -> None:
        for turn in range(1, 4):
            result = await graph.ainvoke(
                {"messages": [HumanMessage(f"{name}.{turn}")]}, config_of(name)
            )
            assert result["count"] == turn

    await asyncio.gather(*(talk(f"t{at}") for at in range(40)))
    assert db.stats().threads == 40


def process(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.conformance.counting_agent", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)


def test_run_goes_on_in_another_process(path: str) -> None:
    with process(path, "t", "ask") as asking_process:
        assert asking_process.wait(60) == 0
    with process(path, "t", "answer") as answering:
        assert answering.communicate(timeout=60)[0] == "answer: this\n"
    with lgkv.open(path) as db:
        contents = [
            each.content
            for each in counting_agent.agent(db).get_state(config_of("t")).values["messages"]
        ]
        assert contents == ["really?", "really? 1", "answer: this"]


def test_app_and_worker_use_one_file_at_once(path: str) -> None:
    with lgkv.open(path) as db:
        workers = [process(path, f"worker{at}", "15", stdin=subprocess.PIPE) for at in range(2)]
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(counting_agent.run, db, f"app{at}", 15) for at in range(2)]:
                future.result()
        for worker in workers:
            worker.communicate(timeout=60)
            assert worker.returncode == 0
        graph = counting_agent.agent(db)
        for name in ("worker0", "worker1", "app0", "app1"):
            assert graph.get_state(config_of(name)).values["count"] == 15
        assert {each.thread_id for each in db.threads()} == {"worker0", "worker1", "app0", "app1"}
        assert len(LgkvStore(db).search(("said",), limit=100)) == 60
