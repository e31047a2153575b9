"""The decoders on hostile bytes: a ValueError, or what the Python reference says, and no more."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgkv import CorruptionError, UnregisteredTypeError, _msgpack, _native, _shadow, keys, layout
from lgkv.codec import arrays, reference
from lgkv.codec.plan import replay
from lgkv.langgraph.serde import SerdeCodec, StrictSerializer
from lgkv.layout import Table, decode_plain, open_record, seal_record, split_key
from tests.fuzz.damage import Sample
from tests.fuzz.hostile import CBOR_BOMBS, MSGPACK_BOMBS, mangled, mangled_key
from tests.unit.shadows import exactly

CODEC: Final = SerdeCodec(StrictSerializer())
UNPACK: Final = ("unpack_uint", "unpack_bytes", "unpack_id")

randoms = st.integers(0, 2**48).map(random.Random)
"""A seed each, which says all: shrinking one would only try others."""

fuzz = settings(settings.default, derandomize=settings.default.max_examples <= 100)
"""In the tests always the same examples, in `make fuzz` always others."""


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call gave, or the text of its ValueError."""
    try:
        return function(*arguments)
    except ValueError as error:
        return str(error)


def some_record(sample: Sample, rnd: random.Random) -> tuple[Table, bytes, bytes]:
    return rnd.choice(sample.records[rnd.choice(list(sample.records))])


def some_payload(sample: Sample, rnd: random.Random) -> bytes:
    """Return a serialised list."""
    bodies = [body for _, _, body in sample.records["PIECE"]]
    return rnd.choice([body[start:] for body in bodies for start in lists_in(body)])


def lists_in(body: bytes) -> list[int]:
    return [at for at in range(40) if isinstance(outcome(_msgpack.split_array, body[at:]), list)]


@fuzz
@given(randoms)
def test_keys_and_numbers_are_what_the_reference_says(sample: Sample, rnd: random.Random) -> None:
    _, key, body = some_record(sample, rnd)
    raw = rnd.choice((mangled_key(rnd, key), mangled(rnd, body)[:600]))
    for name in UNPACK:
        native, python = getattr(_native, name), getattr(keys, f"_{name}")
        for start in {0, 1, len(raw) - 1, len(raw), rnd.randrange(len(raw) + 2)} - {-1}:
            assert outcome(native, raw, start) == outcome(python, raw, start), (raw, start)


@fuzz
@given(randoms)
def test_key_parts_are_read_or_refused(sample: Sample, rnd: random.Random) -> None:
    table, key, _ = some_record(sample, rnd)
    form = "".join(rnd.choices("ubi", k=rnd.randrange(5)))
    with suppress(CorruptionError):
        split_key(table, mangled_key(rnd, key), rnd.randrange(4), form)


@fuzz
@given(randoms)
def test_envelopes_are_what_the_reference_says(sample: Sample, rnd: random.Random) -> None:
    table, key, body = some_record(sample, rnd)
    record = mangled(rnd, seal_record(table, key, body, compress=rnd.random() < 0.5))
    for raw in (record, memoryview(record)):
        found = outcome(_native.unseal, table, key, raw)
        assert found == outcome(layout._unseal, table, key, record), (key, record)


@fuzz
@given(randoms)
def test_compressed_record_is_read_or_refused(sample: Sample, rnd: random.Random) -> None:
    table, key, body = some_record(sample, rnd)
    whole = seal_record(table, key, body * 20, compress=True)
    forged = _native.seal(table, key, whole[0], mangled(rnd, whole[1:-8]))
    with suppress(CorruptionError):
        open_record(table, key, forged)


@fuzz
@given(randoms)
def test_plain_values_are_read_or_refused(sample: Sample, rnd: random.Random) -> None:
    _, _, body = some_record(sample, rnd)
    outcome(decode_plain, mangled(rnd, body))
    outcome(decode_plain, mangled(rnd, layout.encode_fields([b"text", {"a": [1, 2.5]}, None])))


@pytest.mark.parametrize("bomb", CBOR_BOMBS, ids=lambda raw: raw[:8].hex())
def test_cbor_bomb_is_read_or_refused(bomb: bytes) -> None:
    for raw in (bomb, b"\x81" + bomb, b"\xa1\x61a" + bomb):
        outcome(decode_plain, raw)


@pytest.mark.parametrize("bomb", MSGPACK_BOMBS, ids=lambda raw: raw[:8].hex())
def test_serialised_bomb_is_what_the_reference_says(bomb: bytes) -> None:
    for raw in (bomb, b"\x91" + bomb, b"\x93\x01" + bomb, b"\xdc\x00\x02" + bomb * 2):
        assert outcome(_msgpack.split_array, raw) == outcome(arrays.split_array, raw)


@fuzz
@given(randoms)
def test_serialised_lists_are_what_the_reference_says(sample: Sample, rnd: random.Random) -> None:
    raw = mangled(rnd, some_payload(sample, rnd))
    found = outcome(_msgpack.split_array, raw)
    assert found == outcome(arrays.split_array, raw), raw
    if isinstance(found, list):
        assert raw.endswith(b"".join(found))


@fuzz
@given(randoms)
def test_nodes_of_hostile_values_are_what_the_reference_says(
    sample: Sample, rnd: random.Random
) -> None:
    value = decoded(mangled(rnd, some_payload(sample, rnd)))
    models = CODEC.models or frozenset()
    node, twin = (each.build(value, models, decoded=True) for each in (_shadow, reference))
    assert (node is None) == (twin is None)
    if node is None:
        return
    assert _shadow.matches(node, value)
    assert exactly(_shadow.clone(node)) == exactly(reference.clone(twin))
    assert repr(_shadow.node_key(node)) == repr(_shadow.value_key(value))
    both = _shadow.clone_all([node, _shadow.raw_node(b"\xc0")], decoded)
    assert exactly(both) == exactly([_shadow.clone(node), None])


def decoded(raw: bytes) -> Any:
    """Return what becomes of serialised bytes, None if they are refused."""
    try:
        return CODEC.decode(("msgpack", raw))
    except (ValueError, RecursionError, UnregisteredTypeError):
        return None


@fuzz
@given(randoms)
def test_log_of_a_dict_is_replayed_or_refused(rnd: random.Random) -> None:
    log = [[{"a": 1, "b": [2]}, []], [{"c": None}, ["a"]], [{}, ["b", "b"]]]
    found = outcome(decode_plain, mangled(rnd, layout.encode_fields(log)))
    if isinstance(found, list):
        outcome(replay, found)
