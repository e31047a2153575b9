"""`db.cache`: entries by namespace and key, their deadlines, and clearing."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lgkv
from lgkv.cache import SWEEP_ENTRIES, FullKey
from lgkv.codec import Payload
from lgkv.errors import ClosedError, CorruptionError, InvalidInputError, ReadOnlyError
from lgkv.layout import Kind, Table
from lgkv.writer import Change

NS = ("node", "a1b2")
LONG = "k" * 100_000


class Clock:
    """A clock that a test moves, in seconds."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def __call__(self) -> int:
        return int(self.seconds * 1_000_000)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "agent.lgkv")


@pytest.fixture
def db(path: str) -> Iterator[lgkv.Database]:
    with lgkv.open(path) as opened:
        yield opened


@pytest.fixture
def clock(db: lgkv.Database) -> Clock:
    db.cache.clock = clock = Clock()
    return clock


def records(db: lgkv.Database) -> int:
    return sum(db.stats().records.values())


def test_entry_comes_back_fresh(db: lgkv.Database) -> None:
    db.cache.set(NS, "k", {"n": [1, b"\x00", None]})
    first = db.cache.get(NS, "k")
    first["n"].append(2)
    assert db.cache.get(NS, "k") == {"n": [1, b"\x00", None]}


def test_absent_entry_is_none(db: lgkv.Database) -> None:
    db.cache.set(NS, "k", 1)
    assert db.cache.get(NS, "other") is None
    assert db.cache.get(("node",), "k") is None
    assert db.cache.get((), "k") is None


def test_entry_is_replaced(db: lgkv.Database) -> None:
    db.cache.set(NS, "k", 1)
    db.cache.set(NS, "k", 2)
    assert db.cache.get(NS, "k") == 2


def test_entry_is_deleted(db: lgkv.Database) -> None:
    db.cache.set(NS, "k", 1, ttl_seconds=60)
    db.cache.set(NS, "other", 2)
    db.cache.delete(NS, "k")
    db.cache.delete(NS, "k")
    db.cache.delete(("nobody",), "k")
    assert db.cache.get(NS, "k") is None
    assert db.cache.get(NS, "other") == 2


@pytest.mark.parametrize("text", ["", ".", "a,b", "\x00", "\ud800", LONG, LONG + "x", "\x00" * 300])
def test_key_and_label_may_be_any_text(db: lgkv.Database, text: str) -> None:
    others = [
        ((text,), "k"),
        ((text, text), "k"),
        ((text + "!",), text),
        ((), text),
        (("a", "b"), "k"),
    ]
    for number, (namespace, key) in enumerate(others):
        db.cache.set(namespace, key, number)
    db.cache.set((text,), text, "this", ttl_seconds=60)
    assert db.cache.get((text,), text) == "this"
    assert [db.cache.get(*other) for other in others] == list(range(5))
    db.cache.clear((text,))
    assert db.cache.get((text,), text) is None
    assert db.cache.get((text, text), "k") == 1


def test_payloads_are_kept_byte_for_byte(db: lgkv.Database) -> None:
    entries: dict[FullKey, tuple[Payload, float | None]] = {
        (NS, "a"): (("msgpack", b"\x81\x00"), None),
        (NS, "b"): (("null", b""), 60),
        (("other",), "a"): (("x" * 300, bytes(100_000)), 0.5),
    }
    before = db.stats().commits
    db.cache.set_many(entries)
    assert db.stats().commits == before + 1
    assert db.cache.get_many(entries) == {key: payload for key, (payload, _) in entries.items()}
    assert db.cache.get_many([(NS, "a"), (NS, "nothing")]) == {(NS, "a"): ("msgpack", b"\x81\x00")}
    assert db.cache.get_many([]) == {}


def test_payload_of_another_form_is_not_taken_for_plain_data(db: lgkv.Database) -> None:
    db.cache.set_many({(NS, "k"): (("msgpack", b"\x01"), None)})
    with pytest.raises(InvalidInputError, match="LgkvCache"):
        db.cache.get(NS, "k")


# --- expiry --------------------------------------------------------------------------------


def test_expired_entry_is_never_returned(db: lgkv.Database, clock: Clock) -> None:
    db.cache.set(NS, "k", 1, ttl_seconds=10)
    db.cache.set(NS, "forever", 2)
    db.cache.set(NS, "never", 3, ttl_seconds=0)
    clock.seconds += 9.999
    assert db.cache.get(NS, "k") == 1
    assert db.cache.get(NS, "never") is None
    clock.seconds += 0.001
    assert db.cache.get(NS, "k") is None
    assert db.cache.get(NS, "forever") == 2


def test_every_write_sweeps_a_few_that_are_due(db: lgkv.Database, clock: Clock) -> None:
    count = 2 * SWEEP_ENTRIES + 10
    db.cache.set_many({(NS, str(n)): (("x", b""), 1) for n in range(count)})
    before = records(db)
    clock.seconds += 2
    left = before
    for expected in (count - SWEEP_ENTRIES, count - 2 * SWEEP_ENTRIES, 0):
        db.cache.set(NS, "one", 1)
        left = records(db)
        assert left - (before - 2 * count) == 2 * expected + 1
    db.cache.set(NS, "one", 1)
    assert records(db) == left


def test_deadline_follows_the_last_write(db: lgkv.Database, clock: Clock) -> None:
    db.cache.set(NS, "longer", 1, ttl_seconds=1)
    db.cache.set(NS, "forever", 1, ttl_seconds=1)
    db.cache.set(NS, "longer", 2, ttl_seconds=100)
    db.cache.set(NS, "forever", 2)
    clock.seconds += 5
    db.cache.set(NS, "another", 1)
    assert db.cache.get(NS, "longer") == 2
    assert db.cache.get(NS, "forever") == 2
    clock.seconds += 100
    assert db.cache.get(NS, "longer") is None


# --- clearing ------------------------------------------------------------------------------


def test_clearing_a_namespace_leaves_the_others(db: lgkv.Database) -> None:
    empty = records(db)
    for namespace in (("a",), ("a", "b"), ("ab",)):
        for number in range(3):
            db.cache.set(namespace, str(number), number, ttl_seconds=60)
    db.cache.clear(("a",))
    db.cache.clear(("nobody",))
    assert db.cache.get(("a",), "1") is None
    assert db.cache.get(("a", "b"), "1") == 1
    assert db.cache.get(("ab",), "1") == 1
    db.cache.clear(("a", "b"))
    db.cache.clear(("ab",))
    assert records(db) == empty


def test_clearing_all_leaves_nothing_of_the_cache_and_all_else(db: lgkv.Database) -> None:
    db.memory.put(("a",), "k", {"v": 1}, ttl_seconds=1_000)
    before = records(db)
    for number in range(3):
        db.cache.set((str(number),), "k", number, ttl_seconds=60)
    db.cache.clear()
    assert db.cache.get(("1",), "k") is None
    assert records(db) == before
    assert db.memory.get(("a",), "k") is not None


def test_cleared_namespace_gets_another_number(db: lgkv.Database) -> None:
    for expected in (1, 2, 3):
        db.cache.set(NS, "k", expected)
        with db._connection.snapshot() as snapshot:
            state = snapshot.read_state()
        assert (state.caches, state.names_epoch) == (expected, expected - 1)
        db.cache.clear(NS)


# --- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("namespace", "key", "value", "ttl", "named"),
    [
        (["node"], "k", 1, None, "namespace is a tuple"),
        ("node", "k", 1, None, "namespace is a tuple"),
        (("a", 5), "k", 1, None, "namespace is a tuple"),
        (NS, 5, 1, None, "key is a str"),
        (NS, "k", object(), None, "cannot be stored"),
        (NS, "k", 1, -1, "time to live"),
        (NS, "k", 1, math.nan, "time to live"),
        (NS, "k", 1, "5", "time to live"),
    ],
)
def test_bad_input_is_refused_by_name_and_leaves_nothing(  # noqa: PLR0917  the parts of a case
    db: lgkv.Database, namespace: Any, key: Any, value: Any, ttl: Any, named: str
) -> None:
    before = db.stats().last_commit
    with pytest.raises(InvalidInputError, match=named):
        db.cache.set(namespace, key, value, ttl_seconds=ttl)
    assert db.stats().last_commit == before


@pytest.mark.parametrize("full_key", ["k", ("a",), (("a",), "k", 1), (("a",), 5), (["a"], "k")])
def test_wrong_key_is_refused(db: lgkv.Database, full_key: Any) -> None:
    with pytest.raises(InvalidInputError):
        db.cache.get_many([full_key])
    with pytest.raises(InvalidInputError):
        db.cache.set_many({str(full_key): (("x", b""), None)})  # type: ignore[dict-item]


# --- the file ------------------------------------------------------------------------------


def test_entries_survive_reopening_and_are_shared(path: str) -> None:
    with lgkv.open(path) as one, lgkv.open(path) as two:
        one.cache.set(NS, LONG, [1])
        assert two.cache.get(NS, LONG) == [1]
    child = (
        "import sys, lgkv; db = lgkv.open(sys.argv[1]); "
        "assert db.cache.get(('node', 'a1b2'), 'k' * 100_000) == [1]; "
        "db.cache.set(('child',), 'k', 2); db.close()"
    )
    with lgkv.open(path) as db:
        subprocess.run([sys.executable, "-c", child, path], check=True, timeout=60)
        assert db.cache.get(("child",), "k") == 2
        db.cache.clear(("child",))
        assert db.cache.get(("child",), "k") is None


def test_read_only_and_closed_databases_refuse_writing(path: str) -> None:
    with lgkv.open(path) as db:
        db.cache.set(NS, "k", 1)
    db = lgkv.open(path, mode="r")
    assert db.cache.get(NS, "k") == 1
    for write in (
        lambda: db.cache.set(NS, "k", 1),
        lambda: db.cache.delete(NS, "k"),
        db.cache.clear,
    ):
        with pytest.raises(ReadOnlyError):
            write()
    db.close()
    with pytest.raises(ClosedError):
        db.cache.get(NS, "k")


@pytest.mark.parametrize(
    "body", [b"", b"\x00" * 8, b"\x00" * 8 + b"\x81\x01", b"\x00" * 8 + b"\xff"]
)
def test_damaged_entry_is_named(db: lgkv.Database, body: bytes) -> None:
    db.cache.set(NS, "k", 1)
    with db._connection.snapshot() as snapshot:
        key = next(snapshot.keys(Table.MEMORY, bytes((Kind.CACHE,))))
    db._connection.commit(Change(lambda batch: batch.put(Table.MEMORY, key, body)))
    with pytest.raises(CorruptionError) as caught:
        db.cache.get(NS, "k")
    assert (caught.value.database, caught.value.key) == ("memory", key)
