"""Times to live, when a deadline is moved, and the index of deadlines."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import lgkv
from lgkv.connection import Connection, connect
from lgkv.env import Options
from lgkv.errors import InvalidInputError
from lgkv.expiry import due, is_past, move_deadline, needs_refresh, now_us, ttl_us
from lgkv.layout import Kind, Table
from lgkv.writer import Batch, Change


def open_connection(tmp_path: Path) -> Connection:
    return connect(str(tmp_path / "a.lgkv"), "c", Options())


def index(connection: Connection) -> list[tuple[int, bytes]]:
    with connection.snapshot() as snapshot:
        return list(due(snapshot, Kind.ITEM_DEADLINE, 1 << 62))


def test_time_to_live_is_whole_microseconds_and_at_least_one() -> None:
    assert ttl_us(None) == 0
    assert ttl_us(0) == 1
    assert ttl_us(1e-9) == 1
    assert ttl_us(2) == 2_000_000
    assert ttl_us(0.25) == 250_000


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, -math.inf, 1e12, "5", True, [5]])
def test_wrong_time_to_live_is_refused(seconds: Any) -> None:
    with pytest.raises(InvalidInputError, match="time to live"):
        ttl_us(seconds)


def test_deadline_is_past_from_its_own_microsecond_on() -> None:
    assert not is_past(0, 10**18)
    assert not is_past(11, 10)
    assert is_past(10, 10)
    assert is_past(9, 10)


def test_deadline_is_moved_only_after_an_eighth_of_the_time() -> None:
    ttl, set_at = 800, 5_000
    deadline = set_at + ttl
    assert not needs_refresh(ttl, deadline, set_at)
    assert not needs_refresh(ttl, deadline, set_at + 99)
    assert needs_refresh(ttl, deadline, set_at + 100)
    assert needs_refresh(ttl, deadline, deadline + 50)
    assert not needs_refresh(0, 0, 10**18)


def test_clock_counts_microseconds() -> None:
    assert 1_500_000_000_000_000 < now_us() < 10_000_000_000_000_000


def test_due_gives_the_oldest_first_and_nothing_later(tmp_path: Path) -> None:
    connection = open_connection(tmp_path)

    def apply(batch: Batch) -> None:
        for deadline, suffix in [(300, b"c"), (70_000, b"d"), (5, b"a"), (300, b"b")]:
            move_deadline(batch, Kind.ITEM_DEADLINE, suffix, 0, deadline)
        move_deadline(batch, Kind.CACHE_DEADLINE, b"other", 0, 1)

    connection.commit(Change(apply))
    with connection.snapshot() as snapshot:
        assert list(due(snapshot, Kind.ITEM_DEADLINE, 299)) == [(5, b"a")]
        assert list(due(snapshot, Kind.ITEM_DEADLINE, 300)) == [(5, b"a"), (300, b"b"), (300, b"c")]
        assert list(due(snapshot, Kind.CACHE_DEADLINE, 300)) == [(1, b"other")]


@pytest.mark.parametrize("moves", [[5], [5, 0], [5, 7], [0, 300, 70_000], [9, 9, 9], [7, 0, 7]])
def test_record_is_indexed_under_its_last_deadline_alone(tmp_path: Path, moves: list[int]) -> None:
    connection = open_connection(tmp_path)

    def apply(batch: Batch) -> None:
        for old, new in zip([0, *moves], moves, strict=False):
            move_deadline(batch, Kind.ITEM_DEADLINE, b"x", old, new)

    connection.commit(Change(apply))
    assert index(connection) == ([(moves[-1], b"x")] if moves[-1] else [])


@pytest.mark.parametrize("rest", [b"\x03\x00", b"\x00suffix", b"\x02\x00\x07suffix"])
def test_damaged_index_key_is_named(tmp_path: Path, rest: bytes) -> None:
    """Of a deadline of 0, or with a leading zero, no deletion would find the entry."""
    connection = open_connection(tmp_path)
    damaged = bytes((Kind.ITEM_DEADLINE,)) + rest
    connection.commit(Change(lambda batch: batch.put(Table.INDEX, damaged, b"")))
    with pytest.raises(lgkv.CorruptionError) as caught:
        index(connection)
    assert (caught.value.database, caught.value.key) == ("index", damaged)
