"""The record of a checkpoint: everything of it but the elements of its channels' values.

Versions make up much of it, and most are the same: each distinct one is stored once, and
names stand as their numbers. Beside each channel's version stands how to make its value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from lgkv import _heads
from lgkv._heads import name_channels
from lgkv.checkpoints.records import (
    Version,
    checkpoints_prefix,
    pack_whole_id,
    unpack_fields,
    unpack_whole_id,
)
from lgkv.codec import Payload
from lgkv.errors import CorruptionError
from lgkv.keys import (
    TAG_BYTES,
    decode_text,
    encode_text,
    pack_uint,
    pack_version,
    unpack_uint,
    unpack_version,
)
from lgkv.layout import THREADS, Kind, Table, check_record, encode_fields
from lgkv.snapshot import Snapshot

__all__ = [
    "FRAMED_FROM",
    "ChannelEntry",
    "Head",
    "Versions",
    "changes_against",
    "frame_key",
    "name_channels",
    "pack_frame",
    "pack_head",
    "pack_whole_version",
    "read_frame",
    "unpack_head",
]

E = TypeVar("E", bound=tuple[int, int, int])

FRAMED_FROM = 16
"""A checkpoint with this many channels or more stores them against a frame."""

Versions = list[tuple[int, Version]]

ChannelEntry = tuple[int, Version, bytes | None]
"""A channel's number, its version, and its value as `values.pack_stored` packs it.

None stands for a channel that has no value: it is empty, or nobody gave one.
"""


class Head(NamedTuple):
    """A checkpoint without the elements of its values.

    `payload` is its metadata and what else it has, as a list of two. `channels` are in the
    checkpoint's order. `seen` are pairs of channel number and version by node number, None
    where the checkpoint has no `versions_seen` of the usual form. `delta` are the numbers of
    the channels whose value an ancestor and the writes since then make (LangGraph's
    `DeltaChannel`), unless the checkpoint has a value of its own. `frame` is the number of the
    frame that the channels are stored against, 0 for none.
    """

    id: str
    parent_id: str | None
    created_us: int
    run_id: str | None
    payload: Payload
    channels: list[ChannelEntry]
    seen: list[tuple[int, Versions]] | None
    delta: list[int]
    frame: int = 0

    @property
    def versions(self) -> Versions:
        """Return the channels' numbers and versions, in the checkpoint's order."""
        return [(channel, version) for channel, version, _ in self.channels]

    @property
    def values(self) -> dict[int, bytes]:
        """Return the packed values of the channels that have one, by number."""
        return {channel: packed for channel, _, packed in self.channels if packed is not None}


# --- frames: many channels, which checkpoints store their changes against ------------------


def frame_key(thread: int, namespace: int, number: int) -> bytes:
    """Return the key of a frame."""
    return checkpoints_prefix(thread, namespace, Kind.FRAME) + pack_uint(number)


def pack_frame(channels: list[ChannelEntry]) -> bytes:
    """Return the body of a frame."""
    table: dict[bytes, int] = {}
    flat = _flat_entries(channels, table)
    return encode_fields([list(table), flat])


def read_frame(
    snapshot: Snapshot, thread: int, namespace: int, number: int
) -> list[ChannelEntry] | None:
    """Return the channels of a frame, or None if it is gone."""
    key = frame_key(thread, namespace, number)
    body = snapshot.get(THREADS, key)
    if body is None:
        return None
    fields = unpack_fields(key, body)
    check_record(THREADS, key, fields, list, list)
    try:
        return _entries(fields[1], [_unpack_whole_version(packed) for packed in fields[0]])
    except (ValueError, IndexError, TypeError) as error:
        raise CorruptionError(Table.THREADS.label, key, f"damaged frame: {error}") from None


def changes_against(
    frame: list[ChannelEntry], channels: list[ChannelEntry]
) -> list[ChannelEntry] | None:
    """Return what of `channels` a frame does not have, or None if it is no use for them.

    It is none if it has a channel that is not among them, or if the changes have become so
    many that a new frame is cheaper: with n channels and k changes a frame costs n every k
    checkpoints, and each of them up to k.
    """
    old = {entry[0]: entry for entry in frame}
    if len(old.keys() - {entry[0] for entry in channels}):
        return None
    changes = [entry for entry in channels if old.get(entry[0]) != entry]
    order = [*old, *(entry[0] for entry in changes if entry[0] not in old)]
    if order != [entry[0] for entry in channels]:
        return None
    return changes if len(changes) ** 2 <= 2 * len(channels) else None


def _apply_changes(frame: list[ChannelEntry], changes: list[ChannelEntry]) -> list[ChannelEntry]:
    whole = {entry[0]: entry for entry in frame}
    whole.update({entry[0]: entry for entry in changes})
    return list(whole.values())


# --- records -------------------------------------------------------------------------------


def _flat_entries(channels: list[ChannelEntry], table: dict[bytes, int]) -> list[Any]:
    flat: list[Any] = []
    for channel, version, packed in channels:
        place = table.setdefault(pack_whole_version(version), len(table))
        flat.extend((channel, place, packed))
    return flat


def _flat_versions(versions: Versions, table: dict[bytes, int]) -> list[int]:
    flat = []
    for number, version in versions:
        flat.append(number)
        flat.append(table.setdefault(pack_whole_version(version), len(table)))
    return flat


def pack_head(head: Head, changes: list[ChannelEntry], frame: int) -> bytes:
    """Return the body of a checkpoint's record; `changes` are its channels against its frame."""
    return _heads.pack_head(head, changes, frame) or _pack_head(head, changes, frame)


def _pack_head(head: Head, changes: list[ChannelEntry], frame: int) -> bytes:
    table: dict[bytes, int] = {}
    channels = _flat_entries(changes, table)
    seen = (
        None
        if head.seen is None
        else [[node, *_flat_versions(of, table)] for node, of in head.seen]
    )
    return encode_fields(
        [
            pack_whole_id(head.id),
            None if head.parent_id is None else pack_whole_id(head.parent_id),
            head.created_us,
            None if head.run_id is None else pack_whole_id(head.run_id),
            *head.payload,
            list(table),
            frame,
            channels,
            seen,
            head.delta,
        ]
    )


_OPTIONAL = (bytes, type(None))
_FIELDS = (bytes, _OPTIONAL, int, _OPTIONAL, str, bytes, list, int, list, (list, type(None)), list)


def unpack_head(snapshot: Snapshot, thread: int, namespace: int, key: bytes, body: bytes) -> Head:
    """Return the head that `pack_head` made `body` from, its channels whole."""
    fields = _heads.unpack_head(body)
    head = _unpack_head(key, body) if fields is None else Head._make(fields)
    if not head.frame:
        return head
    base = read_frame(snapshot, thread, namespace, head.frame)
    if base is None:
        raise CorruptionError(Table.THREADS.label, key, f"its frame {head.frame} is missing")
    return head._replace(channels=_apply_changes(base, head.channels))


def _unpack_head(key: bytes, body: bytes) -> Head:
    """Return a head with the channels that its record has."""
    fields = unpack_fields(key, body)
    check_record(THREADS, key, fields, *_FIELDS)
    id_, parent, created_us, run, kind, raw, table, frame, channels, seen, delta = fields
    if not 0 <= frame < 1 << 63:
        raise CorruptionError(Table.THREADS.label, key, f"there is no frame {frame}")
    try:
        known = [_unpack_whole_version(packed) for packed in table]
        entries = _entries(channels, known)
        _check_numbers(delta)
        return Head(
            unpack_whole_id(id_),
            None if parent is None else unpack_whole_id(parent),
            created_us,
            None if run is None else unpack_whole_id(run),
            (kind, raw),
            entries,
            None if seen is None else [_seen(of, known) for of in seen],
            delta,
            frame,
        )
    except (ValueError, IndexError, TypeError) as error:
        raise CorruptionError(Table.THREADS.label, key, f"damaged checkpoint: {error}") from None


def _entries(flat: Sequence[Any], known: list[Version]) -> list[ChannelEntry]:
    channels, places, values = flat[::3], flat[1::3], flat[2::3]
    _check_numbers(channels)
    _check_numbers(places)
    for packed in values:
        if packed is not None and type(packed) is not bytes:
            raise ValueError(f"{packed!r:.50} is no value of a channel")
    return [
        (channel, known[place], packed)
        for channel, place, packed in zip(channels, places, values, strict=True)
    ]


def _seen(flat: Sequence[Any], known: list[Version]) -> tuple[int, Versions]:
    _check_numbers(flat)
    pairs = zip(flat[1::2], flat[2::2], strict=True)
    return flat[0], [(channel, known[place]) for channel, place in pairs]


def _check_numbers(numbers: Sequence[Any]) -> None:
    for number in numbers:
        if type(number) is not int or not 0 <= number < 1 << 63:
            raise ValueError(f"{number!r:.50} is no number of a name")


_TEXT = b"\x00"


def pack_whole_version(version: Version) -> bytes:
    """Return a version whole: packed if that tells all of it, else as NUL and its text."""
    packed = pack_version(version)
    if isinstance(version, str) and packed[0] == TAG_BYTES:
        return _TEXT + encode_text(version)
    return packed


def _unpack_whole_version(raw: bytes) -> Version:
    return decode_text(raw[1:]) if raw[:1] == _TEXT else unpack_version(raw)


# --- Python reference: begin ---------------------------------------------------------------

_INLINE = 1  # as in `lgkv.codec.plan`


def _name_channels(
    channels: list[ChannelEntry], seen: list[tuple[int, Versions]] | None, names: Sequence[str]
) -> tuple[dict[str, Version], dict[str, bytes | Payload], dict[str, dict[str, Version]] | None]:
    """Return versions and values by the channels' names, and the versions seen by the nodes'.

    A value that lies in the record is its payload, any other, or an unusual one, as it is packed.

    Raises:
        IndexError: A channel has no name.
    """
    versions = {names[channel]: version for channel, version, _ in channels}
    values = {
        names[channel]: _payload_in(packed) for channel, _, packed in channels if packed is not None
    }
    if seen is None:
        return versions, values, None
    return (
        versions,
        values,
        {names[node]: {names[channel]: version for channel, version in of} for node, of in seen},
    )


def _pack_extents(
    form: int, frame_bytes: int, log_bytes: int, extents: tuple[tuple[int, int, int], ...]
) -> bytes:
    """Return a form, two numbers, and extents, which are three numbers each."""
    numbers = [frame_bytes, log_bytes, len(extents)]
    for extent in extents:
        numbers.extend(extent)
    return bytes((form,)) + b"".join(map(pack_uint, numbers))


def _unpack_extents(
    packed: bytes, at: int, limit: int, kind: type[E]
) -> tuple[int, int, tuple[E, ...]]:
    """Return two numbers from `at` on, and the extents behind them, each as a `kind` of tuple.

    ValueError if they are damaged, not as many as they say, or more than `limit`.
    """
    numbers = []
    while at < len(packed):
        number, at = unpack_uint(packed, at)
        numbers.append(number)
    frame_bytes, log_bytes, count, *rest = numbers
    if len(rest) != 3 * count or count > limit:
        raise ValueError("the extents are not as many as they say")
    if any(first + size >= 1 << 63 for first, size in zip(rest[1::3], rest[2::3], strict=True)):
        raise ValueError("an extent that no chain has")
    parts = zip(rest[::3], rest[1::3], rest[2::3], strict=True)
    return frame_bytes, log_bytes, tuple(tuple.__new__(kind, of) for of in parts)


def _payload_in(packed: bytes) -> bytes | Payload:
    end = 3 + int.from_bytes(packed[1:3], "big")
    if len(packed) < 3 or packed[0] != _INLINE or end > len(packed) or not packed[3:end].isascii():
        return packed
    return packed[3:end].decode(), packed[end:]


# --- Python reference: end -----------------------------------------------------------------
