"""Checking the vectors that a caller gives: shape, numbers, dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from lgkv._vectors import all_finite
from lgkv.errors import DimensionMismatchError, InvalidInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_DIMS", "VectorSet", "check_rows", "check_vector", "common_dims", "vector_set"]

MAX_DIMS: Final = 1 << 16


class VectorSet(NamedTuple):
    """An item's vectors, one for each path: `rows` from `first` on, of which others may be more."""

    paths: tuple[str, ...]
    rows: NDArray[np.float32]
    first: int = 0

    @classmethod
    def among(
        cls, paths: tuple[str, ...], rows: NDArray[np.float32], numbers: Sequence[int]
    ) -> VectorSet | None:
        """Return those of checked vectors that have these numbers; None without any."""
        if len(numbers) == 1:
            return cls(paths, rows, numbers[0])
        return cls(paths, rows[list(numbers)]) if numbers else None

    @property
    def own(self) -> NDArray[np.float32]:
        """Its vectors alone."""
        return self.rows[self.first : self.first + len(self.paths)]


def vector_set(vectors: Any) -> VectorSet | None:
    """Return the vectors of an item: a mapping from paths to vectors, a list of them, or one.

    A set of them was checked, and is given back. None, and nothing in the mapping or list,
    give None.

    Raises:
        InvalidInputError: A vector is not a list of finite numbers.
        DimensionMismatchError: They are not of one length.
    """
    if vectors is None or isinstance(vectors, VectorSet):
        return vectors
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
    if not isinstance(vectors, Iterable) or isinstance(vectors, (str, bytes, bytearray)):
        raise InvalidInputError(f"the vectors are {vectors!r:.100}: give lists of numbers")
    several = list(np.atleast_1d(vectors) if isinstance(vectors, np.ndarray) else vectors)
    if several and np.ndim(several[0]) == 0:
        several = [several]
    return {str(number): vector for number, vector in enumerate(several)}


def check_vector(vector: Any, what: str) -> NDArray[np.float32]:
    """Return `vector` as float32 of shape (dims,), its own copy; `what` names it in messages.

    Raises:
        InvalidInputError: It is not a list of numbers, is empty or too long, or one of them
            is NaN, infinite, or too large for float32.
    """
    if type(vector) is np.ndarray and vector.dtype == np.float32 and vector.ndim == 1:
        own: NDArray[np.float32] = vector.copy()
        if 1 <= own.size <= MAX_DIMS and all_finite(own):
            return own
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
    if given.dtype == np.float32:
        made_here = isinstance(vectors, list) and given.flags.c_contiguous
        rows = given if made_here else np.array(given, order="C")
    else:
        with np.errstate(over="ignore"):
            rows = np.array(given, dtype=np.float32, order="C")
    if rows.ndim != 2 or not 1 <= rows.shape[1] <= MAX_DIMS:
        raise InvalidInputError(
            f"{what} has the shape {rows.shape[1:]}: give 1 to {MAX_DIMS} numbers"
        )
    finite = np.isfinite(rows)
    if not finite.all():
        number, place = np.argwhere(~finite)[0].tolist()
        which = "" if len(rows) == 1 else f" (number {number})"
        raise InvalidInputError(
            f"{what}{which} holds {rows[number, place]} at {place}: "
            "every number must be finite in float32"
        )
    return rows
