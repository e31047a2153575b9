"""How vectors lie in the file: slabs, the dead, the log, and who follows it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lgkv
from lgkv.errors import CorruptionError
from lgkv.layout import FLAG_COMPRESSED, Kind, Table
from lgkv.memory import Put
from lgkv.vectors import IndexConfig, packing, read_state, records, slabs
from lgkv.vectors.directory import advance, load_directory
from lgkv.vectors.settings import read_settings
from lgkv.writer import Change
from tests.unit.vector_corpus import clustered, put_all


@pytest.fixture
def db(tmp_path: Path) -> lgkv.Database:
    return lgkv.open(tmp_path / "a.lgkv")


def stored(db: lgkv.Database) -> list[tuple[int, int, int]]:
    """Return of each slab its first label, how many vectors it has, and how many are dead."""
    with db._connection.snapshot() as snapshot:
        settings = read_settings(snapshot)
        assert settings is not None
        found = []
        for first in slabs.slab_firsts(snapshot, settings.generation):
            slab = slabs.read_slab(snapshot, settings.generation, first)
            assert slab is not None
            dead = slabs.dead_labels(snapshot, settings.generation, first)
            found.append((first, len(slab), len(dead)))
        return found


def directory(db: lgkv.Database) -> Any:
    with db._connection.snapshot() as snapshot:
        return db.memory._meaning.index.directory(snapshot)


def keys_of(db: lgkv.Database, kind: Kind) -> list[bytes]:
    with db._connection.snapshot() as snapshot:
        return list(snapshot.keys(Table.MEMORY, bytes((kind,))))


# --- merging ---


def test_vectors_that_come_one_by_one_lie_in_few_slabs(db: lgkv.Database) -> None:
    rows = clustered(200, 8, 1)
    for number, row in enumerate(rows):
        db.memory.put(("a",), str(number), {}, vectors=row)
        sizes = [count for _, count, _ in stored(db)]
        assert sum(sizes) == number + 1
        assert all(big > 2 * small for big, small in pairwise(sizes))
    assert len(stored(db)) <= 8


def test_vector_is_written_a_logarithmic_number_of_times(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    write = slabs._write

    def counted(batch: Any, generation: int, slab: slabs.Slab) -> None:
        written.append(len(slab))
        write(batch, generation, slab)

    monkeypatch.setattr(slabs, "_write", counted)
    for number in range(500):
        db.memory.put(("a",), str(number), {}, vectors=[1.0, number])
    assert sum(written) <= 500 * (np.log2(500) + 1)


def test_slab_has_its_limit(db: lgkv.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "SLAB_BYTES", 5_000)
    monkeypatch.setattr(packing, "SLAB_BYTES", 5_000)
    put_all(db, clustered(300, 8, 1), at_once=120)
    most = 5_000 // (slabs.COLUMN_BYTES + 32)
    assert all(count <= most for _, count, _ in stored(db))
    db.memory.put(("a",), "many", {}, vectors=clustered(most + 5, 8, 2))
    assert max(count for _, count, _ in stored(db)) == most + 5
    assert len(db.memory.search((), vector=clustered(1, 8, 3)[0], limit=999)) == 301


def test_rows_of_a_namespace_lie_together(db: lgkv.Database) -> None:
    for number in range(60):
        db.memory.put(("a", str(number % 3)), str(number), {}, vectors=[1.0, number])
    for place in directory(db).slabs:
        assert sorted(place.nodes.tolist()) == place.nodes.tolist()


def test_import_stores_many_in_few_commits(db: lgkv.Database) -> None:
    rows = clustered(2_500, 8, 1)
    before = db.stats().commits
    puts = (Put(("a",), str(number), {"n": number}, row) for number, row in enumerate(rows))
    assert db.memory.import_items(puts, config=IndexConfig("l2")) == 2_500
    assert db.stats().commits == before + 3
    assert db.memory.search((), vector=rows[7], limit=1)[0].key == "7"
    assert db.memory.import_items([]) == 0
    with pytest.raises(lgkv.InvalidInputError, match="batch_size"):
        db.memory.import_items([], batch_size=0)


# --- the dead ---


def test_dead_vector_stays_until_half_of_its_slab_is(db: lgkv.Database) -> None:
    put_all(db, clustered(10, 4, 1))
    for number in range(4):
        db.memory.delete(("a",), str(number))
    assert stored(db) == [(1, 10, 4)]
    db.memory.delete(("a",), "4")
    assert stored(db) == [(1, 5, 0)]
    for number in range(5, 10):
        db.memory.delete(("a",), str(number))
    assert stored(db) == []
    assert keys_of(db, Kind.VECTOR_DEAD) == []
    assert keys_of(db, Kind.VECTORS) == []
    assert db.vectors.count() == 0


def test_slabs_that_shrink_are_joined(db: lgkv.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "SLAB_BYTES", 40 * 20)
    monkeypatch.setattr(packing, "SLAB_BYTES", 40 * 20)
    rows = clustered(200, 4, 1)
    put_all(db, rows)
    before = len(stored(db))
    for number in range(200):
        if number % 10:
            db.memory.delete(("a",), str(number))
    assert sum(count - dead for _, count, dead in stored(db)) == 20
    assert len(stored(db)) <= before // 4
    found = db.memory.search((), vector=rows[0], limit=99)
    assert {item.key for item in found} == {str(number) for number in range(0, 200, 10)}


def test_item_that_is_written_over_and_over_takes_no_more_room(db: lgkv.Database) -> None:
    db.memory.put(("a",), "stays", {}, vectors=[1, 0])
    for number in range(300):
        db.memory.put(("a",), "changes", {"n": number}, vectors=[0.5, number])
    assert sum(count for _, count, _ in stored(db)) <= 4
    assert {item.key for item in db.memory.search((), vector=[1, 0])} == {"stays", "changes"}


# --- bytes ---


def test_rows_are_aligned_on_a_page_of_their_own() -> None:
    for count in range(1, 40):
        for names in (0, 3, 50, 64):
            start = slabs.first_rows_at(count, names)
            assert (start + 1 + 16) % 64 == 0
            assert start >= 16 + slabs.COLUMN_BYTES * count + names


def test_slab_is_never_compressed(db: lgkv.Database) -> None:
    put_all(db, np.ones((500, 64), np.float32))
    with db._connection.snapshot() as snapshot:
        record = snapshot.mapped(Table.MEMORY, slabs.slab_key(1, 1))
        assert record is not None
        assert record[0] == 0


def test_slab_that_is_compressed_is_read_all_the_same(db: lgkv.Database) -> None:
    put_all(db, np.ones((500, 64), np.float32))
    key = slabs.slab_key(1, 1)

    def compress(batch: Any) -> None:
        body = batch.get(Table.MEMORY, key)
        batch.put(Table.MEMORY, key, body, compress=True)

    db.commit(Change(compress))
    with db._connection.snapshot() as snapshot:
        record = snapshot.mapped(Table.MEMORY, key)
        assert record is not None
        assert record[0] == FLAG_COMPRESSED
    found = db.memory.search((), vector=np.ones(64), limit=3)
    assert [item.score for item in found] == [pytest.approx(1)] * 3


@pytest.mark.parametrize("cut", [0, 10, 16, 60, 100, -1])
def test_damaged_slab_is_named(db: lgkv.Database, cut: int) -> None:
    put_all(db, clustered(3, 4, 1))
    key = slabs.slab_key(1, 1)

    def damage(batch: Any) -> None:
        body = batch.get(Table.MEMORY, key)
        batch.put(Table.MEMORY, key, body[:cut])

    db.commit(Change(damage))
    with pytest.raises(CorruptionError) as caught:
        db.memory.search((), vector=[1, 0, 0, 0])
    assert caught.value.key == key
    assert db.memory.get(("a",), "1") is not None


def test_missing_slab_is_noticed(db: lgkv.Database) -> None:
    put_all(db, clustered(3, 4, 1))
    db.commit(Change(lambda batch: batch.delete(Table.MEMORY, slabs.slab_key(1, 1))))
    with pytest.raises(CorruptionError, match="0 vectors where 3 are counted"):
        db.memory.search((), vector=[1, 0, 0, 0])
    with pytest.raises(CorruptionError, match="vectors of an item are missing"):
        db.memory.delete(("a",), "1")


def test_slab_of_other_dimensions_is_named(db: lgkv.Database) -> None:
    put_all(db, clustered(3, 4, 1))
    one = np.array([1])
    other = slabs.make_slab(1, one, one.astype(np.uint64), [b"x"], np.ones((1, 5), np.float32))
    body = slabs._pack(other)
    db.commit(Change(lambda batch: batch.put(Table.MEMORY, slabs.slab_key(1, 1), body)))
    with pytest.raises(CorruptionError, match="4 dimensions"):
        db.memory.search((), vector=[1, 0, 0, 0])


# --- the log ---


def snapshot_of(db: lgkv.Database, before: Any) -> tuple[Any, Any]:
    """Return the directory by the log from `before` on, and as it is read anew."""
    with db._connection.snapshot() as snapshot:
        state, settings = read_state(snapshot), read_settings(snapshot)
        assert settings is not None
        return (
            advance(before, snapshot, state, settings),
            load_directory(snapshot, state, settings),
        )


def exactly(found: Any) -> list[Any]:
    return [
        (
            place.first,
            place.labels.tolist(),
            place.items.tolist(),
            place.nodes.tolist(),
            [True] * len(place) if place.alive is None else place.alive.tolist(),
        )
        for place in found.slabs
    ]


def test_directory_by_the_log_is_as_one_that_is_read_anew(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slabs, "SLAB_BYTES", 40 * 30)
    monkeypatch.setattr(packing, "SLAB_BYTES", 40 * 30)
    rng = np.random.default_rng(5)
    rows = clustered(400, 4, 1)
    put_all(db, rows[:50])
    before = directory(db)
    for step in range(60):
        puts = []
        for key in {str(number) for number in rng.integers(120, size=8)}:
            gone = rng.random() < 0.4
            row = rows[int(rng.integers(400))]
            name = ("a", str(int(key) % 3)) if int(key) >= 50 else ("a",)
            puts.append(Put(name, key, None) if gone else Put(name, key, {"s": step}, row))
        db.memory.put_many(puts)
        by_log, anew = snapshot_of(db, before)
        assert exactly(by_log) == exactly(anew)
        assert by_log.vectors == anew.vectors == db.vectors.count()
        if step % 7 == 0:
            before = by_log
    assert exactly(directory(db)) == exactly(anew)


def test_log_has_its_limit_and_who_is_behind_reads_anew(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LOG_ENTRIES", 5)
    put_all(db, clustered(3, 4, 1))
    before = directory(db)
    for number in range(12):
        db.memory.put(("a",), "k", {"n": number}, vectors=[1, 2, 3, number])
        assert len(keys_of(db, Kind.VECTOR_LOG)) <= 5
    by_log, anew = snapshot_of(db, before)
    assert by_log is None
    assert anew.vectors == 4
    assert len(db.memory.search((), vector=[1, 2, 3, 11], limit=9)) == 4


def test_change_without_vectors_writes_nothing_of_them(db: lgkv.Database) -> None:
    db.memory.put(("a",), "k", {"n": 1})
    db.memory.put(("a",), "k", {"n": 2})
    db.memory.delete(("a",), "k")
    kinds = {Kind.VECTORS, Kind.VECTOR_LOG, Kind.VECTOR_STATE, Kind.VECTOR_SLAB}
    assert [kind for kind in kinds if keys_of(db, kind)] == []


def test_change_that_fails_leaves_no_vectors(db: lgkv.Database) -> None:
    db.memory.put(("a",), "k", {}, vectors=[1, 2])

    def fail(batch: Any) -> None:
        db.memory.change([Put(("a",), "k2", {}, [3, 4])]).apply(batch)
        raise RuntimeError("no")

    first = db.submit(Change(fail))
    second = db.submit(db.memory.change([Put(("a",), "k3", {}, [5, 6])]))
    with pytest.raises(RuntimeError):
        first.result()
    second.result()
    assert {item.key for item in db.memory.search((), vector=[1, 2])} == {"k", "k3"}
    assert db.vectors.count() == 2


def test_old_snapshot_is_searched_as_it_was(db: lgkv.Database) -> None:
    put_all(db, clustered(20, 4, 1))
    query = clustered(1, 4, 2)[0]
    with db.memory.view() as view:
        before = [item.key for item in view.search((), vector=query, limit=50)]
        for number in range(0, 20, 2):
            db.memory.delete(("a",), str(number))
        put_all(db, clustered(40, 4, 3), namespace=("b",))
        assert len(db.memory.search((), vector=query, limit=99)) == 50
        assert [item.key for item in view.search((), vector=query, limit=50)] == before


def test_float16_takes_half_of_the_room(tmp_path: Path) -> None:
    sizes = {}
    for storage in ("float32", "float16"):
        with lgkv.open(tmp_path / storage) as db:
            put_all(db, clustered(1000, 64, 1), config=IndexConfig(storage=storage))
            with db._connection.snapshot() as snapshot:
                record = snapshot.mapped(Table.MEMORY, slabs.slab_key(1, 1))
                assert record is not None
                sizes[storage] = len(record)
    assert 64 * 2 * 1000 <= sizes["float32"] - sizes["float16"] <= 64 * 2 * 1000 + 64
