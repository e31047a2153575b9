"""store_items, store_words: the store without vectors, by key, by filter and by words."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final

from langgraph.store.base import PutOp

from benchmarks import corpus
from benchmarks.measures import Filled, Measure, Sizes

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore

    from benchmarks.backends import Opened

__all__ = ["StoreItems", "StoreWords", "put_op"]

BATCH: Final = 500
PAGE: Final = 10
SPACES: Final = 100
USERS: Final = 500


class StoreItems:
    """`items` facts in `SPACES` namespaces about `USERS` users, put in batches of `BATCH`."""

    name: ClassVar[str] = "store_items"
    measure_names: ClassVar[tuple[str, ...]] = (
        "put", "put_again", "put_batch_of_500", "get", "search_newest", "search_found_early",
        "search_found_nowhere", "search_of_a_user", "list_namespaces",
    )  # fmt: skip

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    def fill(self, opened: Opened[BaseStore]) -> Iterator[Filled]:
        """Put the items in batches."""
        rng = random.Random("store_items")
        puts = (put_op(number, rng) for number in range(self._sizes.items))
        while batch := list(itertools.islice(puts, BATCH)):
            opened.subject.batch(batch)
        yield Filled(f"{self._sizes.items} items")

    def measures(self, opened: Opened[BaseStore]) -> list[Measure]:
        """Return measures of writing, of reading by key, and of searches."""
        rng = random.Random("measures")
        return [*self._by_key(opened, rng), *self._by_content(opened)]

    def _by_key(self, opened: Opened[BaseStore], rng: random.Random) -> list[Measure]:
        calls, items = self._sizes.calls, self._sizes.items
        numbers = itertools.count(items)

        def put(op: PutOp) -> None:
            opened.subject.put(op.namespace, op.key, op.value or {}, index=op.index)

        def put_batch(ops: list[PutOp]) -> None:
            opened.subject.batch(ops)

        def get(op: PutOp) -> object:
            return opened.subject.get(op.namespace, op.key)

        def next_batch() -> tuple[list[PutOp]]:
            return ([put_op(next(numbers), rng) for _ in range(BATCH)],)

        return [
            Measure("put", put, calls(50), lambda: (put_op(next(numbers), rng),)),
            Measure("put_again", put, calls(50), lambda: (put_op(rng.randrange(items), rng),)),
            Measure("put_batch_of_500", put_batch, calls(5), next_batch),
            Measure("get", get, calls(500), lambda: (put_op(rng.randrange(items), rng),)),
        ]

    def _by_content(self, opened: Opened[BaseStore]) -> list[Measure]:
        calls = self._sizes.calls

        def search(filter: dict[str, Any] | None = None) -> list[Any]:
            return opened.subject.search(("spaces",), filter=filter, limit=PAGE)

        def list_namespaces() -> list[Any]:
            return opened.subject.list_namespaces(prefix=("spaces",), limit=SPACES)

        early, nowhere = {"kind": "preference", "importance": {"$gte": 5}}, {"kind": "none such"}
        user = {"user": f"user-{USERS // 2}"}
        return [
            Measure("search_newest", search, calls(5)),
            Measure("search_found_early", lambda: search(early), calls(5)),
            Measure("search_found_nowhere", lambda: search(nowhere), calls(3)),
            Measure("search_of_a_user", lambda: search(user), calls(5)),
            Measure("list_namespaces", list_namespaces, calls(5)),
        ]


class StoreWords:
    """`items` facts whose texts are searched by their words."""

    name: ClassVar[str] = "store_words"
    measure_names: ClassVar[tuple[str, ...]] = ("put", "search_rare_word", "search_words")

    def __init__(self, sizes: Sizes) -> None:
        self._items = StoreItems(sizes)
        self._sizes = sizes

    def fill(self, opened: Opened[BaseStore]) -> Iterator[Filled]:
        """Put the items in batches, and one that says what no other does."""
        opened.subject.put(("spaces", "rare"), "rare", {"text": "the rare chinchilla"})
        yield from self._items.fill(opened)

    def measures(self, opened: Opened[BaseStore]) -> list[Measure]:
        """Return measures of a put and of searches."""
        calls, rng = self._sizes.calls, random.Random("words")
        numbers = itertools.count(self._sizes.items)

        def put(op: PutOp) -> None:
            opened.subject.batch([op])

        def search(query: str) -> list[Any]:
            return opened.subject.search(("spaces",), query=query, limit=PAGE)

        return [
            Measure("put", put, calls(20), lambda: (put_op(next(numbers), rng),)),
            Measure("search_rare_word", lambda: search("chinchilla"), calls(20)),
            Measure("search_words", lambda: search("garden invoice"), calls(5)),
        ]


def put_op(number: int, rng: random.Random) -> PutOp:
    """Return the put of an item: a fact about a user, in one of the spaces."""
    space = ("spaces", f"space-{number % SPACES}", "facts")
    return PutOp(space, f"f{number}", {**corpus.fact(rng), "user": f"user-{number % USERS}"})
