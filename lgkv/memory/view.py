"""Reading items: one by one, by search, and their namespaces, all as of one commit."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
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
    check_stored_rows,
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
    updated_us: int = 0
    sequence: int = 0
    score: float | None = None


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

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
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
        return self._read(_Candidate(namespace, suffix), record, refresh=refresh)

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
        if query is not None:
            ordered = self._by_score(prefix, query, keeps)
        else:
            ordered = (
                one
                for one in _newest_first(self._candidates(prefix))
                if keeps is None or self._passes(one, keeps)
            )
        page = islice(ordered, offset, offset + limit)
        return [self._read(one, self._record(one), refresh=refresh) for one in page]

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

    def _by_score(
        self, prefix: tuple[str, ...], query: NDArray[np.float32], keeps: Predicate | None
    ) -> Iterator[_Candidate]:
        """Yield the scored candidates, best first, then those without vectors, newest first.

        Without a filter only what has vectors is read, unless the caller goes on to the rest.
        """
        kept: list[_Candidate] | None = None
        if keeps is not None:
            kept = [one for one in self._candidates(prefix) if self._passes(one, keeps)]
        vectors = self._vectors(prefix) if kept is None else self._vectors_of(kept)
        scored = self._scored(vectors, query)
        scored.sort(key=lambda one: -(one.score or 0.0))
        for _, equal in groupby(scored, lambda one: one.score):
            yield from self._newest_of(list(equal))
        done = {one.suffix for one in scored}
        rest = self._candidates(prefix) if kept is None else kept
        yield from _newest_first(one for one in rest if one.suffix not in done)

    def _scored(
        self, vectors: Iterator[tuple[_Candidate, NDArray[np.float32]]], query: NDArray[np.float32]
    ) -> list[_Candidate]:
        scored: list[_Candidate] = []

        def rows() -> Iterator[NDArray[np.float32]]:
            for candidate, found in vectors:
                check_stored_rows(candidate.suffix, found, query.size)
                scored.append(candidate)
                yield found

        for candidate, score in zip(scored, best_scores(query, rows()).tolist(), strict=True):
            candidate.score = score
        return scored

    def _vectors(self, prefix: tuple[str, ...]) -> Iterator[tuple[_Candidate, NDArray[np.float32]]]:
        for namespace, node in self._nodes_under(prefix):
            for suffix, rows in scan_vectors(self._snapshot, pack_uint(node.number)):
                yield _Candidate(namespace, suffix), rows

    def _vectors_of(
        self, candidates: list[_Candidate]
    ) -> Iterator[tuple[_Candidate, NDArray[np.float32]]]:
        for candidate in candidates:
            vectors = get_vectors(self._snapshot, candidate.suffix)
            if vectors is not None:
                yield candidate, vectors.rows

    def _newest_of(self, equal: list[_Candidate]) -> Iterator[_Candidate]:
        """Yield candidates of one score, newest first, without what is hidden."""
        shown: list[_Candidate] = []
        for candidate in equal:
            record = self._record(candidate)
            candidate.updated_us, candidate.sequence = record.updated_us, record.sequence
            if not self._hides(record):
                shown.append(candidate)
        yield from _newest_first(shown)

    def _passes(self, candidate: _Candidate, keeps: Predicate) -> bool:
        return keeps(self._record(candidate).value(item_key(candidate.suffix)))

    def _record(self, candidate: _Candidate) -> ItemRecord:
        key = item_key(candidate.suffix)
        body = self._snapshot.get(Table.MEMORY, key)
        if body is None:
            raise CorruptionError(Table.MEMORY.label, key, "the item was found and cannot be read")
        return unpack_item(key, body)

    def _read(self, found: _Candidate, record: ItemRecord, *, refresh: bool) -> StoredItem:
        if refresh and needs_refresh(record.ttl_us, record.deadline_us, self._now):
            self.to_refresh.add(found.suffix)
        key = item_key(found.suffix)
        try:
            created, updated = _time(record.created_us), _time(record.updated_us)
            expires = _time(record.deadline_us) if record.deadline_us else None
        except OverflowError as error:
            raise CorruptionError(Table.MEMORY.label, key, f"a damaged time: {error}") from None
        return StoredItem(
            found.namespace,
            record.key_text(key),
            record.value(key),
            created,
            updated,
            found.score,
            expires,
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


def _newest_first(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    return sorted(candidates, key=lambda one: (one.updated_us, one.sequence), reverse=True)


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
