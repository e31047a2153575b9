"""Pruning: what stays, what goes, and that what stays is rebuilt exactly as before."""

import contextlib
import datetime
import random
import time
from collections import Counter
from typing import Any

import pytest
from langgraph.errors import EmptyInputError
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

import lgkv
from lgkv.checkpoints.records import thread_key
from lgkv.connection import Connection
from lgkv.errors import InvalidInputError
from lgkv.langgraph import LgkvSaver
from lgkv.layout import Kind, Table
from lgkv.names import thread_number
from tests.conformance.checkpoints import config_of, id_of, ids_of, new_id, put
from tests.conformance.delta_graphs import Mirrored, branching_graph, states
from tests.conformance.stored import audit

UTC = datetime.timezone.utc


def kinds(db: lgkv.Database, thread_id: str = "t") -> Counter[Kind]:
    """Return how many records of each kind a thread has."""
    with db._connection.snapshot() as snapshot:
        number = thread_number(snapshot, thread_id)
        assert number is not None
        return Counter(
            {
                kind: len(list(snapshot.keys(Table.THREADS, thread_key(number, kind))))
                for kind in Kind
                if kind < Kind.NODE
            }
        )


def steps(saver: LgkvSaver, config: Any = None) -> list[int]:
    return [each.metadata["step"] for each in saver.list(config or config_of("t", None))]


def fill(saver: LgkvSaver, count: int, config: Any = None) -> list[Any]:
    """Store a chain of checkpoints with a value, a changing value and a write each."""
    configs, parent = [], config or config_of()
    for step in range(count):
        parent = put(
            saver, parent, {"same": "s", "a": step}, {"same": 1, "a": step}, metadata={"step": step}
        )
        saver.put_writes(parent, [("a", step)], "task")
        configs.append(parent)
    return configs


# --- what stays ----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"strategy": "keep_latest"}, {"keep_last": 1}])
def test_newest_of_each_namespace_stays(saver: LgkvSaver, options: dict[str, Any]) -> None:
    newest = {}
    for ns in ("", "child:1", "child:2"):
        newest[ns] = fill(saver, 3, config_of("t", ns))[-1]
    fill(saver, 3, config_of("other"))
    saver.prune(["t"], **options)
    assert len(list(saver.list(config_of("t", None)))) == 3
    for ns, config in newest.items():
        found = saver.get_tuple(config_of("t", ns))
        assert found is not None
        assert found.config == config
        assert found.checkpoint["channel_values"] == {"same": "s", "a": 2}
        assert found.pending_writes == [("task", "a", 2)]
    assert steps(saver, config_of("other")) == [2, 1, 0]


@pytest.mark.parametrize("keep_last", [1, 2, 5, 6, 99])
def test_newest_n_stay(saver: LgkvSaver, keep_last: int) -> None:
    configs = fill(saver, 6)
    saver.prune(["t"], keep_last=keep_last)
    kept = list(range(6))[::-1][:keep_last]
    assert steps(saver) == kept
    for step, config in enumerate(configs):
        found = saver.get_tuple(config)
        assert (found is not None) == (step in kept)
        if found is not None:
            assert found.checkpoint["channel_values"] == {"same": "s", "a": step}


def test_newest_is_the_greatest_id_whatever_its_form(saver: LgkvSaver) -> None:
    for checkpoint_id in ("10", "2", new_id(), "zz", "a"):
        put(saver, checkpoint_id=checkpoint_id)
    saver.prune(["t"], keep_last=2)
    assert ids_of(saver.list(config_of())) == ["zz", "a"]


def test_what_is_not_older_stays_and_the_newest_in_any_case(saver: LgkvSaver) -> None:
    fill(saver, 3)
    time.sleep(0.02)
    between = datetime.datetime.now(UTC)
    time.sleep(0.02)
    for config in fill(saver, 2):
        assert saver.get_tuple(config) is not None
    assert steps(saver) == [1, 0, 2, 1, 0]
    saver.prune(["t"], older_than=datetime.timedelta(hours=1))
    assert steps(saver) == [1, 0, 2, 1, 0]
    saver.prune(["t"], older_than=between, keep_last=3)  # what either leaves
    assert steps(saver) == [1, 0, 2]
    elsewhere = datetime.timezone(datetime.timedelta(hours=9))
    saver.prune(["t"], older_than=between.astimezone(elsewhere))
    assert steps(saver) == [1, 0]
    saver.prune(["t"], older_than=datetime.timedelta(0), keep_last=2)
    assert steps(saver) == [1, 0]
    saver.prune(["t"], older_than=datetime.timedelta(0))
    assert steps(saver) == [1]
    saver.prune(["t"], older_than=datetime.datetime.now(UTC) + datetime.timedelta(days=1))
    assert steps(saver) == [1]


def test_age_is_that_of_the_put_not_of_the_id(saver: LgkvSaver) -> None:
    put(saver, metadata={"step": 1}, checkpoint_id="zz")
    time.sleep(0.02)
    cut = datetime.datetime.now(UTC)
    put(saver, metadata={"step": 0}, checkpoint_id="aa")
    put(saver, metadata={"step": 2}, checkpoint_id="00")
    saver.prune(["t"], older_than=cut)
    assert steps(saver) == [1, 0, 2]  # the greatest id is old, and stays as the newest


async def test_async_prune_does_the_same(saver: LgkvSaver) -> None:
    fill(saver, 5)
    await saver.aprune(["t"], keep_last=3)
    assert steps(saver) == [4, 3, 2]
    await saver.aprune(["t"], older_than=datetime.timedelta(0))
    assert steps(saver) == [4]
    await saver.aprune(["t"], strategy="delete")
    assert steps(saver) == []


def test_several_threads_are_pruned_and_unknown_ones_skipped(saver: LgkvSaver) -> None:
    for thread in ("a", "b", "c"):
        fill(saver, 3, config_of(thread))
    saver.prune(["a", "unknown", "c", "a"])
    assert [len(steps(saver, config_of(thread))) for thread in "abc"] == [1, 3, 1]
    saver.prune([])
    saver.prune(["a", "b"], strategy="delete")
    assert [len(steps(saver, config_of(thread))) for thread in "abc"] == [0, 0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "newest"}, "keep_latest"),
        ({"strategy": "delete", "keep_last": 3}, "delete"),
        ({"strategy": "delete", "older_than": datetime.timedelta(1)}, "delete"),
        ({"keep_last": 0}, "keep_last"),
        ({"keep_last": -1}, "keep_last"),
        ({"keep_last": 1.5}, "keep_last"),
        ({"keep_last": "2"}, "keep_last"),
        ({"older_than": datetime.datetime(2024, 1, 1)}, "time zone"),  # noqa: DTZ001
        ({"older_than": 3600}, "timedelta"),
        ({"older_than": datetime.date(2024, 1, 1)}, "timedelta"),
    ],
)
def test_options_that_make_no_sense_are_refused_and_nothing_goes(
    saver: LgkvSaver, options: dict[str, Any], message: str
) -> None:
    fill(saver, 2)
    with pytest.raises(InvalidInputError, match=message):
        saver.prune(["t"], **options)
    assert steps(saver) == [1, 0]


# --- what goes -----------------------------------------------------------------------------


def test_values_that_nothing_uses_are_freed(db: lgkv.Database, saver: LgkvSaver) -> None:
    fill(saver, 10)
    saver.prune(["t"], keep_last=3)
    found = kinds(db)
    assert found[Kind.CHECKPOINT] == found[Kind.WRITES] == 3
    stored = audit(db)
    assert stored is not None
    assert len(stored.versions) == 4  # three values of a, one of same
    assert found[Kind.CARRIER] == 0
    [thread] = db.threads()
    assert thread.checkpoints == 3


def test_pruned_thread_is_as_large_as_one_that_never_had_more(
    db: lgkv.Database, saver: LgkvSaver
) -> None:
    fill(saver, 50)
    saver.prune(["t"])
    [config] = [each.config for each in saver.list(config_of())]
    put(
        saver,
        config_of("twin", "", new_id()),
        {"same": "s", "a": 49},
        {"same": 1, "a": 49},
        metadata={"step": 49},
        checkpoint_id=id_of(config),
    )
    saver.put_writes(config_of("twin", "", id_of(config)), [("a", 49)], "task")
    twin, pruned = sorted(db.threads(), key=lambda each: each.thread_id, reverse=True)
    assert kinds(db, "t") == kinds(db, "twin")
    assert pruned.size_bytes == twin.size_bytes


def test_pruning_twice_changes_nothing_more(db: lgkv.Database, saver: LgkvSaver) -> None:
    fill(saver, 5)
    saver.prune(["t"], keep_last=2)
    once = (db.stats().records, steps(saver), db.threads()[0].size_bytes)
    saver.prune(["t"], keep_last=2)
    saver.prune(["t"], keep_last=3)
    assert (db.stats().records, steps(saver), db.threads()[0].size_bytes) == once


def test_pruned_checkpoints_of_a_run_are_not_found_by_it(saver: LgkvSaver) -> None:
    for _ in range(3):
        put(saver, metadata={"run_id": "r"})
    saver.prune(["t"])
    saver.delete_for_runs(["r"])
    assert list(saver.list(None)) == []


@pytest.mark.parametrize("options", [{}, {"keep_last": 2}, {"older_than": datetime.timedelta(0)}])
def test_writes_that_wait_for_their_checkpoint_are_never_pruned(
    saver: LgkvSaver, options: dict[str, Any]
) -> None:
    fill(saver, 3)
    coming, elsewhere, past = new_id(), new_id(), "0"
    saver.put_writes(config_of("t", "", coming), [("a", "early")], "task")
    saver.put_writes(config_of("t", "child", elsewhere), [("a", "early too")], "task")
    saver.put_writes(config_of("t", "", past), [("a", "of a smaller id")], "task")
    for _ in range(2):
        saver.prune(["t"], **options)
    for ns, checkpoint_id, value in (
        ("", coming, "early"),
        ("child", elsewhere, "early too"),
        ("", past, "of a smaller id"),
    ):
        found = saver.get_tuple(put(saver, config_of("t", ns), checkpoint_id=checkpoint_id))
        assert found is not None
        assert found.pending_writes == [("task", "a", value)]


def test_thread_of_early_writes_alone_survives_pruning(saver: LgkvSaver) -> None:
    saver.put_writes(config_of("t", "", "1"), [("a", 1)], "task")
    saver.prune(["t"])
    found = saver.get_tuple(put(saver, checkpoint_id="1"))
    assert found is not None
    assert found.pending_writes == [("task", "a", 1)]


# --- runs that go on meanwhile -------------------------------------------------------------


def test_child_of_a_pruned_checkpoint_keeps_its_values(saver: LgkvSaver) -> None:
    old = put(saver, None, {"a": ["kept"], "b": 1, "c": 3}, {"a": 1, "b": 1, "c": 3})
    loaded = saver.get_tuple(old)
    assert loaded is not None
    put(saver, old, {"a": ["newer"], "b": 2}, {"a": 2, "b": 2, "c": 3}, new=["a", "b"])
    saver.prune(["t"])
    values = {**loaded.checkpoint["channel_values"], "b": 5}
    child = put(saver, old, values, {"a": 1, "b": 9, "c": 3}, new=["b"])
    found = saver.get_tuple(child)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": ["kept"], "b": 5, "c": 3}


def test_parent_that_is_pruned_while_its_child_waits_to_be_stored(
    saver: LgkvSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = put(saver, None, {"a": ["kept"], "b": 1}, {"a": 1, "b": 1})
    put(saver, old, {"a": ["newer"]}, {"a": 2, "b": 1}, new=["a"])
    commit, prunes = Connection.commit, [True]

    def prune_first(self: Connection, change: Any) -> Any:
        if prunes and prunes.pop():
            saver.prune(["t"])
        return commit(self, change)

    monkeypatch.setattr(Connection, "commit", prune_first)
    child = put(saver, old, {"a": ["kept"], "b": 2}, {"a": 1, "b": 2}, new=["b"])
    assert saver.get_tuple(old) is None
    found = saver.get_tuple(child)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": ["kept"], "b": 2}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_run_from_an_old_checkpoint_survives_a_prune(saver: LgkvSaver, durability: Any) -> None:
    class State(TypedDict):
        n: int
        profile: str

    def node(state: State) -> dict[str, Any]:
        if state["n"] == 100:
            saver.prune(["t"])
        return {"n": state["n"] + 1}

    builder = StateGraph(State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    graph = builder.compile(checkpointer=saver)
    graph.invoke({"n": 0, "profile": "first"}, config_of())
    old = graph.get_state(config_of()).config
    graph.invoke({"n": 1, "profile": "second"}, config_of())
    graph.invoke({"n": 100}, old, durability=durability)
    assert graph.get_state(config_of()).values == {"n": 101, "profile": "first"}


# --- delta channels ------------------------------------------------------------------------


@pytest.fixture
def mirrored(db: lgkv.Database) -> Mirrored:
    """Give a saver that stores everything in memory as well, where nothing is pruned."""
    return Mirrored(db)


def run(saver: Mirrored, frequency: int, turns: list[str]) -> Any:
    graph = branching_graph(saver, frequency)
    for turn in turns:
        graph.invoke({"turn": turn}, config_of())
    return graph


@pytest.mark.parametrize("frequency", [1, 2, 5, 100])
@pytest.mark.parametrize("keep_last", [1, 2, 4, 9])
def test_kept_states_are_rebuilt_as_before(
    mirrored: Mirrored, frequency: int, keep_last: int
) -> None:
    graph = run(mirrored, frequency, ["one", "two", "three!", "four"])
    before = states(graph, config_of())
    mirrored.prune(["t"], keep_last=keep_last)
    after = states(graph, config_of())
    assert list(after) == list(before)[:keep_last]
    assert after == {checkpoint_id: before[checkpoint_id] for checkpoint_id in after}
    for checkpoint_id in after:
        config = config_of("t", "", checkpoint_id)
        for channel in ("items", "facts"):
            own = mirrored.get_delta_channel_history(config=config, channels=[channel])
            if channel not in mirrored.get_tuple(config).checkpoint["channel_values"]:
                memory = mirrored.memory.get_delta_channel_history(
                    config=config, channels=[channel]
                )
                assert own == memory


def test_states_kept_for_their_age_are_rebuilt_as_before(mirrored: Mirrored) -> None:
    graph = run(mirrored, 3, ["one", "two"])
    cut = datetime.datetime.now(UTC)
    run(mirrored, 3, ["three", "four"])
    before = states(graph, config_of())
    mirrored.prune(["t"], older_than=cut)
    after = states(graph, config_of())
    assert 4 < len(after) < len(before)
    assert after == {checkpoint_id: before[checkpoint_id] for checkpoint_id in after}


def test_carriers_are_in_no_listing_and_cannot_be_read(
    db: lgkv.Database, mirrored: Mirrored
) -> None:
    graph = run(mirrored, 100, ["one", "two", "three"])
    ids = ids_of(mirrored.list(config_of()))
    mirrored.prune(["t"])
    found = kinds(db)
    assert found[Kind.CARRIER] > 5
    assert found[Kind.CHECKPOINT] == 1
    for config in (None, config_of(), config_of("t", None)):
        assert ids_of(mirrored.list(config)) == ids[:1]
        assert ids_of(mirrored.list(config, before=config_of("t", "", ids[0]))) == []
    for gone in ids[1:]:
        config = config_of("t", "", gone)
        assert mirrored.get_tuple(config) is None
        assert list(mirrored.list(config)) == []
        assert mirrored.get_delta_channel_history(config=config, channels=["items"]) == {
            "items": {"writes": []}
        }
    assert len(list(graph.get_state_history(config_of()))) == 1
    assert [each.checkpoints for each in db.threads()] == [1]


def test_later_prunes_free_carriers_that_a_snapshot_makes_needless(
    db: lgkv.Database, mirrored: Mirrored
) -> None:
    run(mirrored, 100, ["one", "two"])
    mirrored.prune(["t"])
    assert kinds(db)[Kind.CARRIER] > 3
    graph = run(mirrored, 1, ["three"])  # facts are snapshotted every seven updates only
    mirrored.prune(["t"])
    assert kinds(db)[Kind.CARRIER] > 3
    for turn in range(8):
        graph.invoke({"turn": str(turn)}, config_of())
    expected = graph.get_state(config_of()).values
    mirrored.prune(["t"])
    first = kinds(db)
    graph.invoke({"turn": "last"}, config_of())
    mirrored.prune(["t"])
    again = kinds(db)
    assert max(first[Kind.CARRIER], again[Kind.CARRIER]) < 8 * 5
    assert graph.get_state(config_of()).values["items"][:-3] == expected["items"]
    assert graph.get_state(config_of()).values["facts"] == {**expected["facts"], "last": "last"}


def test_thread_that_is_pruned_after_every_run_does_not_grow(
    db: lgkv.Database, mirrored: Mirrored
) -> None:
    graph = branching_graph(mirrored, 2)
    most: Counter[Kind] = Counter()
    for turn in range(30):
        graph.invoke({"turn": f"{turn % 3}{'!' if turn % 5 == 4 else ''}"}, config_of())
        mirrored.prune(["t"])
        if turn == 14:
            half, most = most, Counter()
        most |= kinds(db)
    for kind in (Kind.CARRIER, Kind.WRITES, Kind.CHECKPOINT):
        assert most[kind] <= half[kind] + 1
    values, true = (
        graph.get_state(config_of()).values,
        branching_graph(mirrored.memory, 2).get_state(config_of()),
    )
    assert values == true.values


def test_deleting_a_run_deletes_its_carriers(db: lgkv.Database, mirrored: Mirrored) -> None:
    graph = branching_graph(mirrored, 100)
    for turn in ("one", "two"):
        graph.invoke({"turn": turn}, {**config_of(), "metadata": {"run_id": turn}})
    mirrored.prune(["t"])
    mirrored.delete_for_runs(["one"])
    assert kinds(db)[Kind.CARRIER] < 5
    # as with every saver, what the run contributed is gone, and nothing else
    assert graph.get_state(config_of()).values["items"] == ["a2", "b2", "c2"]


def test_checkpoint_stored_again_after_pruning_is_no_carrier_any_more(
    db: lgkv.Database, mirrored: Mirrored
) -> None:
    graph = run(mirrored, 100, ["one", "two"])
    oldest = list(mirrored.list(config_of()))[-1]
    mirrored.prune(["t"])
    hidden = kinds(db)[Kind.CARRIER]
    expected = graph.get_state(config_of()).values
    LgkvSaver.put(
        mirrored,
        config_of(),
        oldest.checkpoint,
        oldest.metadata,
        oldest.checkpoint["channel_versions"],
    )
    assert kinds(db)[Kind.CARRIER] == hidden - 1
    assert kinds(db)[Kind.CHECKPOINT] == 2
    assert graph.get_state(config_of()).values == expected


@pytest.mark.parametrize("seed", range(8))
def test_any_history_of_runs_forks_and_prunes_keeps_its_states(
    mirrored: Mirrored, seed: int
) -> None:
    rng = random.Random(seed)
    frequency = rng.choice([1, 2, 3, 5, 50])
    graph, twin = branching_graph(mirrored, frequency), branching_graph(mirrored.memory, frequency)
    graph.invoke({"turn": "first"}, config_of())
    for step in range(10):
        kept = ids_of(mirrored.list(config_of()))
        some = config_of("t", "", rng.choice(kept))
        durability: Any = rng.choice(["sync", "async", "exit"])
        action = rng.choice(["run", "run", "replace", "update", "fork", "replay", "prune", "keep"])
        if action in ("run", "replace"):
            graph.invoke(
                {"turn": f"{step}{'!' * (action == 'replace')}"}, config_of(), durability=durability
            )
        elif action == "update":
            graph.update_state(
                config_of(),
                {"items": [step], "facts": {"u": step}},
                as_node=rng.choice(["a", "finish"]),
            )
        elif action == "fork":
            forked = graph.update_state(
                some, {"items": [step]}, as_node=rng.choice(["a", "begin", "finish"])
            )
            graph.invoke(None, forked, durability=durability)
        elif action == "replay":
            # a stub of a run that stored at its exit has nothing to run
            with contextlib.suppress(EmptyInputError):
                graph.invoke(None, some, durability=durability)
        elif action == "prune":
            mirrored.prune(["t"])
        else:
            mirrored.prune(["t"], keep_last=rng.randint(1, 8))
        for checkpoint_id, found in states(graph, config_of()).items():
            true = twin.get_state(config_of("t", "", checkpoint_id))
            assert found == (true.values, true.next)
