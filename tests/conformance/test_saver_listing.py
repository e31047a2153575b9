"""Listing checkpoints: metadata and filters, order, bounds, and what a listing reads."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import wait
from typing import Any

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

import lgkv
from lgkv.errors import FilterError
from lgkv.langgraph import LgkvSaver
from lgkv.langgraph.serde import SerdeCodec
from lgkv.writer import Change
from tests.conformance.checkpoints import checkpoint_of, config_of, id_of, ids_of, new_id, put

# --- metadata ----------------------------------------------------------------------------


def test_metadata_takes_what_the_config_has_and_can_be_stored(saver: LgkvSaver) -> None:
    config = config_of()
    config["configurable"] |= {
        "user": "u\x001",
        "age": 7,
        "score": 0.5,
        "admin": True,
        "tags": ["not", "scalar"],
        "__pregel_runtime": object(),
        "langgraph_step": 3,
        "checkpoint_map": {},
    }
    config["metadata"] = {"run_id": "r1", "user": "of the metadata", "lock": threading.Lock()}
    stored = saver.put(config, checkpoint_of(), {"source": "input", "step": -1, "parents": {}}, {})
    found = saver.get_tuple(stored)
    assert found is not None
    assert found.metadata == {
        "source": "input",
        "step": -1,
        "parents": {},
        "run_id": "r1",
        "user": "of the metadata",
        "age": 7,
        "score": 0.5,
        "admin": True,
    }


@pytest.mark.parametrize(
    ("filter", "steps"),
    [
        ({"step": 1}, [1]),
        ({"step": "1"}, []),
        ({"flag": 1}, [1]),  # True == 1, as Python has it
        ({"flag": True}, [1]),
        ({"missing": None}, [4, 3, 2, 1]),
        ({"note": None}, [4, 3, 2]),
        ({"writes": {"node": {"x": 2}}}, [2]),
        ({"step": {"$gt": 2}}, [4, 3]),
        ({"step": {"$gte": 2, "$lt": 4}}, [3, 2]),
        ({"step": {"$ne": 2}}, [4, 3, 1]),
        ({"step": {"$in": [1, 4, "3"]}}, [4, 1]),
        ({"missing": {"$ne": 1}}, [4, 3, 2, 1]),
        ({"$or": [{"step": 1}, {"writes": {"node": {"x": {"$gt": 3}}}}]}, [4, 1]),
        ({"source": "loop", "step": 2}, [2]),
        ({'it\'s "odd"; --': "x') OR 1=1 --"}, [3]),
        ({"a.b": 1}, [3]),
        ({"a": {"b": 1}}, []),
        ({}, [4, 3, 2, 1]),
        (None, [4, 3, 2, 1]),
    ],
)
def test_filter_finds_by_any_key_typed_and_nested(
    saver: LgkvSaver, filter: dict[str, Any] | None, steps: list[int]
) -> None:
    extra: dict[int, dict[str, Any]] = {
        1: {"flag": True, "note": "n"},
        3: {'it\'s "odd"; --': "x') OR 1=1 --", "a.b": 1},
    }
    for step in range(1, 5):
        put(
            saver,
            None,
            metadata={"step": step, "writes": {"node": {"x": step}}, **extra.get(step, {})},
        )
    assert [each.metadata["step"] for each in saver.list(config_of(), filter=filter)] == steps
    assert [each.metadata["step"] for each in saver.list(None, filter=filter)] == steps


def test_unknown_operator_is_refused_before_anything_is_read(saver: LgkvSaver) -> None:
    with pytest.raises(FilterError, match="regex"):
        saver.list(config_of(), filter={"step": {"$regex": "1"}})


class Counting(JsonPlusSerializer):
    """Keeps what it decodes. Being a subclass, it is given the metadata as well."""

    def __init__(self) -> None:
        super().__init__(allowed_msgpack_modules=None)
        self.decoded: list[Any] = []

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        value = super().loads_typed(data)
        self.decoded.append(value)
        return value


def test_filter_decodes_no_value_of_what_it_rejects(db: lgkv.Database) -> None:
    serde = Counting()
    saver = LgkvSaver(db, serde=serde)
    for step in range(20):
        config = put(saver, None, {"a": f"value {step}"}, {"a": step}, metadata={"step": step})
        saver.put_writes(config, [("a", f"write {step}")], "task")
    assert list(saver.list(config_of(), filter={"step": 99})) == []
    assert len(serde.decoded) == 20
    assert all("step" in metadata for metadata, _ in serde.decoded)
    serde.decoded.clear()
    [found] = saver.list(config_of(), filter={"step": 7})
    assert found.checkpoint["channel_values"] == {"a": "value 7"}
    assert [each for each in serde.decoded if isinstance(each, str)] == ["value 7", "write 7"]


def test_default_serialiser_never_sees_the_metadata_of_a_filter(
    db: lgkv.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = LgkvSaver(db)
    for step in range(5):
        put(saver, None, {"a": step}, {"a": step}, metadata={"step": step})
    called: list[Any] = []
    decode = SerdeCodec.decode

    def counting(self: SerdeCodec, payload: tuple[str, bytes]) -> Any:
        called.append(payload)
        return decode(self, payload)

    monkeypatch.setattr(SerdeCodec, "decode", counting)
    assert list(saver.list(None, filter={"step": 99})) == []
    assert called == []
    assert len(list(saver.list(None, filter={"step": 3}))) == 1
    assert len(called) == 1


# --- list --------------------------------------------------------------------------------

MIXED_IDS = [
    "1ef4f797-8335-6428-8001-8a1503f9b875",
    "1ef4f797-8335-6428-8001-8a1503f9b876",
    "1ef4f797-8335-6428-8001-8a1503f9b87",
    "1ef4f797-8335-6428-8001-8a1503f9b8750",
    "1EF4F797-8335-6428-8001-8A1503F9B875",
    "1ef4f79783356428800" + "18a1503f9b875",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "00000000-0000-0000-0000-000000000000",
    "0",
    "1",
    "10",
    "2",
    "a\x00b",
    "a",
    "a\x01",
    "zz",
    "é",
    "\uffff",
    "😀",
    "~",
]


def test_ids_of_any_form_sort_as_texts_within_and_over_threads(saver: LgkvSaver) -> None:
    rng = random.Random(1)
    for at, checkpoint_id in enumerate(rng.sample(MIXED_IDS, len(MIXED_IDS))):
        put(saver, config_of("one"), checkpoint_id=checkpoint_id)
        put(saver, config_of(f"many{at % 5}", f"ns{at % 3}"), checkpoint_id=checkpoint_id + "!")
    descending = sorted(MIXED_IDS, reverse=True)
    both = sorted([*MIXED_IDS, *(each + "!" for each in MIXED_IDS)], reverse=True)
    assert ids_of(saver.list(config_of("one"))) == descending
    assert ids_of(saver.list(config_of("one", None))) == descending
    assert ids_of(saver.list(None)) == both
    for bound in [*both, "", "2", "1ef4f797-8335-6428-8001-8a1503f9b874", "\U0010ffff"]:
        before = config_of("any", "", bound)
        wanted = both if not bound else [each for each in both if each < bound]
        assert ids_of(saver.list(None, before=before)) == wanted
        assert ids_of(saver.list(None, before=before, limit=3)) == wanted[:3]
        own = [each for each in wanted if each in MIXED_IDS]
        assert ids_of(saver.list(config_of("one"), before=before)) == own
    newest = saver.get_tuple(config_of("one"))
    assert newest is not None
    assert newest.checkpoint["id"] == descending[0]


def put_change(
    saver: LgkvSaver,
    thread_id: str,
    checkpoint: Any,
    metadata: dict[str, Any],
    new_versions: dict[str, Any],
) -> Change[Any]:
    """Prepare a put, of which many are to share a commit."""
    given = checkpoint, None, metadata, new_versions
    return saver._checkpoints.put_in_turn(thread_id, "", given)


def test_list_pages_through_a_long_thread(saver: LgkvSaver, db: lgkv.Database) -> None:
    futures = []
    ids = [new_id() for _ in range(500)]
    for checkpoint_id in ids:
        change = put_change(saver, "t", checkpoint_of(checkpoint_id=checkpoint_id), {}, {})
        futures.append(db.submit(change))
    wait(futures)
    assert ids_of(saver.list(config_of())) == ids[::-1]
    paged, before = [], None
    while page := ids_of(saver.list(config_of(), before=before, limit=77)):
        paged += page
        before = config_of("t", "", page[-1])
    assert paged == ids[::-1]


def test_list_spans_namespaces_unless_one_is_given(saver: LgkvSaver) -> None:
    places = ["", "a", "a:1", "b|c:2"]
    stored = {ns: id_of(put(saver, config_of("t", ns))) for ns in places}
    put(saver, config_of("other", "a"))
    assert ids_of(saver.list(config_of("t", None))) == [stored[ns] for ns in reversed(places)]
    for ns in places:
        found = list(saver.list(config_of("t", ns)))
        assert [each.config["configurable"]["checkpoint_ns"] for each in found] == [ns]
        assert ids_of(found) == [stored[ns]]


def test_list_honours_the_id_of_its_config(saver: LgkvSaver) -> None:
    ids = [id_of(put(saver)) for _ in range(3)]
    put(saver, config_of("t", "ns"), checkpoint_id=ids[1])
    assert ids_of(saver.list(config_of("t", "", ids[1]))) == [ids[1]]
    assert ids_of(saver.list(config_of("t", None, ids[1]))) == [ids[1]] * 2
    assert ids_of(saver.list(config_of("t", "", ids[1]), before=config_of("t", "", ids[1]))) == []
    assert ids_of(saver.list(config_of("t", "", ids[1]), filter={"step": 99})) == []


@pytest.mark.parametrize("config", [None, config_of(), config_of(ns=None)])
def test_limit_counts_what_the_filter_keeps(saver: LgkvSaver, config: Any) -> None:
    ids = [id_of(put(saver, metadata={"odd": at % 2 == 1})) for at in range(10)]
    odd = ids[::-1][::2]
    assert ids_of(saver.list(config, limit=0)) == []
    assert ids_of(saver.list(config, limit=-1)) == []
    assert ids_of(saver.list(config, limit=1)) == ids[-1:]
    assert ids_of(saver.list(config, limit=100)) == ids[::-1]
    assert ids_of(saver.list(config, filter={"odd": True}, limit=3)) == odd[:3]
    assert (
        ids_of(saver.list(config, filter={"odd": True}, before=config_of("t", "", odd[1]), limit=2))
        == odd[2:4]
    )


def test_before_without_an_id_is_ignored(saver: LgkvSaver) -> None:
    ids = [id_of(put(saver)) for _ in range(3)]
    for before in (config_of(), {"configurable": {}}):
        assert ids_of(saver.list(config_of(), before=before)) == ids[::-1]
        assert ids_of(saver.list(None, before=before)) == ids[::-1]


def test_checkpoints_of_a_thread_that_gets_a_new_one_meanwhile_are_listed_once(
    saver: LgkvSaver,
) -> None:
    old = [[id_of(put(saver, config_of(f"t{at}"))) for at in range(30)] for _ in range(3)]
    expected = [each for ids in reversed(old) for each in reversed(ids)]
    listing = saver.list(None)
    found = [id_of(next(listing).config) for _ in range(2)]
    for at in (3, 7, 29):
        put(saver, config_of(f"t{at}"))  # above the point that was reached
    found += ids_of(listing)
    assert found == expected


def test_threads_come_in_the_order_of_their_newest_checkpoints(
    db: lgkv.Database, saver: LgkvSaver
) -> None:
    for at in (0, 1, 2, 1):
        put(saver, config_of(f"t{at}"), metadata={"run_id": f"run {at}"})
    saver.put_writes(config_of("only writes", "", "1"), [("a", 1)], "task")
    saver.put_writes(config_of("more writes", "", "1"), [("a", 1)], "task")
    last = ["more writes", "only writes"]
    assert [thread.thread_id for thread in db.threads()] == ["t1", "t2", "t0", *last]
    put(saver, config_of("t0", "child"))
    assert [thread.thread_id for thread in db.threads()] == ["t0", "t1", "t2", *last]
    saver.delete_for_runs(["run 1"])
    assert [thread.thread_id for thread in db.threads()] == ["t0", "t2", *last]
    pages, before = [], None
    while page := db.threads(1, before=before):
        pages += page
        before = page[-1]
    assert [thread.thread_id for thread in pages] == ["t0", "t2", *last]
    newest = saver.get_tuple(config_of("t2"))
    assert newest is not None
    assert pages[1].latest_checkpoint_id == id_of(newest.config)
    assert pages[2].latest_checkpoint_id is None


def test_listing_goes_on_while_threads_are_deleted_and_written(saver: LgkvSaver) -> None:
    for at in range(60):
        put(saver, config_of(f"t{at}"))
    seen = set()
    for at, found in enumerate(saver.list(None)):
        seen.add(found.config["configurable"]["thread_id"])
        if at == 1:
            for gone in range(40):
                saver.delete_thread(f"t{gone}")
        put(saver, config_of("new"))
    assert seen >= {f"t{at}" for at in range(40, 60)}
    assert "new" not in seen  # it lies above the point that was reached
    assert len(seen) < 30


def test_newest_of_many_threads_are_found_without_reading_them_all(
    db: lgkv.Database, saver: LgkvSaver, reads: Counter[str]
) -> None:
    threads = 20_000
    ids = [new_id() for _ in range(threads)]
    order = random.Random(3).sample(range(threads), threads)
    futures = [
        db.submit(
            put_change(
                saver,
                f"t{at}",
                checkpoint_of({"a": at}, checkpoint_id=ids[at]),
                {"step": at % 7},
                {"a": 1},
            )
        )
        for at in order
    ]
    wait(futures)
    reads.clear()
    found = list(saver.list(None, limit=10))
    assert ids_of(found) == ids[:-11:-1]
    assert found[0].checkpoint["channel_values"] == {"a": threads - 1}
    assert sum(reads.values()) < 300
    reads.clear()
    upper = threads - 100  # threads that are newer have to be looked into: they may have older ones
    assert (
        ids_of(saver.list(None, before=config_of("x", "", ids[upper]), limit=10))
        == ids[upper - 1 : upper - 11 : -1]
    )
    assert sum(reads.values()) < 800
    reads.clear()
    assert len(list(saver.list(None, filter={"step": 3}, limit=10))) == 10
    assert sum(reads.values()) < 1_500
    reads.clear()
    assert len(db.threads(limit=10)) == 10
    assert sum(reads.values()) < 300
