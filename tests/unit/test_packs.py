"""Packs: what holds of them after any changes, the order that they give, and what a call costs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import lgkv
from lgkv import batch as batch_module
from lgkv import filters
from lgkv import snapshot as snapshot_module
from lgkv.layout import Kind, Table
from lgkv.memory import Put, items, view
from lgkv.writer import Change
from tests.invariants import broken_packs


@pytest.fixture
def db(tmp_path: Path) -> Iterator[lgkv.Database]:
    with lgkv.open(tmp_path / "agent.lgkv") as opened:
        yield opened


SPACES = st.sampled_from([("a",), ("a", "b"), ("c",)])
KEYS = st.sampled_from([f"k{n}" for n in range(12)] + ["long" * 90])
SIZES = st.sampled_from([0, 10, 300, 1500, 9000])
PUTS = st.lists(st.tuples(SPACES, KEYS, st.none() | SIZES, st.booleans()), min_size=1, max_size=15)


class Packs(RuleBasedStateMachine):
    """Items, a clock that jumps, and a model that knows the order of puts alone."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.db = lgkv.open(f"{self.folder}/a.lgkv")
        self.now = 1_000_000_000
        self.db.memory.clock = lambda: self.now
        self.order: dict[Any, int] = {}
        self.ttl: dict[Any, int] = {}
        self.puts = 0

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()
            shutil.rmtree(self.folder)

    @rule(puts=PUTS)
    def put(self, puts: list[Any]) -> None:
        self.db.memory.put_many(
            Put(space, key, None if size is None else {"v": "x" * size}, None, 10 if ttl else None)
            for space, key, size, ttl in puts
        )
        last = {(space, key): (size, ttl) for space, key, size, ttl in puts}
        for place, (size, ttl) in last.items():
            self.order.pop(place, None)
            self.ttl.pop(place, None)
            if size is not None:
                self.puts += 1
                self.order[place] = self.puts
                if ttl:
                    self.ttl[place] = self.now + 10_000_000

    @rule(seconds=st.sampled_from([-100, -1, 0, 1, 4, 11]))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds * 1_000_000

    @rule()
    def sweep(self) -> None:
        gone = [place for place, deadline in self.ttl.items() if deadline <= self.now]
        assert self.db.memory.sweep() == len(gone)
        for place in gone:
            del self.order[place], self.ttl[place]

    @rule()
    def refresh(self) -> None:
        with self.db.memory.view(omit_expired=False) as view:
            view.search((), limit=100, refresh=True)
            refreshed = view.to_refresh
        self.db.commit(self.db.memory.change((), refreshed))
        for place, deadline in self.ttl.items():
            if (self.now - (deadline - 10_000_000)) * 8 >= 10_000_000:
                self.ttl[place] = self.now + 10_000_000

    @invariant()
    def everything_holds(self) -> None:
        if not hasattr(self, "db"):
            return
        with self.db._connection.snapshot() as snapshot:
            assert list(broken_packs(snapshot)) == []
        with self.db.memory.view(omit_expired=False) as view:
            for prefix in ((), ("a",), ("a", "b")):
                found = view.search(prefix, limit=100)
                under = {p: n for p, n in self.order.items() if p[0][: len(prefix)] == prefix}
                assert {(i.namespace, i.key) for i in found} == under.keys()
                assert [i.updated_at for i in found] == sorted(
                    (i.updated_at for i in found), reverse=True
                )
                for space in {place[0] for place in under}:
                    keys = [i.key for i in found if i.namespace == space]
                    expected = sorted((n, p[1]) for p, n in under.items() if p[0] == space)
                    assert keys == [key for _, key in reversed(expected)]


PacksTest = Packs.TestCase
PacksTest.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


# --- what a call costs ---------------------------------------------------------------------


class Counting:
    """How many records are opened and sealed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = self.sealed = 0
        open_record, seal_record = snapshot_module.open_record, batch_module.seal_record
        seal, fetch_item = batch_module.seal, view.fetch_item

        def opening(*arguments: Any) -> bytes:
            self.opened += 1
            return open_record(*arguments)

        def sealing(*arguments: Any, **options: Any) -> bytes:
            self.sealed += 1
            return seal_record(*arguments, **options)

        def sealing_small(*arguments: Any) -> bytes:
            self.sealed += 1
            return seal(*arguments)

        def fetching(*arguments: Any) -> Any:
            fetched = fetch_item(*arguments)
            self.opened += 2 if fetched else fetched is not None
            return fetched

        monkeypatch.setattr(view, "fetch_item", fetching)
        monkeypatch.setattr(snapshot_module, "open_record", opening)
        monkeypatch.setattr(batch_module, "open_record", opening)
        monkeypatch.setattr(batch_module, "seal_record", sealing)
        monkeypatch.setattr(batch_module, "seal", sealing_small)

    def take(self) -> tuple[int, int]:
        """Return how many there were since the last time."""
        counts = self.opened, self.sealed
        self.opened = self.sealed = 0
        return counts


def fill(db: lgkv.Database, count: int, spaces: int = 10) -> None:
    db.memory.put_many(
        Put(("n", str(n % spaces)), str(n), {"n": n, "text": "x" * 100}) for n in range(count)
    )


def test_put_writes_four_records(db: lgkv.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(db, 200)
    counts = Counting(monkeypatch)
    db.memory.put(("n", "1"), "new", {"v": 1})
    assert counts.take() == (1, 4)  # last pack; place, pack, namespace, counters
    db.memory.put(("n", "1"), "new", {"v": 2})
    assert counts.take() == (2, 4)
    db.memory.put(("n", "1"), "1", {"v": 2})  # its entry is cut out of another pack
    assert counts.take()[1] <= 5
    db.memory.put_many(Put(("n", "1"), f"b{n}", {"v": n}) for n in range(20))
    assert counts.take()[1] <= 20 + 4


def test_get_reads_two_records_and_the_counters_after_a_commit(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(db, 500)
    db.memory.get(("n", "3"), "13")
    counts = Counting(monkeypatch)
    assert db.memory.get(("n", "3"), "23") is not None
    assert counts.take() == (2, 0)  # place, pack
    db.memory.put(("n", "4"), "more", {})
    counts.take()
    assert db.memory.get(("n", "3"), "33") is not None
    assert counts.take() == (3, 0)  # counters, place, pack


def test_page_reads_as_far_as_it_goes(db: lgkv.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(db, 5_000)
    counts = Counting(monkeypatch)
    assert len(db.memory.search(("n", "3"), limit=10)) == 10
    assert counts.take()[0] <= 5
    assert len(db.memory.search((), limit=10)) == 10
    assert counts.take()[0] <= 1 + 11 + 1 + 10  # fields, nodes, a pack of each
    assert len(db.memory.search((), filter={"n": {"$gte": 4_000}}, limit=10)) == 10
    assert counts.take()[0] <= 23
    assert db.memory.search((), filter={"n": -1}) == []
    assert counts.take()[0] <= 5_000 // 20
    assert len(db.memory.namespaces()) == 10
    assert counts.take()[0] == 11


def test_refused_values_become_no_objects(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(db, 300)
    decoded: list[bytes] = []
    decode = items.decode_mapping
    monkeypatch.setattr(items, "decode_mapping", lambda raw: decoded.append(raw) or decode(raw))
    monkeypatch.setattr(filters, "decode_plain", decoded.append)
    filter = {"n": {"$gte": 290, "$ne": 295}, "text": {"$nin": ["", None]}, "x": None}
    assert len(db.memory.search((), filter=filter, limit=100)) == 9
    assert len(decoded) == 9


def test_namespaces_are_counted_by_their_records(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000_000_000]
    db.memory.clock = lambda: now[0]
    db.memory.put_many(Put(("a",), str(n), {"v": n}, None, 10) for n in range(50))
    db.memory.put(("b",), "stays", {})
    db.memory.put(("b",), "goes", {}, ttl_seconds=10)
    counts = Counting(monkeypatch)
    assert db.memory.namespaces() == [("a",), ("b",)]
    assert counts.take()[0] == 3  # of (a,) an item has to be looked at
    now[0] += 10_000_000
    assert db.memory.namespaces() == [("b",)]


def test_memory_of_namespaces_follows_other_handles(tmp_path: Path) -> None:
    path = tmp_path / "a.lgkv"
    with lgkv.open(path) as one, lgkv.open(path) as two:
        assert one.memory.get(("a", "b"), "k") is None
        two.memory.put(("a", "b"), "k", {"v": 1})
        assert one.memory.get(("a", "b"), "k") is not None
        two.memory.delete(("a", "b"), "k")
        assert one.memory.get(("a", "b"), "k") is None
        two.memory.put(("a", "b"), "k", {"v": 2})
        found = one.memory.get(("a", "b"), "k")
        assert found is not None
        assert found.value == {"v": 2}


def test_failed_change_leaves_no_trace_in_what_later_ones_know(db: lgkv.Database) -> None:
    fill(db, 20, 2)
    change = db.memory.change([Put(("n", "1"), "lost", {"v": 1}), Put(("lost",), "k", {})])

    def failing(batch: Any) -> None:
        change.apply(batch)
        raise RuntimeError("after the change")

    with pytest.raises(RuntimeError):
        db.commit(Change(failing))
    db.memory.put(("n", "1"), "kept", {"v": 1})
    db.memory.put(("lost",), "found", {"v": 1})
    with db._connection.snapshot() as snapshot:
        assert list(broken_packs(snapshot)) == []
    assert db.memory.get(("n", "1"), "lost") is None
    assert len(db.memory.search((), limit=100)) == 22


def test_large_items_have_packs_of_their_own(db: lgkv.Database) -> None:
    for number in range(5):
        db.memory.put(("n",), str(number), {"v": str(number) * 5_000})
    db.memory.put(("n",), "2", {"v": "small"})
    assert [item.key for item in db.memory.search(("n",))] == ["2", "4", "3", "1", "0"]
    with db._connection.snapshot() as snapshot:
        assert list(broken_packs(snapshot)) == []
        assert len(list(snapshot.keys(Table.MEMORY, bytes((Kind.PACK,))))) == 5
