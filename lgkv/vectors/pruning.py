"""Pruning: a scan that first reads a quarter of the octets, and yet finds what a scan finds.

A row's *code* has one octet a number. With the known length of what it leaves out it bounds
the row's key from both sides. What is below as many lower bounds as items are wanted is none
of them; the rest, mostly a few dozen rows, is ranked as ever. Codes are in memory, for rows
that searches scan, and are made once they are scanned a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from lgkv._vectors import SlabRows, count_uncoded, encode_slabs, kernel_name, scan_codes
from lgkv.vectors.directory import Ranges
from lgkv.vectors.ranking import FIRST_EXTRA, Query, Records

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Pruned", "encode", "prune"]

CODED_FROM_FLOATS: Final = 1 << 19
"""Fewer numbers are scanned as fast as they are."""

METRICS_WITH_CODES: Final = ("cosine", "inner_product")
SOON: Final = 8
"""Rows get codes when first scanned if at most an eighth of all have never been."""

RANKED_AT_MOST: Final = 16
"""If more than one of so many rows is left, nothing is won by looking at these alone."""

RANKED_AT_LEAST: Final = 64


@dataclass(slots=True)
class Pruned:
    """The rows of ranges that may be among the best, with what their keys are not above.

    No other row has a key above `floor`.
    """

    keys: NDArray[np.float32]
    places: NDArray[np.int64]
    ranges: Ranges
    floor: float

    def locate(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return slab and row of the vectors at `places`."""
        return self.ranges.locate(self.places[places])


def encode(records: Records, ranges: Ranges, query: Query, room_bytes: float) -> bool:
    """Return whether all rows of `ranges` have codes; they get them if it is time to.

    Codes of all slabs together take no more than `room_bytes`.
    """
    directory = records.directory
    settings, natives = directory.settings, directory.natives
    if (
        kernel_name() == "plain"  # which takes longer to make numbers of codes than to read them
        or settings.metric not in METRICS_WITH_CODES
        or ranges.rows * settings.dims < CODED_FROM_FLOATS
        or query.wild
    ):
        return False
    missing = count_uncoded(natives, *ranges.columns)
    if not missing:
        return True
    if SOON * _note_scan(natives, ranges) > ranges.rows:
        return False
    coded = sum(native.codes.coded for native in natives if native.codes is not None)
    if (coded + missing) * settings.dims > room_bytes:
        return False
    encode_slabs(
        natives,
        records.record,
        records.map_epoch,
        *ranges.columns,
        settings.dims,
        settings.float_bytes,
        settings.metric == "cosine",
    )
    return True


def _note_scan(natives: list[SlabRows], ranges: Ranges) -> int:
    """Note that `ranges` are scanned; return how many of their rows are in slabs that were not."""
    fresh = 0
    for number, start, stop in zip(ranges.slabs, ranges.starts, ranges.stops, strict=True):
        if not natives[number].scanned:
            fresh += stop - start
    for number in ranges.slabs:
        natives[number].scanned = True
    return fresh


def prune(records: Records, ranges: Ranges, query: Query, wanted: int) -> Pruned | None:
    """Return what may be among the `wanted` best rows, all of which have codes.

    None if that is so much that it is better to scan all.
    """
    count = wanted + FIRST_EXTRA
    if count >= ranges.rows:
        return None
    directory = records.directory
    margin, _ = query.margin(directory.longest)
    upper = np.empty(ranges.rows, np.float32)
    floor = scan_codes(
        directory.natives,
        *ranges.columns,
        query.narrow,
        query.length * (1 + 2.0**-20),
        2 * margin,
        upper,
        count,
    )
    places = np.flatnonzero((upper >= floor) & (upper > -np.inf))
    if len(places) > max(RANKED_AT_LEAST, 4 * wanted, ranges.rows // RANKED_AT_MOST):
        return None
    return Pruned(upper[places], places, ranges, floor)
