"""Search by meaning: the items nearest to a vector, after prefix, filter and expiry."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from lgkv.errors import CorruptionError
from lgkv.expiry import is_past
from lgkv.filters import Test
from lgkv.layout import Table
from lgkv.memory.items import ItemRecord, read_item
from lgkv.nodes import path_of, walk_nodes
from lgkv.snapshot import Snapshot
from lgkv.vectors import Hit, IndexConfig, Plan, VectorIndex, check_query

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Meaning", "Near", "Nearest"]

MAX_PREFIXES: Final = 1024
MAX_NAMESPACES: Final = 100_000
"""As many are remembered."""


class Meaning:
    """What searches by meaning share: the index, and which namespaces have which numbers."""

    def __init__(self, index: VectorIndex) -> None:
        self.index = index
        self._under: tuple[int, tuple[int, int], dict[tuple[str, ...], NDArray[np.uint64]]]
        self._under = 0, (0, 0), {}
        self._namespaces: dict[int, tuple[str, ...]] = {}

    def numbers(self, snapshot: Snapshot, prefix: tuple[str, ...]) -> NDArray[np.uint64] | None:
        """Return the numbers of the namespaces under `prefix`, sorted; None for all there are.

        What was found stays so while no namespace is made or removed.
        """
        if not prefix:
            return None
        number = snapshot.number()
        known_as_of, counted, known = self._under
        if not number:  # it is open, and what it has may not come to be
            known = {}
        elif number != known_as_of:
            state = snapshot.read_state()
            counters = state.nodes, state.names_epoch
            if counters != counted:
                known = {}
            self._under = number, counters, known
        found = known.get(prefix)
        if found is None:
            if len(known) >= MAX_PREFIXES:
                known.clear()
            nodes = walk_nodes(snapshot, [frozenset((label,)) for label in prefix])
            found = np.array(sorted(node.number for _, node in nodes), np.uint64)
            known[prefix] = found
        return found

    def namespace(self, snapshot: Snapshot, number: int) -> tuple[str, ...]:
        """Return the namespace of a number, which is never another's."""
        found = self._namespaces.get(number)
        if found is None:
            if len(self._namespaces) >= MAX_NAMESPACES:
                self._namespaces.clear()
            found = self._namespaces[number] = path_of(snapshot, number)
        return found


class Near(NamedTuple):
    """An item that was found by its vectors."""

    suffix: bytes
    pack: bytes
    record: ItemRecord
    score: float


class Nearest:
    """Searches by meaning in one snapshot."""

    def __init__(
        self, snapshot: Snapshot, meaning: Meaning, test: Test | None, ended_by: int
    ) -> None:
        self._snapshot, self._meaning = snapshot, meaning
        self._test, self._ended_by = test, ended_by

    def search(
        self,
        prefix: tuple[str, ...],
        query: NDArray[np.float32],
        wanted: int,
        config: IndexConfig | None = None,
    ) -> list[Near]:
        """Return the `wanted` items under `prefix` that are nearest to `query`, best first.

        Fewer only if there are no more. What the filter drops or has expired does not count.

        Raises:
            DimensionMismatchError: The query is not of the file's dimensions.
            EmbeddingMismatchError: `config` names another model than the file's.
        """
        index = self._meaning.index
        directory = index.directory(self._snapshot)
        if directory is None:
            return []
        check_query(directory.settings, query.size, config)
        found: list[Near] = []
        for hits in index.attempts(
            self._snapshot,
            directory,
            query,
            self._meaning.numbers(self._snapshot, prefix),
            wanted=wanted,
            filtered=self._test is not None,
        ):
            found = list(islice(self._shown(hits), wanted))
            if len(found) == wanted:
                break
        return found

    def plan(self, prefix: tuple[str, ...], query: NDArray[np.float32], wanted: int) -> Plan:
        """Return how `search` would go, and why."""
        index = self._meaning.index
        directory = index.directory(self._snapshot)
        if directory is None:
            return Plan("exact", "there are no vectors", 0, 0)
        check_query(directory.settings, query.size)
        nodes = self._meaning.numbers(self._snapshot, prefix)
        return index.plan(directory, nodes, wanted=wanted, filtered=self._test is not None)

    def _shown(self, hits: Iterator[Hit]) -> Iterator[Near]:
        """Yield what is not filtered out, of equal scores the newest first."""
        alike: list[Near] = []
        for hit in hits:
            found = self._read(hit)
            if found is None:
                continue
            if alike and found.score != alike[0].score:
                yield from _newest_first(alike)
                alike = []
            alike.append(found)
        yield from _newest_first(alike)

    def _read(self, hit: Hit) -> Near | None:
        """Return the item of a hit; None if it is not shown."""
        found = read_item(self._snapshot, hit.suffix)
        if found is None:
            raise CorruptionError(
                Table.MEMORY.label, hit.suffix, "vectors were found, but not their item"
            )
        pack, record = found
        if self._ended_by and is_past(record.deadline_us, self._ended_by):
            return None
        if self._test is not None and not self._test.holds(record.encoded):
            return None
        return Near(hit.suffix, pack, record, hit.score)


def _newest_first(alike: list[Near]) -> list[Near]:
    """Return items of one score, the last update first."""
    if len(alike) > 1:
        alike.sort(key=lambda one: (one.record.updated_us, one.record.sequence), reverse=True)
    return alike
