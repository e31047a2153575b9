"""What memory holds of stored elements: nodes by chain, within a budget.

An element of a chain never changes and chain numbers are never used again, so nothing here
goes stale. Whatever was evicted is read and decoded again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final

from lgkv._shadow import Node, place
from lgkv.codec.plan import Extent
from lgkv.locks import Mutex

__all__ = ["Shelf"]

SLOT_BYTES: Final = 8
ENTRY_BYTES: Final = 200
MAX_GAP: Final = 1 << 16
"""A chain's elements further apart than this are not held together: the older are forgotten."""


@dataclass(slots=True)
class _Book:
    """The nodes of a chain's elements from number `first` on; None where nothing is known."""

    first: int
    nodes: list[Node | None] = field(default_factory=list)
    weight: int = ENTRY_BYTES

    def make_room(self, first: int, end: int) -> bool:
        """Have places for elements; whether they are near enough to those that there are."""
        before = max(self.first - first, 0)
        behind = max(end - self.first - len(self.nodes), 0)
        if before + behind > MAX_GAP + end - first:
            return False
        if before:
            self.nodes[:0] = [None] * before
            self.first = first
        self.nodes.extend([None] * behind)
        self.weight += SLOT_BYTES * (before + behind)
        return True


@dataclass(slots=True)
class _Entries:
    """The nodes of a dict's values at one version."""

    entries: dict[str, Node]
    weight: int


class Shelf:
    """An LRU of nodes. Safe to use from any thread.

    `owner` in the keys tells threads of conversation and codecs apart. Nodes keep what callers
    have had, so they are let go of outside the lock: that may run code of the caller's.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._lock = Mutex()
        self._books: OrderedDict[Hashable, _Book | _Entries] = OrderedDict()
        self.weight = 0

    def elements(self, owner: Hashable, extents: Sequence[Extent]) -> list[Node | None]:
        """Return the nodes of the elements of `extents`, None where one is not held."""
        found: list[Node | None] = []
        with self._lock:
            for chain, first, count in extents:
                book = self._books.get((owner, chain))
                if not isinstance(book, _Book):
                    found += [None] * count
                    continue
                self._books.move_to_end((owner, chain))
                low = first - book.first
                nodes: list[Node | None] = [None] * -low if -count < low < 0 else []
                nodes += book.nodes[max(low, 0) : max(low + count, 0)]
                found += nodes
                found += [None] * (count - len(nodes))
        return found

    def hold(self, owner: Hashable, chain: int, first: int, nodes: Sequence[Node]) -> None:
        """Hold the nodes of elements of a chain from `first` on, in place of older ones."""
        gone: list[object] = []
        with self._lock:
            key = owner, chain
            book = self._books.pop(key, None)
            if book is not None:
                self.weight -= book.weight
            if not isinstance(book, _Book) or not book.make_room(first, first + len(nodes)):
                gone.append(book)
                count = len(nodes)
                book = _Book(first, [None] * count, ENTRY_BYTES + SLOT_BYTES * count)
            book.weight += place(book.nodes, first - book.first, nodes, gone)
            self._add(key, book, gone)

    def entries(self, owner: Hashable, extents: Sequence[Extent]) -> dict[str, Node] | None:
        """Return the nodes of a dict's values by key, or None; the caller may not change it."""
        with self._lock:
            held = self._books.get((owner, tuple(extents)))
            if not isinstance(held, _Entries):
                return None
            self._books.move_to_end((owner, tuple(extents)))
            return held.entries

    def hold_entries(
        self, owner: Hashable, extents: Sequence[Extent], entries: dict[str, Node]
    ) -> None:
        """Hold the nodes of a dict's values at the version that `extents` are."""
        gone: list[object] = []
        weight = ENTRY_BYTES + sum(node.weight + 2 * SLOT_BYTES for node in entries.values())
        with self._lock:
            old = self._books.pop((owner, tuple(extents)), None)
            if old is not None:
                self.weight -= old.weight
                gone.append(old)
            self._add((owner, tuple(extents)), _Entries(entries, weight), gone)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            gone, self._books = self._books, OrderedDict()
            self.weight = 0
        gone.clear()

    def after_fork_in_child(self) -> None:
        """Give the child a lock of its own."""
        self._lock = Mutex()

    def _add(self, key: Hashable, book: _Book | _Entries, gone: list[object]) -> None:
        """Add a book; whatever has to make room goes to `gone`."""
        self._books[key] = book
        self.weight += book.weight
        while self.weight > self._limit and self._books:
            _, evicted = self._books.popitem(last=False)
            self.weight -= evicted.weight
            gone.append(evicted)
