"""The store: LangGraph's operations translated to `db.memory`, sync and async.

In one batch all reads see one snapshot, as it was before the batch, and all writes share
one commit. A read never waits for the disk: the deadlines that it moves are queued.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, cast

from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    validate_op_namespace,
)

from lgkv.database import Database
from lgkv.errors import InvalidInputError
from lgkv.expiry import ttl_us
from lgkv.filters import validate_filter
from lgkv.langgraph._embedding import Embedded, TextIndex
from lgkv.langgraph._opening import Opening
from lgkv.langgraph._sweeper import Sweeper
from lgkv.memory import MemoryView, Put, StoredItem, check_page
from lgkv.vectors import IndexConfig as VectorConfig
from lgkv.writer import Change

__all__ = ["AsyncLgkvStore", "FoundItem", "LgkvStore"]

SWEEP_INTERVAL_MINUTES: Final = 5.0

_NO_TTL: Final = TTLConfig()

logger = logging.getLogger("lgkv")


class FoundItem(SearchItem):
    """An item that a search found; `parts` are the scores that its own is made of.

    They are named "vector" and "keyword". What has no score is a plain `SearchItem`.
    """

    __slots__ = ("parts",)

    parts: Mapping[str, float]


@dataclass(slots=True)
class _Plan:
    """A batch, checked: its operations, the last put of each item, the texts to embed."""

    ops: list[Op] = field(default_factory=list)
    puts: dict[tuple[tuple[str, ...], str], PutOp] = field(default_factory=dict)
    texts: dict[tuple[tuple[str, ...], str], dict[str, str]] = field(default_factory=dict)
    queries: list[str] = field(default_factory=list)

    @property
    def documents(self) -> list[str]:
        """The texts to embed, each once."""
        return list(dict.fromkeys(text for texts in self.texts.values() for text in texts.values()))

    @property
    def reads(self) -> bool:
        """Whether any operation reads."""
        return any(not isinstance(op, PutOp) for op in self.ops)


class LgkvStore(Opening, BaseStore):
    """A LangGraph store on an lgkv file, usable sync and async, from any thread and loop.

    `index` configures semantic search, as for LangGraph's own stores: `embed`, `dims`,
    `fields`; and `mode`, which is "vector", "hybrid" (by words as well) or "keyword" (by words
    alone: neither `embed` nor `dims` is needed). Further, `distance_type` ("cosine",
    "inner_product", "l2") and `storage` ("float32", "float16") hold for all vectors of the
    file, and `model` names the embedding model, if `embed` has no name of its own: vectors of
    two models are never mixed. `ttl` configures expiry; times are in
    minutes. `fields` declares fields that filters find items by, as `{"user": str}`: see
    `db.memory.declare_fields`; None leaves the file's own declaration as it is.

    Raises:
        InvalidInputError: `index`, `ttl` or `fields` is not usable.
    """

    supports_ttl = True

    def __init__(
        self,
        db: Database,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        fields: Mapping[str, type] | None = None,
    ) -> None:
        super().__init__()
        self._db = db
        if fields is not None:
            db.memory.declare_fields(fields)
        self._index = TextIndex(cast("Mapping[str, Any]", index)) if index else None
        self._sweeper: Sweeper | None = None
        self._checked: tuple[str, ...] | None = None
        self.ttl_config = _checked_ttl(ttl)

    @property
    def index_config(self) -> IndexConfig | None:
        """The index configuration with its tokenised fields, as the other stores show it."""
        return None if self._index is None else cast("IndexConfig", self._index.config)

    @property
    def embeddings(self) -> Embeddings | None:
        """What embeds texts; None without an index."""
        return None if self._index is None else self._index.embeddings

    # --- one item ---

    def get(
        self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None
    ) -> Item | None:
        """Return the item, or None: what a batch with one GetOp gives."""
        if refresh_ttl is None:
            refresh_ttl = (self.ttl_config or _NO_TTL).get("refresh_on_read", True)
        if type(namespace) is not tuple or namespace != self._checked:
            _check_op(GetOp(namespace, str(key), refresh_ttl))
            self._checked = namespace
        with self._view() as view:
            found = view.get(namespace, str(key), refresh=refresh_ttl)
        if view.to_refresh:
            self._refresh(view.to_refresh)
        return None if found is None else _item(found)

    # --- batches ---

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Execute operations: reads as of before the batch, writes in one durable commit.

        Raises:
            InvalidInputError: An operation is not usable; nothing was written.
            InvalidNamespaceError: A namespace's label is empty, or holds a period or NUL.
        """
        plan = self._plan(ops)
        embedded = Embedded()
        if self._index is not None:
            embedded = self._index.embed(plan.documents, plan.queries)
        results, to_refresh = self._read(plan, embedded)
        if plan.puts:
            self._db.commit(self._change(plan, embedded, to_refresh))
        else:
            self._refresh(to_refresh)
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Execute operations as `batch` does; the event loop never waits for the disk."""
        plan = self._plan(ops)
        embedded = Embedded()
        if self._index is not None:
            embedded = await self._index.aembed(plan.documents, plan.queries)
        results, to_refresh = self._read(plan, embedded)
        if plan.puts:
            change = self._change(plan, embedded, to_refresh)
            await asyncio.wrap_future(self._db.submit(change))
        else:
            self._refresh(to_refresh)
        return results

    def _plan(self, ops: Iterable[Op]) -> _Plan:
        plan = _Plan()
        checked: tuple[str, ...] | None = None
        for op in ops:
            plan.ops.append(op)
            if isinstance(op, PutOp):
                if op.namespace is not checked:  # puts of one namespace often share it
                    _check_op(op)
                    checked = op.namespace
                plan.puts[op.namespace, str(op.key)] = op
                continue
            _check_op(op)
            if isinstance(op, SearchOp) and op.query and op.query not in plan.queries:
                plan.queries.append(op.query)
        if self._index is not None:
            plan.texts = {place: self._index.texts(op) for place, op in plan.puts.items()}
        return plan

    def _read(self, plan: _Plan, embedded: Embedded) -> tuple[list[Result], set[bytes]]:
        """Return the results, and which items' deadlines the reads move."""
        if not plan.reads:
            return [None] * len(plan.ops), set()
        with self._view() as view:
            has_words = self._index is not None and self._index.has_words
            config = self._vector_config
            results = [
                _read_one(view, op, embedded, config, has_words=has_words) for op in plan.ops
            ]
        return results, view.to_refresh

    def _view(self) -> MemoryView:
        omit_expired = bool((self.ttl_config or _NO_TTL).get("omit_expired", False))
        return self._db.memory.view(omit_expired=omit_expired)

    def _change(self, plan: _Plan, embedded: Embedded, to_refresh: set[bytes]) -> Change[None]:
        puts = []
        for (namespace, key), op in plan.puts.items():
            if self._index is None:
                puts.append(Put(namespace, key, op.value, None, _seconds(op.ttl)))
                continue
            texts = plan.texts.get((namespace, key), {})
            vectors = (
                {path: embedded.documents[text] for path, text in texts.items()}
                if self._index.embeds
                else None
            )
            words = list(texts.values()) if self._index.has_words and texts else None
            puts.append(Put(namespace, key, op.value, vectors, _seconds(op.ttl), words))
        return self._db.memory.change(puts, to_refresh, self._vector_config)

    @property
    def _vector_config(self) -> VectorConfig | None:
        return None if self._index is None else self._index.vectors

    def _refresh(self, to_refresh: set[bytes]) -> None:
        """Queue the moving of deadlines; a read waits neither for it nor for its failure."""
        if to_refresh and not self._db.read_only:
            change = self._db.memory.change((), to_refresh)
            self._db.submit(change).add_done_callback(_log_failure)

    # --- another embedding model ---

    def reindex(
        self, *, batch_size: int = 256, progress: Callable[[int, int], None] | None = None
    ) -> int:
        """Embed the stored texts again with this store's model; return of how many items.

        For a file whose vectors are of another model, metric or storage. Searches by stores
        with the old one go on until all is done; `progress` is told how many items are done, and
        about how many there are. Calling again after a crash goes on where that was left off.

        Raises:
            InvalidInputError: The store has no embedding.
        """
        index = self._index
        if index is None or index.embeddings is None:
            raise InvalidInputError("there is nothing to embed with: set index['embed']")
        return self._db.vectors.reindex(
            index.embeddings.embed_documents,
            index.texts_at,
            index.vectors,
            batch_size=batch_size,
            progress=progress,
        )

    # --- expiry ---

    def sweep_ttl(self) -> int:
        """Delete the items that have expired; return how many."""
        return self._db.memory.sweep()

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> Future[None]:
        """Delete expired items in a background thread, now and then.

        The interval is the argument, else the configuration's, else five minutes; with
        neither argument nor `ttl` configuration nothing is started. The future ends with the
        sweeper, with its error if it fails; cancelling it stops the sweeper.
        """
        if self._sweeper is not None and self._sweeper.running:
            return self._sweeper.future
        if sweep_interval_minutes is None and not self.ttl_config:
            done: Future[None] = Future()
            done.set_result(None)
            return done
        configured = (self.ttl_config or {}).get("sweep_interval_minutes")
        minutes = configured if sweep_interval_minutes is None else sweep_interval_minutes
        minutes = SWEEP_INTERVAL_MINUTES if minutes is None else minutes
        _check_interval(minutes)
        self._sweeper = Sweeper(self._db.memory.sweep, minutes * 60)
        weakref.finalize(self, self._sweeper.stop)
        return self._sweeper.future

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """Stop the sweeper; whether it has ended within `timeout` seconds."""
        if self._sweeper is None:
            return True
        self._sweeper.stop()
        return self._sweeper.join(timeout)

    def close(self) -> None:
        """Stop the sweeper, and close the database if `from_conn_string` opened it."""
        if self._sweeper is not None:
            self._sweeper.stop()
        super().close()


class AsyncLgkvStore(LgkvStore):
    """The same store, whose calls about expiry are awaited, as other async stores' are."""

    async def sweep_ttl(self) -> int:  # type: ignore[override]  # as the peers' async stores
        """Delete the items that have expired; return how many."""
        total = 0
        while self._db.memory.has_due():
            total += await asyncio.wrap_future(self._db.submit(self._db.memory.sweep_change()))
        return total

    async def start_ttl_sweeper(  # type: ignore[override]  # as the peers' async stores
        self, sweep_interval_minutes: float | None = None
    ) -> asyncio.Future[None]:
        """Start the sweeper; the future may be awaited or cancelled."""
        return asyncio.wrap_future(super().start_ttl_sweeper(sweep_interval_minutes))

    async def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        """Stop the sweeper; whether it has ended within `timeout` seconds."""
        return await asyncio.to_thread(super().stop_ttl_sweeper, timeout)


# --- one operation -------------------------------------------------------------------------


def _check_op(op: Op) -> None:
    """Raise unless `op` is an operation that can be executed."""
    if isinstance(op, (GetOp, PutOp)):
        _check_tuple(op.namespace)
    elif isinstance(op, SearchOp):
        _check_tuple(op.namespace_prefix)
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
    else:
        raise InvalidInputError(
            f"unknown operation {op!r}: use GetOp, SearchOp, PutOp or ListNamespacesOp"
        )
    validate_op_namespace(op)


def _check_tuple(namespace: Any) -> None:
    if not isinstance(namespace, tuple):
        raise InvalidInputError(
            f"a namespace is a tuple of labels, not {namespace!r}: write ('users', '42')"
        )


def _read_one(
    view: MemoryView, op: Op, embedded: Embedded, config: VectorConfig | None, *, has_words: bool
) -> Result:
    if isinstance(op, GetOp):
        found = view.get(op.namespace, str(op.key), refresh=op.refresh_ttl)
        return None if found is None else _item(found)
    if isinstance(op, SearchOp):
        return [
            _search_item(stored)
            for stored in view.search(
                op.namespace_prefix,
                filter=op.filter,
                vector=embedded.queries.get(op.query) if op.query else None,
                text=op.query if op.query and has_words else None,
                limit=op.limit,
                offset=op.offset,
                refresh=op.refresh_ttl,
                config=config,
            )
        ]
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


def _item(stored: StoredItem) -> Item:
    return Item(
        value=stored.value,
        key=stored.key,
        namespace=stored.namespace,
        created_at=stored.created_at,
        updated_at=stored.updated_at,
    )


def _search_item(stored: StoredItem) -> SearchItem:
    kind = SearchItem if stored.parts is None else FoundItem
    item = kind(
        namespace=stored.namespace,
        key=stored.key,
        value=stored.value,
        created_at=stored.created_at,
        updated_at=stored.updated_at,
        score=stored.score,
    )
    if isinstance(item, FoundItem) and stored.parts is not None:
        item.parts = stored.parts
    return item


def _checked_ttl(ttl: TTLConfig | None) -> TTLConfig | None:
    if ttl is None:
        return None
    if not isinstance(ttl, Mapping):
        raise InvalidInputError(f"ttl is {ttl!r}: give a dict such as {{'default_ttl': 60}}")
    _seconds(ttl.get("default_ttl"))
    interval = ttl.get("sweep_interval_minutes")
    if interval is not None:
        _check_interval(interval)
    return ttl


def _check_interval(minutes: Any) -> None:
    if isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or not minutes > 0:
        raise InvalidInputError(f"the sweep_interval_minutes are {minutes!r}: give more than 0")


def _seconds(minutes: float | None) -> float | None:
    """Return a time to live in seconds, checked."""
    if minutes is None:
        return None
    ttl_us(minutes)  # refuses what is not a number
    return minutes * 60


def _log_failure(refreshed: Future[None]) -> None:
    if not refreshed.cancelled() and refreshed.exception() is not None:
        logger.warning("deadlines could not be moved on reading: %s", refreshed.exception())
