"""The store against `InMemoryStore`, put right where that errs, through every way into the file."""

from __future__ import annotations

import asyncio
import copy
import shutil
import tempfile
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from langgraph.store.base import (
    GetOp,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchItem,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore, _does_match

import lgkv
from lgkv.langgraph import LgkvStore
from tests.model.embedding import INDEX, WORDS
from tests.model.second_process import SecondProcess

Place = tuple[tuple[str, ...], str]

LABELS = ("a", "ab", "b", "*", "ü x\x01")
NAMESPACES = st.sampled_from(
    [("a",), ("a",), ("a", "b"), ("ab",), ("a", "b", "b"), ("*", "ü x\x01")]
)
PREFIXES = st.sampled_from([(), ("a",), ("a", "b"), ("ab",), ("b",), ("*",)])
PATTERNS = st.lists(st.sampled_from(LABELS), min_size=1, max_size=2).map(tuple)
KEYS = st.sampled_from(["k1", "k2", "k3", "x" * 210])
TEXTS = st.sampled_from(WORDS[:4])
VALUES = st.fixed_dictionaries(
    {"n": st.integers(0, 2), "who": st.fixed_dictionaries({"name": TEXTS})},
    optional={
        "text": TEXTS,
        "notes": st.lists(st.fixed_dictionaries({"text": TEXTS}), max_size=2),
        "tags": st.lists(st.sampled_from("xy"), max_size=2),
    },
)
FIELDS = st.sampled_from(
    [None, None, False, ["text"], ["notes[*].text", "who.name"], ["notes[-1].text"], []]
)
FILTERS = st.sampled_from(
    [
        None,
        None,
        {"n": 1},
        {"n": {"$gt": 0}},
        {"n": {"$gte": 1, "$lt": 2}},
        {"n": {"$ne": 1}, "tags": ["x"]},
        {"who": {"name": WORDS[0]}},
        {"missing": None},
        {"missing": {"$ne": 1}},
    ]
)
QUERIES = st.sampled_from([None, None, "", *WORDS])
LIMITS = st.integers(0, 12)
OFFSETS = st.integers(0, 6)
WAYS = st.sampled_from(["own", "own", "second handle", "second process", "event loop"])

GETS = st.tuples(NAMESPACES, KEYS).map(lambda parts: GetOp(*parts))
PUTS = st.tuples(NAMESPACES, KEYS, st.none() | VALUES, FIELDS).map(lambda parts: PutOp(*parts))
SEARCHES = st.tuples(PREFIXES, FILTERS, LIMITS, OFFSETS, QUERIES).map(
    lambda parts: SearchOp(*parts)
)
CONDITIONS = st.tuples(st.sampled_from(["prefix", "suffix"]), PATTERNS).map(
    lambda parts: MatchCondition(*parts)
)
LISTINGS = st.tuples(
    st.lists(CONDITIONS, max_size=2).map(tuple), st.none() | st.integers(1, 3), LIMITS, OFFSETS
).map(lambda parts: ListNamespacesOp(*parts))


class EmbeddingEachPlace(InMemoryStore):
    """`InMemoryStore`, which refuses a text that an item has twice, without that error."""

    def _insertinmem_store(self, to_embed: dict[str, Any], embeddings: list[Any]) -> None:
        for places, embedding in zip(to_embed.values(), embeddings, strict=True):
            for namespace, key, path in places:
                self._vectors[namespace][key][path] = embedding


class Memory:
    """`InMemoryStore` with its errors put right.

    Searches come newest update first, or by score with what has none at the end, and their
    offset counts both; what was deleted is in no listing; a put replaces the vectors.
    """

    def __init__(self) -> None:
        self.store = EmbeddingEachPlace(index=INDEX)
        self.updates: dict[Place, int] = {}
        self.clock = 0

    def batch(self, ops: list[Op]) -> list[Any]:
        results = [self.read(op) for op in ops]
        puts = {(op.namespace, op.key): op for op in ops if isinstance(op, PutOp)}
        for place, op in puts.items():
            self.store._vectors[op.namespace].pop(op.key, None)
            self.store.batch([copy.deepcopy(op)])
            self.updates.pop(place, None)
            if op.value is not None:
                self.clock += 1
                self.updates[place] = self.clock
        return results

    def read(self, op: Op) -> Any:
        if isinstance(op, GetOp):
            found = (
                self.store.get(op.namespace, op.key)
                if (op.namespace, op.key) in self.updates
                else None
            )
            return found and (found.namespace, found.key, found.value)
        if isinstance(op, SearchOp):
            return self.search(op)
        return self.namespaces(op) if isinstance(op, ListNamespacesOp) else None

    def search(self, op: SearchOp) -> list[Any]:
        found: list[SearchItem] = self.store.search(
            op.namespace_prefix, filter=op.filter, query=op.query, limit=10**6
        )
        scored = [
            (
                None if each.score is None else round(each.score, 5),
                self.updates[each.namespace, each.key],
                each,
            )
            for each in found
        ]
        scored.sort(key=lambda one: (one[0] is None, -(one[0] or 0), -one[1]))
        page = scored[op.offset : op.offset + op.limit]
        return [(each.namespace, each.key, each.value, score) for score, _, each in page]

    def namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        found = {
            namespace[: op.max_depth]
            for namespace, _ in self.updates
            if all(_does_match(condition, namespace) for condition in op.match_conditions or ())
        }
        return sorted(found)[op.offset : op.offset + op.limit]


def seen(result: Any) -> Any:
    """Return a result of the store in the model's form."""
    if isinstance(result, list):
        return [seen(each) for each in result]
    if isinstance(result, SearchItem):
        score = None if result.score is None else round(result.score, 5)
        return (result.namespace, result.key, result.value, score)
    return (
        result
        if result is None or isinstance(result, tuple)
        else (result.namespace, result.key, result.value)
    )


class StoreMachine(RuleBasedStateMachine):
    """One file, four ways into it, and the model."""

    process: SecondProcess

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.path = f"{self.folder}/agent.lgkv"
        self.db = lgkv.open(self.path)
        self.store = LgkvStore(self.db, index=INDEX)
        self.other = lgkv.open(self.path)
        self.model = Memory()
        self.created: dict[Place, Any] = {}

    def teardown(self) -> None:
        if not hasattr(self, "db"):
            return
        for each in self.store.search((), limit=1000):
            self.store.delete(each.namespace, each.key)
        left = self.db.stats().records
        self.process.call(self.path, "store", "close")
        self.other.close()
        self.db.close()
        shutil.rmtree(self.folder)
        assert left.pop("memory") <= 3  # how vectors are made and counted, what is declared, stays
        assert set(left.values()) == {0}

    def batch(self, way: str, ops: list[Op]) -> list[Any]:
        """Execute a batch through one of the ways into the file."""
        if way == "second process":
            return list(self.process.call(self.path, "store", "batch", ops))
        if way == "event loop":
            return asyncio.run(self.store.abatch(ops))
        store = self.store if way == "own" else LgkvStore(self.other, index=INDEX)
        return store.batch(ops)

    # --- operations ---

    @rule(way=WAYS, ops=st.lists(st.one_of(PUTS, GETS, SEARCHES, LISTINGS), min_size=1, max_size=6))
    def mixed_batch(self, way: str, ops: list[Op]) -> None:
        given = copy.deepcopy(ops)
        found = seen(self.batch(way, ops))
        assert ops == given
        assert found == self.model.batch(ops)

    def several_puts(self, way: str, ops: list[Op]) -> None:
        self.batch(way, ops)
        self.model.batch(ops)

    # twice, to come up more often than the rest
    some_puts = rule(way=WAYS, ops=st.lists(PUTS, min_size=1, max_size=3))(several_puts)
    more_puts = rule(way=WAYS, ops=st.lists(PUTS, min_size=1, max_size=3))(several_puts)

    @rule(way=WAYS, op=SEARCHES)
    def search(self, way: str, op: SearchOp) -> None:
        [found] = self.batch(way, [op])
        assert seen(found) == self.model.search(op)

    @rule(way=WAYS, op=LISTINGS)
    def list_namespaces(self, way: str, op: ListNamespacesOp) -> None:
        assert self.batch(way, [op]) == [self.model.namespaces(op)]

    @rule(way=WAYS, namespace=NAMESPACES, key=KEYS)
    def get(self, way: str, namespace: tuple[str, ...], key: str) -> None:
        [found] = self.batch(way, [GetOp(namespace, key)])
        assert seen(found) == self.model.read(GetOp(namespace, key))
        if found is not None:  # it is the caller's own
            found.value.clear()

    # --- the file ---

    @rule(fields=st.sampled_from([{}, {"n": int}, {"n": float, "who.name": str}]))
    def declare_fields(self, fields: dict[str, type]) -> None:
        LgkvStore(self.other, fields=fields)

    @rule()
    def reopen(self) -> None:
        self.other.close()
        self.db.close()
        self.db = lgkv.open(self.path, mode="w")
        self.store = LgkvStore(self.db, index=INDEX)
        self.other = lgkv.open(self.path, mode="w")

    @rule()
    def restart_the_second_process(self) -> None:
        self.process.call(self.path, "store", "close")

    # --- everything ---

    @invariant()
    def everything_is_as_in_memory(self) -> None:
        if not hasattr(self, "db"):
            return
        everything = SearchOp((), None, 1000, 0, None)
        found = self.store.batch([everything])[0]
        assert seen(found) == self.model.search(everything)
        created = {(each.namespace, each.key): each.created_at for each in found}
        for each in found:
            assert each.created_at <= each.updated_at
            before = self.created.get((each.namespace, each.key))
            assert before is None or before == each.created_at  # it survives an update
        self.created = created


@pytest.mark.timeout(600)  # finding the shortest counterexample takes a while
def test_store_does_what_the_memory_store_should(second_process: SecondProcess) -> None:
    StoreMachine.process = second_process
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(max_examples=settings.default.max_examples // 2, stateful_step_count=40),
    )
