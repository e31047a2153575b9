"""Copying threads, and deleting them whole or by run."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

import lgkv
from lgkv.errors import InvalidInputError
from lgkv.langgraph import LgkvSaver
from tests.conformance.checkpoints import config_of, id_of, new_id, put


def records(db: lgkv.Database) -> dict[str, int]:
    return db.stats().records


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


def test_run_id_may_be_a_uuid(saver: LgkvSaver) -> None:
    for thread, run_id in (("t", uuid.UUID(int=7)), ("u", str(uuid.UUID(int=7)))):
        put(saver, config_of(thread), metadata={"run_id": run_id})
    saver.delete_for_runs([uuid.UUID(int=7)])
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
