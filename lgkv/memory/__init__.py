"""Long-term memory: items by namespace and key, found by filter, by recency, by meaning."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from lgkv.connection import Connection
from lgkv.errors import InvalidInputError
from lgkv.expiry import due, is_past, move_deadline, now_us, ttl_us
from lgkv.layout import Kind, Table
from lgkv.memory.items import (
    ItemRecord,
    encode_value,
    item_key,
    item_suffix,
    node_of,
    pack_item,
    unpack_item,
    whole_key,
)
from lgkv.memory.view import MemoryView, StoredItem, check_key, check_namespace, check_page
from lgkv.nodes import Tree
from lgkv.vectors import VectorSet, common_dims, pack_vectors, set_dims, vector_set
from lgkv.writer import Batch, Change

__all__ = ["SWEEP_ITEMS", "Memory", "MemoryView", "Put", "StoredItem", "check_page"]

SWEEP_ITEMS: Final = 1000
"""The most expired items that one commit deletes: others need not wait long for the lock."""


@dataclass(frozen=True, slots=True)
class Put:
    """An item to store; with `value` None, to delete.

    `vectors` is a mapping from field paths to vectors, a list of vectors, one vector, or None.
    """

    namespace: tuple[str, ...]
    key: str
    value: Mapping[str, Any] | None
    vectors: Any = None
    ttl_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A put, checked and encoded outside every lock."""

    namespace: tuple[str, ...]
    key: str
    encoded: bytes | None
    vectors: VectorSet | None
    ttl_us: int


class Memory:
    """The items of one database: `db.memory`.

    `clock` gives the time in microseconds since 1970.
    """

    def __init__(self, connection: Connection, *, clock: Callable[[], int] = now_us) -> None:
        self._connection = connection
        self.clock = clock

    # --- reading ---

    def view(self, *, omit_expired: bool = True) -> MemoryView:
        """Return a view of the newest commit, to be used in a `with` statement."""
        return MemoryView(self._connection.snapshot(), self.clock(), omit_expired=omit_expired)

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
        limit: int = 10,
        offset: int = 0,
    ) -> list[StoredItem]:
        """Return items in `prefix` and the namespaces below it that `filter` keeps.

        Without a vector they come newest update first. With one, the nearest by cosine
        similarity come first, an item counting as its best vector does; items that have no
        vector follow, with score None.

        Raises:
            FilterError: The filter has an unknown operator or a wrong operand.
            DimensionMismatchError: The vector is not of the file's dimensions.
        """
        with self.view() as view:
            return view.search(prefix, filter=filter, vector=vector, limit=limit, offset=offset)

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

    # --- writing ---

    def put(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        *,
        vectors: Any = None,
        ttl_seconds: float | None = None,
    ) -> None:
        """Store an item, replacing its value, its vectors and its time to live.

        `vectors` is a mapping from field paths to vectors, a list of vectors, or one vector.

        Raises:
            InvalidInputError: The namespace, the value or a vector cannot be stored.
            DimensionMismatchError: The vectors are not of the file's dimensions.
        """
        if value is None:
            raise InvalidInputError(
                "a value is a mapping, not None: use delete() to remove an item"
            )
        self.put_many([Put(namespace, key, value, vectors, ttl_seconds)])

    def delete(self, namespace: tuple[str, ...], key: str) -> None:
        """Delete an item with its vectors, if it is there."""
        self.put_many([Put(namespace, key, None)])

    def put_many(self, puts: Iterable[Put]) -> None:
        """Store and delete items in one commit; the last put of an item counts."""
        self._connection.commit(self.change(puts))

    def change(self, puts: Iterable[Put], refresh: Collection[bytes] = ()) -> Change[None]:
        """Return the change that `put_many` commits, all of it checked and encoded.

        It also moves the deadlines of the items in `refresh`, a view's `to_refresh`.
        """
        now = self.clock()
        prepared = list({(put.namespace, put.key): put for put in map(_prepare, puts)}.values())
        dims = common_dims(put.vectors for put in prepared if put.vectors is not None)

        def apply(batch: Batch) -> None:
            if dims is not None:
                set_dims(batch, dims)
            _apply(batch, prepared, refresh, now)

        return Change(apply)

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
        return Change(lambda batch: _sweep(batch, now))


# --- preparing -----------------------------------------------------------------------------


def _prepare(put: Put) -> _Prepared:
    if not check_namespace(put.namespace):
        raise InvalidInputError(
            "an item cannot be stored in the empty namespace (): give it a label"
        )
    check_key(put.key)
    if put.value is None:
        return _Prepared(put.namespace, put.key, None, None, 0)
    return _Prepared(
        put.namespace,
        put.key,
        encode_value(put.value),
        vector_set(put.vectors),
        ttl_us(put.ttl_seconds),
    )


# --- applying ------------------------------------------------------------------------------


def _apply(batch: Batch, puts: list[_Prepared], refresh: Collection[bytes], now: int) -> None:
    for suffix in refresh:
        _refresh(batch, suffix, now)
    tree = Tree(batch)
    for put in puts:
        if put.encoded is None:
            _delete(batch, tree, put)
        else:
            _store(batch, tree, put, put.encoded, now)
    tree.save()


def _store(batch: Batch, tree: Tree, put: _Prepared, encoded: bytes, now: int) -> None:
    node = tree.make(put.namespace)
    suffix = item_suffix(node.number, put.key)
    old = _get(batch, suffix)
    updated = now if old is None else max(now, old.updated_us)
    created = updated if old is None or is_past(old.deadline_us, now) else old.created_us
    batch.state.sequence += 1
    deadline = now + put.ttl_us if put.ttl_us else 0
    record = ItemRecord(
        created,
        updated,
        batch.state.sequence,
        put.ttl_us,
        deadline,
        whole_key(suffix, put.key),
        encoded,
    )
    batch.put(Table.MEMORY, item_key(suffix), pack_item(record))
    if put.vectors is not None:
        batch.put(Table.MEMORY, _vectors_key(suffix), pack_vectors(put.vectors))
    elif old is not None:
        batch.delete(Table.MEMORY, _vectors_key(suffix))
    move_deadline(
        batch, Kind.ITEM_DEADLINE, suffix, 0 if old is None else old.deadline_us, deadline
    )
    if old is None:
        tree.count_items(node, 1)


def _delete(batch: Batch, tree: Tree, put: _Prepared) -> None:
    node = tree.find(put.namespace)
    if node is None:
        return
    suffix = item_suffix(node.number, put.key)
    old = _get(batch, suffix)
    if old is not None:
        _remove(batch, tree, suffix, old)


def _remove(batch: Batch, tree: Tree, suffix: bytes, old: ItemRecord) -> None:
    batch.delete(Table.MEMORY, item_key(suffix))
    batch.delete(Table.MEMORY, _vectors_key(suffix))
    move_deadline(batch, Kind.ITEM_DEADLINE, suffix, old.deadline_us, 0)
    tree.count_items(tree.node(node_of(suffix)), -1)


def _refresh(batch: Batch, suffix: bytes, now: int) -> None:
    """Move an item's deadline, unless it was deleted or put anew in the meantime."""
    record = _get(batch, suffix)
    if record is None or not record.ttl_us or now + record.ttl_us <= record.deadline_us:
        return
    move_deadline(batch, Kind.ITEM_DEADLINE, suffix, record.deadline_us, now + record.ttl_us)
    record.deadline_us = now + record.ttl_us
    batch.put(Table.MEMORY, item_key(suffix), pack_item(record))


def _sweep(batch: Batch, now: int) -> int:
    tree = Tree(batch)
    swept = 0
    for deadline, suffix in list(islice(due(batch, Kind.ITEM_DEADLINE, now), SWEEP_ITEMS)):
        record = _get(batch, suffix)
        if record is None or record.deadline_us != deadline:  # a stray entry of the index
            move_deadline(batch, Kind.ITEM_DEADLINE, suffix, deadline, 0)
            continue
        _remove(batch, tree, suffix, record)
        swept += 1
    tree.save()
    return swept


def _get(batch: Batch, suffix: bytes) -> ItemRecord | None:
    key = item_key(suffix)
    body = batch.get(Table.MEMORY, key)
    return None if body is None else unpack_item(key, body)


def _vectors_key(suffix: bytes) -> bytes:
    return bytes((Kind.VECTORS,)) + suffix
