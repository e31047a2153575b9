"""A flipped bit in any record is found and named, and an opened file keeps its bytes and rights."""

from __future__ import annotations

import os
import random
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lgkv
from lgkv import CorruptionError, InvalidInputError, ReadOnlyError, StorageError
from lgkv.layout import Kind, Table
from lgkv.memory import Put
from tests.invariants import all_records, structural_damage
from tests.processes import run_program

NOW = "1f0e6b00-0000-6000-8000-00000000000"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "agent.lgkv")


@pytest.fixture
def db(path: str) -> Iterator[lgkv.Database]:
    with lgkv.open(path) as opened:
        yield opened


def checkpoint(id_: str, **values: Any) -> dict[str, Any]:
    return {"id": id_, "channel_values": values, "channel_versions": dict.fromkeys(values, 1)}


def fill(db: lgkv.Database) -> None:
    """Store records of every kind."""
    for thread in ("t", "long " * 60):
        for step in range(4):
            db.checkpoints.put(
                thread,
                {
                    "id": f"{NOW}{step}",
                    "channel_values": {
                        "messages": [{"text": f"message {n} " * 9} for n in range(step + 3)],
                        "facts": {f"k{n}": "v" * 60 for n in range(step + 9)},
                        "blob": np.arange(700.0) + step,
                    },
                    "channel_versions": dict.fromkeys(("messages", "facts", "blob"), step + 1),
                    "versions_seen": {"node": {"messages": step}},
                },
                parent_id=f"{NOW}{step - 1}" if step else None,
                metadata={"step": step, "run_id": f"run {step % 2}"},
                namespace="sub|" * 60 if step == 3 else "",
            )
            db.checkpoints.put_writes(
                thread, f"{NOW}{step}", "task " * 50, [("messages", "w" * 300), ("facts", step)]
            )
    db.checkpoints.put("delta", {**checkpoint("1", d=[1]), "channel_versions": {"d": 1}})
    db.checkpoints.put(
        "delta",
        {"id": "2", "channel_versions": {"d": 2}},
        parent_id="1",
        metadata={"counters_since_delta_snapshot": {"d": 1}},
        new_versions={},
    )
    db.checkpoints.prune(["delta"])  # leaves a carrier
    db.checkpoints.put("wide", checkpoint("1", **{f"channel {n}": n for n in range(40)}))
    db.memory.declare_fields({"n": int})
    for number in range(4):
        space, key = ("user", str(number % 2)), "key " * (1 if number else 99)
        db.memory.put(
            space, f"{key}{number}", {"n": number, "text": "y" * 400},
            vectors=[1.0, number], ttl_seconds=1e6 if number % 2 else None, text="some words",
        )  # fmt: skip
        db.cache.set(space, key, {"cached": number}, ttl_seconds=None if number % 2 else 1e6)
    db.memory.put_many(Put(("more",), str(number), {}, [number, 1.0]) for number in range(5))
    db.memory.delete(("more",), "3")
    db.vectors.configure(exact_floats=0)
    assert db.vectors.wait(60)


def read_all(db: lgkv.Database) -> dict[str, Any]:
    """Return what every way of reading gives, or the damage that it found."""
    found: dict[str, Any] = {}

    def note(name: str, read: Callable[[], Any]) -> None:
        try:
            found[name] = repr(read())
        except CorruptionError as error:
            found[name] = error

    for thread in ("t", "long " * 60, "delta", "wide"):
        for space in ("", "sub|" * 60):
            note(
                f"get {thread} {space}",
                lambda t=thread, s=space: db.checkpoints.get(t, namespace=s),
            )
        note(f"list {thread}", lambda t=thread: list(db.checkpoints.list(t)))
        note(f"delta {thread}", lambda t=thread: db.checkpoints.delta_history(t, ["d", "facts"]))
        for step in range(4):
            note(
                f"writes {thread} {step}",
                lambda t=thread, s=step: db.checkpoints.writes(t, f"{NOW}{s}"),
            )
    note("list", lambda: list(db.checkpoints.list()))
    note("filter", lambda: [c.id for c in db.checkpoints.list(filter={"step": 2})])
    note("threads", db.threads)
    note("search", lambda: db.memory.search((), limit=100))
    note("vectors", lambda: db.memory.search((), vector=[1.0, 0.5], limit=100))
    note("field", lambda: db.memory.search((), filter={"n": {"$gte": 0}}))
    note("words", lambda: db.memory.search((), text="words"))
    note("fields", lambda: db.memory.fields)
    note("namespaces", db.memory.namespaces)
    for number in range(4):
        space, key = ("user", str(number % 2)), "key " * (1 if number else 99)
        note(f"item {number}", lambda s=space, k=f"{key}{number}": db.memory.get(s, k))
        note(f"cache {number}", lambda s=space, k=key: db.cache.get(s, k))
    return found


def kind_of(table: Table, key: bytes) -> str:
    if table is Table.MAIN:
        return key.decode()
    return Kind(key[1 + key[0]] if table is Table.THREADS else key[0]).name


def test_engine_works_without_langgraph(path: str) -> None:
    run_program(
        """
        import sys
        import lgkv
        with lgkv.open(sys.argv[1]) as db:
            value = {"id": "1", "channel_values": {"m": ["hi"]}, "channel_versions": {"m": 1}}
            db.checkpoints.put("t", value, metadata={"step": 1})
            db.checkpoints.put_writes("t", "1", "task", [("m", "there")])
            assert db.checkpoints.get("t").checkpoint["channel_values"] == {"m": ["hi"]}
            assert db.checkpoints.get("t").writes == [("task", "m", "there")]
            assert [info.thread_id for info in db.threads(filter={"step": 1})] == ["t"]
            db.checkpoints.copy_thread("t", "u")
            db.checkpoints.prune(["u"])
            db.checkpoints.delete_thread("t")
            db.memory.put(("n",), "k", {"a": 1}, vectors=[1.0, 0.0])
            assert db.memory.search((), vector=[1.0, 0.0])[0].score == 1.0
            db.cache.set(("n",), "k", 1)
            db.backup(sys.argv[1] + ".backup")
            db.stats()
        loaded = {name.partition(".")[0] for name in sys.modules}
        assert not loaded & {"langgraph", "langchain_core", "asyncio"}, loaded
        """,
        path,
    )


class TestOpened:
    def test_listing_outlives_the_names_of_its_handle(self, path: str) -> None:
        with lgkv.open(path) as db:
            for number in range(5):
                db.checkpoints.put("t", checkpoint(str(number)))
        ids = [found.id for found in lgkv.open(path).checkpoints.list("t")]
        assert ids == ["4", "3", "2", "1", "0"]

    def test_lock_file_is_never_overwritten(self, db: lgkv.Database, path: str) -> None:
        before = os.stat(path + "-lock").st_ino
        with pytest.raises(InvalidInputError, match="lock file"):
            db.backup(path + "-lock", overwrite=True)
        assert os.stat(path + "-lock").st_ino == before

    @pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
    def test_full_disk_is_a_typed_error(self, db: lgkv.Database) -> None:
        full = os.open("/dev/full", os.O_WRONLY)
        try:
            with pytest.raises(StorageError):
                db._connection.env.copy_to(full)
        finally:
            os.close(full)
        db.checkpoints.put("t", checkpoint("1"))


class TestPermissions:
    @pytest.mark.parametrize("umask", [0o000, 0o077, 0o022])
    def test_file_and_lock_and_backup_are_the_owners_alone(self, path: str, umask: int) -> None:
        old = os.umask(umask)
        try:
            with lgkv.open(path) as db:
                db.backup(path + ".backup")
        finally:
            os.umask(old)
        for name in (path, path + "-lock", path + ".backup"):
            assert stat.S_IMODE(os.stat(name).st_mode) == 0o600

    def test_reading_changes_no_byte(self, path: str) -> None:
        with lgkv.open(path) as db:
            fill(db)
        before, changed = Path(path).read_bytes(), os.stat(path).st_mtime_ns
        with lgkv.open(path, mode="r") as db:
            read_all(db)
            db.stats()
            assert db.read_only
            writes: list[Callable[[], Any]] = [
                lambda: db.checkpoints.put("t", checkpoint("9")),
                lambda: db.checkpoints.delete_thread("t"),
                lambda: db.memory.put(("n",), "k", {}),
                db.cache.clear,
            ]
            for write in writes:
                with pytest.raises(ReadOnlyError):
                    write()
        assert (Path(path).read_bytes(), os.stat(path).st_mtime_ns) == (before, changed)

    def test_what_a_killed_creator_left_harms_nobody(self, path: str) -> None:
        left = Path(path).with_name(".agent.lgkv.0123456789ab.tmp")
        left.write_bytes(b"half")
        with lgkv.open(path) as db:
            db.checkpoints.put("t", checkpoint("1"))
        assert left.read_bytes() == b"half"
        assert structural_damage(path) == []


def with_flipped_bit(whole: bytes, record: bytes, bit: int) -> bytes:
    """Flip a bit of a record wherever it is: pages of earlier commits hold it too."""
    damaged = bytearray(record)
    damaged[bit // 8] ^= 1 << bit % 8
    assert record in whole
    return whole.replace(record, bytes(damaged))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("damage") / "agent.lgkv")
    with lgkv.open(path) as db:
        fill(db)
    return path


class TestDamage:
    @staticmethod
    def records(path: str) -> list[tuple[Table, bytes, bytes]]:
        with lgkv.open(path) as db, db._connection.snapshot() as snapshot:
            found = []
            for table in Table:
                for key, _, _ in all_records(snapshot, table):
                    raw = snapshot._txn.get(key, None, snapshot._databases[table])
                    found.append((table, key, bytes(raw)))
            return found

    def test_sample_has_every_kind_of_record(self, filled: str) -> None:
        kinds = {kind_of(table, key) for table, key, _ in self.records(filled)}
        assert kinds == {kind.name for kind in Kind} | {"lgkv.meta", "lgkv.state"}

    def test_flipped_bit_in_any_record_is_named_and_nothing_wrong_is_read(
        self, filled: str, tmp_path: Path
    ) -> None:
        rnd = random.Random(7)
        whole = Path(filled).read_bytes()
        with lgkv.open(filled, mode="r") as db:
            good = read_all(db)
        damaged = str(tmp_path / "damaged.lgkv")
        tried, noticed = Counter[str](), set[str]()
        several = self.records(filled)
        rnd.shuffle(several)
        for table, key, record in several:
            kind = kind_of(table, key)
            if tried[kind] == 5:
                continue
            tried[kind] += 1
            bit = rnd.randrange(len(record) * 8)
            Path(damaged).write_bytes(with_flipped_bit(whole, record, bit))
            for error in self.damage_found(damaged, good):
                assert (error.database, error.key) == (table.label, key), (kind, bit)
                noticed.add(kind)
        # What an index entry says stands in its key: its body is empty, and is not read. The words
        # and the vectors of an item are read by writers only; without the counters reading does
        # without memory. The log of vectors is for who follows it, and a saved graph for a thread
        # in the background, which builds it anew.
        unread = {"LATEST", "RUN", "ITEM_DEADLINE", "CACHE_DEADLINE", "VECTOR_LOG", "VECTOR_GRAPH"}
        assert tried.keys() - noticed <= unread | {"TERMS", "VECTORS", "lgkv.state"}

    @staticmethod
    def damage_found(path: str, good: dict[str, Any]) -> list[CorruptionError]:
        try:
            db = lgkv.open(path, mode="r")
        except CorruptionError as error:
            return [error]
        with db:
            found = read_all(db)
        errors = [result for result in found.values() if isinstance(result, CorruptionError)]
        right = {name: result for name, result in found.items() if isinstance(result, str)}
        assert right == {name: good[name] for name in right}
        return errors

    def test_damaged_counters_stop_writing_and_not_reading(
        self, filled: str, tmp_path: Path
    ) -> None:
        damaged = str(tmp_path / "damaged.lgkv")
        record = next(record for _, key, record in self.records(filled) if key == b"lgkv.state")
        Path(damaged).write_bytes(with_flipped_bit(Path(filled).read_bytes(), record, 40))
        with lgkv.open(damaged) as db:
            assert db.checkpoints.get("t") is not None
            assert db.memory.get(("user", "0"), "key " * 99 + "0") is not None
            with pytest.raises(CorruptionError) as caught:
                db.checkpoints.put("t", checkpoint("9"))
            assert caught.value.key == b"lgkv.state"

    def test_what_is_intact_can_still_be_written_beside_damage(
        self, filled: str, tmp_path: Path
    ) -> None:
        damaged = str(tmp_path / "damaged.lgkv")
        record = next(r for t, key, r in self.records(filled) if kind_of(t, key) == "PACK")
        Path(damaged).write_bytes(with_flipped_bit(Path(filled).read_bytes(), record, 99))
        with lgkv.open(damaged) as db:
            db.checkpoints.put("new", checkpoint("1", m=[1]))
            db.memory.put(("other",), "k", {"a": 1})
            assert db.memory.get(("other",), "k") is not None
            with pytest.raises(CorruptionError):
                db.memory.search(())

    def test_truncated_file_never_kills_the_process(self, filled: str, tmp_path: Path) -> None:
        """At every page's end and middle: refused, or whole, but never a SIGBUS."""
        folder = tmp_path / "cut"
        folder.mkdir()
        whole = Path(filled).read_bytes()
        sizes = sorted({*range(0, len(whole), 4096), *range(2048, len(whole), 8192)})
        for size in sizes:
            (folder / f"{size:09}.lgkv").write_bytes(whole[:size])
        run_program(
            """
            import os, sys, lgkv
            from tests.unit.test_damage import read_all
            for name in sorted(os.listdir(sys.argv[1])):
                path = os.path.join(sys.argv[1], name)
                try:
                    with lgkv.open(path, mode="w") as db:
                        read_all(db)
                        db.memory.put(("n",), "k", {"a": "x" * 9000})
                except (lgkv.CorruptionError, lgkv.InvalidInputError):
                    pass
            """,
            str(folder),
        )
