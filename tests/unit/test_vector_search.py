"""Finding the nearest: by scan and by graph, beside brute force and the definition."""

from __future__ import annotations

import math
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lgkv
from lgkv.errors import InvalidInputError
from lgkv.memory import Put
from lgkv.vectors import IndexConfig, building, check_vector, planning, tuning
from tests.processes import Program
from tests.unit.vector_corpus import clustered, definition, nearest, put_all

METRICS = ("cosine", "inner_product", "l2")


@pytest.fixture
def db(tmp_path: Path) -> Any:
    with lgkv.open(tmp_path / "a.lgkv") as opened:
        yield opened


def numbers(found: list[lgkv.StoredItem]) -> list[int]:
    return [item.value["n"] for item in found]


def with_graph(db: lgkv.Database, **options: Any) -> Any:
    """Have a graph built, however few the vectors are, and return it."""
    db.vectors.configure(exact_floats=0, **options)
    assert db.vectors.wait(60)
    return db.memory._meaning.index._builder._graph


# --- exact search ---


def test_number_that_is_not_finite_is_found_in_an_array_too() -> None:
    for wrong in (np.nan, np.inf):
        vector = np.ones(5, np.float32)
        vector[3] = wrong
        with pytest.raises(InvalidInputError, match=r"holds (nan|inf) at 3"):
            check_vector(vector, "it")
    large = np.full(5, 3e38, np.float32)  # its square is not finite, it is
    assert check_vector(large, "it").tolist() == large.tolist()


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("metric", METRICS)
def test_search_is_as_the_metric_is_defined(db: lgkv.Database, metric: str, storage: str) -> None:
    rows = clustered(300, 20, 1)
    put_all(db, rows, config=IndexConfig(metric, storage), at_once=50)
    kept = rows if storage == "float32" else rows.astype(np.float16)
    for query in clustered(5, 20, 2):
        found = db.memory.search((), vector=query, limit=12, offset=3)
        assert numbers(found) == nearest(kept, query, 15, metric)[3:]
        for item in found:
            row = kept[item.value["n"]]
            assert item.score == pytest.approx(definition(metric, query, row), rel=1e-9)


def test_score_is_the_best_of_an_items_vectors_and_each_item_counts_once(
    db: lgkv.Database,
) -> None:
    several = [[[2, 0]], [[0, 3]], [[-1, 0]], [[0, 1], [5, 5], [-1, -1]]]
    for number, vectors in enumerate(several):
        db.memory.put(("a",), str(number), {"n": number}, vectors=vectors)
    found = db.memory.search((), vector=[1, 0], limit=9)
    assert numbers(found) == [0, 3, 1, 2]
    assert [item.score for item in found] == pytest.approx([1, math.sqrt(0.5), 0, -1])


def test_items_of_many_vectors_do_not_fill_a_page(db: lgkv.Database) -> None:
    near = np.ones((100, 4)) + np.eye(100, 4) / 100
    db.memory.put(("a",), "many", {"n": 0}, vectors=near)
    for number in range(1, 9):
        db.memory.put(("a",), str(number), {"n": number}, vectors=[1, 1, 1, -number])
    assert numbers(db.memory.search((), vector=[1, 1, 1, 1], limit=5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("metric", METRICS)
def test_huge_and_tiny_numbers_do_not_spoil_a_search(db: lgkv.Database, metric: str) -> None:
    rows = [[1e38, 1e38], [1e-38, 1e-38], [1, -1], [0, 0], [3, 2], [-2e38, 1]]
    put_all(db, np.array(rows, np.float32), config=IndexConfig(metric))
    for query in ([3e38, 3e38], [1e-30, 2e-30], [1, 1], [0, 0]):
        found = db.memory.search((), vector=query)
        narrow = np.array(query, np.float32)
        scores = [definition(metric, narrow, np.array(row, np.float32)) for row in rows]
        assert [item.score for item in found] == pytest.approx(sorted(scores, reverse=True))


def test_zero_vector_scores_zero(db: lgkv.Database) -> None:
    db.memory.put(("a",), "zero", {}, vectors=[0, 0])
    assert [item.score for item in db.memory.search((), vector=[1, 1])] == [0]
    db.memory.put(("a",), "zero", {}, vectors=[3, 4])
    assert [item.score for item in db.memory.search((), vector=[0, 0])] == [0]


def test_equal_vectors_score_equal_wherever_they_lie_newest_first(db: lgkv.Database) -> None:
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((3_000, 37)).astype(np.float32)
    places = [0, 1, 2, 1_000, 2_047, 2_999]
    query = rng.standard_normal(37).astype(np.float32)
    rows[places] = query + np.float32(0.01)
    put_all(db, rows, at_once=700)
    found = db.memory.search((), vector=query, limit=6)
    assert len({item.score for item in found}) == 1
    assert numbers(found) == sorted(places, reverse=True)
    assert numbers(db.memory.search((), vector=query, limit=2, offset=1)) == [2_047, 1_000]


def test_page_is_full_whatever_the_filter_keeps(db: lgkv.Database) -> None:
    rows = clustered(600, 8, 1)
    put_all(db, rows)
    query = clustered(1, 8, 2)[0]
    order = nearest(rows, query, 600)
    for keeps in ({"n": {"$gte": 590}}, {"n": 17}, {"n": {"$lt": 0}}, {"n": {"$ne": order[0]}}):
        kept = [number for number in order if _keeps(keeps["n"], number)]
        for limit, offset in ((10, 0), (4, 3), (1, 9)):
            found = db.memory.search((), vector=query, filter=keeps, limit=limit, offset=offset)
            assert numbers(found) == kept[offset : offset + limit]


def _keeps(condition: Any, number: int) -> bool:
    if isinstance(condition, int):
        return number == condition
    ((name, operand),) = condition.items()
    return bool(
        {"$gte": number >= operand, "$lt": number < operand, "$ne": number != operand}[name]
    )


def test_prefix_is_of_whole_labels_and_follows_new_namespaces(db: lgkv.Database) -> None:
    db.memory.put(("a", "b"), "1", {"n": 1}, vectors=[1, 0])
    db.memory.put(("ab",), "2", {"n": 2}, vectors=[1, 0])
    assert numbers(db.memory.search(("a",), vector=[1, 0])) == [1]
    db.memory.put(("a", "c"), "3", {"n": 3}, vectors=[1, 0.5])
    db.memory.put(("a",), "4", {"n": 4}, vectors=[1, 1])
    assert numbers(db.memory.search(("a",), vector=[1, 0])) == [1, 3, 4]
    db.memory.delete(("a", "b"), "1")
    assert numbers(db.memory.search(("a",), vector=[1, 0])) == [3, 4]
    assert numbers(db.memory.search(("none",), vector=[1, 0])) == []


def test_expired_item_is_not_returned_and_does_not_count(tmp_path: Path) -> None:
    with lgkv.open(tmp_path / "a.lgkv") as db:
        now = [1_000_000]
        db.memory.clock = lambda: now[0]
        for number in range(6):
            ttl = 1 if number % 2 else None
            db.memory.put(("a",), str(number), {"n": number}, vectors=[1, number], ttl_seconds=ttl)
        now[0] += 2_000_000
        assert numbers(db.memory.search((), vector=[1, 0], limit=3)) == [0, 2, 4]
        db.memory.sweep()
        assert db.vectors.count() == 3
        assert numbers(db.memory.search((), vector=[1, 0], limit=3)) == [0, 2, 4]


FLOATS = st.floats(-100, 100, width=32)


@given(
    st.integers(1, 5).flatmap(
        lambda dims: st.tuples(
            st.lists(FLOATS, min_size=dims, max_size=dims),
            st.lists(
                st.lists(st.lists(FLOATS, min_size=dims, max_size=dims), min_size=1, max_size=3),
                min_size=1,
                max_size=5,
            ),
            st.sampled_from(METRICS),
        )
    )
)
def test_scores_agree_with_the_definition(
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[list[float], list[list[list[float]]], str],
) -> None:
    query, several, metric = case
    with lgkv.open(tmp_path_factory.mktemp("scores") / "a.lgkv") as db:
        puts = [Put(("a",), str(n), {"n": n}, rows) for n, rows in enumerate(several)]
        db.commit(db.memory.change(puts, (), IndexConfig(metric)))
        found = db.memory.search((), vector=query)
    expected = [max(definition(metric, query, row) for row in rows) for rows in several]
    assert [item.score for item in found] == pytest.approx(
        sorted(expected, reverse=True), rel=1e-6, abs=1e-6
    )


# --- the planner ---


def test_few_candidates_are_scanned_and_explained(db: lgkv.Database) -> None:
    assert db.vectors.explain([1, 2]).reason == "there are no vectors"
    put_all(db, clustered(50, 4, 1))
    plan = db.vectors.explain([1, 2, 3, 4])
    assert (plan.kind, plan.vectors, plan.candidates) == ("exact", 50, 50)
    assert "50 candidates of 4 dimensions" in plan.reason
    assert db.vectors.explain([1, 2, 3, 4], ("none",)).candidates == 0
    with pytest.raises(lgkv.DimensionMismatchError):
        db.vectors.explain([1, 2])


@pytest.mark.parametrize(
    "options",
    [{"recall": 0}, {"recall": 1.5}, {"recall": "x"}, {"memory_bytes": -1},
     {"exact_floats": None}, {"exact_floats": True}, {"memory_bytes": 1.5}],
)  # fmt: skip
def test_wrong_option_is_named(db: lgkv.Database, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        db.vectors.configure(**options)
    with pytest.raises(TypeError):
        db.vectors.configure(speed=7)


def test_graph_is_asked_where_a_scan_takes_longer(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "GRAPH_US", planning.SCAN_US)
    put_all(db, clustered(2_000, 16, 1))
    put_all(db, clustered(20, 16, 2), namespace=("few",))
    assert with_graph(db) is not None
    query = clustered(1, 16, 3)[0]
    plan = db.vectors.explain(query)
    assert (plan.kind, plan.vectors, plan.candidates, plan.tail) == ("graph", 2_020, 2_020, 0)
    assert plan.width >= 20
    assert "scan" in plan.reason
    assert db.vectors.explain(query, limit=500, offset=600).kind == "exact"
    few = db.vectors.explain(query, ("few",))
    assert (few.kind, few.candidates) == ("exact", 20)
    assert "20 of 2020 vectors" in few.reason
    filtered = db.vectors.explain(query, filter={"n": 1})
    assert filtered.width == max(plan.width, 80)


# --- the graph ---


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the planner prefer the graph, and the builder work in small steps."""
    monkeypatch.setattr(planning, "GRAPH_US", 0.0)
    monkeypatch.setattr(building, "ASIDE_ROWS", 100)
    monkeypatch.setattr(building, "LIVE_ROWS", 30)
    monkeypatch.setattr(building, "tail_limit", lambda _: 50)


def recall(db: lgkv.Database, rows: Any, queries: Any, metric: str, **how: Any) -> float:
    found = 0
    for query in queries:
        page = db.memory.search((), vector=query, limit=10, **how)
        assert len(page) == 10
        scores = [item.score for item in page]
        assert scores == sorted(scores, reverse=True)
        for item in page:
            row = rows[item.value["n"]]
            assert item.score == pytest.approx(definition(metric, query, row), rel=1e-9)
        found += len(set(numbers(page)) & set(nearest(rows, query, 10, metric)))
    return found / (10 * len(queries))


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_graph_has_the_recall_that_is_asked_for(
    db: lgkv.Database, metric: str, storage: str
) -> None:
    rows = clustered(3_000, 24, 1)
    kept = rows if storage == "float32" else rows.astype(np.float16).astype(np.float32)
    put_all(db, rows, config=IndexConfig(metric, storage))
    with_graph(db, recall=0.98)
    assert db.vectors.explain(rows[0]).kind == "graph"
    # It was tuned on a sample; these are others, and few.
    assert recall(db, kept, clustered(30, 24, 2), metric) >= 0.97


@pytest.mark.usefixtures("cheap")
def test_graph_is_tuned_again_once_there_are_queries(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned: list[int] = []
    tune = tuning.Tuning.tune

    def counting(self: Any, graph: Any, queries: list[Any], recall: float) -> tuple[int, float]:
        tuned.append(len(queries))
        return tune(self, graph, queries, recall)

    monkeypatch.setattr(tuning.Tuning, "tune", counting)
    put_all(db, clustered(1_000, 16, 1))
    with_graph(db)
    queries = clustered(2 * building.RECENT_QUERIES, 16, 2)
    for query in queries:
        db.memory.search((), vector=query)
    assert db.vectors.wait(20)
    assert tuned[0] < building.RECENT_QUERIES // 2
    assert tuned[1:] == [building.RECENT_QUERIES]


@pytest.mark.usefixtures("cheap")
def test_options_that_come_as_the_thread_ends_are_heeded(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, late = building.Builder._finish, [0.9]

    def and_then(self: Any, graph: Any, directory: Any) -> bool:
        more = finish(self, graph, directory)
        if not more and late:
            self.configure(replace(self.options, recall=late.pop()))
        return more

    monkeypatch.setattr(building.Builder, "_finish", and_then)
    put_all(db, clustered(500, 8, 1))
    db.vectors.configure(exact_floats=0, recall=0.99)
    assert db.vectors.wait(20)
    assert not late
    assert db.vectors.options.recall == 0.9
    assert db.vectors.explain(np.ones(8)).kind == "graph"


@pytest.mark.usefixtures("cheap")
def test_graph_keeps_its_recall_while_vectors_are_replaced_and_deleted(
    db: lgkv.Database,
) -> None:
    rows, other = clustered(2_000, 16, 1), clustered(2_000, 16, 9)
    put_all(db, rows)
    graph = with_graph(db)
    rng = np.random.default_rng(4)
    replaced = rng.permutation(2_000)[:1_000]
    for part in np.split(replaced, 20):
        db.memory.put_many(
            Put(("a",), str(number), {"n": int(number)}, other[number]) for number in part
        )
        rows[part] = other[part]
        db.memory.search((), vector=rows[0])
    for number in range(0, 2_000, 10):
        db.memory.delete(("a",), str(number))
    rows[::10] = -1e6  # far from everything
    assert recall(db, rows, clustered(20, 16, 2), "cosine") >= 0.98
    assert db.vectors.wait(60)
    db.memory.search((), vector=rows[1])
    assert db.vectors.wait(60)
    assert recall(db, rows, clustered(20, 16, 3), "cosine") >= 0.98
    newest = db.memory._meaning.index._builder._graph
    assert newest is not graph  # it was built anew without the dead
    assert len(newest) < 2_400


@pytest.mark.usefixtures("cheap")
def test_what_is_committed_is_found_at_once_and_what_is_deleted_never(
    db: lgkv.Database,
) -> None:
    rows = clustered(500, 8, 1)
    put_all(db, rows)
    with_graph(db)
    for number in range(500, 900):
        new = rows[number % 500] + np.float32(0.001)
        db.memory.put(("a",), str(number), {"n": number}, vectors=new)
        found = numbers(db.memory.search((), vector=new, limit=5))
        assert found[0] == number
        db.memory.delete(("a",), str(number - 500 if number % 2 else number))
        gone = number - 500 if number % 2 else number
        assert gone not in numbers(db.memory.search((), vector=new, limit=9))
    assert db.vectors.wait(60)
    alive = {int(item.key) for item in db.memory.search((), limit=2_000)}
    for row in rows[:50]:
        assert set(numbers(db.memory.search((), vector=row, limit=9))) <= alive


@pytest.mark.usefixtures("cheap")
def test_page_by_graph_is_full_whatever_the_filter_keeps(db: lgkv.Database) -> None:
    rows = clustered(1_500, 8, 1)
    put_all(db, rows)
    with_graph(db)
    query = clustered(1, 8, 2)[0]
    order = nearest(rows, query, 1_500)
    rare = {"n": {"$in": order[-4:]}}
    assert db.vectors.explain(query, filter=rare, limit=3).kind == "graph"
    found = db.memory.search((), vector=query, filter=rare, limit=3)
    assert numbers(found) == order[-4:-1]
    assert numbers(db.memory.search((), vector=query, filter=rare, limit=9)) == order[-4:]


@pytest.mark.usefixtures("cheap")
def test_namespace_inside_the_graph_is_searched_alone(db: lgkv.Database) -> None:
    rows = clustered(2_000, 8, 1)
    for number in range(4):
        put_all(db, rows[number::4], namespace=("n", str(number)))
    with_graph(db)
    plan = db.vectors.explain(rows[0], ("n", "2"))
    assert (plan.kind, plan.candidates) == ("graph", 500)
    for query in clustered(10, 8, 2):
        page = db.memory.search(("n", "2"), vector=query, limit=5)
        assert {item.namespace for item in page} == {("n", "2")}
        assert len(set(numbers(page)) & set(nearest(rows[2::4], query, 5))) >= 4


@pytest.mark.usefixtures("cheap")
def test_items_of_several_vectors_count_once_by_graph_too(db: lgkv.Database) -> None:
    rows = clustered(900, 8, 1)
    db.memory.put_many(Put(("a",), str(n), {"n": n}, rows[3 * n : 3 * n + 3]) for n in range(300))
    with_graph(db)
    assert db.vectors.explain(rows[0]).kind == "graph"
    query = clustered(1, 8, 2)[0]
    best = [max(definition("cosine", query, rows[3 * n + i]) for i in range(3)) for n in range(300)]
    order = sorted(range(300), key=lambda n: -best[n])
    found = db.memory.search((), vector=query, limit=10)
    assert len(set(numbers(found))) == 10
    assert len(set(numbers(found)) & set(order[:10])) >= 9


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("metric", METRICS)
def test_item_that_the_graph_gives_counts_as_its_best_vector(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    rows, query = clustered(900, 8, 1), clustered(1, 8, 2)[0]
    puts = [Put(("a",), str(n), {"n": n}, rows[3 * n : 3 * n + 3]) for n in range(300)]
    db.memory.import_items(puts, config=IndexConfig(metric), batch_size=100)
    for n in range(0, 300, 7):  # of which the graph may keep the vectors
        db.memory.delete(("a",), str(n))
    keys = np.array([definition(metric, query, row) for row in rows]).reshape(300, 3)
    best = {3 * n + int(at) for n, at in enumerate(keys.argmax(axis=1))}
    index = db.memory._meaning.index
    graph = type(with_graph(db))
    search = graph.search

    def overlooking(self: Any, narrow: Any, count: int) -> Any:
        """Give what the graph gives, but for the best vector of each item."""
        labels, given = search(self, narrow, count)
        kept = [label - 1 not in best for label in labels.tolist()]
        return labels[kept], given[kept]

    monkeypatch.setattr(graph, "search", overlooking)
    assert db.vectors.explain(query).kind == "graph"
    with db.memory.view() as view:
        directory = index.directory(view.snapshot)
        assert directory is not None
        assert directory.slabs[0].first == 1  # so a vector's label is behind its row
    found = db.memory.search((), vector=query, limit=20)
    assert len(found) == 20
    for item in found:
        assert item.score == pytest.approx(keys[item.value["n"]].max())
    assert [item.score for item in found] == sorted((i.score or 0 for i in found), reverse=True)


def test_memory_budget_keeps_the_store_exact_and_says_so(db: lgkv.Database) -> None:
    put_all(db, clustered(200, 8, 1))
    assert with_graph(db, memory_bytes=1_000) is None
    plan = db.vectors.explain(np.ones(8))
    assert plan.kind == "exact"
    assert "memory_bytes=1,000" in plan.reason


@pytest.mark.usefixtures("cheap")
def test_recall_that_no_width_has_keeps_the_store_exact_and_says_so(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "WIDTHS", (10,))
    monkeypatch.setattr(building, "WIDTHS", (10,))
    rows = np.random.default_rng(1).standard_normal((3_000, 48)).astype(np.float32)
    put_all(db, rows)
    assert with_graph(db, recall=1) is None
    plan = db.vectors.explain(rows[0])
    assert plan.kind == "exact"
    assert "less than recall=1" in plan.reason
    assert recall(db, rows, rows[:3], "cosine") == 1.0


@pytest.mark.usefixtures("cheap")
def test_wild_vector_keeps_the_store_exact_and_says_so(db: lgkv.Database) -> None:
    rows = clustered(200, 8, 1)
    rows[7] *= np.float32(1e30)
    put_all(db, rows)
    assert with_graph(db) is None
    assert "too long" in db.vectors.explain(rows[0]).reason


def test_failing_build_is_logged_and_keeps_the_store_exact(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(building.Graph, "add", fail)
    put_all(db, clustered(200, 8, 1))
    assert with_graph(db) is None
    assert "no memory" in caplog.text
    assert "no memory" in db.vectors.explain(np.ones(8)).reason
    caplog.clear()
    assert len(db.memory.search((), vector=np.ones(8))) == 10
    assert db.vectors.wait(60)
    assert not caplog.text  # it is not tried again and again


@pytest.mark.usefixtures("cheap")
def test_searches_beside_puts_deletes_and_building_are_right(db: lgkv.Database) -> None:
    rows = clustered(3_000, 8, 1)
    put_all(db, rows[:1_000])
    with_graph(db)
    ended = threading.Event()
    wrong: list[list[float]] = []

    def search() -> None:
        rng = np.random.default_rng(threading.get_ident() % 1000)
        while not ended.is_set():
            query = rows[int(rng.integers(1_000))]
            page = db.memory.search((), vector=query, limit=5)
            scores = [item.score or 0 for item in page]
            good = len(page) == 5 and scores == sorted(scores, reverse=True)
            if not good or scores[0] < 0.999999:
                wrong.append(scores)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for start in range(1_000, 3_000, 100):
            puts = [Put(("a",), str(n), {"n": n}, rows[n]) for n in range(start, start + 100)]
            db.memory.put_many(puts)
            for number in range(start, start + 100, 3):
                db.memory.delete(("a",), str(number))
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not wrong


@pytest.mark.usefixtures("cheap")
def test_closing_while_the_graph_is_built_waits_for_a_chunk_only(tmp_path: Path) -> None:
    path = tmp_path / "a.lgkv"
    with lgkv.open(path) as db:
        put_all(db, clustered(3_000, 32, 1))
        db.vectors.configure(exact_floats=0)
    assert not [t for t in threading.enumerate() if t.name == "lgkv-vectors"]
    with lgkv.open(path) as db:
        assert len(db.memory.search((), vector=np.ones(32))) == 10


@pytest.mark.usefixtures("cheap")
def test_second_handle_shares_the_graph(tmp_path: Path) -> None:
    with lgkv.open(tmp_path / "a.lgkv") as one, lgkv.open(tmp_path / "a.lgkv") as two:
        put_all(one, clustered(500, 8, 1))
        graph = with_graph(one)
        assert graph is not None
        assert two.vectors.explain(np.ones(8)).kind == "graph"
        assert two.vectors.options.exact_floats == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.usefixtures("cheap")
def test_child_of_a_fork_searches_and_builds_on_its_own(db: lgkv.Database) -> None:
    rows = clustered(600, 8, 1)
    put_all(db, rows)
    with_graph(db)
    db.vectors.configure(exact_floats=0)  # the parent may be building while it forks
    child = os.fork()
    if not child:
        status = 1
        try:
            order = nearest(rows, rows[3], 5)
            assert numbers(db.memory.search((), vector=rows[3], limit=5)) == order
            db.vectors.configure(exact_floats=0)
            assert db.vectors.wait(60)
            assert db.vectors.explain(rows[3]).kind == "graph"
            db.memory.put(("a",), "new", {"n": 999}, vectors=rows[3] + np.float32(1e-4))
            assert 999 in numbers(db.memory.search((), vector=rows[3], limit=5))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert 999 in numbers(db.memory.search((), vector=rows[3], limit=5))


@pytest.mark.usefixtures("cheap")
def test_what_another_process_commits_is_seen_at_once(db: lgkv.Database) -> None:
    rows = clustered(400, 8, 1)
    put_all(db, rows)
    with_graph(db)
    code = """
        import sys
        import lgkv
        with lgkv.open(sys.argv[1]) as db:
            for line in sys.stdin:
                key, *numbers = line.split()
                if numbers:
                    row = [float(number) for number in numbers]
                    db.memory.put(("a",), key, {"n": int(key)}, vectors=row)
                else:
                    db.memory.delete(("a",), key)
                found = db.memory.search((), limit=10_000, vector=[1.0] * 8)
                print(len(found), flush=True)
        """
    with Program(code, db._connection.path) as other:
        for number in range(400, 430):
            new = rows[number - 400] + np.float32(0.001)
            other.say(f"{number} {' '.join(map(str, new.tolist()))}")
            assert other.hear() == "401"
            assert numbers(db.memory.search((), vector=new, limit=3))[0] == number
            db.memory.put(("mine",), "k", {"n": -number}, vectors=new)
            other.say(str(number))
            assert other.hear() == "401"
            found = numbers(db.memory.search((), vector=new, limit=3))
            assert number not in found
            assert found[0] == -number
            db.memory.delete(("mine",), "k")
        other.finish()


@pytest.mark.usefixtures("cheap")
def test_process_that_only_reads_follows_and_builds(tmp_path: Path) -> None:
    path = tmp_path / "a.lgkv"
    rows = clustered(500, 8, 1)
    with lgkv.open(path) as db:
        put_all(db, rows)
    with lgkv.open(path, mode="r") as db:
        assert with_graph(db) is not None
        assert numbers(db.memory.search((), vector=rows[3], limit=1)) == [3]
