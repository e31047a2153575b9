"""Keys sort as their values do, tell their own end, and stay short whatever they are made of."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lgkv import keys
from lgkv.checkpoints import records as rec
from lgkv.keys import (
    TEXT_LIMIT_BYTES,
    decode_text,
    encode_text,
    next_prefix,
    pack_bytes,
    pack_id,
    pack_text,
    pack_uint,
    pack_version,
    unpack_bytes,
    unpack_id,
    unpack_uint,
)

LMDB_KEY_BYTES = 511
PLANES = "".join(chr(plane << 16 | 0x0041) for plane in range(17)) + "".join(
    chr(plane << 16 | 0xFFFD) for plane in range(17)
)
AWKWARD = ["", "\x00", "\x00\x00", "a\x00b", "\xff", "\ud800", "\udfff\ud800", "\U0010ffff", PLANES]

texts = st.text(st.characters(exclude_categories=())) | st.sampled_from(AWKWARD)
short_texts = texts.filter(lambda text: len(encode_text(text).replace(b"\x00", b"..")) <= 200)
long_texts = st.builds(
    lambda text, times: text * times, texts.filter(bool), st.integers(201, 2_000)
)
numbers = st.integers(0, 2**64 - 1)
versions = (
    texts
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False)
    | st.builds("{:032}.{:016}".format, st.integers(0, 2**70), st.integers(0, 10**16 - 1))
)


class TestTexts:
    @given(text=texts)
    @example(text=PLANES)
    def test_every_text_is_read_back_from_its_bytes(self, text: str) -> None:
        assert decode_text(encode_text(text)) == text

    @given(several=st.lists(short_texts, min_size=2, max_size=8))
    @example(several=sorted(AWKWARD))
    def test_texts_sort_by_code_points(self, several: list[str]) -> None:
        assert sorted(several, key=pack_text) == sorted(several)

    @given(first=texts | long_texts, second=texts | long_texts)
    @example(first="x" * 100_000, second="x" * 99_999 + "y")
    def test_different_texts_have_different_keys(self, first: str, second: str) -> None:
        assert (pack_text(first) == pack_text(second)) == (first == second)

    @given(text=short_texts, rest=st.binary(max_size=8))
    def test_short_text_is_whole_in_its_key(self, text: str, rest: bytes) -> None:
        part = pack_text(text)
        assert unpack_bytes(part + rest, 0) == (encode_text(text), True, len(part))

    @given(first=long_texts, second=long_texts)
    def test_long_texts_sort_by_what_the_key_has_of_them(self, first: str, second: str) -> None:
        cuts = [unpack_bytes(pack_text(text), 0)[0] for text in sorted((first, second))]
        assert cuts == sorted(cuts)
        assert all(len(cut) <= TEXT_LIMIT_BYTES for cut in cuts)

    @given(text=short_texts, longer=texts.filter(bool))
    def test_prefix_sorts_before_what_it_begins(self, text: str, longer: str) -> None:
        assert pack_text(text) < pack_text(text + longer)


class TestSequences:
    """Several parts in a row sort as tuples do, whatever follows them."""

    @given(
        several=st.lists(st.tuples(numbers, short_texts, numbers, short_texts), min_size=2),
    )
    def test_keys_sort_as_tuples_of_their_parts(
        self, several: list[tuple[int, str, int, str]]
    ) -> None:
        def key(parts: tuple[int, str, int, str]) -> bytes:
            first, name, second, last = parts
            return pack_uint(first) + pack_text(name) + pack_uint(second) + pack_text(last)

        assert sorted(several, key=key) == sorted(several)

    @given(first=st.tuples(texts, texts), second=st.tuples(texts, texts))
    @example(first=("a", "b\x00c"), second=("a\x00b", "c"))
    @example(first=("", "a"), second=("a", ""))
    def test_where_one_part_ends_is_part_of_the_key(
        self, first: tuple[str, str], second: tuple[str, str]
    ) -> None:
        joined = [pack_text(one) + pack_text(two) for one, two in (first, second)]
        assert (joined[0] == joined[1]) == (first == second)

    @given(number=numbers, id_=texts | st.uuids().map(str), last=numbers)
    def test_parts_are_read_back_in_a_row(self, number: int, id_: str, last: int) -> None:
        key = pack_uint(number) + pack_id(id_) + pack_uint(last)
        read, at = unpack_uint(key, 0)
        raw, whole, at = unpack_id(key, at)
        assert (read, unpack_uint(key, at)) == (number, (last, len(key)))
        assert raw == encode_text(id_) if whole else encode_text(id_).startswith(raw)


class TestPrefixes:
    @given(prefix=st.binary(min_size=1, max_size=6), rest=st.binary(max_size=6))
    @example(prefix=b"\x01\xff\xff", rest=b"\xff\xff")
    def test_next_prefix_is_above_all_that_begins_so(self, prefix: bytes, rest: bytes) -> None:
        prefix = b"\x20" + prefix
        above = next_prefix(prefix)
        assert prefix + rest < above
        assert not above.startswith(prefix)

    @given(prefix=st.binary(max_size=6), other=st.binary(min_size=1, max_size=8))
    def test_next_prefix_is_the_smallest_such_key(self, prefix: bytes, other: bytes) -> None:
        prefix = b"\x20" + prefix
        below = prefix <= other < next_prefix(prefix)
        assert below == other.startswith(prefix)


class TestVersions:
    @given(first=versions, second=versions)
    @example(first=1, second=1.0)
    @example(first=1, second="1")
    @example(first=0.0, second=-0.0)
    @example(first=2**53, second=float(2**53))
    @example(first=10**300, second=10**300 + 1)
    @example(first=f"{1:032}.{0:016}", second=f"{1:032}.{1:016}")
    @example(first=f"{1:032}.{1:016}", second=f"{1:032}.{1:017}")
    @example(first=f"{2**64:032}.{1:016}", second=f"{2**64 + 1:032}.{1:016}")
    def test_versions_are_equal_in_bytes_if_equal_in_python(
        self, first: str | float, second: str | float
    ) -> None:
        equal = type(first) is str and type(second) is str and first == second
        if type(first) is not str and type(second) is not str:
            equal = first == second
        assert (pack_version(first) == pack_version(second)) == equal

    @pytest.mark.parametrize("version", [math.inf, -math.inf, math.nan, 5e-324, 1.7e308, -1, True])
    def test_odd_numbers_have_a_key(self, version: float) -> None:
        assert pack_version(version) == pack_version(version)

    def test_form_of_langgraphs_savers_is_short(self) -> None:
        assert len(pack_version(f"{12:032}.{8_123_456_789_012_345:016}")) <= 12

    @pytest.mark.parametrize(
        "version",
        ["\u0663".zfill(32) + "." + "1" * 16, "1" * 32 + ".".ljust(17, " "),
         "+" + "1" * 31 + "." + "1" * 16, "1" * 31 + "_." + "1" * 16, "1" * 32 + "," + "1" * 16],
    )  # fmt: skip
    def test_what_only_looks_like_that_form_is_kept_as_text(self, version: str) -> None:
        assert pack_version(version) == pack_text(version)


class TestLengths:
    """No key can be longer than LMDB takes, however long the names are."""

    LONGEST = ("\x00" * 100_000, "\U0010ffff" * 100_000, "x" * 100_000)

    @pytest.mark.parametrize("text", LONGEST, ids=["NUL", "4 bytes", "ASCII"])
    def test_the_longest_keys_of_each_kind_fit(self, text: str) -> None:
        most = 2**64 - 1
        built = [
            rec.namespace_number_key(most, text),
            rec.checkpoint_key(most, most, text),
            rec.task_key(most, most, text, text),
            rec.latest_key(text, most),
            rec.run_key(text, most, most, text),
        ]
        assert max(map(len, built)) <= LMDB_KEY_BYTES

    @given(raw=st.binary(max_size=10) | st.binary(min_size=190, max_size=420))
    def test_part_is_never_longer_than_its_limit(self, raw: bytes) -> None:
        assert len(pack_bytes(raw)) <= 1 + TEXT_LIMIT_BYTES + 2 + keys.DIGEST_BYTES


class TestIds:
    @given(several=st.lists(st.uuids().map(str), min_size=2, max_size=6))
    def test_uuids_sort_as_their_texts_do(self, several: list[str]) -> None:
        packed = [pack_id(text) for text in sorted(several)]
        assert all(a <= b for a, b in pairwise(packed))

    @given(several=st.lists(short_texts, min_size=2, max_size=6))
    def test_other_ids_sort_as_their_texts_do(self, several: list[str]) -> None:
        assert sorted(several, key=pack_id) == sorted(several)
