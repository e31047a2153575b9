"""Names may be of any length and hold any character, and listings keep the order of ids."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.base import empty_checkpoint

import lgkv
from lgkv.langgraph import LgkvSaver
from tests.invariants import broken_invariants


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "agent.lgkv")


@pytest.fixture
def db(path: str) -> Iterator[lgkv.Database]:
    with lgkv.open(path) as opened:
        yield opened


def checkpoint(id_: str, **values: Any) -> dict[str, Any]:
    return {"id": id_, "channel_values": values, "channel_versions": dict.fromkeys(values, 1)}


any_text = st.text(st.characters(exclude_categories=()), max_size=30) | st.sampled_from(
    ["", "\x00", "\ud800", "\udfff\x00", "x" * 300, "\U0010ffff" * 90]
)
ENDLESS = "x" * 100_000
PLANES = "".join(chr(plane << 16 | low) for plane in range(17) for low in (0x41, 0xFFFD))


class TestNames:
    """Ids and names may be of any length and hold any character."""

    def test_every_name_of_a_checkpoint_is_unbounded(self, db: lgkv.Database) -> None:
        def names(end: str) -> list[str]:
            return [f"{ENDLESS}{end}", f"{PLANES}{end}", f"\x00{end}", f"\ud800{end}"]

        made = {}
        for thread in [*names("t"), ""]:
            for space in [*names("n"), ""]:
                id_ = f"id {len(made)} {thread[:5]}"
                channel, task = (space or "channel")[:50] + ENDLESS, thread + ENDLESS
                db.checkpoints.put(
                    thread,
                    checkpoint(id_, **{channel: len(made)}),
                    namespace=space,
                    parent_id=ENDLESS,
                    metadata={"run_id": f"{thread!a} {space!a}"},
                )
                db.checkpoints.put_writes(
                    thread, id_, task, [(channel, 1)], namespace=space, task_path=task
                )
                made[thread, space] = (id_, channel, task, len(made))
        for (thread, space), (id_, channel, task, value) in made.items():
            found = db.checkpoints.get(thread, namespace=space)
            assert found is not None
            assert (found.thread_id, found.namespace, found.id) == (thread, space, id_)
            assert found.parent_id == ENDLESS
            assert found.checkpoint["channel_values"] == {channel: value}
            assert found.writes == [(task, channel, 1)]
        assert {info.thread_id for info in db.threads(100)} == {thread for thread, _ in made}
        assert broken_invariants(db) == []
        db.checkpoints.delete_runs([f"{thread!a} {space!a}" for thread, space in made])
        assert db.threads() == []
        assert broken_invariants(db) == []

    @given(
        names=st.tuples(any_text, any_text, any_text, any_text, any_text),
        other=st.tuples(any_text, any_text, any_text, any_text, any_text),
    )
    @example(names=("", "", "", "", ""), other=("\x00", "\x00", "\x00", "\x00", "\x00"))
    @settings(max_examples=60)
    def test_names_that_differ_never_meet(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        names: tuple[str, ...],
        other: tuple[str, ...],
    ) -> None:
        path = tmp_path_factory.mktemp("names") / "agent.lgkv"
        with lgkv.open(path) as db:
            for number, (thread, space, id_, channel, task) in enumerate((names, other)):
                value = checkpoint(id_, **{channel: number})
                db.checkpoints.put(thread, value, namespace=space)
                db.checkpoints.put_writes(thread, id_, task, [(channel, number)], namespace=space)
            for number, (thread, space, id_, channel, task) in reversed(
                list(enumerate((names, other)))
            ):
                if number == 0 and names[:3] == other[:3]:
                    break  # the second was put over it
                found = db.checkpoints.get(thread, namespace=space, checkpoint_id=id_)
                assert found is not None
                assert (found.thread_id, found.namespace, found.id) == (thread, space, id_)
                if not (names[:2] == other[:2] and names[3] == other[3]):  # else one version
                    assert found.checkpoint["channel_values"] == {channel: number}
                assert (task, channel, number) in found.writes or names[:3] == other[:3]
            assert broken_invariants(db) == []

    @given(
        ids=st.lists(
            st.uuids().map(str) | any_text.filter(lambda text: len(text) < 40),
            unique=True,
            max_size=12,
        ),
        split=st.integers(1, 3),
        limit=st.none() | st.integers(0, 14),
        at=st.integers(0, 11),
    )
    @settings(max_examples=60)
    def test_listings_are_newest_id_first_whatever_the_ids(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        ids: list[str],
        split: int,
        limit: int | None,
        at: int,
    ) -> None:
        path = tmp_path_factory.mktemp("ids") / "agent.lgkv"
        with lgkv.open(path) as db:
            for number, id_ in enumerate(ids):
                where = number % split
                db.checkpoints.put(f"t{where // 2}", checkpoint(id_), namespace=f"n{where}")
            expected = sorted(ids, key=lambda id_: id_.encode("utf-8", "surrogatepass"))[::-1]
            assert [found.id for found in db.checkpoints.list(limit=limit)] == expected[:limit]
            for thread in ("t0", "t1"):
                own = [i for i in expected if ids.index(i) % split // 2 == int(thread[1])]
                assert [found.id for found in db.checkpoints.list(thread)] == own
            if ids:
                before = expected[at % len(ids)]
                after = expected[at % len(ids) + 1 :]
                assert [found.id for found in db.checkpoints.list(before=before)] == after
                found = db.checkpoints.get("t0", namespace="n0")
                assert found is not None
                assert found.id == next(i for i in expected if ids.index(i) % split == 0)


class Text(str):
    """A text of a subclass, as members of an enumeration and of NumPy's arrays are."""

    __slots__ = ()


class TestSubclasses:
    """A name of a subclass of str names what its text does."""

    @pytest.mark.parametrize("space", ["", "child:é"])
    def test_of_a_checkpoint(self, db: lgkv.Database, space: str) -> None:
        ids = ["1f0c2f1e-7b6a-6d2e-8001-0123456789ab", "2"]
        parent = None
        for step, id_ in enumerate(ids):
            value = {
                "id": Text(id_),
                "channel_values": {Text("list"): [Text("x")] * (3 + step), Text("one"): step},
                "channel_versions": {Text("list"): Text(str(step)), Text("one"): step},
                "versions_seen": {Text("node"): {Text("one"): step}},
            }
            db.checkpoints.put(
                Text("t"),
                value,
                namespace=Text(space),
                parent_id=parent,
                metadata={Text("run_id"): Text("run"), Text("a"): Text("b")},
            )
            db.checkpoints.put_writes(
                Text("t"), Text(id_), Text("task"), [(Text("one"), 1)], namespace=Text(space)
            )
            parent = Text(id_)
        for of in (str, Text):
            found = db.checkpoints.get(of("t"), namespace=of(space), checkpoint_id=of(ids[1]))
            assert found is not None
            names = found.thread_id, found.namespace, found.id, found.parent_id
            assert names == ("t", space, ids[1], ids[0])
            assert {type(found.id), type(found.parent_id)} == {str}
            assert found.checkpoint["channel_values"] == {"list": ["x"] * 4, "one": 1}
            assert found.writes == [("task", "one", 1)]
            listed = db.checkpoints.list(of("t"), before=of("3"), filter={of("a"): of("b")})
            assert [one.id for one in listed] == ids[::-1]
        assert broken_invariants(db) == []
        db.checkpoints.copy_thread(Text("t"), Text("copy"))
        db.checkpoints.delete_thread("t")
        db.checkpoints.delete_runs([Text("run")])
        assert db.threads() == []
        assert broken_invariants(db) == []

    def test_of_an_enumeration(self, db: lgkv.Database) -> None:
        class Id(str, enum.Enum):
            FIRST = "0001"
            RUN = "run"

        saver = LgkvSaver(db)
        config = saver.put(
            {"configurable": {"thread_id": "t", "checkpoint_ns": ""}},
            {**empty_checkpoint(), "id": Id.FIRST},
            {"run_id": Id.RUN},  # type: ignore[typeddict-unknown-key]
            {},
        )
        assert config["configurable"]["checkpoint_id"] == "0001"
        for id_ in ("0001", Id.FIRST):
            config["configurable"]["checkpoint_id"] = id_
            found = saver.get_tuple(config)
            assert found is not None
            assert found.checkpoint["id"] == "0001"
        second = saver.put(config, {**empty_checkpoint(), "id": "0002"}, {}, {})
        found = saver.get_tuple(second)
        assert found is not None
        assert found.parent_config is not None
        assert found.parent_config["configurable"]["checkpoint_id"] == "0001"
        saver.delete_for_runs([Id.RUN])
        assert [one.checkpoint["id"] for one in saver.list(None)] == ["0002"]

    def test_of_an_item_and_a_cache_entry(self, db: lgkv.Database) -> None:
        for key in ("k", "é", "\x00"):
            db.memory.put((Text("a"), "b"), Text(key), {Text("x"): Text("v")}, text=Text("a word"))
            for of in (str, Text):
                found = db.memory.get((of("a"), "b"), of(key))
                assert found is not None
                assert (found.namespace, found.key, found.value) == (("a", "b"), key, {"x": "v"})
                assert type(found.key) is str
                page = db.memory.search((of("a"),), filter={of("x"): of("v")}, text=of("word"))
                assert [one.key for one in page] == [key]
            db.memory.delete((Text("a"), "b"), Text(key))
            assert db.memory.get(("a", "b"), key) is None
        db.cache.set((Text("n"),), Text("k"), b"value")
        assert db.cache.get(("n",), "k") == db.cache.get((Text("n"),), Text("k")) == b"value"
        assert broken_invariants(db) == []


class TestThreads:
    @given(puts=st.lists(st.integers(0, 7), max_size=25), size=st.integers(1, 5))
    @settings(max_examples=40)
    def test_pages_show_every_thread_once_newest_first(
        self, tmp_path_factory: pytest.TempPathFactory, puts: list[int], size: int
    ) -> None:
        path = tmp_path_factory.mktemp("threads") / "agent.lgkv"
        with lgkv.open(path) as db:
            for number, thread in enumerate(puts):
                value, metadata = checkpoint(f"{number:03}"), {"even": thread % 2 == 0}
                db.checkpoints.put(str(thread), value, metadata=metadata)
            expected = [str(thread) for thread in dict.fromkeys(reversed(puts))]
            assert [info.thread_id for info in db.threads(100)] == expected
            found: list[str] = []
            page = db.threads(size)
            while page:
                assert len(page) <= size
                found += [info.thread_id for info in page]
                page = db.threads(size, before=page[-1])
            assert found == expected
            even = db.threads(100, filter={"even": True})
            assert [info.thread_id for info in even] == [t for t in expected if int(t) % 2 == 0]
            assert [info.checkpoints for info in db.threads(100)] == [
                puts.count(int(thread)) for thread in expected
            ]
