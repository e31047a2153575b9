"""The handle on a file: what it tells of it, lists, and copies."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lmdb import verify

import lgkv
from lgkv.layout import FORMAT_VERSION
from lgkv.memory import Put
from tests.invariants import broken_invariants


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "agent.lgkv")


@pytest.fixture
def db(path: str) -> Iterator[lgkv.Database]:
    with lgkv.open(path) as opened:
        yield opened


def put(db: lgkv.Database, thread: str, number: int, **metadata: Any) -> None:
    checkpoint = {
        "id": f"{number:08}",
        "channel_values": {"n": number},
        "channel_versions": {"n": number},
    }
    db.checkpoints.put(thread, checkpoint, metadata=metadata)


# --- threads -------------------------------------------------------------------------------


def test_threads_come_with_the_newest_checkpoint_first(db: lgkv.Database) -> None:
    for number, thread in enumerate(("a", "b", "c", "a")):
        put(db, thread, number)
    assert [info.thread_id for info in db.threads()] == ["a", "c", "b"]
    assert [info.checkpoints for info in db.threads()] == [2, 1, 1]


def test_pages_of_threads_leave_none_out_and_give_none_twice(db: lgkv.Database) -> None:
    for number in range(23):
        put(db, f"thread {number}", number)
    listed, page = [], db.threads(limit=5)
    while page:
        listed += [info.thread_id for info in page]
        page = db.threads(limit=5, before=page[-1])
    assert listed == [f"thread {number}" for number in reversed(range(23))]


def test_threads_are_filtered_by_the_metadata_of_their_newest_checkpoint(
    db: lgkv.Database,
) -> None:
    put(db, "a", 1, user="bob")
    put(db, "b", 2, user="ann")
    put(db, "a", 3, user="ann", step=7)
    assert [info.thread_id for info in db.threads(filter={"user": "ann"})] == ["a", "b"]
    assert [info.thread_id for info in db.threads(filter={"user": "bob"})] == []
    assert [info.thread_id for info in db.threads(filter={"step": {"$gt": 5}})] == ["a"]


def test_thread_tells_its_times_and_its_size(db: lgkv.Database) -> None:
    put(db, "a", 1)
    [first] = db.threads()
    put(db, "a", 2)
    [second] = db.threads()
    assert second.created_at == first.created_at
    assert second.created_at.tzinfo is not None
    assert second.updated_at > first.updated_at
    assert second.size_bytes > first.size_bytes > 0


# --- stats ---------------------------------------------------------------------------------


def test_stats_count_what_the_file_holds(db: lgkv.Database, path: str) -> None:
    empty = db.stats()
    assert empty.records == {"threads": 0, "memory": 0, "names": 0, "index": 0}
    put(db, "a", 1)
    db.memory.put(("n",), "k", {"x": 1})
    found = db.stats()
    assert (found.path, found.format_version) == (path, FORMAT_VERSION)
    assert (found.threads, found.commits - empty.commits, found.changes) == (1, 2, 2)
    assert found.last_commit == empty.last_commit + 2
    assert found.file_bytes == os.path.getsize(path)
    assert 0 < found.used_bytes <= found.file_bytes
    assert all(count > 0 for count in found.records.values())


def test_deleted_data_leaves_no_record(db: lgkv.Database) -> None:
    before = db.stats().records
    put(db, "a", 1, run_id="r")
    db.checkpoints.put_writes("a", "00000001", "task", [("n", 1)])
    db.memory.put(("n",), "k", {"x": 1}, ttl_seconds=60)
    db.cache.set(("c",), "k", 1, ttl_seconds=60)
    db.checkpoints.delete_thread("a")
    db.memory.delete(("n",), "k")
    db.cache.clear()
    assert db.stats().records == before


# --- backup --------------------------------------------------------------------------------


def test_backup_holds_everything_and_is_the_owners_alone(db: lgkv.Database, tmp_path: Path) -> None:
    put(db, "a", 1)
    db.memory.put(("n",), "k", {"x": 1})
    target = tmp_path / "copy.lgkv"
    db.backup(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert verify.verify(str(target), subdir=False) == []
    with lgkv.open(target) as copy:
        assert copy.checkpoints.get("a").checkpoint["channel_values"] == {"n": 1}  # type: ignore[union-attr]
        assert copy.memory.get(("n",), "k").value == {"x": 1}  # type: ignore[union-attr]
        assert broken_invariants(copy) == []


def test_backup_takes_a_path_of_bytes(db: lgkv.Database, tmp_path: Path) -> None:
    db.backup(os.fsencode(tmp_path / "copy.lgkv"))  # type: ignore[arg-type]
    assert verify.verify(str(tmp_path / "copy.lgkv"), subdir=False) == []


def test_backup_leaves_out_what_was_deleted(db: lgkv.Database, tmp_path: Path) -> None:
    db.memory.put(("n",), "k", {"secret": "the door code is 4711", "pad": os.urandom(50_000)})
    db.memory.delete(("n",), "k")
    db.backup(tmp_path / "copy.lgkv")
    assert (tmp_path / "copy.lgkv").stat().st_size < 50_000


def test_backups_are_consistent_while_others_write(db: lgkv.Database, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            items = [Put((f"n{k}",), "k", {"number": number}) for k in range(5)]
            db.memory.put_many(items)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            target = tmp_path / f"copy {number}.lgkv"
            db.backup(target)
            with lgkv.open(target, mode="r") as copy:
                found = [copy.memory.get((f"n{k}",), "k") for k in range(5)]
                assert len({item and item.value["number"] for item in found}) == 1
    finally:
        stop.set()
        writer.join()


def test_backup_replaces_a_file_only_if_told_to(db: lgkv.Database, tmp_path: Path) -> None:
    target = tmp_path / "copy.lgkv"
    target.write_text("mine", encoding="utf-8")
    with pytest.raises(lgkv.InvalidInputError, match="exists: pass overwrite=True"):
        db.backup(target)
    assert target.read_text(encoding="utf-8") == "mine"
    put(db, "a", 1)
    db.backup(target, overwrite=True)
    with lgkv.open(target, mode="r") as copy:
        assert copy.stats().threads == 1


def test_backup_never_replaces_a_file_that_is_open(
    db: lgkv.Database, path: str, tmp_path: Path
) -> None:
    other = tmp_path / "other.lgkv"
    with lgkv.open(other):
        for target in (path, other):
            with pytest.raises(lgkv.InvalidInputError, match="is open in this process"):
                db.backup(target, overwrite=True)
    put(db, "a", 1)
    assert db.stats().threads == 1


def test_failing_backup_leaves_nothing_behind(
    db: lgkv.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    before = sorted(os.listdir(tmp_path))
    monkeypatch.setattr("lgkv.env.Environment.copy_to", full)
    with pytest.raises(lgkv.StorageError, match="the disk is full"):
        db.backup(tmp_path / "copy.lgkv")
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("name", ["none/copy.lgkv", "."])
def test_backup_to_where_no_file_can_be_is_named(
    db: lgkv.Database, tmp_path: Path, name: str
) -> None:
    with pytest.raises(lgkv.InvalidInputError, match=r"no folder|is a directory"):
        db.backup(tmp_path / name)


# --- closing -------------------------------------------------------------------------------


def test_closed_handle_refuses_every_use(path: str) -> None:
    db = lgkv.open(path)
    iterator = db.checkpoints.list()
    db.close()
    db.close()
    assert db.closed
    for use in (
        lambda: db.checkpoints.get("a"),
        lambda: put(db, "a", 1),
        lambda: db.memory.get(("n",), "k"),
        lambda: db.memory.put(("n",), "k", {}),
        lambda: db.cache.get(("c",), "k"),
        lambda: db.cache.set(("c",), "k", 1),
        db.threads,
        db.stats,
        lambda: db.backup(f"{path}.copy"),
        lambda: next(iterator),
    ):
        with pytest.raises(lgkv.ClosedError, match="was closed: open it again"):
            use()
