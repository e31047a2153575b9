"""Persistence: the four checkpoints of a run, what they hold, and what can be done with them."""

import operator
import sys
import time
from datetime import datetime
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, StateSnapshot, interrupt

from conversations import thread
from lgkv.langgraph import LgkvSaver
from lgkv.langgraph.aio import AsyncLgkvSaver

ONE = thread("1")


class State(TypedDict):
    """One channel that is overwritten and one that accumulates."""

    foo: str
    bar: Annotated[list[str], operator.add]


class Walk:
    """START, node_a, node_b, END; notes which nodes ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def builder(self) -> StateGraph:
        """Return the graph of the two nodes."""

        def node_a(_: State) -> dict[str, Any]:
            self.ran.append("a")
            return {"foo": "a", "bar": ["a"]}

        def node_b(_: State) -> dict[str, Any]:
            self.ran.append("b")
            return {"foo": "b", "bar": ["b"]}

        builder = StateGraph(State).add_node(node_a).add_node(node_b).add_edge(START, "node_a")
        return builder.add_edge("node_a", "node_b").add_edge("node_b", END)


@pytest.fixture
def walk() -> Walk:
    """Give the graph of the walk-through."""
    return Walk()


def walked(checkpointer: LgkvSaver, walk: Walk) -> Any:
    """Return the compiled graph after one run on thread "1"."""
    graph = walk.builder().compile(checkpointer=checkpointer)
    assert graph.invoke({"foo": "", "bar": []}, ONE) == {"foo": "b", "bar": ["a", "b"]}
    return graph


def check_four_checkpoints(history: list[StateSnapshot]) -> None:
    """Check values, next and metadata of the run's checkpoints, newest first."""
    assert [(state.values, state.next) for state in history] == [
        ({"foo": "b", "bar": ["a", "b"]}, ()),
        ({"foo": "a", "bar": ["a"]}, ("node_b",)),
        ({"foo": "", "bar": []}, ("node_a",)),
        ({"bar": []}, ("__start__",)),
    ]
    assert [state.metadata for state in history] == [
        {"source": "loop", "step": 2, "parents": {}},
        {"source": "loop", "step": 1, "parents": {}},
        {"source": "loop", "step": 0, "parents": {}},
        {"source": "input", "step": -1, "parents": {}},
    ]
    assert [[task.result for task in state.tasks] for state in history] == [
        [],
        [{"foo": "b", "bar": ["b"]}],
        [{"foo": "a", "bar": ["a"]}],
        [{"foo": "", "bar": []}],
    ]


def test_a_run_of_two_nodes_leaves_four_checkpoints(path: str, walk: Walk) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = walked(checkpointer, walk)
        check_four_checkpoints(list(graph.get_state_history(ONE)))

    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = walk.builder().compile(checkpointer=checkpointer)
        check_four_checkpoints(list(graph.get_state_history(ONE)))
    assert walk.ran == ["a", "b"]


def test_a_snapshot_has_every_field_of_the_reference(path: str, walk: Walk) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = walked(checkpointer, walk)
        last, before_b, *_, first = graph.get_state_history(ONE)

        assert last == graph.get_state(ONE)
        assert last.values == {"foo": "b", "bar": ["a", "b"]}
        assert last.next == ()
        assert set(last.config["configurable"]) == {"thread_id", "checkpoint_ns", "checkpoint_id"}
        assert last.config["configurable"]["thread_id"] == "1"
        assert last.config["configurable"]["checkpoint_ns"] == ""
        assert last.metadata is not None
        assert last.metadata["source"] == "loop"
        assert datetime.fromisoformat(str(last.created_at)).tzinfo is not None
        assert last.parent_config == before_b.config
        assert last.tasks == ()
        assert first.parent_config is None

        (task,) = before_b.tasks
        assert (task.name, task.error, task.interrupts, task.state) == ("node_b", None, (), None)
        assert len(task.id) == 36


def test_any_checkpoint_can_be_looked_at_by_its_id(path: str, walk: Walk) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = walked(checkpointer, walk)
        for state in graph.get_state_history(ONE):
            checkpoint_id = state.config["configurable"]["checkpoint_id"]
            assert graph.get_state(thread("1", checkpoint_id=checkpoint_id)).values == state.values


def approval_builder(asked: list[str]) -> StateGraph:
    """Return a graph that asks before it goes on, noting each time it does."""

    def ask(_: State) -> dict[str, Any]:
        asked.append("go on?")
        return {"bar": [interrupt("go on?")]}

    return StateGraph(State).add_node(ask).add_edge(START, "ask")


def test_checkpoints_are_found_by_what_they_are(path: str, walk: Walk) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = walked(checkpointer, walk)
        graph.update_state(ONE, {"foo": "edited"})
        history = list(graph.get_state_history(ONE))

        before_b = next(state for state in history if "node_b" in state.next)
        assert before_b.values == {"foo": "a", "bar": ["a"]}
        step_2 = next(state for state in history if state.metadata["step"] == 2)
        assert step_2.values["foo"] == "b"
        forks = [state for state in history if state.metadata["source"] == "update"]
        assert [fork.values["foo"] for fork in forks] == ["edited"]

        approval = approval_builder([]).compile(checkpointer=checkpointer)
        approval.invoke({"foo": "", "bar": []}, thread("2"))
        waiting = [
            state
            for state in approval.get_state_history(thread("2"))
            if any(task.interrupts for task in state.tasks)
        ]
        assert [state.next for state in waiting] == [("ask",)]
        assert [asked.value for asked in waiting[0].interrupts] == ["go on?"]


def test_history_is_filtered_by_metadata(path: str, walk: Walk) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = walked(checkpointer, walk)
        graph.update_state(ONE, {"foo": "edited"})

        def steps(**wanted: Any) -> list[int]:
            states = graph.get_state_history(ONE, filter=wanted)
            return [state.metadata["step"] for state in states]

        assert steps(source="loop") == [2, 1, 0]
        assert steps(source="update") == [3]
        assert steps(source="loop", step=1) == [1]
        assert steps(step=7) == []
        listed = checkpointer.list(ONE, filter={"source": "input"})
        assert [kept.metadata["step"] for kept in listed] == [-1]


def test_replay_runs_only_the_nodes_after_the_checkpoint(path: str, walk: Walk) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        walked(checkpointer, walk)

    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = walk.builder().compile(checkpointer=checkpointer)
        history = list(graph.get_state_history(ONE))
        walk.ran.clear()

        replayed = graph.invoke(None, history[1].config)

        assert replayed == {"foo": "b", "bar": ["a", "b"]}
        assert walk.ran == ["b"]
        after = list(graph.get_state_history(ONE))
        assert after[-4:] == history
        assert len(after) > len(history)
        assert after[0].next == ()


def test_replay_asks_again_where_the_run_was_interrupted(path: str) -> None:
    asked: list[str] = []
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = approval_builder(asked).compile(checkpointer=checkpointer)
        graph.invoke({"foo": "", "bar": []}, ONE)
        assert graph.invoke(Command(resume="yes"), ONE) == {"foo": "", "bar": ["yes"]}
        waiting = next(state for state in graph.get_state_history(ONE) if state.next == ("ask",))

        again = graph.invoke(None, waiting.config)

        assert [question.value for question in again["__interrupt__"]] == ["go on?"]
        assert asked == ["go on?"] * 3
        assert graph.invoke(Command(resume="no"), ONE) == {"foo": "", "bar": ["no"]}


def test_update_state_adds_a_checkpoint_and_goes_through_the_reducers(
    path: str, walk: Walk
) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = walked(checkpointer, walk)
        original = graph.get_state(ONE)

        edited = graph.update_state(ONE, {"foo": "edited", "bar": ["more"]})

        assert set(edited["configurable"]) == {"thread_id", "checkpoint_ns", "checkpoint_id"}
        state = graph.get_state(ONE)
        assert state.config == edited
        assert state.values == {"foo": "edited", "bar": ["a", "b", "more"]}
        assert state.metadata == {"source": "update", "step": 3, "parents": {}}
        assert state.parent_config == original.config
        assert graph.get_state(original.config) == original


def test_update_as_a_node_decides_what_runs_next(path: str, walk: Walk) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = walked(checkpointer, walk)
        graph.update_state(ONE, {"foo": "edited"}, as_node="node_a")
        assert graph.get_state(ONE).next == ("node_b",)

    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = walk.builder().compile(checkpointer=checkpointer)
        walk.ran.clear()
        assert graph.invoke(None, ONE) == {"foo": "b", "bar": ["a", "b", "b"]}
        assert walk.ran == ["b"]


def test_a_fork_from_an_old_checkpoint_leaves_the_original_branch(path: str, walk: Walk) -> None:
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = walked(checkpointer, walk)
        original, before_b, *_ = graph.get_state_history(ONE)

        fork = graph.update_state(before_b.config, {"bar": ["forked"]}, as_node="node_a")

        assert graph.get_state(fork).parent_config == before_b.config
        assert graph.invoke(None, fork) == {"foo": "b", "bar": ["a", "forked", "b"]}
        assert graph.get_state(original.config).values == {"foo": "b", "bar": ["a", "b"]}
        assert graph.get_state(ONE).values == {"foo": "b", "bar": ["a", "forked", "b"]}


class Flaky:
    """Two nodes side by side, of which one fails the first time."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def builder(self) -> StateGraph:
        """Return the graph of the two parallel nodes."""

        def steady(_: State) -> dict[str, Any]:
            self.ran.append("steady")
            return {"bar": ["steady"]}

        def flaky(_: State) -> dict[str, Any]:
            self.ran.append("flaky")
            if self.ran.count("flaky") == 1:
                time.sleep(0.2)  # LangGraph keeps what it knows to be finished by now
                message = "out of luck"
                raise RuntimeError(message)
            return {"bar": ["flaky"]}

        builder = StateGraph(State).add_node(steady).add_node(flaky)
        return builder.add_edge(START, "steady").add_edge(START, "flaky")


def test_what_a_failed_step_has_finished_is_not_run_again(path: str) -> None:
    nodes = Flaky()
    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = nodes.builder().compile(checkpointer=checkpointer)
        with pytest.raises(RuntimeError, match="out of luck"):
            graph.invoke({"foo": "", "bar": []}, ONE)

    with LgkvSaver.from_conn_string(path) as checkpointer:
        graph = nodes.builder().compile(checkpointer=checkpointer)
        errors = {task.name: task.error for task in graph.get_state(ONE).tasks}
        assert errors["steady"] is None
        assert "out of luck" in str(errors["flaky"])
        kept = checkpointer.get_tuple(ONE)
        assert kept is not None
        assert ("bar", ["steady"]) in [(write[1], write[2]) for write in kept.pending_writes or ()]

        result = graph.invoke(None, ONE)

    assert sorted(result["bar"]) == ["flaky", "steady"]
    assert nodes.ran.count("steady") == 1
    assert nodes.ran.count("flaky") == 2


def test_the_four_methods_of_a_checkpointer_work_without_a_graph(path: str) -> None:
    start: RunnableConfig = thread("1", checkpoint_ns="")
    checkpoint = empty_checkpoint()
    with LgkvSaver.from_conn_string(path) as checkpointer:
        version = checkpointer.get_next_version(None, None)
        checkpoint["channel_values"] = {"foo": "written by hand"}
        checkpoint["channel_versions"] = {"foo": version}
        metadata = {"source": "input", "step": -1, "parents": {}}
        stored = checkpointer.put(start, checkpoint, metadata, {"foo": version})
        checkpointer.put_writes(stored, [("foo", "later"), ("bar", ["x"])], task_id="task-1")

    with LgkvSaver.from_conn_string(path) as checkpointer:
        assert stored == thread("1", checkpoint_ns="", checkpoint_id=checkpoint["id"])
        kept = checkpointer.get_tuple(ONE)
        assert kept is not None
        assert kept.config == stored
        assert kept.checkpoint["channel_values"] == {"foo": "written by hand"}
        assert kept.metadata == metadata
        assert kept.parent_config is None
        assert kept.pending_writes == [("task-1", "foo", "later"), ("task-1", "bar", ["x"])]
        assert list(checkpointer.list(ONE)) == [kept]


async def test_the_walk_is_the_same_on_the_event_loop(path: str, walk: Walk) -> None:
    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        graph = walk.builder().compile(checkpointer=checkpointer)
        await graph.ainvoke({"foo": "", "bar": []}, ONE)

    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        graph = walk.builder().compile(checkpointer=checkpointer)
        history = [state async for state in graph.aget_state_history(ONE)]
        check_four_checkpoints(history)
        loops = [s async for s in graph.aget_state_history(ONE, filter={"source": "loop"})]
        assert loops == history[:3]

        walk.ran.clear()
        replayed = await graph.ainvoke(None, history[1].config)
        assert replayed == {"foo": "b", "bar": ["a", "b"]}
        assert walk.ran == ["b"]

        edited = await graph.aupdate_state(ONE, {"foo": "edited"}, as_node="node_a")
        state = await graph.aget_state(ONE)
        assert state.config == edited
        assert (state.values["foo"], state.next) == ("edited", ("node_b",))
        assert state.metadata["source"] == "update"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="interrupts in async nodes need 3.11")
async def test_an_interrupted_run_goes_on_after_reopening_on_the_event_loop(path: str) -> None:
    async def ask(_: State) -> dict[str, Any]:
        return {"bar": [interrupt("go on?")]}

    builder = StateGraph(State).add_node(ask).add_edge(START, "ask")
    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        graph = builder.compile(checkpointer=checkpointer)
        await graph.ainvoke({"foo": "", "bar": []}, ONE)

    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        graph = builder.compile(checkpointer=checkpointer)
        state = await graph.aget_state(ONE)
        assert [asked.value for asked in state.interrupts] == ["go on?"]
        assert await graph.ainvoke(Command(resume="yes"), ONE) == {"foo": "", "bar": ["yes"]}


async def test_what_a_failed_step_has_finished_is_not_run_again_on_the_event_loop(
    path: str,
) -> None:
    nodes = Flaky()
    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        graph = nodes.builder().compile(checkpointer=checkpointer)
        with pytest.raises(RuntimeError, match="out of luck"):
            await graph.ainvoke({"foo": "", "bar": []}, ONE)

    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        graph = nodes.builder().compile(checkpointer=checkpointer)
        result = await graph.ainvoke(None, ONE)

    assert sorted(result["bar"]) == ["flaky", "steady"]
    assert nodes.ran.count("steady") == 1


async def test_the_four_methods_have_async_twins(path: str) -> None:
    checkpoint = empty_checkpoint()
    metadata = {"source": "input", "step": -1, "parents": {}}
    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        version = checkpointer.get_next_version(None, None)
        checkpoint["channel_values"] = {"foo": "written by hand"}
        checkpoint["channel_versions"] = {"foo": version}
        start = thread("1", checkpoint_ns="")
        stored = await checkpointer.aput(start, checkpoint, metadata, {"foo": version})
        await checkpointer.aput_writes(stored, [("foo", "later")], task_id="task-1")

    async with AsyncLgkvSaver.from_conn_string(path) as checkpointer:
        kept = await checkpointer.aget_tuple(ONE)
        assert kept is not None
        assert kept.config == stored
        assert kept.checkpoint["channel_values"] == {"foo": "written by hand"}
        assert kept.metadata == metadata
        assert kept.pending_writes == [("task-1", "foo", "later")]
        assert [entry async for entry in checkpointer.alist(ONE)] == [kept]
