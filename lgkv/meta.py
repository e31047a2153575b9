"""The record that says what the file is: magic, format, features, and the file's id."""

from __future__ import annotations

import os

from lgkv.errors import CorruptionError, FormatVersionError, InvalidInputError
from lgkv.layout import (
    FORMAT_VERSION,
    KNOWN_FEATURES,
    MAGIC,
    META_KEY,
    decode_plain,
    encode_plain,
)

__all__ = ["check_meta", "new_meta"]


def new_meta() -> bytes:
    """Return the record's body for a file that is made now."""
    return encode_plain(
        {"magic": MAGIC, "format": FORMAT_VERSION, "features": 0, "file_id": os.urandom(16)}
    )


def check_meta(body: bytes | None, path: str) -> bytes:
    """Return the file's id once its format is known to be readable."""
    try:
        meta = None if body is None else decode_plain(body)
    except ValueError as error:
        raise CorruptionError("main", META_KEY, str(error)) from None
    if not isinstance(meta, dict) or meta.get("magic") != MAGIC:
        raise InvalidInputError(f"{path!r} is an LMDB file, but not one of lgkv's: name another")
    found, features, identity = meta.get("format"), meta.get("features"), meta.get("file_id")
    if found != FORMAT_VERSION:
        newer = isinstance(found, int) and found > FORMAT_VERSION
        remedy = "upgrade lgkv to read it" if newer else "read it with the lgkv that wrote it"
        raise FormatVersionError(f"format {found}", f"format {FORMAT_VERSION}", remedy)
    if not isinstance(features, int) or not isinstance(identity, bytes):
        raise CorruptionError("main", META_KEY, "the record does not have its fields")
    if features & ~KNOWN_FEATURES:
        raise FormatVersionError(
            f"features {features:#x}", f"features {KNOWN_FEATURES:#x}", "upgrade lgkv to read it"
        )
    return identity
