"""Channel values as bytes.

A codec turns a value into a typed payload, `(type, bytes)`, and back. The records layer
stores the pair as it is and never looks inside, so that any serialiser will do. `EMPTY`
marks a version at which a channel holds nothing.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

__all__ = ["EMPTY", "Codec", "Payload"]

Payload = tuple[str, bytes]
"""A type tag and the bytes: what a LangGraph serialiser's `dumps_typed` gives."""

EMPTY: Final[Payload] = ("empty", b"")


class Codec(Protocol):
    """Encodes and decodes one value. Called outside every lock and transaction."""

    def encode(self, value: Any) -> Payload:
        """Return `value` as a payload; InvalidInputError if it cannot be encoded."""
        ...

    def decode(self, payload: Payload) -> Any:
        """Return a fresh value from a payload that `encode` made."""
        ...

    def encode_metadata(self, metadata: dict[str, Any]) -> Payload:
        """Return a checkpoint's metadata as a payload: plain CBOR where that loses nothing."""
        ...
