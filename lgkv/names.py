"""Thread names: each is stored once, and keys carry its number.

A name is looked up in the transaction that uses it. Numbers are never used again. Every
name passes these functions, so that a keyed form of names can come without moving
anything else.
"""

from __future__ import annotations

from typing import Final

from lgkv.env import Snapshot
from lgkv.errors import CorruptionError
from lgkv.keys import pack_text
from lgkv.layout import NAMES, Kind, Table
from lgkv.writer import Batch

__all__ = ["add_thread", "remove_thread", "thread_number"]

_NUMBER: Final = bytes((Kind.THREAD_NUMBER,))
_NUMBER_BYTES: Final = 8


def thread_number(snapshot: Snapshot, thread_id: str) -> int | None:
    """Return the number of the thread named `thread_id`, or None."""
    key = _NUMBER + pack_text(thread_id)
    body = snapshot.get(NAMES, key)
    if body is None:
        return None
    if len(body) != _NUMBER_BYTES:
        raise CorruptionError(Table.NAMES.label, key, "the thread number does not have its size")
    return int.from_bytes(body, "big")


def add_thread(batch: Batch, thread_id: str) -> int | None:
    """Give a new thread its number; None if there is one of this name."""
    number = batch.state.threads + 1
    key = _NUMBER + pack_text(thread_id)
    if not batch.put_new(NAMES, key, number.to_bytes(_NUMBER_BYTES, "big")):
        return None
    batch.state.threads = number
    return number


def remove_thread(batch: Batch, thread_id: str) -> None:
    """Forget a thread's name; its number stays used."""
    batch.delete(NAMES, _NUMBER + pack_text(thread_id))
    batch.state.names_epoch += 1
