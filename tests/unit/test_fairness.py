"""Many writers and readers: each gets its turn, nobody is left stuck, and the file stays small."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lgkv.connection import Connection, connect
from lgkv.env import Options
from lgkv.layout import Table
from lgkv.writer import Batch, Change, commit
from tests.processes import Program
from tests.unit.changes import LIMIT_S, K, names, putting

PLAIN = Options(compression=False)


@pytest.fixture
def path(tmp_path: Path) -> str:
    connect(tmp_path / "agent.lgkv", "c", PLAIN).close()
    return str(tmp_path / "agent.lgkv")


WRITING = """
    import sys
    import lgkv
    from lgkv.layout import Table
    from lgkv.writer import Change

    db = lgkv.open(sys.argv[1], durability=sys.argv[3], compression=False)
    key = b"\\x99" + sys.argv[2].encode()

    def count(batch):
        number = int(batch.get(Table.MEMORY, key) or b"0") + 1
        batch.put(Table.MEMORY, key, b"%d" % number)
        return number

    print("ready", flush=True)
    sys.stdin.readline()
    while True:
        if db.commit(Change(count)) % 20 == 0:
            print("20 more", flush=True)
"""


def bodies(db: Connection) -> list[int]:
    with db.snapshot() as snapshot:
        return [int(body) for _, body in snapshot.scan(Table.MEMORY, K)]


@pytest.mark.parametrize("durability", ["full", "interval"])
def test_none_of_four_processes_that_write_without_a_pause_starves(
    path: str, durability: str
) -> None:
    with ExitStack() as stack:
        programs = [
            stack.enter_context(Program(WRITING, path, f"{lane}", durability)) for lane in range(4)
        ]
        for program in programs:
            assert program.hear() == "ready"
        for program in programs:
            program.say("go")
        for program in programs:
            for _ in range(8):
                assert program.hear() == "20 more"
    db = connect(path, "w", PLAIN)
    written = bodies(db)
    db.close()
    # Each has acknowledged 8 * 20. Within an interval what is written in a turn is one commit.
    assert max(written) < (40 * 8 * 20 if durability == "full" else 40 * commit.BATCH_CHANGES)


@pytest.mark.skipif(sys.platform == "win32", reason="a process is killed with SIGKILL")
@pytest.mark.parametrize("place", ["in a change", "behind the gate", "in the flush"])
def test_process_that_is_killed_while_it_writes_holds_nobody_up(path: str, place: str) -> None:
    code = """
        import sys
        import lgkv
        from lgkv.layout import Table
        from lgkv.writer import Change
        from lgkv.writer.commit import Committer

        def stop(*_):
            print("stopped", flush=True)
            sys.stdin.read()

        def apply(batch):
            batch.put(Table.MEMORY, b"\\x99killed", b"body")
            if sys.argv[2] == "in a change":
                stop()

        if sys.argv[2] == "behind the gate":
            Committer._begin = stop
        if sys.argv[2] == "in the flush":
            Committer._flush = stop
        lgkv.open(sys.argv[1]).commit(Change(apply))
    """
    db = connect(path, "w", Options(lock_timeout_s=LIMIT_S))
    with Program(code, path, place) as program:
        assert program.hear() == "stopped"
        waiting = db.submit(putting(b"after"))
        assert not waiting.done()
        program.kill()
        waiting.result(LIMIT_S)
    db.commit(putting(b"and more"))
    assert names(db) == [b"after", b"and more"]
    db.close()


# --- readers -------------------------------------------------------------------------------

RECORDS, COMMITS = 200, 150

READING = """
    import sys
    import lgkv
    from lgkv.layout import Table

    db = lgkv.open(sys.argv[1], mode="r")
    print("ready", flush=True)
    while True:
        with db._connection.snapshot() as snapshot:
            list(snapshot.scan(Table.MEMORY, b"\\x9900"))
"""


def overwrite(db: Connection, commits: int) -> None:
    """Write the same records again and again, some in each commit."""
    for at in range(commits):

        def apply(batch: Batch, at: int = at) -> None:
            for number in range(at % 10, RECORDS, 10):
                batch.put(Table.MEMORY, K + b"%03d" % number, b"%d" % at * 50)

        db.commit(Change(apply))


@contextmanager
def reading(db: Connection) -> Iterator[None]:
    """Read some records again and again, in two threads and a process."""
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            with db.snapshot() as snapshot:
                assert len(list(snapshot.scan(Table.MEMORY, K + b"00"))) == 10

    threads = [threading.Thread(target=read) for _ in range(2)]
    with Program(READING, db.path) as program:
        assert program.hear() == "ready"
        for thread in threads:
            thread.start()
        yield
        ended.set()
        for thread in threads:
            thread.join(LIMIT_S)


@pytest.mark.timeout(120)
def test_file_does_not_grow_under_readers_that_come_and_go(path: str) -> None:
    db = connect(path, "w", PLAIN)
    overwrite(db, COMMITS)
    before = db.env.info()["last_pgno"]
    with reading(db):
        overwrite(db, COMMITS)
    among_readers = db.env.info()["last_pgno"]
    with db.snapshot():  # what it would be if one of them stayed
        overwrite(db, COMMITS)
    held = db.env.info()["last_pgno"]
    db.close()
    of_a_commit = (held - among_readers) / COMMITS
    assert of_a_commit > 10
    assert among_readers - before < COMMITS * of_a_commit / 2
