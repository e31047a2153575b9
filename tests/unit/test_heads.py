"""The extension that packs and unpacks heads beside its Python reference."""

from __future__ import annotations

import string
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lgkv import _heads
from lgkv.checkpoints import heads
from lgkv.checkpoints.heads import Head
from lgkv.codec.plan import Extent
from lgkv.errors import CorruptionError
from lgkv.keys import pack_uint

KEY = b"\x01\x01\x20"
COUNTED = f"{7:032}.{3:016}"

texts = st.text(max_size=8)
ids = st.uuids().map(str) | texts | st.uuids().map(lambda made: str(made).upper())
numbers = st.integers(0, 300) | st.integers(0, (1 << 63) - 1)
counted = st.builds(
    lambda count, tail: f"{count:032}.{tail:016}",
    st.integers(0, 1 << 70),
    st.integers(0, 10**16 - 1),
)
versions = counted | st.integers(-(1 << 70), 1 << 70) | texts | st.floats() | st.booleans()
entries = st.tuples(numbers, versions, st.none() | st.binary(max_size=9))
seen = st.lists(st.tuples(numbers, st.lists(st.tuples(numbers, versions), max_size=3)), max_size=3)
heads_of_any_kind = st.builds(
    Head,
    ids,
    st.none() | ids,
    st.integers(0, 1 << 60),
    st.none() | ids,
    st.tuples(texts.filter(str.isprintable), st.binary(max_size=300)),
    st.lists(entries, max_size=5),
    st.none() | seen,
    st.lists(numbers, max_size=3),
    numbers,
)
USUAL = Head(
    str(uuid.UUID(int=5)),
    "a parent",
    1_700_000_000_000_000,
    None,
    ("+cbor", b"\x80" * 40),
    [(0, COUNTED, b"\x01"), (1, 4, None), (300, COUNTED, b"\x03\x00"), (2, "a text", None)],
    [(3, [(0, COUNTED), (1, -4)]), (4, [])],
    [0, 1 << 40],
)


def reference(body: bytes) -> Any:
    """Return what the reference makes of a record, or the type of its error."""
    try:
        return heads._unpack_head(KEY, body)
    except CorruptionError as error:
        return type(error)


def same(one: Any, other: Any) -> bool:
    """Whether two are equal and of the same types all through."""
    return repr(one) == repr(other)


def outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Return what a call gives, exactly, or the type of its error."""
    try:
        return repr(function(*arguments))
    except (ValueError, IndexError) as error:
        return type(error)


@given(heads_of_any_kind)
@example(USUAL)
def test_heads_are_packed_and_unpacked_as_the_reference_does(head: Head) -> None:
    packed = heads._pack_head(head, head.channels, head.frame)
    assert _heads.pack_head(head, head.channels, head.frame) in (None, packed)
    unpacked = _heads.unpack_head(packed)
    assert unpacked is None or same(Head._make(unpacked), reference(packed))


@given(heads_of_any_kind, st.integers(0, 500), st.binary(min_size=1, max_size=2), st.integers(0, 9))
def test_damaged_heads_are_unpacked_as_the_reference_does(
    head: Head, at: int, damage: bytes, cut: int
) -> None:
    packed = heads._pack_head(head, head.channels, head.frame)
    at %= len(packed)
    damaged = (packed[:at] + damage + packed[at + len(damage) :])[: len(packed) - cut]
    unpacked = _heads.unpack_head(damaged)
    assert unpacked is None or same(Head._make(unpacked), reference(damaged))


@given(st.binary(max_size=60))
def test_any_bytes_are_unpacked_as_the_reference_does(body: bytes) -> None:
    unpacked = _heads.unpack_head(body)
    assert unpacked is None or same(Head._make(unpacked), reference(body))


def test_a_usual_head_needs_no_reference() -> None:
    packed = _heads.pack_head(USUAL, USUAL.channels, 0)
    assert packed == heads._pack_head(USUAL, USUAL.channels, 0)
    assert _heads.unpack_head(packed) == USUAL


@pytest.mark.parametrize(
    "version",
    [1.5, True, "\ud800", 10**200, float("nan")],
    ids=["float", "bool", "surrogate", "large", "nan"],
)
def test_an_unusual_version_is_left_to_the_reference(version: Any) -> None:
    assert _heads.pack_head(USUAL, [(0, version, None)], 0) is None


@given(heads_of_any_kind, st.lists(texts, max_size=9))
@example(USUAL, ["a", "b", "c", "d", "e"])
def test_channels_are_named_as_the_reference_does(head: Head, names: list[str]) -> None:
    few = [number % 8 for number in range(9)]
    channels = [(few[at], version, value) for at, (_, version, value) in enumerate(head.channels)]
    inline = [(at, 4, b"\x01\x00\x02+a" + value) for at, value in ((8, b""), (9, b"\xff\x00"))]
    arguments = ([*channels, *inline], head.seen, names)
    assert outcome(_heads.name_channels, arguments) == outcome(heads._name_channels, arguments)


@given(st.binary(max_size=9))
@example(b"\x01\x00\x00")
@example(b"\x01\x00\x05+cbor\x80")
@example(b"\x01\x00\x01\xff\x80")
@example(b"\x02\x00\x05+cbor\x80")
def test_payloads_of_channels_are_taken_out_as_the_reference_does(packed: bytes) -> None:
    _, values, _ = _heads.name_channels([(0, 1, packed)], None, ["a"])
    assert same(values["a"], heads._payload_in(packed))


def test_a_channel_without_a_name_is_an_error() -> None:
    with pytest.raises(IndexError):
        _heads.name_channels([(1, 1, None)], None, ["a"])
    with pytest.raises(IndexError):
        _heads.name_channels([], [(0, [(1 << 62, 1)])], ["a"])


@given(
    st.lists(st.integers(0, 300) | st.integers(0, (1 << 64) - 1), max_size=12),
    st.integers(0, 2),
    st.integers(0, 3),
)
@example([5, 6, 2, 1, 0, 9, 1, 20, (1 << 63) - 21], 0, 2)
@example([5, 6, 2, 1, 0, 9, 1, 20, (1 << 63) - 20], 0, 2)
@example([5, 6, 1, 1, 0, 9], 1, 1)
@example([5, 6, 1, 1, 0, 9], 1, 0)
@example([5, 6, 1 << 63], 1, 3)
def test_extents_are_unpacked_as_the_reference_does(
    numbers: list[int], start: int, limit: int
) -> None:
    packed = bytes(start) + b"".join(map(pack_uint, numbers))
    arguments = (packed, start, limit, Extent)
    assert outcome(_heads.unpack_extents, arguments) == outcome(heads._unpack_extents, arguments)


@given(
    st.integers(0, 255),
    st.lists(st.tuples(*[st.integers(0, 300) | st.integers(0, (1 << 64) - 1)] * 3), max_size=5),
)
def test_extents_are_packed_as_the_reference_does(
    form: int, extents: list[tuple[int, int, int]]
) -> None:
    arguments = form, len(extents) * 200, 1 << 63, tuple(extents)
    assert _heads.pack_extents(*arguments) == heads._pack_extents(*arguments)


@given(st.binary(max_size=20))
def test_damaged_extents_are_unpacked_as_the_reference_does(packed: bytes) -> None:
    arguments = (packed, 0, 9, Extent)
    assert outcome(_heads.unpack_extents, arguments) == outcome(heads._unpack_extents, arguments)


def test_every_letter_is_no_digit_of_a_version() -> None:
    for letter in string.punctuation + string.ascii_letters + "٣":
        version = letter + COUNTED[1:]
        packed = _heads.pack_head(USUAL, [(0, version, None)], 0)
        assert packed == heads._pack_head(USUAL, [(0, version, None)], 0)
        assert _heads.unpack_head(packed)[5] == [(0, version, None)]
