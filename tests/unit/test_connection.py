"""Handles on a file: how they share it, how they end, and what a fork makes of them."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lgkv
from lgkv import ClosedError, InvalidInputError, StorageError, WriteLockTimeoutError
from lgkv.connection import Connection, _registry, connect
from lgkv.env import Options
from lgkv.gate import Gate
from lgkv.layout import Table
from lgkv.writer import Batch, Change
from tests.invariants import structural_damage
from tests.processes import Program, run_program

K = b"\x99"  # a kind that lgkv does not use
LIMIT_S = 20
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "agent.lgkv")


def put(db: Connection, name: bytes, body: bytes = b"body") -> None:
    db.commit(Change(lambda batch: batch.put(Table.MEMORY, K + name, body)))


def names(db: Connection) -> list[bytes]:
    with db.snapshot() as snapshot:
        return [key[1:] for key in snapshot.keys(Table.MEMORY, K)]


def is_open(path: str) -> bool:
    return Connection.is_open_here(path)


class TestSharing:
    def test_two_handles_share_one_environment(self, path: str) -> None:
        first, second = connect(path, "c", Options()), connect(path, "w", Options())
        assert first.env is second.env
        assert first.writer is second.writer
        put(first, b"a")
        assert names(second) == [b"a"]
        first.close()
        assert names(second) == [b"a"]
        second.close()
        assert not is_open(path)

    @pytest.mark.parametrize("way", ["dots", "relative", "bytes", "Path", "folder link", "twice"])
    def test_the_path_by_which_it_is_opened_makes_no_difference(
        self, path: str, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "link").symlink_to(tmp_path)
        (tmp_path / "chain").symlink_to(tmp_path / "link")
        other: Any = {
            "dots": f"{tmp_path}/../{tmp_path.name}/./agent.lgkv",
            "relative": "agent.lgkv",
            "bytes": os.fsencode(path),
            "Path": Path(path),
            "folder link": f"{tmp_path}/link/agent.lgkv",
            "twice": f"{tmp_path}/chain/link/agent.lgkv",
        }[way]
        first, second = connect(path, "c", Options()), connect(other, "c", Options())
        assert first.env is second.env
        first.close()
        second.close()

    def test_other_options_are_refused_while_the_file_is_open(self, path: str) -> None:
        db = connect(path, "c", Options())
        for mode, options in [
            ("c", Options(map_size_bytes=1 << 30)),
            ("c", Options(lock_timeout_s=1)),
            ("c", Options(durability="interval")),
            ("r", Options(read_only=True)),
        ]:
            with pytest.raises(InvalidInputError, match="already open in this process with"):
                connect(path, mode, options)
        put(db, b"a")
        db.close()
        other = connect(path, "c", Options(lock_timeout_s=1))
        assert names(other) == [b"a"]
        other.close()

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("lock_timeout_s", None), ("lock_timeout_s", float("nan")), ("lock_timeout_s", -0.1),
            ("interval_ms", None), ("interval_ms", float("nan")), ("interval_ms", 0),
            ("map_size_bytes", 2e6), ("map_size_bytes", 1 << 70), ("map_size_bytes", "1 GiB"),
            ("durability", "none"), ("durability", None),
        ],
    )  # fmt: skip
    def test_option_of_no_use_is_named_before_a_file_is_made(
        self, path: str, option: str, value: Any
    ) -> None:
        with pytest.raises(InvalidInputError, match=option):
            connect(path, "c", Options(**{option: value}))
        assert not os.path.exists(path)

    def test_second_hard_link_is_refused_while_the_file_is_open(
        self, path: str, tmp_path: Path
    ) -> None:
        db = connect(path, "c", Options())
        other = str(tmp_path / "other.lgkv")
        os.link(path, other)
        for name in (path, other):
            with pytest.raises(InvalidInputError, match="hard links"):
                connect(name, "c", Options())
        os.unlink(other)
        put(db, b"a")
        db.close()

    def test_files_do_not_share(self, path: str, tmp_path: Path) -> None:
        first = connect(path, "c", Options())
        second = connect(str(tmp_path / "other.lgkv"), "c", Options())
        put(first, b"a")
        assert names(second) == []
        assert first.env.file_id != second.env.file_id
        first.close()
        put(second, b"b")
        second.close()

    def test_new_file_at_the_path_of_an_open_one_is_another_file(self, path: str) -> None:
        old = connect(path, "c", Options())
        put(old, b"old")
        os.unlink(path)
        os.unlink(path + "-lock")
        new = connect(path, "c", Options())
        put(new, b"new")
        assert names(new) == [b"new"]
        with pytest.raises(StorageError, match="replaced or removed"):
            names(old)
        old.close()
        assert names(new) == [b"new"]
        new.close()

    def test_threads_that_open_and_close_disturb_nobody(self, path: str) -> None:
        errors: list[str] = []

        def work(lane: int) -> None:
            try:
                for number in range(12):
                    db = connect(path, "c", Options())
                    put(db, b"%d-%d" % (lane, number))
                    assert b"%d-%d" % (lane, number) in names(db)
                    db.close()
            except Exception:  # noqa: BLE001  shown by the test
                errors.append(traceback.format_exc())

        threads = [threading.Thread(target=work, args=(lane,)) for lane in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        assert not is_open(path)
        db = connect(path, "w", Options())
        assert len(names(db)) == 72
        db.close()


class TestEnding:
    def test_closed_handle_refuses_every_use_and_closes_again(self, path: str) -> None:
        db, other = connect(path, "c", Options()), connect(path, "c", Options())
        db.close()
        db.close()
        uses: list[Callable[[], Any]] = [
            db.snapshot, lambda: db.env, lambda: db.writer, lambda: put(db, b"a"),
            lambda: db.submit(Change(lambda _: None)),
        ]  # fmt: skip
        for use in uses:
            with pytest.raises(ClosedError, match="open it again"):
                use()
        assert db.closed
        assert not other.closed
        put(other, b"a")
        other.close()

    def test_closing_twice_at_once_releases_once(self, path: str) -> None:
        first, second = connect(path, "c", Options()), connect(path, "c", Options())
        threads = [threading.Thread(target=first.close) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        put(second, b"a")
        second.close()
        assert not is_open(path)

    def test_close_waits_for_a_reader(self, path: str) -> None:
        db = connect(path, "c", Options())
        put(db, b"a", b"x" * 100)
        inside, go_on = threading.Event(), threading.Event()
        seen: list[Any] = []

        def read() -> None:
            with db.snapshot() as snapshot:
                inside.set()
                go_on.wait(LIMIT_S)
                seen.append(snapshot.get(Table.MEMORY, K + b"a"))

        reader = threading.Thread(target=read)
        reader.start()
        inside.wait(LIMIT_S)
        closer = threading.Thread(target=db.close)
        closer.start()
        closer.join(0.05)
        assert closer.is_alive()
        go_on.set()
        closer.join(LIMIT_S)
        reader.join(LIMIT_S)
        assert seen == [b"x" * 100]
        assert not is_open(path)

    def test_dropped_handle_gives_its_share_back(self, path: str) -> None:
        db: Any = connect(path, "c", Options())
        assert is_open(path)
        del db
        gc.collect()
        assert not is_open(path)
        connect(path, "c", Options(lock_timeout_s=1)).close()

    def test_handle_in_a_cycle_is_collected(self, path: str) -> None:
        db: Any = connect(path, "c", Options())
        db.itself = db
        del db
        gc.collect()
        assert not is_open(path)

    def test_dropped_handle_leaves_the_others(self, path: str) -> None:
        kept: Any = connect(path, "c", Options())
        dropped: Any = connect(path, "c", Options())
        put(dropped, b"a")
        del dropped
        gc.collect()
        assert names(kept) == [b"a"]
        kept.close()
        assert not is_open(path)

    def test_what_a_dropped_handle_had_queued_is_written(self, path: str) -> None:
        db: Any = connect(path, "c", Options())
        writer = db.writer
        with writer._turn:
            futures = [
                db.submit(Change(lambda batch, n=n: batch.put(Table.MEMORY, K + b"%d" % n, b"")))
                for n in range(5)
            ]
            del db, writer
            gc.collect()
        for future in futures:
            future.result(LIMIT_S)
        again = connect(path, "c", Options(lock_timeout_s=1))  # the dropped one is closed by now
        assert len(names(again)) == 5
        again.close()

    def test_handle_whose_last_reference_a_change_holds_ends_with_it(self, path: str) -> None:
        db: Any = connect(path, "c", Options())

        def apply(batch: Batch, *, _keep: Any = db) -> None:
            batch.put(Table.MEMORY, K + b"a", b"")

        future = db.submit(Change(apply))
        del db, apply
        future.result(LIMIT_S)
        again = connect(path, "c", Options())
        assert names(again) == [b"a"]
        again.close()

    def test_callback_may_close_the_last_handle(self, path: str) -> None:
        db = connect(path, "c", Options())
        ended = threading.Event()
        future = db.submit(Change(lambda batch: batch.put(Table.MEMORY, K + b"a", b"")))
        future.add_done_callback(lambda _: (db.close(), ended.set()))
        assert ended.wait(LIMIT_S)
        again = connect(path, "c", Options(lock_timeout_s=1))
        assert names(again) == [b"a"]
        again.close()

    def test_handle_collected_in_the_writer_thread_while_another_closes_stops_nobody(
        self, path: str, tmp_path: Path
    ) -> None:
        db = connect(path, "c", Options())
        other: Any = connect(str(tmp_path / "other.lgkv"), "c", Options())
        other.itself = other
        del other  # a collection finds it
        begun = threading.Event()

        def apply(_: Batch) -> None:
            begun.set()
            time.sleep(0.05)  # until the main thread is closing
            gc.collect()

        future = db.submit(Change(apply))
        begun.wait(LIMIT_S)
        db.close()
        assert future.done()
        connect(path, "c", Options(lock_timeout_s=1)).close()
        assert not _registry.open

    def test_interrupted_close_is_finished_by_the_next_one(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        db = connect(path, "c", Options())
        put(db, b"a")

        def interrupt(_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("lgkv.writer.Writer.close", interrupt)
            with pytest.raises(KeyboardInterrupt):
                db.close()
        again = connect(path, "c", Options(lock_timeout_s=1))
        assert names(again) == [b"a"]
        again.close()

    def test_queued_writes_are_there_after_the_interpreter_has_ended(self, path: str) -> None:
        run_program(
            """
            import sys, lgkv
            from lgkv.layout import Table
            from lgkv.writer import Change
            db = lgkv.open(sys.argv[1])
            for number in range(300):
                db.submit(Change(
                    lambda batch, n=number: batch.put(Table.MEMORY, b"\\x99%03d" % n, b"")
                ))
            """,
            path,
        )
        db = connect(path, "w", Options())
        assert len(names(db)) == 300
        db.close()

    def test_interpreter_ends_with_readers_writers_and_cycles_left(self, path: str) -> None:
        run_program(
            """
            import atexit, sys, threading, lgkv
            db = lgkv.open(sys.argv[1])
            db.itself = db
            started = threading.Barrier(3)

            def work(number):
                started.wait()
                try:
                    while True:
                        db.memory.put(("n",), str(number), {"a": 1})
                        db.memory.get(("n",), str(number))
                except lgkv.LgkvError:
                    pass

            for number in range(2):
                threading.Thread(target=work, args=(number,), daemon=True).start()
            started.wait()
            view = db.memory.view()
            atexit.register(lambda: print(db.memory.get(("n",), "none")))
            """,
            path,
        )
        assert structural_damage(path) == []


def in_child(work: Callable[[], object]) -> None:
    """Run `work` in a forked child, which must end well and in time."""
    pid = os.fork()
    if not pid:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LIMIT_S)
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001  all that a child may do is to end
            traceback.print_exc()
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with {os.waitstatus_to_exitcode(status)}"


def spawned(db: lgkv.Database | str, number: int) -> None:
    """Write and read in another process of `multiprocessing`."""
    opened = lgkv.open(db) if isinstance(db, str) else db
    opened.memory.put(("n",), str(number), {"number": number})
    found = opened.memory.get(("n",), str(number))
    assert found is not None
    assert found.value == {"number": number}


@posix
class TestFork:
    def test_child_reads_and_writes_as_the_parent_does(self, path: str) -> None:
        db = connect(path, "c", Options())
        put(db, b"before")

        def work() -> None:
            assert names(db) == [b"before"]
            put(db, b"child")
            assert names(db) == [b"before", b"child"]
            db.submit(Change(lambda batch: batch.put(Table.MEMORY, K + b"queued", b""))).result(
                LIMIT_S
            )

        for _ in range(3):
            in_child(work) if names(db) == [b"before"] else None
        assert names(db) == [b"before", b"child", b"queued"]
        put(db, b"parent")
        db.close()
        assert structural_damage(path) == []

    def test_child_closes_and_opens_without_touching_the_parent(self, path: str) -> None:
        db = connect(path, "c", Options())
        put(db, b"a")
        with db.writer._turn:  # with a gate, and a snapshot of another thread at rest
            pass

        def work() -> None:
            db.close()
            assert not is_open(path)
            again = connect(path, "c", Options(lock_timeout_s=5))
            put(again, b"b")
            again.close()

        in_child(work)
        assert names(db) == [b"a", b"b"]
        put(db, b"c")
        db.close()

    def test_grandchild_works_too(self, path: str) -> None:
        db = connect(path, "c", Options())
        in_child(lambda: (put(db, b"child"), in_child(lambda: put(db, b"grandchild"))))
        assert names(db) == [b"child", b"grandchild"]
        db.close()

    def test_queue_of_the_parent_is_not_written_by_the_child(self, path: str) -> None:
        db = connect(path, "c", Options())
        runs = path + ".runs"

        def apply(batch: Batch) -> None:
            with open(runs, "a") as file:
                file.write(f"{os.getpid()}\n")
            batch.put(Table.MEMORY, K + b"once", b"")

        with db.writer._turn:
            future = db.submit(Change(apply))

            def work() -> None:
                assert db.writer._queue == type(db.writer._queue)()
                put(db, b"child")
                db.close()
                assert not future.done()

            in_child(work)
        future.result(LIMIT_S)
        assert Path(runs).read_text() == f"{os.getpid()}\n"
        assert names(db) == [b"child", b"once"]
        db.close()

    def test_child_does_not_let_others_past_the_gate_of_its_parent(self, path: str) -> None:
        db = connect(path, "c", Options(lock_timeout_s=0.05))
        put(db, b"a")
        gate = db.writer._commits._gate
        assert gate is not None
        gate.acquire(0)

        def work() -> None:
            with pytest.raises(WriteLockTimeoutError):
                put(db, b"child")

        in_child(work)
        other = Gate(path)
        with pytest.raises(WriteLockTimeoutError):
            other.acquire(0)
        other.close()
        gate.release()
        in_child(lambda: put(db, b"child"))
        assert names(db) == [b"a", b"child"]
        db.close()

    def test_read_only_handle_reads_in_the_child(self, path: str) -> None:
        connect(path, "c", Options()).close()
        db = connect(path, "r", Options(read_only=True))
        in_child(lambda: names(db))
        db.close()

    def test_handle_that_was_closed_before_the_fork_stays_closed(self, path: str) -> None:
        db = connect(path, "c", Options())
        db.close()

        def work() -> None:
            with pytest.raises(ClosedError):
                names(db)

        in_child(work)

    @pytest.mark.parametrize("how", ["removed", "garbage", "another"])
    def test_file_that_was_replaced_before_the_fork_is_refused_in_the_child(
        self, path: str, tmp_path: Path, how: str
    ) -> None:
        db = connect(path, "c", Options())
        os.unlink(path)
        if how == "garbage":
            Path(path).write_bytes(b"garbage" * 10_000)
        elif how == "another":
            other = str(tmp_path / "other.lgkv")
            connect(other, "c", Options()).close()
            os.rename(other, path)

        def work() -> None:
            for use in (lambda: names(db), lambda: put(db, b"a"), db.env.info):
                with pytest.raises(StorageError, match="replaced or removed"):
                    use()
            db.close()

        in_child(work)
        db.close()

    def test_fork_waits_for_no_snapshot_of_its_own_thread(self, path: str) -> None:
        db = connect(path, "c", Options())
        put(db, b"a")
        with db.snapshot() as snapshot:
            in_child(lambda: names(db))
            assert snapshot.get(Table.MEMORY, K + b"a") == b"body"
        db.close()

    BUSY = """
        import os, signal, sys, threading, traceback
        import lgkv
        path, forks = sys.argv[1], int(sys.argv[2])
        db = lgkv.open(path)
        db.memory.put(("n",), "start", {"a": 1})
        stop, errors, counts = threading.Event(), [], [0, 0]

        def write(lane):
            try:
                while not stop.is_set():
                    counts[lane] += 1
                    db.memory.put((f"lane {lane}",), str(counts[lane]), {"n": counts[lane]})
                    stop.wait(0.0005)
            except BaseException:
                errors.append(traceback.format_exc())

        def read():
            try:
                while not stop.is_set():
                    assert db.memory.get(("n",), "start").value == {"a": 1}
                    stop.wait(0.0005)
            except BaseException:
                errors.append(traceback.format_exc())

        def open_and_close():
            try:
                while not stop.is_set():
                    lgkv.open(path).close()
                    lgkv.open(path + "2").close()
                    stop.wait(0.001)
            except BaseException:
                errors.append(traceback.format_exc())

        threads = [threading.Thread(target=write, args=(lane,)) for lane in range(2)]
        threads += [threading.Thread(target=work) for work in (read, read, open_and_close)]
        for thread in threads:
            thread.start()
        for number in range(forks):
            pid = os.fork()
            if not pid:
                try:
                    signal.alarm(20)
                    assert db.memory.get(("n",), "start").value == {"a": 1}
                    db.memory.put(("child",), str(number), {"n": number})
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(1)
            if number % 3 == 0:  # else it is left beside the next ones
                assert os.waitpid(pid, 0)[1] == 0
        while True:
            try:
                assert os.waitpid(-1, 0)[1] == 0
            except ChildProcessError:
                break
        stop.set()
        for thread in threads:
            thread.join()
        assert errors == [], errors
        for number in range(forks):
            assert db.memory.get(("child",), str(number)).value == {"n": number}
        for lane in range(2):
            for number in range(1, counts[lane] + 1):
                assert db.memory.get((f"lane {lane}",), str(number)).value == {"n": number}
        db.close()
        print("whole")
    """

    def test_hundreds_of_forks_beside_busy_threads_end_and_lose_nothing(self, path: str) -> None:
        assert run_program(self.BUSY, path, "200") == "whole\n"
        assert structural_damage(path) == []

    def test_multiprocessing_fork_inherits_the_handle(self, path: str) -> None:
        with lgkv.open(path) as db:
            context = multiprocessing.get_context("fork")
            workers = [context.Process(target=spawned, args=(db, n)) for n in range(4)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(LIMIT_S)
            assert [worker.exitcode for worker in workers] == [0] * 4
            assert len(db.memory.search(("n",))) == 4

    def test_multiprocessing_spawn_opens_its_own(self, path: str) -> None:
        run_program(
            """
            import multiprocessing, sys, lgkv
            from tests.unit.test_connection import spawned
            if __name__ == "__main__":
                with lgkv.open(sys.argv[1]) as db:
                    context = multiprocessing.get_context("spawn")
                    given = [(sys.argv[1], number) for number in (1, 2)]
                    workers = [context.Process(target=spawned, args=args) for args in given]
                    for worker in workers:
                        worker.start()
                    for worker in workers:
                        worker.join()
                    assert [worker.exitcode for worker in workers] == [0, 0]
                    assert len(db.memory.search(("n",))) == 2
            """,
            path,
        )


WORKER = """
    import sys, threading, lgkv
    path, lane = sys.argv[1:]
    db = lgkv.open(path)
    errors = []

    def work(thread):
        try:
            for number in range(25):
                key = f"{lane}-{thread}-{number}"
                db.checkpoints.put(key, {"id": "1", "channel_values": {"a": key * 50},
                                         "channel_versions": {"a": 1}})
                assert db.checkpoints.get(key).checkpoint["channel_values"] == {"a": key * 50}
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [], errors
    print("done")
"""

HOLD_GATE = """
    import sys
    import lgkv
    from lgkv.writer import Change
    db = lgkv.open(sys.argv[1])

    def apply(batch):
        batch.state.threads += 1
        batch.put(1, b"\\x99half", b"x" * 100_000)
        print("inside", flush=True)
        sys.stdin.read()

    db.commit(Change(apply))
"""


class TestProcesses:
    def test_processes_with_several_threads_lose_nothing(self, path: str) -> None:
        with contextlib.ExitStack() as stack:
            programs = [stack.enter_context(Program(WORKER, path, str(n))) for n in range(3)]
            for program in programs:
                assert program.hear() == "done"
                program.finish()
        with lgkv.open(path) as db:
            found = {c.thread_id for c in db.checkpoints.list()}
            assert len(found) == 3 * 4 * 25
            assert db.stats().threads == len(found)
        assert structural_damage(path) == []

    def test_writer_killed_in_its_transaction_blocks_nobody_and_leaves_nothing(
        self, path: str
    ) -> None:
        db = connect(path, "c", Options(lock_timeout_s=0.1))
        for _ in range(3):
            with Program(HOLD_GATE, path) as writer:
                assert writer.hear() == "inside"
                with pytest.raises(WriteLockTimeoutError):
                    put(db, b"a")
                assert names(db) == []
                writer.kill()
                began = time.monotonic()
                put(db, b"a")
                assert time.monotonic() - began < 5
                db.commit(Change(lambda batch: batch.delete(Table.MEMORY, K + b"a")))
        with db.snapshot() as snapshot:
            assert snapshot.read_state().threads == 0
        db.close()
        assert structural_damage(path) == []

    @pytest.mark.parametrize("count", [2, 6])
    def test_processes_that_create_the_file_at_once_all_get_the_same_one(
        self, path: str, tmp_path: Path, count: int
    ) -> None:
        create = """
            import os, sys, lgkv
            print("ready", flush=True)
            while not os.path.exists(sys.argv[1]):
                pass
            db = lgkv.open(sys.argv[2])
            db.memory.put(("n",), sys.argv[3], {"a": 1})
            print(db.stats().file_id, flush=True)
            sys.stdin.read()
            assert len(db.memory.search(("n",), limit=100)) == int(sys.argv[4])
        """
        watch = """
            import os, select, sys, lgkv
            print("ready", flush=True)
            seen = 0
            while not select.select([sys.stdin], [], [], 0)[0] or not seen:
                try:
                    with lgkv.open(sys.argv[1], mode="r") as db:
                        seen += db.stats().threads == 0
                except lgkv.InvalidInputError as error:
                    assert "there is no file" in str(error), error
        """
        go = tmp_path / "go"
        with contextlib.ExitStack() as stack:
            programs = [stack.enter_context(Program(watch, path))]
            for number in range(count):
                arguments = (str(go), path, str(number), str(count))
                programs.append(stack.enter_context(Program(create, *arguments)))
            assert {program.hear() for program in programs} == {"ready"}
            go.touch()
            assert len({creator.hear() for creator in programs[1:]}) == 1
            for program in programs:
                program.finish()
        assert sorted(os.listdir(tmp_path)) == ["agent.lgkv", "agent.lgkv-lock", "go"]
        assert os.stat(path).st_nlink == 1

    def test_nobody_but_lmdb_ever_opens_the_lock_file(self, path: str) -> None:
        run_program(
            """
            import gc, os, sys, lgkv
            opened = []
            sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
            path = sys.argv[1]
            for mode in ("c", "w", "r"):
                with lgkv.open(path, mode=mode) as db, lgkv.open(path, mode=mode) as other:
                    if mode != "r":
                        db.checkpoints.put("t", {"id": "1"})
                        other.memory.put(("n",), "k", {"a": 1}, vectors=[1.0, 2.0])
                        db.cache.set(("n",), "k", 1)
                        db.checkpoints.delete_thread("t")
                    db.memory.search((), vector=None)
                    db.stats()
                    db.backup(path + ".backup", overwrite=True)
                    if hasattr(os, "fork"):
                        pid = os.fork()
                        if not pid:
                            db.stats()
                            os._exit(any(name.endswith("-lock") for name in opened))
                        assert os.waitpid(pid, 0)[1] == 0
                for odd in (path + "-lock", path):
                    try:
                        lgkv.open(odd, map_size_bytes=1 << 20, mode="w").close()
                    except lgkv.LgkvError:
                        pass
            assert any(name == path for name in opened), opened
            assert not any(name.endswith("-lock") for name in opened), opened
            """,
            path,
        )
