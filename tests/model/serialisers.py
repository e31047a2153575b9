"""The serialisers that histories are tried with, by name."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from lgkv.langgraph import StrictSerializer
from tests.unit.shadows import TYPES

__all__ = ["NAMES", "Masking", "serialiser"]


class Masking(JsonPlusSerializer):
    """Somebody's own encryption, by way of a subclass."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Return the payload of a value."""
        kind, raw = super().dumps_typed(obj)
        return kind, bytes(byte ^ 0x5A for byte in raw)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Return the value of a payload."""
        return super().loads_typed((data[0], bytes(byte ^ 0x5A for byte in data[1])))


NAMES = ("strict", "allowlist", "pickle", "aes", "own")


def serialiser(name: str) -> Any:
    """Return a new serialiser."""
    if name == "strict":
        return StrictSerializer(TYPES)
    if name == "allowlist":
        return JsonPlusSerializer(allowed_msgpack_modules=TYPES)
    if name == "pickle":
        return JsonPlusSerializer(allowed_msgpack_modules=TYPES, pickle_fallback=True)
    if name == "aes":
        inner = JsonPlusSerializer(allowed_msgpack_modules=TYPES)
        return EncryptedSerializer.from_pycryptodome_aes(inner, key=b"0123456789abcdef")
    assert name == "own"
    return Masking(allowed_msgpack_modules=TYPES)
