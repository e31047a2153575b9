"""Records are checked as they are read, and plain values come back as they were."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import math
import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lgkv import CorruptionError, InvalidInputError, ValueTooLargeError, layout
from lgkv._native import seal
from lgkv.keys import encode_text, pack_bytes, pack_id, pack_uint
from lgkv.layout import (
    MAX_NESTING,
    Kind,
    Table,
    check_record,
    decode_plain,
    encode_fields,
    encode_plain,
    is_plain,
    open_record,
    seal_record,
    split_key,
)

KEY = b"\x01\x01\x20key"
tables = st.sampled_from(Table)


class TestNumbers:
    """What is on disk never changes its number."""

    def test_tables_keep_their_numbers(self) -> None:
        assert {table.label: int(table) for table in Table} == {
            "main": 0, "threads": 1, "memory": 2, "names": 3, "index": 4,
        }  # fmt: skip

    def test_kinds_keep_their_numbers(self) -> None:
        assert {kind.name: int(kind) for kind in Kind} == {
            "THREAD": 0x10, "CHANNELS": 0x11, "NAMESPACE_NUMBER": 0x12, "NAMESPACE_NAME": 0x13,
            "CHECKPOINT": 0x20, "WRITES": 0x21, "CARRIER": 0x23,
            "PIECE": 0x24, "FRAME": 0x25,
            "NODE": 0x30, "NODE_PATH": 0x31, "ITEM": 0x32, "VECTORS": 0x33, "VECTOR_SETTINGS": 0x34,
            "VECTOR_SLAB": 0x35, "VECTOR_DEAD": 0x36, "VECTOR_STATE": 0x37, "VECTOR_LOG": 0x38,
            "VECTOR_GRAPH": 0x39,
            "PACK": 0x3A, "FIELDS": 0x3B, "TERMS": 0x3C, "TERM_COUNTS": 0x3D,
            "CACHE": 0x40,
            "THREAD_NUMBER": 0x50, "CACHE_NUMBER": 0x52,
            "RUN": 0x61, "ITEM_DEADLINE": 0x63, "CACHE_DEADLINE": 0x64,
            "FIELD": 0x65, "POSTING": 0x66, "LATEST": 0x70,
        }  # fmt: skip


class TestRecords:
    @given(table=tables, key=st.binary(max_size=511), body=st.binary(max_size=5_000))
    def test_body_is_read_back(self, table: Table, key: bytes, body: bytes) -> None:
        assert open_record(table, key, seal_record(table, key, body)) == body

    @given(
        table=tables,
        key=st.binary(max_size=20),
        body=st.binary(max_size=200),
        bit=st.integers(min_value=0),
    )
    def test_flipped_bit_names_table_and_key(
        self, table: Table, key: bytes, body: bytes, bit: int
    ) -> None:
        record = bytearray(seal_record(table, key, body))
        bit %= len(record) * 8
        record[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptionError) as caught:
            open_record(table, key, bytes(record))
        assert (caught.value.database, caught.value.key) == (table.label, key)
        assert key.hex() in str(caught.value)

    @given(body=st.binary(max_size=50), cut=st.integers(min_value=1, max_value=59))
    def test_record_cut_short_or_grown_is_noticed(self, body: bytes, cut: int) -> None:
        record = seal_record(Table.MEMORY, KEY, body)
        for damaged in (record[:-cut], record + bytes(cut), record[cut:]):
            with pytest.raises(CorruptionError):
                open_record(Table.MEMORY, KEY, damaged)

    @pytest.mark.parametrize("table", list(Table))
    def test_record_of_another_table_or_key_is_noticed(self, table: Table) -> None:
        record = seal_record(Table.THREADS, KEY, b"body")
        for other in (KEY, KEY + b"\x00"):
            if (table, other) == (Table.THREADS, KEY):
                continue
            with pytest.raises(CorruptionError, match="checksum"):
                open_record(table, other, record)

    @pytest.mark.parametrize("flags", [2, 3, 0x80])
    def test_record_of_a_later_version_is_refused_by_its_flags(self, flags: int) -> None:
        record = seal(Table.THREADS, KEY, flags, b"body")
        with pytest.raises(CorruptionError, match=f"flags 0x{flags:02x}"):
            open_record(Table.THREADS, KEY, record)

    def test_record_beyond_what_lmdb_holds_is_refused_with_its_size(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(layout, "MAX_VALUE_BYTES", 1_000)
        with pytest.raises(ValueTooLargeError, match="1,001 bytes; the limit is 1,000") as caught:
            seal_record(Table.MEMORY, KEY, bytes(1_001))
        assert (caught.value.size, caught.value.limit) == (1_001, 1_000)
        seal_record(Table.MEMORY, KEY, bytes(1_000))


class TestFields:
    def test_fields_of_the_right_types_pass(self) -> None:
        check_record(Table.THREADS, KEY, [b"a", 1, None], bytes, int, (bytes, type(None)))

    @pytest.mark.parametrize("fields", [None, b"a", (b"a", 1), [b"a"], [b"a", 1, 2], ["a", 1], {}])
    def test_other_fields_are_damage(self, fields: Any) -> None:
        with pytest.raises(CorruptionError, match="fields"):
            check_record(Table.THREADS, KEY, fields, bytes, int)


class TestKeys:
    def test_key_is_split_into_its_parts(self) -> None:
        key = b"\x60" + pack_id("x") + pack_uint(300) + pack_bytes(b"\x00y")
        assert split_key(Table.INDEX, key, 1, "iub") == [b"x", 300, b"\x00y"]

    def test_cut_part_is_none(self) -> None:
        assert split_key(Table.INDEX, pack_bytes(b"x" * 300), 0, "b") == [None]

    @given(key=st.binary(max_size=40), form=st.text("uib", max_size=4))
    def test_hostile_key_is_damage_that_names_it(self, key: bytes, form: str) -> None:
        try:
            parts = split_key(Table.INDEX, key, 0, form)
        except CorruptionError as error:
            found = error
        else:
            assert len(parts) == len(form)
            return
        assert (found.database, found.key) == ("index", key)

    def test_key_with_something_behind_its_parts_is_damage(self) -> None:
        with pytest.raises(CorruptionError, match="longer than its parts"):
            split_key(Table.INDEX, pack_uint(1) + b"\x00", 0, "u")


safe_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | safe_texts
    | st.binary(max_size=20)
)  # fmt: skip
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(safe_texts, inner, max_size=4),
    max_leaves=20,
)
DTYPES = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: list[int]


class Odd:
    pass


class TestPlainValues:
    @given(value=plain)
    @example(value=-(2**64) - 1)
    @example(value=[math.inf, -0.0, 5e-324, "\U0010ffff\x00"])
    def test_plain_value_comes_back_equal_and_of_the_same_types(self, value: Any) -> None:
        assert repr(decode_plain(encode_plain(value))) == repr(value)
        assert is_plain(value)

    def test_nan_comes_back(self) -> None:
        assert math.isnan(decode_plain(encode_plain(math.nan)))

    @pytest.mark.parametrize(
        ("value", "stored"),
        [
            ((1, (2,)), [1, [2]]),
            ({1, 2}, {1, 2}),
            (OrderedDict(a=1), {"a": 1}),
            (decimal.Decimal("1.10"), decimal.Decimal("1.10")),
            (uuid.UUID(int=5), uuid.UUID(int=5)),
            (datetime.date(2024, 2, 29), datetime.date(2024, 2, 29)),
            (datetime.datetime(2024, 1, 2, 3), "2024-01-02T03:00:00"),  # noqa: DTZ001
            (Colour.RED, "red"),
            (Point(1, [2]), {"x": 1, "y": [2]}),
            (np.float32(0.5), 0.5),
            (np.int64(2**62), 2**62),
            (bytearray(b"x"), b"x"),
        ],
        ids=repr,
    )
    def test_other_values_have_a_plain_form(self, value: Any, stored: Any) -> None:
        assert decode_plain(encode_plain([value])) == [stored]
        assert not is_plain(value) or type(value) is tuple

    def test_aware_datetime_keeps_its_moment(self) -> None:
        zone = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
        moment = datetime.datetime(2024, 1, 2, 3, 4, 5, 678_901, tzinfo=zone)
        assert decode_plain(encode_plain(moment)) == moment

    @pytest.mark.parametrize("dtype", [*DTYPES, ">f8", ">i2"])
    @pytest.mark.parametrize("shape", [(0,), (3,), (2, 3), (2, 0, 3)])
    def test_array_comes_back_writable_and_its_own(
        self, dtype: str, shape: tuple[int, ...]
    ) -> None:
        array = np.arange(math.prod(shape)).astype(dtype).reshape(shape)
        back = decode_plain(encode_plain({"a": array}))["a"]
        assert back.dtype == np.dtype(dtype).newbyteorder("=")
        assert back.shape == shape
        np.testing.assert_array_equal(back, array)
        back[...] = 1

    def test_array_in_column_order_keeps_its_elements(self) -> None:
        array = np.arange(6.0).reshape(2, 3).T
        np.testing.assert_array_equal(decode_plain(encode_plain(array)), array)

    @pytest.mark.parametrize(
        "value",
        [Odd(), Odd, lambda: 1, object(), np.array([1j]), np.array(["x"]), np.array([Odd()]),
         "\ud800", {"a": ["\udfff"]}, {"\ud800": 1}, iter([]), Path("x"),
         np.array([True])],
        ids=lambda value: type(value).__name__,
    )  # fmt: skip
    def test_what_has_no_plain_form_is_refused_by_name(self, value: Any) -> None:
        with pytest.raises(InvalidInputError, match=r"cannot be stored|plain"):
            encode_plain([value])

    @pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"a": v}, lambda v: (v,)])
    def test_nesting_is_bounded(self, wrap: Any) -> None:
        value: Any = 1
        for _ in range(MAX_NESTING):
            value = wrap(value)
        back = decode_plain(encode_plain(value))
        assert encode_plain(back) == encode_plain(value)
        for deep in (wrap(value), wrap(wrap(value))):
            with pytest.raises(InvalidInputError, match="nests deeper"):
                encode_plain(deep)

    def test_value_that_holds_itself_is_refused(self) -> None:
        value: list[Any] = []
        value += [value, value]
        with pytest.raises(InvalidInputError, match="holds itself"):
            encode_plain(value)

    def test_numbers_never_become_booleans_or_back(self) -> None:
        back = decode_plain(encode_plain([True, 1, 1.0, False, 0, -0.0]))
        assert [type(value) for value in back] == [bool, int, float, bool, int, float]
        assert math.copysign(1, back[-1]) == -1


class TestHostileBytes:
    SEEDS = (
        [1, 2.5, "x", None, True, b"z"],
        {"a": {"b": [1] * 5}},
        np.arange(6, dtype=np.float32).reshape(2, 3),
        datetime.datetime.now(datetime.timezone.utc),
        [decimal.Decimal("1.5"), uuid.uuid4(), {1, 2}, 10**30],
    )

    @given(
        seed=st.sampled_from(range(len(SEEDS))),
        changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    )
    @example(seed=2, changes=[(1, 81)])
    def test_changed_bytes_are_a_value_or_a_value_error(
        self, seed: int, changes: list[tuple[int, int]]
    ) -> None:
        raw = bytearray(encode_plain(self.SEEDS[seed]))
        for at, byte in changes:
            raw[at % len(raw)] = byte
        try:
            decode_plain(bytes(raw))
        except ValueError:
            return

    @given(raw=st.binary(max_size=60))
    def test_random_bytes_are_a_value_or_a_value_error(self, raw: bytes) -> None:
        try:
            decode_plain(raw)
        except ValueError:
            return

    @pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x61a", b"\xc1", b"\xd8\x28\x82\x80"])
    def test_endless_nesting_is_a_value_error(self, opening: bytes) -> None:
        with pytest.raises(ValueError, match="damaged CBOR"):
            decode_plain(opening * 100_000)

    @pytest.mark.parametrize(
        "tag",
        [6, 25, 27, 28, 29, 30, 35, 36, 258_000],  # 35: a pattern, 36: a mail
    )
    def test_tag_that_is_not_plain_gives_no_object_of_another_type(self, tag: int) -> None:
        raw = b"\xda" + tag.to_bytes(4, "big") + b"\x61a"
        try:
            value = decode_plain(raw)
        except ValueError:
            return
        assert isinstance(value, (str, list, dict, int, float))

    def test_truncated_value_is_a_value_error(self) -> None:
        raw = encode_plain({"a": [1, "two", b"three"], "b": np.zeros(3)})
        for size in range(len(raw)):
            with pytest.raises(ValueError, match="damaged CBOR"):
                decode_plain(raw[:size])


def test_fields_hold_text_that_utf8_does_not() -> None:
    assert decode_plain(encode_fields([encode_text("\ud800")])) == [b"\xed\xa0\x80"]
