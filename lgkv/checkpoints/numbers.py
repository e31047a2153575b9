"""The names that stand as numbers in the keys and records of a thread: namespaces, channels."""

from __future__ import annotations

from typing import Final

from lgkv.checkpoints import records as rec
from lgkv.errors import CorruptionError
from lgkv.layout import THREADS, Kind, Table, split_key
from lgkv.snapshot import Snapshot

__all__ = [
    "NUMBER_BYTES",
    "ROOT_NAMESPACE",
    "channel_names",
    "namespace_name",
    "namespace_number",
    "namespace_numbers",
]

ROOT_NAMESPACE: Final = 0
"""The number of the checkpoint namespace "", which every thread has."""

NUMBER_BYTES: Final = 8

_CHANNELS: Final = Kind.CHANNELS


def channel_names(snapshot: Snapshot, thread: int) -> list[str]:
    """Return the channel names of a thread; a channel's number is its position."""
    key = rec.thread_key(thread, _CHANNELS)
    body = snapshot.get(THREADS, key)
    return [] if body is None else rec.unpack_channels(key, body)


def namespace_number(snapshot: Snapshot, thread: int, namespace: str) -> int | None:
    """Return the number of a checkpoint namespace, or None."""
    if not namespace:
        return ROOT_NAMESPACE
    key = rec.namespace_number_key(thread, namespace)
    body = snapshot.get(THREADS, key)
    if body is None:
        return None
    if len(body) != NUMBER_BYTES:
        reason = "the checkpoint namespace's number does not have its size"
        raise CorruptionError(Table.THREADS.label, key, reason)
    return int.from_bytes(body, "big")


def namespace_name(snapshot: Snapshot, thread: int, number: int) -> str:
    """Return the name of checkpoint namespace `number`."""
    if number == ROOT_NAMESPACE:
        return ""
    key = rec.namespace_name_key(thread, number)
    body = snapshot.get(THREADS, key)
    if body is None:
        raise CorruptionError(
            Table.THREADS.label, key, "the checkpoint namespace's name is missing"
        )
    return rec.text_of(key, body)


def namespace_numbers(snapshot: Snapshot, thread: int) -> dict[int, str]:
    """Return the checkpoint namespaces of a thread by number."""
    prefix = rec.thread_key(thread, Kind.NAMESPACE_NAME)
    names = {ROOT_NAMESPACE: ""}
    for key, body in snapshot.scan(THREADS, prefix):
        (number,) = split_key(THREADS, key, len(prefix), "u")
        names[number] = rec.text_of(key, body)
    return names
