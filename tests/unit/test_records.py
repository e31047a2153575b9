"""The parts of a thread's records that are remembered, since nearly all of them are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lgkv import CorruptionError
from lgkv.checkpoints import records as rec
from lgkv.checkpoints.reading import Parent, with_bases
from lgkv.keys import encode_text
from lgkv.layout import KIND_BYTES, Kind, encode_fields

KEY = b"\x01\x01\x20key"


@given(st.text(max_size=20), st.binary(max_size=20), st.binary(max_size=5))
def test_payload_comes_back_from_where_it_begins(kind: str, raw: bytes, before: bytes) -> None:
    body = before + rec.pack_payload((kind, raw))
    assert rec.unpack_payload(KEY, body, len(before)) == (kind, raw)


@pytest.mark.parametrize("body", [b"", b"\x00", b"\x00\x02a", b"\xff\xff" + bytes(9)])
def test_payload_whose_type_is_cut_is_damage(body: bytes) -> None:
    for start, before in ((0, b""), (1, b"\x01")):
        with pytest.raises(CorruptionError, match="no type"):
            rec.unpack_payload(KEY, before + body, start)


def test_type_that_is_no_text_is_damage_each_time() -> None:
    for _ in range(2):
        with pytest.raises(CorruptionError, match="damaged text"):
            rec.unpack_payload(KEY, b"\x00\x01\xff\x90")


@given(st.lists(st.text(max_size=8), unique=True, max_size=8))
def test_channel_names_come_back_in_order(names: list[str]) -> None:
    body = rec.pack_channels(tuple(names))
    assert body == encode_fields([encode_text(name) for name in names])
    assert rec.unpack_channels(KEY, body) == names


def test_value_of_a_parent_without_a_form_is_damage() -> None:
    parent = Parent(1, bytes(8), {"a": (0, "1", b"")})
    with pytest.raises(CorruptionError, match="damaged value"):
        with_bases(parent, None, KEY, {"a": ["x"]}, lambda *_: None)


def test_each_kind_has_its_byte() -> None:
    assert [KIND_BYTES[kind] for kind in Kind] == [bytes((kind,)) for kind in Kind]
