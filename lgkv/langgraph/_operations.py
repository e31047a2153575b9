"""A batch of LangGraph's operations: checked, read, and made into puts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from langgraph.store.base import (
    GetOp,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    validate_op_namespace,
)

from lgkv.errors import InvalidInputError
from lgkv.expiry import ttl_us
from lgkv.filters import validate_filter
from lgkv.langgraph._embedding import Embedded, TextIndex
from lgkv.memory import MemoryView, PutFields, StoredItem, check_page
from lgkv.vectors import VectorSet

__all__ = [
    "FoundItem",
    "Namespaces",
    "Operations",
    "check_read",
    "search_items",
    "seconds",
    "to_item",
]

MAX_NAMESPACES: Final = 10_000
"""As many namespaces are remembered as sound."""


class FoundItem(SearchItem):
    """An item that a search found; `parts` are the scores that its own is made of.

    They are named "vector" and "keyword". What has no score is a plain `SearchItem`.
    """

    __slots__ = ("parts",)

    parts: Mapping[str, float]


class Namespaces:
    """The namespaces that items may be in, each checked once."""

    def __init__(self) -> None:
        self._sound: set[tuple[str, ...]] = set()

    def check(self, namespace: Any) -> None:
        """Raise unless `namespace` is a tuple of labels that LangGraph allows."""
        try:
            if namespace in self._sound and type(namespace) is tuple:
                return
        except TypeError:  # no tuple of str can do that: it is said below
            pass
        if not isinstance(namespace, tuple):
            raise InvalidInputError(
                f"a namespace is a tuple of labels, not {namespace!r}: write ('users', '42')"
            )
        validate_op_namespace(GetOp(namespace, ""))
        if len(self._sound) >= MAX_NAMESPACES:
            self._sound = set()
        self._sound.add(namespace)


@dataclass(slots=True)
class Operations:
    """A batch, checked: its operations, the last put of each item, the texts to embed.

    Of each put there are the key and the paths of its texts, which stand in one list of all.
    """

    ops: list[Op]
    puts: list[PutOp] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    paths: list[tuple[str, ...]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    reads: bool = False
    """Whether any operation reads."""

    @classmethod
    def of(cls, ops: Iterable[Op], namespaces: Namespaces, index: TextIndex | None) -> Operations:
        """Return the batch of `ops`.

        Raises:
            InvalidInputError: One of them is not usable.
            InvalidNamespaceError: A namespace's label is empty, or holds a period or NUL.
        """
        batch = cls(list(ops))
        puts = batch.puts
        known: dict[tuple[str, ...], dict[str, int]] = {}
        for op in batch.ops:
            if isinstance(op, PutOp):
                namespace = op.namespace
                try:
                    numbers = known.get(namespace)
                except TypeError:  # no tuple of str can do that: it is said below
                    numbers = None
                if numbers is None or type(namespace) is not tuple:
                    namespaces.check(namespace)
                    numbers = known.setdefault(namespace, {})
                key = op.key
                key = key if type(key) is str else str(key)
                number = numbers.setdefault(key, len(puts))
                if number == len(puts):
                    puts.append(op)
                    batch.keys.append(key)
                else:
                    puts[number] = op
                continue
            batch.reads = True
            check_read(op, namespaces)
            if isinstance(op, SearchOp) and op.query and op.query not in batch.queries:
                batch.queries.append(op.query)
        if index is not None:
            batch.paths = [index.add_texts(op, batch.texts) for op in puts]
        return batch

    @property
    def documents(self) -> list[str]:
        """The texts to embed, each once."""
        return list(dict.fromkeys(self.texts))

    def read(self, view: MemoryView, embedded: Embedded, index: TextIndex | None) -> list[Result]:
        """Return the results, those of puts being None."""
        return [_read_one(view, op, embedded, index) for op in self.ops]

    def to_put(self, embedded: Embedded, index: TextIndex | None) -> Iterator[PutFields]:
        """Yield the puts as `db.memory` takes them: it needs each but once."""
        if index is None:
            for op, key in zip(self.puts, self.keys, strict=True):
                ttl = op.ttl
                yield op.namespace, key, op.value, None, ttl if ttl is None else seconds(ttl), None
            return
        numbers, rows, stop = embedded.documents, embedded.rows, 0
        for op, key, paths in zip(self.puts, self.keys, self.paths, strict=True):
            start, stop = stop, stop + len(paths)
            texts, vectors, words = self.texts[start:stop], None, None
            if rows is not None:
                vectors = VectorSet.among(paths, rows, [numbers[text] for text in texts])
            if index.has_words and texts:
                words = texts
            yield op.namespace, key, op.value, vectors, seconds(op.ttl), words


# --- one operation -------------------------------------------------------------------------


def check_read(op: Op, namespaces: Namespaces) -> None:
    """Raise unless `op` is an operation that can be executed."""
    if isinstance(op, GetOp):
        namespaces.check(op.namespace)
    elif isinstance(op, SearchOp):
        namespaces.check(op.namespace_prefix)
        validate_filter(op.filter)
        check_page(op.limit, op.offset)
    elif isinstance(op, ListNamespacesOp):
        check_page(op.limit, op.offset)
        for condition in op.match_conditions or ():
            if condition.match_type not in ("prefix", "suffix"):
                raise InvalidInputError(
                    f"unknown match type {condition.match_type!r}: use 'prefix' or 'suffix'"
                )
            if not isinstance(condition.path, (tuple, list)):
                raise InvalidInputError(
                    f"a path to match is a tuple of labels, not {condition.path!r}"
                )
        validate_op_namespace(op)
    else:
        raise InvalidInputError(
            f"unknown operation {op!r}: use GetOp, SearchOp, PutOp or ListNamespacesOp"
        )


def _read_one(view: MemoryView, op: Op, embedded: Embedded, index: TextIndex | None) -> Result:
    if isinstance(op, GetOp):
        found = view.get(op.namespace, str(op.key), refresh=op.refresh_ttl)
        return None if found is None else to_item(found)
    if isinstance(op, SearchOp):
        return search_items(view, op, embedded, index)
    if isinstance(op, ListNamespacesOp):
        conditions = op.match_conditions or ()
        return view.namespaces(
            prefixes=[each.path for each in conditions if each.match_type == "prefix"],
            suffixes=[each.path for each in conditions if each.match_type == "suffix"],
            max_depth=op.max_depth,
            limit=op.limit,
            offset=op.offset,
        )
    return None


def search_items(
    view: MemoryView, op: SearchOp, embedded: Embedded, index: TextIndex | None
) -> list[SearchItem]:
    """Return what a search finds, which was checked, and its query embedded if it has one."""
    found = view.search(
        op.namespace_prefix,
        filter=op.filter,
        vector=embedded.queries.get(op.query) if op.query else None,
        text=op.query if op.query and index is not None and index.has_words else None,
        limit=op.limit,
        offset=op.offset,
        refresh=op.refresh_ttl,
        config=None if index is None else index.vectors,
    )
    return [_search_item(stored) for stored in found]


def to_item(stored: StoredItem) -> Item:
    """Return a stored item as LangGraph has it."""
    namespace, key, value, created_at, updated_at, _, _, _ = stored
    return Item(
        value=value, key=key, namespace=namespace, created_at=created_at, updated_at=updated_at
    )


def _search_item(stored: StoredItem) -> SearchItem:
    namespace, key, value, created_at, updated_at, score, _, parts = stored
    kind = SearchItem if parts is None else FoundItem
    item = kind(namespace, key, value, created_at, updated_at, score)
    if isinstance(item, FoundItem) and parts is not None:
        item.parts = parts
    return item


def seconds(minutes: float | None) -> float | None:
    """Return a time to live in seconds, checked."""
    if minutes is None:
        return None
    ttl_us(minutes)  # refuses what is not a number
    return minutes * 60
