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
from typing import Any, Final, cast

from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    BaseStore,
    IndexConfig,
    Item,
    Op,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
)

from lgkv.database import Database
from lgkv.errors import InvalidInputError
from lgkv.langgraph import _loops
from lgkv.langgraph._embedding import Embedded, TextIndex
from lgkv.langgraph._opening import Opening, checked
from lgkv.langgraph._operations import (
    FoundItem,
    Namespaces,
    Operations,
    check_read,
    search_items,
    seconds,
    to_item,
)
from lgkv.langgraph._sweeper import Sweeper
from lgkv.memory import MemoryView
from lgkv.writer import Change, Pending

__all__ = ["AsyncLgkvStore", "FoundItem", "LgkvStore"]

SWEEP_INTERVAL_MINUTES: Final = 5.0

_NO_TTL: Final = TTLConfig()
_NOTHING_EMBEDDED: Final = Embedded()

logger = logging.getLogger("lgkv")


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
        self._db = checked(db)
        if fields is not None:
            db.memory.declare_fields(fields)
        self._index = TextIndex(cast("Mapping[str, Any]", index)) if index else None
        self._sweeper: Sweeper | None = None
        self._namespaces = Namespaces()
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
        if type(key) is not str:
            key = str(key)
        config = self.ttl_config
        if refresh_ttl is None:
            refresh_ttl = config.get("refresh_on_read", True) if config else True
        self._namespaces.check(namespace)
        omit_expired = bool(config.get("omit_expired")) if config else False
        view = self._db.memory.view(omit_expired=omit_expired)
        with view.snapshot:  # one step less than with the view
            found = view.get(namespace, key, refresh=refresh_ttl)
        if view.to_refresh:
            self._refresh(view.to_refresh)
        return None if found is None else to_item(found)

    def search(
        self,
        namespace_prefix: tuple[str, ...],
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[SearchItem]:
        """Return the items that are found: what a batch with one SearchOp gives."""
        if refresh_ttl is None:
            refresh_ttl = (self.ttl_config or _NO_TTL).get("refresh_on_read", True)
        op = SearchOp(namespace_prefix, filter, limit, offset, query, refresh_ttl)
        index = self._index
        check_read(op, self._namespaces)
        embedded = index.embed((), (query,)) if index is not None and query else _NOTHING_EMBEDDED
        with self._view() as view:
            found = search_items(view, op, embedded, index)
        if view.to_refresh:
            self._refresh(view.to_refresh)
        return found

    # --- batches ---

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Execute operations: reads as of before the batch, writes in one durable commit.

        Raises:
            InvalidInputError: An operation is not usable; nothing was written.
            InvalidNamespaceError: A namespace's label is empty, or holds a period or NUL.
        """
        batch = Operations.of(ops, self._namespaces, self._index)
        embedded = Embedded()
        if self._index is not None:
            embedded = self._index.embed(batch.documents, batch.queries)
        results, to_refresh = self._read(batch, embedded)
        if batch.puts:
            self._db.commit(self._change(batch, embedded, to_refresh))
        else:
            self._refresh(to_refresh)
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Execute operations as `batch` does; the event loop never waits for the disk."""
        batch = Operations.of(ops, self._namespaces, self._index)
        embedded = Embedded()
        if self._index is not None:
            embedded = await self._index.aembed(batch.documents, batch.queries)
        results, to_refresh = await _loops.read(self._db, lambda: self._read(batch, embedded))
        if batch.puts:
            await _loops.write(self._db, self._change(batch, embedded, to_refresh))
        else:
            self._refresh(to_refresh)
        return results

    def _read(self, batch: Operations, embedded: Embedded) -> tuple[list[Result], set[bytes]]:
        """Return the results, and which items' deadlines the reads move."""
        if not batch.reads:
            return [None] * len(batch.ops), set()
        with self._view() as view:
            results = batch.read(view, embedded, self._index)
        return results, view.to_refresh

    def _view(self) -> MemoryView:
        omit_expired = bool((self.ttl_config or _NO_TTL).get("omit_expired", False))
        return self._db.memory.view(omit_expired=omit_expired)

    def _change(
        self, batch: Operations, embedded: Embedded, to_refresh: set[bytes]
    ) -> Change[None]:
        config = None if self._index is None else self._index.vectors
        return self._db.memory.change(batch.to_put(embedded, self._index), to_refresh, config)

    def _refresh(self, to_refresh: set[bytes]) -> None:
        """Queue the moving of deadlines; a read waits neither for it nor for its failure."""
        if to_refresh and not self._db.read_only:
            change = self._db.memory.change((), to_refresh)
            self._db.post(change, _LOG, None)

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
        while await _loops.read(self._db, self._db.memory.has_due):
            total += await _loops.write(self._db, self._db.memory.sweep_change())
        return total

    async def start_ttl_sweeper(  # type: ignore[override]  # as the peers' async stores
        self, sweep_interval_minutes: float | None = None
    ) -> asyncio.Future[None]:
        """Start the sweeper; the future may be awaited or cancelled."""
        return asyncio.wrap_future(super().start_ttl_sweeper(sweep_interval_minutes))

    async def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        """Stop the sweeper; whether it has ended within `timeout` seconds."""
        return await asyncio.to_thread(super().stop_ttl_sweeper, timeout)


# --- configuration -----------------------------------------------------------------------


def _checked_ttl(ttl: TTLConfig | None) -> TTLConfig | None:
    if ttl is None:
        return None
    if not isinstance(ttl, Mapping):
        raise InvalidInputError(f"ttl is {ttl!r}: give a dict such as {{'default_ttl': 60}}")
    seconds(ttl.get("default_ttl"))
    interval = ttl.get("sweep_interval_minutes")
    if interval is not None:
        _check_interval(interval)
    return ttl


def _check_interval(minutes: Any) -> None:
    if isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or not minutes > 0:
        raise InvalidInputError(f"the sweep_interval_minutes are {minutes!r}: give more than 0")


class _Log:
    """Where what nobody waits for ends."""

    def deliver(self, ended: list[Pending]) -> None:
        for pending in ended:
            if pending.error is not None:
                logger.warning("deadlines could not be moved on reading: %s", pending.error)


_LOG: Final = _Log()
