"""LangGraph's serialisers as the engine's codec, strict by default.

What is read from a file is rebuilt only if its type is known to be safe, is named by the
graph's own schemas, or was allowed by hand. Anything else is an error that names the type;
LangGraph's own strict mode gives a dict instead, which fails later and elsewhere.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, TypeVar, get_origin

import ormsgpack
from langchain_core import messages
from langchain_core.documents import Document
from langgraph.checkpoint.serde.base import SerializerProtocol, maybe_add_typed_methods
from langgraph.checkpoint.serde.event_hooks import SerdeEvent, register_serde_event_listener
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from lgkv._msgpack import check_value
from lgkv._shadow import revive_all
from lgkv.checkpoints import PLAIN_TYPE
from lgkv.codec import Payload
from lgkv.codec.plan import MSGPACK
from lgkv.errors import InvalidInputError, UnregisteredTypeError
from lgkv.langgraph._messages import Hook, known_messages, message_hook
from lgkv.layout import encode_if_plain

try:
    from langgraph._internal import _serde as _runtime
except ImportError:  # langgraph-checkpoint without the runtime, or one that has moved it
    _runtime = None  # type: ignore[assignment]

__all__ = ["AllowedType", "SerdeCodec", "StrictSerializer"]

T = TypeVar("T")

AllowedType = type | tuple[str, str]
"""A class, or its module and name."""


class _Watch(threading.local):
    """The types that the deserialisation running in this thread was refused."""

    refused: list[tuple[str, str]] | None = None


_watch = _Watch()


def _note_refusal(event: SerdeEvent) -> None:
    if _watch.refused is not None and event["kind"].endswith("blocked"):
        _watch.refused.append((event["module"], event["name"]))


register_serde_event_listener(_note_refusal)


def merge_schemas_when_compiling() -> None:
    """Make `compile` and `entrypoint` tell a checkpointer the types of the graph's schemas.

    LangGraph calls `BaseCheckpointSaver.with_allowlist` only in its strict mode, which is
    read from the environment at import. This switches on the call, not the mode: other
    savers' permissive serialisers return themselves from it.
    """
    if not hasattr(_runtime, "STRICT_MSGPACK_ENABLED"):
        return
    if sys.version_info < (3, 11) and hasattr(_runtime, "_is_pydantic_model"):
        # There `Sequence[Send]` passes for a class, and LangGraph's look at it raises.
        look = _runtime._is_pydantic_model  # noqa: SLF001
        _runtime._is_pydantic_model = lambda kind: get_origin(kind) is None and look(kind)  # noqa: SLF001
    _runtime.STRICT_MSGPACK_ENABLED = True


class StrictSerializer(JsonPlusSerializer):
    """LangGraph's serialiser, which raises `UnregisteredTypeError` for a type not allowed.

    No pickle. `with_msgpack_allowlist` gives a copy that allows more.
    """

    def __init__(self, allowed_types: Iterable[AllowedType] = ()) -> None:
        super().__init__(
            pickle_fallback=False, allowed_msgpack_modules=tuple(allowed_types) or None
        )

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Return the value of a payload.

        Raises:
            UnregisteredTypeError: It holds a value of a type that is not allowed.
        """
        kind, raw = data
        if kind == MSGPACK:
            check_value(bytes(raw))
        return _unrefused(super().loads_typed, data)


def _unrefused(load: Callable[[T], Any], data: T) -> Any:
    """Return what `load` gives; UnregisteredTypeError if it was refused a type."""
    outer, _watch.refused = _watch.refused, []
    try:
        value = load(data)
        refused = _watch.refused
    finally:
        _watch.refused = outer
    if refused:
        raise UnregisteredTypeError(*refused[0])
    return value


_TRANSPARENT: Final = (JsonPlusSerializer, StrictSerializer)
"""The serialisers that are known to hide nothing."""


_MODELS: Final = frozenset(
    {
        messages.AIMessage,
        messages.AIMessageChunk,
        messages.ChatMessage,
        messages.ChatMessageChunk,
        messages.FunctionMessage,
        messages.FunctionMessageChunk,
        messages.HumanMessage,
        messages.HumanMessageChunk,
        messages.RemoveMessage,
        messages.SystemMessage,
        messages.SystemMessageChunk,
        messages.ToolMessage,
        messages.ToolMessageChunk,
        Document,
    }
)
"""Models of LangChain's: their serialised form is a function of their fields and extra fields."""


def _composition(serde: SerializerProtocol) -> tuple[frozenset[type] | None, Hashable]:
    """Return the models of a serialiser that is compositional, and what tells it apart.

    LangGraph's own is: a list is a MessagePack array of its elements. What it rebuilds
    depends on the types that it allows.
    """
    kind = type(serde)
    if kind not in _TRANSPARENT or getattr(serde, "_custom_unpack_ext_hook", True):
        return None, None
    allowed = getattr(serde, "_allowed_msgpack_modules", None)
    return _MODELS, (kind, frozenset(allowed) if isinstance(allowed, set) else allowed)


def _load(
    serde: SerializerProtocol, models: frozenset[type] | None
) -> Callable[[bytes], Any] | None:
    """Return what loads MessagePack as a serialiser does, but sooner, None if only it knows how."""
    others: Hook | None = getattr(serde, "_unpack_ext_hook", None)
    if models is None or others is None:
        return None
    hook, known = message_hook(others), known_messages()
    unpack = functools.partial(ormsgpack.unpackb, ext_hook=hook, option=ormsgpack.OPT_NON_STR_KEYS)
    if isinstance(serde, StrictSerializer):
        unpack = functools.partial(_unrefused, unpack)

    def load(raw: bytes) -> Any:
        messages = revive_all(raw, known)  # as it is of most long lists
        if messages is not None:
            return messages
        check_value(raw)
        return unpack(raw)

    return load


class SerdeCodec:
    """A codec that is a LangGraph serialiser."""

    __slots__ = ("_load", "_serde", "models", "signature")

    models: frozenset[type] | None
    signature: Hashable

    def __init__(self, serde: SerializerProtocol) -> None:
        # A serialiser that has `dumps` and `loads` only may be set on a saver afterwards.
        self._serde = serde if hasattr(serde, "dumps_typed") else maybe_add_typed_methods(serde)
        self.models, self.signature = _composition(self._serde)
        self._load = _load(self._serde, self.models)

    def encode(self, value: Any) -> Payload:
        """Return `value` as the serialiser's payload; InvalidInputError if it has none."""
        try:
            kind, raw = self._serde.dumps_typed(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidInputError(
                f"a value of type {type(value).__module__}.{type(value).__qualname__} "
                f"cannot be stored: {error}"
            ) from error
        return kind, bytes(raw)

    def decode(self, payload: Payload) -> Any:
        """Return a fresh value; InvalidInputError if the serialiser does not know its type."""
        if payload[0] == MSGPACK and self._load is not None:
            return self._load(payload[1])
        try:
            return self._serde.loads_typed(payload)
        except NotImplementedError as error:
            raise InvalidInputError(
                f"a value is stored as {payload[0]!r}, which this serialiser does not read "
                f"({error}): use the one that wrote it"
            ) from error

    def encode_parts(self, parts: list[dict[str, Any]]) -> Payload:
        """Return metadata and state as plain CBOR, or as the serialiser's payload.

        A serialiser of somebody's own, a subclass of LangGraph's too, may encrypt, so it gets
        them as well.
        """
        if type(self._serde) in _TRANSPARENT:
            raw = encode_if_plain(parts)
            if raw is not None:
                return PLAIN_TYPE, raw
        return self.encode(parts)
