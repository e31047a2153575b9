"""Every version of a channel comes back as the serialiser would give it, whatever came before."""

import datetime
import decimal
import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, RemoveMessage
from langgraph.checkpoint.serde.types import _DeltaSnapshot

import lgkv
from lgkv.langgraph import LgkvSaver
from tests.conformance.checkpoints import checkpoint_of, config_of, put

ALIKE: list[Any] = [
    *(0, 0.0, -0.0, False, None, 1, 1.0, True, "1", b"1", bytearray(b"1"), "", b"", 2**63),
    *(float("nan"), float("inf"), decimal.Decimal(1), decimal.Decimal("1.0"), {1}, frozenset({1})),
    datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc),
    *((1, 2), [1, 2], [1.0, 2], [True, 2], [], {}, [[]], [{}]),
    *({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": True, "b": 2}, {1: 1}, {"1": 1}, {"a": None}),
    *(np.array([1, 2]), np.array([1.0, 2.0])),
    *(HumanMessage("a", id="1"), AIMessage("a", id="1"), HumanMessage("a"), RemoveMessage(id="1")),
    HumanMessage("a", id="1", additional_kwargs={"k": [1]}),
    HumanMessage([{"type": "text", "text": "a"}], id="1"),
    AIMessage("", id="1", tool_calls=[{"name": "f", "args": {"x": 1}, "id": "c"}]),
    AIMessage("", id="1", tool_calls=[{"name": "f", "args": {"x": True}, "id": "c"}]),
    *(_DeltaSnapshot([1]), "x" * 20_000, "a\x00b", "é"),
]


def exact(saver: LgkvSaver, value: Any) -> tuple[str, bytes]:
    """Return the bytes of a value as it comes back: types and order are in them."""
    return saver.serde.dumps_typed(saver.serde.loads_typed(saver.serde.dumps_typed(value)))


def put_versions(saver: LgkvSaver, thread_id: str, values: list[Any]) -> list[tuple[Any, Any]]:
    """Store a value after the other in one channel; return configs and exact values."""
    config, version, stored = config_of(thread_id), None, []
    for value in values:
        version = saver.get_next_version(version, None)
        config = put(saver, config, {"a": value}, {"a": version})
        stored.append((config, exact(saver, value)))
    return stored


def read(saver: LgkvSaver, config: Any) -> tuple[str, bytes]:
    found = saver.get_tuple(config)
    assert found is not None
    return saver.serde.dumps_typed(found.checkpoint["channel_values"]["a"])


def test_values_that_look_alike_are_told_apart(path: str, saver: LgkvSaver) -> None:
    rng = random.Random(1)
    pairs = rng.sample(list(itertools.permutations(ALIKE, 2)), 250)
    stored: list[tuple[Any, Any]] = []
    for at, (one, other) in enumerate(pairs):
        histories: list[list[Any]] = [
            [one, other, one],
            [[one], [other], [one, other], [other, one], [one]],
            [{"k": one}, {"k": other}, {"k": other, "j": one}, {"j": one, "k": other}],
            [["x", {"k": one}], ["x", {"k": other}, one], [{"k": one}, other]],
        ]
        stored += put_versions(saver, f"t{at}", histories[at % 4])
    with lgkv.open(path) as other_handle:
        for reader in (saver, LgkvSaver(other_handle)):
            for config, expected in stored:
                assert read(reader, config) == expected


def mutate(rng: random.Random, value: Any) -> None:
    """Change something somewhere inside `value`, in place."""
    if isinstance(value, list):
        mutate_list(rng, value)
    elif isinstance(value, dict):
        if value and rng.random() < 0.5:
            mutate(rng, value[rng.choice(list(value))])
        else:
            value[rng.choice("abc")] = rng.choice([1, 1.0, True, [1]])
    elif isinstance(value, BaseMessage):
        if rng.random() < 0.5:
            value.content = rng.choice(["", "new", [{"type": "text", "text": "t"}]])
        else:
            value.additional_kwargs.setdefault("k", {"list": []})["list"].append(rng.random())
    elif isinstance(value, bytearray):
        value += b"x"
    elif isinstance(value, set):
        value.add(rng.randrange(1000))
    elif isinstance(value, np.ndarray) and value.flags.writeable:
        value[0] += 1


def mutate_list(rng: random.Random, value: list[Any]) -> None:
    if value and rng.random() < 0.6:
        mutate(rng, value[rng.randrange(len(value))])
    elif rng.random() < 0.7:
        value.insert(rng.randrange(len(value) + 1), rng.choice([1, True, "x", [0], {"k": [1]}]))
    elif value:
        value.pop(rng.randrange(len(value)))


@pytest.mark.parametrize("seed", range(15))
def test_what_is_changed_in_place_changes_only_what_is_stored_next(
    saver: LgkvSaver, seed: int
) -> None:
    rng = random.Random(seed)
    value: Any = [
        HumanMessage("hi", id="1"),
        *(1, "x", {"k": [1, {"z": 0}]}, [1, 2], np.array([1, 2]), bytearray(b"a"), {1, 2}),
    ]
    config, version = config_of(), None
    stored: list[tuple[Any, Any]] = []
    for _ in range(20):
        for _ in range(rng.randrange(3)):
            mutate(rng, value)
        version = saver.get_next_version(version, None)
        config = put(saver, config, {"a": value}, {"a": version})
        stored.append((config, exact(saver, value)))
        if rng.random() < 0.3:
            config, expected = rng.choice(stored)  # fork, and change what was read
            found = saver.get_tuple(config)
            assert found is not None
            value = found.checkpoint["channel_values"]["a"]
            assert saver.serde.dumps_typed(value) == expected
            version = found.checkpoint["channel_versions"]["a"]
    for config, expected in stored:
        assert read(saver, config) == expected


def test_branches_written_side_by_side_keep_their_values(db: lgkv.Database) -> None:
    savers = [LgkvSaver(db) for _ in range(4)]
    version = savers[0].get_next_version(None, None)
    put(savers[0], None, {"a": []}, {"a": version})

    def write(at: int) -> int:
        rng, saver, seen = random.Random(at), savers[at], 0
        for each in range(30):
            newest = saver.get_tuple(config_of())
            assert newest is not None
            value, version = (
                newest.checkpoint[part]["a"] for part in ("channel_values", "channel_versions")
            )
            message = HumanMessage(f"{at}.{each}", id=f"{at}.{each}")
            cut = rng.randrange(len(value) + 1) if rng.random() < 0.4 else 0
            value = rng.choice(
                [[*value, message], [*value[:cut], message, *value[cut + 1 :]], value[cut:]]
            )
            following = saver.get_next_version(version, None)
            checkpoint = checkpoint_of({"a": value}, {"a": following})
            config = saver.put(newest.config, checkpoint, {}, {"a": following})
            found = saver.get_tuple(config)
            if found is not None:  # else another has pruned it already
                seen += 1
                assert found.checkpoint["channel_values"] == {"a": value}
            if rng.random() < 0.1:
                saver.prune(["t"], keep_last=rng.randint(1, 6))
        return seen

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(write, range(4))) > 60
    savers[0].delete_thread("t")
    assert set(db.stats().records.values()) == {0}
