"""Serialised lists (MessagePack): joined, and in Python what `lgkv._msgpack` does with them.

Nothing calls `split_array` and `check_value` of this module but the tests, which demand the same
results and the same errors of both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["check_value", "join_arrays", "split_array"]


def join_arrays(payloads: Iterable[tuple[bytes, int]]) -> bytes:
    """Return one MessagePack array of the elements of several, given with their counts."""
    total, bodies = 0, []
    for raw, count in payloads:
        total += count
        bodies.append(raw[_header_size(count) :])
    return _header(total) + b"".join(bodies)


def _header_size(count: int) -> int:
    return 1 if count < 16 else 3 if count < 1 << 16 else 5


def _header(count: int) -> bytes:
    if count < 16:
        return bytes((0x90 | count,))
    if count < 1 << 16:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


# --- Python reference: begin ---------------------------------------------------------------

# Tags with a length behind them: the bytes that give it, what one unit of it stands for in
# bytes and in objects, and how many bytes come on top.
_COUNTED: Final = {
    **{tag: (1 << at, 1, 0, 0) for at, tag in enumerate((0xC4, 0xC5, 0xC6))},  # bin
    **{tag: (1 << at, 1, 0, 1) for at, tag in enumerate((0xC7, 0xC8, 0xC9))},  # ext
    **{tag: (1 << at, 1, 0, 0) for at, tag in enumerate((0xD9, 0xDA, 0xDB))},  # str
    0xDC: (2, 0, 1, 0),  # array
    0xDD: (4, 0, 1, 0),
    0xDE: (2, 0, 2, 0),  # map
    0xDF: (4, 0, 2, 0),
}
_FIXED: Final = {
    **dict.fromkeys((0xC0, 0xC2, 0xC3), 0),
    0xCA: 4,
    0xCB: 8,
    **{0xCC + at: 1 << at % 4 for at in range(8)},
    **{0xD4 + at: 1 + (1 << at) for at in range(5)},
}


def split_array(data: bytes) -> list[bytes]:
    """Return the elements of a serialised MessagePack array, each as its own bytes.

    ValueError if `data` is not one whole array.
    """
    if not data:
        raise ValueError("an empty value is no list")
    tag = data[0]
    width = {0xDC: 2, 0xDD: 4}.get(tag, 0)
    if tag & 0xF0 != 0x90 and (not width or len(data) < 1 + width):
        raise ValueError("the value is not a list")
    count = int.from_bytes(data[1 : 1 + width], "big") if width else tag & 0x0F
    at, parts = 1 + width, []
    if count > len(data) - at:
        raise ValueError("the list is cut short")
    for _ in range(count):
        end = _end(data, at)
        parts.append(data[at:end])
        at = end
    if at != len(data):
        raise ValueError("there are bytes behind the list")
    return parts


LAST_EXTENSION: Final = 7
"""What LangGraph's serialiser has of its own: what stands in each is MessagePack again."""
MAX_DEPTH: Final = 1000


def check_value(data: bytes) -> None:
    """Raise ValueError unless `data` is one whole value, and each count in it one that can be.

    What stands in LangGraph's extension types is looked at likewise.
    """
    outer: list[tuple[bytes, int, int]] = []
    raw, at, remaining = data, 0, 1
    while True:
        while remaining:
            if remaining > len(raw) - at:
                raise ValueError("the value is cut short")
            head, body, inside = _measure(raw, at)
            start, end = at + head, at + head + body
            if end > len(raw):
                raise ValueError("the value is cut short")
            at, remaining = end, remaining + inside - 1
            if _is_extension(raw[start - head]) and raw[start] <= LAST_EXTENSION:
                outer.append((raw, at, remaining))
                if len(outer) > MAX_DEPTH:
                    raise ValueError("the value is nested too deeply")
                raw, at, remaining = raw[start + 1 : end], 0, 1
        if at != len(raw):
            raise ValueError("there are bytes behind the value")
        if not outer:
            return
        raw, at, remaining = outer.pop()


def _is_extension(tag: int) -> bool:
    return 0xC7 <= tag <= 0xC9 or 0xD4 <= tag <= 0xD8


def _end(data: bytes, at: int) -> int:
    """Return where the object at `at` ends."""
    remaining = 1
    while remaining:
        if at >= len(data):
            raise ValueError("the value is cut short")
        head, body, inside = _measure(data, at)
        at += head
        if body > len(data) - at:
            raise ValueError("the value is cut short")
        at += body
        remaining += inside - 1
        if remaining > len(data) - at:
            raise ValueError("the value is cut short")
    return at


def _measure(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the bytes of an object's head and body, and how many objects it holds."""
    tag = data[at]
    if tag <= 0x7F or tag >= 0xE0:
        return 1, 0, 0
    if tag <= 0x8F:
        return 1, 0, 2 * (tag & 0x0F)
    if tag <= 0x9F:
        return 1, 0, tag & 0x0F
    if tag <= 0xBF:
        return 1, tag & 0x1F, 0
    if tag in _FIXED:
        return 1, _FIXED[tag], 0
    if tag not in _COUNTED:
        raise ValueError("the value has an unknown type")
    width, of_bytes, of_objects, more = _COUNTED[tag]
    if len(data) - at - 1 < width:
        raise ValueError("the value is cut short")
    length = int.from_bytes(data[at + 1 : at + 1 + width], "big")
    return 1 + width, of_bytes * length + more, of_objects * length


# --- Python reference: end -----------------------------------------------------------------
