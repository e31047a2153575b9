"""Vectors of items: checking, storing, and exact scores.

An item has any number of float32 vectors, each with the path of the field that it stands
for. All vectors of a file have the same dimensions, which the first ones set.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lgkv.errors import CorruptionError, DimensionMismatchError, InvalidInputError
from lgkv.layout import Kind, Table, check_record, decode_plain, encode_fields, encode_plain
from lgkv.snapshot import Snapshot
from lgkv.writer import Batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "METRIC",
    "Settings",
    "VectorSet",
    "best_scores",
    "check_dims",
    "check_rows",
    "check_stored_rows",
    "check_vector",
    "common_dims",
    "get_vectors",
    "pack_vectors",
    "read_settings",
    "scan_vectors",
    "set_dims",
    "vector_set",
]

METRIC: Final = "cosine"

MAX_DIMS: Final = 1 << 16
CHUNK_ROWS: Final = 4096
"""As many vectors are scored at once: enough for numpy's speed, few enough to hold."""

_HEADER: Final = struct.Struct("<II")
_SETTINGS_KEY: Final = bytes((Kind.VECTOR_SETTINGS,))


@dataclass(frozen=True, slots=True)
class VectorSet:
    """An item's vectors: one row for each path."""

    paths: tuple[str, ...]
    rows: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Settings:
    """What all vectors of a file have in common."""

    dims: int
    metric: str


# --- checking ------------------------------------------------------------------------------


def vector_set(vectors: Any) -> VectorSet | None:
    """Return the vectors of an item: a mapping from paths to vectors, a list of them, or one.

    None, and nothing in the mapping or list, give None.

    Raises:
        InvalidInputError: A vector is not a list of finite numbers.
        DimensionMismatchError: They are not of one length.
    """
    if vectors is None:
        return None
    named = vectors if isinstance(vectors, Mapping) else _numbered(vectors)
    if not named:
        return None
    rows = [check_vector(vector, f"the vector {path!r}") for path, vector in named.items()]
    _common(row.size for row in rows)
    return VectorSet(tuple(str(path) for path in named), np.stack(rows))


def common_dims(several: Iterable[VectorSet]) -> int | None:
    """Return the dimensions that all these vectors have, None without any.

    Raises:
        DimensionMismatchError: They differ.
    """
    return _common(vectors.rows.shape[1] for vectors in several)


def _common(sizes: Iterable[int]) -> int | None:
    first: int | None = None
    for size in sizes:
        if first is None:
            first = size
        elif size != first:
            raise DimensionMismatchError(size, first, "give all vectors one length")
    return first


def _numbered(vectors: Any) -> dict[str, Any]:
    several = list(vectors)
    if several and np.ndim(several[0]) == 0:
        several = [several]
    return {str(number): vector for number, vector in enumerate(several)}


def check_vector(vector: Any, what: str) -> NDArray[np.float32]:
    """Return `vector` as float32 of shape (dims,), its own copy; `what` names it in messages.

    Raises:
        InvalidInputError: It is not a list of numbers, is empty or too long, or one of them
            is NaN, infinite, or too large for float32.
    """
    row: NDArray[np.float32] = check_rows([vector], what)[0]
    return row


def check_rows(vectors: Any, what: str) -> NDArray[np.float32]:
    """Return vectors as float32 of shape (count, dims); `what` names them in messages.

    Raises:
        InvalidInputError: As `check_vector` does.
    """
    try:
        given = np.asarray(vectors)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{what} is not a list of numbers: {error}") from None
    if given.dtype.kind not in "fiu":
        raise InvalidInputError(f"{what} is not a list of numbers, but of {given.dtype}")
    with np.errstate(over="ignore"):
        rows = np.array(given, dtype=np.float32, order="C")
    if rows.ndim != 2 or not 1 <= rows.shape[1] <= MAX_DIMS:
        raise InvalidInputError(
            f"{what} has the shape {rows.shape[1:]}: give 1 to {MAX_DIMS} numbers"
        )
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if wrong.size:
        row = rows[wrong[0]]
        place = int(np.flatnonzero(~np.isfinite(row))[0])
        which = "" if len(rows) == 1 else f" (number {wrong[0]})"
        raise InvalidInputError(
            f"{what}{which} holds {row[place]} at {place}: every number must be finite in float32"
        )
    return rows


def check_dims(settings: Settings | None, dims: int) -> None:
    """Raise DimensionMismatchError unless vectors of `dims` go with what the file has."""
    if settings is not None and settings.dims != dims:
        raise DimensionMismatchError(
            dims,
            settings.dims,
            "embed with the model that the file was filled with, delete the items that have "
            "vectors, or use another file",
        )


# --- settings ------------------------------------------------------------------------------


def read_settings(snapshot: Snapshot) -> Settings | None:
    """Return what the vectors of the file have in common; None as long as there are none."""
    body = snapshot.get(Table.MEMORY, _SETTINGS_KEY)
    if body is None:
        return None
    try:
        fields = decode_plain(body)
        dims, metric = fields["dims"], fields["metric"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptionError(
            Table.MEMORY.label, _SETTINGS_KEY, f"damaged settings: {error!r}"
        ) from None
    if type(dims) is not int or not 1 <= dims <= MAX_DIMS or metric != METRIC:
        raise CorruptionError(Table.MEMORY.label, _SETTINGS_KEY, "the settings cannot be")
    return Settings(dims, METRIC)


def set_dims(batch: Batch, dims: int) -> None:
    """Settle the dimensions with the first vectors; DimensionMismatchError with later ones.

    Once the last vector is deleted, the next ones settle them again.
    """
    settings = read_settings(batch)
    if settings is not None and settings.dims == dims:
        return
    if batch.has(Table.MEMORY, bytes((Kind.VECTORS,))):
        check_dims(settings, dims)
    batch.put(Table.MEMORY, _SETTINGS_KEY, encode_plain({"dims": dims, "metric": METRIC}))


# --- records -------------------------------------------------------------------------------


def pack_vectors(vectors: VectorSet) -> bytes:
    """Return a record's body: dims and count, the rows, the paths."""
    count, dims = vectors.rows.shape
    rows = vectors.rows.astype("<f4", copy=False).tobytes()
    paths = [path.encode("utf-8", "surrogatepass") for path in vectors.paths]
    return _HEADER.pack(dims, count) + rows + encode_fields(paths)


def unpack_rows(key: bytes, body: bytes) -> NDArray[np.float32]:
    """Return the rows of a record, which are read-only."""
    try:
        dims, count = _HEADER.unpack_from(body)
        rows = np.frombuffer(body, "<f4", dims * count, _HEADER.size)
    except (struct.error, ValueError) as error:
        raise CorruptionError(Table.MEMORY.label, key, str(error)) from None
    if not rows.size:
        raise CorruptionError(Table.MEMORY.label, key, "there are no vectors in it")
    return rows.reshape(count, dims)


def get_vectors(snapshot: Snapshot, suffix: bytes) -> VectorSet | None:
    """Return the vectors of the item at `suffix`, or None."""
    key = bytes((Kind.VECTORS,)) + suffix
    body = snapshot.get(Table.MEMORY, key)
    if body is None:
        return None
    rows = unpack_rows(key, body)
    try:
        paths = decode_plain(body[_HEADER.size + rows.nbytes :])
    except ValueError as error:
        raise CorruptionError(Table.MEMORY.label, key, str(error)) from None
    check_record(Table.MEMORY, key, paths, *[bytes] * len(rows))
    try:
        names = tuple(str(path, "utf-8", "surrogatepass") for path in paths)
    except UnicodeDecodeError as error:
        raise CorruptionError(Table.MEMORY.label, key, f"a damaged path: {error}") from None
    return VectorSet(names, rows)


def check_stored_rows(suffix: bytes, rows: NDArray[np.float32], dims: int) -> None:
    """Raise CorruptionError unless the rows of the item at `suffix` have `dims` finite numbers."""
    if rows.shape[1] != dims or not np.isfinite(rows).all():
        key = bytes((Kind.VECTORS,)) + suffix
        raise CorruptionError(Table.MEMORY.label, key, "a vector is not of the file's form")


def scan_vectors(snapshot: Snapshot, prefix: bytes) -> Iterator[tuple[bytes, NDArray[np.float32]]]:
    """Yield the suffixes that begin with `prefix`, in order, with their rows."""
    for key, body in snapshot.scan(Table.MEMORY, bytes((Kind.VECTORS,)) + prefix):
        yield key[1:], unpack_rows(key, body)


# --- scores --------------------------------------------------------------------------------


def best_scores(
    query: NDArray[np.float32], several: Iterable[NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Return for each matrix the best cosine similarity of its rows to `query`.

    Scores lie in [-1, 1]; a zero vector has 0. They are computed in float64, row by row in
    the same order, so that equal vectors have equal scores wherever they stand.
    """
    wide = query.astype(np.float64)
    length = float(np.sqrt(np.dot(wide, wide)))
    if length:
        wide /= length
    scores = [_chunk_scores(wide, chunk) for chunk in _chunks(several)]
    return np.concatenate(scores) if scores else np.zeros(0)


def _chunks(several: Iterable[NDArray[np.float32]]) -> Iterator[list[NDArray[np.float32]]]:
    chunk: list[NDArray[np.float32]] = []
    count = 0
    for rows in several:
        chunk.append(rows)
        count += len(rows)
        if count >= CHUNK_ROWS:
            yield chunk
            chunk, count = [], 0
    if chunk:
        yield chunk


def _chunk_scores(
    unit: NDArray[np.float64], chunk: list[NDArray[np.float32]]
) -> NDArray[np.float64]:
    rows = np.concatenate(chunk, dtype=np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    lengths[lengths == 0] = 1.0
    scores = np.clip(np.einsum("ij,j->i", rows, unit) / lengths, -1.0, 1.0)
    starts = np.cumsum([0, *(len(part) for part in chunk[:-1])])
    return np.asarray(np.maximum.reduceat(scores, starts), dtype=np.float64)
