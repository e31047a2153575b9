"""Reading items: one by one, by search, and their namespaces, all as of one commit."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lgkv.errors import CorruptionError, InvalidInputError
from lgkv.expiry import is_past, needs_refresh
from lgkv.filters import Predicate, compile_filter
from lgkv.keys import pack_uint
from lgkv.layout import Kind, Table
from lgkv.memory.items import ItemRecord, item_key, item_suffix, unpack_item
from lgkv.nodes import Node, Wanted, find_node, walk_nodes
from lgkv.snapshot import Snapshot
from lgkv.vectors import (
    best_scores,
    check_dims,
    check_vector,
    get_vectors,
    read_settings,
    scan_vectors,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

__all__ = ["MemoryView", "StoredItem", "check_key", "check_namespace", "check_page"]

EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
ANY_LABEL: Final = "*"


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item as it was read; the value is the caller's own.

    `score` is the cosine similarity that a search by vector gave it, None without one.
    Times are aware, in UTC; `expires_at` is None for an item that stays.
    """

    namespace: tuple[str, ...]
    key: str
    value: dict[str, Any]
    created_at: datetime.datetime
    updated_at: datetime.datetime
    score: float | None = None
    expires_at: datetime.datetime | None = None


@dataclass(slots=True)
class _Candidate:
    """An item that a search may return."""

    namespace: tuple[str, ...]
    suffix: bytes
    updated_us: int
    sequence: int
    score: float | None = None

    @property
    def recency(self) -> tuple[int, int]:
        return self.updated_us, self.sequence


class MemoryView:
    """The items as of one commit; to be used in a `with` statement, and not for long.

    `omit_expired` hides what has expired and was not swept yet. Items that were read with
    `refresh` and whose deadline is due to be moved are gathered in `to_refresh`.
    """

    def __init__(self, snapshot: Snapshot, now_us: int, *, omit_expired: bool) -> None:
        self._snapshot, self._now, self._omit = snapshot, now_us, omit_expired
        self.to_refresh: set[bytes] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._snapshot.__exit__(kind, error, trace)

    def get(
        self, namespace: tuple[str, ...], key: str, *, refresh: bool = False
    ) -> StoredItem | None:
        """Return the item, or None."""
        node = find_node(self._snapshot, check_namespace(namespace))
        if node is None:
            return None
        suffix = item_suffix(node.number, check_key(key))
        body = self._snapshot.get(Table.MEMORY, item_key(suffix))
        if body is None:
            return None
        record = unpack_item(item_key(suffix), body)
        if self._hides(record):
            return None
        return self._read(namespace, suffix, record, refresh=refresh)

    def search(
        self,
        prefix: tuple[str, ...],
        *,
        filter: Mapping[str, Any] | None = None,
        vector: Any = None,
        limit: int = 10,
        offset: int = 0,
        refresh: bool = False,
    ) -> list[StoredItem]:
        """Return the items under `prefix` that `filter` keeps, from `offset` on.

        Without a vector they come newest update first. With one, the nearest come first, an
        item counting as its best vector does; those that have no vector follow, newest first.
        """
        check_namespace(prefix)
        check_page(limit, offset)
        test = compile_filter(filter)
        keeps = test if filter else None
        query = None if vector is None else check_vector(vector, "the query vector")
        if query is not None:
            check_dims(read_settings(self._snapshot), query.size)
        candidates = list(self._candidates(prefix))
        if query is None:
            ordered = sorted(candidates, key=lambda one: one.recency, reverse=True)
            return self._page(ordered, keeps, limit, offset, refresh=refresh)
        if keeps is not None:
            candidates = [
                one for one in candidates if keeps(self._record(one).value(item_key(one.suffix)))
            ]
        self._score(candidates, prefix, query, every=keeps is None)
        return self._page(sorted(candidates, key=_rank), None, limit, offset, refresh=refresh)

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
        check_page(limit, offset)
        if max_depth is not None and (not isinstance(max_depth, int) or max_depth < 0):
            raise InvalidInputError(f"max_depth is {max_depth!r}: give 0 or more, or None")
        found: list[tuple[str, ...]] = []
        last: tuple[str, ...] | None = None
        for namespace, node in walk_nodes(self._snapshot, _wanted(prefixes)):
            cut = namespace[:max_depth]
            if len(found) == offset + limit:
                break
            if cut != last and _ends_with(namespace, suffixes) and self._shows(node):
                found.append(cut)
                last = cut
        return found[offset:]

    # --- parts ---

    def _candidates(self, prefix: tuple[str, ...]) -> Iterator[_Candidate]:
        for namespace, node in self._nodes_under(prefix):
            for key, body in self._snapshot.scan(Table.MEMORY, _items_of(node)):
                record = unpack_item(key, body)
                if not self._hides(record):
                    yield _Candidate(namespace, key[1:], record.updated_us, record.sequence)

    def _nodes_under(self, prefix: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Node]]:
        for namespace, node in walk_nodes(
            self._snapshot, [frozenset((label,)) for label in prefix]
        ):
            if node.items:
                yield namespace, node

    def _score(
        self,
        candidates: list[_Candidate],
        prefix: tuple[str, ...],
        query: NDArray[np.float32],
        *,
        every: bool,
    ) -> None:
        """Set the scores of the candidates that have vectors; `every` item may be one."""
        by_suffix = {one.suffix: one for one in candidates}
        scored: list[_Candidate] = []

        def rows() -> Iterator[NDArray[np.float32]]:
            for suffix, found in self._vectors(by_suffix, prefix, every=every):
                candidate = by_suffix.get(suffix)
                if candidate is not None and len(found):
                    scored.append(candidate)
                    yield found

        scores = best_scores(query, rows())
        for candidate, score in zip(scored, scores.tolist(), strict=True):
            candidate.score = score

    def _vectors(
        self, suffixes: Mapping[bytes, Any], prefix: tuple[str, ...], *, every: bool
    ) -> Iterator[tuple[bytes, NDArray[np.float32]]]:
        if every:
            for _, node in self._nodes_under(prefix):
                yield from scan_vectors(self._snapshot, pack_uint(node.number))
            return
        for suffix in suffixes:
            vectors = get_vectors(self._snapshot, suffix)
            if vectors is not None:
                yield suffix, vectors.rows

    def _page(
        self,
        ordered: Sequence[_Candidate],
        keeps: Predicate | None,
        limit: int,
        offset: int,
        *,
        refresh: bool,
    ) -> list[StoredItem]:
        """Return `limit` of the candidates that the filter keeps, `offset` of them skipped."""
        if keeps is None:
            ordered, offset = ordered[offset : offset + limit], 0
        page: list[StoredItem] = []
        for candidate in ordered:
            if len(page) == limit:
                break
            record = self._record(candidate)
            if keeps is not None and not keeps(record.value(item_key(candidate.suffix))):
                continue
            if offset:
                offset -= 1
                continue
            page.append(
                self._read(
                    candidate.namespace,
                    candidate.suffix,
                    record,
                    refresh=refresh,
                    score=candidate.score,
                )
            )
        return page

    def _record(self, candidate: _Candidate) -> ItemRecord:
        key = item_key(candidate.suffix)
        body = self._snapshot.get(Table.MEMORY, key)
        if body is None:
            raise CorruptionError(Table.MEMORY.label, key, "the item was found and cannot be read")
        return unpack_item(key, body)

    def _read(
        self,
        namespace: tuple[str, ...],
        suffix: bytes,
        record: ItemRecord,
        *,
        refresh: bool,
        score: float | None = None,
    ) -> StoredItem:
        if refresh and needs_refresh(record.ttl_us, record.deadline_us, self._now):
            self.to_refresh.add(suffix)
        key = item_key(suffix)
        return StoredItem(
            namespace,
            record.key_text(key),
            record.value(key),
            _time(record.created_us),
            _time(record.updated_us),
            score,
            _time(record.deadline_us) if record.deadline_us else None,
        )

    def _hides(self, record: ItemRecord) -> bool:
        return self._omit and is_past(record.deadline_us, self._now)

    def _shows(self, node: Node) -> bool:
        if not node.items or not self._omit:
            return node.items > 0
        items = self._snapshot.scan(Table.MEMORY, _items_of(node))
        return any(not self._hides(unpack_item(key, body)) for key, body in items)


# --- checking ------------------------------------------------------------------------------


def check_namespace(namespace: Any) -> tuple[str, ...]:
    """Return `namespace`; InvalidInputError unless it is a tuple of str that are not empty."""
    if not isinstance(namespace, tuple):
        raise InvalidInputError(
            f"a namespace is a tuple of str, not {namespace!r}: write ('users', '42')"
        )
    for label in namespace:
        if not isinstance(label, str) or not label:
            raise InvalidInputError(
                f"the label {label!r} of namespace {namespace!r} is not a str, or empty"
            )
    return namespace


def check_key(key: Any) -> str:
    """Return `key`; InvalidInputError unless it is a str."""
    if not isinstance(key, str):
        raise InvalidInputError(f"a key is a str, not {key!r}: convert it with str()")
    return key


def check_page(limit: Any, offset: Any) -> None:
    """Raise InvalidInputError unless both are whole numbers, 0 or more."""
    for name, number in (("limit", limit), ("offset", offset)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise InvalidInputError(f"{name} is {number!r}: give a whole number, 0 or more")


# --- small parts ---------------------------------------------------------------------------


def _rank(candidate: _Candidate) -> tuple[int, float, int, int]:
    unscored = candidate.score is None
    return unscored, -(candidate.score or 0.0), -candidate.updated_us, -candidate.sequence


def _items_of(node: Node) -> bytes:
    return bytes((Kind.ITEM,)) + pack_uint(node.number)


def _time(microseconds: int) -> datetime.datetime:
    return EPOCH + datetime.timedelta(microseconds=microseconds)


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
