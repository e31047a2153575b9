"""What reading one checkpoint takes of LMDB, and that it finds everything all the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

import lgkv
from lgkv.langgraph import LgkvSaver
from lgkv.snapshot import Snapshot
from tests.conformance.checkpoints import config_of, new_id, put

CHILD = "child:1"


class Counting:
    """A transaction, or a cursor, that counts what is looked for from the root of a table."""

    def __init__(self, of: Any, counted: Counter[str]) -> None:
        self._of, self._counted = of, counted

    def __getattr__(self, name: str) -> Any:
        if name in {"get", "set_range"}:
            self._counted["descents"] += 1
        found = getattr(self._of, name)
        if name == "cursor":
            return lambda *arguments: Counting(found(*arguments), self._counted)
        return found


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the descents of a table's tree in every snapshot, and the snapshots."""
    counts: Counter[str] = Counter()
    begin = Snapshot.begin

    def counting(self: Snapshot, sharing: Any, tell: Any, txn: Any, databases: Any) -> None:
        counts["snapshots"] += 1
        begin(self, sharing, tell, Counting(txn, counts), databases)

    monkeypatch.setattr(Snapshot, "begin", counting)
    return counts


def cost_of_get(saver: LgkvSaver, counted: Counter[str], **config: Any) -> tuple[int, int]:
    counted.clear()
    assert saver.get_tuple(config_of(**config)) is not None
    return counted["snapshots"], counted["descents"]


def test_get_of_a_small_state_takes_three_descents(saver: LgkvSaver, counted: Counter[str]) -> None:
    put(saver, None, {"a": 1, "b": "text"})
    assert cost_of_get(saver, counted) == (1, 3)  # thread, checkpoint, names of channels


def test_get_of_a_list_that_lies_apart_takes_one_more(path: str, counted: Counter[str]) -> None:
    with lgkv.open(path) as db:
        put(LgkvSaver(db), None, {"a": [HumanMessage("x" * 3000, id="1")]})
    with lgkv.open(path) as db:
        saver = LgkvSaver(db)
        assert cost_of_get(saver, counted) == (1, 4)
        assert cost_of_get(saver, counted) == (1, 3)  # memory has it


def test_pending_writes_are_looked_for_where_a_thread_has_any(
    saver: LgkvSaver, counted: Counter[str]
) -> None:
    config = put(saver, None, {"a": 1})
    saver.put_writes(config, [("a", 2)], "task")
    last = put(saver, config, {"a": 2}, {"a": 2})
    assert cost_of_get(saver, counted) == (1, 4)
    found = saver.get_tuple(config)
    assert found is not None
    assert found.pending_writes == [("task", "a", 2)]
    saver.put_writes(last, [("a", 3)], "task")
    found = saver.get_tuple(config_of())
    assert found is not None
    assert found.pending_writes == [("task", "a", 3)]


@pytest.mark.parametrize("others", [[], [CHILD]], ids=["alone", "with a namespace behind it"])
@pytest.mark.parametrize("namespace", ["", CHILD])
def test_pending_writes_of_the_newest_are_found_in_every_namespace(
    saver: LgkvSaver, namespace: str, others: list[str]
) -> None:
    for ns in others:
        put(saver, config_of(ns=ns), {"a": 0})
    config = put(saver, config_of(ns=namespace), {"a": 1})
    saver.put_writes(config, [("a", 2)], "task")
    put(saver, config_of("u"), {"a": 0})  # a thread behind it
    found = saver.get_tuple(config_of(ns=namespace))
    assert found is not None
    assert found.pending_writes == [("task", "a", 2)]


def test_writes_that_came_before_their_checkpoint_are_found(saver: LgkvSaver) -> None:
    early = config_of(checkpoint_id=new_id())
    saver.put_writes(early, [("a", 2)], "task")
    put(saver, None, {"a": 1}, checkpoint_id=early["configurable"]["checkpoint_id"])
    found = saver.get_tuple(config_of())
    assert found is not None
    assert found.pending_writes == [("task", "a", 2)]


@pytest.mark.parametrize("ids", ["uuid", "text"])
def test_listing_of_all_threads_descends_few_times_for_each(
    saver: LgkvSaver, counted: Counter[str], ids: str
) -> None:
    threads, steps = 200, 3
    for number in range(threads):
        config = None
        for step in range(steps):
            own = new_id() if ids == "uuid" else f"{number:03}-{step}"
            config = put(saver, config or config_of(str(number)), {"a": step}, checkpoint_id=own)
    counted.clear()
    assert list(saver.list(None, filter={"source": "none such"})) == []
    assert counted["snapshots"] <= threads * steps // 64 + 5
    # Of a thread its record and both ranges of its ids, and each head; of a page a few more.
    assert counted["descents"] <= threads * (3 + steps) + 10 * counted["snapshots"]
    found = [one.checkpoint["id"] for one in saver.list(None)]
    assert found == sorted(found, reverse=True)
    assert len(found) == threads * steps
