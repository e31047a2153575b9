"""Versions that share what they have alike, used by many at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

import lgkv
from lgkv.checkpoints.values import BaseMovedError
from lgkv.codec.shelf import Shelf
from lgkv.connection import Connection
from lgkv.errors import UnregisteredTypeError
from lgkv.langgraph import LgkvSaver, StrictSerializer
from tests.conformance.checkpoints import config_of, id_of, put
from tests.conformance.growing import PAD, VALUES, as_list, grow, history, read
from tests.conformance.stored import audit
from tests.model.elsewhere import Elsewhere
from tests.unit.shadows import Card, Loud, Point, exactly


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    process = Elsewhere()
    yield process
    process.close()


# --- the base is gone or another when the value is written -----------------------------------


@contextmanager
def done_before_snapshot(nth: int, action: Callable[[], Any]) -> Iterator[None]:
    """Have something done just before the nth snapshot that is taken meanwhile."""
    counted, snapshot = Counter[str](), Connection.snapshot

    def counting(self: Connection) -> Any:
        counted["taken"] += 1
        if counted["taken"] == nth:
            action()
        return snapshot(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "snapshot", counting)
        yield


@pytest.mark.parametrize("memory", ["warm", "cold"])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("kind", VALUES)
def test_base_that_goes_while_a_value_is_planned_is_no_matter(
    db: lgkv.Database, kind: str, nth: int, memory: str
) -> None:
    saver, other = LgkvSaver(db), LgkvSaver(db)
    config = grow(saver, VALUES[kind], steps=3)[-1]
    for value in (VALUES[kind](3), VALUES[kind](4)):
        if memory == "cold":
            db._connection.shelf.clear()
        with done_before_snapshot(nth, lambda: other.delete_thread("t")):
            config = put(saver, config, {"a": value}, {"a": "next"})
        assert read(saver, config) == as_list(value)
        audit(db)


ACTIONS: dict[str, Callable[[LgkvSaver, Any], Any]] = {
    "deleted": lambda saver, _: saver.delete_thread("t"),
    "pruned": lambda saver, config: (
        put(saver, config, {"a": ["other"]}, {"a": "9"}),
        saver.prune(["t"]),
    ),
    "put again": lambda saver, config: put(
        saver, config, {"a": ["other" + PAD]}, {"a": "3"}, checkpoint_id=id_of(config)
    ),
    "appended": lambda saver, config: put(saver, config, {"a": ["other" + PAD]}, {"a": "9"}),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("kind", VALUES)
def test_base_that_goes_before_the_commit_is_planned_for_anew(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch, kind: str, action: str
) -> None:
    saver, other = LgkvSaver(db), LgkvSaver(db)
    config = grow(saver, VALUES[kind], steps=3)[-1]
    commit, done = Connection.commit, Counter[str]()

    def late(self: Connection, change: Any) -> Any:
        if not done["late"]:
            done["late"] += 1
            ACTIONS[action](other, config)
        return commit(self, change)

    monkeypatch.setattr(Connection, "commit", late)
    new = put(saver, config, {"a": VALUES[kind](4)}, {"a": "4"})
    assert read(saver, new) == as_list(VALUES[kind](4))
    db._connection.shelf.clear()
    assert read(saver, new) == as_list(VALUES[kind](4))
    audit(db)


async def test_base_that_goes_is_no_matter_to_an_async_put(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver, other = LgkvSaver(db), LgkvSaver(db)
    config = grow(saver, VALUES["list"], steps=3)[-1]
    submit, done = Connection.submit, Counter[str]()

    def late(self: Connection, change: Any) -> Any:
        if not done["late"]:
            done["late"] += 1
            other.delete_thread("t")
        return submit(self, change)

    monkeypatch.setattr(Connection, "submit", late)
    checkpoint: Any = {
        **read_checkpoint(saver, config),
        "id": "later",
        "channel_values": {"a": VALUES["list"](4)},
        "channel_versions": {"a": "4"},
    }
    new = await saver.aput(config, checkpoint, {}, {"a": "4"})
    assert read(saver, new) == VALUES["list"](4)


def read_checkpoint(saver: LgkvSaver, config: Any) -> Any:
    found = saver.get_tuple(config)
    assert found is not None
    return found.checkpoint


def test_change_that_must_be_planned_anew_says_so(db: lgkv.Database) -> None:
    checkpoints = LgkvSaver(db)._checkpoints
    first = {"id": "1", "channel_values": {"a": [PAD]}, "channel_versions": {"a": "1"}}
    second = {"id": "2", "channel_values": {"a": [PAD, 2]}, "channel_versions": {"a": "2"}}
    checkpoints.put("t", first)
    change = checkpoints.put_change("t", second, parent_id="1")
    checkpoints.delete_thread("t")
    with pytest.raises(BaseMovedError):
        db.commit(change)
    assert db.stats().threads == 0
    checkpoints.put("t", second, parent_id="1")
    found = checkpoints.get("t")
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": [PAD, 2]}


def test_reader_that_comes_between_leaves_the_base_of_a_dict_whole(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = LgkvSaver(db)
    value = {f"k{number}": PAD for number in range(30)}
    first = put(saver, None, {"a": value}, {"a": "1"})
    db._connection.shelf.clear()
    entries = Shelf.entries

    def between(*_: Any) -> None:
        monkeypatch.setattr(Shelf, "entries", entries)
        read(saver, first)  # after which it would be there

    monkeypatch.setattr(Shelf, "entries", between)
    second = put(saver, first, {"a": {**value, "new": 1}}, {"a": "2"})
    assert read(saver, first) == value
    assert read(saver, second) == {**value, "new": 1}


class Meddling:
    """An element whose serialisation changes another one, as another thread might."""

    def __init__(self, victim: dict[str, Any]) -> None:
        self.victim = victim

    def _asdict(self) -> dict[str, Any]:
        self.victim["x"] = 2
        return {}


@pytest.mark.parametrize("kind", ["list", "appended", "dict", "patch"])
def test_value_changed_while_it_is_serialised_is_not_taken_for_what_was_stored(
    db: lgkv.Database, kind: str
) -> None:
    saver = LgkvSaver(db, serde=JsonPlusSerializer())
    victim: dict[str, Any] = {"x": 1, "pad": PAD}
    parts = {"v": victim, "m": Meddling(victim)}
    entries = {f"k{number}": PAD for number in range(20)}
    values: dict[str, tuple[Any, Any]] = {
        "list": ([], [*parts.values()]),
        "appended": ([PAD], [PAD, *parts.values()]),
        "dict": ({}, parts | entries),
        "patch": (entries, entries | parts),
    }
    base, value = values[kind]
    config = put(saver, None, {"a": base}, {"a": "0"})
    config = put(saver, config, {"a": value}, {"a": "1"})
    assert victim["x"] == 2
    config = put(saver, config, {"a": value}, {"a": "2"})
    got = read(saver, config)
    assert (got["v"] if isinstance(got, dict) else got[-2])["x"] == 2


# --- several processes and threads -----------------------------------------------------------


def check_lines(saver: LgkvSaver, expected: set[str]) -> None:
    """Check that each checkpoint is what its parent is, and one element more."""
    found = {each.checkpoint["id"]: each for each in saver.list(config_of())}
    assert found.keys() >= expected
    for each in found.values():
        value = each.checkpoint["channel_values"]["a"]
        assert each.parent_config is None or id_of(each.parent_config) in found
        if each.parent_config is not None:
            parent = found[id_of(each.parent_config)].checkpoint["channel_values"]["a"]
            assert value[:-1] == parent


def test_two_processes_that_write_one_thread_at_once(
    db: lgkv.Database, elsewhere: Elsewhere, path: str
) -> None:
    from tests.model.elsewhere import append_all

    saver = LgkvSaver(db, serde=StrictSerializer())
    start = put(saver, None, {"a": [PAD]}, {"a": "0"})
    there = [f"there {number} {PAD}" for number in range(60)]
    here = [f"here {number} {PAD}" for number in range(60)]
    elsewhere.begin("append_all", path, "strict", start, there, "a")
    ids = append_all(saver, start, here, "a")
    ids += elsewhere.result()
    check_lines(saver, set(ids))
    audit(db)
    assert elsewhere("digests", path, "strict", "t").keys() >= set(ids)
    elsewhere("close", path, "strict")


@pytest.mark.parametrize("keep_last", [1, 3])
def test_one_process_that_prunes_under_another_is_not_noticed(
    db: lgkv.Database, elsewhere: Elsewhere, path: str, keep_last: int
) -> None:
    from tests.model.elsewhere import append_all

    saver = LgkvSaver(db, serde=StrictSerializer())
    start = put(saver, None, {"a": [PAD], "d": {}}, {"a": "0", "d": "0"})
    elsewhere.begin("prune_often", path, "strict", "t", 150, keep_last)
    items = [f"{number} {PAD}" for number in range(80)]
    ids = append_all(saver, start, items, "a")
    elsewhere.result()
    assert read(saver, config_of()) == [PAD, *items]
    saver.prune(["t"])
    assert list(history(saver)) == [ids[-1]]
    audit(db)
    elsewhere("close", path, "strict")


@pytest.mark.parametrize("cache_bytes", [0, 20_000, 64 << 20])
@pytest.mark.parametrize("shared", [False, True], ids=["own threads", "one thread"])
def test_sixteen_threads_on_one_saver(path: str, cache_bytes: int, *, shared: bool) -> None:
    with lgkv.open(path, cache_bytes=cache_bytes, durability="interval") as db:
        saver = LgkvSaver(db, allowed_types=[Card])
        starts = [
            put(
                saver,
                config_of("t" if shared else f"t{worker}"),
                state_of(worker, 0),
                dict.fromkeys("ado", f"{worker}.0"),
            )
            for worker in range(16)
        ]
        barrier, wrong = threading.Barrier(16), []

        def work(worker: int) -> Any:
            config = starts[worker]
            barrier.wait()
            for step in range(1, 9):
                found = saver.get_tuple(config)
                assert found is not None
                values = found.checkpoint["channel_values"]
                if form_of(values) != form_of(state_of(worker, step - 1)):
                    wrong.append((worker, step, values))
                versions = dict.fromkeys("ado", f"{worker}.{step}")
                config = put(saver, config, state_of(worker, step), versions)
                for value in values.values():
                    value.clear()
            return config

        with ThreadPoolExecutor(16) as pool:
            ends = list(pool.map(work, range(16)))
        assert wrong == []
        for worker, config in enumerate(ends):
            found = saver.get_tuple(config)
            assert found is not None
            assert form_of(found.checkpoint["channel_values"]) == form_of(state_of(worker, 8))
        for thread in ["t"] if shared else [f"t{worker}" for worker in range(16)]:
            audit(db, thread)


def form_of(values: dict[str, Any]) -> Any:
    return exactly(sorted(values.items()), sets=False)


def state_of(worker: int, step: int) -> dict[str, Any]:
    """Return the channels of a worker at a step."""
    return {
        "a": [HumanMessage(f"{worker} {at} {PAD}", id=f"{at}") for at in range(step + 1)],
        "d": {f"k{at}": f"{worker} {at} {PAD}" for at in range(step + 16)},
        "o": [Card(f"{worker}", [at, PAD]) for at in range(step + 1)],
    }


# --- serialisers -----------------------------------------------------------------------------


def test_templates_of_one_serialiser_are_never_served_by_another(db: lgkv.Database) -> None:
    savers = {
        "all": LgkvSaver(db, serde=JsonPlusSerializer()),
        "none": LgkvSaver(db, serde=JsonPlusSerializer(allowed_msgpack_modules=None)),
        "card": LgkvSaver(db, serde=JsonPlusSerializer(allowed_msgpack_modules=[Card])),
        "point": LgkvSaver(db, serde=JsonPlusSerializer(allowed_msgpack_modules=[Point])),
        "strict card": LgkvSaver(db, allowed_types=[Card, Point]),
    }
    card, point = Card("a", [1]), Point(x=1, y=2)
    values = {
        "a": [card, point, PAD],
        "d": {"card": card, "point": point, "pad": PAD * 3},
        "m": [HumanMessage(PAD, additional_kwargs={"c": card})],
    }
    config = put(savers["all"], None, values)
    wants = {
        name: {
            channel: exactly(saver.serde.loads_typed(saver.serde.dumps_typed(value)))
            for channel, value in values.items()
        }
        for name, saver in savers.items()
    }
    assert len({repr(want["a"]) for want in wants.values()}) == 4
    for _ in range(3):
        for name in [*savers, *reversed(savers)]:
            for channel, want in wants[name].items():
                assert exactly(read(savers[name], config, channel)) == want
    strict = LgkvSaver(db)
    with pytest.raises(UnregisteredTypeError):
        strict.get_tuple(config)


def test_value_that_this_saver_cannot_rebuild_does_not_hinder_the_next_put(
    db: lgkv.Database,
) -> None:
    wide, strict = LgkvSaver(db, allowed_types=[Card, Loud]), LgkvSaver(db)
    values = {"a": [Card("a"), PAD], "d": {"card": Card("a"), "pad": PAD * 3}}
    config = put(wide, None, values, {"a": "1", "d": "1"})
    for cold in (False, True):
        if cold:
            db._connection.shelf.clear()
        new = put(strict, config, {"a": [PAD, 1], "d": {"pad": PAD * 3}}, {"a": "2", "d": "2"})
        assert read(strict, new) == [PAD, 1]
        assert read(strict, new, "d") == {"pad": PAD * 3}


@pytest.mark.parametrize("fallback", [range(3), 2**70, {1, (2, 3)}], ids=str)
def test_value_for_which_a_serialiser_falls_back_on_pickle(
    db: lgkv.Database, fallback: Any
) -> None:
    serde = JsonPlusSerializer(pickle_fallback=True)
    saver, config = LgkvSaver(db, serde=serde), None
    plain: list[Any] = [("t", 1), PAD]
    entries = {f"k{number}": (PAD, number) for number in range(20)}
    steps: list[Any] = [
        plain,
        [*plain, fallback],
        [*plain, fallback, ("u", 2)],
        [*plain, ("u", 2)],
        entries,
        {**entries, "odd": fallback},
        {**entries, "odd": fallback, "more": ("u",)},
        {**entries, "more": ("u",)},
        [fallback, PAD],
    ]
    for number, value in enumerate(steps):
        config = put(saver, config, {"a": value}, {"a": f"{number}"})
        want = exactly(serde.loads_typed(serde.dumps_typed(value)))
        assert exactly(read(saver, config)) == want
        db._connection.shelf.clear()
        assert exactly(read(saver, config)) == want
    audit(db)
