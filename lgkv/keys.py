"""Keys: parts that sort in bytes as their values do.

A key is a sequence of parts, each of which tells its own end, so that a key can be read
back without knowing what follows. `docs/FORMAT.md` describes the bytes.

The functions between the two marks below are the reference; `lgkv._native` holds the same
functions in Cython, and a test demands identical bytes.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from lgkv._native import (
    pack_bytes,
    pack_id,
    pack_key,
    pack_numbered,
    pack_text,
    pack_uint,
    unpack_bytes,
    unpack_id,
    unpack_uint,
)

__all__ = [
    "TEXT_LIMIT_BYTES",
    "decode_text",
    "encode_text",
    "next_prefix",
    "pack_bytes",
    "pack_id",
    "pack_key",
    "pack_numbered",
    "pack_text",
    "pack_uint",
    "pack_version",
    "unpack_bytes",
    "unpack_id",
    "unpack_uint",
    "unpack_version",
]

TEXT_LIMIT_BYTES: Final = 200
"""A part longer than this (escaped) is cut to it and told apart by a digest."""

DIGEST_BYTES: Final = 16

# On disk: DO NOT RENUMBER.
TAG_UUID: Final = 0x01
TAG_BYTES: Final = 0x02
TAG_INT: Final = 0x03
TAG_FLOAT: Final = 0x04
TAG_COUNTED: Final = 0x05

ESCAPED_NUL: Final = b"\x00\xff"
END_WHOLE: Final = b"\x00\x01"
END_CUT: Final = b"\x00\x02"

_MAX_UINT: Final = (1 << 64) - 1
_KEY_NUMBERS: Final = 3
_UUID_CHARS: Final = 36
_UUID_DASHES: Final = (8, 13, 18, 23)
_COUNTED_INT_DIGITS: Final = 32
_COUNTED_TAIL_DIGITS: Final = 16
_COUNTED_CHARS: Final = _COUNTED_INT_DIGITS + 1 + _COUNTED_TAIL_DIGITS


def encode_text(text: str) -> bytes:
    """Return `text` as UTF-8; a lone surrogate is kept, as its own three bytes."""
    return text.encode("utf-8", "surrogatepass")


def decode_text(raw: bytes) -> str:
    """Return the text that `encode_text` made `raw` from."""
    return str(raw, "utf-8", "surrogatepass")


# --- Python reference: begin ---------------------------------------------------------------


def _pack_uint(number: int) -> bytes:
    """Return `number` (0 to 2**64 - 1) as a length byte and that many big-endian bytes."""
    if not 0 <= number <= _MAX_UINT:
        raise ValueError(f"not an unsigned 64-bit number: {number}")
    size = (number.bit_length() + 7) >> 3
    return bytes((size,)) + number.to_bytes(size, "big")


def _pack_key(thread: int, kind: int, *numbers: int) -> bytes:
    """Return the key of `kind` in a thread: its number, the kind, and up to three more numbers."""
    if len(numbers) > _KEY_NUMBERS:
        raise ValueError(f"too many numbers for a key: {len(numbers)}")
    head = _pack_uint(thread)
    _pack_uint(kind)  # that it is a number
    if kind > 0xFF:
        raise ValueError(f"not a kind: {kind}")
    return head + bytes((kind,)) + b"".join(map(_pack_uint, numbers))


def _unpack_uint(key: bytes, start: int) -> tuple[int, int]:
    """Return the number at `start` of `key` and where it ends; ValueError if it is damaged.

    A leading zero is damage: what is read is what `pack_uint` writes, and no other bytes.
    """
    if start >= len(key) or key[start] > 8:
        raise ValueError("damaged number in a key")
    end = start + 1 + key[start]
    if end > len(key) or (key[start] and not key[start + 1]):
        raise ValueError("damaged number in a key")
    return int.from_bytes(key[start + 1 : end], "big"), end


def _pack_bytes(raw: bytes) -> bytes:
    """Return `raw` as a part that sorts as `raw` does.

    NUL is escaped and the end is marked. Over `TEXT_LIMIT_BYTES` the part is cut, and ends
    in a digest of the whole: such parts sort by what is left of them.
    """
    escaped = raw.replace(b"\x00", ESCAPED_NUL) if b"\x00" in raw else raw
    if len(escaped) <= TEXT_LIMIT_BYTES:
        return b"\x02" + escaped + END_WHOLE
    cut = TEXT_LIMIT_BYTES
    if escaped[cut - 1] == 0:  # never between a NUL and its escape
        cut -= 1
    return b"\x02" + escaped[:cut] + END_CUT + blake2b(raw, digest_size=DIGEST_BYTES).digest()


def _unpack_bytes(key: bytes, start: int) -> tuple[bytes, bool, int]:
    """Return the bytes at `start` of `key`, whether they are whole, and where the part ends.

    Of a cut part it gives what is left; the record holds the whole. ValueError if damaged.
    """
    if start >= len(key) or key[start] != TAG_BYTES:
        raise ValueError("damaged text in a key")
    at = start + 1
    while True:
        at = key.find(b"\x00", at)
        if at < 0 or at + 1 >= len(key):
            raise ValueError("damaged text in a key")
        mark = key[at + 1]
        if mark != 0xFF:
            break
        at += 2
    raw = key[start + 1 : at].replace(ESCAPED_NUL, b"\x00")
    if mark == 0x01:
        return raw, True, at + 2
    end = at + 2 + DIGEST_BYTES
    if mark != 0x02 or end > len(key):
        raise ValueError("damaged text in a key")
    return raw, False, end


def _pack_text(text: str) -> bytes:
    """Return `text` as a part that sorts by code points, as Python's `str` does."""
    return _pack_bytes(encode_text(text))


def _pack_numbered(number: int, text: str) -> bytes:
    """Return a key's part for `number`, and the one for `text` behind it."""
    return _pack_uint(number) + _pack_text(text)


def _pack_id(text: str) -> bytes:
    """Return a checkpoint id: a canonical lower-case UUID in 16 bytes, any other as text."""
    if len(text) == _UUID_CHARS and all(text[at] == "-" for at in _UUID_DASHES):
        digits = text.replace("-", "")
        if len(digits) == 32 and all(char in "0123456789abcdef" for char in digits):
            return b"\x01" + bytes.fromhex(digits)
    return _pack_bytes(text.encode("utf-8", "surrogatepass"))


def _unpack_id(key: bytes, start: int) -> tuple[bytes, bool, int]:
    """Return the id at `start` of `key` as UTF-8, whether it is whole, and where it ends."""
    if start < len(key) and key[start] == TAG_UUID:
        end = start + 17
        if end > len(key):
            raise ValueError("damaged id in a key")
        d = key[start + 1 : end].hex()
        text = f"{d[:8]}-{d[8:12]}-{d[12:16]}-{d[16:20]}-{d[20:]}"
        return text.encode("ascii"), True, end
    return _unpack_bytes(key, start)


# --- Python reference: end -----------------------------------------------------------------


def pack_version(version: str | float) -> bytes:
    """Return a channel version as a part; equal versions, and only they, give equal bytes.

    Versions are looked up, never scanned in order, so a number need not sort. The form that
    `LgkvSaver.get_next_version` and the other savers make, 32 digits, a dot and 16 digits,
    takes about 10 bytes.
    """
    if isinstance(version, str):
        return _pack_counted(version) or pack_text(version)
    if isinstance(version, int) or version.is_integer():
        return bytes((TAG_INT,)) + pack_bytes(b"%d" % int(version))
    return bytes((TAG_FLOAT,)) + pack_bytes(repr(version).encode("ascii"))


def _pack_counted(version: str) -> bytes | None:
    count, dot, tail = version.partition(".")
    if len(version) != _COUNTED_CHARS or len(count) != _COUNTED_INT_DIGITS or not dot:
        return None
    if not (version.isascii() and count.isdecimal() and tail.isdecimal()):
        return None
    number = int(count)
    if number > _MAX_UINT:
        return None
    return bytes((TAG_COUNTED,)) + pack_uint(number) + pack_uint(int(tail))


def unpack_version(part: bytes) -> str | float:
    """Return the version of a part that is not text; ValueError if it is damaged."""
    if part[:1] == bytes((TAG_COUNTED,)):
        number, at = unpack_uint(part, 1)
        tail, _ = unpack_uint(part, at)
        return f"{number:0{_COUNTED_INT_DIGITS}}.{tail:0{_COUNTED_TAIL_DIGITS}}"
    raw, whole, _ = unpack_bytes(part, 1)
    if part[:1] == bytes((TAG_INT,)) and whole:
        return int(raw)
    if part[:1] == bytes((TAG_FLOAT,)) and whole:
        return float(raw)
    raise ValueError("a version has an unknown form")


def next_prefix(prefix: bytes) -> bytes:
    """Return the smallest key that is larger than every key that begins with `prefix`.

    `prefix` must hold a byte below 0xFF, which every prefix of lgkv's does: it begins with
    a kind or a number's length.
    """
    body = prefix if prefix[-1] != 0xFF else prefix.rstrip(b"\xff")
    return body[:-1] + bytes((body[-1] + 1,))
