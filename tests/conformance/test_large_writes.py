"""Large values that a node writes: in the file once, as pending write and as channel value."""

from __future__ import annotations

import random
from typing import Any

import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

import lgkv
from lgkv.checkpoints.writing import APART_BYTES
from lgkv.langgraph import LgkvSaver
from tests.conformance.checkpoints import config_of, put
from tests.conformance.stored import StoredThread, audit, stored_thread
from tests.invariants import broken_invariants

LARGE = random.Random(7).randbytes(100_000)
OTHER = random.Random(8).randbytes(100_000)


class State(TypedDict, total=False):
    """A file that each run replaces, and how often."""

    blob: bytes
    turn: int


def answer(state: State) -> State:
    return {"blob": random.Random(state["turn"]).randbytes(200_000)}


def test_a_large_value_that_a_node_writes_is_in_the_file_once(db: lgkv.Database) -> None:
    graph = StateGraph(State).add_node(answer).add_edge(START, "answer")
    compiled = graph.compile(checkpointer=LgkvSaver(db))
    config: Any = {"configurable": {"thread_id": "t"}}
    for turn in range(5):
        compiled.invoke({"turn": turn}, config)
    found = audit(db)
    assert found is not None
    assert found.payload_bytes <= 1.1 * 5 * 200_000
    assert found.size_bytes <= 1.1 * 5 * 200_000
    history = list(compiled.get_state_history(config))
    blobs = {state.values["blob"] for state in history if "blob" in state.values}
    assert blobs == {random.Random(turn).randbytes(200_000) for turn in range(5)}
    results = [task.result for state in history for task in state.tasks if task.name == "answer"]
    assert {result["blob"] for result in results if result} == blobs


def step(saver: LgkvSaver, value: Any = LARGE, *, task: str = "task") -> Any:
    """Write a value at a checkpoint, and put it as a channel of the next; return both configs."""
    first = put(saver)
    saver.put_writes(first, [("blob", value)], task)
    return first, put(saver, first, {"blob": value})


def sound(db: lgkv.Database) -> StoredThread | None:
    assert broken_invariants(db) == []
    return audit(db)


def pieces(db: lgkv.Database) -> int:
    found = sound(db)
    return 0 if found is None else len(found.pieces)


def read_writes(saver: LgkvSaver, config: Any) -> Any:
    found = saver.get_tuple(config)
    assert found is not None
    return found.pending_writes


def test_a_write_and_a_value_share_a_piece(db: lgkv.Database, saver: LgkvSaver) -> None:
    first, second = step(saver)
    assert pieces(db) == 1
    assert read_writes(saver, first) == [("task", "blob", LARGE)]
    assert saver.get_tuple(second).checkpoint["channel_values"] == {"blob": LARGE}


def test_a_write_that_comes_after_the_value_shares_its_piece(
    db: lgkv.Database, saver: LgkvSaver
) -> None:
    first = put(saver)
    second = put(saver, first, {"blob": LARGE})
    saver.put_writes(first, [("blob", LARGE)], "task")
    assert pieces(db) == 1
    assert read_writes(saver, first) == [("task", "blob", LARGE)]
    assert saver.get_tuple(second).checkpoint["channel_values"] == {"blob": LARGE}


def test_a_small_write_lies_in_its_own_record(db: lgkv.Database, saver: LgkvSaver) -> None:
    small = LARGE[: APART_BYTES - 100]
    first, _ = step(saver, small)
    assert pieces(db) == 1  # the channel's
    assert read_writes(saver, first) == [("task", "blob", small)]


def test_another_value_is_stored_beside_the_write(db: lgkv.Database, saver: LgkvSaver) -> None:
    first = put(saver)
    saver.put_writes(first, [("blob", LARGE)], "task")
    second = put(saver, first, {"blob": OTHER})
    assert pieces(db) == 2
    assert read_writes(saver, first) == [("task", "blob", LARGE)]
    assert saver.get_tuple(second).checkpoint["channel_values"] == {"blob": OTHER}


def test_a_value_of_another_type_with_the_same_bytes_is_another(
    db: lgkv.Database, saver: LgkvSaver
) -> None:
    first = put(saver)
    saver.put_writes(first, [("blob", LARGE)], "task")
    second = put(saver, first, {"blob": bytearray(LARGE)})
    assert pieces(db) == 2
    assert type(saver.get_tuple(second).checkpoint["channel_values"]["blob"]) is bytearray


def test_the_value_stays_when_the_write_goes(db: lgkv.Database, saver: LgkvSaver) -> None:
    _, second = step(saver)
    saver.prune(["t"])
    assert pieces(db) == 1
    assert saver.get_tuple(second).checkpoint["channel_values"] == {"blob": LARGE}
    put(saver, second, {"blob": None}, {"blob": 2})
    saver.prune(["t"])
    assert pieces(db) == 0


def test_the_write_stays_when_the_value_goes(db: lgkv.Database, saver: LgkvSaver) -> None:
    first = put(saver, metadata={"run_id": "kept"})
    saver.put_writes(first, [("blob", LARGE)], "task")
    put(saver, first, {"blob": LARGE}, metadata={"run_id": "gone"})
    saver.delete_for_runs(["gone"])
    assert pieces(db) == 1
    assert read_writes(saver, first) == [("task", "blob", LARGE)]
    saver.delete_for_runs(["kept"])
    assert stored_thread(db) is None
    assert broken_invariants(db) == []


def test_a_special_write_that_is_replaced_is_freed(db: lgkv.Database, saver: LgkvSaver) -> None:
    first = put(saver)
    for value in (LARGE, OTHER, "small", LARGE):
        saver.put_writes(first, [("__interrupt__", value)], "task")
        assert pieces(db) == (value != "small")
        assert read_writes(saver, first) == [("task", "__interrupt__", value)]


def test_a_special_write_that_is_replaced_leaves_a_value_that_shares_it(
    db: lgkv.Database, saver: LgkvSaver
) -> None:
    first = put(saver)
    saver.put_writes(first, [("__resume__", LARGE)], "task")
    second = put(saver, first, {"blob": LARGE})
    saver.put_writes(first, [("__resume__", "small")], "task")
    assert pieces(db) == 1
    assert saver.get_tuple(second).checkpoint["channel_values"] == {"blob": LARGE}


def test_a_write_that_is_there_already_is_not_stored_again(
    db: lgkv.Database, saver: LgkvSaver
) -> None:
    first, _ = step(saver)
    saver.put_writes(first, [("blob", OTHER), ("more", OTHER)], "task")
    assert pieces(db) == 2
    assert read_writes(saver, first) == [("task", "blob", LARGE), ("task", "more", OTHER)]


def test_a_write_that_was_pruned_meanwhile_is_not_referred_to(
    db: lgkv.Database, saver: LgkvSaver
) -> None:
    first = put(saver)
    saver.put_writes(first, [("blob", LARGE)], "task")
    saver.delete_thread("t")
    second = put(saver, first, {"blob": LARGE})
    assert pieces(db) == 1
    assert saver.get_tuple(second).checkpoint["channel_values"] == {"blob": LARGE}


def test_a_copy_has_both(db: lgkv.Database, saver: LgkvSaver) -> None:
    first, second = step(saver)
    saver.copy_thread("t", "copy")
    saver.delete_thread("t")
    found = audit(db, "copy")
    assert found is not None
    assert len(found.pieces) == 1
    for config in (first, second):
        config["configurable"]["thread_id"] = "copy"
    assert read_writes(saver, first) == [("task", "blob", LARGE)]
    assert saver.get_tuple(second).checkpoint["channel_values"] == {"blob": LARGE}


def test_history_of_a_delta_channel_has_large_writes(saver: LgkvSaver) -> None:
    first = put(saver)
    saver.put_writes(first, [("blob", LARGE)], "task")
    second = put(saver, first, {}, {"blob": 1}, new=[])
    history = saver.get_delta_channel_history(config=second, channels=["blob"])
    assert history["blob"]["writes"] == [("task", "blob", LARGE)]


def test_a_serialiser_that_encrypts_shares_nothing_and_reads_both(db: lgkv.Database) -> None:
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
    saver = LgkvSaver(db, serde=serde)
    first, second = step(saver)
    assert pieces(db) == 2
    assert read_writes(saver, first) == [("task", "blob", LARGE)]
    assert saver.get_tuple(second).checkpoint["channel_values"] == {"blob": LARGE}


@pytest.mark.parametrize("durability", ["full", "interval"])
def test_another_process_reads_both(tmp_path: Any, durability: str) -> None:
    with lgkv.open(tmp_path / "b.lgkv", durability=durability) as first:
        before, after = step(LgkvSaver(first))
    with lgkv.open(tmp_path / "b.lgkv") as again:
        saver = LgkvSaver(again)
        assert read_writes(saver, before) == [("task", "blob", LARGE)]
        assert saver.get_tuple(after).checkpoint["channel_values"] == {"blob": LARGE}
        assert pieces(again) == 1


def test_early_writes_of_a_checkpoint_to_come_are_kept(db: lgkv.Database, saver: LgkvSaver) -> None:
    first, _ = step(saver)
    early = config_of(checkpoint_id="1fffffff-0000-6000-8000-000000000001")
    saver.put_writes(early, [("blob", OTHER)], "early")
    saver.prune(["t"])
    assert pieces(db) == 2
    put(saver, first, checkpoint_id="1fffffff-0000-6000-8000-000000000001")
    assert read_writes(saver, early) == [("early", "blob", OTHER)]
