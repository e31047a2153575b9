"""Where the elements of a list are in a stored version, and which of them are new."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from lgkv._shadow import Node, matches, node_key, run_length, value_key

__all__ = ["MAX_EXTENTS", "Extent", "Kept", "Run", "bounded", "is_same", "runs_of"]

MAX_EXTENTS: Final = 64
"""A list in more runs than this is stored again in one."""

Dump = Callable[[Any], bytes]
"""Gives what stands for an element in a serialised list."""


class Extent(NamedTuple):
    """`size` elements of a chain from element `first` on."""

    chain: int
    first: int
    size: int


class Kept(NamedTuple):
    """Elements of the base, by position, that the new version has."""

    first: int
    size: int


Run = Kept | list[Any]
"""Elements in a row: of the base, or new."""


def runs_of(values: list[Any], old: list[Node], dump: Dump) -> list[Run]:
    """Return `values` as runs of `old` and lists of new elements, in order.

    Elements are matched in step with the base; where they fall out of step, an element is
    looked up by its key, so that trimming, inserting, removing and moving keep what is
    there. Behind the end of the base all is new.
    """
    runs: list[Run] = []
    index: dict[Any, list[int]] | None = None
    at = position = 0
    while position < len(values):
        count = run_length(old, at, values, position, dump)
        if count:
            _keep(runs, at, count)
            at += count
            position += count
            continue
        if index is None and at < len(old):
            index = _index(old)
        found = None if index is None else _find(index, old, values[position], dump)
        if found is not None:
            at = found
            continue
        if runs and isinstance(runs[-1], list):
            runs[-1].append(values[position])
        else:
            runs.append([values[position]])
        position += 1
        at += 1
    return runs


def _keep(runs: list[Run], first: int, count: int) -> None:
    last = runs[-1] if runs else None
    if isinstance(last, Kept) and last.first + last.size == first:
        runs[-1] = Kept(last.first, last.size + count)
    else:
        runs.append(Kept(first, count))


def bounded(runs: list[Run], values: list[Any], extents: Sequence[Extent]) -> list[Run]:
    """Return runs that lie in at most `MAX_EXTENTS` extents.

    If they are more, those at the end that are small against what comes behind them are
    stored anew, as one: so each element is stored again O(log) times, however often a list
    forks. If that does not help, all is.
    """
    if len(runs) * max(len(extents), 1) <= MAX_EXTENTS:  # for each lies in no more than all
        return runs
    spans = [span for run in runs for span in _spans(run, extents)]
    if len(spans) <= MAX_EXTENTS:
        return runs
    at, behind = len(spans), 0
    while at and (not behind or spans[at - 1] <= 2 * behind):
        at -= 1
        behind += spans[at]
    start = len(values) - behind
    if at >= MAX_EXTENTS:
        return [values]
    kept: list[Run] = []
    for run in runs:
        size = run.size if isinstance(run, Kept) else len(run)
        room = min(size, start)
        if room:
            kept.append(Kept(run.first, room) if isinstance(run, Kept) else run[:room])
        start -= room
    return [*kept, values[len(values) - behind :]]


def _spans(run: Run, extents: Sequence[Extent]) -> Iterator[int]:
    """Yield the sizes of the extents that a run of elements lies in."""
    if not isinstance(run, Kept):
        yield len(run)
        return
    position = 0
    for extent in extents:
        low = max(run.first, position)
        high = min(run.first + run.size, position + extent.size)
        if low < high:
            yield high - low
        position += extent.size


def _index(nodes: list[Node]) -> dict[Any, list[int]]:
    index: dict[Any, list[int]] = {}
    for at, node in enumerate(nodes):
        key = node_key(node) if node.raw is None else node.raw
        index.setdefault(key, []).append(at)
    return index


_CANDIDATES: Final = 4


def _find(index: dict[Any, list[int]], old: list[Node], value: Any, dump: Dump) -> int | None:
    keys = [value_key(value)]
    if any(node.raw is not None for node in old):
        keys.append(dump(value))
    for key in keys:
        for at in index.get(key, ())[:_CANDIDATES]:
            if is_same(old[at], value, dump):
                return at
    return None


def is_same(node: Node, value: Any, dump: Dump) -> bool:
    """Whether a value is stored as the one that a node was made of."""
    return bool(dump(value) == node.raw if node.raw is not None else matches(node, value))
