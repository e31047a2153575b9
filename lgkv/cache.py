"""The node cache: payloads by namespace and key, each with an optional deadline.

What has expired is never returned; every write also deletes a few entries that are due. A
namespace is a list of labels with a number of its own, in which all its entries lie
together, so that clearing it is one range.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from lgkv.codec import PLAIN_TYPE, Codec, Payload
from lgkv.connection import Connection
from lgkv.errors import CorruptionError, InvalidInputError, LgkvError
from lgkv.expiry import due, is_past, move_deadline, now_us, ttl_us
from lgkv.keys import encode_text, pack_bytes, pack_uint, unpack_bytes
from lgkv.layout import Kind, Table, check_record, decode_plain, encode_fields, encode_plain
from lgkv.snapshot import Snapshot
from lgkv.writer import Batch, Change

__all__ = ["Cache", "FullKey"]

FullKey = tuple[tuple[str, ...], str]
"""A namespace and a key in it."""

SWEEP_ENTRIES: Final = 64
"""The most expired entries that a write deletes beside its own work."""

_DEADLINE: Final = struct.Struct("<Q")


class Cache:
    """The cache of one database: `db.cache`.

    `clock` gives the time in microseconds since 1970.
    """

    def __init__(self, connection: Connection, *, clock: Callable[[], int] = now_us) -> None:
        self._connection = connection
        self.clock = clock

    # --- plain data ---

    def get(self, namespace: tuple[str, ...], key: str) -> Any:
        """Return the value, fresh; None if there is none or it has expired.

        Raises:
            InvalidInputError: It was stored through LangGraph, in a form of its serialiser.
        """
        found = self._find_all([(namespace, key)]).get((namespace, key))
        if found is None:
            return None
        entry_key, (kind, raw) = found
        if kind != PLAIN_TYPE:
            raise InvalidInputError(
                f"the entry holds {kind!r}, not plain data: read it through LgkvCache"
            )
        return _decode(entry_key, raw)

    def set(
        self, namespace: tuple[str, ...], key: str, value: Any, *, ttl_seconds: float | None = None
    ) -> None:
        """Store plain data, which ends after `ttl_seconds`, or never."""
        full_key = _check_key((namespace, key))
        self.set_many({full_key: ((PLAIN_TYPE, encode_plain(value)), ttl_seconds)})

    def delete(self, namespace: tuple[str, ...], key: str) -> None:
        """Delete an entry, if it is there."""
        _check_key((namespace, key))

        def apply(batch: Batch) -> None:
            number = _find(batch, namespace)
            if number is not None:
                _delete(batch, _suffix(number, key))

        self._connection.commit(Change(apply))

    def clear(self, namespace: tuple[str, ...] | None = None) -> None:
        """Delete every entry of `namespace`, or of all."""
        self._connection.commit(self.clear_change(None if namespace is None else [namespace]))

    # --- payloads ---

    def get_many(self, keys: Iterable[FullKey]) -> dict[FullKey, Payload]:
        """Return the payloads of those keys that are there and have not expired."""
        return {full_key: payload for full_key, (_, payload) in self._find_all(keys).items()}

    def load_many(self, keys: Iterable[FullKey], codec: Codec) -> dict[FullKey, Any]:
        """Return what `codec` makes of the payloads that `get_many` gives.

        Bytes that a codec of LangGraph's own cannot read are a CorruptionError; what another
        raises is its own affair: it may be for want of a key.
        """
        values = {}
        for full_key, (entry_key, payload) in self._find_all(keys).items():
            try:
                values[full_key] = codec.decode(payload)
            except LgkvError:
                raise
            except (ValueError, RecursionError) as error:
                if codec.models is None:
                    raise
                reason = f"the value cannot be decoded: {error}"
                raise CorruptionError(Table.MEMORY.label, entry_key, reason) from error
        return values

    def _find_all(self, keys: Iterable[FullKey]) -> dict[FullKey, tuple[bytes, Payload]]:
        """Return the payloads that are there and have not expired, with their records' keys."""
        wanted = [_check_key(key) for key in keys]
        now = self.clock()
        found: dict[FullKey, tuple[bytes, Payload]] = {}
        numbers: dict[tuple[str, ...], int | None] = {}
        with self._connection.snapshot() as snapshot:
            for namespace, key in wanted:
                if namespace not in numbers:
                    numbers[namespace] = _find(snapshot, namespace)
                number = numbers[namespace]
                if number is None:
                    continue
                entry_key = _entry_key(_suffix(number, key))
                payload = _read(snapshot, entry_key, now)
                if payload is not None:
                    found[namespace, key] = entry_key, payload
        return found

    def set_many(self, entries: Mapping[FullKey, tuple[Payload, float | None]]) -> None:
        """Store payloads, each with its time to live in seconds or None, in one commit."""
        self._connection.commit(self.set_change(entries))

    def set_change(self, entries: Mapping[FullKey, tuple[Payload, float | None]]) -> Change[None]:
        """Return the change that `set_many` commits."""
        now = self.clock()
        prepared = []
        for full_key, ((kind, raw), ttl_seconds) in entries.items():
            namespace, key = _check_key(full_key)
            ttl = ttl_us(ttl_seconds)
            prepared.append((namespace, key, (kind, bytes(raw)), now + ttl if ttl else 0))

        def apply(batch: Batch) -> None:
            _sweep(batch, now, SWEEP_ENTRIES)
            for namespace, key, payload, deadline in prepared:
                _store(batch, _suffix(_make(batch, namespace), key), key, payload, deadline)

        return Change(apply)

    def clear_change(self, namespaces: Sequence[tuple[str, ...]] | None) -> Change[None]:
        """Return a change that deletes every entry of `namespaces`, or of all."""
        if namespaces is None:
            return Change(_clear_all)
        checked = [_check_namespace(namespace) for namespace in namespaces]

        def apply(batch: Batch) -> None:
            for namespace in checked:
                _clear(batch, namespace)

        return Change(apply)


# --- entries -------------------------------------------------------------------------------


def _read(snapshot: Snapshot, key: bytes, now: int) -> Payload | None:
    body = snapshot.get(Table.MEMORY, key)
    if body is None or is_past(_deadline(key, body), now):
        return None
    fields = _decode(key, body[_DEADLINE.size :])
    check_record(Table.MEMORY, key, fields, str, bytes, (bytes, type(None)))
    return fields[0], fields[1]


def _store(batch: Batch, suffix: bytes, key: str, payload: Payload, deadline: int) -> None:
    raw = encode_text(key)
    whole = None if unpack_bytes(pack_bytes(raw), 0)[1] else raw
    entry_key = _entry_key(suffix)
    old = batch.get(Table.MEMORY, entry_key)
    old_deadline = 0 if old is None else _deadline(entry_key, old)
    body = _DEADLINE.pack(deadline) + encode_fields([*payload, whole])
    batch.put(Table.MEMORY, entry_key, body)
    move_deadline(batch, Kind.CACHE_DEADLINE, suffix, old_deadline, deadline)


def _delete(batch: Batch, suffix: bytes) -> None:
    key = _entry_key(suffix)
    body = batch.get(Table.MEMORY, key)
    if body is not None:
        move_deadline(batch, Kind.CACHE_DEADLINE, suffix, _deadline(key, body), 0)
        batch.delete(Table.MEMORY, key)


def _sweep(batch: Batch, now: int, limit: int) -> None:
    for deadline, suffix in list(islice(due(batch, Kind.CACHE_DEADLINE, now), limit)):
        move_deadline(batch, Kind.CACHE_DEADLINE, suffix, deadline, 0)
        key = _entry_key(suffix)
        body = batch.get(Table.MEMORY, key)
        if body is not None and _deadline(key, body) == deadline:
            batch.delete(Table.MEMORY, key)


def _entry_key(suffix: bytes) -> bytes:
    return bytes((Kind.CACHE,)) + suffix


def _suffix(number: int, key: str) -> bytes:
    return pack_uint(number) + pack_bytes(encode_text(key))


def _deadline(key: bytes, body: bytes) -> int:
    if len(body) < _DEADLINE.size:
        raise CorruptionError(Table.MEMORY.label, key, "the entry is shorter than its header")
    return int(_DEADLINE.unpack_from(body)[0])


def _decode(key: bytes, raw: bytes) -> Any:
    try:
        return decode_plain(raw)
    except ValueError as error:
        raise CorruptionError(Table.MEMORY.label, key, str(error)) from None


# --- namespaces ----------------------------------------------------------------------------


def _find(snapshot: Snapshot, namespace: tuple[str, ...]) -> int | None:
    key = _number_key(namespace)
    body = snapshot.get(Table.NAMES, key)
    if body is None:
        return None
    fields = _decode(key, body)
    check_record(Table.NAMES, key, fields, int, list)
    if not 0 < fields[0] < 1 << 64:
        raise CorruptionError(Table.NAMES.label, key, "the number of a namespace cannot be")
    return int(fields[0])


def _make(batch: Batch, namespace: tuple[str, ...]) -> int:
    number = _find(batch, namespace)
    if number is None:
        batch.state.caches += 1
        number = batch.state.caches
        labels = [encode_text(label) for label in namespace]
        batch.put(Table.NAMES, _number_key(namespace), encode_fields([number, labels]))
    return number


def _clear(batch: Batch, namespace: tuple[str, ...]) -> None:
    number = _find(batch, namespace)
    if number is None:
        return
    prefix = _entry_key(pack_uint(number))
    ends = [(key[1:], _deadline(key, body)) for key, body in batch.scan(Table.MEMORY, prefix)]
    for suffix, deadline in ends:
        move_deadline(batch, Kind.CACHE_DEADLINE, suffix, deadline, 0)
    batch.delete_range(Table.MEMORY, prefix)
    batch.delete(Table.NAMES, _number_key(namespace))
    batch.state.names_epoch += 1


def _clear_all(batch: Batch) -> None:
    batch.delete_range(Table.MEMORY, bytes((Kind.CACHE,)))
    batch.delete_range(Table.INDEX, bytes((Kind.CACHE_DEADLINE,)))
    batch.delete_range(Table.NAMES, bytes((Kind.CACHE_NUMBER,)))
    batch.state.names_epoch += 1


def _number_key(namespace: tuple[str, ...]) -> bytes:
    labels = encode_fields([encode_text(label) for label in namespace])
    return bytes((Kind.CACHE_NUMBER,)) + pack_bytes(labels)


def _check_key(full_key: Any) -> FullKey:
    if not isinstance(full_key, tuple) or len(full_key) != 2:
        raise InvalidInputError(f"a cache key is (namespace, key), not {full_key!r}")
    namespace, key = full_key
    if not isinstance(key, str):
        raise InvalidInputError(f"a key is a str, not {key!r}: convert it with str()")
    return _check_namespace(namespace), key


def _check_namespace(namespace: Any) -> tuple[str, ...]:
    if not isinstance(namespace, tuple) or not all(isinstance(label, str) for label in namespace):
        raise InvalidInputError(
            f"a cache namespace is a tuple of str, not {namespace!r}: write ('node',)"
        )
    return namespace
