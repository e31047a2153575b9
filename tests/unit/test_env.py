"""The environment: its snapshots, its format check, who shares the map, and how the map grows."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from lgkv import (
    ClosedError,
    CommitFailedError,
    CorruptionError,
    FormatVersionError,
    InvalidInputError,
    LgkvError,
    MapFullError,
    ReadOnlyError,
    StorageError,
    env,
    opening,
)
from lgkv.connection import Connection, connect
from lgkv.env import Options
from lgkv.layout import FORMAT_VERSION, META_KEY, STATE_KEY, Table, encode_plain, seal_record
from lgkv.opening import translate
from lgkv.snapshot import Sharing, State
from lgkv.writer import Batch, Change
from tests.invariants import structural_damage
from tests.processes import Program, run_program

K = b"\x99"  # a kind that lgkv does not use


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "agent.lgkv")


@pytest.fixture
def db(path: str) -> Iterator[Connection]:
    connection = connect(path, "c", Options(compression=False))
    yield connection
    connection.close()


def put(db: Connection, *names: bytes, body: bytes = b"") -> None:
    def apply(batch: Batch) -> None:
        for name in names:
            batch.put(Table.MEMORY, K + name, body or name)

    db.commit(Change(apply))


def scan(db: Connection, prefix: bytes = K, **bounds: Any) -> list[bytes]:
    with db.snapshot() as snapshot:
        return [key[1:] for key, _ in snapshot.scan(Table.MEMORY, prefix, **bounds)]


def get(db: Connection, name: bytes) -> bytes | None:
    with db.snapshot() as snapshot:
        return snapshot.get(Table.MEMORY, K + name)


class TestSnapshots:
    def test_snapshot_does_not_see_a_later_commit(self, db: Connection) -> None:
        put(db, b"a")
        with db.snapshot() as old:
            thread = threading.Thread(target=put, args=(db, b"b"))
            thread.start()
            thread.join()
            assert old.get(Table.MEMORY, K + b"b") is None
            assert old.get(Table.MEMORY, K + b"a") == b"a"
            assert old.read_state().commit == 1
        assert get(db, b"b") == b"b"

    def test_scan_yields_a_prefix_in_order(self, db: Connection) -> None:
        put(db, b"b", b"a", b"c", b"ab")
        assert scan(db) == [b"a", b"ab", b"b", b"c"]
        assert scan(db, reverse=True) == [b"c", b"b", b"ab", b"a"]
        assert scan(db, K + b"a") == [b"a", b"ab"]
        assert scan(db, K + b"d") == scan(db, K + b"d", reverse=True) == []

    def test_scan_begins_at_start_and_ends_before_stop(self, db: Connection) -> None:
        put(db, b"a", b"b", b"c", b"d")
        for reverse in (False, True):
            found = scan(db, start=K + b"b", stop=K + b"d", reverse=reverse)
            assert sorted(found) == [b"b", b"c"]
            assert scan(db, start=K + b"bb", reverse=reverse) == sorted(
                [b"c", b"d"], reverse=reverse
            )
            assert scan(db, stop=K + b"a", reverse=reverse) == []

    def test_scan_of_the_last_prefix_of_a_table_ends(self, db: Connection) -> None:
        assert scan(db, reverse=True) == []
        put(db, b"\xff", b"\xff\xff")
        assert scan(db, reverse=True) == [b"\xff\xff", b"\xff"]

    def test_keys_are_those_of_scan(self, db: Connection) -> None:
        put(db, b"a", b"b")
        with db.snapshot() as snapshot:
            keys = list(snapshot.keys(Table.MEMORY, K))
            assert keys == [key for key, _ in snapshot.scan(Table.MEMORY, K)]
            assert snapshot.entries(Table.MEMORY) == 2

    def test_prefix_is_there_or_not(self, db: Connection) -> None:
        put(db, b"ab")
        with db.snapshot() as snapshot:
            assert snapshot.has(Table.MEMORY, K + b"a")
            assert not snapshot.has(Table.MEMORY, K + b"b")
            assert not snapshot.has(Table.NAMES, K)

    def test_body_outlives_its_snapshot(self, db: Connection) -> None:
        put(db, b"a", body=b"x" * 10_000)
        with db.snapshot() as snapshot:
            body = snapshot.get(Table.MEMORY, K + b"a")
        for round_ in range(5):
            put(db, b"a", body=bytes([round_]) * 10_000)
        assert body == b"x" * 10_000

    def test_snapshot_of_a_handle_that_nobody_else_holds_stays_usable(self, path: str) -> None:
        with connect(path, "c", Options(compression=False)).snapshot() as snapshot:
            assert snapshot.read_state() == State()
        other = connect(path, "r", Options(read_only=True))  # nothing was left open
        other.close()

    def test_lmdbs_error_inside_a_snapshot_comes_out_as_ours(self, db: Connection) -> None:
        with pytest.raises(StorageError, match=r"agent\.lgkv") as caught, db.snapshot() as snapshot:
            snapshot._txn.put(b"k", b"v")
        assert isinstance(caught.value.__cause__, lmdb.Error)

    def test_error_of_a_caller_inside_a_snapshot_passes(self, db: Connection) -> None:
        with pytest.raises(KeyError), db.snapshot():
            raise KeyError
        put(db, b"a")

    def test_threads_read_and_write_together(self, db: Connection) -> None:
        wrong: list[Any] = []
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                with db.snapshot() as snapshot:
                    pair = [snapshot.get(Table.MEMORY, K + name) for name in (b"a", b"b")]
                    if pair[0] != pair[1]:
                        wrong.append(pair)

        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        for number in range(60):
            put(db, b"a", b"b", body=b"%d" % number * 500)
        stop.set()
        for reader in readers:
            reader.join()
        assert wrong == []


class TestReaders:
    def test_full_reader_table_is_a_typed_error_and_passes(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(opening, "MAX_READERS", 3)
        db = connect(path, "c", Options(compression=False))
        held = [db.snapshot() for _ in range(3)]
        with pytest.raises(StorageError, match="READERS_FULL"):
            db.snapshot()
        held.pop().__exit__(None, None, None)
        assert get(db, b"a") is None
        for snapshot in held:
            snapshot.__exit__(None, None, None)
        db.close()

    HOLD = """
        import sys
        from lgkv.connection import connect
        from lgkv import env, opening
        opening.MAX_READERS = 3
        db = connect(sys.argv[1], "c", env.Options(compression=False))
        held = [db.snapshot() for _ in range(3)]
        print("held", flush=True)
        sys.stdin.read()
    """

    def test_readers_of_a_killed_process_are_cleared_when_slots_run_out(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(opening, "MAX_READERS", 3)
        with Program(self.HOLD.replace("range(3)", "range(2)"), path) as other:
            assert other.hear() == "held"
            db = connect(path, "w", Options(compression=False))
            other.kill()
            held = [db.snapshot() for _ in range(3)]
            assert len(held) == 3
            for snapshot in held:
                snapshot.__exit__(None, None, None)
            db.close()

    def test_readers_of_a_killed_process_are_cleared_on_open(self, path: str) -> None:
        db = connect(
            path, "c", Options(compression=False)
        )  # for one process alone LMDB begins the table anew
        with Program(self.HOLD, path) as other:
            assert other.hear() == "held"
            other.kill()
        cleared = run_program(
            """
            import sys, lgkv
            with lgkv.open(sys.argv[1], compression=False) as db:
                print(db.stats().stale_readers_cleared)
            """,
            path,
        )
        assert cleared == "3\n"
        db.close()

    def test_file_does_not_grow_for_a_reader_that_was_killed(self, path: str) -> None:
        db = connect(path, "c", Options(compression=False))
        put(db, b"a")
        with Program(self.HOLD, path) as other:
            assert other.hear() == "held"
            other.kill()
        run_program(
            "import sys, lgkv; lgkv.open(sys.argv[1], compression=False)", path
        )  # which clears it
        for number in range(60):
            put(db, b"a", body=bytes([number]) * 50_000)
        db.close()
        assert os.path.getsize(path) < 20 * 50_000


def write_main(path: str, **records: bytes) -> None:
    """Store bodies in the unnamed table, properly sealed."""
    with lmdb.open(path, subdir=False, max_dbs=4, lib_version=0) as raw, raw.begin(write=True) as t:
        for name, body in records.items():
            key = f"lgkv.{name}".encode()
            t.put(key, seal_record(Table.MAIN, key, body))


META = {"magic": "lgkv", "format": FORMAT_VERSION, "features": 0, "file_id": bytes(16)}


@pytest.fixture
def closed(path: str) -> str:
    connect(path, "c", Options(compression=False)).close()
    return path


class TestFormat:
    def test_our_own_format_is_read(self, closed: str) -> None:
        write_main(closed, meta=encode_plain({**META, "more": "later"}))
        connection = connect(closed, "w", Options(compression=False))
        assert connection.env.file_id == bytes(16)
        connection.close()

    @pytest.mark.parametrize("mode", ["c", "w", "r"])
    def test_newer_format_is_refused_and_left_as_it_is(self, closed: str, mode: str) -> None:
        write_main(closed, meta=encode_plain({**META, "format": FORMAT_VERSION + 1}))
        before = Path(closed).read_bytes()
        with pytest.raises(FormatVersionError, match="upgrade lgkv") as caught:
            connect(closed, mode, Options(read_only=mode == "r"))
        assert (caught.value.found, caught.value.supported) == (
            f"format {FORMAT_VERSION + 1}",
            f"format {FORMAT_VERSION}",
        )
        assert Path(closed).read_bytes() == before

    @pytest.mark.parametrize("found", [0, -1, None, "1"])
    def test_format_that_never_was_is_refused(self, closed: str, found: Any) -> None:
        write_main(closed, meta=encode_plain({**META, "format": found}))
        with pytest.raises(FormatVersionError, match=f"format {found}"):
            connect(closed, "w", Options(compression=False))

    @pytest.mark.parametrize("features", [1, 6, 1 << 63])
    def test_unknown_feature_is_refused(self, closed: str, features: int) -> None:
        write_main(closed, meta=encode_plain({**META, "features": features}))
        with pytest.raises(FormatVersionError, match=f"features {features:#x}.*upgrade"):
            connect(closed, "w", Options(compression=False))

    @pytest.mark.parametrize(
        "meta", [[], {}, {"magic": "LGKV"}, {"format": FORMAT_VERSION}, "lgkv"]
    )
    def test_other_contents_are_another_programs(self, closed: str, meta: Any) -> None:
        write_main(closed, meta=encode_plain(meta))
        with pytest.raises(InvalidInputError, match="not one of lgkv's"):
            connect(closed, "w", Options(compression=False))

    def test_meta_that_is_not_cbor_is_damage(self, closed: str) -> None:
        write_main(closed, meta=b"\xff\xff")
        with pytest.raises(CorruptionError) as caught:
            connect(closed, "w", Options(compression=False))
        assert (caught.value.database, caught.value.key) == ("main", META_KEY)

    @pytest.mark.parametrize("lost", [{"features": None}, {"features": "1"}, {"file_id": None}])
    def test_meta_without_its_fields_is_damage(self, closed: str, lost: dict[str, Any]) -> None:
        write_main(closed, meta=encode_plain({**META, **lost}))
        with pytest.raises(CorruptionError, match="fields"):
            connect(closed, "w", Options(compression=False))

    def test_counters_of_the_wrong_size_are_damage(self, closed: str) -> None:
        write_main(closed, state=b"1234")
        connection = connect(closed, "w", Options(compression=False))
        with pytest.raises(CorruptionError) as caught:
            put(connection, b"a")
        assert (caught.value.database, caught.value.key) == ("main", STATE_KEY)
        connection.close()

    def test_refused_file_is_not_left_open(self, closed: str) -> None:
        write_main(closed, meta=encode_plain({**META, "format": FORMAT_VERSION + 1}))
        with pytest.raises(FormatVersionError):
            connect(closed, "w", Options(compression=False))
        write_main(closed, meta=encode_plain(META))
        connect(closed, "w", Options(compression=False)).close()

    @pytest.mark.parametrize("tables", [[], ["threads"], ["threads", "memory", "names"]])
    def test_lmdb_file_of_another_program_is_refused(self, path: str, tables: list[str]) -> None:
        with lmdb.open(path, subdir=False, max_dbs=4, lib_version=0) as raw:
            for table in tables:
                raw.open_db(table.encode())
            with raw.begin(write=True) as txn:
                txn.put(b"k", b"v")
        with pytest.raises(InvalidInputError, match="not one of lgkv's"):
            connect(path, "c", Options(compression=False))


class TestErrors:
    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            (lmdb.MapFullError, MapFullError),
            (lmdb.CorruptedError, CorruptionError),
            (lmdb.PageNotFoundError, CorruptionError),
            (lmdb.PanicError, CorruptionError),
            (lmdb.InvalidError, InvalidInputError),
            (lmdb.VersionMismatchError, FormatVersionError),
            (lmdb.ReadonlyError, ReadOnlyError),
            (lmdb.LockError, ReadOnlyError),
            (lmdb.DiskError, StorageError),
            (lmdb.BadRslotError, StorageError),
            (lmdb.Error, StorageError),
        ],
    )
    def test_each_error_of_lmdbs_has_one_of_ours(
        self, theirs: type[lmdb.Error], ours: type[LgkvError]
    ) -> None:
        found = translate(theirs("what happened"), "/a/file")
        assert type(found) is ours
        assert "/a/file" in str(found) or ours is FormatVersionError

    def test_failed_environment_refuses_every_use_until_it_is_opened_again(self, path: str) -> None:
        first, second = (
            connect(path, "c", Options(compression=False)),
            connect(path, "c", Options(compression=False)),
        )
        first.env.fail(OSError("the disk is gone"))
        for use in (first.snapshot, first.env.info, lambda: put(second, b"a")):
            with pytest.raises(CommitFailedError, match=r"the disk is gone.*open it again"):
                use()
        first.close()
        with pytest.raises(CommitFailedError):
            second.snapshot()
        second.close()
        again = connect(path, "c", Options(compression=False))
        put(again, b"a")
        again.close()

    def test_closed_environment_refuses_every_use(self, db: Connection) -> None:
        environment = db.env
        db.close()
        for use in (environment.snapshot, environment.info, lambda: environment.copy_to(1)):
            with pytest.raises(ClosedError):
                use()


class TestReplacedFile:
    @pytest.mark.parametrize("how", ["removed", "replaced", "moved", "folder moved"])
    def test_file_that_is_no_longer_at_its_path_is_refused(
        self, path: str, tmp_path: Path, how: str
    ) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        path = str(folder / "agent.lgkv")
        db = connect(path, "c", Options(compression=False))
        put(db, b"a")
        other = str(tmp_path / "other.lgkv")
        connect(other, "c", Options(compression=False)).close()
        if how == "removed":
            os.unlink(path)
        elif how == "replaced":
            os.replace(other, path)
        elif how == "moved":
            os.rename(path, str(folder / "away.lgkv"))
        else:
            folder.rename(tmp_path / "away")
        for use in (db.snapshot, lambda: put(db, b"b"), db.env.info):
            with pytest.raises(StorageError, match="replaced or removed"):
                use()
        db.close()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_forked_child_looks_at_the_path(self, path: str) -> None:
        db = connect(path, "c", Options(compression=False))
        os.unlink(path)
        child = os.fork()
        if not child:  # pragma: no cover
            try:
                get(db, b"a")
            except StorageError as error:
                os._exit(0 if "replaced or removed" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        db.close()

    def test_file_that_comes_back_is_used_again(self, path: str) -> None:
        db = connect(path, "c", Options(compression=False))
        os.rename(path, path + ".away")
        with pytest.raises(StorageError, match="replaced or removed"):
            put(db, b"a")
        os.rename(path + ".away", path)
        put(db, b"a")
        assert get(db, b"a") == b"a"
        db.close()

    def test_copy_in_its_place_is_refused(self, path: str) -> None:
        db = connect(path, "c", Options(compression=False))
        shutil.copy(path, path + ".copy")
        os.replace(path + ".copy", path)
        with pytest.raises(StorageError, match="replaced or removed"):
            put(db, b"a")
        db.close()
        fresh = connect(path, "c", Options(compression=False))
        put(fresh, b"a")
        fresh.close()


class User:
    """Who uses the map."""


class TestSharing:
    def test_one_alone_waits_for_the_others(self) -> None:
        sharing, user = Sharing(), User()
        order: list[str] = []
        begun, done = threading.Event(), threading.Event()

        def use() -> None:
            sharing.enter(user)
            begun.set()
            done.wait(10)
            order.append("left")
            sharing.leave(user)

        thread = threading.Thread(target=use)
        thread.start()
        begun.wait(10)
        threading.Timer(0.05, done.set).start()
        sharing.become_alone()
        order.append("alone")
        sharing.end_alone()
        thread.join()
        assert order == ["left", "alone"]

    def test_others_wait_for_one_alone(self) -> None:
        sharing, user = Sharing(), User()
        order: list[str] = []

        def use() -> None:
            sharing.enter(user)
            order.append("entered")
            sharing.leave(user)

        sharing.become_alone()
        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        order.append("ended")
        sharing.end_alone()
        for thread in threads:
            thread.join()
        assert order == ["ended", *["entered"] * 4]

    def test_only_one_is_alone_at_a_time(self) -> None:
        sharing, inside, most = Sharing(), [0], [0]

        def be_alone() -> None:
            for _ in range(50):
                sharing.become_alone()
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1
                sharing.end_alone()

        threads = [threading.Thread(target=be_alone) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [1]

    def test_thread_waits_for_no_use_of_its_own(self) -> None:
        sharing = Sharing()
        sharing.enter(self)
        sharing.become_alone()
        sharing.enter(sharing)
        sharing.end_alone()

    def test_who_is_gone_uses_nothing_any_more(self) -> None:
        """As a snapshot of which an interruption left nothing but its use."""
        sharing, user = Sharing(), User()
        thread = threading.Thread(target=sharing.enter, args=(user,))
        thread.start()
        thread.join()
        del thread
        assert not sharing.become_alone_if_idle()

        del user
        assert sharing.become_alone_if_idle()
        sharing.end_alone()
        sharing.become_alone()

    def test_leaving_may_be_repeated_and_needs_no_entering(self) -> None:
        sharing = Sharing()
        sharing.leave(self)
        sharing.enter(self)
        sharing.leave(self)
        sharing.leave(self)
        assert sharing.become_alone_if_idle()

    def test_thread_inside_may_go_further_in_while_another_waits_to_be_alone(self) -> None:
        sharing, inner = Sharing(), User()
        sharing.enter(self)
        waiting = threading.Thread(target=sharing.become_alone)
        waiting.start()
        while sharing._alone is None:
            time.sleep(0.001)
        sharing.enter(inner)  # else both would wait for ever
        sharing.leave(inner)
        sharing.leave(self)
        waiting.join(10)
        assert not waiting.is_alive()

    def test_interrupted_wait_to_be_alone_lets_the_others_go_on(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sharing = Sharing()
        thread = threading.Thread(target=sharing.enter, args=(self,))
        thread.start()
        thread.join()

        def interrupt(_: float) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sharing.become_alone()
        monkeypatch.undo()
        sharing.leave(self)
        assert sharing.become_alone_if_idle()

    def test_idle_is_found_without_waiting(self) -> None:
        sharing = Sharing()
        sharing.enter(self)
        assert not sharing.become_alone_if_idle()
        sharing.leave(self)
        with sharing._lock:
            assert not sharing.become_alone_if_idle()
        assert sharing.become_alone_if_idle()
        assert not sharing.become_alone_if_idle()


def make_map_small(monkeypatch: pytest.MonkeyPatch, most: int = 1 << 28) -> None:
    """Begin with a map of 1 MiB, which grows: as on Windows, only smaller."""
    monkeypatch.setattr(opening, "_map_sizes", lambda options: (options.map_size_bytes or 1 << 20,))
    monkeypatch.setattr(env, "LARGE_MAP_BYTES", most)


SMALL_MAP = """
    import sys
    from lgkv import env, opening
    from lgkv.connection import connect
    from lgkv.layout import Table
    from lgkv.writer import Change
    opening._map_sizes = lambda options: (options.map_size_bytes or 1 << 20,)
    env.LARGE_MAP_BYTES = 1 << 28
    db = connect(sys.argv[1], "c", env.Options(compression=False))

    def put(name, size):
        db.commit(Change(lambda batch: batch.put(Table.MEMORY, b"\\x99" + name, name * size)))
"""


class TestGrowth:
    def test_map_grows_under_readers_and_nothing_is_lost(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_map_small(monkeypatch)
        db = connect(path, "c", Options(compression=False))
        put(db, b"pair-a", b"pair-b", body=b"0")
        stop, wrong = threading.Event(), []

        def read() -> None:
            try:
                while not stop.is_set():
                    with db.snapshot() as snapshot:
                        pair = [snapshot.get(Table.MEMORY, K + n) for n in (b"pair-a", b"pair-b")]
                        if pair[0] != pair[1]:
                            wrong.append(pair)
            except LgkvError as error:
                wrong.append(error)

        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        for number in range(60):
            put(db, b"large %03d" % number, body=b"%03d" % number * 70_000)
            put(db, b"pair-a", b"pair-b", body=b"%d" % number)
        stop.set()
        for reader in readers:
            reader.join()
        assert wrong == []
        assert db.env.map_growths >= 4
        for number in range(60):
            assert get(db, b"large %03d" % number) == b"%03d" % number * 70_000
        db.close()
        assert structural_damage(path) == []

    def test_change_is_applied_again_whole_after_growing(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_map_small(monkeypatch)
        db = connect(path, "c", Options(compression=False))
        runs: list[int] = []

        def apply(batch: Batch) -> int:
            runs.append(batch.state.threads)
            batch.state.threads += 1
            batch.put(Table.MEMORY, K + b"large", bytes(5_000_000))
            return batch.state.threads

        assert db.commit(Change(apply)) == 1
        assert runs == [0] * len(runs)
        assert len(runs) > 2
        with db.snapshot() as snapshot:
            assert snapshot.read_state() == State(commit=1, threads=1)
        db.close()

    def test_map_ends_at_its_largest_size(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        make_map_small(monkeypatch, most=1 << 22)
        db = connect(path, "c", Options(compression=False))
        with pytest.raises(MapFullError, match="larger map_size_bytes"):
            put(db, b"large", body=bytes(8_000_000))
        put(db, b"small")
        assert (get(db, b"large"), get(db, b"small")) == (None, b"small")
        db.close()

    def test_growth_by_another_process_is_followed(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_map_small(monkeypatch)
        db = connect(path, "c", Options(compression=False))
        code = (
            SMALL_MAP
            + """
    for name in sys.stdin:
        put(name.strip().encode(), 500_000)
        print("stored", flush=True)
"""
        )
        stop, wrong = threading.Event(), []

        def read() -> None:
            try:
                while not stop.is_set():
                    with db.snapshot() as snapshot:
                        wrong.extend(
                            key
                            for key, body in snapshot.scan(Table.MEMORY, K)
                            if set(body) - set(key)
                        )
            except LgkvError as error:
                wrong.append(error)

        readers = [threading.Thread(target=read) for _ in range(4)]
        with Program(code, path) as other:
            for reader in readers:
                reader.start()
            for number in range(10):
                name = b"%d%d%d" % (number, number, number)
                other.say(name.decode())
                assert other.hear() == "stored"
                assert get(db, name) == name * 500_000
                put(db, b"own", body=b"own" * number)
            stop.set()
            for reader in readers:
                reader.join()
            other.finish()
        assert wrong == []
        assert db.env.map_growths == 0
        db.close()
        assert structural_damage(path) == []

    def test_processes_that_both_grow_the_map_lose_nothing(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_map_small(monkeypatch)
        code = (
            SMALL_MAP
            + """
    for number in range(30):
        put(b"%s%02d" % (sys.argv[2].encode(), number), 50_000)
    print(db.env.map_growths)
"""
        )
        with Program(code, path, "a") as first, Program(code, path, "b") as second:
            assert int(first.hear()) + int(second.hear()) >= 3
            first.finish()
            second.finish()
        db = connect(path, "c", Options(compression=False))
        for name in [b"%s%02d" % (who, number) for who in (b"a", b"b") for number in range(30)]:
            assert get(db, name) == name * 50_000
        db.close()
        assert structural_damage(path) == []


class TestMapSize:
    def test_full_map_stores_nothing_of_the_change_and_goes_on(self, path: str) -> None:
        db = connect(path, "c", Options(compression=False, map_size_bytes=1 << 20))

        def apply(batch: Batch) -> None:
            batch.state.threads += 1
            for number in range(100):
                batch.put(Table.MEMORY, K + b"%03d" % number, bytes(50_000))

        put(db, b"before")
        with pytest.raises(MapFullError, match="larger map_size_bytes"):
            db.commit(Change(apply))
        assert scan(db) == [b"before"]
        put(db, b"after")
        with db.snapshot() as snapshot:
            assert snapshot.read_state() == State(commit=2)
        db.close()
        assert structural_damage(path) == []
        assert os.path.getsize(path) <= 1 << 20

    def test_file_can_be_filled_emptied_and_filled_again(self, path: str) -> None:
        db = connect(path, "c", Options(compression=False, map_size_bytes=1 << 20))
        filled = []
        for round_ in range(5):
            filled.append(0)
            with contextlib.suppress(MapFullError):
                while filled[-1] < 60:
                    put(db, b"%d-%d" % (round_, filled[-1]), body=bytes(20_000))
                    filled[-1] += 1
            db.commit(Change(lambda batch: batch.delete_range(Table.MEMORY, K)))
            put(db, b"small")  # LMDB uses pages again from the commit after the next on
            put(db, b"small")
        assert max(filled) < 60
        assert min(filled) > 0.5 * max(filled)
        db.close()
        assert structural_damage(path) == []

    def test_size_need_not_be_a_multiple_of_the_page(self, path: str) -> None:
        db = connect(path, "c", Options(compression=False, map_size_bytes=(1 << 20) + 1))
        put(db, b"a")
        db.close()

    def test_larger_size_opens_what_a_smaller_one_filled(self, path: str) -> None:
        db = connect(path, "c", Options(compression=False, map_size_bytes=1 << 20))
        with pytest.raises(MapFullError):
            put(db, b"large", body=bytes(2 << 20))
        db.close()
        db = connect(path, "c", Options(compression=False, map_size_bytes=1 << 23))
        put(db, b"large", body=bytes(2 << 20))
        db.close()

    def test_size_bounds_own_writes_and_not_what_others_wrote(self, path: str) -> None:
        db = connect(path, "c", Options(compression=False, map_size_bytes=1 << 20))
        put(db, b"a")
        code = """
            import sys, lgkv
            from lgkv.layout import Table
            from lgkv.writer import Change
            with lgkv.open(sys.argv[1], compression=False) as db:
                db.commit(Change(lambda batch: batch.put(Table.MEMORY, b"\\x99b", bytes(4 << 20))))
        """
        run_program(code, path)
        assert len(get(db, b"b") or b"") == 4 << 20
        with pytest.raises(MapFullError):
            put(db, b"c", body=bytes(1 << 20))
        assert scan(db) == [b"a", b"b"]
        db.close()

    def test_address_space_that_no_map_fits_is_a_typed_error(self, path: str) -> None:
        with pytest.raises(StorageError, match="use a smaller map_size_bytes"):
            connect(path, "c", Options(compression=False, map_size_bytes=1 << 60))
        connect(path, "c", Options(compression=False)).close()


LIMITED = """
    import resource, sys
    import lgkv
    from lgkv.layout import Table
    from lgkv.writer import Change
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]) << 20,) * 2)
    db = lgkv.open(sys.argv[1], compression=False)
    assert db.stats().map_bytes < 1 << 33, db.stats().map_bytes

    def put(name, size):
        db.commit(Change(lambda batch: batch.put(Table.MEMORY, b"\\x99" + name, bytes(size))))

    def size(name):
        with db._connection.snapshot() as snapshot:
            return len(snapshot.get(Table.MEMORY, b"\\x99" + name) or b"")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is Linux's")
class TestAddressSpaceLimit:
    def test_file_is_opened_with_a_smaller_map(self, path: str) -> None:
        run_program(
            LIMITED
            + """
    put(b"a", 1000)
    assert size(b"a") == 1000
""",
            path,
            "1000",
        )

    def test_map_that_cannot_grow_is_kept_as_it_was(self, path: str) -> None:
        run_program(
            LIMITED
            + """
    put(b"a", 1000)
    try:
        for number in range(400):
            put(b"%d" % number, 2 << 20)
    except lgkv.MapFullError as error:
        assert "address space" in str(error), error
    else:
        raise AssertionError("there was room")
    for name in (b"0", b"1", b"2"):
        assert size(name) == 2 << 20
    put(b"b", 1000)
    assert (size(b"a"), size(b"b")) == (1000, 1000)
    db.close()
""",
            path,
            "700",
        )

    def test_only_what_the_file_needs_is_mapped_beside_a_process_with_a_large_map(
        self, path: str
    ) -> None:
        db = connect(path, "c", Options(compression=False))
        with Program(
            LIMITED
            + """
    print("open", flush=True)
    input()
    print(size(b"79"), flush=True)
    put(b"c", 1000)
""",
            path,
            "1000",
        ) as limited:
            assert limited.hear() == "open"
            for number in range(80):
                put(db, b"%d" % number, body=bytes(1 << 20))
            limited.say("")
            assert int(limited.hear()) == 1 << 20
            limited.finish()
        assert len(get(db, b"c") or b"") == 1000
        db.close()


def test_default_map_takes_no_memory_and_no_disk(path: str) -> None:
    db = connect(path, "c", Options(compression=False))
    assert db.env.info()["map_size"] == opening.LARGE_MAP_BYTES
    assert os.path.getsize(path) < 1 << 20
    db.close()


def test_engine_is_lmdb_09_whatever_the_environment_says(path: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import lgkv; lgkv.open({path!r}).close()"],
        env={**os.environ, "LMDB_DEFAULT_LIB_VERSION": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    connect(path, "w", Options(compression=False)).close()
    with open(path, "rb") as file:
        file.seek(16)
        assert struct.unpack("=II", file.read(8)) == (0xBEEFC0DE, 1)
