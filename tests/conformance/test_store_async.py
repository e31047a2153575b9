"""LgkvStore and AsyncLgkvStore awaited: the same results, and a loop that never waits."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    SearchOp,
)
from langgraph.store.base.batch import AsyncBatchedBaseStore

import lgkv
from lgkv.errors import DimensionMismatchError, FilterError, InvalidInputError
from lgkv.langgraph import AsyncLgkvStore, LgkvStore, aio
from lgkv.writer import Batch, Change

NS = ("users", "42")


def vector(text: str) -> list[float]:
    return [float(text.count(letter)) for letter in "abcd"]


async def embed(texts: Sequence[str]) -> list[list[float]]:
    await asyncio.sleep(0)
    return [vector(text) for text in texts]


INDEX: Any = {"embed": embed, "dims": 4, "fields": ["text"]}


class Clock:
    """A clock that a test moves, in seconds."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def __call__(self) -> int:
        return int(self.seconds * 1_000_000)


@pytest.fixture(params=[LgkvStore, AsyncLgkvStore])
def store(db: lgkv.Database, request: pytest.FixtureRequest) -> LgkvStore:
    made: LgkvStore = request.param(db, index=INDEX)
    return made


@pytest.fixture
def clock(db: lgkv.Database) -> Clock:
    db.memory.clock = clock = Clock()
    return clock


def keys(items: Sequence[Item]) -> list[str]:
    return [item.key for item in items]


# --- the same results ----------------------------------------------------------------------


async def test_every_awaited_method_does_its_work(store: LgkvStore) -> None:
    await store.aput(NS, "k", {"text": "a"})
    await store.aput(("other",), "k", {"text": "b"}, index=False)
    assert (await store.aget(NS, "k")).value == {"text": "a"}  # type: ignore[union-attr]
    found = await store.asearch((), query="a")
    assert [(item.namespace, item.score) for item in found] == [(NS, 1.0), (("other",), None)]
    assert keys(await store.asearch((), filter={"text": {"$gte": "b"}})) == ["k"]
    assert await store.alist_namespaces(prefix=("users",)) == [NS]
    await store.adelete(NS, "k")
    assert await store.aget(NS, "k") is None


async def test_awaited_batch_gives_what_a_batch_gives(store: LgkvStore) -> None:
    await store.aput(NS, "k", {"text": "a"})
    ops: list[Op] = [
        PutOp(NS, "k", {"text": "b"}),
        GetOp(NS, "k"),
        SearchOp((), query="a"),
        SearchOp((), query="a", limit=0),
        ListNamespacesOp(),
        PutOp(NS, "k", {"text": "c"}),
    ]
    results = await store.abatch(ops)
    assert results[1].value == {"text": "a"}  # type: ignore[union-attr]
    assert [item.score for item in results[2]] == [1.0]  # type: ignore[union-attr]
    assert [results[0], *results[3:]] == [None, [], [NS], None]
    assert (await store.aget(NS, "k")).value == {"text": "c"}  # type: ignore[union-attr]
    assert await store.abatch([]) == []


async def test_sync_and_awaited_calls_see_each_other(db: lgkv.Database) -> None:
    store = LgkvStore(db)
    store.put(NS, "1", {"v": 1})
    await store.aput(NS, "2", {"v": 2})
    assert keys(store.search(NS)) == keys(await store.asearch(NS)) == ["2", "1"]


async def test_text_is_embedded_once_a_batch(db: lgkv.Database) -> None:
    asked: list[list[str]] = []

    async def noting(texts: Sequence[str]) -> list[list[float]]:
        asked.append(list(texts))
        return await embed(texts)

    store = LgkvStore(db, index={**INDEX, "embed": noting})
    await store.abatch(
        [
            PutOp(NS, "1", {"text": "ab"}),
            PutOp(NS, "2", {"text": "ab"}),
            SearchOp(NS, query="ab"),
            SearchOp((), query="ab"),
        ]
    )
    assert asked == [["ab"], ["ab"]]


async def test_values_are_the_callers_own(store: LgkvStore) -> None:
    value: dict[str, Any] = {"text": "a", "list": [1]}
    await store.aput(NS, "k", value)
    value["list"].append(2)
    first = await store.aget(NS, "k")
    assert first is not None
    first.value["list"].append(3)
    assert (await store.aget(NS, "k")).value["list"] == [1]  # type: ignore[union-attr]


class Merged(AsyncBatchedBaseStore):
    """LangGraph's own merging of one tick's operations, in front of an LgkvStore."""

    def __init__(self, store: LgkvStore) -> None:
        super().__init__()
        self.store = store

    async def abatch(self, ops: Any) -> Any:
        return await self.store.abatch(ops)


async def test_merged_operations_of_one_tick_give_the_same_results(db: lgkv.Database) -> None:
    store = LgkvStore(db, index=INDEX)
    merged = Merged(store)
    await asyncio.gather(
        *(merged.aput(NS, str(n % 5), {"text": "abcd"[n % 4], "n": n}) for n in range(20))
    )
    assert {item.key: item.value["n"] for item in store.search(NS)} == {
        str(n): n + 15 for n in range(5)
    }
    results = await asyncio.gather(
        merged.aget(NS, "1"),
        merged.aget(NS, "1"),
        merged.asearch(NS, query="a"),
        merged.alist_namespaces(),
    )
    assert results[0] == results[1] == store.get(NS, "1")
    assert results[2] == await store.asearch(NS, query="a")
    assert results[3] == [NS]
    await merged.adelete(NS, "1")
    assert store.get(NS, "1") is None


# --- errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ops", "error"),
    [
        ([PutOp(("a.b",), "k", {})], InvalidNamespaceError),
        ([PutOp(["a"], "k", {})], InvalidInputError),  # type: ignore[arg-type]
        ([PutOp(NS, "k", [1])], InvalidInputError),  # type: ignore[arg-type]
        ([PutOp(NS, "k", {"f": object()}, index=False)], InvalidInputError),
        ([PutOp(NS, "k", {}, ttl=-1)], InvalidInputError),
        ([SearchOp((), {"n": {"$regex": 1}})], FilterError),
        ([SearchOp((), limit=-1)], InvalidInputError),
        (["get"], InvalidInputError),
    ],
)
async def test_bad_input_is_refused_and_leaves_nothing(
    db: lgkv.Database, store: LgkvStore, ops: list[Any], error: type[Exception]
) -> None:
    before = db.stats().last_commit
    with pytest.raises(error):
        await store.abatch([PutOp(NS, "good", {"text": "a"}), *ops])
    assert db.stats().last_commit == before


async def test_wrong_embedding_is_refused_and_nothing_written(db: lgkv.Database) -> None:
    async def wrong(texts: Sequence[str]) -> list[list[float]]:
        return [[1.0, math.nan, 0.0, 0.0] for _ in texts]

    store = LgkvStore(db, index={**INDEX, "embed": wrong})
    with pytest.raises(InvalidInputError, match="holds nan at 1"):
        await store.aput(NS, "k", {"text": "a"})
    with pytest.raises(InvalidInputError, match="queries holds nan"):
        await store.asearch((), query="a")
    assert db.stats().last_commit == 0


async def test_dimensions_are_checked_where_they_are_written(db: lgkv.Database) -> None:
    async def other(texts: Sequence[str]) -> list[list[float]]:
        return [[1.0, 2.0] for _ in texts]

    await LgkvStore(db, index=INDEX).aput(NS, "k", {"text": "a"})
    with pytest.raises(DimensionMismatchError):
        await LgkvStore(db, index={"embed": other}).aput(NS, "other", {"text": "a"})
    assert keys(LgkvStore(db).search(())) == ["k"]


async def test_cancelled_write_leaves_the_store_usable(db: lgkv.Database, store: LgkvStore) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold(_: Batch) -> None:
        entered.set()
        leave.wait(30)

    held = db.submit(Change(hold))
    await asyncio.to_thread(entered.wait, 30)
    writing = asyncio.create_task(store.aput(NS, "cancelled", {"text": "a"}))
    await asyncio.sleep(0.05)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    leave.set()
    await asyncio.wrap_future(held)
    await store.aput(NS, "k", {"text": "a"})
    assert keys(await store.asearch(NS)) == ["k"]


# --- the loop ------------------------------------------------------------------------------


async def test_loop_goes_on_while_a_write_waits_for_the_disk(
    db: lgkv.Database, store: LgkvStore
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold(_: Batch) -> None:
        entered.set()
        leave.wait(30)

    held = db.submit(Change(hold))
    await asyncio.to_thread(entered.wait, 30)
    writing = asyncio.create_task(store.aput(NS, "k", {"text": "a"}))
    began = time.perf_counter()
    for _ in range(20):
        await asyncio.sleep(0)
        assert await store.aget(NS, "k") is None
    assert time.perf_counter() - began < 5
    assert not writing.done()
    leave.set()
    await asyncio.wrap_future(held)
    await writing
    assert await store.aget(NS, "k") is not None


async def test_read_that_moves_a_deadline_does_not_wait_for_the_writer(
    db: lgkv.Database, store: LgkvStore, clock: Clock
) -> None:
    await store.aput(NS, "k", {"text": "a"}, ttl=1)
    clock.seconds += 50
    entered, leave = threading.Event(), threading.Event()

    def hold(_: Batch) -> None:
        entered.set()
        leave.wait(30)

    held = db.submit(Change(hold))
    await asyncio.to_thread(entered.wait, 30)
    assert await store.aget(NS, "k") is not None
    assert await asyncio.to_thread(store.get, NS, "k") is not None
    leave.set()
    await asyncio.wrap_future(held)
    await store.aput(("flush",), "k", {"text": "a"})
    clock.seconds += 50
    assert await asyncio.to_thread(LgkvStore(db).sweep_ttl) == 0


def test_one_store_works_on_several_loops_at_once(db: lgkv.Database) -> None:
    store = LgkvStore(db, index=INDEX)
    failures: list[BaseException] = []

    async def work(worker: int) -> None:
        await asyncio.gather(
            *(store.aput(("w", str(worker)), str(n), {"text": "a"}) for n in range(20))
        )
        assert len(await store.asearch(("w", str(worker)), query="a", limit=50)) == 20

    def run(worker: int) -> None:
        try:
            for _ in range(2):
                asyncio.run(work(worker))
        except BaseException as error:  # noqa: BLE001  reported below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store.search(("w",), limit=100)) == 80


async def test_writes_that_wait_together_share_commits(db: lgkv.Database) -> None:
    store = LgkvStore(db)
    before = db.stats()
    await asyncio.gather(*(store.aput(NS, str(n), {"n": n}) for n in range(200)))
    after = db.stats()
    assert after.changes - before.changes == 200
    assert after.commits - before.commits < 100
    assert len(store.search(NS, limit=500)) == 200


# --- opening, setup, expiry ----------------------------------------------------------------


async def test_store_is_an_async_context_manager(path: str) -> None:
    async with aio.AsyncLgkvStore.from_conn_string(path, ttl={"default_ttl": 5}) as store:
        await store.setup()
        await store.aput(NS, "k", {})
    assert store.db.closed
    async with LgkvStore.from_conn_string(path) as store:
        assert await store.aget(NS, "k") is not None


async def test_setup_may_be_called_or_awaited(store: LgkvStore) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.setup()
        assert await store.setup() is None
        gc.collect()


async def test_calls_about_expiry_are_awaited(db: lgkv.Database, clock: Clock) -> None:
    store = AsyncLgkvStore(db, ttl={"default_ttl": 1})
    await store.abatch([PutOp(NS, str(n), {}, ttl=1) for n in range(2_500)])
    await store.aput(("stays",), "k", {}, ttl=None)
    assert await store.sweep_ttl() == 0
    clock.seconds += 60
    commits = db.stats().commits
    assert await store.sweep_ttl() == 2_500
    assert db.stats().commits == commits + 3
    assert await store.alist_namespaces() == [("stays",)]


async def test_awaited_sweeper_deletes_until_stopped(db: lgkv.Database, clock: Clock) -> None:
    store = AsyncLgkvStore(db, ttl={"sweep_interval_minutes": 60})
    await store.aput(NS, "k", {}, ttl=1)
    clock.seconds += 61
    future = await store.start_ttl_sweeper(0.0001)
    for _ in range(1_000):
        if await store.aget(NS, "k", refresh_ttl=False) is None:
            break
        await asyncio.sleep(0.01)
    assert await store.aget(NS, "k") is None
    assert not future.done()
    assert await store.stop_ttl_sweeper(30)
    assert await future is None
    again = await store.start_ttl_sweeper()
    again.cancel()
    assert await store.stop_ttl_sweeper(30)
