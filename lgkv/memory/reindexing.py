"""Making all vectors anew from the stored items, while searches go on with the old ones.

Texts are embedded outside every lock, some at a time, and each part is a commit. Whoever
calls again after a crash, with the same model, goes on where that was left off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

from lgkv.connection import Connection
from lgkv.errors import CorruptionError, InvalidInputError
from lgkv.layout import Table
from lgkv.memory.items import node_of, read_item, read_place
from lgkv.vectors import (
    IndexConfig,
    NewVectors,
    Pending,
    VectorSet,
    begin_pending,
    check_rows,
    drop_generation,
    find_vectors,
    put_pending,
    read_state,
    still_pending,
    still_to_do,
    switch,
)
from lgkv.writer import Batch, Change

__all__ = ["Embed", "Progress", "TextsOf", "reindex"]

Embed = Callable[[list[str]], Any]
"""Returns a vector for each text."""

TextsOf = Callable[[dict[str, Any], tuple[str, ...]], Mapping[str, str]]
"""Returns the texts to embed of an item, by path, given its value and the paths it had."""

Progress = Callable[[int, int], None]
"""Is told how many items are done, and about how many there are."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Some items as one snapshot has them: their names, sequences, and texts by path."""

    suffixes: list[bytes]
    sequences: list[int]
    texts: list[dict[str, str]]


def reindex(
    connection: Connection,
    embed: Embed,
    texts_of: TextsOf,
    config: IndexConfig,
    *,
    batch_size: int,
    progress: Progress | None,
) -> int:
    """Make the vectors of all items that have some anew; return how many items were embedded.

    Raises:
        InvalidInputError: `embed` does not give a vector of one length for each text, or
            another process began to reindex with another model.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InvalidInputError(f"batch_size is {batch_size!r}: give a whole number, 1 or more")
    dims = check_rows(embed(["the length of a vector"]), "the embedding").shape[1]
    pending = connection.commit(Change(lambda batch: begin_pending(batch, dims, config)))
    if pending is None:
        return 0
    done = 0
    while True:
        part, total = _read(connection, pending, texts_of, batch_size)
        if part.suffixes:
            vectors = _embedded(embed, part.texts, dims)
            _commit(connection, pending, part, vectors)
            done += len(part.suffixes)
            if progress is not None:
                progress(done, max(done, total))
            continue
        replaced = connection.commit(Change(lambda batch: switch(batch, pending)))
        if replaced is not None:
            connection.commit(_dropping(replaced))
            return done
        _check_ours(connection, pending)


def _read(
    connection: Connection, pending: Pending, texts_of: TextsOf, batch_size: int
) -> tuple[_Part, int]:
    """Return the next items to embed, and about how many there are in all."""
    found: list[tuple[bytes, int, dict[str, Any], tuple[str, ...]]] = []
    with connection.snapshot() as snapshot:
        state, now = read_state(snapshot), still_pending(snapshot, pending)
        for suffix in islice(still_to_do(snapshot, now, state.live), batch_size):
            item, vectors = read_item(snapshot, suffix), find_vectors(snapshot, state.live, suffix)
            if item is None:
                raise CorruptionError(
                    Table.MEMORY.label, suffix, "vectors were found, but not their item"
                )
            key, record = item
            paths = () if vectors is None else vectors[1]
            found.append((suffix, record.sequence, record.value(key), paths))
    texts = [dict(texts_of(value, paths)) for _, _, value, paths in found]
    part = _Part([one[0] for one in found], [one[1] for one in found], texts)
    return part, state.vectors


def _embedded(embed: Embed, several: list[dict[str, str]], dims: int) -> list[VectorSet | None]:
    unique = list(dict.fromkeys(text for texts in several for text in texts.values()))
    rows = check_rows(embed(unique), "the embedding") if unique else None
    if rows is not None and rows.shape != (len(unique), dims):
        raise InvalidInputError(
            f"the embedding gave vectors of shape {rows.shape} for {len(unique)} texts: "
            f"it must give {dims} numbers for each"
        )
    if rows is None:
        return [None] * len(several)
    numbers = dict(zip(unique, count(), strict=False))
    return [
        VectorSet.among(tuple(texts), rows, [numbers[text] for text in texts.values()])
        for texts in several
    ]


def _commit(
    connection: Connection, pending: Pending, part: _Part, vectors: list[VectorSet | None]
) -> None:
    def apply(batch: Batch) -> bool:
        seen: list[bytes] = []
        new = NewVectors()
        for suffix, sequence, several in zip(part.suffixes, part.sequences, vectors, strict=True):
            place = read_place(batch, suffix)
            if place is None or place[1] != sequence:
                continue  # it was changed meanwhile, and is to do again
            seen.append(suffix)
            if several is not None:
                new.add(node_of(suffix), suffix, several)
        return put_pending(batch, pending, seen, new)

    if not connection.commit(Change(apply)):
        _check_ours(connection, pending)


def _dropping(generation: int) -> Change[None]:
    return Change(lambda batch: drop_generation(batch, generation))


def _check_ours(connection: Connection, pending: Pending) -> None:
    with connection.snapshot() as snapshot:
        still_pending(snapshot, pending)
