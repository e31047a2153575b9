"""Pending writes: their order, their identity, and those that come early."""

from __future__ import annotations

import random
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    writes_sort_key,
)
from langgraph.checkpoint.serde.types import TASKS
from langgraph.types import Send

import lgkv
from lgkv.langgraph import LgkvSaver
from tests.conformance.checkpoints import config_of, id_of, new_id, put


def records(db: lgkv.Database) -> dict[str, int]:
    return db.stats().records


# --- pending writes ----------------------------------------------------------------------


def sorted_writes(writes: list[tuple[str, str, int, str, Any]]) -> list[tuple[str, str, Any]]:
    """Return (task path, task id, index, channel, value) as a reader must see them."""
    ordered = sorted(writes, key=lambda each: writes_sort_key(each[0], each[1], each[2]))
    return [(task, channel, value) for _, task, _, channel, value in ordered]


@pytest.mark.parametrize("seed", range(5))
def test_writes_come_back_sorted_by_path_task_and_index(saver: LgkvSaver, seed: int) -> None:
    rng = random.Random(seed)
    tasks = [str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(6)] + ["a", "a\x00", "b" * 300]
    paths = [
        "",
        "~__pregel_pull, a",
        "~__pregel_pull, b",
        "~__pregel_push, 1, 2",
        "~~0000000003",
        "é",
    ]
    config = put(saver, None, {"a": 1})
    expected = []
    for task in rng.sample(tasks, len(tasks)):
        path = rng.choice(paths)
        count = rng.choice([1, 3, 12])
        writes: list[tuple[str, Any]] = [(f"c{at}", rng.random()) for at in range(count)]
        if rng.random() < 0.5:
            writes[rng.randrange(count)] = ("__interrupt__", ["i"])
        saver.put_writes(config, writes, task, path)
        for at, (channel, value) in enumerate(writes):
            expected.append((path, task, WRITES_IDX_MAP.get(channel, at), channel, value))
    found = saver.get_tuple(config)
    assert found is not None
    assert found.pending_writes == sorted_writes(expected)
    for listed in (*saver.list(config_of()), *saver.list(None)):
        assert listed.pending_writes == sorted_writes(expected)


def test_special_writes_are_replaced_and_regular_ones_stay(saver: LgkvSaver) -> None:
    config = put(saver)
    saver.put_writes(config, [("a", 1), ("__error__", "first"), ("b", 2)], "task", "p1")
    # decided for each write: in one call one is replaced, one ignored, one new
    saver.put_writes(
        config, [("a", 10), ("__error__", "second"), ("b", 20), ("c", 30)], "task", "p1"
    )
    saver.put_writes(config, [("__resume__", "r")], "task", "p1")
    found = saver.get_tuple(config)
    assert found is not None
    assert found.pending_writes == [
        ("task", "__resume__", "r"),
        ("task", "__error__", "second"),
        ("task", "a", 1),
        ("task", "b", 2),
        ("task", "c", 30),
    ]


def test_position_of_a_regular_write_counts_the_special_ones(saver: LgkvSaver) -> None:
    config = put(saver)
    saver.put_writes(config, [("__interrupt__", "i"), ("a", 1)], "task")  # a has index 1
    saver.put_writes(config, [("b", 2), ("c", 3)], "task")  # b is new at 0, c comes too late
    found = saver.get_tuple(config)
    assert found is not None
    assert found.pending_writes == [
        ("task", "__interrupt__", "i"),
        ("task", "b", 2),
        ("task", "a", 1),
    ]


def test_writes_of_other_tasks_and_checkpoints_are_untouched(saver: LgkvSaver) -> None:
    first = put(saver)
    second = put(saver, first)
    saver.put_writes(first, [("a", 1)], "task")
    saver.put_writes(first, [("a", 2)], "task2")
    saver.put_writes(second, [("a", 3)], "task")
    saver.put_writes(config_of("t", "ns", id_of(first)), [("a", 4)], "task")
    found = saver.get_tuple(first)
    assert found is not None
    assert found.pending_writes == [("task", "a", 1), ("task2", "a", 2)]


def test_no_writes_leave_no_trace(db: lgkv.Database, saver: LgkvSaver) -> None:
    before = records(db)
    saver.put_writes(config_of("t", "", new_id()), [], "task")
    assert records(db) == before


def test_early_writes_from_several_threads_wait_for_their_checkpoint(saver: LgkvSaver) -> None:
    checkpoint_id = new_id()
    start = threading.Barrier(8)

    def write(at: int) -> None:
        start.wait()
        for each in range(5):
            saver.put_writes(
                config_of("t", None, checkpoint_id),
                [("a", (at, each)), ("b", at)],
                f"task{at}.{each}",
                f"p{at}",
            )

    with ThreadPoolExecutor(8) as pool:
        wait([pool.submit(write, at) for at in range(8)])
    assert saver.get_tuple(config_of()) is None
    assert list(saver.list(config_of())) == []
    config = put(saver, checkpoint_id=checkpoint_id)
    found = saver.get_tuple(config)
    assert found is not None
    assert found.pending_writes == [
        write
        for at in range(8)
        for each in range(5)
        for write in ((f"task{at}.{each}", "a", [at, each]), (f"task{at}.{each}", "b", at))
    ]


def test_several_threads_may_write_for_one_task(saver: LgkvSaver) -> None:
    config = put(saver)
    start = threading.Barrier(8)

    def write(at: int) -> None:
        start.wait()
        saver.put_writes(config, [("a", at), ("b", at), ("__error__", at)], "task")

    with ThreadPoolExecutor(8) as pool:
        wait([pool.submit(write, at) for at in range(8)])
    found = saver.get_tuple(config)
    assert found is not None
    assert found.pending_writes is not None
    by_channel = {channel: value for _, channel, value in found.pending_writes}
    assert len(found.pending_writes) == 3
    assert by_channel["a"] == by_channel["b"]  # of one call


# --- sends of old checkpoints ------------------------------------------------------------


def old_thread(saver: LgkvSaver, v: int) -> tuple[Any, Any]:
    """Return the configs of a parent with pending sends and its child, both of format `v`."""
    parent = put(saver, None, {"a": 1}, {"a": "1.1"}, v=v)
    saver.put_writes(parent, [("a", 1), (TASKS, Send("n", 2))], "task2", "~2")
    saver.put_writes(parent, [(TASKS, Send("n", 0)), (TASKS, Send("n", 1))], "task9", "~1")
    return parent, put(saver, parent, {"a": 2}, {"a": "2.1", "b": "3.1"}, v=v)


@pytest.mark.parametrize("v", [1, 2, 3])
def test_sends_of_an_old_checkpoint_are_taken_from_its_parent(saver: LgkvSaver, v: int) -> None:
    parent, child = old_thread(saver, v)
    listed = next(saver.list(config_of()))
    for found in (saver.get_tuple(child), listed):
        assert found is not None
        assert found.checkpoint["channel_values"][TASKS] == [
            Send("n", 0),
            Send("n", 1),
            Send("n", 2),
        ]
        assert found.checkpoint["channel_versions"][TASKS] == "3.1"
        assert found.checkpoint["channel_values"]["a"] == 2
    root = saver.get_tuple(parent)
    assert root is not None
    assert TASKS not in root.checkpoint["channel_values"]


def test_new_checkpoint_takes_no_sends_from_its_parent(saver: LgkvSaver) -> None:
    _, child = old_thread(saver, 4)
    found = saver.get_tuple(child)
    assert found is not None
    assert TASKS not in found.checkpoint["channel_values"]
    assert TASKS not in found.checkpoint["channel_versions"]


def test_old_checkpoint_without_versions_gets_a_first_one_for_its_sends(saver: LgkvSaver) -> None:
    parent = put(saver, v=1)
    saver.put_writes(parent, [(TASKS, Send("n", 1))], "task")
    found = saver.get_tuple(put(saver, parent, v=1))
    assert found is not None
    assert found.checkpoint["channel_values"] == {TASKS: [Send("n", 1)]}
    assert found.checkpoint["channel_versions"][TASKS] < saver.get_next_version(
        "0" * 31 + "1", None
    )
