"""`db.memory`: items by namespace and key, by filter, by recency, by vector; their expiry."""

from __future__ import annotations

import datetime
import decimal
import gc
import math
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lgkv
from lgkv.errors import (
    ClosedError,
    CorruptionError,
    DimensionMismatchError,
    FilterError,
    InvalidInputError,
    ReadOnlyError,
)
from lgkv.layout import Kind, Table
from lgkv.memory import SWEEP_ITEMS, Put
from lgkv.memory.items import pack_entry
from lgkv.writer import Batch, Change

UTC = datetime.timezone.utc
NS = ("users", "42")
LONG = "k" * 100_000


class Clock:
    """A clock that a test moves, in seconds."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def __call__(self) -> int:
        return int(self.seconds * 1_000_000)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "agent.lgkv")


@pytest.fixture
def db(path: str) -> Iterator[lgkv.Database]:
    with lgkv.open(path) as opened:
        yield opened


@pytest.fixture
def clock(db: lgkv.Database) -> Clock:
    db.memory.clock = clock = Clock()
    return clock


def keys(items: list[lgkv.StoredItem]) -> list[str]:
    return [item.key for item in items]


def contents(db: lgkv.Database) -> list[tuple[int, bytes, bytes]]:
    """Return every record that memory has a part in."""
    with db.memory._connection.snapshot() as snapshot:
        return [
            (table, key, body)
            for table in (Table.MEMORY, Table.NAMES, Table.INDEX)
            for key, body in snapshot.scan(table, b"", start=b"\x00", stop=b"\xff" * 8)
        ]


# --- one item ------------------------------------------------------------------------------


def test_item_comes_back_as_it_was_put(db: lgkv.Database) -> None:
    before = datetime.datetime.now(UTC)
    db.memory.put(NS, "name", {"first": "Ada", "n": [1, 2.5, None, True], "b": b"\x00"})
    after = datetime.datetime.now(UTC)
    item = db.memory.get(NS, "name")
    assert item is not None
    assert (item.namespace, item.key, item.score, item.expires_at) == (NS, "name", None, None)
    assert item.value == {"first": "Ada", "n": [1, 2.5, None, True], "b": b"\x00"}
    assert before <= item.created_at == item.updated_at <= after
    assert item.created_at.tzinfo is UTC


def test_absent_item_is_none(db: lgkv.Database) -> None:
    db.memory.put(NS, "a", {})
    assert db.memory.get(NS, "b") is None
    assert db.memory.get(("users",), "a") is None
    assert db.memory.get(("nobody",), "a") is None
    assert db.memory.get((), "a") is None


def test_plain_values_of_every_type_come_back(db: lgkv.Database) -> None:
    value = {
        "datetime": datetime.datetime(2024, 5, 1, 12, 30, 0, 123456, tzinfo=UTC),
        "decimal": decimal.Decimal("1.10"),
        "uuid": uuid.UUID(int=7),
        "big": 2**100,
        "text": "é\x00😀",
        "nested": {"deep": [{"er": {}}]},
        "inf": math.inf,
    }
    db.memory.put(NS, "k", value)
    item = db.memory.get(NS, "k")
    assert item is not None
    assert item.value == value
    db.memory.put(NS, "k", {"array": np.arange(6.0).reshape(2, 3)})
    item = db.memory.get(NS, "k")
    assert item is not None
    assert np.array_equal(item.value["array"], np.arange(6.0).reshape(2, 3))


def test_update_keeps_created_at_and_moves_updated_at(db: lgkv.Database, clock: Clock) -> None:
    db.memory.put(NS, "k", {"v": 1})
    created = datetime.datetime.fromtimestamp(clock.seconds, UTC)
    clock.seconds += 60
    db.memory.put(NS, "k", {"v": 2})
    item = db.memory.get(NS, "k")
    assert item is not None
    assert (item.value, item.created_at) == ({"v": 2}, created)
    assert item.updated_at == created + datetime.timedelta(seconds=60)


def test_time_of_an_item_never_goes_back(db: lgkv.Database, clock: Clock) -> None:
    db.memory.put(NS, "k", {"v": 1})
    first = db.memory.get(NS, "k")
    clock.seconds -= 3600
    db.memory.put(NS, "k", {"v": 2})
    second = db.memory.get(NS, "k")
    assert first is not None
    assert second is not None
    assert second.updated_at == first.updated_at


def test_deleted_item_is_gone_and_begins_anew(db: lgkv.Database, clock: Clock) -> None:
    db.memory.put(NS, "k", {"v": 1})
    db.memory.delete(NS, "k")
    assert db.memory.get(NS, "k") is None
    assert db.memory.search(()) == []
    assert db.memory.namespaces() == []
    clock.seconds += 5
    db.memory.put(NS, "k", {"v": 1})
    item = db.memory.get(NS, "k")
    assert item is not None
    assert item.created_at.timestamp() == clock.seconds


def test_deleting_what_is_not_there_changes_nothing(db: lgkv.Database) -> None:
    db.memory.put(NS, "k", {})
    before = contents(db)
    db.memory.delete(NS, "other")
    db.memory.delete(("nobody", "here"), "k")
    assert contents(db) == before


def test_deleting_everything_leaves_no_record(db: lgkv.Database) -> None:
    for number in range(5):
        db.memory.put(("a", str(number)), LONG, {"n": 1}, vectors=[1, 2], ttl_seconds=9)
    for number in range(5):
        db.memory.delete(("a", str(number)), LONG)
    assert [key for _, key, _ in contents(db)] == [
        bytes((Kind.VECTOR_SETTINGS,)),
        bytes((Kind.VECTOR_STATE,)),
    ]


def test_value_is_the_callers_own(db: lgkv.Database) -> None:
    value: dict[str, Any] = {"list": [1]}
    db.memory.put(NS, "k", value)
    value["list"].append(2)
    first = db.memory.get(NS, "k")
    assert first is not None
    first.value["list"].append(3)
    (found,) = db.memory.search(NS)
    found.value.clear()
    second = db.memory.get(NS, "k")
    assert second is not None
    assert second.value == {"list": [1]}


@pytest.mark.parametrize(
    "key", ["", "a.b", "\x00", "\ud800", "é", "😀", LONG, LONG + "x", "\x00" * 300, "k" * 200]
)
def test_key_and_label_may_be_any_text(db: lgkv.Database, key: str) -> None:
    namespace = ("n", key or "label", "end")
    for other in ("k" * 100_001, "k" * 201, "\x00" * 301):
        db.memory.put(namespace, other, {"v": "another"})
    db.memory.put(namespace, key, {"v": 1}, vectors=[1.0], ttl_seconds=60)
    item = db.memory.get(namespace, key)
    assert item is not None
    assert (item.namespace, item.key, item.value) == (namespace, key, {"v": 1})
    assert key in keys(db.memory.search(("n",)))
    assert db.memory.search((), vector=[1.0])[0].key == key
    assert db.memory.namespaces() == [namespace]
    db.memory.delete(namespace, key)
    assert db.memory.get(namespace, key) is None
    assert len(db.memory.search(())) == 3


def test_namespace_matches_by_whole_labels(db: lgkv.Database) -> None:
    db.memory.put(("a",), "k", {"v": 1})
    db.memory.put(("ab",), "k", {"v": 2})
    db.memory.put(("a", "b"), "k", {"v": 3})
    assert {item.namespace for item in db.memory.search(("a",))} == {("a",), ("a", "b")}
    assert {item.namespace for item in db.memory.search(("ab",))} == {("ab",)}
    assert len(db.memory.search(())) == 3
    assert db.memory.search(("a", "b", "c")) == []


# --- search --------------------------------------------------------------------------------


def test_search_gives_the_newest_update_first(db: lgkv.Database, clock: Clock) -> None:
    for number in range(4):
        clock.seconds += 1
        db.memory.put(("n", str(number % 2)), str(number), {"n": number})
    clock.seconds += 1
    db.memory.put(("n", "1"), "1", {"n": 1})
    assert keys(db.memory.search(("n",))) == ["1", "3", "2", "0"]


def test_items_of_one_moment_come_in_the_order_of_their_writing(
    db: lgkv.Database, clock: Clock
) -> None:
    assert clock.seconds
    db.memory.put_many([Put(("n", str(number % 3)), str(number), {}) for number in range(20)])
    assert keys(db.memory.search((), limit=20)) == [str(number) for number in reversed(range(20))]


@pytest.mark.parametrize("filter", [None, {"even": True}])
def test_pages_join_to_the_whole(db: lgkv.Database, filter: dict[str, Any] | None) -> None:
    db.memory.put_many(
        Put(("n", str(number % 5)), str(number), {"even": number % 2 == 0}) for number in range(43)
    )
    whole = keys(db.memory.search((), filter=filter, limit=100))
    assert len(whole) == (43 if filter is None else 22)
    paged = [
        key
        for offset in range(0, 50, 7)
        for key in keys(db.memory.search((), filter=filter, limit=7, offset=offset))
    ]
    assert paged == whole
    assert db.memory.search((), filter=filter, limit=0) == []
    assert db.memory.search((), filter=filter, offset=43) == []


def test_filter_keeps_what_it_describes(db: lgkv.Database) -> None:
    for number in range(10):
        db.memory.put(NS, str(number), {"n": number, "deep": {"even": number % 2 == 0}})
    found = db.memory.search((), filter={"n": {"$gte": 4}, "deep": {"even": True}}, limit=2)
    assert keys(found) == ["8", "6"]
    assert keys(db.memory.search((), filter={"n": "4"})) == []


def test_wrong_filter_is_refused_even_when_nothing_would_match(db: lgkv.Database) -> None:
    with pytest.raises(FilterError):
        db.memory.search(("nobody",), filter={"n": {"$regex": "x"}})


@pytest.mark.parametrize(("limit", "offset"), [(-1, 0), (1, -1), (1.5, 0), (None, 0), (True, 0)])
def test_wrong_page_is_refused(db: lgkv.Database, limit: Any, offset: Any) -> None:
    with pytest.raises(InvalidInputError, match="whole number"):
        db.memory.search((), limit=limit, offset=offset)
    with pytest.raises(InvalidInputError, match="whole number"):
        db.memory.namespaces(limit=limit, offset=offset)


# --- vectors -------------------------------------------------------------------------------


def test_search_by_vector_gives_the_nearest_first(db: lgkv.Database) -> None:
    db.memory.put(NS, "east", {}, vectors=[1, 0])
    db.memory.put(NS, "north", {}, vectors=[0, 2])
    db.memory.put(NS, "west", {}, vectors=[-3, 0])
    found = db.memory.search((), vector=[2, 1])
    assert keys(found) == ["east", "north", "west"]
    assert [item.score for item in found] == pytest.approx([2 / 5**0.5, 1 / 5**0.5, -2 / 5**0.5])


def test_item_counts_as_its_best_vector(db: lgkv.Database) -> None:
    db.memory.put(NS, "one", {}, vectors={"title": [1, 1]})
    db.memory.put(NS, "two", {}, vectors={"title": [0, 1], "body": [1, 0]})
    found = db.memory.search((), vector=[1, 0])
    assert keys(found) == ["two", "one"]
    assert found[0].score == 1.0


def test_items_without_vectors_follow_all_scored_ones(db: lgkv.Database, clock: Clock) -> None:
    for number in range(3):
        clock.seconds += 1
        db.memory.put(NS, f"scored {number}", {}, vectors=[1, number])
        db.memory.put(NS, f"plain {number}", {})
    found = db.memory.search((), vector=[1, 0], limit=10)
    assert keys(found) == ["scored 0", "scored 1", "scored 2", "plain 2", "plain 1", "plain 0"]
    assert [item.score is None for item in found] == [False] * 3 + [True] * 3
    paged = [
        key
        for offset in range(6)
        for key in keys(db.memory.search((), vector=[1, 0], limit=1, offset=offset))
    ]
    assert paged == keys(found)


def test_equal_scores_go_by_the_newest_update(db: lgkv.Database, clock: Clock) -> None:
    for number in range(5):
        clock.seconds += 1
        db.memory.put((str(9 - number),), str(number), {}, vectors=[3, 4, number * 0])
    assert keys(db.memory.search((), vector=[1, 1, 1])) == ["4", "3", "2", "1", "0"]


def test_filter_and_prefix_come_before_the_nearest(db: lgkv.Database) -> None:
    for number in range(30):
        db.memory.put(("n", str(number % 2)), str(number), {"n": number}, vectors=[1, number])
    found = db.memory.search(("n", "1"), filter={"n": {"$gte": 20}}, vector=[1, 0], limit=3)
    assert keys(found) == ["21", "23", "25"]
    rest = db.memory.search(
        ("n", "1"), filter={"n": {"$gte": 20}}, vector=[1, 0], limit=9, offset=3
    )
    assert keys(rest) == ["27", "29"]


def test_vector_search_agrees_with_brute_force(db: lgkv.Database) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((300, 24), dtype=np.float32)
    db.memory.put_many(
        Put((str(number % 7),), str(number), {}, vectors=vectors[number]) for number in range(300)
    )
    query = rng.standard_normal(24, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    expected = np.argsort(-(vectors @ query / lengths))
    found = db.memory.search((), vector=query, limit=50, offset=20)
    assert keys(found) == [str(number) for number in expected[20:70]]


def test_put_without_vectors_removes_the_old_ones(db: lgkv.Database) -> None:
    db.memory.put(NS, "k", {}, vectors=[1, 0])
    db.memory.put(NS, "k", {})
    assert db.memory.search((), vector=[1, 0])[0].score is None
    db.memory.delete(NS, "k")
    db.memory.put(NS, "k", {})
    assert db.memory.search((), vector=[1, 0])[0].score is None


def test_put_replaces_all_vectors(db: lgkv.Database) -> None:
    db.memory.put(NS, "k", {}, vectors={"a": [1, 0], "b": [0, 1]})
    db.memory.put(NS, "k", {}, vectors={"a": [-1, 0]})
    assert db.memory.search((), vector=[0, 1])[0].score == 0
    assert db.memory.search((), vector=[1, 0])[0].score == -1


def test_query_of_other_dimensions_is_refused(db: lgkv.Database) -> None:
    assert db.memory.search((), vector=[1, 2, 3]) == []
    db.memory.put(NS, "k", {}, vectors=[1, 0])
    with pytest.raises(DimensionMismatchError, match="3 dimensions, the index 2"):
        db.memory.search((), vector=[1, 2, 3])
    with pytest.raises(InvalidInputError, match="query vector holds nan"):
        db.memory.search((), vector=[1, math.nan])


# --- namespaces ----------------------------------------------------------------------------

TREE = [
    ("a",),
    ("a", "b", "c"),
    ("a", "b", "d", "e"),
    ("a", "b", "d", "i"),
    ("a", "b", "f"),
    ("a", "c", "f"),
    ("b", "c", "f"),
    ("z.", "*", "f"),
]


@pytest.fixture
def tree(db: lgkv.Database) -> lgkv.Database:
    db.memory.put_many(Put(namespace, "k", {}) for namespace in reversed(TREE))
    return db


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, TREE),
        ({"prefix": ("a", "b")}, TREE[1:5]),
        ({"prefix": ("a", "*", "f")}, [TREE[4], TREE[5]]),
        ({"prefix": ("*", "c")}, [TREE[5], TREE[6]]),
        ({"suffix": ("f",)}, TREE[4:8]),
        ({"suffix": ("b", "*")}, [TREE[1], TREE[4]]),
        ({"prefix": ("a",), "suffix": ("c", "*")}, [TREE[5]]),
        ({"prefix": ("a", "b", "c", "d", "e")}, []),
        ({"suffix": ("*",) * 4}, TREE[2:4]),
        ({"max_depth": 1}, [("a",), ("b",), ("z.",)]),
        ({"max_depth": 2}, [("a",), ("a", "b"), ("a", "c"), ("b", "c"), ("z.", "*")]),
        ({"prefix": ("a", "b"), "max_depth": 3}, [TREE[1], ("a", "b", "d"), TREE[4]]),
        ({"suffix": ("f",), "max_depth": 1}, [("a",), ("b",), ("z.",)]),
        ({"limit": 2, "offset": 1}, TREE[1:3]),
        ({"max_depth": 1, "limit": 1, "offset": 1}, [("b",)]),
        ({"limit": 0}, []),
        ({"offset": 8}, []),
    ],
)
def test_namespaces_are_listed_by_their_labels(
    tree: lgkv.Database, options: dict[str, Any], expected: list[tuple[str, ...]]
) -> None:
    assert tree.memory.namespaces(**options) == expected


def test_several_conditions_on_one_end_must_all_hold(tree: lgkv.Database) -> None:
    with tree.memory.view() as view:
        assert view.namespaces(prefixes=[("a", "*"), ("*", "c")]) == [("a", "c", "f")]
        assert view.namespaces(prefixes=[("a",), ("b",)]) == []
        assert view.namespaces(suffixes=[("f",), ("c", "*")]) == [("a", "c", "f"), ("b", "c", "f")]


def test_wrong_depth_is_refused(tree: lgkv.Database) -> None:
    with pytest.raises(InvalidInputError, match="max_depth"):
        tree.memory.namespaces(max_depth=-1)


# --- expiry --------------------------------------------------------------------------------


def test_expired_item_is_hidden_and_swept(db: lgkv.Database, clock: Clock) -> None:
    db.memory.put(NS, "k", {"v": 1}, vectors=[1.0], ttl_seconds=10)
    db.memory.put(("stays",), "k", {})
    item = db.memory.get(NS, "k")
    assert item is not None
    assert item.expires_at == item.created_at + datetime.timedelta(seconds=10)
    clock.seconds += 9.999
    assert db.memory.sweep() == 0
    assert db.memory.get(NS, "k") is not None
    clock.seconds += 0.001
    assert db.memory.get(NS, "k") is None
    assert keys(db.memory.search((), vector=[1.0], limit=5)) == ["k"]
    assert db.memory.namespaces() == [("stays",)]
    with db.memory.view(omit_expired=False) as view:
        assert view.get(NS, "k") is not None
        assert len(view.search(())) == 2
        assert view.namespaces() == [("stays",), NS]
    assert db.memory.sweep() == 1
    assert db.memory.sweep() == 0
    with db.memory.view(omit_expired=False) as view:
        assert view.get(NS, "k") is None
        assert view.namespaces() == [("stays",)]


def test_put_sets_the_deadline_anew_or_removes_it(db: lgkv.Database, clock: Clock) -> None:
    for key in ("longer", "forever", "sooner"):
        db.memory.put(NS, key, {}, ttl_seconds=10)
    db.memory.put(NS, "longer", {}, ttl_seconds=30)
    db.memory.put(NS, "forever", {})
    db.memory.put(NS, "sooner", {}, ttl_seconds=1)
    clock.seconds += 5
    assert db.memory.sweep() == 1
    clock.seconds += 20
    assert db.memory.sweep() == 0
    clock.seconds += 10
    assert db.memory.sweep() == 1
    assert keys(db.memory.search(())) == ["forever"]


def test_expired_item_that_is_put_again_begins_anew(db: lgkv.Database, clock: Clock) -> None:
    db.memory.put(NS, "k", {}, ttl_seconds=1)
    clock.seconds += 5
    db.memory.put(NS, "k", {})
    item = db.memory.get(NS, "k")
    assert item is not None
    assert item.created_at.timestamp() == clock.seconds
    assert db.memory.sweep() == 0
    assert db.memory.namespaces() == [NS]


def test_refresh_moves_the_deadline_by_the_items_own_time(db: lgkv.Database, clock: Clock) -> None:
    db.memory.put(NS, "k", {}, ttl_seconds=80)
    db.memory.put(NS, "stays", {})
    clock.seconds += 9
    with db.memory.view() as view:
        view.get(NS, "k", refresh=True)
        view.search((), refresh=True)
    assert view.to_refresh == set()
    clock.seconds += 1
    with db.memory.view() as view:
        view.get(NS, "k")
        assert view.to_refresh == set()
        view.get(NS, "k", refresh=True)
        view.search((), refresh=True)
    assert len(view.to_refresh) == 1
    commits = db.stats().commits
    db._connection.commit(db.memory.change((), view.to_refresh))
    assert db.stats().commits == commits + 1
    clock.seconds += 79
    assert db.memory.sweep() == 0
    clock.seconds += 1
    assert db.memory.sweep() == 1


def test_refresh_leaves_alone_what_changed_in_the_meantime(db: lgkv.Database, clock: Clock) -> None:
    for key in ("deleted", "forever", "longer"):
        db.memory.put(NS, key, {}, ttl_seconds=8)
    clock.seconds += 4
    with db.memory.view() as view:
        view.search((), refresh=True)
    assert len(view.to_refresh) == 3
    refresh = db.memory.change((), view.to_refresh)
    db.memory.delete(NS, "deleted")
    db.memory.put(NS, "forever", {})
    db.memory.put(NS, "longer", {}, ttl_seconds=100)
    before = contents(db)
    db._connection.commit(refresh)
    assert contents(db) == before


def test_sweep_deletes_in_bounded_commits(db: lgkv.Database, clock: Clock) -> None:
    count = 2 * SWEEP_ITEMS + 500
    db.memory.put_many(Put((str(n % 9),), str(n), {}, ttl_seconds=1) for n in range(count))
    db.memory.put(("stays",), "k", {})
    clock.seconds += 2
    commits = db.stats().commits
    assert db.memory.sweep() == count
    assert db.stats().commits == commits + 3
    assert db.memory.namespaces() == [("stays",)]


def test_sweep_with_nothing_due_writes_nothing(db: lgkv.Database, clock: Clock) -> None:
    db.memory.put(NS, "k", {}, ttl_seconds=1_000)
    before = db.stats().last_commit
    clock.seconds += 1
    assert db.memory.sweep() == 0
    assert db.stats().last_commit == before


# --- changes -------------------------------------------------------------------------------


def test_last_put_of_an_item_counts(db: lgkv.Database) -> None:
    commits = db.stats().commits
    db.memory.put_many(
        [Put(NS, "a", {"v": 1}), Put(NS, "a", {"v": 2}), Put(NS, "b", {"v": 1}), Put(NS, "b", None)]
    )
    assert db.stats().commits == commits + 1
    assert [(item.key, item.value) for item in db.memory.search(())] == [("a", {"v": 2})]


def test_last_of_several_puts_has_nothing_of_those_before(db: lgkv.Database) -> None:
    first = Put(NS, "a", {"v": 1}, [1.0, 0.0], 60, "first")
    second = Put(NS, "b", {"v": 2}, [0.0, 1.0])
    db.memory.put_many([first, second, Put(NS, "a", {"v": 3})])
    assert db.vectors.count() == 1
    assert db.memory.search((), text="first") == []
    found = db.memory.search(())
    assert [(item.key, item.value["v"], item.expires_at) for item in found] == [
        ("b", 2, None),
        ("a", 3, None),
    ]
    db.memory.put_many([Put(NS, "c", None), first, Put(NS, "a", None), Put(NS, "c", {"v": 4})])
    assert [item.key for item in db.memory.search(())] == ["c", "b"]


def test_put_of_many_makes_few_objects_that_the_collector_looks_at(db: lgkv.Database) -> None:
    puts = [Put(("n", str(n % 3)), str(n), {"n": n}, [float(n), 1.0]) for n in range(1000)]
    alive: list[int] = []
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        change = db.memory.change(puts)
        alive.append(len(gc.get_objects()) - before)

        def apply(batch: Batch) -> None:
            change.apply(batch)
            alive.append(len(gc.get_objects()) - before)

        db.commit(Change(apply))
    finally:
        gc.enable()
    assert alive[0] <= 2 * len(puts) + 100  # the vectors of each, and their paths
    assert alive[1] <= alive[0] + 200


def test_view_sees_one_commit(db: lgkv.Database) -> None:
    db.memory.put(NS, "k", {"v": 1})
    with db.memory.view() as view:
        writer = threading.Thread(target=db.memory.put, args=(NS, "k", {"v": 2}))
        writer.start()
        writer.join()
        item = view.get(NS, "k")
        assert item is not None
        assert item.value == {"v": 1}
        assert view.search(())[0].value == {"v": 1}


def test_change_may_be_queued(db: lgkv.Database) -> None:
    futures = [
        db._connection.submit(db.memory.change([Put(NS, str(number), {"n": number})]))
        for number in range(50)
    ]
    for future in futures:
        future.result(30)
    assert len(db.memory.search((), limit=100)) == 50


WRONG = [
    (NS, "k", {1: 2}, {}, "keys are str"),
    (NS, "k", [1], {}, "a value is a mapping"),
    (NS, "k", "text", {}, "a value is a mapping"),
    (NS, "k", None, {}, "a value is a mapping, not None"),
    (NS, "k", {"f": lambda: 0}, {}, "cannot be stored"),
    (NS, "k", {"s": "\ud800"}, {}, "cannot be stored"),
    (["users"], "k", {}, {}, "namespace is a tuple"),
    ("users", "k", {}, {}, "namespace is a tuple"),
    ((), "k", {}, {}, "empty namespace"),
    (("a", ""), "k", {}, {}, "label ''"),
    (("a", 5), "k", {}, {}, "label 5"),
    (NS, 5, {}, {}, "key is a str"),
    (NS, "k", {}, {"vectors": [math.nan, 1]}, "holds nan"),
    (NS, "k", {}, {"vectors": [math.inf, 1]}, "holds inf"),
    (NS, "k", {}, {"vectors": [1, 2, 3]}, "3 dimensions, the index 2"),
    (NS, "k", {}, {"vectors": {"a": [1, 2], "b": [1]}}, "dimensions"),
    (NS, "k", {}, {"vectors": ["x", "y"]}, "not a list of numbers"),
    (NS, "k", {}, {"ttl_seconds": -1}, "time to live"),
    (NS, "k", {}, {"ttl_seconds": math.nan}, "time to live"),
    (NS, "k", {}, {"ttl_seconds": "5"}, "time to live"),
]


@pytest.mark.parametrize(("namespace", "key", "value", "options", "named"), WRONG)
def test_bad_input_is_refused_by_name_and_leaves_nothing(  # noqa: PLR0917  the parts of a case
    db: lgkv.Database, namespace: Any, key: Any, value: Any, options: dict[str, Any], named: str
) -> None:
    db.memory.put(NS, "first", {"v": 1}, vectors=[1, 0])
    before = contents(db), db.stats().last_commit
    with pytest.raises(InvalidInputError, match=named):
        db.memory.put(namespace, key, value, **options)
    if value is not None:
        good = Put(("new",), "good", {"v": 1}, [1.0, 1.0])
        with pytest.raises(InvalidInputError, match=named):
            db.memory.put_many([good, Put(namespace, key, value, **options)])
    assert (contents(db), db.stats().last_commit) == before


@pytest.mark.parametrize("namespace", [["users"], "users", ("a", ""), (None,), None])
def test_reading_with_a_wrong_namespace_is_refused(db: lgkv.Database, namespace: Any) -> None:
    for read in (db.memory.search, lambda given: db.memory.get(given, "k")):
        with pytest.raises(InvalidInputError, match="namespace"):
            read(namespace)


def test_value_that_holds_itself_is_refused(db: lgkv.Database) -> None:
    value: dict[str, Any] = {}
    value["self"] = value
    with pytest.raises(InvalidInputError, match="holds itself"):
        db.memory.put(NS, "k", value)


# --- the file ------------------------------------------------------------------------------


def test_items_survive_reopening(path: str) -> None:
    with lgkv.open(path) as db:
        db.memory.put(NS, LONG, {"v": 1}, vectors={"t": [1, 0]}, ttl_seconds=1_000)
        before = db.memory.search((), vector=[1, 1])
    with lgkv.open(path, mode="r") as db:
        assert db.memory.search((), vector=[1, 1]) == before
        assert db.memory.get(NS, LONG) is not None


def test_two_handles_see_each_others_items(path: str) -> None:
    with lgkv.open(path) as one, lgkv.open(path) as two:
        one.memory.put(NS, "k", {"v": 1})
        assert two.memory.get(NS, "k") is not None
        two.memory.delete(NS, "k")
        assert one.memory.get(NS, "k") is None


CHILD = """
import sys, lgkv
with lgkv.open(sys.argv[1], mode="w") as db:
    item = db.memory.search((), vector=[1.0, 0.0])[0]
    assert (item.key, item.value, item.score) == ("k", {"v": 1}, 1.0), item
    db.memory.put(("child",), "k", {"v": 2}, vectors=[0.0, 1.0])
    db.memory.delete(("users", "42"), "k")
"""


def test_another_process_reads_and_writes_the_same_items(path: str) -> None:
    with lgkv.open(path) as db:
        db.memory.put(NS, "k", {"v": 1}, vectors=[1, 0])
        subprocess.run([sys.executable, "-c", CHILD, path], check=True, timeout=60)
        assert db.memory.namespaces() == [("child",)]
        found = db.memory.search((), vector=[0, 1])
        assert [(item.namespace, item.score) for item in found] == [(("child",), 1.0)]


def test_many_threads_write_and_read_together(db: lgkv.Database) -> None:
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for number in range(25):
                db.memory.put(("w", str(worker)), str(number), {"n": number}, vectors=[1, number])
                assert db.memory.get(("w", str(worker)), str(number)) is not None
                db.memory.search(("w",), vector=[1, 0], limit=3)
        except BaseException as error:  # noqa: BLE001  reported below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(db.memory.search((), limit=1_000)) == 200


def test_read_only_database_reads_and_refuses_writing(path: str) -> None:
    with lgkv.open(path) as db:
        db.memory.put(NS, "k", {"v": 1}, ttl_seconds=1)
    with lgkv.open(path, mode="r") as db:
        db.memory.clock = clock = Clock()
        assert db.memory.get(NS, "k") is not None
        clock.seconds = 10_000_000_000
        assert db.memory.get(NS, "k") is None
        for write in (
            lambda: db.memory.put(NS, "k", {}),
            lambda: db.memory.delete(NS, "k"),
            db.memory.sweep,
        ):
            with pytest.raises(ReadOnlyError):
                write()


def test_closed_database_refuses(path: str) -> None:
    db = lgkv.open(path)
    db.close()
    with pytest.raises(ClosedError):
        db.memory.get(NS, "k")
    with pytest.raises(ClosedError):
        db.memory.put(NS, "k", {})


def key_of(db: lgkv.Database, kind: Kind) -> bytes:
    with db._connection.snapshot() as snapshot:
        return next(snapshot.keys(Table.MEMORY, bytes((kind,))))


@pytest.mark.parametrize(
    "body",
    [
        b"\x00" * 47,
        b"\x30" + b"\x00" * 46,
        b"\x00" * 48,
        b"\x31" + b"\x00" * 47,
        b"\x30" + b"\x00" * 43 + b"\x01\x00\x00\x00",
        b"\x30" + b"\x00" * 47 + b"\x01",
    ],
)
def test_damaged_pack_is_named(db: lgkv.Database, body: bytes) -> None:
    db.memory.put(NS, "k", {"v": 1})
    key = key_of(db, Kind.PACK)
    db._connection.commit(Change(lambda batch: batch.put(Table.MEMORY, key, body)))
    for read in (
        lambda: db.memory.get(NS, "k"),
        lambda: db.memory.search(()),
        lambda: db.memory.put(NS, "k", {}),
        lambda: db.memory.delete(NS, "k"),
    ):
        with pytest.raises(CorruptionError) as caught:
            read()
        assert (caught.value.database, caught.value.key) == ("memory", key)


@pytest.mark.parametrize("body", [b"", b"\x00" * 23, b"\x00" * 24, b"\x00" * 25])
def test_damaged_place_of_an_item_is_named(db: lgkv.Database, body: bytes) -> None:
    db.memory.put(NS, "k", {"v": 1})
    key = key_of(db, Kind.ITEM)
    db._connection.commit(Change(lambda batch: batch.put(Table.MEMORY, key, body)))
    for read in (lambda: db.memory.get(NS, "k"), lambda: db.memory.put(NS, "k", {})):
        with pytest.raises(CorruptionError, match=r"place|where") as caught:
            read()
        assert caught.value.database == "memory"
    assert keys(db.memory.search(())) == ["k"]


def test_value_that_is_no_mapping_is_damage(db: lgkv.Database) -> None:
    db.memory.put(NS, "k", {"v": 1})
    key = key_of(db, Kind.PACK)
    for value, named in ((b"\x81\x01", "not a mapping|CBOR"), (b"\xa1\x61", "damaged CBOR")):
        pack = pack_entry(1, 1, 1, 0, 0, b"k", value)
        db._connection.commit(Change(lambda batch, pack=pack: batch.put(Table.MEMORY, key, pack)))
        for read in (
            lambda: db.memory.get(NS, "k"),
            lambda: db.memory.search(()),
            lambda: db.memory.search((), filter={"v": {"$ne": {}}}),
        ):
            with pytest.raises(CorruptionError, match=named):
                read()
