"""Changes and batches: each is written whole or not at all, and its caller always hears of it."""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import pytest

import lgkv
from lgkv import (
    ClosedError,
    CommitFailedError,
    InvalidInputError,
    MapFullError,
    ReadOnlyError,
    StorageError,
    ValueTooLargeError,
    WriteLockTimeoutError,
    layout,
)
from lgkv.connection import Connection, connect
from lgkv.env import Environment, Options
from lgkv.gate import Gate
from lgkv.layout import Table
from lgkv.memory import Put
from lgkv.snapshot import State
from lgkv.writer import Batch, Change, Pending, commit
from tests.invariants import structural_damage
from tests.processes import run_program
from tests.unit.changes import (
    LIMIT_S,
    K,
    failing,
    names,
    outcome,
    putting,
    queueing,
    state,
    together,
)

PLAIN = Options(compression=False)  # so that sizes are what they seem


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "agent.lgkv")


@pytest.fixture
def db(path: str) -> Iterator[Connection]:
    connection = connect(path, "c", PLAIN)
    yield connection
    connection.close()


class TestBatch:
    def test_sizes_add_up_to_what_is_stored(self, db: Connection) -> None:
        def apply(batch: Batch) -> list[int]:
            return [
                batch.put(Table.MEMORY, K + b"a", bytes(100)),
                batch.put(Table.MEMORY, K + b"a", bytes(150)),
                batch.put(Table.MEMORY, K + b"a", bytes(50)),
                batch.put_new(Table.MEMORY, K + b"b", bytes(10)),
                batch.put_new(Table.MEMORY, K + b"b", bytes(99)),
                batch.delete(Table.MEMORY, K + b"a"),
                batch.delete(Table.MEMORY, K + b"a"),
                batch.delete_range(Table.MEMORY, K),
                batch.delete_range(Table.MEMORY, K),
            ]

        envelope, key = layout.ENVELOPE_BYTES, 2
        a, b = key + 50 + envelope, key + 10 + envelope
        expected = [a + 50, 50, -100, b, 0, a, 0, b, 0]
        assert db.commit(Change(apply)) == expected
        assert names(db) == []

    def test_change_sees_its_own_writes(self, db: Connection) -> None:
        def apply(batch: Batch) -> list[Any]:
            batch.put(Table.MEMORY, K + b"a", b"1")
            batch.put(Table.MEMORY, K + b"b", b"2")
            batch.delete(Table.MEMORY, K + b"a")
            return [
                batch.get(Table.MEMORY, K + b"a"),
                batch.get(Table.MEMORY, K + b"b"),
                list(batch.keys(Table.MEMORY, K)),
                batch.has(Table.MEMORY, K + b"a"),
            ]

        assert db.commit(Change(apply)) == [None, b"2", [K + b"b"], False]

    @pytest.mark.parametrize("count", [0, 1, 2, 500])
    @pytest.mark.parametrize("size", [1, 700, 5_000])
    def test_range_is_deleted_to_its_end_and_no_further(
        self, db: Connection, count: int, size: int
    ) -> None:
        def fill(batch: Batch) -> None:
            for kind in (b"\x98", K, b"\x9a"):
                for number in range(count):
                    batch.put(Table.MEMORY, kind + b"%05d" % number, bytes(size))

        db.commit(Change(fill))
        freed = db.commit(Change(lambda batch: batch.delete_range(Table.MEMORY, K)))
        assert freed == count * (6 + size + layout.ENVELOPE_BYTES)
        assert names(db) == []
        with db.snapshot() as snapshot:
            assert len(list(snapshot.keys(Table.MEMORY, b"\x98"))) == count
            assert len(list(snapshot.scan(Table.MEMORY, b"\x9a"))) == count

    @pytest.mark.parametrize("sizes", [(20_000, 10), (20_000, 5_000), (5_000, 20_000, 100)])
    def test_record_put_again_in_one_commit_leaves_a_sound_file(
        self, path: str, sizes: tuple[int, ...]
    ) -> None:
        db = connect(path, "c", PLAIN)
        together(db, *(putting(b"same", bytes(size)) for size in sizes))
        db.close()
        assert structural_damage(path) == []

    def test_record_that_is_too_large_is_refused_and_nothing_stored(
        self, db: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(layout, "MAX_VALUE_BYTES", 1_000)
        with pytest.raises(ValueTooLargeError):
            db.commit(putting(b"large", bytes(1_001)))
        assert (names(db), state(db)) == ([], State())


class TestCommit:
    def test_commit_returns_what_the_change_returns(self, db: Connection) -> None:
        assert db.commit(Change(lambda batch: batch.state.commit)) == 0
        assert db.submit(Change(lambda batch: batch.state.commit)).result(LIMIT_S) == 1

    def test_acknowledged_write_is_read_by_another_process(self, db: Connection) -> None:
        db.commit(putting(b"a"))
        code = """
            import sys, lgkv
            from lgkv.layout import Table
            with lgkv.open(sys.argv[1], mode="r") as db, db._connection.snapshot() as snapshot:
                print(snapshot.get(Table.MEMORY, b"\\x99a").decode())
        """
        assert run_program(code, db.path) == "body\n"

    @pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), MemoryError()])
    def test_failing_change_leaves_nothing_and_the_next_one_works(
        self, db: Connection, error: BaseException
    ) -> None:
        with pytest.raises(type(error)) as caught:
            db.commit(failing(error))
        assert caught.value is error
        assert (names(db), state(db)) == ([], State())
        db.commit(putting(b"next"))
        assert (names(db), state(db)) == ([b"next"], State(commit=1, threads=1))

    def test_error_of_lmdbs_in_a_change_becomes_ours(self, db: Connection) -> None:
        for run in (db.commit, lambda change: db.submit(change).result(LIMIT_S)):
            with pytest.raises(StorageError, match=r"agent\.lgkv.*MDB_BAD_VALSIZE"):
                run(putting(b"x" * 600))
        assert names(db) == []

    def test_raised_error_keeps_nothing_of_the_change_alive(self, db: Connection) -> None:
        class Payload:
            pass

        def apply(_: Batch, *, payload: Payload) -> None:
            raise ZeroDivisionError(payload)

        change = Change(functools.partial(apply, payload=Payload()))
        payload = weakref.ref(change.apply.keywords["payload"])  # type: ignore[attr-defined]
        gc.disable()
        try:
            with contextlib.suppress(ZeroDivisionError):
                db.commit(change)
            del change
            assert payload() is None
        finally:
            gc.enable()

    def test_error_of_a_commit_keeps_nothing_of_it_alive(
        self, db: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else a transaction that an interruption left open would hold LMDB's lock."""
        begin, opened = commit.Committer._begin, []

        def begin_interrupted(self: commit.Committer) -> Any:
            batch = begin(self)
            opened.append(weakref.ref(batch._txn))
            raise KeyboardInterrupt

        gc.disable()
        try:
            with monkeypatch.context() as patch:
                patch.setattr(commit.Committer, "_begin", begin_interrupted)
                with contextlib.suppress(KeyboardInterrupt):
                    db.commit(putting(b"a"))
            assert opened[0]() is None
            assert outcome(db.submit(putting(b"b"))) is None
        finally:
            gc.enable()

    def test_read_only_handle_writes_nothing(self, path: str) -> None:
        connect(path, "c", PLAIN).close()
        before = Path(path).read_bytes()
        db = connect(path, "r", Options(read_only=True))
        for run in (db.commit, db.submit):
            with pytest.raises(ReadOnlyError, match="mode='w'"):
                run(putting(b"a"))
        db.close()
        assert Path(path).read_bytes() == before

    def test_figures_count_what_was_done(self, db: Connection) -> None:
        db.commit(putting(b"a"))
        together(db, putting(b"b"), failing(ValueError()), putting(b"c"))
        figures = db.writer.figures
        assert (figures.commits, figures.changes, figures.failed_changes) == (2, 3, 1)
        assert figures.largest_batch == 2
        assert 0 < figures.longest_flush_seconds < figures.flush_seconds
        assert (figures.waits, figures.wait_seconds, figures.longest_wait_seconds) == (0, 0, 0)

    def test_figures_count_who_waits_for_another_process(self, db: Connection) -> None:
        gate = Gate(db.path)
        gate.acquire(0)
        waiting = [db.submit(putting(b"%d" % number)) for number in range(3)]
        gate.close()
        assert [outcome(future) for future in waiting] == [None] * 3
        db.commit(putting(b"alone"))
        figures = db.writer.figures
        assert figures.waits <= 1  # it may have come when the gate was free again
        assert (figures.waits == 1) is (figures.wait_seconds > 0)
        assert figures.longest_wait_seconds == figures.wait_seconds


class TestBatches:
    def test_changes_that_wait_together_share_a_commit(self, db: Connection) -> None:
        together(db, *(putting(b"%d" % number) for number in range(20)))
        assert db.writer.figures.commits == 1
        assert state(db) == State(commit=1, threads=20)
        assert len(names(db)) == 20

    def test_change_that_fails_before_it_writes_costs_no_transaction(
        self, db: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun: list[object] = []
        begin = Environment.begin_write

        def count(self: Environment, user: Any) -> Any:
            begun.append(user)
            return begin(self, user)

        def fail(_: Batch) -> None:
            raise ValueError

        monkeypatch.setattr(Environment, "begin_write", count)
        together(db, putting(b"a"), Change(fail), putting(b"b"))
        assert len(begun) == 1
        together(db, putting(b"c"), failing(ValueError()), putting(b"d"))
        assert len(begun) == 3  # what came before is done again in another
        assert names(db) == [b"a", b"b", b"c", b"d"]

    def test_change_is_applied_once_whatever_fails_beside_it(self, db: Connection) -> None:
        found: list[tuple[int, dict[Any, Any]]] = []

        def noting(name: bytes) -> Change[None]:
            def apply(batch: Batch) -> None:
                found.append((batch.state.threads, dict(batch.memo)))
                batch.memo[name] = name
                putting(name).apply(batch)

            return Change(apply)

        db.commit(noting(b"a"))
        together(db, noting(b"b"), failing(ValueError()), noting(b"c"))
        assert found == [
            (0, {}),
            (1, {b"a": b"a"}),
            (2, {}),  # nothing that it remembers is certain
        ]
        assert (names(db), state(db).threads) == ([b"a", b"b", b"c"], 3)

    def test_whatever_a_change_did_is_done_again(self, db: Connection) -> None:
        other = b"\x98"

        def everything(batch: Batch) -> None:
            table = Table.MEMORY
            batch.put(table, K + b"put", b"old" * 2000)
            batch.put(table, K + b"put", b"new")
            assert batch.put_new(table, K + b"first", b"first")
            assert not batch.put_new(table, K + b"first", b"second")
            size = batch.put_over(table, K + b"over", b"old" * 2000, 0, compress=True)
            batch.put_over(table, K + b"over", b"new", size, compress=True)
            batch.set(table, K + b"set", b"old" * 2000)
            batch.set(table, K + b"set", b"new", 6000)
            batch.set_all(table, [other + b"1", other + b"2", K + b"all"], [b"", b"", b"new"])
            batch.set(table, K + b"gone", b"old")
            assert batch.delete(table, K + b"gone")
            batch.discard(table, K + b"was never there")
            assert batch.delete_range(table, other)

        def wrong(batch: Batch) -> None:
            batch.set(Table.MEMORY, K + b"wrong", b"wrong")
            batch.delete_range(Table.MEMORY, K)
            raise ValueError

        assert together(db, Change(everything))[0] is None
        with db.snapshot() as snapshot:
            alone = list(snapshot.scan(Table.MEMORY, K))
        db.commit(Change(lambda batch: batch.delete_range(Table.MEMORY, K)))
        results = together(db, Change(everything), Change(wrong))
        assert [type(result) for result in results] == [type(None), ValueError]
        with db.snapshot() as snapshot:
            assert list(snapshot.scan(Table.MEMORY, K)) == alone
        assert [body for _, body in alone] == [b"new", b"first", b"new", b"new", b"new"]

    def test_changes_that_come_while_one_is_flushed_share_the_next_flush(
        self, db: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        all_came, flush = threading.Event(), commit.Committer._flush

        def flush_once_all_came(self: commit.Committer, batch: Batch, changes: int) -> None:
            assert all_came.wait(LIMIT_S)
            flush(self, batch, changes)

        monkeypatch.setattr(commit.Committer, "_flush", flush_once_all_came)
        futures = [db.submit(putting(b"%d" % number)) for number in range(32)]
        threads = [
            threading.Thread(target=db.commit, args=(putting(b"%d" % number),))
            for number in range(32, 64)
        ]
        for thread in threads:
            thread.start()
        while not all(thread.is_alive() for thread in threads) or len(db.writer._queue) < 31:
            time.sleep(0.001)
        all_came.set()
        assert [outcome(future) for future in futures] == [None] * 32
        for thread in threads:
            thread.join(LIMIT_S)
        assert len(names(db)) == 64
        assert db.writer.figures.commits <= 3

    def test_failing_change_takes_only_itself_down(self, db: Connection) -> None:
        results = together(
            db, putting(b"a"), failing(ValueError("1")), putting(b"b"), failing(KeyError("2"))
        )
        assert [type(result) for result in results] == [
            type(None),
            ValueError,
            type(None),
            KeyError,
        ]
        assert names(db) == [b"a", b"b"]
        assert state(db) == State(commit=1, threads=2)

    def test_batch_of_failing_changes_commits_nothing(self, db: Connection) -> None:
        results = together(db, failing(ValueError()), failing(ValueError()))
        assert all(isinstance(result, ValueError) for result in results)
        assert state(db) == State()
        assert db.writer.figures.commits == 0

    def test_later_change_does_not_see_what_a_failed_one_wrote(self, db: Connection) -> None:
        def look(batch: Batch) -> tuple[Any, int]:
            return batch.get(Table.MEMORY, K + b"x"), batch.state.threads

        results = together(
            db, failing(ValueError(), b"x"), Change(look), putting(b"x"), Change(look)
        )
        assert results[1] == (None, 0)
        assert results[3] == (b"body", 1)

    @pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), SystemExit()])
    def test_error_that_is_no_exception_reaches_every_caller_and_the_writer_goes_on(
        self, db: Connection, error: BaseException
    ) -> None:
        results = together(db, putting(b"a"), failing(error), putting(b"b"))
        assert results == [error] * 3
        assert (names(db), state(db)) == ([], State())
        assert together(db, putting(b"c"), putting(b"d")) == [None, None]
        assert names(db) == [b"c", b"d"]

    def test_batch_has_a_largest_size(
        self, db: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(commit, "BATCH_CHANGES", 3)
        together(db, *(putting(b"%d" % number) for number in range(10)))
        assert len(names(db)) == 10
        assert db.writer.figures.commits == 4

    def test_large_changes_share_a_commit(self, db: Connection) -> None:
        results = together(db, *(putting(b"%d" % n, bytes(4 << 20)) for n in range(20)))
        assert results == [None] * 20
        assert len(names(db)) == 20

    def test_full_map_fails_what_does_not_fit_and_nothing_else(self, path: str) -> None:
        db = connect(path, "c", Options(map_size_bytes=1 << 20, compression=False))
        results = together(db, putting(b"a"), putting(b"large", bytes(4 << 20)), putting(b"b"))
        assert [type(result) for result in results] == [type(None), MapFullError, type(None)]
        assert names(db) == [b"a", b"b"]
        assert state(db) == State(commit=2, threads=2)
        db.close()

    def test_cancelled_change_is_not_written(self, db: Connection) -> None:
        with queueing(db):
            futures = [db.submit(putting(b"%d" % number)) for number in range(3)]
            assert futures[1].cancel()
        assert [outcome(futures[at]) for at in (0, 2)] == [None, None]
        with pytest.raises(CancelledError):
            futures[1].result()
        assert names(db) == [b"0", b"2"]

    def test_cancelled_change_beside_a_failing_commit_harms_nobody(self, path: str) -> None:
        db = connect(path, "c", Options(map_size_bytes=1 << 20, compression=False))
        with queueing(db):
            cancelled = db.submit(putting(b"a"))
            failed = db.submit(putting(b"large", bytes(4 << 20)))
            cancelled.cancel()
        assert isinstance(outcome(failed), MapFullError)
        assert cancelled.cancelled()
        assert outcome(db.submit(putting(b"b"))) is None
        db.close()

    def test_change_that_has_begun_cannot_be_cancelled(self, db: Connection) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def apply(batch: Batch) -> None:
            begun.set()
            go_on.wait(LIMIT_S)
            putting(b"a").apply(batch)

        future = db.submit(Change(apply))
        begun.wait(LIMIT_S)
        assert not future.cancel()
        go_on.set()
        assert outcome(future) is None
        assert names(db) == [b"a"]

    def test_batch_of_cancelled_changes_ends(self, db: Connection) -> None:
        with queueing(db):
            assert db.submit(putting(b"a")).cancel()
        assert outcome(db.submit(putting(b"b"))) is None
        assert names(db) == [b"b"]


class _FailingCommit:
    """A transaction whose commit fails."""

    def __init__(self, txn: Any, error: BaseException) -> None:
        self.txn, self.error = txn, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.txn, name)

    def commit(self) -> None:
        self.txn.abort()
        raise self.error


@contextmanager
def commit_failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Iterator[None]:
    begin = Environment.begin_write

    def begin_write(self: Environment, user: object) -> tuple[Any, Any]:
        txn, databases = begin(self, user)
        return _FailingCommit(txn, error), databases

    with monkeypatch.context() as patch:
        patch.setattr(Environment, "begin_write", begin_write)
        yield


class TestFailedCommit:
    @pytest.mark.parametrize(
        "error", [lmdb.DiskError("no space left"), lmdb.Error("input/output"), MemoryError("none")]
    )
    def test_failed_commit_closes_the_file_to_every_handle(
        self, path: str, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        db, other = connect(path, "c", PLAIN), connect(path, "c", PLAIN)
        db.commit(putting(b"before"))
        with commit_failing(monkeypatch, error):
            with pytest.raises(CommitFailedError, match="open it again") as caught:
                db.commit(putting(b"lost"))
            assert caught.value.__cause__ is error
        uses: list[Callable[[], Any]] = [
            db.snapshot, other.snapshot, lambda: db.commit(putting(b"a")),
            lambda: other.submit(putting(b"a")),
        ]  # fmt: skip
        for use in uses:
            with pytest.raises(CommitFailedError, match=str(error)):
                use()
        db.close()
        other.close()
        again = connect(path, "w", PLAIN)
        assert names(again) == [b"before"]
        again.commit(putting(b"after"))
        again.close()

    def test_failed_commit_reaches_every_caller_of_the_batch_and_the_queue(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(commit, "BATCH_CHANGES", 2)
        db = connect(path, "c", PLAIN)
        with commit_failing(monkeypatch, lmdb.DiskError("gone")):
            results = together(db, *(putting(b"%d" % number) for number in range(5)))
        assert [type(result) for result in results] == [CommitFailedError] * 5
        db.close()

    def test_map_that_is_full_at_the_commit_only_is_no_failure_of_the_disk(
        self, db: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lgkv.env.LARGE_MAP_BYTES", 1)
        with commit_failing(monkeypatch, lmdb.MapFullError("full")), pytest.raises(MapFullError):
            db.commit(putting(b"a"))
        db.commit(putting(b"b"))
        assert names(db) == [b"b"]

    def test_file_that_cannot_be_opened_for_the_gate_is_a_typed_error(
        self, db: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any) -> None:
            raise OSError(24, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(commit, "Gate", refuse)
            with pytest.raises(CommitFailedError, match="Too many open files"):
                db.commit(putting(b"a"))
        db.commit(putting(b"b"))
        assert names(db) == [b"b"]

    def test_thread_that_cannot_be_started_is_a_typed_error_and_tried_again(
        self, db: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(StorageError, match="can't start new thread"):
                db.submit(putting(b"a"))
        assert outcome(db.submit(putting(b"b"))) is None
        assert names(db) == [b"b"]


class TestWaiting:
    @pytest.fixture
    def impatient(self, path: str) -> Iterator[Connection]:
        connection = connect(path, "c", Options(lock_timeout_s=0.05))
        yield connection
        connection.close()

    @pytest.fixture
    def held(self, impatient: Connection) -> Iterator[Gate]:
        """The gate, held as another process would."""
        gate = Gate(impatient.path)
        gate.acquire(0)
        yield gate
        gate.close()

    def test_commit_waits_its_time_and_writes_nothing(
        self, impatient: Connection, held: Gate
    ) -> None:
        for run in (impatient.commit, lambda change: impatient.submit(change).result(LIMIT_S)):
            began = time.monotonic()
            with pytest.raises(WriteLockTimeoutError, match="larger lock_timeout_s"):
                run(putting(b"a"))
            assert time.monotonic() - began < 10
        held.release()
        impatient.commit(putting(b"b"))
        assert names(impatient) == [b"b"]

    def test_threads_that_wait_together_all_end(self, impatient: Connection, held: Gate) -> None:
        results: list[Any] = []

        def commit(number: int) -> None:
            try:
                impatient.commit(putting(b"%d" % number))
            except WriteLockTimeoutError as error:
                results.append(error)

        threads = [threading.Thread(target=commit, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        assert len(results) == 8
        held.release()
        impatient.commit(putting(b"after"))
        assert names(impatient) == [b"after"]

    def test_change_that_is_given_up_while_it_waits_is_never_written(
        self, impatient: Connection
    ) -> None:
        with queueing(impatient), pytest.raises(WriteLockTimeoutError):
            impatient.commit(putting(b"given up"))
        impatient.commit(putting(b"after"))
        assert names(impatient) == [b"after"]

    def test_readers_never_wait(self, impatient: Connection, held: Gate) -> None:
        assert names(impatient) == []
        assert held

    @pytest.mark.parametrize("limit", [float("inf"), 1e12, threading.TIMEOUT_MAX * 2])
    def test_wait_without_end_is_allowed(self, path: str, limit: float) -> None:
        db = connect(path, "c", Options(lock_timeout_s=limit))
        with queueing(db):
            thread = threading.Thread(target=db.commit, args=(putting(b"a"),))
            thread.start()
            while not db.writer._queue:
                time.sleep(0.001)
        thread.join(LIMIT_S)
        assert names(db) == [b"a"]
        db.close()

    def test_time_limit_of_zero_writes_when_nobody_else_does(self, path: str) -> None:
        db = connect(path, "c", Options(lock_timeout_s=0))
        db.commit(putting(b"a"))
        assert names(db) == [b"a"]
        db.close()


class TestThreads:
    def test_sixteen_threads_keep_each_its_order(self, db: Connection) -> None:
        errors: list[BaseException] = []

        def following(lane: bytes, number: int) -> Change[None]:
            def apply(batch: Batch) -> None:
                last = batch.get(Table.MEMORY, K + lane)
                assert (last or b"0") == b"%d" % (number - 1)
                batch.put(Table.MEMORY, K + lane, b"%d" % number)

            return Change(apply)

        def write(lane: bytes) -> None:
            try:
                futures = []
                for number in range(1, 61):
                    if number % 3:
                        futures.append(db.submit(following(lane, number)))
                    else:
                        db.commit(following(lane, number))
                done, waiting = wait(futures, LIMIT_S)
                assert not waiting
                for future in done:
                    future.result()
            except BaseException as error:  # noqa: BLE001  shown by the test
                errors.append(error)

        threads = [threading.Thread(target=write, args=(b"%02d" % n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        with db.snapshot() as snapshot:
            assert [body for _, body in snapshot.scan(Table.MEMORY, K)] == [b"60"] * 16
        assert db.writer.figures.commits < 16 * 60

    def test_callback_of_a_future_may_use_the_database(self, db: Connection) -> None:
        seen: list[Any] = []
        ended = threading.Event()

        def callback(_: Future[Any]) -> None:
            seen.append(names(db))
            db.commit(putting(b"from the callback"))
            ended.set()

        with queueing(db):
            db.submit(putting(b"a")).add_done_callback(callback)
        assert ended.wait(LIMIT_S)
        assert seen == [[b"a"]]
        assert names(db) == [b"a", b"from the callback"]

    def test_callback_may_write_while_others_wait(self, db: Connection) -> None:
        ended = threading.Event()

        def callback(_: Future[Any]) -> None:
            queued.append(db.submit(putting(b"queued")))
            db.commit(putting(b"from the callback"))
            ended.set()

        queued: list[Future[None]] = []
        with queueing(db):
            db.submit(putting(b"a")).add_done_callback(callback)
        assert ended.wait(LIMIT_S)
        assert outcome(queued[0]) is None
        assert names(db) == [b"a", b"from the callback", b"queued"]

    @pytest.mark.parametrize("wait", [lambda db: db.commit(putting(b"inner")), Connection.close])
    def test_change_that_waits_for_another_is_an_error_and_no_hang(
        self, db: Connection, wait: Callable[[Connection], object]
    ) -> None:
        def apply(_: Batch) -> None:
            wait(db)

        for run in (db.commit, lambda change: db.submit(change).result(LIMIT_S)):
            with pytest.raises(InvalidInputError, match="cannot wait for another"):
                run(Change(apply))
        db.commit(putting(b"a"))
        assert names(db) == [b"a"]

    def test_callback_that_ends_its_thread_ends_nobody_elses_change(self, db: Connection) -> None:
        def callback(_: Future[Any]) -> None:
            raise SystemExit

        with queueing(db):
            first = db.submit(putting(b"a"))
            first.add_done_callback(callback)
            second = db.submit(putting(b"b"))
        assert outcome(second) is None
        assert outcome(db.submit(putting(b"c"))) is None


class TestCrowds:
    @pytest.fixture
    def slow(self, db: Connection, monkeypatch: pytest.MonkeyPatch) -> Connection:
        """A file whose flush takes long."""
        flush = commit.Committer._flush

        def flush_slowly(self: commit.Committer, batch: Batch, changes: int) -> None:
            time.sleep(0.02)
            flush(self, batch, changes)
            self.last_flush_s = 0.02

        monkeypatch.setattr(commit.Committer, "_flush", flush_slowly)
        return db

    def test_threads_that_write_without_a_pause_go_together(self, slow: Connection) -> None:
        """Else half of them would wait while the other half is flushed, in turn, for ever."""

        def write(lane: int) -> None:
            for number in range(20):
                slow.commit(putting(b"%d %d" % (lane, number)))

        threads = [threading.Thread(target=write, args=(lane,)) for lane in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        assert len(names(slow)) == 160
        assert slow.writer.figures.commits < 32  # 40 of two halves, 20 of all

    def test_who_is_left_of_a_crowd_is_soon_alone(self, slow: Connection) -> None:
        together(slow, *(putting(b"%d" % number) for number in range(8)))
        assert slow.writer._crowded
        slow.commit(putting(b"one more"))
        assert not slow.writer._crowded
        assert slow.writer._may_commit_here()


def short(name: bytes) -> Change[None]:
    return Change(putting(name).apply, is_short=True)


def test_notification_that_was_interrupted_takes_no_other_away(db: Connection) -> None:
    assert outcome(db.submit(putting(b"first"))) is None
    while not db.writer._idle:
        time.sleep(0.001)
    told = threading.Lock()  # of a wait that has ended: `notify` was interrupted before removing it
    told.acquire()
    with db.writer._lock:
        db.writer._arrived._waiters.appendleft(told)  # type: ignore[attr-defined]
    assert outcome(db.submit(putting(b"second"))) is None


class TestHalves:
    """A large crowd goes in two halves: one comes back while the other is flushed."""

    COUNT, PUTS = 32, 20

    @pytest.fixture
    def queued(self, db: Connection, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
        """How many changes each commit had, and how many queued when it was flushed.

        To come back takes longer than a flush here.
        """
        found: list[tuple[int, int]] = []
        flush = commit.Committer._flush

        def flush_slowly(self: commit.Committer, batch: Batch, changes: int) -> None:
            flush(self, batch, changes)
            time.sleep(0.01)
            found.append((changes, len(db.writer._queue)))
            self.last_flush_s, self.last_change_s = 0.01, 0.01

        monkeypatch.setattr(commit.Committer, "_flush", flush_slowly)
        return found

    def write(self, db: Connection, lane: int) -> None:
        for number in range(self.PUTS):
            db.commit(short(b"%d %d" % (lane, number)))

    def run(self, *others: Callable[[], None], db: Connection) -> None:
        threads = [threading.Thread(target=self.write, args=(db, at)) for at in range(self.COUNT)]
        threads += [threading.Thread(target=other) for other in others]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        assert not any(thread.is_alive() for thread in threads)
        assert not db.writer._commits.held

    def test_who_is_told_comes_back_while_the_others_are_flushed(
        self, db: Connection, queued: list[tuple[int, int]]
    ) -> None:
        self.run(db=db)
        assert len(names(db)) == self.COUNT * self.PUTS
        steady = queued[len(queued) // 4 : -len(queued) // 4]
        assert sum(changes for changes, _ in steady) < 24 * len(steady)  # 16, not 32
        came = [waiting for _, waiting in steady if waiting >= self.COUNT // 4]
        assert len(came) > len(steady) // 2

    def test_callback_of_a_future_waits_for_nobody_who_is_not_told(
        self, db: Connection, queued: list[tuple[int, int]]
    ) -> None:
        untold: list[int] = []

        def callback(_: Future[Any]) -> None:
            untold.append(len(db.writer._commits.held))
            db.commit(putting(b"callback"))  # it holds no lock, and no transaction

        def submit() -> None:
            for number in range(self.PUTS):
                future = db.submit(short(b"future %d" % number))
                future.add_done_callback(callback)
                assert outcome(future) is None

        self.run(submit, db=db)
        assert untold == [0] * self.PUTS
        assert len(names(db)) == self.COUNT * self.PUTS + self.PUTS + 1
        assert len(queued) > self.PUTS

    def test_changes_that_are_submitted_at_once_are_not_parted(
        self, db: Connection, queued: list[tuple[int, int]]
    ) -> None:
        for _ in range(3):
            together(db, *(short(b"%d" % number) for number in range(64)))
        assert {changes for changes, _ in queued if changes > 1} <= {63, 64}  # or 1, and 63

    @staticmethod
    def held_by(db: Connection, mailbox: Any = None) -> Pending:
        """A change that is durable, and whose caller was not told yet."""
        pending = Pending(short(b"held"), mailbox=mailbox)
        pending.queue()
        pending.succeed(None)
        db.writer._commits.held.append(pending)
        return pending

    def test_mailbox_that_fails_is_no_harm_to_others(
        self, db: Connection, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Box:
            def __init__(self) -> None:
                self.got: list[Pending] = []

            def deliver(self, ended: list[Pending]) -> None:
                self.got += ended

        class Broken(Box):
            def deliver(self, ended: list[Pending]) -> None:
                raise OSError(f"{len(ended)} are lost")

        db.commit(putting(b"first"))
        box = Box()
        self.held_by(db, Broken())
        told = self.held_by(db, box)
        db.writer._commits.serve([Pending(short(b"second"))])
        assert box.got == [told]
        assert names(db) == [b"first", b"second"]
        assert "did not take the ends of 1 changes" in caplog.text

    def test_who_is_held_is_told_before_others_are_waited_for(
        self, db: Connection, path: str
    ) -> None:
        db.commit(putting(b"first"))
        held, gate = self.held_by(db), Gate(path)
        gate.acquire(0)
        waiting = threading.Thread(target=db.writer._commits.serve, args=([Pending(None)],))
        waiting.start()
        assert held.wait(LIMIT_S)
        assert waiting.is_alive()
        gate.release()
        waiting.join(LIMIT_S)
        gate.close()

    def test_who_is_held_is_told_before_the_map_is_waited_for(self, db: Connection) -> None:
        db.commit(putting(b"first"))
        held = self.held_by(db)
        db.env.sharing.become_alone()
        waiting = threading.Thread(target=db.writer._commits.serve, args=([Pending(None)],))
        waiting.start()
        assert held.wait(LIMIT_S)
        assert waiting.is_alive()
        db.env.sharing.end_alone()
        waiting.join(LIMIT_S)

    def test_who_is_held_is_told_before_the_map_grows(
        self, db: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        held, told = self.held_by(db), []

        def grow(*_: Any, **__: Any) -> None:
            told.append(held.wait(0))

        monkeypatch.setattr(Environment, "grow", grow)
        db.writer._commits._grow()
        assert told == [True]

    @pytest.mark.parametrize("is_short", [True, False])
    def test_who_is_held_is_told_before_what_may_take_long(
        self, db: Connection, monkeypatch: pytest.MonkeyPatch, *, is_short: bool
    ) -> None:
        if is_short:
            monkeypatch.setattr(commit, "HELD_S", 0)  # it is late in the batch
        held, told = self.held_by(db), []
        change: Change[None] = Change(lambda _: told.append(held.wait(0)), is_short=is_short)
        db.writer._commits.serve([Pending(change)])
        assert told == [True]

    def test_who_is_held_is_not_told_before_what_is_short(self, db: Connection) -> None:
        held, told = self.held_by(db), []
        change: Change[None] = Change(lambda _: told.append(held.wait(0)), is_short=True)
        db.writer._commits.serve([Pending(change)])
        assert told == [False]
        assert held.wait(0)

    def test_who_is_held_is_told_where_nothing_is_flushed(self, db: Connection) -> None:
        held = self.held_by(db)
        with pytest.raises(ValueError, match="wrong"):
            db.submit(failing(ValueError("wrong"))).result(LIMIT_S)
        assert held.wait(LIMIT_S)

    def test_nobody_commits_inline_while_some_are_held(self, db: Connection) -> None:
        db.commit(putting(b"first"))
        held = self.held_by(db)
        assert not db.writer._commit_here(Pending(putting(b"second")))
        db.commit(putting(b"third"))
        assert held.wait(LIMIT_S)
        assert names(db) == [b"first", b"third"]


@pytest.mark.parametrize("large", [False, True])
def test_what_stores_much_is_not_known_to_be_short(path: str, *, large: bool) -> None:
    body = "x" * (100_000 if large else 100)
    values, versions = {"a": [body], "b": body}, {"a": "1", "b": "1"}
    with lgkv.open(path) as opened:
        for checkpoint in (
            {"id": "1", "channel_values": values, "channel_versions": versions},
            {"id": "2", "other": body},
        ):
            assert opened.checkpoints.put_change("t", checkpoint).is_short is not large
        write = opened.checkpoints.put_writes_change("t", "1", "task", [("a", body)])
        assert write.is_short is not large
        many = [("a", 1)] * (100 if large else 3)
        assert opened.checkpoints.put_writes_change("t", "1", "task", many).is_short is not large
        memory = opened.memory
        assert memory.change([Put(("n",), "key", {"a": body})]).is_short is not large
        puts = [Put(("n",), f"{number}", {}) for number in range(20 if large else 2)]
        assert memory.change(puts).is_short is not large
        assert not memory.change([Put(("n",), "key", {}, [1.0, 2.0])]).is_short
        assert not memory.change([Put(("n",), "key", {}, text="words")]).is_short


class TestClosing:
    def test_close_commits_what_is_queued(self, path: str) -> None:
        db = connect(path, "c", PLAIN)
        futures = [db.submit(putting(b"%03d" % number)) for number in range(200)]
        db.close()
        assert all(future.done() and future.exception() is None for future in futures)
        again = connect(path, "w", PLAIN)
        assert len(names(again)) == 200
        again.close()

    def test_closed_writer_takes_nothing_more(self, db: Connection) -> None:
        closed = db.writer
        db.close()
        for run in (closed.commit, closed.submit):
            with pytest.raises(ClosedError):
                run(putting(b"a"))
        assert closed._commits._gate is None

    def test_commits_that_race_a_close_are_written_or_refused(self, path: str) -> None:
        def write(db: Connection, started: threading.Barrier, lane: str, acked: list[str]) -> None:
            started.wait(LIMIT_S)
            for number in range(1_000):
                name = f"{lane}-{number}"
                try:
                    db.commit(putting(name.encode()))
                except ClosedError:
                    return
                acked.append(name)

        for round_ in range(15):
            db = connect(path, "c", PLAIN)
            acked: list[str] = []
            started = threading.Barrier(5)
            threads = [
                threading.Thread(target=write, args=(db, started, f"{round_}-{lane}", acked))
                for lane in range(4)
            ]
            for thread in threads:
                thread.start()
            started.wait(LIMIT_S)
            time.sleep(0.002)
            db.close()
            for thread in threads:
                thread.join(LIMIT_S)
            again = connect(path, "w", PLAIN)
            assert {name.encode() for name in acked} <= set(names(again))
            assert again.writer._commits._gate is None
            again.close()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), RuntimeError("release unlocked lock"), RuntimeError("no more")]
)
def test_start_of_the_writer_thread_that_fails_leaves_no_second_one(
    path: str, monkeypatch: pytest.MonkeyPatch, error: BaseException, moment: str
) -> None:
    """With two of them one would wait for the other's transaction for ever."""
    start, started = threading.Thread.start, []
    if "unlocked" in str(error):  # what an interruption of a Condition can come to
        error.__context__ = KeyboardInterrupt()

    def fail(self: threading.Thread) -> None:
        if moment == "after":
            start(self)
            started.append(self)
        raise error

    db = connect(path, "c", Options(durability="interval", interval_ms=3_600_000))
    expected = StorageError if "more" in str(error) else KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(expected):
            db.commit(putting(b"a"))
    for thread in started:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    db.commit(putting(b"b"))
    assert names(db) == [b"b"]
    db.close()


INTERRUPTED = """
    import random, signal, sys, threading, time
    import lgkv
    from lgkv.layout import Table

    db = lgkv.open(sys.argv[1], durability=sys.argv[4])
    connection, acked, number, interruptions = db._connection, [], 0, 0
    rnd, lazy = random.Random(int(sys.argv[2])), sys.argv[4] == "interval"

    def interrupt(*_):
        raise KeyboardInterrupt

    def counting(key):
        def apply(batch):
            batch.state.caches += 1
            batch.put(Table.MEMORY, b"\\x99%08d" % key, b"body")
        return lgkv.writer.Change(apply)

    def write():
        global number
        signal.setitimer(signal.ITIMER_REAL, rnd.random() * 0.003 + 0.00001)
        for _ in range(50):  # an interruption may be swallowed by code that is called back
            number += 1
            db.checkpoints.put("t", {"id": f"{number:08}"})
            acked.append(number)
            for part in range(5 if lazy else 1):
                db.commit(counting(number * 5 + part))
            if not lazy or rnd.random() < 0.1:
                for _ in range(3):
                    db.checkpoints.get("t")
                db.submit(lgkv.writer.Change(lambda batch: None))

    signal.signal(signal.SIGALRM, interrupt)
    end = time.monotonic() + float(sys.argv[3])
    while time.monotonic() < end:
        try:
            try:
                write()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except (KeyboardInterrupt, RuntimeError):  # the latter: of an interrupted Condition
            interruptions += 1
    found = {int(c.id) for c in db.checkpoints.list("t")}
    assert set(acked) <= found, "acknowledged writes are missing"
    with connection.snapshot() as snapshot:
        counted = snapshot.read_state().caches
        assert counted == len(list(snapshot.keys(Table.MEMORY, b"\\x99"))), "counters are apart"
    writer = connection.writer
    assert not writer._turn.locked() or writer._thread.is_alive()
    db.submit(lgkv.writer.Change(lambda batch: None)).result(10)
    db.close()
    with lgkv.open(sys.argv[1], lock_timeout_s=1) as db:
        db.checkpoints.put("t", {"id": "last"})
    print(interruptions)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="setitimer is POSIX's")
@pytest.mark.parametrize("durability", ["full", "interval"])
def test_interruption_at_any_moment_leaves_nothing_locked(path: str, durability: str) -> None:
    assert int(run_program(INTERRUPTED, path, "1", "4", durability)) > 50
