"""The saver where it is easy to get wrong, checked without a graph."""

from __future__ import annotations

import inspect
import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    Checkpoint,
    writes_sort_key,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import TASKS, _DeltaSnapshot
from langgraph.types import Send

import lgkv
from lgkv.checkpoints import SPECIAL_WRITES
from lgkv.errors import FilterError, InvalidInputError
from lgkv.langgraph import LgkvSaver
from lgkv.langgraph.aio import AsyncLgkvSaver
from tests.conformance.checkpoints import checkpoint_of, config_of, id_of, ids_of, new_id, put


def records(db: lgkv.Database) -> dict[str, int]:
    return db.stats().records


# --- the interface -------------------------------------------------------------------------


def test_no_method_is_left_to_the_base_class_that_raises_there() -> None:
    raising = {
        name
        for name, method in vars(BaseCheckpointSaver).items()
        if inspect.isfunction(method) and "raise NotImplementedError" in inspect.getsource(method)
    }
    assert len(raising) > 16
    assert raising <= vars(LgkvSaver).keys()


def test_saver_is_the_base_class_and_its_async_name_is_the_same_class() -> None:
    assert issubclass(LgkvSaver, BaseCheckpointSaver)
    assert AsyncLgkvSaver is LgkvSaver


@pytest.mark.parametrize("name", ["put_writes", "aput_writes"])
def test_task_path_is_a_named_parameter(name: str) -> None:
    assert inspect.signature(getattr(LgkvSaver, name)).parameters["task_path"].default == ""


def test_special_writes_are_langgraphs() -> None:
    assert SPECIAL_WRITES == WRITES_IDX_MAP


async def test_setup_may_be_called_or_awaited(saver: LgkvSaver) -> None:
    saver.setup()
    assert await saver.setup() is None


# --- put and get_tuple ---------------------------------------------------------------------


def test_id_in_the_config_of_a_put_is_the_parent(saver: LgkvSaver) -> None:
    first = put(saver)
    second = put(saver, first)
    found = saver.get_tuple(config_of())
    assert found is not None
    assert found.config == second
    assert found.parent_config == first
    root = saver.get_tuple(first)
    assert root is not None
    assert root.parent_config is None


def test_put_returns_a_config_of_thread_namespace_and_id_alone(saver: LgkvSaver) -> None:
    config = config_of("t", "child:1")
    config["configurable"]["__pregel_scratchpad"] = object()
    config["configurable"]["user"] = "u1"
    config["callbacks"] = []
    config["metadata"] = {"agent": "a"}
    checkpoint = checkpoint_of()
    assert saver.put(config, checkpoint, {}, {}) == config_of("t", "child:1", checkpoint["id"])


def test_missing_namespace_is_the_root(saver: LgkvSaver) -> None:
    stored = put(saver, config_of(ns=None), {"a": 1})
    assert stored["configurable"]["checkpoint_ns"] == ""
    saver.put_writes(config_of("t", None, id_of(stored)), [("a", 2)], "task")
    for config in (config_of(ns=None), config_of(), config_of("t", None, id_of(stored))):
        found = saver.get_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": 1}
        assert found.pending_writes == [("task", "a", 2)]


def test_get_tuple_with_an_id_returns_the_config_it_was_passed(saver: LgkvSaver) -> None:
    config = config_of("t", None, id_of(put(saver)))
    config["configurable"]["extra"] = object()
    found = saver.get_tuple(config)
    assert found is not None
    assert found.config is config


def test_get_tuple_without_an_id_is_the_greatest_id_not_the_newest_put(saver: LgkvSaver) -> None:
    older, newer = new_id(), new_id()
    put(saver, checkpoint_id=newer)
    put(saver, checkpoint_id=older)
    found = saver.get_tuple(config_of())
    assert found is not None
    assert found.checkpoint["id"] == newer


def test_what_is_not_there_is_none(saver: LgkvSaver) -> None:
    put(saver)
    assert saver.get_tuple(config_of("other")) is None
    assert saver.get_tuple(config_of("t", "other")) is None
    assert saver.get_tuple(config_of("t", "", new_id())) is None
    assert list(saver.list(config_of("other"))) == []
    assert list(saver.list(config_of("t", "other"))) == []
    assert list(saver.list(config_of("t", "", new_id()))) == []
    saver.delete_thread("other")
    saver.delete_for_runs(["other"])
    saver.prune(["other"])


def test_checkpoint_comes_back_whole(saver: LgkvSaver) -> None:
    checkpoint: dict[str, Any] = dict(
        checkpoint_of({"a": [1], "b": {"x": None}}, {"a": "1.5", "b": 7})
    )
    checkpoint["pending_sends"] = []
    checkpoint["updated_channels"] = ["a", "b"]
    checkpoint["to_come"] = {"some": ["field"]}
    expected = {**checkpoint}
    saver.put(config_of(), checkpoint, {}, checkpoint["channel_versions"])
    found = saver.get_tuple(config_of())
    assert found is not None
    assert found.checkpoint == expected
    assert list(found.checkpoint["channel_versions"]) == ["a", "b"]


def test_put_changes_nothing_that_it_was_given(saver: LgkvSaver) -> None:
    checkpoint = checkpoint_of({"a": [1]})
    copied = {**checkpoint, "channel_values": {"a": [1]}, "channel_versions": {"a": 1}}
    config, metadata = config_of(), {"source": "loop"}
    saver.put(config, checkpoint, metadata, {"a": 1})
    assert checkpoint == copied
    assert config == config_of()
    assert metadata == {"source": "loop"}


def test_returned_values_are_the_callers_own(saver: LgkvSaver) -> None:
    config = put(saver, None, {"a": [1]}, metadata={"tags": ["x"]})
    for _ in range(2):
        found = saver.get_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": [1]}
        assert found.metadata["tags"] == ["x"]
        found.checkpoint["channel_values"]["a"].append(2)
        found.metadata["tags"].append("y")


@pytest.mark.parametrize("thread_id", [42, uuid.UUID(int=7), 1.5, True])
def test_thread_id_that_is_no_str_is_the_string_of_itself(saver: LgkvSaver, thread_id: Any) -> None:
    stored = put(saver, config_of(thread_id), {"a": 1})
    assert stored["configurable"]["thread_id"] == str(thread_id)
    saver.put_writes(
        {"configurable": {**stored["configurable"], "thread_id": thread_id}}, [("a", 2)], "x"
    )
    for same in (thread_id, str(thread_id)):
        found = saver.get_tuple(config_of(same))
        assert found is not None
        assert found.pending_writes == [("x", "a", 2)]
        assert ids_of(saver.list(config_of(same))) == [id_of(stored)]
    saver.copy_thread(thread_id, "copy")
    saver.prune([thread_id], strategy="delete")
    assert saver.get_tuple(config_of(str(thread_id))) is None
    assert saver.get_tuple(config_of("copy")) is not None


@pytest.mark.parametrize(
    "config", [{}, {"configurable": {}}, {"configurable": {"thread_id": None}}]
)
def test_config_without_a_thread_is_a_clear_error(saver: LgkvSaver, config: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: saver.get_tuple(config),
        lambda: saver.list(config),
        lambda: saver.put(config, checkpoint_of(), {}, {}),
        lambda: saver.get_delta_channel_history(config=config, channels=["a"]),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError, match="thread_id"):
            call()


def test_empty_checkpoint_id_is_none(saver: LgkvSaver) -> None:
    stored = put(saver, config_of("t", "", ""))
    found = saver.get_tuple(config_of("t", "", ""))
    assert found is not None
    assert found.config == stored
    assert found.parent_config is None
    assert ids_of(saver.list(config_of("t", "", ""), before=config_of("t", "", ""))) == [
        id_of(stored)
    ]


# --- values by channel and version ---------------------------------------------------------


def test_only_new_versions_are_written_and_values_carry_forward(saver: LgkvSaver) -> None:
    first = put(saver, None, {"a": "old", "b": "b1"}, {"a": 1, "b": 1})
    # the value that comes along for an unchanged version is not looked at
    second = put(saver, first, {"a": "not new", "b": "b2"}, {"a": 1, "b": 2}, new=["b"])
    third = put(saver, second, {}, {"a": 1, "b": 2}, new=[])
    for config, b in ((first, "b1"), (second, "b2"), (third, "b2")):
        found = saver.get_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": "old", "b": b}


def test_new_version_without_a_value_empties_the_channel(saver: LgkvSaver) -> None:
    first = put(saver, None, {"a": 1}, {"a": 1})
    second = put(saver, first, {}, {"a": 2})
    third = put(saver, second, {}, {"a": 2}, new=[])
    for config in (second, third):
        found = saver.get_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"] == {}
        assert found.checkpoint["channel_versions"] == {"a": 2}
    found = saver.get_tuple(first)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": 1}


def test_snapshot_of_a_delta_channel_carries_forward(saver: LgkvSaver) -> None:
    first = put(saver, None, {"a": _DeltaSnapshot(["x"])}, {"a": 3})
    second = put(saver, first, {}, {"a": 3}, new=[])
    found = saver.get_tuple(second)
    assert found is not None
    value = found.checkpoint["channel_values"]["a"]
    assert isinstance(value, _DeltaSnapshot)
    assert value.value == ["x"]


def test_namespaces_and_threads_do_not_share_values(saver: LgkvSaver) -> None:
    places = [("t", ""), ("t", "child"), ("t", "child:1"), ("u", ""), ("t\x00", ""), ("", "t")]
    for at, (thread, ns) in enumerate(places):
        put(saver, config_of(thread, ns), {"a": at}, {"a": 1}, checkpoint_id="same")
    for at, (thread, ns) in enumerate(places):
        found = saver.get_tuple(config_of(thread, ns, "same"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": at}


def test_versions_that_look_alike_are_told_apart(saver: LgkvSaver) -> None:
    peers = "00000000000000000000000000000001.0.1234567890123456"
    own = "00000000000000000000000000000001.1234567890123456"
    versions = [1, "1", 1.5, "1.5", peers, own, own + "0", -1, 2**70, "x" * 500, "x" * 501, ""]
    for at, version in enumerate(versions):
        put(
            saver,
            config_of("t", "", str(at)),
            {"a": at},
            {"a": version},
            checkpoint_id=f"id{at:02}",
        )
    for at, version in enumerate(versions):
        found = saver.get_tuple(config_of("t", "", f"id{at:02}"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": at}
        kept = found.checkpoint["channel_versions"]["a"]
        assert (kept, type(kept)) == (version, type(version))


def test_checkpoint_put_again_is_replaced(saver: LgkvSaver) -> None:
    first = put(saver, None, {"a": 1}, checkpoint_id="1")
    saver.put_writes(first, [("a", 5)], "task")
    put(saver, None, {"a": 2, "b": 3}, {"a": 2, "b": 1}, checkpoint_id="1", metadata={"step": 9})
    assert len(list(saver.list(config_of()))) == 1
    found = saver.get_tuple(config_of())
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": 2, "b": 3}
    assert found.metadata["step"] == 9
    assert found.pending_writes == [("task", "a", 5)]


def test_same_put_twice_is_stored_once(db: lgkv.Database, saver: LgkvSaver) -> None:
    checkpoint = checkpoint_of({"a": 1})
    saver.put(config_of(), checkpoint, {"run_id": "r"}, {"a": 1})
    once = records(db)
    saver.put(config_of(), checkpoint, {"run_id": "r"}, {"a": 1})
    assert records(db) == once


# --- versions ------------------------------------------------------------------------------


def test_next_version_grows_and_differs_between_branches(saver: LgkvSaver) -> None:
    version = saver.get_next_version(None, None)
    for _ in range(50):
        branches = {saver.get_next_version(version, None) for _ in range(20)}
        assert len(branches) == 20
        assert all(branch > version for branch in branches)
        version = max(branches)
    assert len(version) == 49


@pytest.mark.parametrize(
    "current",
    [
        1,
        0,
        2**40,
        3.75,
        1e30,
        InMemorySaver().get_next_version(None, None),
        f"{9:032}.{0.123456789:016}",
        f"{41:032}",
        "7",
        "7.5",
        "v1",
        "zzz.1",
        "",
    ],
)
def test_version_of_another_saver_is_followed_by_a_greater_one_of_its_kind(
    saver: LgkvSaver, current: Any
) -> None:
    version = current
    for _ in range(5):
        following = {saver.get_next_version(version, None) for _ in range(5)}
        assert len(following) == 5
        assert min(following) > version
        version = max(following)


# --- pending writes ------------------------------------------------------------------------


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


# --- metadata ------------------------------------------------------------------------------


def test_metadata_takes_what_the_config_has_and_can_be_stored(saver: LgkvSaver) -> None:
    config = config_of()
    config["configurable"] |= {
        "user": "u\x001",
        "age": 7,
        "score": 0.5,
        "admin": True,
        "tags": ["not", "scalar"],
        "__pregel_runtime": object(),
        "langgraph_step": 3,
        "checkpoint_map": {},
    }
    config["metadata"] = {"run_id": "r1", "user": "of the metadata", "lock": threading.Lock()}
    stored = saver.put(config, checkpoint_of(), {"source": "input", "step": -1, "parents": {}}, {})
    found = saver.get_tuple(stored)
    assert found is not None
    assert found.metadata == {
        "source": "input",
        "step": -1,
        "parents": {},
        "run_id": "r1",
        "user": "of the metadata",
        "age": 7,
        "score": 0.5,
        "admin": True,
    }


@pytest.mark.parametrize(
    ("filter", "steps"),
    [
        ({"step": 1}, [1]),
        ({"step": "1"}, []),
        ({"flag": 1}, [1]),  # True == 1, as Python has it
        ({"flag": True}, [1]),
        ({"missing": None}, [4, 3, 2, 1]),
        ({"note": None}, [4, 3, 2]),
        ({"writes": {"node": {"x": 2}}}, [2]),
        ({"step": {"$gt": 2}}, [4, 3]),
        ({"step": {"$gte": 2, "$lt": 4}}, [3, 2]),
        ({"step": {"$ne": 2}}, [4, 3, 1]),
        ({"step": {"$in": [1, 4, "3"]}}, [4, 1]),
        ({"missing": {"$ne": 1}}, [4, 3, 2, 1]),
        ({"$or": [{"step": 1}, {"writes": {"node": {"x": {"$gt": 3}}}}]}, [4, 1]),
        ({"source": "loop", "step": 2}, [2]),
        ({'it\'s "odd"; --': "x') OR 1=1 --"}, [3]),
        ({"a.b": 1}, [3]),
        ({"a": {"b": 1}}, []),
        ({}, [4, 3, 2, 1]),
        (None, [4, 3, 2, 1]),
    ],
)
def test_filter_finds_by_any_key_typed_and_nested(
    saver: LgkvSaver, filter: dict[str, Any] | None, steps: list[int]
) -> None:
    extra: dict[int, dict[str, Any]] = {
        1: {"flag": True, "note": "n"},
        3: {'it\'s "odd"; --': "x') OR 1=1 --", "a.b": 1},
    }
    for step in range(1, 5):
        put(
            saver,
            None,
            metadata={"step": step, "writes": {"node": {"x": step}}, **extra.get(step, {})},
        )
    assert [each.metadata["step"] for each in saver.list(config_of(), filter=filter)] == steps
    assert [each.metadata["step"] for each in saver.list(None, filter=filter)] == steps


def test_unknown_operator_is_refused_before_anything_is_read(saver: LgkvSaver) -> None:
    with pytest.raises(FilterError, match="regex"):
        saver.list(config_of(), filter={"step": {"$regex": "1"}})


class Counting(JsonPlusSerializer):
    """Keeps what it decodes. Being a subclass, it is given the metadata as well."""

    def __init__(self) -> None:
        super().__init__(allowed_msgpack_modules=None)
        self.decoded: list[Any] = []

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        value = super().loads_typed(data)
        self.decoded.append(value)
        return value


def test_filter_decodes_no_value_of_what_it_rejects(db: lgkv.Database) -> None:
    serde = Counting()
    saver = LgkvSaver(db, serde=serde)
    for step in range(20):
        config = put(saver, None, {"a": f"value {step}"}, {"a": step}, metadata={"step": step})
        saver.put_writes(config, [("a", f"write {step}")], "task")
    assert list(saver.list(config_of(), filter={"step": 99})) == []
    assert len(serde.decoded) == 20
    assert all(isinstance(each, dict) and "step" in each for each in serde.decoded)
    serde.decoded.clear()
    [found] = saver.list(config_of(), filter={"step": 7})
    assert found.checkpoint["channel_values"] == {"a": "value 7"}
    assert [each for each in serde.decoded if isinstance(each, str)] == ["value 7", "write 7"]


def test_default_serialiser_never_sees_the_metadata_of_a_filter(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = LgkvSaver(db)
    for step in range(5):
        put(saver, None, {"a": step}, {"a": step}, metadata={"step": step})
    called: list[Any] = []
    loads = type(saver.serde).loads_typed

    def counting(self: Any, data: tuple[str, bytes]) -> Any:
        called.append(data)
        return loads(self, data)

    monkeypatch.setattr(type(saver.serde), "loads_typed", counting)
    assert list(saver.list(None, filter={"step": 99})) == []
    assert called == []
    assert len(list(saver.list(None, filter={"step": 3}))) == 1
    assert len(called) == 1


# --- list ----------------------------------------------------------------------------------

MIXED_IDS = [
    "1ef4f797-8335-6428-8001-8a1503f9b875",
    "1ef4f797-8335-6428-8001-8a1503f9b876",
    "1ef4f797-8335-6428-8001-8a1503f9b87",
    "1ef4f797-8335-6428-8001-8a1503f9b8750",
    "1EF4F797-8335-6428-8001-8A1503F9B875",
    "1ef4f79783356428800" + "18a1503f9b875",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "00000000-0000-0000-0000-000000000000",
    "0",
    "1",
    "10",
    "2",
    "a\x00b",
    "a",
    "a\x01",
    "zz",
    "é",
    "\uffff",
    "😀",
    "~",
]


def test_ids_of_any_form_sort_as_texts_within_and_over_threads(saver: LgkvSaver) -> None:
    rng = random.Random(1)
    for at, checkpoint_id in enumerate(rng.sample(MIXED_IDS, len(MIXED_IDS))):
        put(saver, config_of("one"), checkpoint_id=checkpoint_id)
        put(saver, config_of(f"many{at % 5}", f"ns{at % 3}"), checkpoint_id=checkpoint_id + "!")
    descending = sorted(MIXED_IDS, reverse=True)
    both = sorted([*MIXED_IDS, *(each + "!" for each in MIXED_IDS)], reverse=True)
    assert ids_of(saver.list(config_of("one"))) == descending
    assert ids_of(saver.list(config_of("one", None))) == descending
    assert ids_of(saver.list(None)) == both
    for bound in [*both, "", "2", "1ef4f797-8335-6428-8001-8a1503f9b874", "\U0010ffff"]:
        before = config_of("any", "", bound)
        wanted = both if not bound else [each for each in both if each < bound]
        assert ids_of(saver.list(None, before=before)) == wanted
        assert ids_of(saver.list(None, before=before, limit=3)) == wanted[:3]
        own = [each for each in wanted if each in MIXED_IDS]
        assert ids_of(saver.list(config_of("one"), before=before)) == own
    newest = saver.get_tuple(config_of("one"))
    assert newest is not None
    assert newest.checkpoint["id"] == descending[0]


def test_list_pages_through_a_long_thread(saver: LgkvSaver, db: lgkv.Database) -> None:
    futures = []
    ids = [new_id() for _ in range(500)]
    for checkpoint_id in ids:
        change = saver._put_change(config_of(), checkpoint_of(checkpoint_id=checkpoint_id), {}, {})
        futures.append(db.submit(change))
    wait(futures)
    assert ids_of(saver.list(config_of())) == ids[::-1]
    paged, before = [], None
    while page := ids_of(saver.list(config_of(), before=before, limit=77)):
        paged += page
        before = config_of("t", "", page[-1])
    assert paged == ids[::-1]


def test_list_spans_namespaces_unless_one_is_given(saver: LgkvSaver) -> None:
    places = ["", "a", "a:1", "b|c:2"]
    stored = {ns: id_of(put(saver, config_of("t", ns))) for ns in places}
    put(saver, config_of("other", "a"))
    assert ids_of(saver.list(config_of("t", None))) == [stored[ns] for ns in reversed(places)]
    for ns in places:
        found = list(saver.list(config_of("t", ns)))
        assert [each.config["configurable"]["checkpoint_ns"] for each in found] == [ns]
        assert ids_of(found) == [stored[ns]]


def test_list_honours_the_id_of_its_config(saver: LgkvSaver) -> None:
    ids = [id_of(put(saver)) for _ in range(3)]
    put(saver, config_of("t", "ns"), checkpoint_id=ids[1])
    assert ids_of(saver.list(config_of("t", "", ids[1]))) == [ids[1]]
    assert ids_of(saver.list(config_of("t", None, ids[1]))) == [ids[1]] * 2
    assert ids_of(saver.list(config_of("t", "", ids[1]), before=config_of("t", "", ids[1]))) == []
    assert ids_of(saver.list(config_of("t", "", ids[1]), filter={"step": 99})) == []


@pytest.mark.parametrize("config", [None, config_of(), config_of(ns=None)])
def test_limit_counts_what_the_filter_keeps(saver: LgkvSaver, config: Any) -> None:
    ids = [id_of(put(saver, metadata={"odd": at % 2 == 1})) for at in range(10)]
    odd = ids[::-1][::2]
    assert ids_of(saver.list(config, limit=0)) == []
    assert ids_of(saver.list(config, limit=-1)) == []
    assert ids_of(saver.list(config, limit=1)) == ids[-1:]
    assert ids_of(saver.list(config, limit=100)) == ids[::-1]
    assert ids_of(saver.list(config, filter={"odd": True}, limit=3)) == odd[:3]
    assert (
        ids_of(saver.list(config, filter={"odd": True}, before=config_of("t", "", odd[1]), limit=2))
        == odd[2:4]
    )


def test_before_without_an_id_is_ignored(saver: LgkvSaver) -> None:
    ids = [id_of(put(saver)) for _ in range(3)]
    for before in (config_of(), {"configurable": {}}):
        assert ids_of(saver.list(config_of(), before=before)) == ids[::-1]
        assert ids_of(saver.list(None, before=before)) == ids[::-1]


def test_listing_goes_on_while_threads_are_deleted_and_written(saver: LgkvSaver) -> None:
    for at in range(60):
        put(saver, config_of(f"t{at}"))
    seen = set()
    for at, found in enumerate(saver.list(None)):
        seen.add(found.config["configurable"]["thread_id"])
        if at == 1:
            for gone in range(40):
                saver.delete_thread(f"t{gone}")
        put(saver, config_of("new"))
    assert seen >= {f"t{at}" for at in range(40, 60)}
    assert "new" not in seen  # it lies above the point that was reached
    assert len(seen) < 30


def test_newest_of_many_threads_are_found_without_reading_them_all(
    db: lgkv.Database, saver: LgkvSaver, reads: Counter[str]
) -> None:
    threads = 20_000
    ids = [new_id() for _ in range(threads)]
    order = random.Random(3).sample(range(threads), threads)
    futures = [
        db.submit(
            saver._put_change(
                config_of(f"t{at}"),
                checkpoint_of({"a": at}, checkpoint_id=ids[at]),
                {"step": at % 7},
                {"a": 1},
            )
        )
        for at in order
    ]
    wait(futures)
    reads.clear()
    found = list(saver.list(None, limit=10))
    assert ids_of(found) == ids[:-11:-1]
    assert found[0].checkpoint["channel_values"] == {"a": threads - 1}
    assert sum(reads.values()) < 300
    reads.clear()
    middle = threads // 2
    assert (
        ids_of(saver.list(None, before=config_of("x", "", ids[middle]), limit=10))
        == ids[middle - 1 : middle - 11 : -1]
    )
    assert sum(reads.values()) < 300
    reads.clear()
    assert len(list(saver.list(None, filter={"step": 3}, limit=10))) == 10
    assert sum(reads.values()) < 1_500
    reads.clear()
    assert len(db.threads(limit=10)) == 10
    assert sum(reads.values()) < 300


# --- serialisers ---------------------------------------------------------------------------


class Untyped:
    """A serialiser of somebody's own, from before types."""

    def dumps(self, value: Any) -> bytes:
        return repr(value).encode()[::-1]

    def loads(self, raw: bytes) -> Any:
        return eval(raw[::-1].decode())


class Bytearrays:
    """A typed serialiser of somebody's own, which gives bytearrays and odd tags."""

    def dumps_typed(self, value: Any) -> tuple[str, bytes]:
        return "my tag+ü", bytearray(Untyped().dumps(value))

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        assert data[0] == "my tag+ü"
        return Untyped().loads(data[1])


def aes(serde: SerializerProtocol | None = None) -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(
        serde or JsonPlusSerializer(), key=b"0123456789abcdef"
    )


SERIALISERS: dict[str, Callable[[], Any]] = {
    "default": lambda: None,
    "permissive": JsonPlusSerializer,
    "strict": lambda: JsonPlusSerializer(allowed_msgpack_modules=None),
    "encrypted": aes,
    "encrypted strict": lambda: aes(lgkv_strict()),
    "untyped": Untyped,
    "bytearrays": Bytearrays,
}


def lgkv_strict() -> SerializerProtocol:
    from lgkv.langgraph import StrictSerializer

    return StrictSerializer()


@pytest.mark.parametrize("name", SERIALISERS)
def test_every_serialiser_brings_everything_back(db: lgkv.Database, name: str) -> None:
    saver = LgkvSaver(db, serde=SERIALISERS[name]())
    values = {"none": None, "text": "x", "raw": b"\x00\xff", "list": [1, {"a": None}], "empty": ""}
    config = put(saver, None, values, metadata={"who": "me", "n": 1})
    saver.put_writes(config, [("none", None), ("raw", b"\x01")], "task")
    for found in (saver.get_tuple(config), *saver.list(None, filter={"who": "me"})):
        assert found is not None
        assert found.checkpoint["channel_values"] == values
        assert found.checkpoint["versions_seen"] == {
            "__input__": {},
            "node": {"branch:to:node": "1.5"},
        }
        assert found.metadata == {"source": "loop", "step": 1, "who": "me", "n": 1}
        assert found.pending_writes == [("task", "none", None), ("task", "raw", b"\x01")]
    child = put(saver, config, {}, {"list": 1}, new=[])
    history = saver.get_delta_channel_history(config=child, channels=["list", "none"])
    assert history["list"] == {"writes": [], "seed": [1, {"a": None}]}
    assert history["none"] == {"writes": [("task", "none", None)], "seed": None}


@pytest.mark.parametrize("name", [name for name in SERIALISERS if name != "default"])
def test_serialiser_assigned_to_the_saver_is_used(db: lgkv.Database, name: str) -> None:
    saver = LgkvSaver(db)
    saver.serde = SERIALISERS[name]()
    config = put(saver, None, {"a": [1]}, metadata={"who": "me"})
    found = saver.get_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": [1]}
    assert found.metadata["who"] == "me"


def test_values_of_msgpack_come_back_as_its_serialiser_has_them(saver: LgkvSaver) -> None:
    values = {
        "tuple": (1, (2, "x")),
        "bytearray": bytearray(b"abc"),
        "bytes": b"abc",
        "set": {1, 2},
        "int keys": {1: "one"},
        "message": HumanMessage("hi", id="1"),
        "send": Send("node", {"x": 1}),
    }
    config = put(saver, None, values)
    saver.put_writes(config, list(values.items()), "task")
    found = saver.get_tuple(config)
    assert found is not None
    expected = {**values, "tuple": [1, [2, "x"]]}
    assert found.checkpoint["channel_values"] == expected
    assert type(found.checkpoint["channel_values"]["bytearray"]) is bytearray
    assert type(found.checkpoint["channel_values"]["bytes"]) is bytes
    assert found.pending_writes == [("task", name, value) for name, value in expected.items()]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="float32").reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype="int64").reshape(2, 3)),
        np.arange(20)[::3],
        np.array(5.0),
        np.array([], dtype="uint8"),
        np.array([1 + 2j]),
        np.array([True, False]),
        np.array([float("nan"), float("inf"), -0.0]),
    ],
    ids=str,
)
def test_numpy_arrays_come_back(saver: LgkvSaver, array: np.ndarray[Any, Any]) -> None:
    config = put(saver, None, {"a": array, "b": {"nested": [array]}})
    found = saver.get_tuple(config)
    assert found is not None
    for back in (
        found.checkpoint["channel_values"]["a"],
        found.checkpoint["channel_values"]["b"]["nested"][0],
    ):
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


SECRETS = [
    f"secret-{part}-0123456789"
    for part in ("value", "key", "write", "metadata", "config", "metakey", "seen")
]


def put_secrets(saver: LgkvSaver) -> None:
    config = config_of()
    config["metadata"] = {"user": SECRETS[4]}
    checkpoint = checkpoint_of({"a": [SECRETS[0], {SECRETS[1]: b"x"}]})
    checkpoint["versions_seen"] = {"node": {"a": SECRETS[6]}}
    stored = saver.put(config, checkpoint, {"note": SECRETS[3], SECRETS[5]: [1]}, {"a": 1})
    saver.put_writes(stored, [("a", SECRETS[2])], "task")


def in_file(db: lgkv.Database) -> list[str]:
    """Return those of the secrets that can be read in the file's bytes."""
    with open(db.stats().path, "rb") as file:
        raw = file.read()
    return [secret for secret in SECRETS if secret.encode() in raw]


class Masking(JsonPlusSerializer):
    """Somebody's own encryption, by way of a subclass."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        kind, raw = super().dumps_typed(obj)
        return kind, bytes(byte ^ 0x5A for byte in raw)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return super().loads_typed((data[0], bytes(byte ^ 0x5A for byte in data[1])))


@pytest.mark.parametrize(
    "make", [aes, lambda: aes(lgkv_strict()), Masking], ids=["aes", "strict aes", "own"]
)
def test_nothing_of_values_or_metadata_is_in_clear_under_encryption(
    db: lgkv.Database, make: Callable[[], Any]
) -> None:
    put_secrets(LgkvSaver(db, serde=make()))
    assert in_file(db) == []
    [thread] = db.threads()
    assert thread.metadata == {}


def test_without_encryption_the_secrets_are_in_the_file(db: lgkv.Database) -> None:
    put_secrets(LgkvSaver(db))
    assert in_file(db) == SECRETS  # else the test above could not fail


def test_filter_works_on_encrypted_metadata(db: lgkv.Database) -> None:
    saver = LgkvSaver(db, serde=aes())
    ids = [id_of(put(saver, metadata={"step": step})) for step in range(5)]
    assert ids_of(saver.list(None, filter={"step": {"$gte": 3}})) == [ids[4], ids[3]]


def test_encrypted_values_do_not_open_with_another_key(db: lgkv.Database) -> None:
    config = put(LgkvSaver(db, serde=aes()), None, {"a": 1})
    other = EncryptedSerializer.from_pycryptodome_aes(key=b"fedcba9876543210")
    with pytest.raises(ValueError, match="MAC"):
        LgkvSaver(db, serde=other).get_tuple(config)


def test_clone_with_an_allowlist_shares_the_database(db: lgkv.Database) -> None:
    saver = LgkvSaver(db)
    clone = saver.with_allowlist([("some.module", "Name")])
    assert isinstance(clone, LgkvSaver)
    assert clone is not saver
    assert clone.serde is not saver.serde
    assert clone.db is saver.db
    config = put(clone, None, {"a": 1})
    assert saver.get_tuple(config) == clone.get_tuple(config)
    clone.close()
    assert not db.closed
    assert saver.with_allowlist([]) is saver


def test_what_was_stored_without_langgraph_is_read_by_the_saver(
    db: lgkv.Database, saver: LgkvSaver
) -> None:
    checkpoint: dict[str, Any] = dict(checkpoint_of({"a": [1, {"b": None}]}))
    db.checkpoints.put("t", checkpoint, metadata={"step": 3})
    db.checkpoints.put_writes("t", checkpoint["id"], "task", [("a", [2])])
    for reader in (saver, LgkvSaver(db, serde=aes())):
        found = reader.get_tuple(config_of())
        assert found is not None
        assert found.checkpoint == checkpoint
        assert found.pending_writes == [("task", "a", [2])]
        assert found.metadata == {"step": 3}


@pytest.mark.parametrize(
    "value",
    [object(), {"deep": [lambda: 1]}, 2**64, {1, object()}],
    ids=["object", "lambda", "int", "set"],
)
def test_value_that_cannot_be_encoded_is_a_clear_error_and_nothing_is_written(
    db: lgkv.Database, saver: LgkvSaver, value: Any
) -> None:
    config = put(saver, None, {"a": 1})
    before = records(db)
    with pytest.raises(InvalidInputError, match="cannot be stored"):
        put(saver, config, {"a": 2, "b": value})
    with pytest.raises(InvalidInputError, match="cannot be stored"):
        saver.put_writes(config, [("a", 1), ("b", value)], "task")
    assert records(db) == before


def test_pickle_is_neither_written_nor_read(db: lgkv.Database, saver: LgkvSaver) -> None:
    config = put(
        LgkvSaver(db, serde=JsonPlusSerializer(pickle_fallback=True)),
        None,
        {"a": {1, (2, 3)}, "b": range(3)},
    )
    with pytest.raises(NotImplementedError, match="pickle"):
        saver.get_tuple(config)
    assert saver.serde.pickle_fallback is False


# --- sends of old checkpoints --------------------------------------------------------------


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


# --- copying and deleting ------------------------------------------------------------------


def fill(saver: LgkvSaver, thread: str, run: str = "run") -> list[Any]:
    """Store checkpoints in two namespaces with writes, early ones too; return their configs."""
    configs, parent = [], config_of(thread)
    for step in range(4):
        parent = put(
            saver,
            parent,
            {"a": step, "b": [1]},
            {"a": step, "b": 1},
            metadata={"step": step, "run_id": f"{run}{step % 2}"},
        )
        saver.put_writes(parent, [("a", step), ("__error__", "e")], "task")
        configs.append(parent)
    child = put(
        saver, config_of(thread, "child:1"), {"c" * 300: "x"}, metadata={"run_id": f"{run}0"}
    )
    saver.put_writes(config_of(thread, "child:1", "é" * 400), [("a", "early")], "t" * 400)
    return [*configs, child]


def everything(saver: LgkvSaver, thread: str) -> list[Any]:
    return [
        (
            found.checkpoint,
            found.metadata,
            found.pending_writes,
            found.parent_config and id_of(found.parent_config),
        )
        for found in saver.list(config_of(thread, None))
    ]


def test_copy_has_everything_and_a_life_of_its_own(db: lgkv.Database, saver: LgkvSaver) -> None:
    fill(saver, "source")
    before = everything(saver, "source")
    saver.copy_thread("source", "copy")
    assert everything(saver, "copy") == before
    assert {
        each.config["configurable"]["thread_id"] for each in saver.list(config_of("copy", None))
    } == {"copy"}
    source, copy = (
        next(each for each in db.threads() if each.thread_id == name) for name in ("source", "copy")
    )
    assert (copy.checkpoints, copy.size_bytes) == (source.checkpoints, source.size_bytes)
    put(saver, config_of("copy", "child:1"), checkpoint_id="é" * 400)
    found = saver.get_tuple(config_of("copy", "child:1"))
    assert found is not None
    assert found.pending_writes == [("t" * 400, "a", "early")]
    assert everything(saver, "source") == before
    saver.delete_thread("source")
    assert len(everything(saver, "copy")) == len(before) + 1
    assert saver.get_tuple(config_of("source")) is None


def test_copy_of_a_run_is_deleted_with_it(saver: LgkvSaver) -> None:
    fill(saver, "source")
    saver.copy_thread("source", "copy")
    saver.delete_for_runs(["run0"])
    assert [each[1]["step"] for each in everything(saver, "copy")] == [3, 1]


def test_copy_to_a_thread_that_exists_is_refused(db: lgkv.Database, saver: LgkvSaver) -> None:
    fill(saver, "source")
    put(saver, config_of("target"))
    saver.put_writes(config_of("early", "", new_id()), [("a", 1)], "task")
    before = records(db)
    for target in ("target", "source", "early"):
        with pytest.raises(InvalidInputError, match="already"):
            saver.copy_thread("source", target)
    assert records(db) == before


def test_copy_of_a_thread_that_does_not_exist_is_refused(
    db: lgkv.Database, saver: LgkvSaver
) -> None:
    before = records(db)
    with pytest.raises(InvalidInputError, match="no thread"):
        saver.copy_thread("source", "target")
    assert records(db) == before


@pytest.mark.parametrize(
    "delete",
    [
        lambda saver: saver.delete_thread("t"),
        lambda saver: saver.prune(["t", "unknown"], strategy="delete"),
    ],
    ids=["delete_thread", "prune"],
)
def test_delete_frees_every_record(
    db: lgkv.Database, saver: LgkvSaver, delete: Callable[[LgkvSaver], None]
) -> None:
    fill(saver, "other", "its run")
    before, threads, kept = records(db), db.stats().threads, everything(saver, "other")
    fill(saver, "t")
    assert all(records(db)[table] > before[table] for table in ("threads", "names", "index"))
    delete(saver)
    assert records(db) == before
    assert db.stats().threads == threads
    assert everything(saver, "other") == kept


def test_deleting_all_runs_of_a_thread_frees_every_record(
    db: lgkv.Database, saver: LgkvSaver
) -> None:
    before = records(db)
    for step in range(4):
        config = put(saver, None, {"a": step}, {"a": step}, metadata={"run_id": f"r{step % 2}"})
        saver.put_writes(config, [("a", 1)], "task")
    saver.delete_for_runs(["r0"])
    assert [each.checkpoint["channel_values"]["a"] for each in saver.list(None)] == [3, 1]
    saver.delete_for_runs(["r1", "r0", "unknown"])
    assert records(db) == before


def test_delete_for_runs_leaves_other_runs_their_values(saver: LgkvSaver) -> None:
    first = put(saver, None, {"a": "kept"}, {"a": 1}, metadata={"run_id": "r1"})
    second = put(saver, first, {}, {"a": 1}, new=[], metadata={"run_id": "r2"})
    put(saver, config_of("other", "ns"), metadata={"run_id": "r1"})
    saver.delete_for_runs(["r1"])
    assert saver.get_tuple(first) is None
    assert saver.get_tuple(config_of("other", "ns")) is None
    found = saver.get_tuple(second)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": "kept"}


def test_run_of_a_replaced_checkpoint_is_the_new_one(saver: LgkvSaver) -> None:
    put(saver, metadata={"run_id": "old"}, checkpoint_id="1")
    put(saver, metadata={"run_id": "new"}, checkpoint_id="1")
    saver.delete_for_runs(["old"])
    assert len(list(saver.list(None))) == 1
    saver.delete_for_runs(["new"])
    assert list(saver.list(None)) == []


def test_one_str_is_no_list_of_runs_or_threads(saver: LgkvSaver) -> None:
    put(saver, config_of("t"), metadata={"run_id": "r"})
    with pytest.raises(InvalidInputError, match="list"):
        saver.delete_for_runs("r")
    with pytest.raises(InvalidInputError, match="list"):
        saver.prune("t")
    assert saver.get_tuple(config_of("t")) is not None


def test_deleted_thread_that_comes_back_has_nothing_of_before(saver: LgkvSaver) -> None:
    config = fill(saver, "t")[0]
    saver.delete_thread("t")
    put(saver, config_of("t"), {}, {"a": 0, "b": 1}, new=[], checkpoint_id=id_of(config))
    found = saver.get_tuple(config_of("t"))
    assert found is not None
    assert found.checkpoint["channel_values"] == {}
    assert found.pending_writes == []


# --- opening -------------------------------------------------------------------------------


def test_from_conn_string_is_usable_at_once_and_as_a_context_manager(path: str) -> None:
    saver = LgkvSaver.from_conn_string(path)
    put(saver, None, {"a": 1})
    with LgkvSaver.from_conn_string(path) as again:
        assert again.get_tuple(config_of()) is not None
    with pytest.raises(lgkv.ClosedError):
        again.get_tuple(config_of())
    assert saver.get_tuple(config_of()) is not None
    saver.close()
    with pytest.raises(lgkv.ClosedError):
        saver.get_tuple(config_of())


def test_from_conn_string_takes_the_options_of_open_and_of_the_class(path: str) -> None:
    serde = aes()
    with LgkvSaver.from_conn_string(path, serde=serde, lock_timeout_s=5.0) as saver:
        assert saver.serde is serde
        with pytest.raises(InvalidInputError, match="same options"):
            LgkvSaver.from_conn_string(path, lock_timeout_s=6.0)
    with pytest.raises(InvalidInputError, match="no file"):
        LgkvSaver.from_conn_string(path + "2", mode="w")
    with pytest.raises(InvalidInputError, match="memory"):
        LgkvSaver.from_conn_string(":memory:")
    with pytest.raises(TypeError, match="unknown_option"):
        LgkvSaver.from_conn_string(path, unknown_option=1)


def test_saver_on_a_read_only_database_reads_and_refuses_to_write(path: str) -> None:
    with lgkv.open(path) as db:
        config = put(LgkvSaver(db), None, {"a": 1})
    with lgkv.open(path, mode="r") as db:
        saver = LgkvSaver(db)
        assert saver.get_tuple(config) is not None
        assert len(list(saver.list(None))) == 1
        with pytest.raises(lgkv.ReadOnlyError):
            put(saver)
        with pytest.raises(lgkv.ReadOnlyError):
            saver.delete_thread("t")


def test_names_without_bounds(saver: LgkvSaver) -> None:
    names = ["x" * 100_000, "x" * 99_999 + "y", "\x00", "a\x00b", "😀" * 100, "\ud800", ""]
    for at, name in enumerate(names):
        config = put(
            saver, config_of(name, name), {name: at}, {name: name or "v"}, checkpoint_id="id"
        )
        saver.put_writes(config, [(name, at)], name, name)
    for at, name in enumerate(names):
        found = saver.get_tuple(config_of(name, name, "id"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {name: at}
        assert found.pending_writes == [(name, name, at)]
    assert len(list(saver.list(None))) == len(names)
    for name in names:
        saver.delete_thread(name)
    assert list(saver.list(None)) == []


def test_checkpoint_type_is_what_the_runtime_makes() -> None:
    assert set(checkpoint_of()) == set(Checkpoint.__annotations__)
