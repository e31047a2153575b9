"""Writes on event loops: a loop is woken once for a batch, and never waits for the disk."""

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import GetOp, PutOp

import lgkv
from lgkv.errors import CommitFailedError
from lgkv.gate import Gate
from lgkv.langgraph import LgkvCache, LgkvSaver, LgkvStore, _loops
from lgkv.langgraph._loops import write
from lgkv.writer import Batch, Change, commit
from lgkv.writer.commit import Committer
from tests.conformance.checkpoints import checkpoint_of, config_of, id_of
from tests.conformance.test_saver_async import aput

NEVER_MS = 3_600_000


@pytest.fixture
def lazy(tmp_path: Path) -> Iterator[lgkv.Database]:
    """Give a database that flushes when it must, and not before."""
    with lgkv.open(tmp_path / "lazy.lgkv", durability="interval", interval_ms=NEVER_MS) as db:
        yield db


def count_wakes(loop: asyncio.AbstractEventLoop) -> list[int]:
    """Count, in the only element of a list, how often another thread wakes the loop."""
    wake, count = loop.call_soon_threadsafe, [0]

    def counting(*arguments: Any, **named: Any) -> Any:
        count[0] += 1
        return wake(*arguments, **named)

    loop.call_soon_threadsafe = counting  # type: ignore[method-assign]
    return count


def batches(db: lgkv.Database) -> int:
    return db.stats().commits


async def test_loop_is_woken_once_for_a_batch(db: lgkv.Database, saver: LgkvSaver) -> None:
    wakes, before = count_wakes(asyncio.get_running_loop()), batches(db)
    await asyncio.gather(*(aput(saver, config_of(f"t{at}")) for at in range(64)))
    assert wakes[0] == batches(db) - before <= 3


async def test_tasks_that_are_told_together_leave_the_others_their_turns(
    db: lgkv.Database,
) -> None:
    rounds: list[int] = []

    async def note_rounds() -> None:
        while True:
            rounds.append(len(told))
            await asyncio.sleep(0)

    told: list[int] = []

    async def one(number: int) -> None:
        await write(db, Change(lambda _: number))
        told.append(number)

    with db._connection.writer._turn:
        tasks = [asyncio.create_task(one(number)) for number in range(100)]
        await asyncio.sleep(0)  # all of them have posted
    noting = asyncio.create_task(note_rounds())
    await asyncio.gather(*tasks)
    noting.cancel()
    assert told == list(range(100))
    told_a_round = [after - before for before, after in itertools.pairwise(rounds)]
    assert 0 < max(told_a_round) <= _loops.TOLD_A_ROUND


async def test_writer_gives_way_to_loops_while_it_applies_their_changes(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = time.sleep

    def pause(seconds: float) -> None:
        if threading.current_thread() is db._connection.writer._thread:
            pauses.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(commit, "TURN_S", 0)
    monkeypatch.setattr(time, "sleep", pause)
    with db._connection.writer._turn:
        tasks = [asyncio.create_task(write(db, Change(lambda _: None))) for _ in range(10)]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert pauses.count(commit.PAUSE_S) == 10
    pauses.clear()
    with db._connection.writer._turn:
        futures = [db.submit(Change(lambda _: None)) for _ in range(10)]
    await asyncio.gather(*map(asyncio.wrap_future, futures))
    assert commit.PAUSE_S not in pauses


def test_each_of_several_loops_is_woken_once_for_a_batch(db: lgkv.Database) -> None:
    woken: list[list[int]] = []
    posted = threading.Barrier(4)

    async def many(lane: int) -> None:
        woken.append(count_wakes(asyncio.get_running_loop()))
        change = Change(lambda _: lane)
        tasks = [asyncio.create_task(write(db, change)) for _ in range(50)]
        await asyncio.sleep(0)  # all of them have posted
        posted.wait()
        assert await asyncio.gather(*tasks) == [lane] * 50

    writer = db._connection.writer
    with ThreadPoolExecutor(3) as pool:
        with writer._turn:
            running = [pool.submit(asyncio.run, many(lane)) for lane in range(3)]
            posted.wait()
        for future in running:
            future.result()
    assert [count for (count,) in woken] == [1, 1, 1]
    assert db.stats().largest_batch == 150


async def test_task_that_gives_up_before_its_turn_has_written_nothing(db: lgkv.Database) -> None:
    applied: list[int] = []
    with db._connection.writer._turn:
        tasks = [
            asyncio.create_task(write(db, Change(lambda _, at=at: applied.append(at))))  # type: ignore[misc]
            for at in range(10)
        ]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks[::2], return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in done)
    await asyncio.gather(*tasks[1::2])
    assert applied == [1, 3, 5, 7, 9]


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration("no")])
async def test_error_of_a_change_reaches_its_task(db: lgkv.Database, error: Exception) -> None:
    def apply(_: Batch) -> None:
        raise error

    with pytest.raises((ValueError, RuntimeError)):
        await write(db, Change(apply))
    assert await write(db, Change(lambda _: "next")) == "next"


async def test_tasks_work_in_rounds_in_the_order_they_came() -> None:
    rounds, worked = [0], []

    async def go_round() -> None:
        while True:
            await asyncio.sleep(0)
            rounds[0] += 1

    async def work(number: int) -> None:
        await _loops.breathe()
        worked.append((number, rounds[0]))

    going = asyncio.create_task(go_round())
    await asyncio.gather(*(work(number) for number in range(50)))
    await asyncio.gather(*(work(number) for number in range(50, 60)))
    going.cancel()
    assert [number for number, _ in worked] == list(range(60))
    for at in {at for _, at in worked}:
        assert sum(each == at for _, each in worked) <= _loops.WORK_A_ROUND


async def test_task_that_gives_up_its_turn_leaves_it_to_the_next() -> None:
    worked: list[int] = []

    async def work(number: int) -> None:
        await _loops.breathe()
        worked.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(40)]
    await asyncio.sleep(0)
    for task in tasks[10:30]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert worked == [*range(10), *range(30, 40)]
    await work(40)
    assert worked[-1] == 40


async def test_store_and_cache_wake_the_loop_once_too(db: lgkv.Database) -> None:
    store, cache = LgkvStore(db), LgkvCache[int](db)
    wakes = count_wakes(asyncio.get_running_loop())
    writer = db._connection.writer
    with writer._turn:
        tasks = [
            *(asyncio.create_task(store.aput(("a",), f"{at}", {"at": at})) for at in range(20)),
            *(asyncio.create_task(cache.aset({(("n",), f"{at}"): (at, None)})) for at in range(20)),
        ]
        while len(writer._queue) < len(tasks):  # noqa: ASYNC110  the tasks come in rounds
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert wakes == [1]
    assert len(await store.asearch(("a",), limit=100)) == 20
    assert await cache.aget([(("n",), "7")]) == {(("n",), "7"): 7}


# --- durability within an interval ---------------------------------------------------------


async def test_task_reads_what_it_wrote_before_it_is_flushed(lazy: lgkv.Database) -> None:
    saver, store, cache = LgkvSaver(lazy), LgkvStore(lazy), LgkvCache[int](lazy)
    config: Any = config_of()
    for step in range(5):
        values = {"a": [*range(step)]}
        checkpoint = checkpoint_of(values, {"a": step})
        config = await saver.aput(config, checkpoint, {"step": step}, {"a": step})
        await saver.aput_writes(config, [("a", step)], "task")
    assert lazy._connection.writer.figures.commits == 0
    found = await saver.aget_tuple(config_of())
    assert found is not None
    assert id_of(found.config) == id_of(config)
    assert found.pending_writes == [("task", "a", 4)]
    await store.aput(("a",), "b", {"c": 1})
    (got,) = await store.abatch([GetOp(("a",), "b")])
    assert got is not None
    await cache.aset({(("n",), "k"): (1, None)})
    assert await cache.aget([(("n",), "k")]) == {(("n",), "k"): 1}
    await saver.aput_writes(config, [("a", 9)], "other")
    (listed,) = [each async for each in saver.alist(config_of(), limit=1)]
    assert len(listed.pending_writes or []) == 2
    assert lazy._connection.writer.figures.commits == 4


async def test_hundreds_of_tasks_share_few_flushes(lazy: lgkv.Database) -> None:
    saver = LgkvSaver(lazy)
    before = threading.active_count()
    await asyncio.gather(*(aput(saver, config_of(f"t{at}")) for at in range(300)))
    assert threading.active_count() <= before + 1
    stats = lazy.stats()
    assert (stats.threads, stats.commits, stats.changes) == (300, 1, 300)


async def test_loop_goes_on_while_another_process_has_the_gate(lazy: lgkv.Database) -> None:
    saver, ticks = LgkvSaver(lazy), 0
    await aput(saver)
    lazy.flush()
    holder = Gate(lazy._connection.path)
    holder.acquire(5)
    writing = asyncio.create_task(aput(saver, config_of("other")))
    for _ in range(20):
        await asyncio.sleep(0.002)
        ticks += 1
        assert await saver.aget_tuple(config_of()) is not None
    assert not writing.done()
    holder.close()
    await writing
    assert ticks == 20


async def test_loop_goes_on_while_a_read_waits_for_a_flush(
    lazy: lgkv.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver, flush, ticked = LgkvSaver(lazy), Committer._flush, threading.Event()

    def wait_for_a_tick(self: Committer, *arguments: Any) -> None:
        assert ticked.wait(20)  # which comes from the loop alone
        flush(self, *arguments)

    monkeypatch.setattr(Committer, "_flush", wait_for_a_tick)
    await aput(saver)
    reading = asyncio.create_task(saver.aget_tuple(config_of()))
    await asyncio.sleep(0.02)
    assert not reading.done()
    ticked.set()
    assert await reading is not None


async def test_failure_in_the_background_reaches_the_next_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    db = lgkv.open(tmp_path / "a.lgkv", durability="interval", interval_ms=20)
    saver = LgkvSaver(db)
    monkeypatch.setattr(Committer, "_flush", fail)
    await aput(saver)
    end = time.monotonic() + 20
    while db.unflushed:
        assert time.monotonic() < end
        await asyncio.sleep(0.005)
    with pytest.raises(CommitFailedError, match="No space left"):
        await aput(saver)
    with pytest.raises(CommitFailedError, match="No space left"):
        await saver.aget_tuple(config_of())
    db.close()


async def test_batch_of_reads_and_writes_sees_what_is_not_flushed(lazy: lgkv.Database) -> None:
    store = LgkvStore(lazy)
    await store.aput(("a",), "b", {"c": 1})
    got, _ = await store.abatch([GetOp(("a",), "b"), PutOp(("a",), "b", {"c": 2})])
    assert got is not None
    assert got.value == {"c": 1}  # type: ignore[union-attr]
    assert lazy.unflushed
