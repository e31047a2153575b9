"""Messages rebuilt from their serialised form, as LangGraph's serialiser does, but sooner.

The serialiser calls the class, which validates fields that were validated before. Where that
cannot change one, the message is made of them as they are; of anything else the serialiser
decides. What validation leaves as it is was found by reading LangChain's classes, so each
class is tried on samples first: one that does anything else, in some other version, is left
to the serialiser.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import ormsgpack
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from lgkv._shadow import revive
from lgkv.codec.models import (
    ANY,
    CALLS,
    CONTENT,
    EMPTY_LIST,
    MAPPING,
    NO_CALLS,
    TEXT,
    TEXT_OR_NONE,
    USAGE,
    Known,
    Rule,
)

__all__ = ["known_messages", "message_hook"]

Hook = Callable[[int, bytes], Any]

PYDANTIC: Final = 5
"""LangGraph's extension type of a model; its data are module, class, fields and a method."""

_RULES: Final[dict[str, Rule]] = {
    "content": CONTENT,
    "additional_kwargs": NO_CALLS,
    "response_metadata": MAPPING,
    "name": TEXT_OR_NONE,
    "id": TEXT_OR_NONE,
    "tool_calls": CALLS,
    "invalid_tool_calls": EMPTY_LIST,
    "usage_metadata": USAGE,
    "tool_call_id": TEXT,
    "artifact": ANY,
    "status": "success",
}

_CALL: Final = {"name": "look", "args": {"at": [1]}, "id": None, "type": "tool_call"}
_COUNTS: Final = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
_DETAILS: Final = {
    "input_token_details": {"audio": 1, "cache_creation": 2, "cache_read": 3},
    "output_token_details": {"audio": 1, "reasoning": 2},
}
_SAMPLES: Final[dict[str, tuple[Any, ...]]] = {
    "content": ("text", "", ["text", {"type": "text", "index": None}], []),
    "additional_kwargs": ({}, {"refusal": None, "function_call": {"name": "look"}}),
    "response_metadata": ({}, {"model": "a", "scores": [2.0]}),
    "name": (None, "name"),
    "id": (None, "1"),
    "tool_calls": ([], [_CALL, {**_CALL, "id": "1"}]),
    "invalid_tool_calls": ([],),
    "usage_metadata": (None, _COUNTS, {**_COUNTS, **_DETAILS}),
    "tool_call_id": ("1",),
    "artifact": (None, {"rows": [1]}),
    "status": ("success",),
}
"""Values that keep the rules."""


@functools.cache
def known_messages() -> Known:
    """Return the classes of messages that can be made of their fields, with their rules."""
    found = ((kind, _rules(kind)) for kind in (HumanMessage, AIMessage, ToolMessage, SystemMessage))
    return tuple(
        (_prefix(kind), kind, rules)
        for kind, rules in found
        if rules is not None and _does_nothing_else(kind, rules)
    )


def message_hook(others: Hook) -> Hook:
    """Return a hook for `ormsgpack.unpackb` that makes messages itself, and leaves `others`."""
    known = known_messages()

    def hook(code: int, data: bytes) -> Any:
        if code == PYDANTIC:
            message = revive(data, known)
            if message is not None:
                return message
        return others(code, data)

    return hook


def _rules(kind: type[Any]) -> tuple[Rule, ...] | None:
    """Return names and rules of a class's fields, in order, None if one is not known."""
    rules: list[Rule] = []
    for name, field in kind.__pydantic_fields__.items():
        rule = field.default if name == "type" else _RULES.get(name)
        if rule is None:
            return None
        rules.extend((name, rule))
    return tuple(rules)


def _prefix(kind: type) -> bytes:
    names = ormsgpack.packb((kind.__module__, kind.__name__, None, None))
    return names[:-2]  # up to the fields


def _does_nothing_else(kind: type[Any], rules: tuple[Rule, ...]) -> bool:
    """Whether the serialiser makes of samples what their fields make."""
    first = {name: _SAMPLES[name][0] if name != "type" else rule for name, rule in _pairs(rules)}
    return all(
        _same(kind, rules, {**first, name: value})
        for name in first
        for value in _SAMPLES.get(name, ())
    )


def _pairs(rules: tuple[Rule, ...]) -> list[tuple[str, Rule]]:
    return [(str(name), rule) for name, rule in zip(rules[::2], rules[1::2], strict=True)]


def _same(kind: type[Any], rules: tuple[Rule, ...], fields: dict[str, Any]) -> bool:
    data = ormsgpack.packb((kind.__module__, kind.__name__, fields, ""))
    serde = JsonPlusSerializer(allowed_msgpack_modules=None)
    wanted = serde.loads_typed(("msgpack", ormsgpack.packb(ormsgpack.Ext(PYDANTIC, data))))
    found = revive(data, ((_prefix(kind), kind, rules),))
    return type(found) is type(wanted) is kind and _parts(found) == _parts(wanted)


def _parts(message: Any) -> tuple[Any, ...]:
    return (
        type(message),
        repr(message.__dict__),  # in order, and with types
        message.__pydantic_fields_set__,
        message.__pydantic_extra__,
        message.__pydantic_private__,
    )
