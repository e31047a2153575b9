"""The node cache: LangGraph's calls translated to `db.cache`, sync and async."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langgraph.cache.base import BaseCache, FullKey, Namespace, ValueT
from langgraph.checkpoint.serde.base import SerializerProtocol

from lgkv.codec import Payload
from lgkv.database import Database
from lgkv.langgraph import _loops
from lgkv.langgraph._opening import Opening, checked
from lgkv.langgraph.serde import AllowedType, SerdeCodec, StrictSerializer

__all__ = ["LgkvCache"]


class LgkvCache(Opening, BaseCache[ValueT]):
    """A LangGraph node cache on an lgkv file; times to live are in seconds.

    `serde` replaces the serialiser; the default is strict, runs no code of the file, and
    rebuilds common types and `allowed_types` (classes, or pairs of module and name).
    """

    def __init__(
        self,
        db: Database,
        *,
        serde: SerializerProtocol | None = None,
        allowed_types: Iterable[AllowedType] = (),
    ) -> None:
        super().__init__(serde=serde or StrictSerializer(allowed_types))
        self._db = checked(db)

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """Return the values of those keys that are there and have not expired."""
        wanted = ((tuple(namespace), key) for namespace, key in keys)
        return self._db.cache.load_many(wanted, SerdeCodec(self.serde))

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """Return what `get` does: reading does not hold up the event loop."""
        return await _loops.read(self._db, lambda: self.get(keys))

    def set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Store values, each with its time to live in seconds or None, in one commit."""
        self._db.cache.set_many(self._encoded(pairs))

    async def aset(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Store values as `set` does; the event loop does not wait for the disk."""
        change = self._db.cache.set_change(self._encoded(pairs))
        await _loops.write(self._db, change)

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Delete every value of these namespaces, or of all."""
        self._db.commit(self._db.cache.clear_change(_tuples(namespaces)))

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Delete values as `clear` does; the event loop does not wait for the disk."""
        change = self._db.cache.clear_change(_tuples(namespaces))
        await _loops.write(self._db, change)

    def _encoded(
        self, pairs: Mapping[FullKey, tuple[Any, int | None]]
    ) -> dict[FullKey, tuple[Payload, float | None]]:
        codec = SerdeCodec(self.serde)
        return {
            (tuple(namespace), key): (codec.encode(value), ttl)
            for (namespace, key), (value, ttl) in pairs.items()
        }


def _tuples(namespaces: Sequence[Namespace] | None) -> list[Namespace] | None:
    return None if namespaces is None else [tuple(namespace) for namespace in namespaces]
