"""The checkpoints of all threads in one listing, newest id first."""

from __future__ import annotations

import bisect
from collections.abc import Iterator

from lgkv.checkpoints import records as rec
from lgkv.checkpoints.heads import Head, unpack_head
from lgkv.checkpoints.numbers import ROOT_NAMESPACE, namespace_numbers
from lgkv.checkpoints.order import LATEST, Bound, bound_of, descending
from lgkv.checkpoints.reading import PAGE, Place, Snapshots
from lgkv.checkpoints.thread import read_thread
from lgkv.layout import Table, split_key
from lgkv.snapshot import Snapshot

__all__ = ["heads_of_all"]


def heads_of_all(snapshots: Snapshots, before: str | None) -> Iterator[tuple[Place, Head]]:
    """Yield the heads of all threads, newest id first.

    A thread is looked into once the listing has come down to its newest checkpoint.
    """
    merged, count = _Merged(before), 1
    while True:
        with snapshots() as snapshot:
            page = merged.page(snapshot, count)
        yield from page
        if len(page) < count:
            return
        count = min(count * 4, PAGE)


class _Merged:
    """The checkpoints of all threads from the newest id down, a page at a time.

    Between two pages it holds keys only: how far it is among the threads, which are ordered
    by their newest checkpoints, and of each namespace of those its next checkpoint.
    """

    def __init__(self, before: str | None) -> None:
        self._before = before
        self._reached: Bound | None = None
        self._met: set[int] = set()
        self._next: list[tuple[bytes, bytes, Place]] = []
        self._as_of = -1
        self._walks: dict[Place, Iterator[Bound]] = {}
        """How far a page has come in the namespaces; they end with its snapshot."""

    def page(self, snapshot: Snapshot, count: int) -> list[tuple[Place, Head]]:
        """Return the next `count` checkpoints, fewer at the end."""
        self._look_for_risen(snapshot)
        page: list[tuple[Place, Head]] = []
        threads = descending(snapshot, Table.INDEX, LATEST, self._reached)
        newest = next(threads, None)
        while len(page) < count:
            while newest is not None and (not self._next or newest.raw >= self._next[-1][0]):
                self._look_into(snapshot, newest)
                self._reached, newest = newest, next(threads, None)
            if not self._next:
                break
            raw, key, place = self._next.pop()
            self._push(snapshot, place, Bound(raw, key))
            body = snapshot.get(Table.THREADS, key)
            if body is not None:  # else it was deleted since the last page
                head = unpack_head(snapshot, place.thread, place.namespace, key, body)
                page.append((place, head))
                self._before = head.id
        self._walks = {}
        return page

    def _look_for_risen(self, snapshot: Snapshot) -> None:
        """Look into threads that have a new newest checkpoint, above the point reached."""
        commit = snapshot.read_state().commit
        if commit != self._as_of and self._reached is not None:
            for thread in descending(snapshot, Table.INDEX, LATEST, None):
                if thread <= self._reached:
                    break
                self._look_into(snapshot, thread)
        self._as_of = commit

    def _look_into(self, snapshot: Snapshot, thread: Bound) -> None:
        _, number = split_key(Table.INDEX, thread.key, 1, "iu")
        if number in self._met:
            return
        self._met.add(number)
        record = read_thread(snapshot, number)
        namespaces = {ROOT_NAMESPACE: ""}
        if record.namespaces > 1:
            namespaces = namespace_numbers(snapshot, number)
        for namespace, name in namespaces.items():
            place = Place(number, record.thread_id, namespace, name)
            prefix = rec.checkpoints_prefix(number, namespace)
            self._push(snapshot, place, bound_of(prefix, self._before))

    def _push(self, snapshot: Snapshot, place: Place, below: Bound | None) -> None:
        """Take up the next checkpoint of a namespace below a bound, if there is one."""
        walk = self._walks.get(place)
        if walk is None:
            prefix = rec.checkpoints_prefix(place.thread, place.namespace)
            walk = self._walks[place] = descending(snapshot, Table.THREADS, prefix, below)
        found = next(walk, None)
        if found is not None:
            bisect.insort(self._next, (found.raw, found.key, place))
