"""Bytes made to harm: stored ones changed in ways that an encoder never would.

Everything is drawn from a `random.Random`, so a seed tells the whole story.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import cbor2

from lgkv._msgpack import split_array
from lgkv.keys import pack_uint

__all__ = ["CBOR_BOMBS", "MSGPACK_BOMBS", "NUMBERS", "mangled", "mangled_key"]

NUMBERS: Final = (
    0, 1, 2, 7, 8, 9, 127, 128, 255, 256, 65_535, 65_536,
    2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**48, 2**53, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
"""Numbers at which a size, a sign or a sum goes wrong."""

CBOR_BOMBS: Final = (
    b"\x9b\x7f" + b"\xff" * 7,  # a list of 2**63 elements, a map, bytes, a text
    b"\xbb\x7f" + b"\xff" * 7,
    b"\x5b\x7f" + b"\xff" * 7,
    b"\x7b\x7f" + b"\xff" * 7,
    b"\x9a\x7f\xff\xff\xff",
    b"\x5a\x7f\xff\xff\xff",
    b"\x9b" + b"\xff" * 8,
    b"\x9f" * 300,  # lists without an end
    b"\x81" * 390 + b"\x01",  # nested as deep as the decoder allows, and deeper
    b"\x81" * 100_000,
    b"\xa1\x80" * 500 + b"\x01",
    b"\xc4\x82\x1a\x3b\x9a\xca\x00\x01",  # 10**1,000,000,000, 2**1,000,000,000
    b"\xc5\x82\x1a\x3b\x9a\xca\x00\x01",
    b"\xc1\xfb\x7e\x37\xe4\x3c\x88\x00\x75\x9c",  # 1e300 seconds since 1970
    b"\xd8\x28\x82\x82\x1b\x7f" + b"\xff" * 7 + b"\x00\xd8\x40\x40",  # a numpy array of 2**63 rows
    b"\xd8\x28\x82\x81\x20\xd8\x56\x48" + b"\xff" * 8,
    b"\xd8\x28\x82\xf6\x01",
    b"\xd9\x01\x02\x81\x81\x80",  # a set of lists
    b"\xd8\x1c\x81\xd8\x1d\x00",  # a list that holds itself
    b"\xd9\x01\x00\x82\x43abc\xd8\x19\x05",  # a reference to a text that is not there
    b"\xd8\x23\x68(a*)*b{9}",  # a pattern
    b"\xc2\x59\x20\x00" + b"\xff" * 8192,  # a number of 20,000 digits
    b"\xf7",
    b"\xf8\xff",
    b"\xff",
    b"\x62\xff\xff",
)

MSGPACK_BOMBS: Final = (
    b"\xdd" + b"\xff" * 4,
    b"\xdf" + b"\xff" * 4,
    b"\xdb" + b"\xff" * 4,
    b"\xc6" + b"\xff" * 4,
    b"\xdc\xff\xff",
    b"\xde\xff\xff",
    b"\x91" * 5_000 + b"\xc0",
    b"\x81\xc0" * 5_000 + b"\xc0",
    b"\xc9" + b"\xff" * 4 + b"\x05",
    b"\xc7\x00\x05",  # the serialiser's own types, empty or wrong
    *(b"\xd4" + bytes((kind, 0xC0)) for kind in range(9)),
    b"\xc1",
    *(bytes((tag,)) for tag in range(0xC4, 0xE0)),  # and nothing of what the tag announces
    *(bytes((tag, 0xFF)) for tag in range(0xC4, 0xE0)),
    b"\x81\x90\x01",
    b"\xa1\xff",
)

Change = Callable[[random.Random, bytes], bytes]


# --- bytes ---------------------------------------------------------------------------------


def _span(rnd: random.Random, raw: bytes) -> tuple[int, int]:
    low = rnd.randrange(len(raw) + 1)
    return low, min(len(raw), low + rnd.choice((1, 1, 2, 4, 8, 16, 64)))


def _flip(rnd: random.Random, raw: bytes) -> bytes:
    at = rnd.randrange(len(raw))
    return raw[:at] + bytes((raw[at] ^ 1 << rnd.randrange(8),)) + raw[at + 1 :]


def _set(rnd: random.Random, raw: bytes) -> bytes:
    at = rnd.randrange(len(raw))
    return raw[:at] + rnd.choice((b"\0", b"\x01", b"\x7f", b"\x80", b"\xff")) + raw[at + 1 :]


def _cut(rnd: random.Random, raw: bytes) -> bytes:
    return raw[: rnd.randrange(len(raw))]


def _extend(rnd: random.Random, raw: bytes) -> bytes:
    return raw + rnd.randbytes(rnd.choice((1, 2, 8, 100)))


def _remove(rnd: random.Random, raw: bytes) -> bytes:
    low, high = _span(rnd, raw)
    return raw[:low] + raw[high:]


def _repeat(rnd: random.Random, raw: bytes) -> bytes:
    low, high = _span(rnd, raw)
    return raw[:high] + raw[low:high] * rnd.choice((1, 2, 500)) + raw[high:]


def _insert(rnd: random.Random, raw: bytes) -> bytes:
    low, high = _span(rnd, raw)
    new = rnd.choice((*CBOR_BOMBS, *MSGPACK_BOMBS, rnd.randbytes(8), b"\0" * 64))
    return raw[:low] + new + raw[rnd.choice((low, high)) :]


def _number(rnd: random.Random, raw: bytes) -> bytes:
    """Put a number where a header of fixed size may have one."""
    width = rnd.choice((2, 4, 8))
    at = width * rnd.randrange(max(1, len(raw) // width)) if rnd.random() < 0.7 else 0
    new = rnd.choice(NUMBERS) & (1 << 8 * width) - 1
    return raw[:at] + new.to_bytes(width, rnd.choice(("little", "big"))) + raw[at + width :]


def _uint(rnd: random.Random, raw: bytes) -> bytes:
    """Put a number where one of `lgkv.keys` may stand."""
    at = rnd.choice([at for at, octet in enumerate(raw[:64]) if octet <= 8] or [0])
    return raw[:at] + pack_uint(rnd.choice(NUMBERS)) + raw[at + 1 + raw[at] :]


BY_BYTES: Final[tuple[Change, ...]] = (
    _flip, _set, _cut, _extend, _remove, _repeat, _insert, _number, _uint,
)  # fmt: skip


# --- CBOR ----------------------------------------------------------------------------------

LEAVES: Final = (
    None, True, False, "", b"", [], {}, "x", b"x", 0, -1, -(2**63), 2**64, 2**70, -(2**70),
    1.5, float("nan"), float("inf"), -0.0, [[]], {"a": 1}, {1: 2}, "\0", b"\xff" * 20, "é" * 300,
    [0] * 2000, b"\0" * 5000, [None] * 9, *NUMBERS,
)  # fmt: skip
_MARK: Final = b"here the bomb goes"


def _cbor_parts(raw: bytes) -> Iterator[tuple[int, Any]]:
    """Yield where in `raw` a container in CBOR begins that reaches to its end."""
    for start in range(min(len(raw), 64)):
        stream = io.BytesIO(raw[start:])
        try:
            value = cbor2.CBORDecoder(stream, tag_hook=_keep_tag).decode()
        except (cbor2.CBORError, ValueError, TypeError, OverflowError):
            continue
        if isinstance(value, (list, dict)) and stream.tell() == len(raw) - start:
            yield start, value


def _keep_tag(tag: Any, _immutable: bool) -> Any:  # noqa: FBT001  cbor2's call
    return tag


def _cbor(rnd: random.Random, raw: bytes) -> bytes:
    """Change a value inside the CBOR of a record."""
    found = list(_cbor_parts(raw))
    if not found:
        return _flip(rnd, raw)
    start, value = rnd.choice(found)
    changed = cbor2.dumps(_changed(rnd, value))
    mark = cbor2.dumps(_MARK)
    return raw[:start] + changed.replace(mark, rnd.choice(CBOR_BOMBS), 1)


def _changed(rnd: random.Random, value: Any) -> Any:
    """Return `value` with one part of it changed, the whole among its parts."""
    new: Any = rnd.choice((*LEAVES, _MARK, _MARK))
    if value and isinstance(value, list) and rnd.random() < 0.9:
        new = _changed_list(rnd, value)
    elif value and isinstance(value, dict) and rnd.random() < 0.9:
        new = _changed_dict(rnd, value)
    elif type(value) is int and rnd.random() < 0.8:
        new = rnd.choice((value + 1, value - 1, -value, value + 2**32, *NUMBERS))
    elif value and isinstance(value, bytes) and rnd.random() < 0.8:
        new = mangled(rnd, value)
    elif value and isinstance(value, str) and rnd.random() < 0.5:
        new = rnd.choice((value[:-1], value + "x", value * 100, value[::-1]))
    return new


def _changed_dict(rnd: random.Random, value: dict[Any, Any]) -> dict[Any, Any]:
    key = rnd.choice(list(value))
    if rnd.random() < 0.75:
        return {**value, key: _changed(rnd, value[key])}
    rest = {k: v for k, v in value.items() if k != key}
    return rnd.choice((rest, {**rest, f"{key}?": value[key]}, {**value, 1: 2}))


def _changed_list(rnd: random.Random, value: list[Any]) -> list[Any]:
    at, other = rnd.randrange(len(value)), rnd.randrange(len(value))
    if rnd.random() < 0.75:
        return [*value[:at], _changed(rnd, value[at]), *value[at + 1 :]]
    several = list(value)
    several[at], several[other] = several[other], several[at]
    return rnd.choice(
        (
            several,
            value[:at] + value[at + 1 :],
            value[: at + 1] + value[at:],
            [*value[:at], *[value[at]] * 1000, *value[at:]],
            value[::-1],
            [*value, rnd.choice(LEAVES)],
            [],
        )
    )


# --- MessagePack ---------------------------------------------------------------------------


def _msgpack(rnd: random.Random, raw: bytes) -> bytes:
    """Change the elements of a list in MessagePack that a record ends in."""
    found = []
    for start in range(min(len(raw), 64)):
        try:
            parts = split_array(raw[start:])
        except ValueError:
            continue
        if parts:
            found.append((start, parts))
    if not found:
        return _number(rnd, raw)
    start, parts = rnd.choice(found)
    at = rnd.randrange(len(parts))
    new = rnd.choice(
        (
            [*parts[:at], rnd.choice(MSGPACK_BOMBS), *parts[at + 1 :]],
            [*parts[:at], mangled(rnd, parts[at]), *parts[at + 1 :]],
            parts[:at] + parts[at + 1 :],
            parts[: at + 1] + parts[at:],
            [*parts, b"\xc0"],
        )
    )
    size = rnd.choice((len(new), len(new), len(new), len(new) + 1, 2**32 - 1))
    return raw[:start] + b"\xdd" + size.to_bytes(4, "big") + b"".join(new)


def mangled(rnd: random.Random, raw: bytes) -> bytes:
    """Return `raw` changed in one of the ways of this module."""
    if not raw:
        return rnd.choice((b"\0", rnd.randbytes(9), *CBOR_BOMBS))
    ways = (*BY_BYTES, *[_cbor] * 9, *[_msgpack] * 4)
    return rnd.choice(ways)(rnd, raw)


def mangled_key(rnd: random.Random, key: bytes) -> bytes:
    """Return a key that LMDB takes, unlike `key`."""
    while True:
        new = rnd.choice(BY_BYTES)(rnd, key)[:511]
        if new and new != key:
            return new
