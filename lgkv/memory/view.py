"""Reading items: one by one, by search, and their namespaces, all as of one commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lgkv.errors import CorruptionError
from lgkv.expiry import is_past, needs_refresh
from lgkv.filters import Test, compile_encoded
from lgkv.keywords import best_by_words, fuse
from lgkv.layout import MEMORY, Table
from lgkv.memory.checks import check_key, check_mode, check_namespace, check_page
from lgkv.memory.fields import Match, find_matches, matched, read_fields, why_not
from lgkv.memory.items import (
    ItemRecord,
    checked,
    decode_mapping,
    fetch_item,
    item_suffix,
    node_of,
    read_item,
    utc_time,
)
from lgkv.memory.listing import list_namespaces
from lgkv.memory.nearest import Meaning, Near, Nearest
from lgkv.memory.recency import Found, newest_first
from lgkv.memory.types import SearchPlan, StoredItem
from lgkv.nodes import Node, Paths, path_of, walk_nodes
from lgkv.snapshot import Snapshot
from lgkv.vectors import IndexConfig, Plan, check_vector

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

__all__ = ["MemoryView", "SearchPlan", "StoredItem"]

FUSED: Final = 200
"""As many of the best by words, and by vector, are fused."""


@dataclass(slots=True)
class _Candidate:
    """An item that a search may return."""

    namespace: tuple[str, ...]
    suffix: bytes
    updated_us: int = 0
    sequence: int = 0
    score: float | None = None
    parts: Mapping[str, float] | None = None


class MemoryView:
    """The items as of one commit; to be used in a `with` statement, and not for long.

    It ends with its `snapshot`. What had ended by `ended_by`, in microseconds, is hidden, though
    it was not swept yet; 0 hides nothing. Items that were read with `refresh` and whose deadline
    is due to be moved are gathered in `to_refresh`.
    """

    __slots__ = ("_clock", "_ended_by", "_meaning", "_paths", "snapshot", "to_refresh")

    def __init__(
        self,
        snapshot: Snapshot,
        clock: Callable[[], int],
        paths: Paths,
        meaning: Meaning,
        ended_by: int,
    ) -> None:
        self.snapshot, self._clock, self._paths = snapshot, clock, paths
        self._meaning, self._ended_by = meaning, ended_by
        self.to_refresh: set[bytes] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.snapshot.__exit__(kind, error, trace)

    def get(
        self, namespace: tuple[str, ...], key: str, *, refresh: bool = False
    ) -> StoredItem | None:
        """Return the item, or None."""
        snapshot = self.snapshot
        known = self._paths.known(snapshot)
        try:
            number = known[namespace]  # it was checked when it was found
        except (KeyError, TypeError):
            number = self._paths.number(snapshot, check_namespace(namespace))
        if number is None:
            return None
        suffix = item_suffix(number, key if type(key) is str else check_key(key))
        get, table = snapshot.reader(MEMORY)
        fetched = fetch_item(get, table, decode_mapping, MEMORY, suffix)
        if not fetched:
            found = read_item(snapshot, suffix) if fetched is None else None
            if found is None or self._hides(found[1]):
                return None
            return self._item(namespace, suffix, *found, refresh=refresh)
        text, value, created, updated, expires, deadline_us, ttl_us = fetched
        if 0 < deadline_us <= self._ended_by:
            return None
        if refresh and ttl_us and needs_refresh(ttl_us, deadline_us, self._clock()):
            self.to_refresh.add(suffix)
        fields = namespace, text, value, created, updated, None, expires, None
        return tuple.__new__(StoredItem, fields)  # sooner than by its own `__new__`

    def search(
        self,
        prefix: tuple[str, ...],
        *,
        filter: Mapping[str, Any] | None = None,
        vector: Any = None,
        text: str | None = None,
        mode: str | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh: bool = False,
        config: IndexConfig | None = None,
    ) -> list[StoredItem]:
        """Return the items under `prefix` that `filter` keeps, from `offset` on.

        They come as `Memory.search` has it.
        """
        check_namespace(prefix)
        where = check_page(limit, offset)
        mode = check_mode(mode, vector, text)
        test = compile_encoded(filter)
        if text is not None and mode != "vector":
            ranked = self._by_words(prefix, text, test)
            if mode == "hybrid":
                near = self._near(prefix, vector, test, FUSED, config)
                ranked = self._fused(ranked, near)
            return [
                self._item(each.namespace, each.suffix, *self._record(each), each.score,
                           parts=each.parts, refresh=refresh)
                for each in islice(ranked, where.start, where.stop)
            ]  # fmt: skip
        if vector is None:
            match = find_matches(self.snapshot, read_fields(self.snapshot), filter)
            ordered = (
                self._newest(prefix, test) if match is None else self._matched(match, prefix, test)
            )
            page = islice(ordered, where.start, where.stop)
            return [self._found(one, refresh=refresh) for one in page]
        return self._nearest_first(prefix, vector, test, where, config, refresh=refresh)

    def vectors(self, namespace: tuple[str, ...], key: str) -> NDArray[np.float32] | None:
        """Return the vectors of an item, of shape (count, dims); None if it has none."""
        number = self._paths.number(self.snapshot, check_namespace(namespace))
        if number is None:
            return None
        return self._meaning.index.vectors(self.snapshot, item_suffix(number, check_key(key)))

    def plan(
        self,
        prefix: tuple[str, ...],
        vector: Any,
        *,
        filter: Mapping[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
    ) -> Plan:
        """Return how `search` would find the nearest to `vector`, and why."""
        check_namespace(prefix)
        where = check_page(limit, offset)
        query = check_vector(vector, "the query vector")
        nearest = Nearest(self.snapshot, self._meaning, compile_encoded(filter), self._ended_by)
        return nearest.plan(prefix, query, where.stop)

    def explain(
        self, prefix: tuple[str, ...], *, filter: Mapping[str, Any] | None = None
    ) -> SearchPlan:
        """Return how `search` would look for this without a query."""
        check_namespace(prefix)
        compile_encoded(filter)
        index = read_fields(self.snapshot)
        match = find_matches(self.snapshot, index, filter)
        if match is None:
            return SearchPlan("recency", None, None, why_not(index, filter))
        return SearchPlan("field", match.name, len(match.entries), "the index has few enough items")

    def namespaces(
        self,
        *,
        prefixes: Sequence[Sequence[str]] = (),
        suffixes: Sequence[Sequence[str]] = (),
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[tuple[str, ...]]:
        """Return the namespaces that hold items, sorted, cut to `max_depth` labels.

        Each must begin with every one of `prefixes` and end with every one of `suffixes`, in
        which "*" stands for any label.
        """
        return list_namespaces(
            self.snapshot, self._shows, prefixes, suffixes, max_depth, limit, offset
        )

    # --- by words ---

    def _by_words(
        self, prefix: tuple[str, ...], text: str, test: Test | None
    ) -> Iterator[_Candidate]:
        """Yield the items that say a word of `text`, best first, then newest first."""
        nodes = {node.number: namespace for namespace, node in self._nodes_under(prefix)}
        scores = best_by_words(self.snapshot, nodes.keys(), text)
        ordered = sorted(scores.items(), key=lambda each: -each[1])
        for score, equal in groupby(ordered, lambda each: each[1]):
            alike = [
                _Candidate(nodes[node_of(suffix)], suffix, score=score, parts={"keyword": score})
                for suffix, _ in equal
            ]
            yield from self._newest_of(alike, test)

    def _fused(self, ranked: Iterator[_Candidate], near: list[Near]) -> Iterator[_Candidate]:
        """Yield the best by words and the best by vector in the order of both together."""
        by_words = list(islice(ranked, FUSED))
        by_vector = [
            _Candidate(self._namespace(each.suffix), each.suffix, score=each.score) for each in near
        ]
        found = {each.suffix: each for each in (*by_vector, *by_words)}
        parts: dict[bytes, dict[str, float]] = {suffix: {} for suffix in found}
        for name, ranking in (("keyword", by_words), ("vector", by_vector)):
            for each in ranking:
                parts[each.suffix][name] = each.score or 0.0
        scores = fuse([[each.suffix for each in ranking] for ranking in (by_words, by_vector)])
        for score, equal in groupby(
            sorted(scores.items(), key=lambda each: -each[1]), lambda each: each[1]
        ):
            alike = [
                _Candidate(found[suffix].namespace, suffix, score=score, parts=parts[suffix])
                for suffix, _ in equal
            ]
            yield from self._newest_of(alike, None)

    # --- parts ---

    def _near(
        self,
        prefix: tuple[str, ...],
        vector: Any,
        test: Test | None,
        wanted: int,
        config: IndexConfig | None,
    ) -> list[Near]:
        query = check_vector(vector, "the query vector")
        nearest = Nearest(self.snapshot, self._meaning, test, self._ended_by)
        return nearest.search(prefix, query, wanted, config)

    def _nearest_first(
        self,
        prefix: tuple[str, ...],
        vector: Any,
        test: Test | None,
        page: slice,
        config: IndexConfig | None,
        *,
        refresh: bool,
    ) -> list[StoredItem]:
        """Return the nearest items, then those without vectors, newest first."""
        found = self._near(prefix, vector, test, page.stop, config)
        items = [
            self._item(
                self._namespace(one.suffix),
                one.suffix,
                one.pack,
                one.record,
                one.score,
                refresh=refresh,
            )
            for one in found[page]
        ]
        if len(found) < page.stop:
            done = {one.suffix for one in found}
            rest = (one for one in self._newest(prefix, test) if _suffix(one) not in done)
            more = islice(rest, max(0, page.start - len(found)), page.stop - len(found))
            items += [self._found(one, refresh=refresh) for one in more]
        return items

    def _namespace(self, suffix: bytes) -> tuple[str, ...]:
        return self._meaning.namespace(self.snapshot, node_of(suffix))

    def _newest(self, prefix: tuple[str, ...], test: Test | None) -> Iterator[Found]:
        return newest_first(self.snapshot, self._nodes_under(prefix), test, self._ended_by)

    def _matched(self, match: Match, prefix: tuple[str, ...], test: Test | None) -> Iterator[Found]:
        known: dict[int, tuple[str, ...] | None] = {}

        def namespace_of(node: int) -> tuple[str, ...] | None:
            if node not in known:
                path = path_of(self.snapshot, node)
                known[node] = path if path[: len(prefix)] == prefix else None
            return known[node]

        return matched(self.snapshot, match, namespace_of, test, self._ended_by)

    def _nodes_under(self, prefix: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Node]]:
        for namespace, node in walk_nodes(self.snapshot, [frozenset((label,)) for label in prefix]):
            if node.items:
                yield namespace, node

    def _newest_of(self, equal: list[_Candidate], test: Test | None) -> Iterator[_Candidate]:
        """Yield candidates of one score, newest first, without what is hidden or refused."""
        shown: list[_Candidate] = []
        for candidate in equal:
            key, record = self._record(candidate)
            candidate.updated_us, candidate.sequence = record.updated_us, record.sequence
            if not self._hides(record) and (
                test is None or checked(key, test.holds, record.encoded)
            ):
                shown.append(candidate)
        yield from sorted(shown, key=lambda one: (one.updated_us, one.sequence), reverse=True)

    def _record(self, candidate: _Candidate) -> tuple[bytes, ItemRecord]:
        found = read_item(self.snapshot, candidate.suffix)
        if found is None:
            raise CorruptionError(
                Table.MEMORY.label, candidate.suffix, "the item was found and cannot be read"
            )
        return found

    def _found(self, found: Found, *, refresh: bool) -> StoredItem:
        record = found.record()
        suffix = item_suffix(found.node, record.key_text(found.key))
        return self._item(found.namespace, suffix, found.key, record, refresh=refresh)

    def _item(
        self,
        namespace: tuple[str, ...],
        suffix: bytes,
        pack: bytes,
        record: ItemRecord,
        score: float | None = None,
        *,
        parts: Mapping[str, float] | None = None,
        refresh: bool,
    ) -> StoredItem:
        updated_us, _, created_us, ttl_us, deadline_us, _, _ = record
        if refresh and ttl_us and needs_refresh(ttl_us, deadline_us, self._clock()):
            self.to_refresh.add(suffix)
        try:
            updated = utc_time(updated_us)
            created = updated if created_us == updated_us else utc_time(created_us)
            expires = utc_time(deadline_us) if deadline_us else None
        except OverflowError as error:
            raise CorruptionError(Table.MEMORY.label, pack, f"a damaged time: {error}") from None
        key, value = record.key_text(pack), record.value(pack)
        parts = parts if parts or score is None else {"vector": score}
        fields = namespace, key, value, created, updated, score, expires, parts
        return tuple.__new__(StoredItem, fields)  # sooner than by its own `__new__`

    def _hides(self, record: ItemRecord) -> bool:
        return self._ended_by > 0 and is_past(record.deadline_us, self._ended_by)

    def _shows(self, node: Node) -> bool:
        if node.items > node.expiring or not self._ended_by:
            return node.items > 0
        return any(True for _ in newest_first(self.snapshot, [((), node)], None, self._ended_by))


def _suffix(found: Found) -> bytes:
    return item_suffix(found.node, found.record().key_text(found.key))
