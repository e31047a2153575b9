"""The saver where it is easy to get wrong, checked without a graph."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    Checkpoint,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot

import lgkv
from lgkv.checkpoints import SPECIAL_WRITES
from lgkv.errors import InvalidInputError
from lgkv.langgraph import LgkvSaver
from lgkv.langgraph.aio import AsyncLgkvSaver
from tests.conformance.checkpoints import checkpoint_of, config_of, id_of, ids_of, new_id, put


def records(db: lgkv.Database) -> dict[str, int]:
    return db.stats().records


# --- the interface -----------------------------------------------------------------------


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


# --- put and get_tuple -------------------------------------------------------------------


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


def test_writes_without_a_checkpoint_id_are_a_clear_error(saver: LgkvSaver) -> None:
    with pytest.raises(InvalidInputError, match="checkpoint_id"):
        saver.put_writes(config_of(), [("a", 1)], "task")


def test_checkpoint_id_that_is_no_str_is_the_string_of_itself(saver: LgkvSaver) -> None:
    number: Any = uuid.UUID(int=7)
    put(saver, None, {"a": 1}, checkpoint_id=str(number))
    saver.put_writes(config_of("t", "", number), [("a", 2)], "task")
    found = saver.get_tuple(config_of("t", "", number))
    assert found is not None
    assert found.pending_writes == [("task", "a", 2)]
    child = saver.get_tuple(put(saver, config_of("t", "", number)))
    assert child is not None
    assert child.parent_config == config_of("t", "", str(number))
    assert ids_of(saver.list(config_of("t", "", number))) == [str(number)]
    assert ids_of(saver.list(None, before=config_of("t", "", number))) == []


def test_empty_checkpoint_id_is_none(saver: LgkvSaver) -> None:
    stored = put(saver, config_of("t", "", ""))
    found = saver.get_tuple(config_of("t", "", ""))
    assert found is not None
    assert found.config == stored
    assert found.parent_config is None
    assert ids_of(saver.list(config_of("t", "", ""), before=config_of("t", "", ""))) == [
        id_of(stored)
    ]


# --- values by channel and version -------------------------------------------------------


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


# --- versions ----------------------------------------------------------------------------


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


# --- opening -----------------------------------------------------------------------------


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
    serde = JsonPlusSerializer()
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
