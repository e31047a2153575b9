"""The graph in the file: what is saved, loaded, damaged, and who may replace it."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lgkv
from lgkv.layout import Kind, Table
from lgkv.vectors import IndexConfig, VectorIndex, building, graph, planning, saving, tuning
from lgkv.vectors.saving import read_saved
from lgkv.writer import Change
from tests.unit.vector_corpus import clustered, nearest, put_all

ROWS = clustered(1_200, 12, 1)
QUERIES = clustered(10, 12, 2)


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "GRAPH_US", 0.0)
    monkeypatch.setattr(saving, "CHUNK_BYTES", 20_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.lgkv"


def built(db: lgkv.Database, **options: Any) -> Any:
    db.vectors.configure(exact_floats=0, **options)
    assert db.vectors.wait(60)
    return builder(db)._graph


def builder(db: lgkv.Database) -> building.Builder:
    return db._connection.companion(VectorIndex, VectorIndex)._builder


def fill(path: Path, rows: Any = ROWS, metric: str = "cosine") -> None:
    with lgkv.open(path) as db:
        put_all(db, rows, config=IndexConfig(metric))
        assert built(db) is not None


def saved(db: lgkv.Database) -> Any:
    with db._connection.snapshot() as snapshot:
        return read_saved(snapshot)


def chunk_keys(db: lgkv.Database) -> list[bytes]:
    with db._connection.snapshot() as snapshot:
        keys = list(snapshot.keys(Table.MEMORY, bytes((Kind.VECTOR_GRAPH,))))
    return [key for key in keys if len(key) > 1]


def answers(db: lgkv.Database) -> list[list[str]]:
    return [
        [item.key for item in db.memory.search((), vector=query, limit=10)] for query in QUERIES
    ]


def count_adds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    added: list[int] = []
    add = graph.Graph.add

    def counted(self: graph.Graph, rows: Any, labels: Any) -> None:
        added.append(len(labels))
        add(self, rows, labels)

    monkeypatch.setattr(graph.Graph, "add", counted)
    return added


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
def test_saved_graph_is_loaded_and_answers_as_before(
    path: Path, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path, metric=metric)
    with lgkv.open(path) as db:
        before = answers(db)
    added = count_adds(monkeypatch)
    with lgkv.open(path) as db:
        loaded = built(db)
        assert not added
        assert len(loaded) == 1_200
        assert db.vectors.explain(ROWS[0]).kind == "graph"
        found = answers(db)
    same = sum(len(set(a) & set(b)) for a, b in zip(before, found, strict=True))
    assert same >= 98
    with lgkv.open(path) as db:
        assert builder(db)._graph is None
        assert answers(db) == before  # by scan, before it is loaded


def test_links_are_saved_and_vectors_are_not(path: Path) -> None:
    fill(path)
    with lgkv.open(path) as db, db._connection.snapshot() as snapshot:
        sizes = [len(snapshot.mapped(Table.MEMORY, key) or b"") for key in chunk_keys(db)]
        assert max(sizes) <= 20_009
        assert sum(sizes) <= 1_200 * 160


def test_what_came_since_is_added_and_what_went_is_buried(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path)
    new = clustered(100, 12, 5)
    with lgkv.open(path) as db:
        put_all(db, new, namespace=("new",))
        for number in range(0, 1_200, 12):
            db.memory.delete(("a",), str(number))
    added = count_adds(monkeypatch)
    with lgkv.open(path) as db:
        loaded = built(db)
        assert sum(added) == 100
        assert (len(loaded), loaded.tombstones) == (1_300, 100)
        alive = [number for number in range(1_200) if number % 12]
        rows = np.concatenate([ROWS[alive], new])
        names = [str(number) for number in alive] + [str(number) for number in range(100)]
        hits = 0
        for query, found in zip(QUERIES, answers(db), strict=True):
            hits += len(set(found) & {names[number] for number in nearest(rows, query, 10)})
        assert hits >= 97


def test_graph_with_too_many_that_are_gone_is_built_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path)
    with lgkv.open(path) as db:
        for number in range(0, 1_200, 2):
            db.memory.delete(("a",), str(number))
    added = count_adds(monkeypatch)
    with lgkv.open(path) as db:
        assert len(built(db)) == sum(added) == 600
        assert saved(db).count == 600


def test_graph_is_saved_again_when_much_is_new(path: Path) -> None:
    fill(path)
    with lgkv.open(path) as db:
        first = saved(db)
        put_all(db, clustered(20, 12, 5), namespace=("few",))
        built(db)
        assert saved(db) == first
        put_all(db, clustered(600, 12, 6), namespace=("many",))
        built(db)
        newest = saved(db)
        assert (newest.number, newest.count) == (first.number + 1, 1_820)
        assert len(chunk_keys(db)) == newest.chunks


def test_older_graph_does_not_replace_a_newer_one(path: Path) -> None:
    fill(path)
    with lgkv.open(path) as db:
        kept = built(db)
        newest = saved(db)
        kept.covered -= 1
        assert saving.save_graph(builder(db)._writer, kept, 0.99, lambda: False) is None
        assert saved(db) == newest
        assert len(chunk_keys(db)) == newest.chunks


def test_saving_that_is_stopped_leaves_nothing(path: Path) -> None:
    fill(path)
    with lgkv.open(path) as db:
        kept = built(db)
        newest = saved(db)
        assert saving.save_graph(builder(db)._writer, kept, 0.99, lambda: True) is None
        assert saved(db) == newest
        assert len(chunk_keys(db)) == newest.chunks


def test_deleting_the_last_vector_deletes_the_graph(path: Path) -> None:
    fill(path, ROWS[:40])
    with lgkv.open(path) as db:
        assert saved(db) is not None
        for number in range(40):
            db.memory.delete(("a",), str(number))
        assert saved(db) is None
        assert chunk_keys(db) == []


def test_other_recall_is_tuned_for_anew(path: Path) -> None:
    fill(path)
    with lgkv.open(path) as db:
        assert built(db, recall=0.5).width <= built(db, recall=0.999).width


def test_recall_that_no_graph_has_is_not_tried_for_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "WIDTHS", (10,))
    monkeypatch.setattr(building, "WIDTHS", (10,))
    rows = np.random.default_rng(1).standard_normal((3_000, 48)).astype(np.float32)
    with lgkv.open(path) as db:
        put_all(db, rows)
        assert built(db, recall=1) is None
    added = count_adds(monkeypatch)
    with lgkv.open(path) as db:
        assert built(db, recall=1) is None
        assert "recall=1" in db.vectors.explain(rows[0]).reason
        assert not added
        assert built(db, recall=0.2) is not None
        assert sum(added) == 3_000
        assert saved(db).count == 3_000


# --- damage ---


def with_record(path: Path, change: Callable[[Any, list[bytes]], None]) -> None:
    with lgkv.open(path) as db:
        keys = chunk_keys(db)
        db.commit(Change(lambda batch: change(batch, keys)))


def flip_a_bit(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    with lgkv.open(path) as db, db._connection.snapshot() as snapshot:
        record = bytes(snapshot.mapped(Table.MEMORY, chunk_keys(db)[1]) or b"")
    at = whole.index(record)
    whole[at + random.Random(5).randrange(len(record))] ^= 4
    path.write_bytes(bytes(whole))


def lose_a_chunk(path: Path) -> None:
    with_record(path, lambda batch, keys: batch.delete(Table.MEMORY, keys[1]))


def swap_chunks(path: Path) -> None:
    def swap(batch: Any, keys: list[bytes]) -> None:
        one, two = (batch.get(Table.MEMORY, key) for key in keys[:2])
        batch.put(Table.MEMORY, keys[0], two)
        batch.put(Table.MEMORY, keys[1], one)

    with_record(path, swap)


def cut_a_chunk(path: Path) -> None:
    def cut(batch: Any, keys: list[bytes]) -> None:
        batch.put(Table.MEMORY, keys[0], batch.get(Table.MEMORY, keys[0])[:-8])

    with_record(path, cut)


def forge_a_pointer(**fields: Any) -> Callable[[Path], None]:
    def forge(path: Path) -> None:
        with lgkv.open(path) as db:
            newest = saved(db)
            forged = replace(newest, **fields)
            values = [getattr(forged, name) for name in saving.SavedGraph.__slots__]
            body = saving.encode_plain(saving._HEADER.pack(*values))
            db.commit(Change(lambda batch: batch.put(Table.MEMORY, saving._POINTER_KEY, body)))

    return forge


def spoil_the_pointer(path: Path) -> None:
    with_record(path, lambda batch, _: batch.put(Table.MEMORY, saving._POINTER_KEY, b"\x40"))


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        lose_a_chunk,
        swap_chunks,
        cut_a_chunk,
        spoil_the_pointer,
        forge_a_pointer(entry=5_000),
        forge_a_pointer(covered=10**6),
        forge_a_pointer(covered=2**64 - 1),
        forge_a_pointer(entry=-1 % 2**64),
        forge_a_pointer(max_level=60),
        forge_a_pointer(count=1_199),
        forge_a_pointer(count=10**15),
        forge_a_pointer(upper_bytes=0),
    ],
)
def test_damaged_graph_is_dropped_and_built_anew(
    path: Path,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(path)
    with lgkv.open(path) as db:
        before = answers(db)
    damage(path)
    added = count_adds(monkeypatch)
    with lgkv.open(path) as db:
        assert answers(db) == before
        assert len(built(db)) == sum(added) == 1_200
        if damage is not swap_chunks:  # its labels are those of nothing: it is old, as it looks
            assert "built anew" in caplog.text
        assert len(chunk_keys(db)) == saved(db).chunks
    caplog.clear()
    added.clear()
    with lgkv.open(path) as db:
        assert built(db) is not None
    assert not added
    assert not caplog.text


def links(db: lgkv.Database) -> graph.Links:
    found = built(db).links()
    assert found is not None
    found.check()
    return found


def test_links_out_of_range_never_reach_hnswlib(path: Path) -> None:
    fill(path)
    with lgkv.open(path) as db:
        good = links(db)
    count = len(good.labels)

    def spoiled(name: str, change: Callable[[Any], None]) -> graph.Links:
        array = getattr(good, name).copy()
        change(array)
        return replace(good, **{name: array})

    def first_link(array: Any) -> None:
        array.reshape(-1)[4:8] = np.frombuffer(np.uint32(count).tobytes(), np.uint8)

    def how_many(array: Any) -> None:
        array.reshape(-1)[0:2] = 255

    def level(value: int) -> Callable[[Any], None]:
        def change(array: Any) -> None:
            array[0] = value

        return change

    for wrong in (
        spoiled("lowest", first_link),
        spoiled("lowest", how_many),
        spoiled("upper", first_link),
        spoiled("upper", how_many),
        spoiled("levels", level(-1)),
        spoiled("levels", level(99)),
        spoiled("labels", level(int(good.labels[1]))),
        replace(good, entry=count),
        replace(good, max_level=good.max_level + 1),
        replace(good, lowest=good.lowest[1:]),
        replace(good, upper=good.upper[1:]),
        replace(good, labels=good.labels[:0]),
    ):
        with pytest.raises(ValueError, match=r"range|together|size|twice"):
            wrong.check()


def test_loading_holds_the_vectors_once_beside_hnswlibs_own(path: Path) -> None:
    rows = clustered(3_000, 256, 1)
    fill(path, rows)
    with lgkv.open(path) as db:
        index = db._connection.companion(VectorIndex, VectorIndex)
        with db._connection.snapshot() as snapshot:
            directory = index.directory(snapshot)
            tracemalloc.start()
            try:
                found = saving.load_graph(snapshot, directory, db._connection.env.map_epoch)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert found is not None
        assert len(found[0]) == 3_000
    frame = 3_000 * (256 * 4 + graph.LINKS * 8 + 12)
    assert frame < peak < 1.5 * frame
