"""Searches that begin with codes give what a scan gives, whatever has happened to the vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lgkv
from lgkv import _vectors
from lgkv.memory import Put
from lgkv.vectors import IndexConfig, index, pruning
from lgkv.vectors.pruning import Pruned
from tests.unit.vector_corpus import clustered, definition, nearest, put_all


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    if _vectors.kernel_name() == "plain":
        pytest.skip("this processor has no kernel that codes are worth it for")
    monkeypatch.setattr(pruning, "CODED_FROM_FLOATS", 0)
    with lgkv.open(tmp_path / "a.lgkv") as opened:
        yield opened


@pytest.fixture
def pruned(monkeypatch: pytest.MonkeyPatch) -> list[Pruned | None]:
    """What searches have pruned, in their order."""
    found: list[Pruned | None] = []

    def noted(*arguments: Any) -> Pruned | None:
        found.append(pruning.prune(*arguments))
        return found[-1]

    monkeypatch.setattr(index, "prune", noted)
    return found


def numbers(found: list[lgkv.StoredItem]) -> list[int]:
    return [item.value["n"] for item in found]


def rows_with_codes(db: lgkv.Database) -> int:
    with db.memory.view() as view:
        directory = db.memory._meaning.index.directory(view.snapshot)
    assert directory is not None
    return sum(slab.codes.coded for slab in directory.natives if slab.codes is not None)


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("metric", ["cosine", "inner_product"])
def test_second_search_is_pruned_and_as_the_metric_is_defined(
    db: lgkv.Database, pruned: list[Pruned | None], metric: str, storage: str
) -> None:
    rows = clustered(900, 20, 1)
    put_all(db, rows, config=IndexConfig(metric, storage), at_once=250)
    kept = rows if storage == "float32" else rows.astype(np.float16)
    for number, query in enumerate(clustered(5, 20, 2)):
        found = db.memory.search((), vector=query, limit=12, offset=3)
        assert numbers(found) == nearest(kept, query, 15, metric)[3:]
        for item in found:
            row = kept[item.value["n"]]
            assert item.score == pytest.approx(definition(metric, query, row), rel=1e-9)
        assert len(pruned) == number
    assert all(each is not None and len(each.places) < 100 for each in pruned)


def test_codes_follow_what_is_put_and_deleted(
    db: lgkv.Database, pruned: list[Pruned | None]
) -> None:
    rows, query = clustered(600, 8, 1), clustered(1, 8, 2)[0]
    put_all(db, rows)
    db.memory.search((), vector=query)
    alive = dict(enumerate(rows))
    for step in range(12):
        gone = nearest(np.stack(list(alive.values())), query, 3)[step % 3]
        number = list(alive)[gone]
        if step % 2:
            db.memory.delete(("a",), str(number))
            del alive[number]
        else:
            alive[number] = -alive[number]
            db.memory.put(("a",), str(number), {"n": number}, vectors=alive[number])
        known = list(alive)
        best = [known[at] for at in nearest(np.stack(list(alive.values())), query, 10)]
        assert numbers(db.memory.search((), vector=query)) == best
    assert len(pruned) == 12
    assert rows_with_codes(db) < 620


def test_page_is_full_whatever_the_filter_keeps(db: lgkv.Database) -> None:
    rows, query = clustered(600, 8, 1), clustered(1, 8, 2)[0]
    put_all(db, rows)
    order = nearest(rows, query, 600)
    for _ in range(3):
        for least in (590, 300, 0):
            kept = [number for number in order if number >= least]
            for limit, offset in ((10, 0), (4, 3)):
                keeps = {"n": {"$gte": least}}
                found = db.memory.search((), vector=query, filter=keeps, limit=limit, offset=offset)
                assert numbers(found) == kept[offset : offset + limit]


def test_items_of_many_vectors_do_not_fill_a_page(
    db: lgkv.Database, pruned: list[Pruned | None]
) -> None:
    near = np.ones((100, 4)) + np.eye(100, 4) / 100
    db.memory.put(("a",), "many", {"n": 0}, vectors=near)
    for number in range(1, 9):
        db.memory.put(("a",), str(number), {"n": number}, vectors=[1, 1, 1, -number])
    for _ in range(3):
        assert numbers(db.memory.search((), vector=[1, 1, 1, 1], limit=5)) == [0, 1, 2, 3, 4]
    assert pruned


def test_equal_vectors_go_newest_first(db: lgkv.Database, pruned: list[Pruned | None]) -> None:
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((3_000, 37)).astype(np.float32)
    places = [0, 1, 2, 1_000, 2_047, 2_999]
    query = rng.standard_normal(37).astype(np.float32)
    rows[places] = query + np.float32(0.01)
    put_all(db, rows, at_once=700)
    for _ in range(2):
        assert numbers(db.memory.search((), vector=query, limit=6)) == sorted(places, reverse=True)
        assert numbers(db.memory.search((), vector=query, limit=2, offset=1)) == [2_047, 1_000]
    assert pruned


def test_what_is_alike_everywhere_is_scanned(
    db: lgkv.Database, pruned: list[Pruned | None]
) -> None:
    rows = np.ones((2_000, 8), np.float32) + clustered(2_000, 8, 1) * 1e-5
    put_all(db, rows)
    query = np.ones(8, np.float32)
    for _ in range(3):
        assert numbers(db.memory.search((), vector=query)) == nearest(rows, query, 10)
    assert pruned == [None, None]


def test_huge_and_tiny_numbers_do_not_spoil_a_search(
    db: lgkv.Database, pruned: list[Pruned | None]
) -> None:
    rows = [[1e38, 1e38], [1e-38, 1e-38], [1, -1], [0, 0], [3, 2], [-2e38, 1]]
    put_all(db, np.array(rows, np.float32))
    for query in ([3e38, 3e38], [1e-30, 2e-30], [1, 1], [0, 0]):
        narrow = np.array(query, np.float32)
        scores = [definition("cosine", narrow, np.array(row, np.float32)) for row in rows]
        found = db.memory.search((), vector=query)
        assert [item.score for item in found] == pytest.approx(sorted(scores, reverse=True))
    assert pruned


def test_codes_are_of_namespaces_that_are_searched(db: lgkv.Database) -> None:
    puts = [
        Put(("a", str(number % 4)), str(number), {"n": number}, row)
        for number, row in enumerate(clustered(400, 8, 1))
    ]
    db.memory.put_many(puts)
    for _ in range(2):
        db.memory.search(("a", "1"), vector=np.ones(8))
    assert rows_with_codes(db) == 100
    for _ in range(2):
        db.memory.search(("a",), vector=np.ones(8))
    assert rows_with_codes(db) == 400


@pytest.mark.parametrize(("room", "coded"), [(0, 0), (8 * 399, 0), (8 * 400, 400)])
def test_codes_stay_within_the_memory_that_is_given(
    db: lgkv.Database, room: int, coded: int
) -> None:
    rows = clustered(400, 8, 1)
    put_all(db, rows)
    db.vectors.configure(memory_bytes=room)
    for query in clustered(3, 8, 2):
        assert numbers(db.memory.search((), vector=query)) == nearest(rows, query, 10)
    assert rows_with_codes(db) == coded


def test_all_items_are_given_if_all_are_wanted(db: lgkv.Database) -> None:
    rows = clustered(70, 8, 1)
    put_all(db, rows)
    for limit in (60, 66, 70, 10**12):
        for query in clustered(2, 8, 2):
            found = db.memory.search((), vector=query, limit=limit)
            assert numbers(found) == nearest(rows, query, min(limit, 70))
    assert db.memory.search(("none",), vector=query) == []


def test_distances_have_no_codes(db: lgkv.Database, pruned: list[Pruned | None]) -> None:
    rows = clustered(400, 8, 1)
    put_all(db, rows, config=IndexConfig("l2"))
    for query in clustered(3, 8, 2):
        assert numbers(db.memory.search((), vector=query)) == nearest(rows, query, 10, "l2")
    assert not pruned
