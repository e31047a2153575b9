"""Channels that LangGraph stores as changes: their history, and the states made of it."""

import asyncio
import operator
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

import lgkv
from lgkv.langgraph import LgkvSaver
from tests.conformance.checkpoints import config_of, id_of, put
from tests.conformance.delta_graphs import Mirrored, append, branching_graph, states

CHANNELS = ["items", "facts", "count", "turns", "unknown"]


@pytest.fixture
def mirrored(db: lgkv.Database) -> Mirrored:
    """Give a saver that stores everything in memory as well."""
    return Mirrored(db)


def histories(saver: BaseCheckpointSaver[Any], config: Any, channels: list[str]) -> list[Any]:
    """Return the history as the saver gives it, and as the base class walks it."""
    own = saver.get_delta_channel_history(config=config, channels=channels)
    walked = BaseCheckpointSaver.get_delta_channel_history(saver, config=config, channels=channels)
    return [dict(own), dict(walked)]


def check_against_memory(mirrored: Mirrored, frequency: int) -> int:
    """Compare tuples, histories and states of thread "t" with memory; return their number."""
    listed = list(mirrored.list(config_of()))
    in_memory = {id_of(each.config): each for each in mirrored.memory.list(config_of())}
    assert [id_of(each.config) for each in listed] == sorted(in_memory, reverse=True)
    for found in listed:
        expected = in_memory[id_of(found.config)]
        assert mirrored.get_tuple(found.config) == found
        assert found.pending_writes == expected.pending_writes
        assert found.metadata == _as_stored(expected.metadata)
        assert found.parent_config == expected.parent_config
        assert found.checkpoint["channel_values"] == expected.checkpoint["channel_values"]
        for channels in (CHANNELS, ["items"], ["facts", "unknown"]):
            own = histories(mirrored, found.config, channels)
            assert own == histories(mirrored.memory, found.config, channels)
            assert own[0] == own[1]
    graph, twin = branching_graph(mirrored, frequency), branching_graph(mirrored.memory, frequency)
    assert states(graph, config_of()) == states(twin, config_of())
    return len(listed)


def _as_stored(metadata: Any) -> Any:
    """Return metadata as it is read back: tuples are lists."""
    return {
        key: {name: list(pair) for name, pair in value.items()}
        if key.startswith("counters")
        else value
        for key, value in metadata.items()
    }


@pytest.mark.parametrize("frequency", [1, 2, 5, 100])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_states_and_histories_are_those_of_the_memory_saver(
    mirrored: Mirrored, durability: Any, frequency: int
) -> None:
    graph = branching_graph(mirrored, frequency)
    for turn in ("one", "two", "three!", "four"):
        graph.invoke({"turn": turn}, config_of(), durability=durability)
    assert check_against_memory(mirrored, frequency) >= 4
    values = graph.get_state(config_of()).values
    assert values["items"] == ["replaced3", "a4", "b4", "c4"]
    assert values["facts"] == {"one": 1, "two": 2, "three!": 3, "four": 4, "last": "four"}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_states_and_histories_of_async_runs(mirrored: Mirrored, durability: Any) -> None:
    graph = branching_graph(mirrored, 3)
    for turn in ("one", "two!", "three"):
        await graph.ainvoke({"turn": turn}, config_of(), durability=durability)
    check_against_memory(mirrored, 3)
    state = await graph.aget_state(config_of())
    assert state.values["items"] == ["replaced2", "a3", "b3", "c3"]
    config = state.config
    assert await mirrored.aget_delta_channel_history(
        config=config, channels=CHANNELS
    ) == mirrored.get_delta_channel_history(config=config, channels=CHANNELS)


def test_exit_stores_a_stub_for_the_changes_of_a_first_run(mirrored: Mirrored) -> None:
    branching_graph(mirrored, 100).invoke({"turn": "one"}, config_of(), durability="exit")
    last, stub = mirrored.list(config_of())
    assert stub.metadata["step"] == -2
    assert last.parent_config == stub.config
    history = mirrored.get_delta_channel_history(config=last.config, channels=["items"])
    assert [value for _, _, value in history["items"]["writes"]] == [["a1"], ["b1"], ["c1"]]
    assert "seed" not in history["items"]


def test_branches_rebuild_from_their_own_ancestors(mirrored: Mirrored) -> None:
    graph = branching_graph(mirrored, 4)
    for turn in ("one", "two", "three"):
        graph.invoke({"turn": turn}, config_of())
    [after_two] = [
        each.config
        for each in graph.get_state_history(config_of())
        if not each.next and each.values.get("turn") == "two"
    ]
    forked = graph.update_state(
        after_two, {"items": ["by hand"], "facts": {"x": 1}}, as_node="finish"
    )
    graph.invoke({"turn": "four"}, forked)
    graph.invoke({"turn": "five"}, after_two)
    graph.invoke({"turn": "six"}, config_of())  # goes on from the branch made last
    check_against_memory(mirrored, 4)
    ends = [each.values["items"] for each in graph.get_state_history(config_of()) if not each.next]
    two = ["a1", "b1", "c1", "a2", "b2", "c2"]
    assert [*two, "by hand", "a3", "b3", "c3"] in ends
    assert ends[0] == [*two, "a3", "b3", "c3", "a4", "b4", "c4"]


def test_update_state_is_rebuilt(mirrored: Mirrored) -> None:
    graph = branching_graph(mirrored, 3)
    expected: list[Any] = []
    for at in range(8):
        graph.update_state(config_of(), {"items": [at], "facts": {str(at): at}}, as_node="a")
        expected.append(at)
        assert graph.get_state(config_of()).values["items"] == expected
    check_against_memory(mirrored, 3)


def test_frequency_may_change_between_runs(mirrored: Mirrored) -> None:
    for turn, frequency in enumerate([100, 1, 100, 2, 7]):
        branching_graph(mirrored, frequency).invoke({"turn": str(turn)}, config_of())
    assert check_against_memory(mirrored, 3) > 20


# --- a channel whose type changes ----------------------------------------------------------


class AsDelta(TypedDict):
    items: Annotated[list[Any], DeltaChannel(append, snapshot_frequency=100)]
    n: int


class AsList(TypedDict):
    items: Annotated[list[Any], operator.add]
    n: int


class WithoutItems(TypedDict):
    n: int


def one_node(saver: Any, schema: Any, written: dict[str, Any]) -> Any:
    builder = StateGraph(schema)
    builder.add_node("node", lambda _state: written)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    return builder.compile(checkpointer=saver)


def test_list_that_becomes_a_delta_channel_is_the_seed(mirrored: Mirrored) -> None:
    one_node(mirrored, AsList, {"items": ["list"]}).invoke({"items": ["in"]}, config_of())
    graph = one_node(mirrored, AsDelta, {"items": ["delta"]})
    graph.invoke({"items": ["again"]}, config_of())
    assert graph.get_state(config_of()).values["items"] == ["in", "list", "again", "delta"]
    history = mirrored.get_delta_channel_history(config=config_of(), channels=["items"])
    assert history["items"]["seed"] == ["in", "list"]
    assert histories(mirrored, config_of(), ["items"]) == histories(
        mirrored.memory, config_of(), ["items"]
    )


def test_delta_channel_that_becomes_a_list_survives_pruning_before_it_is_written(
    mirrored: Mirrored,
) -> None:
    for _ in range(3):
        one_node(mirrored, AsDelta, {"items": ["x"]}).invoke({"n": 0}, config_of())
    graph = one_node(mirrored, AsList, {"n": 1})
    for _ in range(3):
        graph.invoke({"n": 2}, config_of())
        mirrored.prune(["t"])
        assert graph.get_state(config_of()).values == {"items": ["x", "x", "x"], "n": 1}
    assert carriers(mirrored.db) > 0
    one_node(mirrored, AsList, {"items": ["y"]}).invoke({"n": 2}, config_of())
    mirrored.prune(["t"])
    assert graph.get_state(config_of()).values["items"] == ["x", "x", "x", "y"]
    assert carriers(mirrored.db) == 0


def test_delta_channel_that_a_graph_does_not_know_survives_pruning(mirrored: Mirrored) -> None:
    graph = one_node(mirrored, AsDelta, {"items": ["x"]})
    graph.invoke({"n": 0}, config_of())
    for _ in range(2):
        one_node(mirrored, WithoutItems, {"n": 1}).invoke({"n": 2}, config_of())
        mirrored.prune(["t"])
    assert graph.get_state(config_of()).values == {"items": ["x"], "n": 1}


def carriers(db: lgkv.Database) -> int:
    """Return the number of checkpoints of thread "t" that are kept for others alone."""
    from lgkv.checkpoints.records import thread_key
    from lgkv.layout import Kind, Table
    from lgkv.names import thread_number

    with db._connection.snapshot() as snapshot:
        number = thread_number(snapshot, "t")
        assert number is not None
        return len(list(snapshot.keys(Table.THREADS, thread_key(number, Kind.CARRIER))))


# --- the history, checked without a graph --------------------------------------------------


def chain(saver: BaseCheckpointSaver[Any], length: int, value: Callable[[int], Any]) -> list[Any]:
    """Store checkpoints, each with a write of its number; those of value None have no value."""
    configs: list[Any] = []
    for at in range(length):
        stored = value(at)
        configs.append(
            put(
                saver,
                configs[-1] if configs else None,
                {} if stored is None else {"a": stored},
                {"a": at, "b": 1},
            )
        )
        saver.put_writes(configs[-1], [("a", at), ("other", "x")], f"task{at}")
    return configs


def history_of(saver: LgkvSaver, config: Any, channel: str = "a") -> tuple[list[Any], Any]:
    """Return the values of the writes, and the seed or "nothing"."""
    found = dict(saver.get_delta_channel_history(config=config, channels=[channel])[channel])
    walked = BaseCheckpointSaver.get_delta_channel_history(saver, config=config, channels=[channel])
    assert found == walked[channel]
    return [value for _, _, value in found["writes"]], found.get("seed", "nothing")


def test_history_begins_at_the_parent_and_ends_at_the_root(saver: LgkvSaver) -> None:
    configs = chain(saver, 4, lambda _at: None)
    assert history_of(saver, configs[3]) == ([0, 1, 2], "nothing")
    assert history_of(saver, configs[0]) == ([], "nothing")
    assert history_of(saver, config_of()) == ([0, 1, 2], "nothing")


def test_history_ends_at_the_nearest_value_with_the_writes_beside_it(saver: LgkvSaver) -> None:
    configs = chain(saver, 6, {1: "old", 3: _DeltaSnapshot(["seed"])}.get)
    assert history_of(saver, configs[5]) == ([3, 4], _DeltaSnapshot(["seed"]))
    assert history_of(saver, configs[3]) == ([1, 2], "old")  # its own value is not its seed
    assert history_of(saver, configs[1]) == ([0], "nothing")


@pytest.mark.parametrize("seed", [[], "", 0, False, None, _DeltaSnapshot([])])
def test_any_stored_value_is_a_seed(saver: LgkvSaver, seed: Any) -> None:
    first = put(saver, None, {"a": seed}, {"a": 1})
    second = put(saver, first, {}, {"a": 2})
    assert history_of(saver, put(saver, second, {}, {"a": 3})) == ([], seed)


def test_value_that_carries_forward_is_a_seed_where_it_is_current(saver: LgkvSaver) -> None:
    first = put(saver, None, {"a": "seed"}, {"a": 1})
    saver.put_writes(first, [("a", 1)], "task1")
    second = put(saver, first, {}, {"a": 1}, new=[])
    saver.put_writes(second, [("a", 2)], "task2")
    assert history_of(saver, put(saver, second, {}, {"a": 2})) == ([2], "seed")


def test_history_follows_parents_not_ids(saver: LgkvSaver) -> None:
    root = put(saver, None, {}, {"a": 1}, checkpoint_id="9")
    saver.put_writes(root, [("a", "root")], "task")
    other = put(saver, root, {"a": "not ours"}, {"a": 2}, checkpoint_id="8")
    saver.put_writes(other, [("a", "other branch")], "task")
    mine = put(saver, root, {}, {"a": 3}, checkpoint_id="1")
    saver.put_writes(mine, [("a", "mine")], "task")
    assert history_of(saver, put(saver, mine, {}, {"a": 4}, checkpoint_id="5")) == (
        ["root", "mine"],
        "nothing",
    )


def test_each_channel_ends_where_its_own_value_is(saver: LgkvSaver) -> None:
    parent: Any = None
    for at, (a, b) in enumerate(pairwise([1, None, 3, None, None, 6, None])):
        values = {name: each for name, each in (("a", a), ("b", b)) if each is not None}
        parent = put(saver, parent, values, {"a": at, "b": at})
        saver.put_writes(parent, [("a", f"a{at}"), ("b", f"b{at}")], "task")
    last = put(saver, parent, {}, {"a": 99, "b": 99})
    history = saver.get_delta_channel_history(config=last, channels=["b", "a", "c"])
    assert list(history) == ["b", "a", "c"]
    assert history["a"] == {"writes": [("task", "a", "a5")], "seed": 6}
    assert history["b"] == {"writes": [("task", "b", "b4"), ("task", "b", "b5")], "seed": 6}
    assert history["c"] == {"writes": []}
    assert [history] == [
        BaseCheckpointSaver.get_delta_channel_history(saver, config=last, channels=["b", "a", "c"])
    ]


def test_writes_of_one_step_are_in_path_order(saver: LgkvSaver) -> None:
    first = put(saver, None, {}, {"a": 1})
    saver.put_writes(first, [("a", 3), ("b", 0), ("a", 4)], "task1", "~2")
    saver.put_writes(first, [("a", 1), ("a", 2)], "task9", "~1")
    saver.put_writes(first, [("a", 0)], "task5")
    assert history_of(saver, put(saver, first)) == ([0, 1, 2, 3, 4], "nothing")


def test_parents_in_a_circle_end_the_walk(saver: LgkvSaver) -> None:
    for name, parent in (("1", "3"), ("2", "1"), ("3", "2"), ("self", "self")):
        config = put(saver, config_of("t", "", parent), {}, {"a": 1}, new=[], checkpoint_id=name)
        saver.put_writes(config, [("a", name)], "task")
    for target, expected in (("3", ["1", "2"]), ("1", ["2", "3"]), ("self", [])):
        history = saver.get_delta_channel_history(config=config_of("t", "", target), channels=["a"])
        assert [value for _, _, value in history["a"]["writes"]] == expected


def test_missing_target_or_parent_has_no_history(saver: LgkvSaver) -> None:
    put(saver, config_of("t", "", "gone"), {}, {"a": 1}, checkpoint_id="1")
    for config in (
        config_of("no thread"),
        config_of("t", "no namespace"),
        config_of("t", "", "no id"),
        config_of(),
    ):
        assert saver.get_delta_channel_history(config=config, channels=["a", "b"]) == {
            "a": {"writes": []},
            "b": {"writes": []},
        }
    assert saver.get_delta_channel_history(config=config_of(), channels=[]) == {}


def test_namespaces_have_histories_of_their_own(saver: LgkvSaver) -> None:
    for ns in ("", "child"):
        first = put(saver, config_of("t", ns), {}, {"a": 1}, checkpoint_id="1")
        saver.put_writes(first, [("a", f"of {ns}")], "task")
        put(saver, first, {}, {"a": 2}, checkpoint_id="2")
    for ns in ("", "child"):
        assert history_of(saver, config_of("t", ns)) == ([f"of {ns}"], "nothing")


def test_many_channels_take_one_walk(saver: LgkvSaver, reads: Counter[str]) -> None:
    configs = chain(saver, 50, lambda _at: None)
    reads.clear()
    saver.get_delta_channel_history(config=configs[-1], channels=["a"])
    one = sum(reads.values())
    reads.clear()
    saver.get_delta_channel_history(
        config=configs[-1], channels=["a", *(f"c{at}" for at in range(40))]
    )
    assert sum(reads.values()) <= one + 5
    assert one < 50 * 8


# --- threads as wholes ---------------------------------------------------------------------


def test_copied_thread_rebuilds_the_same_states(db: lgkv.Database, mirrored: Mirrored) -> None:
    graph = branching_graph(mirrored, 4)
    for turn in ("one", "two", "three!", "four"):
        graph.invoke({"turn": turn}, config_of())
    mirrored.prune(["t"], keep_last=3)  # carriers are copied too
    expected = states(graph, config_of())
    mirrored.copy_thread("t", "copy")
    assert states(graph, config_of("copy")) == expected
    graph.invoke({"turn": "five"}, config_of("copy"))
    mirrored.delete_thread("t")
    mirrored.prune(["copy"])
    assert graph.get_state(config_of("copy")).values["items"] == [
        "replaced3",
        "a4",
        "b4",
        "c4",
        "a5",
        "b5",
        "c5",
    ]
    mirrored.delete_thread("copy")
    assert set(db.stats().records.values()) == {0}


def test_earlier_runs_stay_whole_when_the_last_one_is_deleted(mirrored: Mirrored) -> None:
    graph = branching_graph(mirrored, 3)
    expected: dict[str, Any] = {}
    for turn in ("one", "two", "three"):
        before = expected
        graph.invoke({"turn": turn}, {**config_of(), "metadata": {"run_id": turn}})
        expected = states(graph, config_of())
    mirrored.delete_for_runs(["three"])
    assert states(graph, config_of()) == before
    assert graph.invoke({"turn": "four"}, config_of())["items"][-3:] == ["a3", "b3", "c3"]


def test_carriers_go_with_the_last_checkpoint_that_needs_them(
    db: lgkv.Database, mirrored: Mirrored
) -> None:
    graph = branching_graph(mirrored, 100)
    for turn in ("one", "two", "three"):
        graph.invoke({"turn": turn}, {**config_of(), "metadata": {"run_id": turn}})
    mirrored.prune(["t"])
    assert carriers(db) > 5
    mirrored.delete_for_runs(["three"])
    assert db.threads() == []
    assert set(db.stats().records.values()) == {0}


def test_runs_on_several_loops_end_in_the_same_states(mirrored: Mirrored) -> None:
    graph = branching_graph(mirrored, 3)
    for turn in ("one", "two!", "three"):
        asyncio.run(graph.ainvoke({"turn": turn}, config_of()))
    assert graph.get_state(config_of()).values["items"] == ["replaced2", "a3", "b3", "c3"]
    check_against_memory(mirrored, 3)
