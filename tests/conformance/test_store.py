"""LgkvStore: what LangGraph's store interface asks for, point by point."""

from __future__ import annotations

import concurrent.futures
import datetime
import gc
import math
import subprocess
import sys
import threading
import weakref
from collections import UserDict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchItem,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

import lgkv
from lgkv.errors import (
    ClosedError,
    DimensionMismatchError,
    FilterError,
    InvalidInputError,
    ReadOnlyError,
)
from lgkv.langgraph import AsyncLgkvStore, LgkvStore
from lgkv.langgraph._sweeper import Sweeper
from lgkv.writer import Pending

UTC = datetime.timezone.utc
NS = ("users", "42")


class Letters(Embeddings):
    """Counts letters a to d; keeps what it was asked."""

    def __init__(self) -> None:
        self.documents: list[list[str]] = []
        self.queries: list[str] = []

    @staticmethod
    def vector(text: str) -> list[float]:
        return [float(text.count(letter)) for letter in "abcd"]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.documents.append(list(texts))
        return [self.vector(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        self.queries.append(text)
        return self.vector(text)


class Clock:
    """A clock that a test moves, in seconds."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def __call__(self) -> int:
        return int(self.seconds * 1_000_000)


@pytest.fixture
def store(db: lgkv.Database) -> LgkvStore:
    return LgkvStore(db)


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
def indexed(db: lgkv.Database, letters: Letters) -> LgkvStore:
    return LgkvStore(db, index={"embed": letters, "dims": 4, "fields": ["text"]})


@pytest.fixture
def clock(db: lgkv.Database) -> Clock:
    db.memory.clock = clock = Clock()
    return clock


def keys(items: Sequence[Item]) -> list[str]:
    return [item.key for item in items]


def unchanged(db: lgkv.Database) -> tuple[int, dict[str, int]]:
    stats = db.stats()
    return stats.last_commit, stats.records


# --- the interface -------------------------------------------------------------------------


def test_store_is_a_base_store_with_time_to_live(store: LgkvStore) -> None:
    assert isinstance(store, BaseStore)
    assert store.supports_ttl
    assert store.ttl_config is None
    assert store.index_config is None
    assert store.embeddings is None


def test_configuration_is_shown_as_the_peers_show_it(db: lgkv.Database, letters: Letters) -> None:
    store = LgkvStore(
        db, index={"embed": letters, "dims": 4, "fields": ["a.b", "$"]}, ttl={"default_ttl": 5}
    )
    assert store.embeddings is letters
    assert store.ttl_config == {"default_ttl": 5}
    assert store.index_config is not None
    assert store.index_config["dims"] == 4
    assert store.index_config["__tokenized_fields"] == [("a.b", ["a", "b"]), ("$", "$")]


def test_items_are_langgraphs_own(store: LgkvStore) -> None:
    before = datetime.datetime.now(UTC)
    store.put(NS, "k", {"v": 1})
    item = store.get(NS, "k")
    (found,) = store.search(NS)
    assert type(item) is Item
    assert type(found) is SearchItem
    assert (item.namespace, item.key, item.value) == (NS, "k", {"v": 1})
    assert (found.namespace, found.key, found.value, found.score) == (NS, "k", {"v": 1}, None)
    assert before <= item.created_at == item.updated_at <= datetime.datetime.now(UTC)
    assert found.created_at == item.created_at


def test_every_operation_gives_its_result_in_its_place(store: LgkvStore) -> None:
    store.put(NS, "k", {"v": 1})
    condition = MatchCondition("prefix", ("users",))
    results = store.batch(
        [
            GetOp(NS, "k"),
            PutOp(NS, "new", {"v": 2}),
            SearchOp(("users",)),
            GetOp(NS, "nothing"),
            ListNamespacesOp((condition,)),
            SearchOp(("nobody",)),
        ]
    )
    assert isinstance(results[0], Item)
    assert [results[1], results[3], results[4], results[5]] == [None, None, [NS], []]
    assert keys(results[2]) == ["k"]
    assert store.batch([]) == []


# 1. reads before writes, the last put counts, labels are checked


def test_reads_of_a_batch_see_the_state_before_it(store: LgkvStore) -> None:
    store.put(NS, "k", {"v": "old"})
    put, delete = PutOp(NS, "k", {"v": "new"}), PutOp(NS, "gone", None)
    store.put(NS, "gone", {})
    first = store.batch([put, delete, GetOp(NS, "k"), SearchOp(NS), ListNamespacesOp()])
    assert first[2].value == {"v": "old"}
    assert sorted(keys(first[3])) == ["gone", "k"]
    assert store.get(NS, "k").value == {"v": "new"}
    assert store.get(NS, "gone") is None


def test_last_put_of_a_batch_counts_and_all_share_a_commit(
    db: lgkv.Database, store: LgkvStore
) -> None:
    commits = db.stats().commits
    store.batch(
        [
            PutOp(NS, "a", {"v": 1}),
            PutOp(NS, "a", {"v": 2}),
            PutOp(NS, "b", {"v": 1}),
            PutOp(NS, "b", None),
            PutOp(NS, "c", None),
            PutOp(NS, "c", {"v": 3}),
        ]
    )
    assert db.stats().commits == commits + 1
    assert {item.key: item.value["v"] for item in store.search(NS)} == {"a": 2, "c": 3}


@pytest.mark.parametrize("namespace", [("a.b",), ("a", ""), ("a\x00",), (5,), ("a", None)])
def test_batch_refuses_the_labels_that_the_methods_refuse(
    db: lgkv.Database, store: LgkvStore, namespace: Any
) -> None:
    before = unchanged(db)
    ops: list[Op] = [
        PutOp(namespace, "k", {}),
        PutOp(namespace, "k", None),
        GetOp(namespace, "k"),
        SearchOp(namespace),
        ListNamespacesOp((MatchCondition("suffix", namespace),)),
    ]
    for op in ops:
        with pytest.raises(InvalidNamespaceError):
            store.batch([PutOp(NS, "good", {}), op])
    with pytest.raises(InvalidNamespaceError):
        store.put(namespace, "k", {})
    assert unchanged(db) == before


@pytest.mark.parametrize("namespace", [["users", "42"], "users", None, 5])
def test_namespace_that_is_no_tuple_is_refused_with_the_remedy(
    store: LgkvStore, namespace: Any
) -> None:
    for op in (PutOp(namespace, "k", {}), GetOp(namespace, "k"), SearchOp(namespace)):
        with pytest.raises(InvalidInputError, match=r"write \('users', '42'\)"):
            store.batch([op])
    if namespace != 5 and namespace:
        with pytest.raises(InvalidInputError, match="tuple"):
            store.put(namespace, "k", {})
        with pytest.raises(InvalidInputError, match="tuple"):
            store.search(namespace)


@pytest.mark.parametrize("namespace", [(), ("langgraph", "x")])
def test_put_refuses_the_namespaces_that_langgraph_reserves(
    store: LgkvStore, namespace: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidNamespaceError):
        store.put(namespace, "k", {})


def test_item_in_the_empty_namespace_is_refused_and_none_is_found(store: LgkvStore) -> None:
    with pytest.raises(InvalidInputError, match="empty namespace"):
        store.batch([PutOp((), "k", {})])
    assert store.get((), "k") is None


def test_unknown_operation_is_refused(db: lgkv.Database, store: LgkvStore) -> None:
    before = unchanged(db)
    with pytest.raises(InvalidInputError, match="unknown operation"):
        store.batch([PutOp(NS, "k", {}), "get"])
    with pytest.raises(InvalidInputError, match="match type"):
        store.batch([ListNamespacesOp((MatchCondition("infix", ("a",)),))])
    with pytest.raises(InvalidInputError, match="path to match"):
        store.batch([ListNamespacesOp((MatchCondition("prefix", "abc"),))])
    assert unchanged(db) == before


def test_key_is_the_text_of_itself(store: LgkvStore) -> None:
    store.put(NS, 7, {"v": 1})
    assert store.get(NS, "7").value == {"v": 1}
    assert store.batch([GetOp(NS, 7)])[0].key == "7"  # type: ignore[arg-type, union-attr]


# 2. whole labels


def test_namespaces_match_whole_labels(store: LgkvStore) -> None:
    for namespace in (("a",), ("ab",), ("a", "b"), ("a,b",), ("a/b", "c"), ("*",)):
        store.put(namespace, "k", {})
    assert {item.namespace for item in store.search(("a",))} == {("a",), ("a", "b")}
    assert [item.namespace for item in store.search(("*",))] == [("*",)]
    assert store.list_namespaces(prefix=("a",)) == [("a",), ("a", "b")]
    assert len(store.list_namespaces(prefix=("*",))) == 6
    assert store.list_namespaces(suffix=("b",)) == [("a", "b")]


# 3. re-put and delete take the vectors along, created_at stays


def test_put_without_index_removes_the_old_vectors(indexed: LgkvStore) -> None:
    indexed.put(NS, "k", {"text": "aaa"})
    assert indexed.search(NS, query="a")[0].score == 1.0
    indexed.put(NS, "k", {"text": "aaa"}, index=False)
    assert indexed.search(NS, query="a")[0].score is None


def test_deleted_vectors_do_not_come_back(indexed: LgkvStore) -> None:
    indexed.put(NS, "k", {"text": "aaa"})
    indexed.delete(NS, "k")
    indexed.put(NS, "k", {"text": "aaa"}, index=False)
    assert indexed.search(NS, query="a")[0].score is None
    indexed.put(NS, "k", {"other": "b"})
    assert indexed.search(NS, query="a")[0].score is None


def test_created_at_survives_an_update(store: LgkvStore, clock: Clock) -> None:
    store.put(NS, "k", {"v": 1})
    first = store.get(NS, "k")
    clock.seconds += 60
    store.put(NS, "k", {"v": 2})
    second = store.get(NS, "k")
    assert first is not None
    assert second is not None
    assert second.created_at == first.created_at
    assert second.updated_at == first.updated_at + datetime.timedelta(seconds=60)


# 4. several vectors an item, the same text twice


def test_text_is_embedded_once_a_batch(indexed: LgkvStore, letters: Letters) -> None:
    indexed.batch(
        [
            PutOp(NS, "1", {"text": "ab"}),
            PutOp(NS, "2", {"text": "ab"}),
            PutOp(NS, "3", {"text": "c", "more": "ab"}, index=["text", "more"]),
            PutOp(NS, "3", {"text": "d", "more": "ab"}, index=["text", "more"]),
            SearchOp(NS, query="ab"),
            SearchOp(("other",), query="ab"),
            SearchOp(NS, query=""),
        ]
    )
    assert letters.documents == [["ab", "d"]]
    assert letters.queries == ["ab"]
    assert [item.score for item in indexed.search(NS, query="ab")] == pytest.approx([1, 1, 1])


def test_item_counts_as_its_best_field(db: lgkv.Database, letters: Letters) -> None:
    fields = ["parts[*].text", "title"]
    store = LgkvStore(db, index={"embed": letters, "dims": 4, "fields": fields})
    store.put(NS, "many", {"parts": [{"text": "b"}, {"text": "a"}, {"none": 1}], "title": "c"})
    store.put(NS, "one", {"title": "ab"})
    found = store.search(NS, query="a")
    assert keys(found) == ["many", "one"]
    assert [item.score for item in found] == pytest.approx([1, math.sqrt(0.5)])
    assert len(letters.documents[0]) == 3


def test_equal_text_in_different_fields_scores_equal(indexed: LgkvStore) -> None:
    indexed.put(NS, "1", {"text": "abcc", "x": "d"}, index=["text", "x"])
    indexed.put(NS, "2", {"y": {"z": ["d", "abcc"]}}, index=["y.z[1]", "y.z[0]"])
    first, second = indexed.search(NS, query="acd")
    assert first.score == second.score


# 5. unindexed items fill the end, and only the end


def test_unscored_items_come_after_all_scored_ones(indexed: LgkvStore) -> None:
    for number in range(4):
        indexed.put(NS, f"plain {number}", {"text": "a"}, index=False)
        indexed.put(NS, f"far {number}", {"text": "a" + "b" * (number + 1)})
    whole = indexed.search(NS, query="a", limit=20)
    assert keys(whole)[:4] == ["far 0", "far 1", "far 2", "far 3"]
    assert [item.score is None for item in whole] == [False] * 4 + [True] * 4
    assert keys(indexed.search(NS, query="a", limit=2)) == ["far 0", "far 1"]


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_pages_of_a_query_join_to_the_whole(indexed: LgkvStore, limit: int) -> None:
    for number in range(11):
        indexed.put(
            NS, str(number), {"text": "a" + "b" * number}, index=None if number % 3 else False
        )
    whole = keys(indexed.search(NS, query="a", limit=50))
    paged = [
        key
        for offset in range(0, 12, limit)
        for key in keys(indexed.search(NS, query="a", limit=limit, offset=offset))
    ]
    assert len(whole) == 11
    assert paged == whole


# 6. filters


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"n": 3}, "3"),
        ({"n": {"$gt": 1, "$lte": 3}}, "23"),
        ({"n": {"$ne": 2}}, "0134"),
        ({"n": {"$in": [0, 4, "1"]}}, "04"),
        ({"n": {"$nin": [0, 4]}}, "123"),
        ({"missing": None}, "01234"),
        ({"missing": {"$ne": 1}}, "01234"),
        ({"odd": {"$exists": True}}, "13"),
        ({"deep": {"text": "2"}}, "2"),
        ({"deep": {"text": {"$gte": "3"}}}, "34"),
        ({"$or": [{"n": 0}, {"odd": 1}]}, "013"),
        ({"$not": {"n": {"$lt": 4}}}, "4"),
        ({"n": "3"}, ""),
        ({"n": {"$gt": "1"}}, ""),
    ],
)
def test_filter_keeps_what_it_describes(
    indexed: LgkvStore, filter: dict[str, Any], expected: str
) -> None:
    for number in range(5):
        value: dict[str, Any] = {"n": number, "deep": {"text": str(number)}, "text": "a"}
        if number % 2:
            value["odd"] = True
        indexed.put(NS, str(number), value)
    assert sorted(keys(indexed.search((), filter=filter))) == list(expected)
    assert sorted(keys(indexed.search((), filter=filter, query="a"))) == list(expected)


def test_unknown_operator_is_refused_before_anything_happens(
    db: lgkv.Database, indexed: LgkvStore, letters: Letters
) -> None:
    before = unchanged(db)
    with pytest.raises(FilterError, match=r"\$regex"):
        indexed.batch(
            [PutOp(NS, "k", {"text": "a"}), SearchOp(("no",), {"n": {"$regex": 1}}, query="a")]
        )
    assert unchanged(db) == before
    assert (letters.documents, letters.queries) == ([], [])


# 7. order without a query


def test_plain_search_gives_the_newest_update_first(store: LgkvStore, clock: Clock) -> None:
    for number in range(3):
        clock.seconds += 1
        store.put(("n", str(number)), str(number), {})
    clock.seconds += 1
    store.put(("n", "0"), "0", {})
    assert keys(store.search(("n",))) == ["0", "2", "1"]
    assert keys(store.search(("n",), limit=1, offset=1)) == ["2"]


@pytest.mark.parametrize("query", [None, ""])
def test_empty_query_lists_normally(
    indexed: LgkvStore, letters: Letters, query: str | None
) -> None:
    indexed.put(NS, "1", {"text": "a"})
    indexed.put(NS, "2", {"text": "b"})
    found = indexed.search(NS, query=query)
    assert keys(found) == ["2", "1"]
    assert [item.score for item in found] == [None, None]
    assert letters.queries == []


def test_query_without_an_index_lists_normally(store: LgkvStore) -> None:
    store.put(NS, "1", {"text": "a"})
    assert [(item.key, item.score) for item in store.search(NS, query="a")] == [("1", None)]


def test_limit_of_zero_gives_nothing_and_less_is_refused(store: LgkvStore) -> None:
    store.put(NS, "k", {})
    assert store.search(NS, limit=0) == []
    assert store.list_namespaces(limit=0) == []
    for page in ({"limit": -1}, {"offset": -1}):
        with pytest.raises(InvalidInputError, match="0 or more"):
            store.search(NS, **page)
        with pytest.raises(InvalidInputError, match="0 or more"):
            store.list_namespaces(**page)


# 8. time to live


def test_time_to_live_is_in_minutes(store: LgkvStore, clock: Clock) -> None:
    store.put(NS, "k", {}, ttl=2)
    store.put(NS, "stays", {})
    clock.seconds += 119
    assert store.sweep_ttl() == 0
    clock.seconds += 1
    assert store.sweep_ttl() == 1
    assert store.sweep_ttl() == 0
    assert keys(store.search(NS)) == ["stays"]


def test_default_time_to_live_is_used_unless_one_is_given(db: lgkv.Database, clock: Clock) -> None:
    store = LgkvStore(db, ttl={"default_ttl": 1})
    store.put(NS, "default", {})
    store.put(NS, "longer", {}, ttl=3)
    store.put(NS, "forever", {}, ttl=None)
    clock.seconds += 61
    assert store.sweep_ttl() == 1
    clock.seconds += 120
    assert store.sweep_ttl() == 1
    assert keys(store.search(NS)) == ["forever"]


def test_expired_items_are_shown_until_swept_unless_omitted(
    db: lgkv.Database, store: LgkvStore, clock: Clock
) -> None:
    omitting = LgkvStore(db, ttl={"omit_expired": True})
    store.put(("old",), "k", {}, ttl=1)
    store.put(("new",), "k", {}, ttl=3)
    clock.seconds += 60
    assert store.get(("old",), "k", refresh_ttl=False) is not None
    assert len(store.search((), refresh_ttl=False)) == 2
    assert store.list_namespaces() == [("new",), ("old",)]
    assert omitting.get(("old",), "k") is None
    assert [item.namespace for item in omitting.search(())] == [("new",)]
    assert omitting.list_namespaces() == [("new",)]
    assert omitting.list_namespaces(max_depth=1) == [("new",)]


@pytest.mark.parametrize("read", ["get", "search"])
def test_reading_moves_the_deadline(
    db: lgkv.Database, store: LgkvStore, clock: Clock, read: str
) -> None:
    store.put(NS, "k", {}, ttl=1)
    clock.seconds += 50
    _ = store.get(NS, "k") if read == "get" else store.search(NS)
    db.memory.put(("flush",), "k", {})
    clock.seconds += 50
    assert store.sweep_ttl() == 0
    clock.seconds += 10
    assert store.sweep_ttl() == 1


@pytest.mark.parametrize("way", ["argument", "configuration"])
def test_reading_without_refresh_leaves_the_deadline(
    db: lgkv.Database, clock: Clock, way: str
) -> None:
    store = LgkvStore(db, ttl={"refresh_on_read": way != "configuration"})
    argument = False if way == "argument" else None
    store.put(NS, "k", {}, ttl=1)
    clock.seconds += 50
    before = unchanged(db)
    store.get(NS, "k", refresh_ttl=argument)
    store.search(NS, refresh_ttl=argument)
    clock.seconds += 10
    assert unchanged(db) == before
    assert store.sweep_ttl() == 1


def test_reads_of_a_batch_move_deadlines_in_one_commit_and_rarely(
    db: lgkv.Database, store: LgkvStore, clock: Clock
) -> None:
    store.batch([PutOp(NS, str(number), {}, ttl=8) for number in range(5)])
    commits = db.stats().commits
    clock.seconds += 59
    store.search(NS)
    assert db.stats().commits == commits
    clock.seconds += 1
    store.batch([SearchOp(NS), GetOp(NS, "1"), PutOp(NS, "new", {})])
    assert db.stats().commits == commits + 1
    store.search(NS)
    store.put(("flush",), "k", {})
    assert db.stats().commits == commits + 2


def test_read_only_database_moves_no_deadline(path: str) -> None:
    with LgkvStore.from_conn_string(path) as store:
        store.put(NS, "k", {}, ttl=1)
    with LgkvStore.from_conn_string(path, mode="r") as store:
        clock = store.db.memory.clock = Clock()
        clock.seconds = store.get(NS, "k").created_at.timestamp() + 59
        assert store.get(NS, "k") is not None
        with pytest.raises(ReadOnlyError):
            store.put(NS, "k", {})


def test_failed_refresh_is_logged_and_does_not_fail_the_read(
    db: lgkv.Database,
    store: LgkvStore,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.put(NS, "k", {}, ttl=1)
    clock.seconds += 50
    failed = Pending(None)
    failed.fail(lgkv.WriteLockTimeoutError("locked"))
    monkeypatch.setattr(db, "post", lambda _, mailbox, __: mailbox.deliver([failed]))
    assert store.get(NS, "k") is not None
    assert "deadlines could not be moved on reading: locked" in caplog.text


@pytest.mark.parametrize("ttl", [-1, math.nan, "5", math.inf, True])
def test_wrong_time_to_live_is_refused(db: lgkv.Database, store: LgkvStore, ttl: Any) -> None:
    before = unchanged(db)
    with pytest.raises(InvalidInputError, match="time to live"):
        store.put(NS, "k", {}, ttl=ttl)
    with pytest.raises(InvalidInputError, match="time to live"):
        LgkvStore(db, ttl={"default_ttl": ttl})
    assert unchanged(db) == before


def test_wrong_ttl_configuration_is_refused(db: lgkv.Database) -> None:
    with pytest.raises(InvalidInputError, match="default_ttl"):
        LgkvStore(db, ttl=5)
    with pytest.raises(InvalidInputError, match="sweep_interval"):
        LgkvStore(db, ttl={"sweep_interval_minutes": 0})
    for interval in (0, -1, math.nan, "5", True):
        with pytest.raises(InvalidInputError, match="sweep_interval"):
            LgkvStore(db).start_ttl_sweeper(interval)  # type: ignore[arg-type]


# --- the sweeper ---------------------------------------------------------------------------


def test_sweeper_deletes_until_stopped(store: LgkvStore, clock: Clock) -> None:
    store.put(NS, "k", {}, ttl=1)
    clock.seconds += 61
    future = store.start_ttl_sweeper(0.0001)
    assert store.start_ttl_sweeper() is future
    gone = threading.Event()
    for _ in range(1_000):
        if store.get(NS, "k", refresh_ttl=False) is None:
            gone.set()
            break
        gone.wait(0.01)
    assert gone.is_set()
    assert not future.done()
    assert store.stop_ttl_sweeper(30)
    assert future.result(30) is None
    assert store.stop_ttl_sweeper()


def test_stopped_sweeper_may_be_started_again(store: LgkvStore) -> None:
    first = store.start_ttl_sweeper(60)
    assert store.stop_ttl_sweeper(30)
    second = store.start_ttl_sweeper(60)
    assert second is not first
    assert not second.done()
    assert second.cancel()
    assert store.stop_ttl_sweeper(30)


def test_sweeper_is_not_started_without_configuration(store: LgkvStore) -> None:
    assert store.start_ttl_sweeper().result(0) is None
    assert store.stop_ttl_sweeper()


def test_error_ends_the_sweeper_is_logged_and_in_its_future(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> int:
        raise OSError("no disk")

    sweeper = Sweeper(fail, 0.001)
    with pytest.raises(OSError, match="no disk"):
        sweeper.future.result(30)
    assert sweeper.join(30)
    assert not sweeper.running
    assert "the sweeper ends" in caplog.text


def test_sweeper_ends_with_its_database_and_with_its_store(path: str) -> None:
    db = lgkv.open(path)
    store = LgkvStore(db)
    future = store.start_ttl_sweeper(0.0001)
    db.close()
    assert future.result(30) is None

    with lgkv.open(path) as db:
        store = LgkvStore(db)
        future, gone = store.start_ttl_sweeper(60), weakref.ref(store)
        del store
        gc.collect()
        assert gone() is None
        assert future.result(30) is None

    owner = LgkvStore.from_conn_string(path)
    future = owner.start_ttl_sweeper(60)
    owner.close()
    assert future.result(30) is None
    assert owner.db.closed


# 10. the caller's own values


def test_values_are_the_callers_own(indexed: LgkvStore) -> None:
    value: dict[str, Any] = {"text": "a", "list": [1]}
    indexed.put(NS, "k", value)
    value["list"].append(2)
    for read in (
        lambda: indexed.get(NS, "k"),
        lambda: indexed.search(NS)[0],
        lambda: indexed.search(NS, query="a")[0],
        lambda: indexed.search(NS, filter={"text": "a"})[0],
    ):
        item = read()
        assert item.value == {"text": "a", "list": [1]}
        item.value["list"].append(3)
        item.value["more"] = True


def test_two_reads_of_a_batch_do_not_share_a_value(store: LgkvStore) -> None:
    store.put(NS, "k", {"list": [1]})
    first, second, found = store.batch([GetOp(NS, "k"), GetOp(NS, "k"), SearchOp(NS)])
    first.value["list"].append(2)
    assert second.value == {"list": [1]}
    assert found[0].value == {"list": [1]}  # type: ignore[index, union-attr]


def test_any_mapping_is_stored_as_a_dict(store: LgkvStore) -> None:
    store.put(NS, "k", UserDict({"v": 1}))
    assert store.get(NS, "k").value == {"v": 1}


# 11. what is embedded


@pytest.mark.parametrize(
    ("fields", "index", "expected"),
    [
        (["text"], None, ["title of it"]),
        (["$"], None, None),
        (None, None, None),
        (["text"], ["meta.lang", "tags[*]"], ["en", "x", "y"]),
        (["text"], ["tags[0]"], ["x"]),
        (["text"], ["tags[-1]"], ["y"]),
        (["text"], ["parts[*].body"], ["one", "two"]),
        (["text"], ["number", "flag"], ["7", "True"]),
        (["text"], ["meta"], ['{"lang": "en"}']),
        (["text"], ["missing", "tags[9]", "text.deeper"], []),
        (["text"], [], []),
        (["text"], False, []),
        (["missing", "text"], None, ["title of it"]),
        ("text", None, ["title of it"]),
    ],
)
def test_fields_and_index_choose_the_texts(
    db: lgkv.Database, letters: Letters, fields: Any, index: Any, expected: list[str] | None
) -> None:
    value = {
        "text": "title of it",
        "meta": {"lang": "en"},
        "tags": ["x", "y"],
        "parts": [{"body": "one"}, {"no": 1}, {"body": "two"}],
        "number": 7,
        "flag": True,
        "none": None,
    }
    store = LgkvStore(db, index={"embed": letters, "dims": 4, "fields": fields})
    store.put(NS, "k", value, index=index)
    asked = [text for texts in letters.documents for text in texts]
    if expected is None:
        assert len(asked) == 1
        assert '"lang": "en"' in asked[0]
    else:
        assert asked == expected
    assert (store.search(NS, query="a")[0].score is None) == (expected == [])


@pytest.mark.parametrize("index", [True, "text", 5, [5], [None]])
def test_wrong_index_of_a_put_is_refused(db: lgkv.Database, indexed: LgkvStore, index: Any) -> None:
    before = unchanged(db)
    with pytest.raises(InvalidInputError, match="list of paths"):
        indexed.put(NS, "k", {"text": "a"}, index=index)
    assert unchanged(db) == before


def test_index_of_a_put_is_ignored_without_an_index(store: LgkvStore) -> None:
    store.put(NS, "k", {"text": "a"}, index=["text"])
    store.put(NS, "k", {"text": "a"}, index=False)
    assert keys(store.search(NS)) == ["k"]


def test_value_that_is_no_text_names_its_field(db: lgkv.Database, letters: Letters) -> None:
    store = LgkvStore(db, index={"embed": letters, "dims": 4})
    before = unchanged(db)
    with pytest.raises(InvalidInputError, match=r"field '\$' of item 'k'.*index\['fields'\]"):
        store.put(NS, "k", {"raw": b"\x00"})
    assert unchanged(db) == before
    store.put(NS, "k", {"raw": b"\x00", "text": "a"}, index=["text"])
    assert store.search(NS, query="a")[0].score == 1


def test_embedding_may_be_a_function(db: lgkv.Database) -> None:
    def embed(texts: Sequence[str]) -> list[list[float]]:
        return [Letters.vector(text) for text in texts]

    store = LgkvStore(db, index={"embed": embed, "dims": 4, "fields": ["text"]})
    store.put(NS, "k", {"text": "ab"})
    assert store.search(NS, query="ab")[0].score == pytest.approx(1)


class Wrong(Letters):
    """Gives what it is told to."""

    def __init__(self, rows: Any) -> None:
        super().__init__()
        self.rows = rows

    def embed_documents(self, texts: list[str]) -> Any:
        assert texts
        return self.rows

    def embed_query(self, text: str) -> Any:
        assert text
        return self.rows[0]


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([[1, 2, 3, math.nan]], "documents holds nan at 3"),
        ([[1, math.inf, 3, 4]], "documents holds inf at 1"),
        ([[1, 2, 3]], "3 dimensions, the index 4"),
        ([], "0 vectors for 1 documents"),
        ([[1, 2, 3, 4]] * 2, "2 vectors for 1 documents"),
        ([["a", "b", "c", "d"]], "not a list of numbers"),
        ([None], "not a list of numbers"),
    ],
)
def test_wrong_embedding_is_refused_and_nothing_written(
    db: lgkv.Database, rows: Any, named: str
) -> None:
    store = LgkvStore(db, index={"embed": Wrong(rows), "dims": 4, "fields": ["text"]})
    before = unchanged(db)
    with pytest.raises(InvalidInputError, match=named):
        store.batch([PutOp(NS, "plain", {}), PutOp(NS, "k", {"text": "a"})])
    assert unchanged(db) == before
    if len(rows) == 1:
        with pytest.raises(InvalidInputError, match=named.replace("documents", "queries")):
            store.search(NS, query="a")


def test_failing_embedding_fails_the_batch_and_writes_nothing(db: lgkv.Database) -> None:
    def embed(texts: Sequence[str]) -> list[list[float]]:
        raise ConnectionError(f"no model for {len(texts)}")

    store = LgkvStore(db, index={"embed": embed, "dims": 4, "fields": ["text"]})
    before = unchanged(db)
    with pytest.raises(ConnectionError):
        store.batch([PutOp(NS, "plain", {}), PutOp(NS, "k", {"text": "a"})])
    assert unchanged(db) == before


def test_dimensions_of_another_model_are_refused(db: lgkv.Database, indexed: LgkvStore) -> None:
    indexed.put(NS, "k", {"text": "a"})
    other = LgkvStore(db, index={"embed": Wrong([[1.0, 2.0]]), "dims": 2, "fields": ["text"]})
    before = unchanged(db)
    with pytest.raises(DimensionMismatchError, match="model that the file was filled with"):
        other.put(NS, "other", {"text": "a"})
    with pytest.raises(DimensionMismatchError):
        other.search(NS, query="a")
    assert unchanged(db) == before
    assert keys(other.search(NS)) == ["k"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"dims": 0}, "dims"),
        ({"dims": "4"}, "dims"),
        ({"dims": True}, "dims"),
        ({"embed": None}, "embed"),
        ({"fields": [5]}, "fields"),
        ({"fields": 5}, "fields"),
        ({"distance_type": "manhattan"}, "metric"),
        ({"storage": "int8"}, "storage"),
        ({"model": 5}, "model"),
    ],
)
def test_wrong_index_configuration_is_refused(
    db: lgkv.Database, letters: Letters, change: dict[str, Any], named: str
) -> None:
    config: Any = {"embed": letters, "dims": 4, "fields": ["text"], "distance_type": "cosine"}
    LgkvStore(db, index=config)
    with pytest.raises(InvalidInputError, match=named):
        LgkvStore(db, index={**config, **change})


# --- bad values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [[1], "text", 5, {1: 2}, {"f": object()}, {"f": len}, {"s": "\ud800"}]
)
def test_value_that_cannot_be_stored_is_refused(
    db: lgkv.Database, store: LgkvStore, value: Any
) -> None:
    before = unchanged(db)
    with pytest.raises(InvalidInputError):
        store.batch([PutOp(NS, "good", {}), PutOp(NS, "k", value)])
    assert unchanged(db) == before


# --- unbounded names -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["x" * 100_000, "é" * 50_000, "\ud800", "a\nb", "😀", "*", "a b/c"]
)
def test_names_are_unbounded(indexed: LgkvStore, name: str) -> None:
    indexed.put((name, "end"), name, {"text": "a"})
    indexed.put((name + "x", "end"), name, {"text": "b"})
    assert indexed.get((name, "end"), name).value == {"text": "a"}
    found = indexed.search((name,), query="a")
    assert [(item.namespace, item.key) for item in found] == [((name, "end"), name)]
    assert (name, "end") in indexed.list_namespaces(prefix=(name,))
    indexed.delete((name, "end"), name)
    assert indexed.search((name,)) == []


@pytest.mark.parametrize("key", ["", "\x00", "k" * 100_000 + "\x00"])
def test_keys_may_be_empty_or_hold_nul(store: LgkvStore, key: str) -> None:
    store.put(NS, key, {"v": 1})
    assert store.get(NS, key).value == {"v": 1}
    assert keys(store.search(NS)) == [key]


# --- handles, processes, opening -----------------------------------------------------------


def test_stores_on_one_file_see_each_other(path: str) -> None:
    with (
        LgkvStore.from_conn_string(path) as one,
        lgkv.open(path) as db,
    ):
        two = LgkvStore(db)
        one.put(NS, "k", {"v": 1})
        assert two.get(NS, "k").value == {"v": 1}
        two.delete(NS, "k")
        assert one.search(()) == []


CHILD = """
import sys
from lgkv.langgraph import LgkvStore
embed = lambda texts: [[float(text.count(letter)) for letter in "abcd"] for text in texts]
index = {"embed": embed, "dims": 4, "fields": ["text"]}
with LgkvStore.from_conn_string(sys.argv[1], index=index, mode="w") as store:
    found = store.search((), query="a")
    assert [(item.key, item.score) for item in found] == [("k", 1.0)], found
    store.put(("child",), "k", {"text": "b"})
    store.delete(("users", "42"), "k")
"""


def test_another_process_works_on_the_same_items(path: str, letters: Letters) -> None:
    index: Any = {"embed": letters, "dims": 4, "fields": ["text"]}
    with LgkvStore.from_conn_string(path, index=index) as store:
        store.put(NS, "k", {"text": "aa"})
        subprocess.run([sys.executable, "-c", CHILD, path], check=True, timeout=60)
        assert store.list_namespaces() == [("child",)]
        assert [item.score for item in store.search((), query="b")] == [1.0]


def test_items_survive_reopening(path: str, letters: Letters) -> None:
    index: Any = {"embed": letters, "dims": 4, "fields": ["text"]}
    with LgkvStore.from_conn_string(path, index=index, ttl={"default_ttl": 60}) as store:
        store.put(NS, "k", {"text": "abc"})
        before = store.search((), query="ab")
    with LgkvStore.from_conn_string(path, index=index, mode="r") as store:
        assert store.search((), query="ab") == before


def test_store_from_a_string_is_usable_at_once_and_owns_its_database(path: str) -> None:
    store = LgkvStore.from_conn_string(path)
    store.setup()
    store.put(NS, "k", {})
    store.close()
    with pytest.raises(ClosedError):
        store.get(NS, "k")


def test_store_on_a_database_leaves_it_open(db: lgkv.Database) -> None:
    with LgkvStore(db) as store:
        store.put(NS, "k", {})
    assert db.memory.get(NS, "k") is not None


def test_store_shares_its_items_with_the_native_interface(
    db: lgkv.Database, indexed: LgkvStore
) -> None:
    indexed.put(NS, "k", {"text": "a"})
    assert db.memory.search((), vector=[1, 0, 0, 0])[0].score == 1
    db.memory.put(("dots.and\x00", "n"), "k", {"v": 1})
    assert [item.namespace for item in indexed.search((), limit=1)] == [("dots.and\x00", "n")]
    assert ("dots.and\x00", "n") in indexed.list_namespaces()


def test_threads_share_one_store(indexed: LgkvStore) -> None:
    def work(worker: int) -> None:
        for number in range(20):
            namespace = ("w", str(worker))
            indexed.put(namespace, str(number), {"text": "abcd"[number % 4]})
            assert indexed.get(namespace, str(number)) is not None
            assert indexed.search(namespace, query="a", limit=1)[0].score is not None

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for result in [pool.submit(work, worker) for worker in range(8)]:
            result.result(60)
    assert len(indexed.search(("w",), limit=1_000)) == 160


def test_async_store_is_the_same_store() -> None:
    assert issubclass(AsyncLgkvStore, LgkvStore)
    own = {name for name in vars(AsyncLgkvStore) if not name.startswith("_")}
    assert own == {"sweep_ttl", "start_ttl_sweeper", "stop_ttl_sweeper"}


# --- against InMemoryStore -----------------------------------------------------------------

LABELS = st.sampled_from(["a", "b", "ab", "*"])
PATHS = st.lists(LABELS, min_size=1, max_size=3).map(tuple)
VALUES = st.fixed_dictionaries({"n": st.integers(0, 3)}, optional={"text": st.sampled_from("abcd")})
OPERATIONS = st.one_of(
    st.tuples(PATHS, st.sampled_from("xyz"), VALUES | st.none()).map(lambda given: PutOp(*given)),
    st.tuples(PATHS, st.sampled_from("xyz")).map(lambda given: GetOp(*given)),
    st.tuples(
        st.lists(LABELS, max_size=2).map(tuple),
        st.none() | st.fixed_dictionaries({"n": st.integers(0, 3) | st.just({"$gte": 2})}),
    ).map(lambda given: SearchOp(*given, limit=100)),
    st.tuples(
        st.lists(
            st.tuples(st.sampled_from(["prefix", "suffix"]), PATHS).map(
                lambda given: MatchCondition(*given)
            ),
            max_size=2,
        ).map(tuple),
        st.none() | st.integers(1, 3),
        st.integers(0, 4),
        st.integers(0, 2),
    ).map(lambda given: ListNamespacesOp(*given)),
)


def comparable(results: list[Any]) -> list[Any]:
    """Return results without times, searches without order, which InMemoryStore has not."""
    plain: list[Any] = []
    for result in results:
        if isinstance(result, Item):
            plain.append((result.namespace, result.key, result.value))
        elif isinstance(result, list) and result and isinstance(result[0], Item):
            plain.append(
                sorted((item.namespace, item.key, item.value["n"], item.score) for item in result)
            )
        else:
            plain.append(result)
    return plain


class Reference(InMemoryStore):
    """InMemoryStore, which keeps the namespaces of deleted items, corrected in that."""

    def _handle_list_namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        for namespace in [namespace for namespace, items in self._data.items() if not items]:
            del self._data[namespace]
        return super()._handle_list_namespaces(op)


def test_batches_give_what_the_store_in_memory_gives(db: lgkv.Database) -> None:
    @given(st.lists(st.lists(OPERATIONS, max_size=5), max_size=6))
    def check(batches: list[list[Op]]) -> None:
        reference, store = Reference(), LgkvStore(db)
        store.batch([PutOp(item.namespace, item.key, None) for item in store.search((), limit=999)])
        for ops in batches:
            assert comparable(store.batch(ops)) == comparable(reference.batch(ops))

    check()


def test_reading_alone_commits_nothing(db: lgkv.Database, store: LgkvStore) -> None:
    store.put(NS, "k", {})
    before = unchanged(db)
    store.batch([GetOp(NS, "k"), SearchOp(()), ListNamespacesOp()])
    assert unchanged(db) == before
