"""The saver on event loops: none waits for the disk, and one saver serves them all."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import lgkv
from lgkv.errors import ClosedError, InvalidInputError
from lgkv.langgraph import LgkvSaver
from lgkv.langgraph.aio import AsyncLgkvSaver
from lgkv.snapshot import Snapshot
from lgkv.writer.commit import Committer
from tests.conformance.checkpoints import checkpoint_of, config_of, id_of, ids_of, new_id, put

FLUSH_SECONDS = 0.6
LONGEST_GAP_SECONDS = 0.4


class Disk:
    """A disk that is slow from `slow_down` on."""

    def __init__(self) -> None:
        self.delay_seconds = 0.0
        self.flushes = 0

    def slow_down(self) -> None:
        self.delay_seconds, self.flushes = FLUSH_SECONDS, 0


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Give the disk under every commit."""
    given, flush = Disk(), Committer._flush

    def slow_flush(self: Committer, *arguments: Any) -> None:
        time.sleep(given.delay_seconds)
        flush(self, *arguments)
        given.flushes += 1

    monkeypatch.setattr(Committer, "_flush", slow_flush)
    return given


@contextlib.asynccontextmanager
async def ticking() -> AsyncIterator[list[float]]:
    """Tick on the loop meanwhile; give the gaps between ticks, in seconds."""
    gaps: list[float] = []

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.01)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.05)
    try:
        yield gaps
    finally:
        await asyncio.sleep(0.05)
        ticker.cancel()


async def aput(saver: LgkvSaver, config: Any = None, values: Any = None) -> Any:
    checkpoint = checkpoint_of(values or {"a": 1})
    return await saver.aput(
        config or config_of(), checkpoint, {"step": 1}, checkpoint["channel_versions"]
    )


# --- the disk ------------------------------------------------------------------------------

WRITES: dict[str, Callable[[LgkvSaver, Any], Awaitable[Any]]] = {
    "aput": aput,
    "aput_writes": lambda saver, config: saver.aput_writes(config, [("a", 2)], "task"),
    "adelete_thread": lambda saver, _: saver.adelete_thread("t"),
    "adelete_for_runs": lambda saver, _: saver.adelete_for_runs(["run"]),
    "acopy_thread": lambda saver, _: saver.acopy_thread("t", "copy"),
    "aprune": lambda saver, _: saver.aprune(["t"]),
}


@pytest.mark.parametrize("name", WRITES)
async def test_loop_goes_on_while_a_write_is_flushed(
    saver: LgkvSaver, disk: Disk, name: str
) -> None:
    config = put(saver, metadata={"run_id": "run"})
    put(saver, config, {"a": 1})
    disk.slow_down()
    async with ticking() as gaps:
        await WRITES[name](saver, config)
    assert disk.flushes == 1  # it was flushed, and before the call returned
    assert max(gaps) < LONGEST_GAP_SECONDS


async def test_reads_go_on_while_a_write_is_flushed(saver: LgkvSaver, disk: Disk) -> None:
    config = put(saver, None, {"a": 1})
    disk.slow_down()
    async with ticking() as gaps:
        writing = asyncio.create_task(aput(saver, config_of("other")))
        await asyncio.sleep(0.05)
        began = time.perf_counter()
        found = await saver.aget_tuple(config)
        listed = [each async for each in saver.alist(None)]
        await saver.aget_delta_channel_history(config=config, channels=["a"])
        assert time.perf_counter() - began < LONGEST_GAP_SECONDS
        assert disk.flushes == 0
        await writing
    assert found is not None
    assert ids_of(listed) == [id_of(config)]
    assert max(gaps) < LONGEST_GAP_SECONDS


async def test_leaving_the_context_does_not_hold_up_the_loop(path: str, disk: Disk) -> None:
    disk.slow_down()
    async with AsyncLgkvSaver.from_conn_string(path) as saver:
        writing = asyncio.create_task(aput(saver))
        await asyncio.sleep(0.05)
        async with ticking() as gaps:
            await saver.__aexit__(None, None, None)
            assert disk.flushes == 1  # closing waits for what is under way
        await writing
    assert max(gaps) < LONGEST_GAP_SECONDS


async def test_clock_would_notice_a_blocked_loop(saver: LgkvSaver, disk: Disk) -> None:
    disk.slow_down()
    async with ticking() as gaps:
        put(saver)  # the sync call, on the loop
    assert disk.flushes == 1
    assert max(gaps) > LONGEST_GAP_SECONDS  # else the tests above could not fail


async def test_writes_that_wait_together_share_a_flush(saver: LgkvSaver, disk: Disk) -> None:
    disk.slow_down()
    began = time.perf_counter()
    await asyncio.gather(*(aput(saver, config_of(f"t{at}")) for at in range(100)))
    assert disk.flushes <= 3
    assert time.perf_counter() - began < 5 * FLUSH_SECONDS


# --- many tasks, loops and threads ---------------------------------------------------------


async def work(saver: LgkvSaver, thread: str, rounds: int = 3) -> None:
    """Write to a thread and read back, as a graph does."""
    config: Any = config_of(thread)
    for step in range(rounds):
        early = new_id()
        await saver.aput_writes(config_of(thread, "", early), [("a", step)], "task", "~p")
        checkpoint = checkpoint_of({"a": [thread, step]}, {"a": step}, checkpoint_id=early)
        config = await saver.aput(config, checkpoint, {"step": step}, {"a": step})
        found = await saver.aget_tuple(config_of(thread))
        assert found is not None
        assert found.config == config
        assert found.checkpoint["channel_values"] == {"a": [thread, step]}
        assert found.pending_writes == [("task", "a", step)]
        steps = [each.metadata["step"] async for each in saver.alist(config_of(thread), limit=2)]
        assert steps == [step, step - 1][: step + 1]


async def test_hundreds_of_tasks_on_one_loop_need_no_thread_each(
    db: lgkv.Database, saver: LgkvSaver
) -> None:
    before, most = threading.active_count(), 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, threading.active_count())
            await asyncio.sleep(0.001)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(work(saver, f"t{at}") for at in range(300)))
    watching.cancel()
    assert before <= most <= before + 1  # the writer's thread
    stats = db.stats()
    assert stats.threads == 300
    assert stats.changes == 1800
    assert stats.commits < 600


async def test_tasks_write_side_by_side_to_one_checkpoint(saver: LgkvSaver) -> None:
    config = await aput(saver)
    await asyncio.gather(
        *(saver.aput_writes(config, [("a", at), ("b", at)], f"{at:03}", "~") for at in range(200))
    )
    found = await saver.aget_tuple(config)
    assert found is not None
    assert found.pending_writes == [
        (f"{at:03}", channel, at) for at in range(200) for channel in "ab"
    ]


def test_several_loops_in_several_threads_share_a_saver(
    db: lgkv.Database, saver: LgkvSaver
) -> None:
    start = threading.Barrier(5)

    async def many(loop: int) -> None:
        await asyncio.gather(*(work(saver, f"{loop}.{at}") for at in range(30)))

    def run_loop(loop: int) -> None:
        start.wait()
        asyncio.run(many(loop))

    with ThreadPoolExecutor(5) as pool:
        running = [pool.submit(run_loop, loop) for loop in range(4)]
        start.wait()
        for at in range(50):  # and a thread without a loop
            put(saver, config_of(f"sync{at}"))
        for future in running:
            future.result()
    assert db.stats().threads == 4 * 30 + 50


def test_saver_outlives_the_loops_it_is_used_on(path: str) -> None:
    saver = LgkvSaver.from_conn_string(path)
    for at in range(3):
        asyncio.run(work(saver, f"t{at}"))

    async def abandon() -> None:
        asyncio.create_task(aput(saver, config_of("abandoned")))  # noqa: RUF006  the loop ends first
        await asyncio.sleep(0)

    asyncio.run(abandon())
    asyncio.run(work(saver, "after"))
    put(saver, config_of("sync"))
    saver.close()


async def test_sync_and_async_calls_mix(saver: LgkvSaver) -> None:
    first = put(saver, None, {"a": 1})
    second = await saver.aput(first, checkpoint_of({"a": 2}, {"a": 2}), {}, {"a": 2})
    assert saver.get_tuple(config_of()) == await saver.aget_tuple(config_of())
    assert ids_of(saver.list(None)) == [id_of(second), id_of(first)]
    assert list(saver.list(None)) == [each async for each in saver.alist(None)]


# --- cancelling ----------------------------------------------------------------------------


async def test_cancelled_wait_ends_at_once_and_writes_nothing(saver: LgkvSaver, disk: Disk) -> None:
    disk.slow_down()
    flushing = asyncio.create_task(aput(saver, config_of("flushing")))
    await asyncio.sleep(0.1)
    waiting = asyncio.create_task(aput(saver, config_of("waiting")))
    beside = asyncio.create_task(aput(saver, config_of("beside")))
    await asyncio.sleep(0.05)
    waiting.cancel()
    began = time.perf_counter()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert time.perf_counter() - began < LONGEST_GAP_SECONDS
    assert disk.flushes == 0
    await asyncio.gather(flushing, beside)
    assert await saver.aget_tuple(config_of("flushing")) is not None
    assert await saver.aget_tuple(config_of("beside")) is not None
    assert await saver.aget_tuple(config_of("waiting")) is None
    await work(saver, "after", rounds=1)


async def test_cancelled_flush_ends_at_once_and_the_write_is_whole(
    saver: LgkvSaver, disk: Disk
) -> None:
    disk.slow_down()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(aput(saver, values={"a": 1, "b": 2}), FLUSH_SECONDS / 4)
    assert disk.flushes == 0
    await aput(saver, config_of("other"))
    found = await saver.aget_tuple(config_of())
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": 1, "b": 2}


async def test_many_cancelled_tasks_leave_the_saver_sound(saver: LgkvSaver) -> None:
    tasks = [asyncio.create_task(work(saver, f"t{at}", rounds=5)) for at in range(100)]
    for at, task in enumerate(tasks):
        if at % 2:
            await asyncio.sleep(0.002)
            task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(each is None for each in done[::2])
    assert any(isinstance(each, asyncio.CancelledError) for each in done)
    await work(saver, "after")


# --- generators and errors -----------------------------------------------------------------


@pytest.fixture
def open_snapshots(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Count the snapshots that are open now, in the only element of a list."""
    count = [0]
    enter, leave = Snapshot.__enter__, Snapshot.__exit__

    def counting_enter(self: Snapshot) -> Snapshot:
        count[0] += 1
        return enter(self)

    def counting_exit(self: Snapshot, *args: Any) -> None:
        count[0] -= 1
        leave(self, *args)

    monkeypatch.setattr(Snapshot, "__enter__", counting_enter)
    monkeypatch.setattr(Snapshot, "__exit__", counting_exit)
    return count


async def test_listing_holds_no_snapshot_between_its_steps(
    saver: LgkvSaver, open_snapshots: list[int]
) -> None:
    for at in range(40):
        put(saver, config_of(f"t{at % 3}"))
    for config in (None, config_of("t1"), config_of("t1", None)):
        async for _ in saver.alist(config, filter={"step": 1}):
            assert open_snapshots == [0]
        for _ in saver.list(config):
            assert open_snapshots == [0]


async def test_generators_may_be_closed_early(saver: LgkvSaver, open_snapshots: list[int]) -> None:
    for at in range(40):
        put(saver, config_of(f"t{at}"))
    for steps in (0, 1, 7):
        listing = saver.alist(None)
        for _ in range(steps):
            await anext(listing)
        await listing.aclose()
        assert open_snapshots == [0]
    left_open = saver.alist(None)
    await anext(left_open)
    await saver.adelete_thread("t38")
    assert [each.config["configurable"]["thread_id"] async for each in left_open][:2] == [
        "t37",
        "t36",
    ]


async def test_errors_reach_the_task_that_caused_them(saver: LgkvSaver) -> None:
    good = [aput(saver, config_of(f"t{at}")) for at in range(5)]
    bad = [
        aput(saver, config_of("bad"), {"a": object()}),
        saver.acopy_thread("none", "copy"),
        saver.aprune(["t"], strategy="unknown"),
        saver.adelete_for_runs("run"),
    ]
    done = await asyncio.gather(*good, *bad, return_exceptions=True)
    assert not any(isinstance(each, BaseException) for each in done[:5])
    assert [type(each) for each in done[5:]] == [InvalidInputError] * 4


async def test_every_async_call_on_a_closed_database_is_a_closed_error(path: str) -> None:
    async with AsyncLgkvSaver.from_conn_string(path) as saver:
        config = await aput(saver)
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: saver.aget_tuple(config),
        lambda: anext(saver.alist(None)),
        lambda: saver.aget_delta_channel_history(config=config, channels=["a"]),
        *(lambda name=name: WRITES[name](saver, config) for name in WRITES),
    ]
    for call in calls:
        with pytest.raises(ClosedError):
            await call()


async def test_async_methods_are_of_the_base_classes_interface(saver: LgkvSaver) -> None:
    config = await aput(saver)
    assert await saver.aget(config) == saver.get(config)
    assert await saver.setup() is None
