"""Declared fields: their index against a scan of everything, and how a search goes about it."""

from __future__ import annotations

import datetime
import decimal
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lgkv
from lgkv.errors import CorruptionError, InvalidInputError, ReadOnlyError
from lgkv.layout import Kind, Table
from lgkv.memory import Put
from lgkv.memory.fields import MATCHES
from lgkv.writer import Change

UTC = datetime.timezone.utc
NOON = datetime.datetime(2024, 5, 1, 12, tzinfo=UTC)
LONG = "u" * 200


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "agent.lgkv")


@pytest.fixture
def db(path: str) -> Iterator[lgkv.Database]:
    with lgkv.open(path) as opened:
        yield opened


def entries(db: lgkv.Database) -> list[bytes]:
    with db._connection.snapshot() as snapshot:
        return list(snapshot.keys(Table.INDEX, bytes((Kind.FIELD,))))


def found(db: lgkv.Database, filter: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[str]:
    return [item.key for item in db.memory.search(prefix, filter=filter, limit=10_000)]


def test_declared_field_answers_what_it_is_asked_for(db: lgkv.Database) -> None:
    db.memory.declare_fields({"user": str, "n": int})
    db.memory.put_many(
        Put((str(n % 3),), str(n), {"user": f"u{n % 10}", "n": n}) for n in range(100)
    )
    assert found(db, {"user": "u7"}) == [str(n) for n in range(97, 0, -10)]
    assert found(db, {"user": "u7"}, ("1",)) == ["97", "67", "37", "7"]
    assert found(db, {"n": {"$gte": 10, "$lt": 13}}) == ["12", "11", "10"]
    assert found(db, {"n": {"$in": [5, 99, 5.0]}, "user": {"$ne": "u5"}}) == ["99"]
    page = db.memory.search((), filter={"user": "u7"}, limit=3, offset=4)
    assert [item.key for item in page] == ["57", "47", "37"]
    plan = db.memory.explain((), filter={"user": "u7", "n": {"$gt": 1}})
    assert (plan.plan, plan.field, plan.entries) == ("field", "user", 10)


@pytest.mark.parametrize(
    ("filter", "reason"),
    [
        (None, "no filter"),
        ({"other": 1}, r"compares none of \['user'\]"),
        ({"user": None}, "compares none"),
        ({"user": 5}, "compares none"),
        ({"user": {"$ne": "a"}}, "compares none"),
        ({"user": {"$in": ["a", None]}}, "compares none"),
        ({"user": {"$exists": True}}, "compares none"),
        ({"$or": [{"user": "a"}]}, "compares none"),
        ({"$not": {"user": "a"}}, "compares none"),
        ({"user": "same"}, "more than 2000 items have what it asks of user"),
    ],
)
def test_search_says_why_it_uses_no_index(
    db: lgkv.Database, filter: dict[str, Any] | None, reason: str
) -> None:
    db.memory.declare_fields({"user": str})
    db.memory.put_many(Put(("n",), str(n), {"user": "same"}) for n in range(MATCHES + 1))
    plan = db.memory.explain((), filter=filter)
    assert (plan.plan, plan.field, plan.entries) == ("recency", None, None)
    assert re.search(reason, plan.reason)
    assert len(db.memory.search((), filter={"user": "same"}, limit=5)) == 5


def test_without_a_declaration_the_search_says_so(db: lgkv.Database) -> None:
    assert db.memory.explain((), filter={"user": "a"}).reason == "no field is declared"
    assert db.memory.fields == {}


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**53, 2**53 + 1, 2**70, -(2**70), 0.5, -0.0, math.inf, math.nan]),
    st.sampled_from([decimal.Decimal("0.5"), decimal.Decimal("NaN"), NOON, NOON.date()]),
    st.sampled_from([NOON.astimezone(datetime.timezone(datetime.timedelta(hours=2)))]),
    st.sampled_from(["", "a", "ab", "a\x00", "\x00", "é", "\uffff", LONG, LONG + "a", LONG + "b"]),
    st.sampled_from([b"", b"a", b"\xff", b"\xff" * 300]),
    st.lists(st.integers(0, 1), max_size=1),
)
ITEMS = st.dictionaries(
    st.sampled_from(["k1", "k2", "k3", "k4"]),
    st.fixed_dictionaries(
        {}, optional={"v": VALUES, "deep": st.fixed_dictionaries({}, optional={"v": VALUES})}
    ),
    max_size=4,
)
ORDERED = VALUES.filter(lambda value: value is not None and not isinstance(value, list))
CONDITIONS = st.one_of(
    VALUES,
    st.sampled_from(["$eq", "$ne"]).flatmap(lambda name: st.fixed_dictionaries({name: VALUES})),
    st.dictionaries(
        st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), ORDERED, min_size=1, max_size=2
    ),
    st.fixed_dictionaries({"$in": st.lists(VALUES, max_size=3)}),
    st.fixed_dictionaries({"$not": VALUES}),
)
FILTERS = st.one_of(
    CONDITIONS.map(lambda condition: {"v": condition}),
    CONDITIONS.map(lambda condition: {"deep": {"v": condition}}),
    st.lists(CONDITIONS, min_size=1, max_size=2).map(
        lambda each: {"$and": [{"v": condition} for condition in each]}
    ),
)
KINDS = st.sampled_from([str, bytes, int, float, bool, decimal.Decimal, datetime.datetime])


@pytest.mark.timeout(300)
def test_index_and_scan_find_the_same(tmp_path: Path) -> None:
    with lgkv.open(tmp_path / "a.lgkv") as db, lgkv.open(tmp_path / "b.lgkv") as plain:

        @settings(max_examples=150)
        @given(st.lists(ITEMS, min_size=1, max_size=3), FILTERS, KINDS, KINDS)
        def check(
            rounds: list[dict[str, Any]], filter: dict[str, Any], kind: type, deep: type
        ) -> None:
            db.memory.declare_fields({"v": kind, "deep.v": deep})
            for contents in rounds:
                for key in ("k1", "k2", "k3", "k4"):
                    change = Put(("n",), key, contents.get(key))
                    db.memory.put_many([change])
                    plain.memory.put_many([change])
                assert found(db, filter) == found(plain, filter)
            declared = set(entries(db))
            db.memory.declare_fields({})
            assert entries(db) == []
            db.memory.declare_fields({"v": kind, "deep.v": deep})
            assert len(entries(db)) == len(declared)
            assert found(db, filter) == found(plain, filter)

        check()


def test_entries_follow_their_items(db: lgkv.Database) -> None:
    db.memory.declare_fields({"user": str})
    clock = [1_000_000_000]
    db.memory.clock = lambda: clock[0]
    db.memory.put(("n",), "k", {"user": "a"}, ttl_seconds=5)
    db.memory.put(("n",), "k", {"user": "b"}, ttl_seconds=5)
    assert (found(db, {"user": "a"}), found(db, {"user": "b"})) == ([], ["k"])
    assert len(entries(db)) == 1
    clock[0] += 5_000_000
    assert found(db, {"user": "b"}) == []
    with db.memory.view(omit_expired=False) as view:
        assert [item.key for item in view.search((), filter={"user": "b"})] == ["k"]
    assert db.memory.sweep() == 1
    assert entries(db) == []
    db.memory.put(("n",), "k", {"user": "a"})
    db.memory.delete(("n",), "k")
    assert entries(db) == []


def test_declaration_is_the_files_and_other_handles_keep_it(path: str) -> None:
    with lgkv.open(path) as db:
        db.memory.put(("n",), "old", {"user": "a"})
        db.memory.declare_fields({"user": str, "n": float})
        commits = db.stats().last_commit
        db.memory.declare_fields({"n": int, "user": str})  # numbers are of one kind
        assert db.stats().last_commit == commits
    with lgkv.open(path) as db:
        assert db.memory.fields == {"user": "text", "n": "number"}
        db.memory.put(("n",), "new", {"user": "a"})
        assert found(db, {"user": "a"}) == ["new", "old"]
        assert db.memory.explain((), filter={"user": "a"}).entries == 2
    with lgkv.open(path, mode="r") as db:
        assert found(db, {"user": "a"}) == ["new", "old"]
        db.memory.declare_fields({"user": str, "n": int})
        with pytest.raises(ReadOnlyError):
            db.memory.declare_fields({"user": str})


def test_changed_type_is_indexed_anew(db: lgkv.Database) -> None:
    db.memory.put(("n",), "text", {"v": "1"})
    db.memory.put(("n",), "number", {"v": 1})
    db.memory.declare_fields({"v": str})
    before = entries(db)
    db.memory.declare_fields({"v": int})
    assert len(entries(db)) == len(before) == 1
    assert entries(db) != before
    assert found(db, {"v": 1.0}) == ["number"]
    assert found(db, {"v": "1"}) == ["text"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"": str}, "has no name"),
        ({"a..b": str}, "has no name"),
        ({1: str}, "has no name"),
        ({"a": list}, "is of type"),
        ({"a": "str"}, "is of type"),
    ],
)
def test_wrong_declaration_is_refused(db: lgkv.Database, fields: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        db.memory.declare_fields(fields)
    assert db.memory.fields == {}


@pytest.mark.parametrize("body", [b"", b"\x80", b"\x82\x01\xa1\x61a\x01", b"\x82\x01\x01"])
def test_damaged_declaration_is_named(db: lgkv.Database, body: bytes) -> None:
    key = bytes((Kind.FIELDS,))
    db._connection.commit(Change(lambda batch: batch.put(Table.MEMORY, key, body)))
    for use in (
        lambda: db.memory.search((), filter={"a": 1}),
        lambda: db.memory.put(("n",), "k", {}),
        lambda: db.memory.fields,
    ):
        with pytest.raises(CorruptionError) as caught:
            use()
        assert (caught.value.database, caught.value.key) == ("memory", key)


def test_entry_that_names_nothing_is_damage(db: lgkv.Database) -> None:
    db.memory.declare_fields({"v": str})
    db.memory.put(("n",), "k", {"v": "a"})
    (key,) = entries(db)
    db._connection.commit(Change(lambda batch: batch.put(Table.INDEX, key, b"\x00" * 16)))
    with pytest.raises(CorruptionError, match="not where the entry says"):
        found(db, {"v": "a"})
    short = key[:-24]
    db._connection.commit(Change(lambda batch: batch.put(Table.INDEX, short, b"")))
    with pytest.raises(CorruptionError):
        found(db, {"v": {"$gte": ""}})
