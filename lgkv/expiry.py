"""Deadlines: when a record ends, and which have ended.

Times are whole microseconds since 1970, UTC; 0 stands for none. A deadline is indexed by
`kind | deadline | suffix`, the suffix being the rest of the record's own key, so that what
is due is a range at the front of the index.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Final

from lgkv.errors import CorruptionError, InvalidInputError
from lgkv.keys import pack_uint, unpack_uint
from lgkv.layout import Kind, Table
from lgkv.snapshot import Snapshot
from lgkv.writer import Batch

__all__ = ["due", "is_past", "move_deadline", "needs_refresh", "now_us", "ttl_us"]

MAX_TTL_SECONDS: Final = 10**11
"""About 3,000 years: more is taken for a mistake."""

REFRESH_SHARE: Final = 8
"""A deadline is moved on reading once this part of the TTL has passed: a read is rarely a write."""


def now_us() -> int:
    """Return the time in microseconds since 1970."""
    return time.time_ns() // 1000


def ttl_us(seconds: float | None) -> int:
    """Return a time to live in microseconds, at least one; 0 for None.

    Raises:
        InvalidInputError: Not a number of seconds from 0 to 10**11.
    """
    if seconds is None:
        return 0
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise InvalidInputError(f"a time to live is a number or None, not {seconds!r}")
    if not math.isfinite(seconds) or not 0 <= seconds <= MAX_TTL_SECONDS:
        raise InvalidInputError(
            f"a time to live of {seconds!r} seconds: give 0 to 10**11, or None for no end"
        )
    return max(1, round(seconds * 1_000_000))


def is_past(deadline_us: int, now: int) -> bool:
    """Whether a record with this deadline has ended by `now`."""
    return 0 < deadline_us <= now


def needs_refresh(ttl: int, deadline_us: int, now: int) -> bool:
    """Whether an eighth of the time to live has passed since the deadline was last set."""
    return ttl > 0 and (now - (deadline_us - ttl)) * REFRESH_SHARE >= ttl


def move_deadline(batch: Batch, kind: Kind, suffix: bytes, old_us: int, new_us: int) -> None:
    """Index the record at `suffix` under its new deadline instead of its old one."""
    if old_us == new_us:
        return
    if old_us:
        batch.delete(Table.INDEX, _key(kind, old_us, suffix))
    if new_us:
        batch.put(Table.INDEX, _key(kind, new_us, suffix), b"")


def due(snapshot: Snapshot, kind: Kind, now: int) -> Iterator[tuple[int, bytes]]:
    """Yield the deadlines up to `now`, oldest first, each with its record's suffix."""
    for key in snapshot.keys(Table.INDEX, bytes((kind,)), stop=_key(kind, now + 1, b"")):
        try:
            deadline_us, end = unpack_uint(key, 1)
        except ValueError as error:
            raise CorruptionError(Table.INDEX.label, key, str(error)) from None
        if not deadline_us:
            raise CorruptionError(Table.INDEX.label, key, "what has no deadline is not indexed")
        yield deadline_us, key[end:]


def _key(kind: Kind, deadline_us: int, suffix: bytes) -> bytes:
    return bytes((kind,)) + pack_uint(deadline_us) + suffix
