"""The Cython twins of the key codec and of the record envelope, beside their Python references."""

from __future__ import annotations

import operator
import uuid
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lgkv import _native, keys, layout
from lgkv.keys import DIGEST_BYTES, END_CUT, TEXT_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable


class Twin(NamedTuple):
    """One implementation of each function."""

    pack_uint: Callable[[Any], bytes]
    pack_key: Callable[..., bytes]
    unpack_uint: Callable[[Any, int], tuple[int, int]]
    pack_bytes: Callable[[Any], bytes]
    unpack_bytes: Callable[[Any, int], tuple[bytes, bool, int]]
    pack_text: Callable[[Any], bytes]
    pack_numbered: Callable[[Any, Any], bytes]
    pack_id: Callable[[Any], bytes]
    unpack_id: Callable[[Any, int], tuple[bytes, bool, int]]
    seal: Callable[[int, Any, int, Any], bytes]
    unseal: Callable[[int, Any, Any], tuple[int, bytes]]


KEY_NAMES = (
    "pack_uint",
    "pack_key",
    "unpack_uint",
    "pack_bytes",
    "unpack_bytes",
    "pack_text",
    "pack_numbered",
    "pack_id",
    "unpack_id",
)
RECORD_NAMES = ("seal", "unseal")

PYTHON = Twin(
    *(getattr(keys, f"_{name}") for name in KEY_NAMES),
    *(getattr(layout, f"_{name}") for name in RECORD_NAMES),
)
NATIVE = Twin(*(getattr(_native, name) for name in KEY_NAMES + RECORD_NAMES))

both = pytest.mark.parametrize(
    "twin", [pytest.param(PYTHON, id="python"), pytest.param(NATIVE, id="native")]
)

MAX_UINT = 2**64 - 1
GOLDEN_RECORD = "02 62 6f 64 79 5c 1b 2c a7 bf c0 89 69"
UUID = "1f0c2f1e-7b6a-6d2e-8001-0123456789ab"
UUID_PART = b"\x01" + bytes.fromhex(UUID.replace("-", ""))

uints = st.integers(0, MAX_UINT) | st.integers(0, 300)
# Dense in what is escaped, and around the length at which a part is cut.
awkward = st.lists(st.sampled_from([0, 1, 2, 0x61, 0xFE, 0xFF]), max_size=230).map(bytes)
long = st.builds(
    lambda fill, size, tail: fill * size + tail,
    st.sampled_from([b"a", b"\x00", b"\xff", b"\x00\xff", b"a\x00"]),
    st.integers(95, 201),
    st.binary(max_size=4),
)
raws = st.binary(max_size=40) | awkward | long
uuids = st.uuids(allow_nil=True).map(str)
ids = st.text(max_size=60) | uuids | st.text("0123456789abcdefABCDEF-", min_size=36, max_size=36)
parts = st.one_of(uints.map(PYTHON.pack_uint), raws.map(PYTHON.pack_bytes), ids.map(PYTHON.pack_id))
hostile = st.builds(operator.add, parts, parts) | awkward | st.binary(max_size=60)


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what the call gave, or the type and the text of what it raised."""
    try:
        return function(*arguments)
    except Exception as error:  # noqa: BLE001  any other than a ValueError shows in the comparison
        return type(error), str(error)


def without_digest(part: bytes) -> bytes:
    """Return a part of bytes up to the mark at its end."""
    cut = len(part) - DIGEST_BYTES
    return part[:cut] if len(part) > TEXT_LIMIT_BYTES and part[cut - 2 : cut] == END_CUT else part


class TestEngine:
    @pytest.mark.parametrize("name", KEY_NAMES)
    def test_engine_packs_keys_with_the_extension(self, name: str) -> None:
        assert getattr(keys, name) is getattr(_native, name)

    @pytest.mark.parametrize("name", RECORD_NAMES)
    def test_engine_seals_records_with_the_extension(self, name: str) -> None:
        assert getattr(layout, name) is getattr(_native, name)


@both
class TestNumbers:
    @pytest.mark.parametrize(
        ("number", "part"),
        [
            (0, "00"),
            (1, "01 01"),
            (255, "01 ff"),
            (256, "02 01 00"),
            (0x010203, "03 01 02 03"),
            (MAX_UINT, "08 ff ff ff ff ff ff ff ff"),
        ],
    )
    def test_number_is_its_length_and_no_byte_more(
        self, twin: Twin, number: int, part: str
    ) -> None:
        assert twin.pack_uint(number) == bytes.fromhex(part)

    @given(first=uints, second=uints)
    def test_numbers_sort_as_their_parts_do(self, twin: Twin, first: int, second: int) -> None:
        packed = twin.pack_uint(first), twin.pack_uint(second)
        assert (first < second, first == second) == (packed[0] < packed[1], packed[0] == packed[1])

    @given(number=uints, before=st.binary(max_size=9), after=st.binary(max_size=9))
    def test_number_is_read_back_between_others(
        self, twin: Twin, number: int, before: bytes, after: bytes
    ) -> None:
        head = before + twin.pack_uint(number)
        assert twin.unpack_uint(head + after, len(before)) == (number, len(head))

    @pytest.mark.parametrize("number", [-1, 2**64, -(2**80), 2**80])
    def test_number_beyond_64_bits_is_refused(self, twin: Twin, number: int) -> None:
        with pytest.raises(ValueError, match="not an unsigned 64-bit number"):
            twin.pack_uint(number)

    @pytest.mark.parametrize("key", [b"\x01\x00", b"\x02\x00\x01", b"\x08" + b"\x00" * 8])
    def test_number_with_a_leading_zero_is_refused(self, twin: Twin, key: bytes) -> None:
        with pytest.raises(ValueError, match="damaged number in a key"):
            twin.unpack_uint(key, 0)

    @pytest.mark.parametrize("key", [b"", b"\x01", b"\x08abcdefg", b"\x09abcdefghi", b"\xff"])
    def test_damaged_number_is_refused(self, twin: Twin, key: bytes) -> None:
        with pytest.raises(ValueError, match="damaged number in a key"):
            twin.unpack_uint(key, 0)

    @pytest.mark.parametrize("number", [None, "1", b"1", 1.5])
    def test_what_is_no_number_is_refused(self, twin: Twin, number: object) -> None:
        with pytest.raises((TypeError, AttributeError)):
            twin.pack_uint(number)


@both
class TestBytes:
    @pytest.mark.parametrize(
        ("raw", "part"),
        [
            (b"", b"\x02\x00\x01"),
            (b"messages", b"\x02messages\x00\x01"),
            (b"\x00", b"\x02\x00\xff\x00\x01"),
            (b"a\x00\xffb\x00", b"\x02a\x00\xff\xffb\x00\xff\x00\x01"),
            (b"x" * 200, b"\x02" + b"x" * 200 + b"\x00\x01"),
        ],
    )
    def test_nul_is_escaped_and_the_end_marked(self, twin: Twin, raw: bytes, part: bytes) -> None:
        assert twin.pack_bytes(raw) == part

    @pytest.mark.parametrize(
        ("raw", "left"),
        [
            (b"x" * 201, b"x" * 200),
            (b"\x00" * 101, b"\x00\xff" * 100),
            (b"x" * 199 + b"\x00", b"x" * 199),
            (b"x" * 198 + b"\x00\x00", b"x" * 198 + b"\x00\xff"),
        ],
    )
    def test_long_part_is_cut_between_characters_of_the_escaped_form(
        self, twin: Twin, raw: bytes, left: bytes
    ) -> None:
        part = twin.pack_bytes(raw)
        assert part[:-DIGEST_BYTES] == b"\x02" + left + END_CUT
        assert twin.unpack_bytes(part, 0) == (left.replace(b"\x00\xff", b"\x00"), False, len(part))

    @given(raws=st.lists(raws, min_size=2, max_size=6))
    @example(raws=[b"a", b"a\x00", b"a\x01", b"aa"])
    @example(raws=[b"x" * 199, b"x" * 199 + b"\x00", b"x" * 200, b"x" * 201])
    def test_bytes_sort_as_their_parts_do(self, twin: Twin, raws: list[bytes]) -> None:
        ordered = [twin.pack_bytes(raw) for raw in sorted(raws)]
        assert all(without_digest(a) <= without_digest(b) for a, b in pairwise(ordered))
        whole = [raw for raw in raws if twin.unpack_bytes(twin.pack_bytes(raw), 0)[1]]
        assert sorted(map(twin.pack_bytes, whole)) == list(map(twin.pack_bytes, sorted(whole)))

    @given(first=raws, second=raws)
    @example(first=b"x" * 1000, second=b"x" * 1001)
    def test_parts_are_equal_for_equal_bytes_only(
        self, twin: Twin, first: bytes, second: bytes
    ) -> None:
        assert (twin.pack_bytes(first) == twin.pack_bytes(second)) == (first == second)

    @given(raw=raws, before=st.binary(max_size=9), after=awkward)
    def test_bytes_are_read_back_between_others(
        self, twin: Twin, raw: bytes, before: bytes, after: bytes
    ) -> None:
        head = before + twin.pack_bytes(raw)
        left, whole, end = twin.unpack_bytes(head + after, len(before))
        assert end == len(head)
        assert left == raw if whole else raw.startswith(left)
        assert whole == (len(raw) + raw.count(0) <= TEXT_LIMIT_BYTES)

    def test_part_is_bounded_however_long_the_bytes_are(self, twin: Twin) -> None:
        for raw in (b"x" * 100_000, b"\x00" * 100_000):
            assert len(twin.pack_bytes(raw)) <= 1 + TEXT_LIMIT_BYTES + 2 + DIGEST_BYTES

    @pytest.mark.parametrize(
        "key",
        [b"", b"\x02", b"\x01a\x00\x01", b"\x02a", b"\x02a\x00", b"\x02a\x00\xff", b"\x02\x00\x00",
         b"\x02a\x00\x03", b"\x02a\x00\x02" + b"d" * 15],
    )  # fmt: skip
    def test_damaged_bytes_are_refused(self, twin: Twin, key: bytes) -> None:
        with pytest.raises(ValueError, match="damaged text in a key"):
            twin.unpack_bytes(key, 0)


@both
class TestIds:
    def test_canonical_uuid_takes_17_bytes(self, twin: Twin) -> None:
        assert twin.pack_id(UUID) == UUID_PART

    @given(number=st.uuids())
    def test_uuid_is_read_back(self, twin: Twin, number: uuid.UUID) -> None:
        part = twin.pack_id(str(number))
        assert part == b"\x01" + number.bytes
        assert twin.unpack_id(part, 0) == (str(number).encode(), True, 17)

    @given(first=uuids, second=uuids)
    def test_uuids_sort_as_their_parts_do(self, twin: Twin, first: str, second: str) -> None:
        assert (first < second) == (twin.pack_id(first) < twin.pack_id(second))

    @pytest.mark.parametrize(
        "text",
        ["", "1", UUID.upper(), UUID[:-1], UUID + "0", UUID.replace("-", ""), f"{{{UUID[1:-1]}}}",
         UUID.replace("-", "0"), "-" * 36, UUID[:-1] + "g", UUID[:-1] + "é", UUID[:-1] + "\u0661",
         "1-0c2f1e07b6a-6d2e-8001-0123456789ab", "thread\x00id", "\ud800", "x" * 300],
    )  # fmt: skip
    def test_any_other_id_is_kept_as_text(self, twin: Twin, text: str) -> None:
        raw = text.encode("utf-8", "surrogatepass")
        assert twin.pack_id(text) == twin.pack_bytes(raw)
        assert twin.unpack_id(twin.pack_id(text), 0)[0] == raw[:TEXT_LIMIT_BYTES]

    @given(first=ids, second=ids)
    def test_parts_are_equal_for_equal_ids_only(self, twin: Twin, first: str, second: str) -> None:
        assert (twin.pack_id(first) == twin.pack_id(second)) == (first == second)

    @pytest.mark.parametrize("size", range(1, 17))
    def test_truncated_uuid_is_refused(self, twin: Twin, size: int) -> None:
        with pytest.raises(ValueError, match="damaged id in a key"):
            twin.unpack_id(UUID_PART[:size], 0)


@both
class TestEnvelope:
    def test_envelope_is_flags_body_and_checksum(self, twin: Twin) -> None:
        assert twin.seal(1, b"key", 2, b"body").hex(" ") == GOLDEN_RECORD
        assert twin.unseal(1, b"key", bytes.fromhex(GOLDEN_RECORD)) == (2, b"body")

    @given(
        table=st.integers(0, 255),
        key=st.binary(max_size=300),
        flags=st.integers(0, 255),
        body=st.binary(max_size=600),
    )
    def test_body_and_flags_are_read_back(
        self, twin: Twin, table: int, key: bytes, flags: int, body: bytes
    ) -> None:
        record = twin.seal(table, key, flags, body)
        assert len(record) == len(body) + layout.ENVELOPE_BYTES
        assert twin.unseal(table, key, record) == (flags, body)
        mapped = memoryview(b"." + record + b".")[1:-1]
        flags_read, body_read = twin.unseal(table, memoryview(key), mapped)
        assert (flags_read, body_read) == (flags, body)
        assert type(body_read) is bytes

    @pytest.mark.parametrize("size", [0, 1, 16, 17, 128, 129, 240, 241, 1024, 1025, 100_000])
    def test_every_flipped_bit_is_noticed(self, twin: Twin, size: int) -> None:
        record = twin.seal(1, b"key", 0, b"q" * size)
        for at in {0, 1, size // 2, size, size + 1, size + 8}:
            damaged = bytearray(record)
            damaged[at] ^= 0x10
            with pytest.raises(ValueError, match="the checksum does not match"):
                twin.unseal(1, b"key", bytes(damaged))

    def test_record_under_another_key_or_table_is_noticed(self, twin: Twin) -> None:
        record = twin.seal(1, b"key", 0, b"body")
        for table, key in [(2, b"key"), (1, b"kez"), (1, b""), (257, b"key")]:
            with pytest.raises(ValueError, match="the checksum does not match"):
                twin.unseal(table, key, record)

    @pytest.mark.parametrize("size", range(9))
    def test_record_shorter_than_its_envelope_is_refused(self, twin: Twin, size: int) -> None:
        with pytest.raises(ValueError, match="shorter than its envelope"):
            twin.unseal(1, b"key", bytes(size))

    def test_record_does_not_follow_the_mapped_memory_it_came_from(self, twin: Twin) -> None:
        page = bytearray(twin.seal(1, b"key", 0, b"body"))
        _, body = twin.unseal(1, b"key", memoryview(page))
        page[:] = bytes(len(page))
        assert body == b"body"


class TestTwins:
    @given(number=st.integers(-(2**70), 2**70))
    def test_numbers_have_identical_bytes(self, number: int) -> None:
        assert outcome(NATIVE.pack_uint, number) == outcome(PYTHON.pack_uint, number)

    @given(
        thread=st.integers(-1, 2**65), kind=st.integers(0, 255), numbers=st.lists(uints, max_size=4)
    )
    def test_keys_have_identical_bytes(self, thread: int, kind: int, numbers: list[int]) -> None:
        arguments = thread, kind, *numbers
        assert outcome(NATIVE.pack_key, *arguments) == outcome(PYTHON.pack_key, *arguments)

    @given(raw=raws)
    def test_bytes_have_identical_bytes(self, raw: bytes) -> None:
        assert NATIVE.pack_bytes(raw) == PYTHON.pack_bytes(raw)

    @given(text=ids)
    def test_ids_have_identical_bytes(self, text: str) -> None:
        assert NATIVE.pack_id(text) == PYTHON.pack_id(text)
        assert NATIVE.pack_text(text) == PYTHON.pack_text(text)

    @pytest.mark.parametrize("name", ["pack_text", "pack_id", "pack_numbered"])
    @given(text=ids | st.text("ab\0é\ud800", max_size=300))
    def test_text_of_a_subclass_has_the_bytes_of_its_text(self, name: str, text: str) -> None:
        before = (7,) if name == "pack_numbered" else ()
        of = type("Text", (str,), {})
        packed = getattr(NATIVE, name)(*before, of(text))
        assert packed == getattr(PYTHON, name)(*before, of(text))
        assert packed == getattr(NATIVE, name)(*before, text)

    @pytest.mark.parametrize("text", [None, b"a", 1, ["a"]])
    def test_what_is_no_text_is_refused(self, text: object) -> None:
        for pack in (NATIVE.pack_text, NATIVE.pack_id):
            with pytest.raises(TypeError, match="not a str"):
                pack(text)
        with pytest.raises(TypeError, match="not a str"):
            NATIVE.pack_numbered(1, text)

    @given(number=st.integers(-1, 2**64) | uints, text=ids | st.text("ab\0é\ud800", max_size=300))
    def test_numbered_texts_have_identical_bytes(self, number: int, text: str) -> None:
        native, python = NATIVE.pack_numbered, PYTHON.pack_numbered
        assert outcome(native, number, text) == outcome(python, number, text)

    @given(
        table=st.integers(0, 2**32 - 1),
        key=st.binary(max_size=300),
        flags=st.integers(0, 255),
        body=st.binary(max_size=600),
    )
    def test_records_have_identical_bytes(
        self, table: int, key: bytes, flags: int, body: bytes
    ) -> None:
        record = PYTHON.seal(table, key, flags, body)
        assert NATIVE.seal(table, key, flags, body) == record
        assert NATIVE.unseal(table, key, record) == PYTHON.unseal(table, key, record)

    @given(key=hostile, start=st.integers(0, 70))
    def test_hostile_keys_have_identical_outcomes(self, key: bytes, start: int) -> None:
        for name in ("unpack_uint", "unpack_bytes", "unpack_id"):
            found = outcome(getattr(NATIVE, name), key, start)
            assert found == outcome(getattr(PYTHON, name), key, start)
            assert not isinstance(found[0], type) or found[0] is ValueError

    @given(part=parts)
    def test_truncated_keys_have_identical_outcomes(self, part: bytes) -> None:
        for size in range(len(part)):
            for name in ("unpack_uint", "unpack_bytes", "unpack_id"):
                found = outcome(getattr(NATIVE, name), part[:size], 0)
                assert found == outcome(getattr(PYTHON, name), part[:size], 0)

    @given(key=st.binary(max_size=9), record=st.binary(max_size=40))
    def test_hostile_records_have_identical_outcomes(self, key: bytes, record: bytes) -> None:
        found = outcome(NATIVE.unseal, 1, key, record)
        assert found == outcome(PYTHON.unseal, 1, key, record)


class TestMisuse:
    """What a type checker would refuse never gets as far as the memory."""

    @pytest.mark.parametrize("start", [-1, -(2**62)])
    @pytest.mark.parametrize("name", ["unpack_uint", "unpack_bytes", "unpack_id"])
    def test_start_before_the_key_is_refused(self, name: str, start: int) -> None:
        with pytest.raises(ValueError, match="damaged"):
            getattr(NATIVE, name)(UUID_PART + b"\x02a\x00\x01", start)

    @pytest.mark.parametrize("wrong", [None, 1, "text", bytearray(b"a"), [b"a"]])
    @pytest.mark.parametrize("name", ["unpack_uint", "unpack_bytes", "unpack_id"])
    def test_key_that_is_not_bytes_is_refused(self, name: str, wrong: object) -> None:
        with pytest.raises(TypeError):
            getattr(NATIVE, name)(wrong, 0)

    @pytest.mark.parametrize("wrong", [None, 1, "text", [b"a"]])
    def test_raw_or_body_that_is_not_bytes_is_refused(self, wrong: object) -> None:
        with pytest.raises(TypeError):
            NATIVE.pack_bytes(wrong)
        with pytest.raises(TypeError):
            NATIVE.seal(1, b"key", 0, wrong)
        with pytest.raises(TypeError):
            NATIVE.unseal(1, b"key", wrong)

    @pytest.mark.parametrize("wrong", [None, 1, b"text"])
    def test_id_that_is_not_text_is_refused(self, wrong: object) -> None:
        with pytest.raises(TypeError):
            NATIVE.pack_id(wrong)

    def test_record_that_is_not_contiguous_is_refused(self) -> None:
        record = NATIVE.seal(1, b"key", 0, b"body")
        with pytest.raises((BufferError, ValueError)):
            NATIVE.unseal(1, b"key", memoryview(record + record)[::2])

    @pytest.mark.parametrize("flags", [-1, 256])
    def test_flags_beyond_a_byte_are_refused(self, flags: int) -> None:
        with pytest.raises((OverflowError, ValueError)):
            NATIVE.seal(1, b"key", flags, b"body")
