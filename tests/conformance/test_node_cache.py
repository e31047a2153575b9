"""LgkvCache: what LangGraph's cache interface asks for, and a graph that uses it."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from collections import OrderedDict
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.cache.base import BaseCache
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import StateGraph
from langgraph.types import CachePolicy

import lgkv
from lgkv.errors import ClosedError, InvalidInputError, UnregisteredTypeError
from lgkv.langgraph import LgkvCache, aio

A, AB = ("node", "a"), ("node", "a", "b")


class Clock:
    """A clock that a test moves, in seconds."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def __call__(self) -> int:
        return int(self.seconds * 1_000_000)


@pytest.fixture
def cache(db: lgkv.Database) -> LgkvCache[Any]:
    return LgkvCache(db)


@pytest.fixture
def clock(db: lgkv.Database) -> Clock:
    db.cache.clock = clock = Clock()
    return clock


def test_cache_is_a_base_cache(cache: LgkvCache[Any]) -> None:
    assert isinstance(cache, BaseCache)
    assert aio.AsyncLgkvCache is LgkvCache


def test_values_come_back_by_namespace_and_key(cache: LgkvCache[Any]) -> None:
    message = HumanMessage("hello", id="1")
    cache.set(
        {(A, "k"): ([message, {1, 2}], None), (A, "none"): (None, 60), (AB, "k"): (b"\0", 60)}
    )
    found = cache.get([(A, "k"), (A, "none"), (AB, "k"), (AB, "nothing"), (("no",), "k")])
    assert found == {(A, "k"): [message, {1, 2}], (A, "none"): None, (AB, "k"): b"\0"}
    assert cache.get([]) == {}


async def test_awaited_calls_do_the_same(cache: LgkvCache[Any]) -> None:
    await cache.aset({(A, "k"): ("v", None), (AB, "k"): ("w", 60)})
    assert await cache.aget([(A, "k"), (AB, "k")]) == {(A, "k"): "v", (AB, "k"): "w"}
    await cache.aclear([A])
    assert await cache.aget([(A, "k"), (AB, "k")]) == {(AB, "k"): "w"}
    await cache.aclear()
    assert cache.get([(AB, "k")]) == {}


def test_time_to_live_is_in_seconds(cache: LgkvCache[Any], clock: Clock) -> None:
    cache.set({(A, "k"): (1, 10), (A, "forever"): (2, None), (A, "never"): (3, 0)})
    clock.seconds += 9
    assert cache.get([(A, "k"), (A, "forever"), (A, "never")]) == {(A, "k"): 1, (A, "forever"): 2}
    clock.seconds += 1
    assert cache.get([(A, "k"), (A, "forever")]) == {(A, "forever"): 2}
    cache.set({(A, "k"): (4, None)})
    clock.seconds += 10**6
    assert cache.get([(A, "k")]) == {(A, "k"): 4}


def test_clearing_takes_namespaces_or_all(cache: LgkvCache[Any]) -> None:
    namespaces = [A, AB, ("node",), ("a,b",), ("a", "b"), ()]
    cache.set({(namespace, "k"): (number, 60) for number, namespace in enumerate(namespaces)})
    cache.clear([A, ("a", "b"), ("nobody",)])
    left = cache.get([(namespace, "k") for namespace in namespaces])
    assert left == {(AB, "k"): 1, (("node",), "k"): 2, (("a,b",), "k"): 3, ((), "k"): 5}
    cache.clear([])
    assert len(cache.get([(namespace, "k") for namespace in namespaces])) == 4
    cache.clear()
    assert cache.get([(namespace, "k") for namespace in namespaces]) == {}


def test_all_pairs_share_one_commit(db: lgkv.Database, cache: LgkvCache[Any]) -> None:
    commits = db.stats().commits
    cache.set({((str(number),), "k"): (number, None) for number in range(10)})
    assert db.stats().commits == commits + 1


def test_values_are_the_callers_own(cache: LgkvCache[Any]) -> None:
    value = {"list": [1]}
    cache.set({(A, "k"): (value, None)})
    value["list"].append(2)
    cache.get([(A, "k")])[A, "k"]["list"].append(3)
    assert cache.get([(A, "k")]) == {(A, "k"): {"list": [1]}}


@pytest.mark.parametrize("name", ["x" * 100_000, "", ".", "a,b", "\x00", "\ud800", "😀"])
def test_names_are_unbounded(cache: LgkvCache[Any], name: str) -> None:
    cache.set({((name,), name): (1, None), ((name, "x"), name): (2, None)})
    assert cache.get([((name,), name)]) == {((name,), name): 1}
    cache.clear([(name,)])
    assert cache.get([((name,), name), ((name, "x"), name)]) == {((name, "x"), name): 2}


@dataclasses.dataclass
class Stranger:
    """A type that no schema names."""

    v: int = 1


def test_unregistered_type_is_named_and_not_rebuilt(cache: LgkvCache[Any]) -> None:
    cache.set({(A, "k"): (Stranger(), None)})
    with pytest.raises(UnregisteredTypeError, match="Stranger"):
        cache.get([(A, "k")])


def test_another_serialiser_may_be_given(db: lgkv.Database) -> None:
    cache: LgkvCache[Any] = LgkvCache(db, serde=JsonPlusSerializer(allowed_msgpack_modules=True))
    cache.set({(A, "k"): (OrderedDict(a=1), None)})
    assert cache.get([(A, "k")]) == {(A, "k"): {"a": 1}}


@pytest.mark.parametrize(
    ("pairs", "named"),
    [
        ({(A, "k"): (lambda: 0, None)}, "cannot be stored"),
        ({(A, 5): (1, None)}, "key is a str"),
        ({((5,), "k"): (1, None)}, "namespace is a tuple"),
        ({(A, "k"): (1, -1)}, "time to live"),
        ({(A, "k"): (1, "5")}, "time to live"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    db: lgkv.Database, cache: LgkvCache[Any], pairs: Any, named: str
) -> None:
    before = db.stats().last_commit
    with pytest.raises(InvalidInputError, match=named):
        cache.set({(A, "good"): (1, None), **pairs})
    assert db.stats().last_commit == before


def test_cache_gives_what_the_cache_in_memory_gives(cache: LgkvCache[Any]) -> None:
    reference: InMemoryCache[Any] = InMemoryCache()
    names = [((), "k"), (("a",), "k"), (("a",), "l"), (("a", "b"), "k")]
    for step in range(12):
        pairs = {names[step % 4]: (step, None), names[step * 3 % 4]: ([step], 1_000)}
        for one in (reference, cache):
            one.set(pairs)
            if step % 5 == 4:
                one.clear([names[step % 4][0]])
        assert cache.get(names) == reference.get(names)


# --- the file ------------------------------------------------------------------------------

CHILD = """
import sys
from lgkv.langgraph import LgkvCache
with LgkvCache.from_conn_string(sys.argv[1]) as cache:
    assert cache.get([(("node", "a"), "k")]) == {(("node", "a"), "k"): {"v": 1}}
    cache.set({(("child",), "k"): (2, None)})
    cache.clear([("node", "a")])
"""


def test_cache_is_shared_with_other_processes_and_survives_reopening(path: str) -> None:
    with LgkvCache.from_conn_string(path) as cache:
        cache.set({(A, "k"): ({"v": 1}, None)})
        subprocess.run([sys.executable, "-c", CHILD, path], check=True, timeout=60)
        assert cache.get([(A, "k"), (("child",), "k")]) == {(("child",), "k"): 2}
    with LgkvCache.from_conn_string(path, mode="r") as cache:
        assert cache.get([(("child",), "k")]) == {(("child",), "k"): 2}
    with pytest.raises(ClosedError):
        cache.get([(A, "k")])


async def test_cache_is_an_async_context_manager(path: str) -> None:
    async with LgkvCache.from_conn_string(path) as cache:
        await cache.setup()
        await asyncio.gather(*(cache.aset({(A, str(n)): (n, None)}) for n in range(50)))
        assert len(await cache.aget([(A, str(n)) for n in range(60)])) == 50


class State(TypedDict):
    """One number and the answer to it."""

    number: int
    answer: list[AIMessage]


def test_node_with_a_cache_policy_runs_once(path: str) -> None:
    runs: list[int] = []

    def square(state: State) -> dict[str, Any]:
        runs.append(state["number"])
        return {"answer": [AIMessage(str(state["number"] ** 2), id="1")]}

    builder = StateGraph(State)
    builder.add_node("square", square, cache_policy=CachePolicy(ttl=60))
    builder.set_entry_point("square")
    builder.set_finish_point("square")
    for _ in range(2):
        with LgkvCache.from_conn_string(path) as cache:
            graph = builder.compile(cache=cache)
            for number in (3, 4, 3):
                answer = graph.invoke({"number": number, "answer": []})["answer"]
                assert answer == [AIMessage(str(number**2), id="1")]
    assert runs == [3, 4]


async def test_node_with_a_cache_policy_runs_once_awaited(path: str) -> None:
    runs: list[int] = []

    async def square(state: State) -> dict[str, Any]:
        runs.append(state["number"])
        return {"answer": [AIMessage(str(state["number"] ** 2), id="1")]}

    builder = StateGraph(State)
    builder.add_node("square", square, cache_policy=CachePolicy(ttl=60))
    builder.set_entry_point("square")
    builder.set_finish_point("square")
    async with LgkvCache.from_conn_string(path) as cache:
        graph = builder.compile(cache=cache)
        for number in (3, 4, 3):
            await graph.ainvoke({"number": number, "answer": []})
        assert runs == [3, 4]
        await graph.aclear_cache()
        await graph.ainvoke({"number": 3, "answer": []})
    assert runs == [3, 4, 3]
