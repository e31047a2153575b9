"""Random histories of threads: what is counted, indexed and named always matches the records."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

import lgkv
from lgkv import InvalidInputError
from tests.invariants import broken_invariants, orphaned_values, structural_damage

THREADS = ("", "t", "t\x00", "\ud800", "x" * 300)
NAMESPACES = ("", "sub:1", "sub:1|deep")
IDS = (
    "1ef4f797-8335-6428-8001-8a1503f9b875",
    "1ef4f797-8335-6428-8002-8a1503f9b875",
    "1EF4F797",
    "",
    "long" * 80,
    "9\x00",
)
RUNS = (None, "run-1", "run-2")
CHANNELS = ("messages", "steps", "\x00")

threads = st.integers(0, len(THREADS) - 1)
spaces = st.integers(0, len(NAMESPACES) - 1)
ids = st.integers(0, len(IDS) - 1)
versions = st.dictionaries(st.sampled_from(CHANNELS), st.integers(1, 3), max_size=3)
puts = st.tuples(
    st.just("put"), threads, spaces, ids, st.none() | ids, versions,
    st.sets(st.sampled_from(CHANNELS)), st.sampled_from((1, 3_000, 20_000)),
)  # fmt: skip
writes = st.tuples(
    st.just("write"), threads, spaces, ids,
    st.lists(st.sampled_from((*CHANNELS, "__error__", "__interrupt__")), max_size=3),
)  # fmt: skip
deletes = st.tuples(st.just("delete"), threads)
copies = st.tuples(st.just("copy"), threads, threads)
runs = st.tuples(st.just("runs"), st.lists(st.sampled_from(RUNS[1:]), max_size=2))
prunes = st.tuples(
    st.just("prune"), st.lists(threads, max_size=3), st.sampled_from((None, 1, 2)), st.booleans()
)
histories = st.lists(puts | puts | writes | deletes | copies | runs | prunes, max_size=30)


def put(  # noqa: PLR0917  a step of a history
    db: lgkv.Database,
    thread: int,
    space: int,
    id_: int,
    parent: int | None,
    channels: dict[str, int],
    delta: set[str],
    size: int = 1,
) -> None:
    run = RUNS[id_ % len(RUNS)]
    db.checkpoints.put(
        THREADS[thread],
        {
            "id": IDS[id_],
            "channel_values": {name: name * size for name in channels},
            "channel_versions": {**channels, **dict.fromkeys(delta - channels.keys(), 9)},
        },
        namespace=NAMESPACES[space],
        parent_id=None if parent is None else IDS[parent],
        metadata={
            "counters_since_delta_snapshot": dict.fromkeys(delta, 1),
            **({} if run is None else {"run_id": run}),
        },
        new_versions=channels,
    )


def write(db: lgkv.Database, thread: int, space: int, id_: int, channels: list[str]) -> None:
    db.checkpoints.put_writes(
        THREADS[thread],
        IDS[id_],
        f"task {len(channels)}",
        [(channel, id_) for channel in channels],
        namespace=NAMESPACES[space],
    )


def copy(db: lgkv.Database, source: int, target: int) -> None:
    known = {info.thread_id for info in db.threads(limit=100)}
    try:
        db.checkpoints.copy_thread(THREADS[source], THREADS[target])
    except InvalidInputError:
        assert THREADS[source] not in known or THREADS[target] in known


def prune(db: lgkv.Database, chosen: list[int], keep_last: int | None, by_age: bool) -> None:  # noqa: FBT001
    age = datetime.timedelta(0) if by_age else None
    names = [THREADS[thread] for thread in chosen]
    db.checkpoints.prune(names, keep_last=keep_last, older_than=age)


STEPS: dict[str, Callable[..., None]] = {
    "put": put,
    "write": write,
    "delete": lambda db, thread: db.checkpoints.delete_thread(THREADS[thread]),
    "copy": copy,
    "runs": lambda db, chosen: db.checkpoints.delete_runs(chosen),
    "prune": prune,
}


@given(history=histories)
@settings(max_examples=60)
@example(  # a run whose last checkpoints lie in two namespaces, a carrier in one of them
    [("put", 0, 0, 1, None, {}, set()),
     ("put", 0, 1, 1, None, {"messages": 1}, set()),
     ("put", 0, 1, 2, 1, {}, {"messages"}),
     ("prune", [0], 1, False),
     ("runs", ["run-2"]),
     ("runs", ["run-1"])],
)  # fmt: skip
@example(  # a large value put again as a small one
    [("put", 0, 0, 0, None, {"messages": 1}, set(), 20_000),
     ("put", 0, 0, 0, None, {"messages": 1}, set(), 1)],
)  # fmt: skip
def test_counts_sizes_names_and_index_match_the_records(history: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/agent.lgkv"
        with lgkv.open(path) as db:
            for name, *arguments in history:
                STEPS[name](db, *arguments)
                assert broken_invariants(db) == []
        assert structural_damage(path) == []


@given(
    chain=st.lists(st.tuples(versions, st.sets(st.sampled_from(CHANNELS))), max_size=12),
    keep_last=st.integers(1, 4),
)
@settings(max_examples=40)
def test_pruning_leaves_no_value_that_nothing_names(
    chain: list[tuple[dict[str, int], set[str]]], keep_last: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, lgkv.open(f"{folder}/agent.lgkv") as db:
        for step, (channels, delta) in enumerate(chain):
            db.checkpoints.put(
                "t",
                {
                    "id": f"{step:03}",
                    "channel_values": dict.fromkeys(channels, step),
                    "channel_versions": dict.fromkeys((*CHANNELS, *channels), step),
                },
                parent_id=f"{step - 1:03}" if step else None,
                metadata={"counters_since_delta_snapshot": dict.fromkeys(delta, 1)},
                new_versions=dict.fromkeys(channels, step),
            )
        db.checkpoints.prune(["t"], keep_last=keep_last)
        assert broken_invariants(db) == []
        assert orphaned_values(db) == set()
        assert [c.id for c in db.checkpoints.list("t")] == [
            f"{step:03}" for step in reversed(range(len(chain)))
        ][:keep_last]


def test_checkpoint_put_again_by_another_run_survives_the_deletion_of_the_first() -> None:
    with tempfile.TemporaryDirectory() as folder, lgkv.open(f"{folder}/agent.lgkv") as db:
        base = {"id": "1", "channel_values": {"m": 1}, "channel_versions": {"m": 1}}
        db.checkpoints.put("t", base, metadata={"run_id": "first"})
        db.checkpoints.put(
            "t",
            {"id": "2", "channel_versions": {"m": 2}},
            parent_id="1",
            metadata={"counters_since_delta_snapshot": {"m": 1}},
            new_versions={},
        )
        db.checkpoints.prune(["t"])  # "1" is a carrier now
        db.checkpoints.put("t", base, metadata={"run_id": "second"})
        db.checkpoints.delete_runs(["first"])
        assert db.checkpoints.get("t", checkpoint_id="1") is not None
        assert broken_invariants(db) == []


def test_numbers_of_threads_are_never_given_again() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, seen = f"{folder}/agent.lgkv", set[int]()
        for turn in range(6):
            with lgkv.open(path) as db:
                for name in ("a", "b"):
                    put_empty(db, name)
                numbers = {info.number for info in db.threads()}
                assert len(numbers) == 2
                assert not numbers & seen
                seen |= numbers
                db.checkpoints.delete_thread("a")
                db.checkpoints.prune(["b"], strategy="delete")
                assert db.threads() == []
                assert broken_invariants(db) == [], turn


def test_numbers_of_namespaces_are_never_given_again() -> None:
    with tempfile.TemporaryDirectory() as folder, lgkv.open(f"{folder}/agent.lgkv") as db:
        put_empty(db, "t")
        for turn in range(4):
            put_empty(db, "t", namespace=f"sub:{turn}", run=f"run-{turn}")
            db.checkpoints.delete_runs([f"run-{turn}"])
            assert broken_invariants(db) == []
        assert [c.namespace for c in db.checkpoints.list("t")] == [""]


def put_empty(db: lgkv.Database, thread: str, namespace: str = "", run: str | None = None) -> None:
    metadata = {} if run is None else {"run_id": run}
    db.checkpoints.put(thread, {"id": "1"}, namespace=namespace, metadata=metadata)


def test_many_records_of_a_thread_are_deleted_to_the_last() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/agent.lgkv"
        with lgkv.open(path) as db:
            puts = [
                db.checkpoints.put_change(
                    thread,
                    {
                        "id": f"{step:05}",
                        "channel_values": {"m": "x" * (step * 37 % 6_000)},
                        "channel_versions": {"m": step},
                    },
                )
                for step in range(700)
                for thread in ("a", "b")
            ]
            for future in [db.submit(change) for change in puts]:
                future.result()
            db.checkpoints.delete_thread("a")
            assert broken_invariants(db) == []
            assert len(list(db.checkpoints.list("b"))) == 700
            db.checkpoints.prune(["b"], keep_last=3)
            assert broken_invariants(db) == []
            db.checkpoints.delete_thread("b")
            assert db.stats().records == {"threads": 0, "memory": 0, "names": 0, "index": 0}
        assert structural_damage(path) == []
