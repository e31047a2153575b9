"""Channel values as bytes, and what is new in them.

A codec turns a value into a typed payload, `(type, bytes)`, and back. `lgkv.codec.plan`
finds what of a list or dict is new against a stored version, `lgkv.codec.shelf` remembers
what stored elements look like. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final, Protocol

__all__ = ["EMPTY", "PLAIN_TYPE", "Codec", "Payload"]

Payload = tuple[str, bytes]
"""A type tag and the bytes: what a LangGraph serialiser's `dumps_typed` gives."""

PLAIN_TYPE: Final = "+cbor"
"""The type tag of plain data; no serialiser's tag begins with a plus sign."""

EMPTY: Final[Payload] = ("empty", b"")
"""Marks a version at which a channel holds nothing."""


class Codec(Protocol):
    """Encodes and decodes one value. Called outside every lock and transaction."""

    @property
    def models(self) -> frozenset[type] | None:
        """The model classes whose serialised form is a function of their fields.

        None if the codec is not compositional: if a list's payload is not a MessagePack array
        of what its elements' payloads are.
        """
        ...

    @property
    def signature(self) -> Hashable:
        """What tells codecs apart that may decode the same bytes to different values."""
        ...

    def encode(self, value: Any) -> Payload:
        """Return `value` as a payload; InvalidInputError if it cannot be encoded."""
        ...

    def decode(self, payload: Payload) -> Any:
        """Return a fresh value from a payload that `encode` made."""
        ...

    def encode_parts(self, parts: list[dict[str, Any]]) -> Payload:
        """Return the metadata of a checkpoint and what else it has as a payload.

        Plain CBOR where that loses nothing.
        """
        ...
