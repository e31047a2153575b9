"""A failure at each step of a commit, by its name: every caller is told, and the file is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import pytest

from lgkv import CommitFailedError, LgkvError, StorageError
from lgkv.connection import Connection, connect
from lgkv.env import Environment, Options
from lgkv.gate import Gate
from lgkv.writer import Change
from lgkv.writer.commit import Committer
from tests.invariants import structural_damage
from tests.unit.changes import names, outcome, putting, queueing, state

STEPS = {
    "before the gate": (Committer, "_enter_gate", "before"),
    "behind the gate": (Committer, "_enter_gate", "after"),
    "before the transaction": (Committer, "_begin", "before"),
    "in the transaction": (Committer, "_begin", "after"),
    "before a change": (Committer, "_apply", "before"),
    "before the flush": (Committer, "_flush", "before"),
    "before the gate is left": (Gate, "release", "before"),
    "after the gate was left": (Gate, "release", "after"),
}
ERRORS = {
    "disk": lmdb.DiskError("input/output error"),
    "system": OSError(5, "input/output error"),
    "memory": MemoryError("none left"),
}
CHANGES = 5


@pytest.fixture(params=["full", "interval"])
def db(tmp_path: Path, request: pytest.FixtureRequest) -> Connection:
    options = Options(durability=request.param, interval_ms=3_600_000, compression=False)
    connection = connect(tmp_path / "agent.lgkv", "c", options)
    connection.commit(putting(b"before"))
    connection.flush()
    return connection


@contextmanager
def failing_once(
    monkeypatch: pytest.MonkeyPatch, step: tuple[type, str, str], error: BaseException
) -> Iterator[list[str]]:
    """Let a step fail the first time that it is taken; give what has happened."""
    owner, name, when = step
    real, happened = getattr(owner, name), []

    def fail(*arguments: Any, **named: Any) -> Any:
        if happened:
            return real(*arguments, **named)
        happened.append(name)
        if when == "after":
            real(*arguments, **named)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        yield happened


def write_together(db: Connection, changes: list[Change[None]]) -> list[Any]:
    with queueing(db):
        futures = [db.submit(change) for change in changes]
    return [outcome(future) for future in futures]


def found_again(db: Connection) -> list[bytes]:
    """Return the names in the file, which is opened anew if it has failed, and is whole."""
    path, options = db.path, db.options
    try:
        db.commit(putting(b"after"))
        db.flush()
    except CommitFailedError:
        db.close()
        db = connect(path, "w", options)
        db.commit(putting(b"after"))
    found = names(db)
    assert state(db).threads == len(found)
    db.close()
    assert structural_damage(path) == []
    return found


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_failure_ends_every_change_and_leaves_the_file_whole(
    db: Connection,
    monkeypatch: pytest.MonkeyPatch,
    step: tuple[type, str, str],
    error: BaseException,
) -> None:
    changes = [putting(b"%d" % number) for number in range(CHANGES)]
    with failing_once(monkeypatch, step, error) as happened:
        results = write_together(db, changes)
    assert happened
    assert all(result is None or is_typed(result, step) for result in results)
    written = [b"%d" % number for number, result in enumerate(results) if result is None]
    assert found_again(db) == sorted([*written, b"after", b"before"])


def is_typed(error: BaseException, step: tuple[type, str, str]) -> bool:
    """Whether it is lgkv's, or memory's, or what the change itself raised."""
    if step[1] == "_apply" and isinstance(error, OSError):
        return error is ERRORS["system"]
    return isinstance(error, (LgkvError, MemoryError))


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_failure_reaches_the_caller_who_waits(
    db: Connection,
    monkeypatch: pytest.MonkeyPatch,
    step: tuple[type, str, str],
    error: BaseException,
) -> None:
    result: Any = None
    with failing_once(monkeypatch, step, error) as happened:
        try:
            db.commit(putting(b"a"))
            db.flush()
        except (LgkvError, MemoryError, OSError) as raised:
            result = raised
    assert result is None or is_typed(result, step)
    assert happened
    expected = [b"after", b"before"] if result else [b"a", b"after", b"before"]
    assert found_again(db) == expected


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_commit_that_fails_on_the_disk_closes_the_file(
    db: Connection, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    begin = Environment.begin_write

    class Failing:
        def __init__(self, txn: Any) -> None:
            self.txn = txn

        def __getattr__(self, name: str) -> Any:
            return getattr(self.txn, name)

        def commit(self) -> None:
            self.txn.abort()
            raise error

    def begin_failing(self: Environment, user: object) -> Any:
        txn, databases = begin(self, user)
        return Failing(txn), databases

    with monkeypatch.context() as patch:
        patch.setattr(Environment, "begin_write", begin_failing)
        results = write_together(db, [putting(b"%d" % number) for number in range(CHANGES)])
    assert [type(result) for result in results] == [CommitFailedError] * CHANGES
    with pytest.raises(CommitFailedError):
        db.commit(putting(b"a"))
    assert found_again(db) == [b"after", b"before"]


def test_map_that_cannot_grow_is_told_to_every_caller_it_concerns(
    db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise lmdb.MapFullError("full")

    def grow(_: Environment) -> None:
        raise StorageError("no more")

    with monkeypatch.context() as patch:
        patch.setattr(Committer, "_apply", full)
        patch.setattr(Environment, "grow", grow)
        results = write_together(db, [putting(b"%d" % number) for number in range(CHANGES)])
        patch.setattr(Committer, "_begin", full)
        with pytest.raises(StorageError, match=r"no more|is full"):
            db.commit(putting(b"a"))
    assert all(result is None or isinstance(result, StorageError) for result in results)
    written = [b"%d" % number for number, result in enumerate(results) if result is None]
    assert found_again(db) == sorted([*written, b"after", b"before"])


def test_callback_that_fails_after_the_flush_harms_nobody(
    db: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    broken = Change(putting(b"a").apply, fail)
    assert write_together(db, [broken, putting(b"b")]) == [None, None]
    assert [record.name for record in caplog.records] == ["lgkv"]
    assert found_again(db) == [b"a", b"after", b"b", b"before"]
