"""Listing the namespaces that hold items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from lgkv.errors import InvalidInputError
from lgkv.memory.checks import check_page
from lgkv.nodes import Node, Wanted, walk_nodes
from lgkv.snapshot import Snapshot

__all__ = ["list_namespaces"]

ANY_LABEL: Final = "*"


def list_namespaces(  # noqa: PLR0917  the options of the listing
    snapshot: Snapshot,
    shows: Callable[[Node], bool],
    prefixes: Sequence[Sequence[str]],
    suffixes: Sequence[Sequence[str]],
    max_depth: int | None,
    limit: int,
    offset: int,
) -> list[tuple[str, ...]]:
    """Return the namespaces that `shows` has something in, as `MemoryView.namespaces` does."""
    check_page(limit, offset)
    if max_depth is not None and (not isinstance(max_depth, int) or max_depth < 0):
        raise InvalidInputError(f"max_depth is {max_depth!r}: give 0 or more, or None")
    found: list[tuple[str, ...]] = []
    last: tuple[str, ...] | None = None
    for namespace, node in walk_nodes(snapshot, _wanted(prefixes)):
        cut = namespace[:max_depth]
        if len(found) == offset + limit:
            break
        if cut != last and _ends_with(namespace, suffixes) and shows(node):
            found.append(cut)
            last = cut
    return found[offset:]


def _wanted(prefixes: Sequence[Sequence[str]]) -> list[Wanted]:
    """Return the labels that all of `prefixes` together allow at each depth."""
    wanted: list[Wanted] = [None] * max((len(prefix) for prefix in prefixes), default=0)
    for prefix in prefixes:
        for depth, label in enumerate(prefix):
            if label != ANY_LABEL:
                allowed = wanted[depth]
                wanted[depth] = frozenset((label,)) if allowed is None else allowed & {label}
    return wanted


def _ends_with(namespace: tuple[str, ...], suffixes: Sequence[Sequence[str]]) -> bool:
    return all(
        len(suffix) <= len(namespace)
        and all(
            pattern in (ANY_LABEL, label)
            for pattern, label in zip(reversed(suffix), reversed(namespace), strict=False)
        )
        for suffix in suffixes
    )
