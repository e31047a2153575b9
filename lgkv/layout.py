"""What lies where: tables, kinds of keys, the envelope of a record, and CBOR.

Numbers here are on disk: DO NOT RENUMBER. `docs/FORMAT.md` has every key and record.
Reading a record checks it; whatever does not check out is a `CorruptionError`.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import threading
from collections.abc import Mapping
from typing import Any, Final

import cbor2
import xxhash
import zstandard

from lgkv._native import seal, unseal
from lgkv._plain import decode, encode
from lgkv.errors import CorruptionError, InvalidInputError, ValueTooLargeError
from lgkv.keys import unpack_bytes, unpack_id, unpack_uint

__all__ = [
    "FORMAT_VERSION",
    "INDEX",
    "KIND_BYTES",
    "KNOWN_FEATURES",
    "MAGIC",
    "MAIN",
    "MAX_VALUE_BYTES",
    "MEMORY",
    "META_KEY",
    "NAMES",
    "STATE_KEY",
    "THREADS",
    "Kind",
    "Table",
    "check_record",
    "decode_plain",
    "encode_fields",
    "encode_if_plain",
    "encode_plain",
    "is_plain",
    "open_record",
    "seal",
    "seal_record",
    "split_key",
]

MAGIC: Final = "lgkv"
FORMAT_VERSION: Final = 4
KNOWN_FEATURES: Final = 0
"""The feature flags that this version understands; a file with another is refused."""

META_KEY: Final = b"lgkv.meta"
STATE_KEY: Final = b"lgkv.state"

MAX_VALUE_BYTES: Final = 0x7FFF_0000
"""The largest record: LMDB stores a value's size in 32 bits and its pages in 31."""

MAX_NESTING: Final = 200
"""The deepest nesting of containers in a plain value."""


class Table(enum.IntEnum):
    """The LMDB databases in the file. `MAIN` is the unnamed one, which holds their roots."""

    MAIN = 0
    THREADS = 1
    MEMORY = 2
    NAMES = 3
    INDEX = 4

    @property
    def label(self) -> str:
        """The table's name in the file and in messages."""
        return self.name.lower()


# Where it counts: before Python 3.12 a member is slow to find in its enumeration.
MAIN: Final = Table.MAIN
THREADS: Final = Table.THREADS
MEMORY: Final = Table.MEMORY
NAMES: Final = Table.NAMES
INDEX: Final = Table.INDEX


class Kind(enum.IntEnum):
    """The byte that tells what a key is for. In `THREADS` it follows the thread's number."""

    # THREADS: thread, kind, ...
    THREAD = 0x10
    CHANNELS = 0x11
    NAMESPACE_NUMBER = 0x12
    NAMESPACE_NAME = 0x13
    CHECKPOINT = 0x20
    WRITES = 0x21
    CARRIER = 0x23
    PIECE = 0x24
    FRAME = 0x25
    # MEMORY: kind, ...
    NODE = 0x30
    NODE_PATH = 0x31
    ITEM = 0x32
    VECTORS = 0x33
    VECTOR_SETTINGS = 0x34
    VECTOR_SLAB = 0x35
    VECTOR_DEAD = 0x36
    VECTOR_STATE = 0x37
    VECTOR_LOG = 0x38
    VECTOR_GRAPH = 0x39
    PACK = 0x3A
    FIELDS = 0x3B
    TERMS = 0x3C
    TERM_COUNTS = 0x3D
    CACHE = 0x40
    # NAMES: kind, ...
    THREAD_NUMBER = 0x50
    CACHE_NUMBER = 0x52
    # INDEX: kind, ...
    RUN = 0x61
    ITEM_DEADLINE = 0x63
    CACHE_DEADLINE = 0x64
    FIELD = 0x65
    POSTING = 0x66
    LATEST = 0x70


KIND_BYTES: Final = tuple(bytes((number,)) for number in range(256))
"""Each byte, by its number: to begin a key with."""


# --- the envelope: flags byte | body | checksum --------------------------------------------

FLAG_COMPRESSED: Final = 0x01
FLAG_ENCRYPTED: Final = 0x02
ENVELOPE_BYTES: Final = 9

# --- Python reference: begin ---------------------------------------------------------------


def _seal(table: int, key: bytes, flags: int, body: bytes) -> bytes:
    """Return `body` in its envelope, with a checksum bound to the table, the key and the flags.

    The checksum is the XXH3-64 of the body, little-endian, seeded with the XXH3-64 of the
    key, which is seeded with the table and the flags.
    """
    seed = xxhash.xxh3_64_intdigest(key, table << 8 | flags)
    return bytes((flags,)) + body + xxhash.xxh3_64_intdigest(body, seed).to_bytes(8, "little")


def _unseal(table: int, key: bytes, record: bytes) -> tuple[int, bytes]:
    """Return the flags and the body of an envelope; ValueError if it does not check out."""
    if len(record) < ENVELOPE_BYTES:
        raise ValueError("the record is shorter than its envelope")
    flags, body = record[0], bytes(record[1:-8])
    seed = xxhash.xxh3_64_intdigest(key, table << 8 | flags)
    if xxhash.xxh3_64_intdigest(body, seed) != int.from_bytes(record[-8:], "little"):
        raise ValueError("the checksum does not match")
    return flags, body


# --- Python reference: end -----------------------------------------------------------------


class _Zstd(threading.local):
    """A compressor and a decompressor of each thread's own: they are not shared safely."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


COMPRESSION_LEVEL: Final = 1
COMPRESSED_FROM_BYTES: Final = 512
"""Bodies from this size on are compressed if that saves an eighth."""

MAX_EXPANSION: Final = (128 << 10) // 4
"""No octet of a Zstandard frame gives more: four make a block, which has 128 KiB at most."""

_zstd: Final = _Zstd()


def seal_record(table: Table, key: bytes, body: bytes, *, compress: bool = False) -> bytes:
    """Return the record to store for `body` under `key`, compressed if asked and if it pays."""
    if len(body) > MAX_VALUE_BYTES:
        raise ValueTooLargeError(f"a record of {table.label}", len(body), MAX_VALUE_BYTES)
    if compress and len(body) >= COMPRESSED_FROM_BYTES:
        small = _zstd.compressor.compress(body)
        if len(small) <= len(body) - (len(body) >> 3):
            return seal(table, key, FLAG_COMPRESSED, small)
    return seal(table, key, 0, body)


def open_record(table: Table, key: bytes, record: bytes) -> bytes:
    """Return the body of a stored record, checked."""
    try:
        flags, body = unseal(table, key, record)
    except ValueError as error:
        raise CorruptionError(table.label, bytes(key), str(error)) from None
    if flags == 0:
        return body
    if flags != FLAG_COMPRESSED:
        raise CorruptionError(table.label, bytes(key), f"unknown record flags {flags:#04x}")
    try:
        size = zstandard.frame_content_size(body)
        if not 0 <= size <= min(MAX_VALUE_BYTES, MAX_EXPANSION * len(body)):
            raise CorruptionError(table.label, bytes(key), f"a compressed body of {size} bytes")
        return _zstd.decompressor.decompress(body)
    except zstandard.ZstdError as error:
        raise CorruptionError(table.label, bytes(key), f"damaged compression: {error}") from None


def check_record(table: Table, key: bytes, fields: Any, *types: type | tuple[type, ...]) -> None:
    """Raise CorruptionError unless `fields` is a list of values of these types."""
    whole = type(fields) is list and len(fields) == len(types)
    if whole:
        for field, kind in zip(fields, types, strict=True):
            if not isinstance(field, kind):
                whole = False
                break
    if not whole:
        raise CorruptionError(table.label, bytes(key), "the record does not have its fields")


_READERS: Final = {"b": unpack_bytes, "i": unpack_id}


def split_key(table: Table, key: bytes, start: int, form: str) -> list[Any]:
    """Return the parts of `key` from `start` on; `form` has a letter a part.

    `u` gives a number; `b` and `i` (bytes, id) give the bytes, or None where the key holds
    only a cut of them and the record has the whole.
    """
    parts: list[Any] = []
    try:
        for letter in form:
            if letter == "u":
                number, start = unpack_uint(key, start)
                parts.append(number)
            else:
                raw, whole, start = _READERS[letter](key, start)
                parts.append(raw if whole else None)
    except ValueError as error:
        raise CorruptionError(table.label, bytes(key), str(error)) from None
    if start != len(key):
        raise CorruptionError(table.label, bytes(key), "the key is longer than its parts")
    return parts


# --- plain values as CBOR (RFC 8949) -------------------------------------------------------

TAG_ARRAY: Final = 40  # RFC 8746: a multi-dimensional array, in row order
_ARRAY_TAGS: Final = {
    "|u1": 64, "<u2": 69, "<u4": 70, "<u8": 71, "|i1": 72, "<i2": 77, "<i4": 78, "<i8": 79,
    "<f2": 84, "<f4": 85, "<f8": 86,
}  # fmt: skip
_ARRAY_TYPES: Final = {tag: dtype for dtype, tag in _ARRAY_TAGS.items()}
_SCALARS: Final = (str, int, float, bool, bytes, type(None))


def is_plain(value: Any, depth: int = MAX_NESTING) -> bool:
    """Whether CBOR gives `value` back as it is, a tuple as a list, and nothing else changed."""
    kind = type(value)
    if kind is str:
        return not _has_surrogate(value)
    if kind in _SCALARS:
        return True
    if not depth:
        return False
    if kind is list or kind is tuple:
        return all(is_plain(element, depth - 1) for element in value)
    if kind is dict:
        return all(type(k) is str and is_plain(v, depth - 1) for k, v in value.items())
    return False


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)


def _too_deep(value: Any, depth: int) -> bool:
    """Whether containers in `value` nest deeper than `depth`: cbor2 recurses without a bound."""
    if isinstance(value, Mapping):
        return not depth or any(_too_deep(v, depth - 1) for v in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return not depth or any(_too_deep(element, depth - 1) for element in value)
    return False


def encode_plain(value: Any) -> bytes:
    """Return a plain value as CBOR.

    Plain are str, bytes, bool, int, float, None, lists, tuples, dicts, sets, aware datetimes,
    dates, decimals, UUIDs and numpy arrays. Dataclasses and enumerations are stored as
    what they hold, naive datetimes as ISO text.

    Raises:
        InvalidInputError: A part of `value` is of another type, nests too deep, or is text
            with a lone surrogate.
    """
    encoded = encode(value)
    if encoded is not None:
        return encoded
    if _too_deep(value, MAX_NESTING):
        raise InvalidInputError(f"a value nests deeper than {MAX_NESTING} levels, or holds itself")
    try:
        return cbor2.dumps(value, default=_encode_other, encoders=_ENCODERS)
    except (cbor2.CBOREncodeError, UnicodeEncodeError, TypeError) as error:
        raise InvalidInputError(
            f"a value of type {type(value).__name__} cannot be stored: {error}; "
            "use plain data (str, bytes, numbers, lists, dicts, datetimes, numpy arrays)"
        ) from error


def encode_fields(fields: Any) -> bytes:
    """Return the fields of one of lgkv's own records as CBOR."""
    encoded = encode(fields)
    return cbor2.dumps(fields) if encoded is None else encoded


def encode_if_plain(value: Any) -> bytes | None:
    """Return what `is_plain` as CBOR, None if it is not."""
    encoded = encode(value)
    if encoded is None and is_plain(value):
        return cbor2.dumps(value)
    return encoded


_OTHER: Final = object()


def decode_plain(raw: bytes) -> Any:
    """Return the value that `encode_plain` made `raw` from; ValueError if it is damaged."""
    value = decode(raw, _OTHER)
    if value is not _OTHER:
        return value
    try:
        return cbor2.loads(raw, tag_hook=_decode_tag, semantic_decoders=_REFUSED)
    except cbor2.CBORError as error:
        raise ValueError(f"damaged CBOR: {error}") from error


def _refuse(_decoder: Any) -> Any:
    """Refuse a tag that cbor2 would make an object of, and `encode_plain` never writes."""
    raise ValueError("a CBOR tag that is not of plain data")


_REFUSED: Final[dict[int, Any]] = dict.fromkeys((28, 29, 35, 36), _refuse)
"""Shared and cyclic values, patterns, mails."""


def _encode_datetime(encoder: Any, value: datetime.datetime) -> None:
    encoder.encode(
        value.isoformat() if value.tzinfo is None else cbor2.CBORTag(0, value.isoformat())
    )


def _encode_view(encoder: Any, value: memoryview) -> None:
    encoder.encode(bytes(value))


_ENCODERS: Final[dict[type, Any]] = {
    datetime.datetime: _encode_datetime,
    memoryview: _encode_view,  # cbor2 would make a list of it
}


def _encode_other(encoder: Any, value: Any) -> None:
    if isinstance(value, enum.Enum):
        encoder.encode(value.value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        encoder.encode({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    elif type(value).__module__ == "numpy":
        encoder.encode(_array_as_cbor(value))
    else:
        raise TypeError(f"no plain form for {type(value).__module__}.{type(value).__qualname__}")


def _array_as_cbor(value: Any) -> Any:
    if value.shape == ():
        return value.item()
    kind = value.dtype.newbyteorder("<").str
    if kind not in _ARRAY_TAGS:
        raise TypeError(f"no plain form for a numpy array of {value.dtype}")
    body = value.astype(kind, order="C", copy=False).tobytes(order="C")
    return cbor2.CBORTag(TAG_ARRAY, [list(value.shape), cbor2.CBORTag(_ARRAY_TAGS[kind], body)])


def _decode_tag(tag: cbor2.CBORTag, _immutable: bool) -> Any:  # noqa: FBT001  cbor2's call
    if tag.tag in _ARRAY_TYPES and isinstance(tag.value, bytes):
        import numpy as np  # noqa: PLC0415  only files that hold arrays pay for it

        return np.frombuffer(tag.value, dtype=_ARRAY_TYPES[tag.tag])
    if tag.tag == TAG_ARRAY and isinstance(tag.value, (list, tuple)) and len(tag.value) == 2:
        shape, flat = tag.value
        return flat.reshape(shape).copy()
    raise ValueError(f"unknown CBOR tag {tag.tag}")
