"""Written room after the last page: bounded, harmless, and nothing that a commit depends on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lgkv.connection import Connection, connect
from lgkv.env import Options
from lgkv.writer import Batch, Change, headroom
from lgkv.writer.headroom import Headroom
from tests.invariants import structural_damage
from tests.unit.changes import names, putting

PAGE = 4096
FILLED = 600
OPTIONS = Options(compression=False)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "agent.lgkv")


@pytest.fixture
def db(path: str) -> Iterator[Connection]:
    connection = connect(path, "c", OPTIONS)
    yield connection
    connection.close()


def pages_in_use(db: Connection) -> int:
    return db.env.info()["last_pgno"] + 1


def grow(db: Connection, commits: int, size: int = 3_000, name: bytes = b"") -> list[int]:
    """Return how long the file is after each commit."""
    sizes = []
    for number in range(commits):
        db.commit(putting(b"%s%06d" % (name, number), bytes(size)))
        sizes.append(os.path.getsize(db.path))
    return sizes


def fill(db: Connection) -> None:
    """Commit once so much that small commits have room ahead from then on."""

    def apply(batch: Batch) -> None:
        for number in range(FILLED):
            putting(b"filled%06d" % number, bytes(3_000)).apply(batch)

    db.commit(Change(apply))
    grow(db, 20, name=b"first")


def test_growing_file_gets_longer_once_for_many_commits(db: Connection) -> None:
    fill(db)
    lengths = set(grow(db, 100, name=b"more"))
    assert len(lengths) < 10


def test_room_is_a_small_part_of_the_file(db: Connection, path: str) -> None:
    fill(db)
    for at in range(10):
        grow(db, 10, name=b"%d" % at)
        ahead = os.path.getsize(path) - pages_in_use(db) * PAGE
        assert ahead <= pages_in_use(db) * PAGE / headroom.SHARE
        assert ahead <= headroom.LARGEST_BYTES
    assert os.path.getsize(path) > pages_in_use(db) * PAGE


def test_file_with_room_is_sound_and_opens_again(db: Connection, path: str) -> None:
    fill(db)
    assert os.path.getsize(path) > pages_in_use(db) * PAGE
    with db.snapshot():
        assert len(names(db)) == FILLED + 20
    db.close()
    assert structural_damage(path) == []
    again = connect(path, "w", OPTIONS)
    grow(again, 10, name=b"again")
    assert len(names(again)) == FILLED + 30
    again.close()


def test_file_whose_room_is_cut_off_is_whole(db: Connection, path: str) -> None:
    fill(db)
    used = pages_in_use(db) * PAGE
    db.close()
    os.truncate(path, used)
    again = connect(path, "w", OPTIONS)
    assert len(names(again)) == FILLED + 20
    again.close()


def test_large_commits_get_no_room(db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    filled: list[int] = []
    fill = headroom._fill

    def count(descriptor: int, start: int, end: int) -> None:
        filled.append(end - start)
        fill(descriptor, start, end)

    monkeypatch.setattr(headroom, "_fill", count)
    grow(db, 40, size=200_000)
    assert sum(filled) < 40 * 200_000 / 100


def test_commits_that_need_no_room_do_not_look_for_it(
    db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    keep = Headroom.keep

    def count(self: Headroom, descriptor: int, info: dict[str, int]) -> None:
        looked.append(descriptor)
        keep(self, descriptor, info)

    monkeypatch.setattr(Headroom, "keep", count)
    for _ in range(200):
        db.commit(Change(lambda _: None))
    assert len(looked) < 20


def test_full_disk_is_for_the_commit_to_find(
    db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def full(descriptor: int, *_: Any) -> int:
        tried.append(descriptor)
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    fill(db)
    assert tried
    assert len(names(db)) == FILLED + 20


def test_room_ends_where_the_map_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100 * PAGE))
    descriptor = os.open(path, os.O_RDWR)
    info = {"psize": PAGE, "last_pgno": 99, "map_size": 102 * PAGE + 1}
    Headroom().keep(descriptor, info)
    assert os.path.getsize(path) == 102 * PAGE
    Headroom().keep(descriptor, info)
    assert os.path.getsize(path) == 102 * PAGE
    os.close(descriptor)


def test_room_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 200 * PAGE)
    descriptor = os.open(path, os.O_RDWR)
    Headroom().keep(descriptor, {"psize": PAGE, "last_pgno": 99, "map_size": 1 << 40})
    os.close(descriptor)
    assert path.read_bytes() == b"x" * 200 * PAGE
