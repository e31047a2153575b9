"""Long-term memory: items by namespace and key, found by filter, by recency, by meaning."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from lgkv.connection import Connection
from lgkv.errors import InvalidInputError
from lgkv.expiry import due, now_us
from lgkv.layout import Kind
from lgkv.memory.checks import check_page
from lgkv.memory.fields import read_fields, write_fields
from lgkv.memory.nearest import Meaning
from lgkv.memory.preparing import Put, PutFields, prepare
from lgkv.memory.semantic import Vectors
from lgkv.memory.view import MemoryView, SearchPlan, StoredItem
from lgkv.memory.writing import SWEEP_ITEMS, sweep
from lgkv.memory.writing import apply as apply_puts
from lgkv.nodes import Paths
from lgkv.vectors import IndexConfig, VectorIndex, VectorState, common_dims
from lgkv.writer import Batch, Change

__all__ = [
    "SWEEP_ITEMS",
    "Memory",
    "MemoryView",
    "Put",
    "PutFields",
    "SearchPlan",
    "StoredItem",
    "Vectors",
    "check_page",
]


IMPORTED_AT_ONCE: Final = 1000
"""So many items are stored with one flush: more gain little, and others wait longer."""

SHORT_PUTS: Final = 8
SHORT_BYTES: Final = 64 << 10
"""While no more is stored than this, without vectors and words, others may wait."""


class Memory:
    """The items of one database: `db.memory`.

    `clock` gives the time in microseconds since 1970.
    """

    def __init__(self, connection: Connection, *, clock: Callable[[], int] = now_us) -> None:
        self._connection = connection
        self._paths = Paths()
        self._meaning = Meaning(connection.companion(VectorIndex, VectorIndex))
        self.clock = clock

    # --- reading ---

    def view(self, *, omit_expired: bool = True) -> MemoryView:
        """Return a view of the newest commit, to be used in a `with` statement."""
        snapshot = self._connection.snapshot()
        ended_by = self.clock() if omit_expired else 0
        return MemoryView(snapshot, self.clock, self._paths, self._meaning, ended_by)

    def get(self, namespace: tuple[str, ...], key: str) -> StoredItem | None:
        """Return the item, or None if there is none or it has expired."""
        with self.view() as view:
            return view.get(namespace, key)

    def search(
        self,
        prefix: tuple[str, ...],
        *,
        filter: Mapping[str, Any] | None = None,
        vector: Any = None,
        text: str | None = None,
        mode: str | None = None,
        limit: int = 10,
        offset: int = 0,
    ) -> list[StoredItem]:
        """Return items in `prefix` and the namespaces below it that `filter` keeps.

        With neither vector nor text they come newest update first. `mode` is "vector",
        "keyword" or "hybrid"; None goes by what is given.

        "vector": the nearest by cosine similarity come first, an item counting as its best
        vector does; items that have no vector follow, with score None. "keyword": the items
        that say a word of `text`, best BM25 score first; the counts behind the scores are
        those of `prefix`. "hybrid": the best 200 of both, by reciprocal rank fusion; each
        item's `parts` have its scores in either. Equal scores go by the newest update.

        Raises:
            FilterError: The filter has an unknown operator or a wrong operand.
            DimensionMismatchError: The vector is not of the file's dimensions.
            InvalidInputError: `mode` is none of these, or what it needs is missing.
        """
        with self.view() as view:
            return view.search(
                prefix,
                filter=filter,
                vector=vector,
                text=text,
                mode=mode,
                limit=limit,
                offset=offset,
            )

    def namespaces(
        self,
        *,
        prefix: tuple[str, ...] | None = None,
        suffix: tuple[str, ...] | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[tuple[str, ...]]:
        """Return the namespaces that hold items, sorted, cut to `max_depth` labels.

        "*" in `prefix` and `suffix` stands for any label.
        """
        with self.view() as view:
            return view.namespaces(
                prefixes=(prefix,) if prefix else (),
                suffixes=(suffix,) if suffix else (),
                max_depth=max_depth,
                limit=limit,
                offset=offset,
            )

    def explain(
        self, prefix: tuple[str, ...], *, filter: Mapping[str, Any] | None = None
    ) -> SearchPlan:
        """Return how `search` would look for this without a vector, and why.

        Raises:
            FilterError: As `search` does.
        """
        with self.view() as view:
            return view.explain(prefix, filter=filter)

    # --- declared fields ---

    @property
    def fields(self) -> dict[str, str]:
        """The declared fields, each with what it sorts as: text, bytes, number or time."""
        with self._connection.snapshot() as snapshot:
            return {name: sort for name, (_, sort) in read_fields(snapshot).fields.items()}

    def declare_fields(self, fields: Mapping[str, type]) -> None:
        """Declare which fields of items have an index, in place of what was declared before.

        `fields` has a type for each name: str, bytes, int, float, bool, Decimal or datetime;
        numbers are of one kind. A name with dots is a path, as "meta.user". Filters that
        compare such a field with a value of its type, by equality, `$in` or bounds, then read
        what can match and not every item. The declaration is part of the file: every process
        keeps the index from here on. Items that are there already are indexed at once, in one
        commit; a declaration that is the file's own writes nothing.

        Raises:
            InvalidInputError: A name is empty, or a type is not one of these.
        """
        with self._connection.snapshot() as snapshot:
            before = read_fields(snapshot)
        if before.declare(fields).fields != before.fields:
            self._connection.commit(Change(lambda batch: write_fields(batch, fields)))

    # --- writing ---

    def put(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        *,
        vectors: Any = None,
        ttl_seconds: float | None = None,
        text: str | Sequence[str] | None = None,
    ) -> None:
        """Store an item, replacing its value, its vectors, its words and its time to live.

        `vectors` is a mapping from field paths to vectors, a list of vectors, or one vector.
        `text`, a str or a list of them, is what a search by words finds the item by.

        Raises:
            InvalidInputError: The namespace, the value or a vector cannot be stored.
            DimensionMismatchError: The vectors are not of the file's dimensions.
        """
        if value is None:
            raise InvalidInputError(
                "a value is a mapping, not None: use delete() to remove an item"
            )
        self.put_many([Put(namespace, key, value, vectors, ttl_seconds, text)])

    def delete(self, namespace: tuple[str, ...], key: str) -> None:
        """Delete an item with its vectors, if it is there."""
        self.put_many([Put(namespace, key, None)])

    def put_many(self, puts: Iterable[Put]) -> None:
        """Store and delete items in one commit; the last put of an item counts."""
        self._connection.commit(self.change(puts))

    def import_items(
        self,
        puts: Iterable[Put],
        *,
        config: IndexConfig | None = None,
        batch_size: int = IMPORTED_AT_ONCE,
    ) -> int:
        """Store any number of items, `batch_size` of them a commit; return how many.

        What was stored when an error ends it stays. The graph is built once nothing was put for
        a while; searches are right before. `config` is as for `change`.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise InvalidInputError(f"batch_size is {batch_size!r}: give a whole number, 1 or more")
        several, total = iter(puts), 0
        while part := list(islice(several, batch_size)):
            self._connection.commit(self.change(part, (), config))
            total += len(part)
        return total

    def change(
        self,
        puts: Iterable[PutFields],
        refresh: Collection[bytes] = (),
        config: IndexConfig | None = None,
    ) -> Change[None]:
        """Return the change that `put_many` commits, all of it checked and encoded.

        It also moves the deadlines of the items in `refresh`, a view's `to_refresh`. `config`
        says how the vectors are to be compared and stored, if these are the file's first, and
        is checked against what the file has if they are not.
        """
        now = self.clock()
        prepared = prepare(puts)
        dims = common_dims(prepared.vectors.values())
        after: list[VectorState] = []

        def apply(batch: Batch) -> None:
            state = apply_puts(batch, prepared, refresh, now, config)
            after[:] = [] if state is None else [state]

        def committed(_: None) -> None:
            if after and dims is not None:
                self._meaning.index.noticed(after[0], dims)

        few = len(prepared.keys) + len(prepared.deleted) + len(refresh) <= SHORT_PUTS
        small = sum(map(len, prepared.encoded)) <= SHORT_BYTES
        is_short = few and small and not prepared.vectors and not prepared.words
        return Change(apply, committed, is_short)

    # --- expiry ---

    def sweep(self) -> int:
        """Delete the items that have expired, at most 1,000 a commit; return how many."""
        total = 0
        while self.has_due():
            total += self._connection.commit(self.sweep_change())
        return total

    def has_due(self) -> bool:
        """Whether an item has expired and was not swept yet."""
        with self._connection.snapshot() as snapshot:
            return any(True for _ in due(snapshot, Kind.ITEM_DEADLINE, self.clock()))

    def sweep_change(self) -> Change[int]:
        """Return a change that deletes up to 1,000 expired items and gives their number."""
        now = self.clock()
        return Change(lambda batch: sweep(batch, now))
