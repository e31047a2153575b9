"""What is to be known and set of searches by meaning: `db.vectors`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lgkv.connection import Connection
from lgkv.memory.view import MemoryView
from lgkv.vectors import IndexOptions, Plan, Settings, VectorIndex, read_settings, read_state

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

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the graph is built as far as it will be; return whether that came in time.

        Searches are right before, too.
        """
        return self._index.wait(timeout_s)
