"""Items in the order of their updates, newest first, across any number of namespaces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

from lgkv.filters import Test
from lgkv.layout import MEMORY
from lgkv.memory.items import (
    ItemRecord,
    Place,
    checked,
    entry_place,
    packs_of,
    place_of,
    scan_pack,
    unpack_item,
)
from lgkv.nodes import Node
from lgkv.snapshot import Snapshot

__all__ = ["Found", "newest_first"]


@dataclass(frozen=True, slots=True)
class Found:
    """An item that a search came upon: an entry of a pack that was read."""

    namespace: tuple[str, ...]
    node: int
    key: bytes
    pack: bytes
    at: int

    @property
    def place(self) -> Place:
        """When the item was updated, and the sequence of the put."""
        return checked(self.key, entry_place, self.pack, self.at)

    def record(self) -> ItemRecord:
        """Return the item."""
        return unpack_item(self.key, self.pack, self.at)


class _Source:
    """The items of one namespace, newest first, a pack at a time."""

    def __init__(
        self,
        snapshot: Snapshot,
        namespace: tuple[str, ...],
        node: Node,
        test: Test | None,
        ended_by: int,
    ) -> None:
        self._namespace, self._node = namespace, node.number
        self._test, self._ended_by = test, ended_by
        self._packs = snapshot.scan(MEMORY, packs_of(node.number), reverse=True)
        self._key = self._pack = b""
        self._starts: list[int] = []
        self.newest = node.newest
        """Nothing that is still to come is newer."""

    def read(self) -> bool:
        """Read the next pack; whether there was one."""
        self._key, self._pack = next(self._packs, (b"", b""))
        self._starts = checked(self._key, scan_pack, self._pack, self._test, self._ended_by)
        self._set_newest()
        return bool(self._key)

    def is_exact(self) -> bool:
        """Whether an item with the place `newest` is at hand."""
        return bool(self._starts)

    def pop(self) -> Found:
        """Return that item, and go on to the next."""
        found = Found(self._namespace, self._node, self._key, self._pack, self._starts.pop())
        self._set_newest()
        return found

    def _set_newest(self) -> None:
        if self._starts:
            self.newest = checked(self._key, entry_place, self._pack, self._starts[-1])
        elif self._key:
            self.newest = place_of(self._key)


def newest_first(
    snapshot: Snapshot,
    nodes: Iterable[tuple[tuple[str, ...], Node]],
    test: Test | None,
    ended_by: int,
) -> Iterator[Found]:
    """Yield the items of `nodes` that `test` keeps, the last update first.

    What has a deadline up to `ended_by` is left out, unless that is 0. A namespace's packs
    are read only once nothing elsewhere is newer than what it may have.
    """
    sources = [_Source(snapshot, *each, test, ended_by) for each in nodes]
    if len(sources) == 1:
        yield from _all_of(sources[0])
        return
    heap = [(-each.newest[0], -each.newest[1], number) for number, each in enumerate(sources)]
    heapify(heap)
    while heap:
        number = heap[0][2]
        source = sources[number]
        if source.is_exact():
            yield source.pop()
        elif not source.read():
            heappop(heap)
            continue
        heapreplace(heap, (-source.newest[0], -source.newest[1], number))


def _all_of(source: _Source) -> Iterator[Found]:
    while source.read():
        while source.is_exact():
            yield source.pop()
