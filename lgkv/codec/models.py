"""Models that are rebuilt without validation, where that would leave every field as it is.

A rule says what a field's value must be for validation to give back the like. Who names the
rules of a class knows it; see `lgkv.langgraph._messages`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

__all__ = [
    "ANY",
    "CALLS",
    "CONTENT",
    "EMPTY_LIST",
    "MAPPING",
    "NO_CALLS",
    "TEXT",
    "TEXT_OR_NONE",
    "USAGE",
    "Known",
    "Rule",
]

Rule = str | int
"""What a field's value is: this very text, or one of the following."""

ANY: Final = 0
TEXT: Final = 1
TEXT_OR_NONE: Final = 2
MAPPING: Final = 3
CONTENT: Final = 4
"""Text, or a list of texts and dicts."""
NO_CALLS: Final = 5
"""A dict in which no tool calls are looked for."""
CALLS: Final = 6
"""A list of tool calls, each with all that one has, in order."""
EMPTY_LIST: Final = 7
USAGE: Final = 8
"""Counts of tokens, in order, or None."""

Known = tuple[tuple[bytes, type, tuple[Rule, ...]], ...]
"""How a model's serialised form begins, its class, and its fields' names and rules by turns."""

# --- Python reference: begin ---------------------------------------------------------------

MODEL_TYPE: Final = 5
MAX_DEPTH: Final = 100
_CALL: Final = ["name", "args", "id", "type"]
_USAGE: Final = ["input_tokens", "output_tokens", "total_tokens"]
_DETAILS: Final = {
    "input_token_details": ["audio", "cache_creation", "cache_read"],
    "output_token_details": ["audio", "reasoning"],
}


class _UnusualError(Exception):
    """What is here is left to the serialiser."""


class _Source:
    """MessagePack, read from the front."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def take(self, size: int) -> bytes:
        if size > len(self.raw):
            raise _UnusualError
        taken, self.raw = self.raw[:size], self.raw[size:]
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def size(self, width: int) -> int:
        size = self.number(width)
        if size > len(self.raw):
            raise _UnusualError
        return size

    def count(self, tag: int, wide: int) -> int:
        """Return how many elements the list or dict here has."""
        found = self.number(1)
        if found & 0xF0 == tag:
            return found & 0x0F
        if found not in {wide, wide + 1}:
            raise _UnusualError
        return self.size(2 << (found - wide))

    def model(self) -> bytes:
        """Return the data of the model here."""
        tag = self.number(1)
        if not 0xC7 <= tag <= 0xC9:
            raise _UnusualError
        size = self.size(1 << (tag - 0xC7))
        if self.number(1) != MODEL_TYPE:
            raise _UnusualError
        return self.take(size)

    def value(self, depth: int) -> Any:  # noqa: PLR0911  one for each type
        tag = self.raw[0] if self.raw else 0xC1
        if tag & 0xF0 == 0x80 or tag in {0xDE, 0xDF}:
            return self._dict(depth)
        if tag & 0xF0 == 0x90 or tag in {0xDC, 0xDD}:
            return self._list(depth)
        tag = self.number(1)
        if tag & 0xE0 == 0xA0:
            return self._text(tag & 0x1F)
        if 0xD9 <= tag <= 0xDB:
            return self._text(self.size(1 << (tag - 0xD9)))
        if tag <= 0x7F or tag >= 0xE0:
            return tag if tag <= 0x7F else tag - 0x100
        if tag == 0xCB:
            return struct.unpack(">d", self.take(8))[0]
        if 0xCC <= tag <= 0xD3:
            return int.from_bytes(self.take(1 << (tag & 3)), "big", signed=tag >= 0xD0)
        if tag not in _CONSTANTS:
            raise _UnusualError
        return _CONSTANTS[tag]

    def _text(self, size: int) -> str:
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise _UnusualError from None

    def _list(self, depth: int) -> list[Any]:
        count = self.count(0x90, 0xDC)
        if not depth:
            raise _UnusualError
        return [self.value(depth - 1) for _ in range(count)]

    def _dict(self, depth: int) -> dict[str, Any]:
        count = self.count(0x80, 0xDE)
        values: dict[str, Any] = {}
        for _ in range(count):
            if not depth or type(name := self.value(0)) is not str:
                raise _UnusualError
            values[name] = self.value(depth - 1)
        if not depth:
            raise _UnusualError
        return values


_CONSTANTS: Final = {0xC0: None, 0xC2: False, 0xC3: True}


def _revive(data: bytes, known: Known) -> Any:
    """Return the model that `data` are serialised of, None if validation may change a field.

    Of what is unusual nothing is said either.
    """
    for prefix, kind, rules in known:
        if data.startswith(prefix):
            try:
                return _model(kind, _fields(_Source(data[len(prefix) :]), rules))
            except _UnusualError:
                return None
    return None


def _revive_all(data: bytes, known: Known) -> list[Any] | None:
    """Return the models of a serialised list, None unless it is one and `_revive` makes all."""
    source = _Source(data)
    try:
        models = [_revive(source.model(), known) for _ in range(source.count(0x90, 0xDC))]
    except _UnusualError:
        return None
    return None if source.raw or None in models else models


def _fields(source: _Source, rules: tuple[Rule, ...]) -> dict[str, Any]:
    names = [str(name) for name in rules[::2]]
    if source.count(0x80, 0xDE) != len(names):
        raise _UnusualError
    fields = {}
    for name, rule in zip(names, rules[1::2], strict=True):
        text = name.encode()
        if source.take(1 + len(text)) != bytes((0xA0 | len(text),)) + text:
            raise _UnusualError
        fields[name] = source.value(MAX_DEPTH)
        if not _keeps(rule, fields[name]):
            raise _UnusualError
    source.value(0)  # how else it is made
    if source.raw:
        raise _UnusualError
    return fields


def _model(kind: type, fields: dict[str, Any]) -> Any:
    fresh: Any = object.__new__(kind)
    object.__setattr__(fresh, "__dict__", fields)
    object.__setattr__(fresh, "__pydantic_fields_set__", set(fields))
    object.__setattr__(fresh, "__pydantic_extra__", {})
    object.__setattr__(fresh, "__pydantic_private__", None)
    return fresh


def _keeps(rule: Rule, value: Any) -> bool:
    if isinstance(rule, str):
        return type(value) is str and value == rule
    return _TESTS[rule](value)


def _is_content(value: Any) -> bool:
    return type(value) is str or (
        type(value) is list and all(type(part) in {str, dict} for part in value)
    )


def _is_call(value: Any) -> bool:
    if type(value) is not dict or list(value) != _CALL:
        return False
    name, arguments, id_, kind = value.values()
    return (
        type(name) is str
        and type(arguments) is dict
        and all(type(key) is str for key in arguments)
        and (id_ is None or type(id_) is str)
        and type(kind) is str
        and kind == "tool_call"
    )


def _are_counts(value: Any, names: list[str]) -> bool:
    return (
        type(value) is dict
        and list(value) == [name for name in names if name in value]
        and all(type(count) is int for count in value.values())
    )


def _is_usage(value: Any) -> bool:
    if value is None:
        return True
    if type(value) is not dict:
        return False
    details = [name for name in _DETAILS if name in value]
    return (
        list(value) == [*_USAGE, *details]
        and all(type(value[name]) is int for name in _USAGE)
        and all(_are_counts(value[name], _DETAILS[name]) for name in details)
    )


_TESTS: Final[dict[int, Callable[[Any], bool]]] = {
    ANY: lambda _: True,
    TEXT: lambda value: type(value) is str,
    TEXT_OR_NONE: lambda value: value is None or type(value) is str,
    MAPPING: lambda value: type(value) is dict,
    CONTENT: _is_content,
    NO_CALLS: lambda value: type(value) is dict and "tool_calls" not in value,
    CALLS: lambda value: type(value) is list and all(map(_is_call, value)),
    EMPTY_LIST: lambda value: type(value) is list and not value,
    USAGE: _is_usage,
}

# --- Python reference: end -----------------------------------------------------------------
