"""Bad input gets an error that names the value and the remedy, and nothing is written."""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import pytest
from langgraph.store.base import InvalidNamespaceError, PutOp, SearchOp

import lgkv
from lgkv import InvalidInputError
from lgkv.langgraph import LgkvCache, LgkvSaver, LgkvStore, LgkvVectorStore

HOTEL = {"name": "Astoria"}


def embed(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), 1.0, 0.0] for text in texts]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "agent.lgkv")


@pytest.fixture
def db(path: str) -> Iterator[lgkv.Database]:
    with lgkv.open(path) as opened:
        yield opened


@contextmanager
def nothing_written(db: lgkv.Database) -> Iterator[None]:
    """Hold that no commit was made and no record came or went."""
    before = db.stats()
    yield
    after = db.stats()
    assert (after.last_commit, after.records) == (before.last_commit, before.records)


# --- opening -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "a"}, r"unknown mode 'a'.*'c'.*'w'.*'r'"),
        ({"mode": ""}, "unknown mode ''"),
        ({"durability": "none"}, "unknown durability 'none'.*'full'.*'interval'"),
        ({"interval_ms": 0}, "interval_ms is 0.*milliseconds"),
        ({"map_size_bytes": 10}, "map_size_bytes is 10.*1048576"),
        ({"lock_timeout_s": -1}, "lock_timeout_s is -1.*seconds"),
        ({"cache_bytes": -1}, "cache_bytes is -1"),
        ({"cache_bytes": 1.5}, "cache_bytes is 1.5"),
        ({"compression": None}, "compression is None"),
    ],
)
def test_unusable_option_is_named_and_no_file_is_made(
    path: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(lgkv.InvalidInputError, match=message):
        lgkv.open(path, **options)
    assert os.listdir(os.path.dirname(path)) == []


@pytest.mark.parametrize("mode", ["w", "r"])
def test_missing_file_is_named_with_the_mode_that_makes_one(path: str, mode: str) -> None:
    with pytest.raises(lgkv.InvalidInputError, match=r"no file.*agent\.lgkv.*mode='c'"):
        lgkv.open(path, mode=mode)
    assert not os.path.exists(path)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(lgkv.InvalidInputError, match=r"no folder.*create it first"):
        lgkv.open(tmp_path / "none" / "agent.lgkv")


@pytest.mark.parametrize("mode", ["c", "w", "r"])
def test_directory_is_no_file(tmp_path: Path, mode: str) -> None:
    with pytest.raises(lgkv.InvalidInputError, match="is a directory: name a file inside it"):
        lgkv.open(tmp_path, mode=mode)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mode", ["c", "w", "r"])
def test_empty_file_is_damage_and_stays_empty(path: str, mode: str) -> None:
    Path(path).touch()
    with pytest.raises(lgkv.CorruptionError, match="the file is empty; delete it"):
        lgkv.open(path, mode=mode)
    assert os.path.getsize(path) == 0
    assert os.listdir(os.path.dirname(path)) == ["agent.lgkv"]


def foreign_text(path: str) -> None:
    Path(path).write_text("dear diary\n" * 1000, encoding="utf-8")


def foreign_database(path: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("create table t (x)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("make", [foreign_text, foreign_database])
@pytest.mark.parametrize("mode", ["c", "w", "r"])
def test_foreign_file_is_refused_and_stays_as_it_is(
    path: str, mode: str, make: Callable[[str], None]
) -> None:
    make(path)
    before = Path(path).read_bytes()
    with pytest.raises(lgkv.InvalidInputError, match=r"is not an lgkv file.*name another"):
        lgkv.open(path, mode=mode)
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_folder_that_cannot_be_written_is_named(
    path: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr("lgkv.env.os.open", refuse)
    with pytest.raises(lgkv.ReadOnlyError, match=r"folder of .*agent\.lgkv"):
        lgkv.open(path)
    monkeypatch.undo()
    assert os.listdir(os.path.dirname(path)) == []


def test_disk_that_fails_while_a_file_is_made_leaves_none(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise lmdb.DiskError("mdb_env_open", errno.EIO)

    monkeypatch.setattr("lgkv.env.lmdb.open", fail)
    with pytest.raises(lgkv.StorageError, match=r"agent\.lgkv"):
        lgkv.open(path)
    monkeypatch.undo()
    assert os.listdir(os.path.dirname(path)) == []


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="whoever runs this may write everywhere"
)
def test_read_only_folder_is_refused_for_real(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir(mode=0o500)
    with pytest.raises(lgkv.ReadOnlyError, match="not writable"):
        lgkv.open(folder / "agent.lgkv")


@pytest.mark.parametrize("make", [LgkvSaver, LgkvStore, LgkvCache])
def test_memory_is_no_path(make: Any) -> None:
    with pytest.raises(lgkv.InvalidInputError, match="give a path instead of ':memory:'"):
        make.from_conn_string(":memory:")


@pytest.mark.parametrize("make", [LgkvSaver, LgkvStore, LgkvCache])
def test_string_of_another_database_is_no_path(make: Any) -> None:
    url = "postgresql://user:secret@host/db"
    with pytest.raises(lgkv.InvalidInputError, match="begins with 'postgresql'") as caught:
        make.from_conn_string(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("make", [LgkvSaver, LgkvStore, LgkvCache, LgkvVectorStore])
def test_path_is_no_database(make: Any) -> None:
    options = {"mode": "keyword"} if make is LgkvVectorStore else {}
    with pytest.raises(lgkv.InvalidInputError, match=r"db is 'a\.lgkv': give lgkv\.open"):
        make("a.lgkv", **options)


def test_unknown_option_of_a_class_leaves_no_file_open(path: str) -> None:
    with pytest.raises(TypeError, match="colour"):
        LgkvSaver.from_conn_string(path, colour="red")
    lgkv.open(path, cache_bytes=1).close()  # other options: nobody else has it open


# --- checkpoints ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({}, "checkpoint_id is None: give a str"),
        ({"id": 7}, "checkpoint_id is 7: give a str"),
        ({"id": "1", "channel_versions": {"a": None}}, "channel 'a' has the version None"),
        ({"id": "1", "channel_versions": {3: 1}}, "channel 3 has the version 1"),
        (
            {"id": "1", "channel_values": {"a": object()}, "channel_versions": {"a": 1}},
            "value of type object cannot be stored",
        ),
        ({"id": "1", "ts": object()}, "cannot be stored.*builtins.object"),
    ],
)
def test_checkpoint_that_cannot_be_stored_is_named(
    db: lgkv.Database, checkpoint: dict[str, Any], message: str
) -> None:
    with nothing_written(db), pytest.raises(lgkv.InvalidInputError, match=message):
        db.checkpoints.put("t", checkpoint)


@pytest.mark.parametrize("version", [1e300, -1e300, 2.0**256, 1 << 256])
def test_version_that_is_too_large_is_refused_and_not_stored(
    db: lgkv.Database, version: float
) -> None:
    checkpoint = {"id": "1", "channel_values": {"a": 1}, "channel_versions": {"a": version}}
    with pytest.raises(InvalidInputError, match="256 bits"):
        db.checkpoints.put("t", checkpoint)
    assert db.checkpoints.get("t") is None


@pytest.mark.parametrize("version", [1e70, -1e70, float("inf"), 0.5])
def test_version_that_is_any_other_float_comes_back(db: lgkv.Database, version: float) -> None:
    checkpoint = {"id": "1", "channel_values": {"a": 1}, "channel_versions": {"a": version}}
    db.checkpoints.put("t", checkpoint)
    found = db.checkpoints.get("t")
    assert found is not None
    assert found.checkpoint["channel_versions"] == {"a": version}


def test_checkpoint_that_is_no_dict_is_named(db: lgkv.Database) -> None:
    wrong: Any = ["1"]
    with nothing_written(db), pytest.raises(lgkv.InvalidInputError, match=r"\['1'\]: give a dict"):
        db.checkpoints.put("t", wrong)


def test_value_that_the_serialiser_cannot_encode_is_named(db: lgkv.Database) -> None:
    saver = LgkvSaver(db)
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    checkpoint: Any = {
        "v": 4,
        "id": "1",
        "channel_values": {"a": [open]},
        "channel_versions": {"a": 1},
    }
    with nothing_written(db), pytest.raises(lgkv.InvalidInputError, match="cannot be stored"):
        saver.put(config, checkpoint, {}, {"a": 1})
    config["configurable"]["checkpoint_id"] = "1"
    with nothing_written(db), pytest.raises(lgkv.InvalidInputError, match="cannot be stored"):
        saver.put_writes(config, [("a", 1), ("a", open)], "task")


def test_config_without_a_thread_is_named(db: lgkv.Database) -> None:
    with pytest.raises(lgkv.InvalidInputError, match="no 'thread_id'"):
        LgkvSaver(db).get_tuple({"configurable": {}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "all"}, "unknown strategy 'all'.*'keep_latest'.*'delete'"),
        ({"keep_last": 0}, "keep_last is 0.*1 or more"),
        ({"strategy": "delete", "keep_last": 2}, "drop keep_last"),
    ],
)
def test_contradicting_prune_is_named(
    db: lgkv.Database, options: dict[str, Any], message: str
) -> None:
    with nothing_written(db), pytest.raises(lgkv.InvalidInputError, match=message):
        db.checkpoints.prune(["t"], **options)


CONFIG: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "1"}}
CHECKPOINT: Any = {"v": 4, "id": "2", "channel_values": {"a": 1}, "channel_versions": {"a": 1}}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.get_tuple(None), "the config is None"),
        (lambda s: s.get_tuple({"configurable": None}), "no 'thread_id'"),
        (lambda s: s.get_tuple({"configurable": [1]}), r"\['configurable'\] is \[1\]"),
        (lambda s: s.prune(b"ab"), "thread_ids is b'ab'"),
        (lambda s: list(s.list("t")), "the config is 't'"),
        (lambda s: list(s.list(None, before="1")), "the config is '1'"),
        (lambda s: list(s.list(None, limit=1.5)), "limit is 1.5"),
        (lambda s: list(s.list(None, limit="1")), "limit is '1'"),
        (lambda s: s.put(CONFIG, CHECKPOINT, None, {}), "metadata is None"),
        (lambda s: s.put(CONFIG, None, {}, {}), "checkpoint is None"),
        (
            lambda s: s.put(CONFIG, {**CHECKPOINT, "channel_values": ["a"]}, {}, {}),
            "channel_values",
        ),
        (lambda s: s.put(CONFIG, {**CHECKPOINT, "channel_versions": ["a"]}, {}, {}), "versions is"),
        (lambda s: s.put(CONFIG, CHECKPOINT, {}, ["a"]), "versions is"),
        (lambda s: s.put_writes(CONFIG, [(1, "v")], "t"), "channel is 1"),
        (lambda s: s.put_writes(CONFIG, [([1], "v")], "t"), r"channel is \[1\]"),
        (lambda s: s.put_writes(CONFIG, [("a", "v", 2)], "t"), r"a write is \('a', 'v', 2\)"),
        (lambda s: s.put_writes(CONFIG, ["av"], "t"), "a write is 'av'"),
        (lambda s: s.prune(None), "thread_ids is None"),
        (lambda s: s.delete_for_runs(None), "run_ids is None"),
        (lambda s: s.delete_for_runs([5]), "a run id is 5"),
        (lambda s: s.db.threads(limit=None), "limit is None"),
        (lambda s: s.db.threads(before="t"), "before is 't'"),
    ],
)
def test_unusable_argument_of_the_saver_is_named(
    db: lgkv.Database, call: Callable[[LgkvSaver], object], message: str
) -> None:
    with nothing_written(db), pytest.raises(InvalidInputError, match=message):
        call(LgkvSaver(db))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda db: LgkvStore(db, fields=[("a", str)]), "fields is"),
        (lambda db: LgkvStore(db, fields={"a": []}), "the field 'a'"),
        (lambda db: db.memory.put(("a",), "k", {}, vectors=5), "the vectors are 5"),
        (lambda db: db.memory.put(("a",), "k", {}, vectors="abc"), "the vectors are 'abc'"),
        (lambda db: embedding_that_gives(db, None), "gave None for documents"),
        (lambda db: embedding_that_gives(db, iter([[1.0, 2.0, 3.0]])), "for documents"),
    ],
)
def test_unusable_argument_of_the_store_is_named(
    db: lgkv.Database, call: Callable[[Any], object], message: str
) -> None:
    with nothing_written(db), pytest.raises(InvalidInputError, match=message):
        call(db)


def embedding_that_gives(db: lgkv.Database, found: Any) -> None:
    index: Any = {"embed": lambda texts: found, "dims": 3}  # noqa: ARG005  whatever is asked
    LgkvStore(db, index=index).put(("a",), "k", {"text": "t"})


@pytest.mark.parametrize("limit", [sys.maxsize, 10**30])
def test_page_may_be_larger_than_anything(db: lgkv.Database, limit: int) -> None:
    store = LgkvStore(db, index={"embed": embed, "dims": 3})  # type: ignore[typeddict-item]
    for number in range(3):
        store.put(("a",), str(number), {"text": "t" * (1 + number)})
    for query in (None, "ttt"):
        whole = store.search(("a",), query=query)
        assert store.search(("a",), query=query, limit=limit, offset=1) == whole[1:]
        assert store.search(("a",), query=query, limit=1, offset=limit) == []
    assert len(db.memory.search(("a",), limit=limit)) == 3
    assert list(db.checkpoints.list(limit=limit)) == db.threads(limit=limit) == []
    assert len(db.memory.namespaces(limit=limit)) == 1


def test_one_id_is_no_list_of_ids(db: lgkv.Database) -> None:
    with pytest.raises(lgkv.InvalidInputError, match=r"thread_ids is the str 'abc'.*list"):
        db.checkpoints.prune("abc")
    with pytest.raises(lgkv.InvalidInputError, match=r"run_ids is the str 'abc'.*list"):
        db.checkpoints.delete_runs("abc")


@pytest.mark.parametrize("filter_", [{"a": {"$near": 1}}, {"$or": 3}, {"a": {"$in": 5}}])
def test_filter_that_is_none_is_refused_though_nothing_would_match(
    db: lgkv.Database, filter_: dict[str, Any]
) -> None:
    with pytest.raises(lgkv.FilterError):
        db.checkpoints.list(filter=filter_)
    with pytest.raises(lgkv.FilterError):
        db.memory.search((), filter=filter_)
    with pytest.raises(lgkv.FilterError):
        db.threads(filter=filter_)
    with pytest.raises(lgkv.FilterError):
        LgkvStore(db).search(("a",), filter=filter_)


# --- memory --------------------------------------------------------------------------------


@pytest.mark.parametrize("namespace", [[], ["a"], "abc", (), ("a", ""), ("a", 1), None])
def test_namespace_that_is_none_is_refused(db: lgkv.Database, namespace: Any) -> None:
    store = LgkvStore(db)
    with nothing_written(db), pytest.raises((lgkv.InvalidInputError, InvalidNamespaceError)):
        store.batch([PutOp(namespace, "k", HOTEL)])
    with nothing_written(db), pytest.raises((lgkv.InvalidInputError, InvalidNamespaceError)):
        store.put(namespace, "k", HOTEL)
    with nothing_written(db), pytest.raises(lgkv.InvalidInputError):
        db.memory.put(namespace, "k", HOTEL)


def test_one_bad_operation_of_a_batch_writes_none_of_it(db: lgkv.Database) -> None:
    store = LgkvStore(db)
    ops = [PutOp(("a",), "k", HOTEL), PutOp(("b",), "k", {"x": object()})]
    with nothing_written(db), pytest.raises(lgkv.InvalidInputError, match="cannot be stored"):
        store.batch(ops)


@pytest.mark.parametrize("value", [{"x": object()}, {"x": "\ud800"}, {1: 2}, [1], "text"])
def test_value_that_is_no_mapping_of_plain_data_is_refused(db: lgkv.Database, value: Any) -> None:
    with nothing_written(db), pytest.raises(lgkv.InvalidInputError):
        db.memory.put(("a",), "k", value)


def test_value_that_holds_itself_is_refused(db: lgkv.Database) -> None:
    value: dict[str, Any] = {}
    value["self"] = value
    with nothing_written(db), pytest.raises(lgkv.InvalidInputError, match="holds itself"):
        db.memory.put(("a",), "k", value)


@pytest.mark.parametrize("vector", [[1.0, float("nan")], [float("inf"), 1.0], [[[1.0]]]])
def test_vector_that_is_none_is_refused(db: lgkv.Database, vector: Any) -> None:
    with nothing_written(db), pytest.raises(lgkv.InvalidInputError):
        db.memory.put(("a",), "k", HOTEL, vectors=vector)
    with pytest.raises(lgkv.InvalidInputError):
        db.memory.search(("a",), vector=vector)


def test_vectors_of_other_dimensions_are_refused(db: lgkv.Database) -> None:
    db.memory.put(("a",), "k", HOTEL, vectors=[1.0, 2.0])
    with (
        nothing_written(db),
        pytest.raises(lgkv.DimensionMismatchError, match="3 dimensions, the index 2") as caught,
    ):
        db.memory.put(("a",), "other", HOTEL, vectors=[1.0, 2.0, 3.0])
    assert (caught.value.found, caught.value.expected) == (3, 2)


def test_embedding_of_other_dimensions_writes_nothing(db: lgkv.Database) -> None:
    store = LgkvStore(db, index={"embed": embed, "dims": 4})
    with nothing_written(db), pytest.raises(lgkv.DimensionMismatchError):
        store.put(("a",), "k", HOTEL)
    with pytest.raises(lgkv.DimensionMismatchError):
        store.search(("a",), query="where?")


def test_embedding_with_a_number_that_is_none_writes_nothing(db: lgkv.Database) -> None:
    def broken(texts: list[str]) -> list[list[float]]:
        return [[float("nan"), 1.0, 0.0] for _ in texts]

    store = LgkvStore(db, index={"embed": broken, "dims": 3})
    with nothing_written(db), pytest.raises(lgkv.InvalidInputError):
        store.put(("a",), "k", HOTEL)


@pytest.mark.parametrize("page", [{"limit": -1}, {"offset": -1}])
def test_negative_page_is_refused(db: lgkv.Database, page: dict[str, int]) -> None:
    with pytest.raises(lgkv.InvalidInputError):
        LgkvStore(db).batch([SearchOp(("a",), **page)])


def test_writing_to_what_was_opened_for_reading_is_refused(path: str) -> None:
    lgkv.open(path).close()
    with lgkv.open(path, mode="r") as db:
        with pytest.raises(lgkv.ReadOnlyError, match=r"mode='r'.*mode='w'"):
            db.memory.put(("a",), "k", HOTEL)
        with pytest.raises(lgkv.ReadOnlyError):
            db.cache.set(("a",), "k", 1)
        assert db.memory.get(("a",), "k") is None
