"""What is to be known and set of searches by meaning: `db.vectors`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lgkv.connection import Connection
from lgkv.memory.reindexing import Embed, Progress, TextsOf, reindex
from lgkv.memory.view import MemoryView
from lgkv.vectors import (
    IndexConfig,
    IndexOptions,
    Pending,
    Plan,
    Settings,
    VectorIndex,
    read_pending,
    read_settings,
    read_state,
)

__all__ = ["Vectors"]


class Vectors:
    """The vectors of the items of one database: `db.vectors`.

    `options` are of this process: they hold for every handle on the file.
    """

    def __init__(self, connection: Connection, view: Callable[[], MemoryView]) -> None:
        self._connection, self._view = connection, view

    @property
    def _index(self) -> VectorIndex:
        return self._connection.companion(VectorIndex, VectorIndex)

    @property
    def options(self) -> IndexOptions:
        """What a search may cost and has to find."""
        return self._index.options

    def configure(self, **options: Any) -> None:
        """Set some of `options`, whose fields `lgkv.IndexOptions` has.

        Raises:
            InvalidInputError: A value is out of its range.
            TypeError: There is no such option.
        """
        self._index.configure(replace(self._index.options, **options))

    def settings(self) -> Settings | None:
        """Return what the file's vectors have in common; None if there never were any."""
        with self._connection.snapshot() as snapshot:
            return read_settings(snapshot)

    def count(self) -> int:
        """Return how many vectors the file has."""
        with self._connection.snapshot() as snapshot:
            return read_state(snapshot).vectors

    def explain(
        self,
        query: Any,
        prefix: tuple[str, ...] = (),
        *,
        filter: Mapping[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
    ) -> Plan:
        """Return how `db.memory.search` would go with the vector `query`, and why.

        A plan by graph that does not fill the page is widened, and in the end exact.

        Raises:
            DimensionMismatchError: The query is not of the file's dimensions.
        """
        with self._view() as view:
            return view.plan(prefix, query, filter=filter, limit=limit, offset=offset)

    def reindexing(self) -> Pending | None:
        """Return how far a reindexing is that was begun and has not ended; None without one."""
        with self._connection.snapshot() as snapshot:
            return read_pending(snapshot)

    def reindex(
        self,
        embed: Embed,
        texts_of: TextsOf,
        config: IndexConfig,
        *,
        batch_size: int = 256,
        progress: Progress | None = None,
    ) -> int:
        """Make the vectors of all items that have some anew; return how many were embedded.

        `embed` gives a vector for each of a list of texts; `texts_of` is given an item's value
        and the paths of its vectors, and gives its texts by path. `config` is of the new
        vectors; its model is what they are of, its metric and storage stay as they are unless
        it names them. Searches go on with the old vectors until all is done, and what is put
        meanwhile is embedded again in the end. Who calls again after a crash, with the same
        `config`, goes on where that was left off.

        Raises:
            InvalidInputError: The embedding is not usable, or another process has begun to
                reindex with another model.
        """
        return reindex(
            self._connection, embed, texts_of, config, batch_size=batch_size, progress=progress
        )

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the graph is built as far as it will be; return whether that came in time.

        Searches are right before, too.
        """
        return self._index.wait(timeout_s)
