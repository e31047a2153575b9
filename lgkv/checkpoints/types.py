"""What checkpoints look like to a caller, and the codec for use without LangGraph."""

from __future__ import annotations

import datetime
import operator
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lgkv.codec import PLAIN_TYPE, Codec, Payload
from lgkv.errors import CorruptionError, InvalidInputError, LgkvError
from lgkv.layout import Table, decode_plain, encode_plain

__all__ = [
    "PLAIN_TYPE",
    "DecodedWrites",
    "PlainCodec",
    "StoredCheckpoint",
    "ThreadInfo",
    "check_limit",
    "check_mappings",
    "check_texts",
    "decode_parts",
    "decode_payload",
    "run_text",
]

DecodedWrites = list[tuple[str, str, Any]]
"""Pending writes as (task id, channel, value)."""


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint as read; all of it is the caller's own.

    `writes` are (task id, channel, value), in LangGraph's `writes_sort_key` order.
    """

    thread_id: str
    namespace: str
    id: str
    parent_id: str | None
    checkpoint: dict[str, Any]
    metadata: dict[str, Any]
    writes: DecodedWrites


@dataclass(frozen=True, slots=True)
class ThreadInfo:
    """A thread in a listing. `metadata` is that of its newest checkpoint in the root namespace.

    `size_bytes` counts the thread's records and their keys. `metadata` is empty where it is
    encrypted or otherwise not plain data. `latest_checkpoint_id` is the greatest id in any
    namespace, None where there are only pending writes yet.
    """

    thread_id: str
    created_at: datetime.datetime
    updated_at: datetime.datetime
    checkpoints: int
    size_bytes: int
    metadata: dict[str, Any]
    number: int
    latest_checkpoint_id: str | None


class PlainCodec:
    """Values as CBOR, for use without LangGraph."""

    models = None
    """Not compositional: a list is stored whole."""

    signature = PLAIN_TYPE

    def encode(self, value: Any) -> Payload:
        """Return `value` as a payload; InvalidInputError if it is not plain data."""
        return PLAIN_TYPE, encode_plain(value)

    def decode(self, payload: Payload) -> Any:
        """Return the value of a plain payload."""
        kind, raw = payload
        if kind != PLAIN_TYPE:
            raise InvalidInputError(
                f"the value was stored by a serialiser as {kind!r}: "
                "read it through LgkvSaver with that serialiser"
            )
        return decode_plain(raw)

    def encode_parts(self, parts: list[dict[str, Any]]) -> Payload:
        """Return the metadata of a checkpoint and what else it has as a payload."""
        return self.encode(parts)


def decode_payload(codec: Codec, payload: Payload, key: bytes | None = None) -> Any:
    """Return the value of a payload, whether plain data or the codec's own form.

    Bytes that are none are a CorruptionError that names the record's `key`; what a codec of
    somebody's own raises is its own affair: it may be for want of a key.
    """
    plain = payload[0] == PLAIN_TYPE
    try:
        return decode_plain(payload[1]) if plain else codec.decode(payload)
    except LgkvError:
        raise
    except (ValueError, RecursionError) as error:
        if plain or codec.models is not None:
            reason = f"the value cannot be decoded: {error}"
            raise CorruptionError(Table.THREADS.label, key, reason) from error
        raise


def decode_parts(
    codec: Codec, payload: Payload, key: bytes | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metadata of a checkpoint, and what else it has beside its channels."""
    parts = decode_payload(codec, payload, key)
    if (
        not isinstance(parts, (list, tuple))
        or len(parts) != 2
        or not isinstance(parts[0], dict)
        or not isinstance(parts[1], dict)
    ):
        raise CorruptionError(Table.THREADS.label, key, "a checkpoint does not have its parts")
    return parts[0], parts[1]


def run_text(run_id: Any) -> str | None:
    """Return the text of a run's id, None if it is neither a str nor a UUID."""
    if isinstance(run_id, str):
        return str.__str__(run_id)  # of a member of an enumeration its value
    return str(run_id) if isinstance(run_id, uuid.UUID) else None


def check_limit(limit: Any) -> int:
    """Return how many are wanted; InvalidInputError unless it is a whole number."""
    try:
        return min(operator.index(limit), sys.maxsize)
    except TypeError:
        raise InvalidInputError(f"limit is {limit!r}: give a whole number") from None


def check_mappings(**given: Any) -> None:
    """Raise InvalidInputError for an argument that is not a mapping."""
    for name, mapping in given.items():
        if type(mapping) is not dict and not isinstance(mapping, Mapping):
            raise InvalidInputError(f"{name} is {mapping!r:.100}: give a dict")


def check_texts(**texts: Any) -> None:
    """Raise InvalidInputError for an argument that is not a str."""
    for name, text in texts.items():
        if not isinstance(text, str):
            raise InvalidInputError(f"{name} is {text!r}: give a str")
