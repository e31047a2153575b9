"""Durability within an interval: what is lost is a tail, and whoever asks knows what is not."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import lmdb
import pytest

import lgkv
from lgkv import CommitFailedError, InvalidInputError, MapFullError, WriteLockTimeoutError
from lgkv.connection import Connection, connect
from lgkv.env import Options
from lgkv.gate import Gate
from lgkv.langgraph import LgkvSaver
from lgkv.layout import Table
from lgkv.snapshot import State
from lgkv.writer import Batch, Change, commit
from lgkv.writer import writer as writer_module
from lgkv.writer.commit import Committer
from tests.processes import Program, run_program
from tests.unit.changes import LIMIT_S, K, failing, names, outcome, putting, state

NEVER_MS = 3_600_000
"""An interval that does not end while a test runs: only what must flush does."""


def interval(interval_ms: int = NEVER_MS, **options: Any) -> Options:
    return Options(durability="interval", interval_ms=interval_ms, compression=False, **options)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "agent.lgkv")


@pytest.fixture
def db(path: str) -> Iterator[Connection]:
    connection = connect(path, "c", interval())
    yield connection
    connection.close()


def fail_flush(*_: object) -> None:
    raise lmdb.DiskError("input/output error")


def names_elsewhere(path: str) -> list[bytes]:
    """Return what another process finds."""
    code = """
        import sys, lgkv
        from lgkv.layout import Table
        with lgkv.open(sys.argv[1], mode="r") as db, db._connection.snapshot() as snapshot:
            print(*(key[1:].decode() for key in snapshot.keys(Table.MEMORY, b"\\x99")))
    """
    return [name.encode() for name in run_program(code, path).split()]


class TestCallersThread:
    """Who finds the transaction open, and nobody at work, applies the change itself."""

    @staticmethod
    def noting(threads: list[int], name: bytes) -> Change[None]:
        def apply(batch: Batch) -> None:
            threads.append(threading.get_ident())
            putting(name).apply(batch)

        return Change(apply)

    def test_second_change_runs_on_the_thread_of_its_caller(self, db: Connection) -> None:
        threads: list[int] = []
        for name in (b"a", b"b", b"c"):
            db.commit(self.noting(threads, name))
        assert db.writer._thread is not None
        me, writer = threading.get_ident(), db.writer._thread.ident
        assert threads == [writer, me, me]
        assert db.writer.figures.commits == 0
        assert (names(db), state(db)) == ([b"a", b"b", b"c"], State(commit=1, threads=3))

    def test_change_that_fails_there_takes_only_itself_down(self, db: Connection) -> None:
        db.commit(putting(b"a"))
        for error in (ValueError(), KeyboardInterrupt(), MemoryError()):
            with pytest.raises(type(error)):
                db.commit(failing(error))
        db.commit(putting(b"b"))
        assert (names(db), state(db).threads) == ([b"a", b"b"], 2)

    def test_change_waits_for_those_that_are_queued(self, db: Connection) -> None:
        db.commit(putting(b"first"))
        threads: list[int] = []
        with db.writer._turn:
            thread = threading.Thread(target=db.commit, args=(self.noting(threads, b"a"),))
            thread.start()
            while not db.writer._queue:
                time.sleep(0.001)
        db.commit(putting(b"b"))
        thread.join(LIMIT_S)
        assert db.writer._thread is not None
        assert threads == [db.writer._thread.ident]
        assert names(db) == [b"a", b"b", b"first"]

    def test_full_transaction_is_for_the_writer_thread_to_end(
        self, db: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(commit, "BATCH_CHANGES", 4)
        for number in range(10):
            db.commit(putting(b"%d" % number))
        db.flush()
        assert db.writer.figures.largest_batch <= 5
        assert state(db).threads == 10

    def test_map_that_is_full_grows_on_the_writer_thread(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lgkv.opening._map_sizes", lambda _: (1 << 20,))
        db = connect(path, "c", interval())
        for number in range(60):
            db.commit(putting(b"%02d" % number, bytes(60_000)))
        assert db.env.map_growths > 0
        assert (len(names(db)), state(db).threads) == (60, 60)
        db.close()

    def test_flush_that_fails_is_told_to_who_applied_here(
        self, db: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        db.commit(putting(b"a"))
        db.commit(putting(b"b"))
        with monkeypatch.context() as patch:
            patch.setattr(Committer, "_flush", fail_flush)
            with pytest.raises(CommitFailedError):
                db.flush()
        with pytest.raises(CommitFailedError):
            db.commit(putting(b"c"))


class TestFlush:
    def test_writes_share_a_flush(self, db: Connection) -> None:
        for number in range(50):
            db.commit(putting(b"%02d" % number))
        assert (db.writer.figures.commits, db.unflushed) == (0, True)
        db.flush()
        assert (db.writer.figures.commits, db.unflushed) == (1, False)
        assert db.writer.figures.changes == db.writer.figures.largest_batch == 50
        assert state(db) == State(commit=1, threads=50)

    def test_others_see_what_is_flushed_and_all_of_it(self, path: str, db: Connection) -> None:
        db.commit(putting(b"a"))
        db.flush()
        db.commit(putting(b"b"))
        assert names_elsewhere(path) == [b"a"]
        db.flush()
        assert names_elsewhere(path) == [b"a", b"b"]

    def test_read_in_the_process_sees_what_was_written_before_it(self, db: Connection) -> None:
        for number in range(5):
            db.commit(putting(b"%d" % number))
            assert len(names(db)) == number + 1
        assert db.writer.figures.commits == 5

    def test_read_of_a_thread_that_wants_what_is_committed_waits_for_nothing(
        self, db: Connection
    ) -> None:
        db.commit(putting(b"a"))
        with db.as_committed():
            assert names(db) == []
        assert names(db) == [b"a"]

    def test_flush_comes_within_the_interval(self, path: str) -> None:
        db = connect(path, "c", interval(20))
        db.commit(putting(b"a"))
        end = time.monotonic() + LIMIT_S
        while db.unflushed:
            assert time.monotonic() < end
            time.sleep(0.001)
        assert db.writer.figures.commits == 1
        db.close()

    def test_interval_may_be_without_end(self, path: str) -> None:
        db = connect(path, "c", interval(float("inf")))  # type: ignore[arg-type]
        for name in (b"a", b"b"):
            db.commit(putting(name))
            time.sleep(0.01)  # the writer thread waits for the next one
        assert db.writer.figures.commits == 0
        assert names(db) == [b"a", b"b"]
        db.close()

    def test_writes_without_a_pause_are_flushed_when_the_interval_ends(self, path: str) -> None:
        db = connect(path, "c", interval(20))
        end = time.monotonic() + LIMIT_S
        while db.writer.figures.commits < 3:  # none of them asks for it
            assert time.monotonic() < end
            db.commit(putting(b"a"))
        db.close()

    def test_close_flushes(self, path: str) -> None:
        db = connect(path, "c", interval())
        other = connect(path, "c", interval())
        db.commit(putting(b"a"))
        db.close()
        assert names_elsewhere(path) == [b"a"]
        other.commit(putting(b"b"))
        other.close()
        assert names_elsewhere(path) == [b"a", b"b"]

    def test_end_of_the_program_flushes(self, path: str) -> None:
        code = """
            import sys, lgkv
            db = lgkv.open(sys.argv[1], durability="interval", interval_ms=3_600_000)
            db.memory.put(("a",), "b", {"c": 1})
        """
        run_program(code, path)
        with lgkv.open(path) as db:
            assert db.memory.get(("a",), "b") is not None

    def test_future_is_done_once_its_change_is_durable(self, path: str, db: Connection) -> None:
        db.commit(putting(b"a"))
        assert outcome(db.submit(putting(b"b"))) is None
        assert not db.unflushed
        assert names_elsewhere(path) == [b"a", b"b"]

    def test_flush_waits_for_what_is_queued_whatever_the_durability(self, path: str) -> None:
        for options in (interval(), Options(compression=False)):
            db = connect(path, "c", options)
            with db.writer._turn:
                future = db.submit(putting(b"a"))
                flusher = threading.Thread(target=db.flush)
                flusher.start()
                while len(db.writer._queue) < 2:
                    time.sleep(0.001)
            flusher.join(LIMIT_S)
            assert future.done()
            commits = db.writer.figures.commits
            db.flush()
            assert db.writer.figures.commits == commits
            db.close()

    def test_backup_has_what_was_written(self, path: str, tmp_path: Path) -> None:
        with lgkv.open(path, durability="interval", interval_ms=NEVER_MS) as db:
            db.memory.put(("a",), "b", {"c": 1})
            db.backup(tmp_path / "copy.lgkv")
        with lgkv.open(tmp_path / "copy.lgkv") as copy:
            assert copy.memory.get(("a",), "b") is not None

    def test_read_only_handle_has_nothing_to_flush(self, path: str) -> None:
        lgkv.open(path).close()
        with lgkv.open(path, mode="r", durability="interval") as db:
            db.flush()
            assert not db.unflushed


class TestBounds:
    def test_full_batch_is_flushed_and_callers_wait_for_that(
        self, db: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(commit, "BATCH_CHANGES", 10)
        for number in range(35):
            db.commit(putting(b"%02d" % number))
        assert db.writer.figures.commits == 3
        assert db.writer.figures.largest_batch == 10

    def test_batch_of_many_bytes_is_flushed(
        self, db: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(commit, "BATCH_BYTES", 10_000)
        for number in range(10):
            db.commit(putting(b"%d" % number, bytes(4_000)))
        assert db.writer.figures.commits == 3


class TestChanges:
    def test_commit_returns_what_the_change_returns(self, db: Connection) -> None:
        assert db.commit(Change(lambda batch: batch.state.commit)) == 0
        assert db.commit(Change(lambda batch: batch.state.commit)) == 0

    def test_failing_change_takes_only_itself_down(self, db: Connection) -> None:
        db.commit(putting(b"a"))
        error = ValueError("no")
        with pytest.raises(ValueError, match="no") as caught:
            db.commit(failing(error))
        assert caught.value is error
        db.commit(putting(b"b"))
        assert names(db) == [b"a", b"b"]
        assert state(db).threads == 2

    def test_change_that_fails_before_it_writes_flushes_nothing(self, db: Connection) -> None:
        def fail(_: Batch) -> None:
            raise ValueError

        db.commit(putting(b"a"))
        with pytest.raises(ValueError):  # noqa: PT011  it is this one
            db.commit(Change(fail))
        db.commit(putting(b"b"))
        assert db.writer.figures.commits == 0
        assert (names(db), state(db)) == ([b"a", b"b"], State(commit=1, threads=2))

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), SystemExit()])
    def test_error_that_is_no_exception_harms_nobody_else(
        self, db: Connection, error: BaseException
    ) -> None:
        db.commit(putting(b"a"))
        with pytest.raises(type(error)):
            db.commit(failing(error))
        db.commit(putting(b"b"))
        assert names(db) == [b"a", b"b"]

    def test_change_that_fails_first_holds_the_gate_from_nobody(
        self, path: str, db: Connection
    ) -> None:
        with pytest.raises(ZeroDivisionError):
            db.commit(failing(ZeroDivisionError()))
        gate = Gate(path)
        gate.acquire(0)
        gate.close()

    def test_change_may_read_what_is_not_flushed(self, db: Connection) -> None:
        db.commit(putting(b"a"))
        assert db.commit(Change(lambda _: names(db))) == [b"a"]
        assert db.writer.figures.commits == 0

    def test_chain_of_checkpoints_is_not_flushed_one_by_one(self, path: str) -> None:
        with lgkv.open(path, durability="interval", interval_ms=NEVER_MS) as db:
            saver, config = LgkvSaver(db), {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
            said: list[str] = []
            for step in range(20):
                said.append(f"step {step}")
                version = f"{step:032}"
                checkpoint: Any = {
                    "v": 4, "id": f"{step:08}", "ts": "", "versions_seen": {},
                    "channel_values": {"said": list(said)}, "channel_versions": {"said": version},
                }  # fmt: skip
                config = saver.put(config, checkpoint, {}, {"said": version})  # type: ignore[arg-type,assignment]
                saver.put_writes(config, [("said", step)], "task")  # type: ignore[arg-type]
            assert db._connection.writer.figures.commits == 0
            found = saver.get_tuple(config)  # type: ignore[arg-type]
            assert found is not None
            assert found.checkpoint["channel_values"] == {"said": said}
            assert db.stats().commits == 1

    def test_change_that_waits_for_another_is_an_error_and_no_hang(self, db: Connection) -> None:
        def apply(_: Batch) -> None:
            db.commit(putting(b"inner"))

        with pytest.raises(InvalidInputError, match="cannot wait for another"):
            db.commit(Change(apply))
        db.commit(putting(b"a"))
        assert names(db) == [b"a"]

    def test_callback_of_a_future_may_use_the_database(self, db: Connection) -> None:
        seen: list[Any] = []
        ended = threading.Event()

        def callback(_: Future[Any]) -> None:
            seen.append(names(db))
            db.commit(putting(b"from the callback"))
            seen.append(names(db))
            ended.set()

        with db.writer._turn:
            db.submit(putting(b"a")).add_done_callback(callback)
        assert ended.wait(LIMIT_S)
        assert seen == [[b"a"], [b"a", b"from the callback"]]

    def test_threads_keep_each_its_order(self, path: str) -> None:
        db = connect(path, "c", interval(5))
        errors: list[BaseException] = []

        def following(lane: bytes, number: int) -> Change[None]:
            def apply(batch: Batch) -> None:
                last = batch.get(Table.MEMORY, K + lane)
                assert (last or b"0") == b"%d" % (number - 1)
                batch.put(Table.MEMORY, K + lane, b"%d" % number)

            return Change(apply)

        def write(lane: bytes) -> None:
            try:
                for number in range(1, 101):
                    db.commit(following(lane, number))
                    if number % 10 == 0:
                        assert lane in names(db)
            except BaseException as error:  # noqa: BLE001  shown by the test
                errors.append(error)

        threads = [threading.Thread(target=write, args=(b"%d" % n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        with db.snapshot() as snapshot:
            assert [body for _, body in snapshot.scan(Table.MEMORY, K)] == [b"100"] * 8
        assert db.writer.figures.commits < 800
        db.close()


class TestGrowth:
    def test_full_map_refuses_what_does_not_fit_and_keeps_what_was_acknowledged(
        self, path: str
    ) -> None:
        db = connect(path, "c", interval(map_size_bytes=1 << 20))
        db.commit(putting(b"a"))
        with pytest.raises(MapFullError, match="larger map_size_bytes"):
            db.commit(putting(b"large", bytes(4 << 20)))
        db.commit(putting(b"b"))
        assert names(db) == [b"a", b"b"]
        db.close()

    def test_map_that_can_grow_does_and_nothing_is_lost(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lgkv.opening._map_sizes", lambda _: (1 << 20,))
        db = connect(path, "c", interval())
        for number in range(30):
            db.commit(putting(b"%02d" % number, bytes(200_000)))
        assert db.env.map_growths >= 2
        assert len(names(db)) == 30
        assert state(db).threads == 30
        db.close()

    @pytest.mark.parametrize("grows", [True, False])
    def test_map_that_is_full_at_the_flush_only(
        self, path: str, monkeypatch: pytest.MonkeyPatch, *, grows: bool
    ) -> None:
        monkeypatch.setattr("lgkv.opening._map_sizes", lambda _: (1 << 20,))
        if not grows:
            monkeypatch.setattr("lgkv.env.LARGE_MAP_BYTES", 1)
        db = connect(path, "c", interval())
        for name in (b"a", b"b"):
            db.commit(putting(name))
        flush, full = Committer._flush, [True]

        def flush_full_once(self: Committer, batch: Batch, changes: int) -> None:
            if full.pop() if full else False:
                raise lmdb.MapFullError("full")
            flush(self, batch, changes)

        monkeypatch.setattr(Committer, "_flush", flush_full_once)
        db.flush()  # what was acknowledged gets in, whether the map may grow or not
        assert names(db) == [b"a", b"b"]
        assert (state(db), db.env.map_growths) == (State(commit=1, threads=2), 1)
        db.close()
        assert names_elsewhere(path) == [b"a", b"b"]

    @pytest.mark.parametrize("logged", [True, False])
    def test_change_is_not_applied_again_but_for_a_large_one(
        self, path: str, monkeypatch: pytest.MonkeyPatch, *, logged: bool
    ) -> None:
        monkeypatch.setattr("lgkv.opening._map_sizes", lambda _: (1 << 20,))
        if not logged:
            monkeypatch.setattr(commit, "BATCH_BYTES", 1000)
            monkeypatch.setattr("lgkv.batch.LOG_BYTES", 1000)
        db = connect(path, "c", interval())
        applied: list[bytes] = []

        def noting(name: bytes, body: bytes) -> Change[None]:
            def apply(batch: Batch) -> None:
                applied.append(name)
                putting(name, body).apply(batch)

            return Change(apply)

        flush, full = Committer._flush, [True, True]

        def flush_full_twice(self: Committer, batch: Batch, changes: int) -> None:
            if full.pop() if full else False:
                raise lmdb.MapFullError("full")
            flush(self, batch, changes)

        monkeypatch.setattr(Committer, "_flush", flush_full_twice)
        db.commit(noting(b"a", b"small"))
        db.commit(noting(b"b", bytes(2000)))
        db.flush()
        assert applied == [b"a", b"b"] if logged else [b"a", b"b", b"b", b"b"]
        assert names(db) == [b"a", b"b"]
        # Memory may know the numbers that were given at first: they are not given again.
        assert state(db) == State(commit=1, threads=2 if logged else 3)
        db.close()


class TestFailure:
    @pytest.fixture
    def failed(self, path: str, monkeypatch: pytest.MonkeyPatch) -> Connection:
        """A file whose flush fails in the background, after two changes were acknowledged."""
        db = connect(path, "c", interval(20))
        db.commit(putting(b"durable"))
        db.flush()

        monkeypatch.setattr(Committer, "_flush", fail_flush)
        db.commit(putting(b"lost"))
        end = time.monotonic() + LIMIT_S
        while db.unflushed:
            assert time.monotonic() < end
            time.sleep(0.001)
        monkeypatch.undo()
        return db

    @pytest.mark.parametrize(
        "use",
        [
            lambda db: db.commit(putting(b"a")),
            lambda db: db.submit(putting(b"a")),
            lambda db: db.snapshot(),
            lambda db: db.flush(),
        ],
    )
    def test_failure_in_the_background_reaches_the_next_call(
        self, path: str, failed: Connection, use: Callable[[Connection], Any]
    ) -> None:
        with pytest.raises(CommitFailedError, match="input/output error"):
            use(failed)
        failed.close()  # it was told already
        assert names_elsewhere(path) == [b"durable"]

    def test_failure_that_nobody_was_told_of_is_told_at_the_close(
        self, path: str, failed: Connection
    ) -> None:
        with pytest.raises(CommitFailedError, match=r"last is lost.*input/output error"):
            failed.close()
        assert failed.closed
        again = connect(path, "c", interval())
        assert names(again) == [b"durable"]
        again.close()

    def test_failure_in_the_background_is_logged(
        self, failed: Connection, caplog: pytest.LogCaptureFixture
    ) -> None:
        (record,) = caplog.get_records("setup")
        assert (record.name, record.levelname) == ("lgkv", "ERROR")
        assert "1 changes that were acknowledged are lost" in record.getMessage()
        with pytest.raises(CommitFailedError):
            failed.close()

    def test_flush_says_that_something_is_lost_though_another_was_told(
        self, path: str, failed: Connection
    ) -> None:
        other = connect(path, "c", interval(20))
        with pytest.raises(CommitFailedError):
            other.commit(putting(b"a"))
        for _ in range(2):
            with pytest.raises(CommitFailedError, match="input/output error"):
                failed.flush()
        failed.close()
        other.close()

    def test_flush_that_fails_raises(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        db = connect(path, "c", interval())
        db.commit(putting(b"a"))

        monkeypatch.setattr(Committer, "_flush", fail_flush)
        with pytest.raises(CommitFailedError, match="input/output error"):
            db.flush()
        with pytest.raises(CommitFailedError, match="input/output error"):
            db.flush()
        db.close()

    def test_wait_for_the_gate_has_its_limit_and_loses_nothing(self, path: str) -> None:
        db = connect(path, "c", interval(lock_timeout_s=0.05))
        gate = Gate(path)
        gate.acquire(0)
        with pytest.raises(WriteLockTimeoutError):
            db.commit(putting(b"a"))
        gate.close()
        db.commit(putting(b"b"))
        assert names(db) == [b"b"]
        db.close()


class TestBackPressure:
    def test_full_queue_holds_callers_back_until_there_is_room(
        self, db: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writer_module, "QUEUE_CHANGES", 4)
        futures: list[Future[None]] = []

        def write() -> None:
            futures.extend(db.submit(putting(b"%02d" % number)) for number in range(10))

        with db.writer._turn:
            thread = threading.Thread(target=write)
            thread.start()
            time.sleep(0.1)
            assert len(db.writer._queue) <= 4
        thread.join(LIMIT_S)
        assert [outcome(future) for future in futures] == [None] * 10
        assert len(names(db)) == 10

    def test_who_is_held_back_for_too_long_is_told(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writer_module, "QUEUE_CHANGES", 1)
        db = connect(path, "c", interval(lock_timeout_s=0.05))
        with db.writer._turn:
            first = db.submit(putting(b"a"))
            with pytest.raises(WriteLockTimeoutError):
                db.submit(putting(b"b"))
        assert outcome(first) is None
        db.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_fork_flushes_and_leaves_the_child_with_a_file_of_its_own(path: str) -> None:
    code = """
        import os, sys, lgkv
        db = lgkv.open(sys.argv[1], durability="interval", interval_ms=3_600_000)
        db.memory.put(("a",), "before", {})
        child = os.fork()
        if child == 0:
            db.memory.put(("a",), "child", {})
            db.flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        db.memory.put(("a",), "parent", {})
        print(*sorted(item.key for item in db.memory.search(("a",))))
    """
    assert run_program(code, path) == "before child parent\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a process is killed with SIGKILL")
def test_killed_process_loses_its_tail_and_holds_nobody_up(path: str) -> None:
    code = """
        import sys, lgkv
        db = lgkv.open(sys.argv[1], durability="interval", interval_ms=3_600_000)
        db.memory.put(("a",), "flushed", {})
        db.flush()
        db.memory.put(("a",), "lost", {})
        print("ready", flush=True)
        sys.stdin.read()
    """
    with Program(code, path) as program:
        assert program.hear() == "ready"
        program.kill()
    with lgkv.open(path, lock_timeout_s=LIMIT_S) as db:
        db.memory.put(("a",), "after", {})
        assert sorted(item.key for item in db.memory.search(("a",))) == ["after", "flushed"]
