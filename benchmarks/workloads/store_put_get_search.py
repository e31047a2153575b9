"""store_put_get_search: long-term memory, by key, by filter and by meaning."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from langgraph.store.base import GetOp, PutOp

from benchmarks import corpus
from benchmarks.measures import Filled, Measure, Sizes

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore

    from benchmarks.backends import Opened

__all__ = ["StorePutGetSearch"]

BATCH = 100
PAGE = 10
USERS = 100
FILTER = {"kind": "preference", "importance": {"$gte": 5}}


class StorePutGetSearch:
    """`items` facts about users, and `vectors` documents that can be searched by meaning."""

    name: ClassVar[str] = "store_put_get_search"
    measure_names: ClassVar[tuple[str, ...]] = (
        "put", "put_batch_of_100", "get", "get_batch_of_100", "search_prefix", "search_filtered",
        "list_namespaces", "put_vector", "search_vector", "search_vector_filtered",
    )  # fmt: skip

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    def fill(self, opened: Opened[BaseStore]) -> Iterator[Filled]:
        """Put facts, then documents with vectors, in large batches."""
        rng = random.Random("store_put_get_search")
        puts = [_put_fact(number, corpus.fact(rng)) for number in range(self._sizes.items)]
        _put_all(opened.subject, puts)
        yield Filled(f"{self._sizes.items} items")
        if "vectors" not in opened.backend.lacks:
            documents = (_put_document(f"d{n}", rng) for n in range(self._sizes.vectors))
            _put_all(opened.subject, documents)
            yield Filled(f"{self._sizes.items} items, {self._sizes.vectors} vectors")

    def measures(self, opened: Opened[BaseStore]) -> list[Measure]:
        """Return measures of single and batched operations."""
        rng = random.Random("measures")
        return [*self._by_key(opened, rng), *self._by_content(opened), *self._by_meaning(opened)]

    def _by_key(self, opened: Opened[BaseStore], rng: random.Random) -> list[Measure]:
        calls = self._sizes.calls
        numbers = itertools.count(self._sizes.items)

        def next_put() -> PutOp:
            return _put_fact(next(numbers), corpus.fact(rng))

        def some_item() -> GetOp:
            number = rng.randrange(self._sizes.items)
            return GetOp(_user_namespace(number), f"f{number}")

        def put(op: PutOp) -> None:
            opened.subject.put(op.namespace, op.key, op.value or {}, index=False)

        def get(op: GetOp) -> object:
            return opened.subject.get(op.namespace, op.key)

        def put_batch(ops: list[PutOp]) -> None:
            opened.subject.batch(ops)

        def get_batch(ops: list[GetOp]) -> list[Any]:
            return [item for item in opened.subject.batch(ops) if item is not None]

        return [
            Measure("put", put, calls(50), lambda: (next_put(),)),
            Measure("put_batch_of_100", put_batch, calls(5), lambda: (_some(next_put),)),
            Measure("get", get, calls(200), lambda: (some_item(),)),
            Measure("get_batch_of_100", get_batch, calls(10), lambda: (_some(some_item),)),
        ]

    def _by_content(self, opened: Opened[BaseStore]) -> list[Measure]:
        calls = self._sizes.calls

        def search_prefix() -> list[Any]:
            return opened.subject.search(_user_namespace(1), limit=PAGE)

        def search_filtered() -> list[Any]:
            return opened.subject.search(("users",), filter=FILTER, limit=PAGE)

        def list_namespaces() -> list[Any]:
            return opened.subject.list_namespaces(prefix=("users",), limit=USERS)

        return [
            Measure("search_prefix", search_prefix, calls(10)),
            Measure("search_filtered", search_filtered, calls(5)),
            Measure("list_namespaces", list_namespaces, calls(5)),
        ]

    def _by_meaning(self, opened: Opened[BaseStore]) -> list[Measure]:
        calls = self._sizes.calls
        rng = random.Random("meaning")
        numbers = itertools.count()

        def next_document() -> tuple[PutOp]:
            op = _put_document(f"new-{next(numbers)}", rng)
            return (_embedded(op),)

        def put(op: PutOp) -> None:
            opened.subject.batch([op])

        def query() -> tuple[str]:
            text = corpus.topic_text(rng)
            corpus.embed([text])
            return (text,)

        def search(text: str) -> list[Any]:
            return opened.subject.search(("docs",), query=text, limit=PAGE)

        def search_filtered(text: str) -> list[Any]:
            return opened.subject.search(("docs",), query=text, filter=FILTER, limit=PAGE)

        return [
            Measure("put_vector", put, calls(20), next_document, needs="vectors"),
            Measure("search_vector", search, calls(20), query, needs="vectors"),
            Measure("search_vector_filtered", search_filtered, calls(20), query, needs="vectors"),
        ]


def _user_namespace(number: int) -> tuple[str, ...]:
    return ("users", f"user-{number % USERS}", "facts")


def _put_fact(number: int, value: dict[str, Any]) -> PutOp:
    return PutOp(_user_namespace(number), f"f{number}", value, index=False)


def _put_document(key: str, rng: random.Random) -> PutOp:
    value = {**corpus.fact(rng), "text": corpus.topic_text(rng)}
    return PutOp(("docs", rng.choice(("notes", "letters"))), key, value)


def _embedded(op: PutOp) -> PutOp:
    """Return *op* after its text was embedded once, so that embedding it again costs nothing."""
    corpus.embed([op.value["text"]] if op.value else [])
    return op


def _some(make: Any) -> list[Any]:
    return [make() for _ in range(BATCH)]


def _put_all(store: BaseStore, ops: Any) -> None:
    remaining: Iterator[PutOp] = iter(ops)
    while batch := list(itertools.islice(remaining, 500)):
        store.batch(batch)
