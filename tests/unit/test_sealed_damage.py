"""Records of a thread and of the cache that are sealed rightly and say what cannot be."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ormsgpack
import pytest

import lgkv
from lgkv import CorruptionError
from lgkv.checkpoints import records as rec
from lgkv.codec.plan import replay
from lgkv.keys import pack_uint
from lgkv.langgraph import LgkvCache
from lgkv.layout import STATE_KEY, Kind, Table, encode_fields
from lgkv.snapshot import State
from lgkv.writer import Change


@pytest.fixture
def db(tmp_path: Path) -> Iterator[lgkv.Database]:
    with lgkv.open(tmp_path / "agent.lgkv") as opened:
        checkpoint = {"id": "1", "channel_values": {"n": 1}, "channel_versions": {"n": 1}}
        opened.checkpoints.put("t", checkpoint, namespace="child")
        yield opened


def put(db: lgkv.Database, table: Table, key: bytes, body: bytes) -> None:
    db.commit(Change(lambda batch: batch.put(table, key, body)))


def refused(key: bytes, call: Callable[[], Any]) -> None:
    with pytest.raises(CorruptionError) as caught:
        call()
    assert caught.value.key == key


@pytest.mark.parametrize("body", [b"", b"\1", b"\1" * 9, b"\1" * 500])
def test_number_of_a_checkpoint_namespace_has_its_size(db: lgkv.Database, body: bytes) -> None:
    key = rec.namespace_number_key(1, "child")
    put(db, Table.THREADS, key, body)
    refused(key, lambda: db.checkpoints.get("t", namespace="child"))
    refused(key, lambda: db.checkpoints.list("t", namespace="child").__next__())


def test_name_of_a_checkpoint_namespace_has_a_number(db: lgkv.Database) -> None:
    key = rec.thread_key(1, Kind.NAMESPACE_NAME) + b"\x09" + b"\xff" * 200
    put(db, Table.THREADS, key, b"name")
    refused(key, lambda: list(db.checkpoints.list("t")))


def test_time_of_a_thread_that_no_calendar_has_is_named(db: lgkv.Database) -> None:
    key = rec.thread_key(1, Kind.THREAD)
    record = rec.ThreadRecord("t", 2**63, 2**63, checkpoints=1, latest_id="1")
    put(db, Table.THREADS, key, record.pack(key))
    refused(key, db.threads)


def test_thread_that_counts_too_little_is_named_and_can_be_deleted(db: lgkv.Database) -> None:
    key = rec.thread_key(1, Kind.THREAD)
    another = {"id": "2", "channel_values": {}, "channel_versions": {"n": 2}}
    db.checkpoints.put("t", another, namespace="child")
    record = rec.ThreadRecord("t", 1, 1, checkpoints=0, namespaces=2, latest_id="2")
    put(db, Table.THREADS, key, record.pack(key))
    path = db.stats().path
    db.close()  # with what it remembers of the thread
    with lgkv.open(path) as again:
        refused(key, lambda: again.checkpoints.prune(["t"]))
        again.checkpoints.delete_thread("t")
        assert list(again.checkpoints.list()) == []


def test_key_without_a_kind_is_not_copied(db: lgkv.Database) -> None:
    put(db, Table.THREADS, pack_uint(1), b"")
    refused(pack_uint(1), lambda: db.checkpoints.copy_thread("t", "u"))
    assert db.checkpoints.get("u", namespace="child") is None


@pytest.mark.parametrize("counter", range(7))
def test_counter_that_cannot_go_on_is_refused(counter: int) -> None:
    numbers = [2**63 - 1] * 7
    assert State.unpack(struct.pack("<7Q", *numbers)).sequence == 2**63 - 1
    numbers[counter] += 1
    with pytest.raises(CorruptionError, match="too large") as caught:
        State.unpack(struct.pack("<7Q", *numbers))
    assert caught.value.key == STATE_KEY


@pytest.mark.parametrize("patch", [[{}, [{}]], [{}, [1]], [{1: 2}, []], [{}, [[]]], [[], []], 1])
def test_patch_that_names_what_is_no_key_is_refused(patch: Any) -> None:
    assert replay([[{"a": 1}, []], [{"b": 2}, ["a"]]]) == {"b": 2}
    with pytest.raises(ValueError, match="a patch"):
        replay([[{"a": 1}, []], patch])


@pytest.mark.parametrize("number", [0, -1, 2**64, 2**2000])
def test_number_of_a_cache_namespace_is_one_that_can_be_given(
    db: lgkv.Database, number: int
) -> None:
    db.cache.set(("space",), "key", 1)
    with db._connection.snapshot() as snapshot:
        key = next(snapshot.keys(Table.NAMES, bytes((Kind.CACHE_NUMBER,))))
    put(db, Table.NAMES, key, encode_fields([number, [b"space"]]))
    refused(key, lambda: db.cache.get(("space",), "key"))


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x91", b"\x91" * 5_000])
def test_cached_value_that_is_none_names_its_record(db: lgkv.Database, raw: bytes) -> None:
    cache: LgkvCache[Any] = LgkvCache(db)
    full_key = (("space",), "key")
    db.cache.set_many({full_key: (("msgpack", ormsgpack.packb([1])), None)})
    assert cache.get([full_key]) == {full_key: [1]}
    with db._connection.snapshot() as snapshot:
        key = next(snapshot.keys(Table.MEMORY, bytes((Kind.CACHE,))))
    db.cache.set_many({full_key: (("msgpack", raw), None)})
    refused(key, lambda: cache.get([full_key]))
