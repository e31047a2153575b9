"""The store's extension beside its Python references: packs, filters on bytes, encoding."""

from __future__ import annotations

import datetime
import decimal
import math
import operator
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import cbor2
import numpy as np
import pytest
from hypothesis import example, given, reject
from hypothesis import strategies as st

from lgkv import _items, _plain, layout
from lgkv.errors import CorruptionError, FilterError
from lgkv.filters import compile_encoded, compile_filter
from lgkv.layout import MAX_NESTING, decode_plain, encode_plain
from lgkv.memory import items

NAMES = (
    "pack_entry", "unpack_entry", "entry_place", "find_entry", "without_entries", "scan_pack",
    "read_entry", "pack_of", "utc_time",
)  # fmt: skip


class Twin(NamedTuple):
    """One implementation of each function."""

    pack_entry: Callable[..., bytes]
    unpack_entry: Callable[[bytes, int], tuple[Any, ...]]
    entry_place: Callable[[bytes, int], tuple[int, int]]
    find_entry: Callable[[bytes, int], int]
    without_entries: Callable[[bytes, set[int]], bytes]
    scan_pack: Callable[[bytes, Any, int], list[int]]
    read_entry: Callable[[bytes, int], tuple[Any, ...] | None]
    pack_of: Callable[[bytes, bytes], tuple[bytes, int]]
    utc_time: Callable[[int], datetime.datetime]


PYTHON = Twin(*(getattr(items, f"_{name}") for name in NAMES))
NATIVE = Twin(*(getattr(_items, name) for name in NAMES))
both = pytest.mark.parametrize(
    "twin", [pytest.param(PYTHON, id="python"), pytest.param(NATIVE, id="native")]
)

counts = st.integers(0, 2**64 - 1) | st.integers(0, 9)
entries = st.builds(
    lambda times, key, value: (*times, key, value),
    st.tuples(counts, counts, counts, counts, counts),
    st.binary(max_size=12),
    st.binary(max_size=12),
)
packs = st.lists(entries, max_size=4).map(
    lambda each: b"".join(PYTHON.pack_entry(*one) for one in each)
)
hostile = st.builds(
    lambda pack, at, byte, cut: (pack[:at] + bytes((byte,)) + pack[at + 1 :])[: len(pack) - cut],
    packs,
    st.integers(0, 120),
    st.sampled_from([0, 1, 47, 48, 60, 255]),
    st.integers(0, 3),
)


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what the call gave, or the type and the text of what it raised."""
    try:
        return function(*arguments)
    except Exception as error:  # noqa: BLE001  any other than a ValueError shows in the comparison
        return type(error), str(error)


# --- packs ---------------------------------------------------------------------------------


@given(entry=entries)
def test_entries_have_the_same_bytes_in_both(entry: tuple[Any, ...]) -> None:
    assert NATIVE.pack_entry(*entry) == PYTHON.pack_entry(*entry)


@both
@given(st.lists(entries, max_size=4))
def test_entry_comes_back_from_its_pack(twin: Twin, each: list[tuple[Any, ...]]) -> None:
    pack = b"".join(twin.pack_entry(*one) for one in each)
    starts = twin.scan_pack(pack, None, 0)
    assert [twin.unpack_entry(pack, at) for at in starts] == each
    assert [twin.entry_place(pack, at) for at in starts] == [one[:2] for one in each]


@given(packs | hostile, counts, st.integers(-60, 200))
@example(b"\x30" + b"\x00" * 47, 0, 2**62)
def test_both_read_a_pack_alike(pack: bytes, sequence: int, at: int) -> None:
    for name, arguments in (
        ("unpack_entry", (pack, at)),
        ("entry_place", (pack, at)),
        ("find_entry", (pack, sequence)),
        ("without_entries", (pack, {sequence, 0, 1, 2})),
        ("scan_pack", (pack, None, sequence)),
        ("read_entry", (pack, sequence)),
    ):
        python, native = getattr(PYTHON, name), getattr(NATIVE, name)
        assert outcome(native, *arguments) == outcome(python, *arguments)


@given(st.binary(max_size=6), st.binary(max_size=4).map(lambda more: b"p" * 21 + more))
@example(b"\x01\x07k", b"p" * 24)
def test_both_find_the_pack_of_an_item_alike(suffix: bytes, body: bytes) -> None:
    assert outcome(NATIVE.pack_of, suffix, body) == outcome(PYTHON.pack_of, suffix, body)


@given(st.integers(0, 253_402_300_799_999_999 + 2) | st.integers(0, 2**64 - 1))
@example(0)
@example(951_782_400_000_000)  # the 29th of February 2000
@example(4_107_542_400_000_000)  # the first of March 2100, which has no such day
def test_both_give_the_same_time(microseconds: int) -> None:
    native, python = (outcome(each.utc_time, microseconds) for each in (NATIVE, PYTHON))
    if isinstance(python, datetime.datetime):
        assert native == python
        assert native.tzinfo is python.tzinfo is datetime.timezone.utc
    else:
        assert native[0] is python[0] is OverflowError


def test_entry_with_its_sequence_is_cut_out() -> None:
    pack = b"".join(PYTHON.pack_entry(1, n, 1, 0, 0, b"k%d" % n, b"\xa0") for n in range(4))
    rest = NATIVE.without_entries(pack, {1, 3})
    assert [NATIVE.entry_place(rest, at)[1] for at in NATIVE.scan_pack(rest, None, 0)] == [0, 2]
    assert NATIVE.find_entry(rest, 2) == len(rest) // 2
    assert NATIVE.find_entry(rest, 1) == -1


def test_entry_that_has_ended_is_left_out() -> None:
    pack = b"".join(
        PYTHON.pack_entry(1, n, 1, 5, deadline, b"k", b"\xa0")
        for n, deadline in enumerate([0, 10, 11])
    )
    for now, kept in ((0, [0, 1, 2]), (9, [0, 1, 2]), (10, [0, 2]), (11, [0])):
        starts = NATIVE.scan_pack(pack, None, now)
        assert [NATIVE.entry_place(pack, at)[1] for at in starts] == kept
        assert PYTHON.scan_pack(pack, None, now) == starts


@pytest.mark.parametrize("twin", [PYTHON, NATIVE])
def test_number_that_does_not_fit_is_refused(twin: Twin) -> None:
    for number in (-1, 2**64):
        with pytest.raises((OverflowError, items.struct.error)):
            twin.pack_entry(number, 0, 0, 0, 0, b"", b"")


# --- encoding ------------------------------------------------------------------------------

texts = st.text(max_size=4)
integers = st.integers(-3, 3) | st.sampled_from([
    sign * 2**power + near for power in (5, 8, 16, 31, 32, 53, 63, 64, 70) for near in (-1, 0, 1)
    for sign in (-1, 1)
])  # fmt: skip
numbers = integers | st.floats() | st.sampled_from([0.0, -0.0, 0.5, 2.0**53, 2.0**63, math.nan])
scalars = st.none() | st.booleans() | numbers | texts | st.binary(max_size=3)
others = st.one_of(
    st.decimals(),
    st.datetimes(timezones=st.just(datetime.timezone.utc)),
    st.datetimes(),
    st.dates(),
    st.uuids(),
    st.sets(st.integers(0, 3), max_size=2),
    st.sampled_from([np.arange(3), np.array([1]), np.array([[1.5]]), np.int64(3), np.bool_(1)]),
)
values = st.recursive(
    scalars | others,
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=8,
)
mappings = st.dictionaries(st.sampled_from(["a", "b", "", "é", "x" * 30]), values, max_size=4)


@given(mappings)
@example({"a": list(range(30)), "b": b"x" * 300, "c": "é" * 70_000, "d": {"e": ()}})
@example({"t": "\ud800"})
@example({"n": math.inf})
def test_fast_encoder_gives_the_bytes_of_the_other(value: dict[str, Any]) -> None:
    encoded = _plain.encode_mapping(value)
    if encoded is not None:
        assert encoded == encode_plain(value)
        assert encoded == cbor2.dumps(value)


def test_fast_encoder_leaves_what_it_does_not_know() -> None:
    class Text(str):
        __slots__ = ()

    class Mapping(dict[str, Any]):
        pass

    deep: Any = {}
    for _ in range(MAX_NESTING):
        deep = {"a": deep}
    for value in (
        [], None, Mapping(), {1: 2}, {"a": {1: 2}}, {"a": 2**64}, {"a": math.nan}, {"a": Text("x")},
        {Text("a"): 1}, {"a": "\udc00"}, {"\udc00": 1}, {"a": decimal.Decimal(1)}, {"a": set()},
        deep,
    ):  # fmt: skip
        assert _plain.encode_mapping(value) is None
    assert _plain.encode_mapping(deep["a"]) == encode_plain(deep["a"])


@given(mappings)
@example({"a": list(range(30)), "b": b"x" * 300, "c": "é" * 70_000, "d": {"e": ()}})
@example({"n": [math.inf, 2**70]})
def test_fast_decoder_gives_the_value_of_the_other(value: dict[str, Any]) -> None:
    encoded = encode_plain(value)
    decoded = _plain.decode_mapping(encoded)
    if decoded is not None:
        assert encode_plain(decoded) == encoded  # floats by their bits, types and order
    assert decoded is not None or _plain.encode_mapping(decode_plain(encoded)) is None


@given(mappings, st.integers(0, 60), st.integers(0, 255), st.integers(0, 3))
@example({"a": "é"}, 4, 0xFF, 0)
def test_fast_decoder_says_nothing_of_other_bytes(
    value: dict[str, Any], at: int, byte: int, cut: int
) -> None:
    raw = encode_plain(value)
    raw = (raw[:at] + bytes((byte,)) + raw[at + 1 :])[: len(raw) - cut]
    decoded = _plain.decode_mapping(raw)
    if decoded is not None:
        assert encode_plain(decoded) == encode_plain(decode_plain(raw))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x9b" + b"\xff" * 8,
        b"\x81" * 100_000,
        b"\xa1\x61a" * 100_000,
        b"\xbf\xff",
        b"\xa0\x00",
        b"\xa1\x01\x01",
        b"\xa1\x80\x01",
        b"\xa1\x61\xff\x01",
        b"\x01",
    ],
)
def test_fast_decoder_leaves_hostile_bytes(raw: bytes) -> None:
    assert _plain.decode_mapping(raw) is None


# --- filters on bytes ----------------------------------------------------------------------

operands = values
orderable = st.one_of(numbers, texts, st.binary(max_size=3), st.decimals(), st.dates()) | (
    st.datetimes(timezones=st.just(datetime.timezone.utc)) | st.datetimes()
)
conditions = st.recursive(
    operands.filter(lambda value: not isinstance(value, (dict, np.ndarray)))
    | st.sampled_from(["$eq", "$ne"]).flatmap(lambda name: st.fixed_dictionaries({name: operands}))
    | st.sampled_from(["$gt", "$gte", "$lt", "$lte"]).flatmap(
        lambda name: st.fixed_dictionaries({name: orderable})
    )
    | st.sampled_from(["$in", "$nin"]).flatmap(
        lambda name: st.fixed_dictionaries({name: st.lists(operands, max_size=3)})
    )
    | st.booleans().map(lambda wanted: {"$exists": wanted}),
    lambda inner: (
        st.fixed_dictionaries({"$not": inner})
        | st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=2)})
        | st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=2)})
        | st.dictionaries(st.sampled_from(["a", "b", "é"]), inner, max_size=2)
        | st.lists(inner, max_size=2)
    ),
    max_leaves=4,
)
filters = st.dictionaries(st.sampled_from(["a", "b", "", "é"]), conditions, min_size=1, max_size=2)


def agree(value: dict[str, Any], filter: dict[str, Any]) -> bool:
    encoded = encode_plain(value)
    test = compile_encoded(filter)
    assert test is not None
    expected = compile_filter(filter)(decode_plain(encoded))
    assert test.holds(encoded) is expected
    return expected


@given(mappings, filters)
@example({"a": 2**63}, {"a": {"$gt": 2.0**63}})
@example({"a": 2**53 + 1}, {"a": 2.0**53})
@example({"a": 2.0**53}, {"a": 2**53 + 1})
@example({"a": -(2**63) - 1}, {"a": {"$lt": -(2**63)}})
@example({"a": np.array([5])}, {"a": 5})
@example({"a": 1}, {"a": True})
@example({"a": decimal.Decimal("sNaN")}, {"a": 1})
@example({"a": 1}, {"a": decimal.Decimal("sNaN")})
@example({"a": []}, {"a": []})
def test_test_of_bytes_answers_as_the_predicate(
    value: dict[str, Any], filter: dict[str, Any]
) -> None:
    try:
        agree(value, filter)
    except FilterError:  # an operand's names may happen to look like operators
        reject()


SAME = [
    None, True, False, 0, 1, -1, 255, 256, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63),
    -(2**64), 2**70, 0.0, -0.0, 1.0, 0.1, 2.0**53, 2.0**63, -(2.0**63), 1e300, math.inf,
    -math.inf, math.nan,
    "", "a", "ab", "é", "\uffff", "\U0001f600", b"", b"a", b"\xff", [], [1], {}, {"a": 1},
    decimal.Decimal("0.1"), decimal.Decimal(1), decimal.Decimal("NaN"), uuid.UUID(int=1),
    datetime.date(2024, 1, 1), datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc),
]  # fmt: skip


@pytest.mark.parametrize("name", ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in"])
def test_every_pair_of_kinds_compares_as_the_predicate_has_it(name: str) -> None:
    held = 0
    for operand in SAME:
        ordered = isinstance(operand, (int, float, str, bytes, decimal.Decimal, datetime.date))
        if name not in {"$eq", "$ne", "$in"} and not ordered:
            continue
        for value in SAME:
            filter = {"v": {name: [operand] if name == "$in" else operand}}
            held += agree({"v": value}, filter)
            held += agree({}, filter)
    assert held > 20


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xa1",
        b"\xa1\x61",
        b"\xa1\x61a",
        b"\xa1\x61a\x62",
        b"\xbf\xff",
        b"\xa1\x61a\x1f",
        b"\xa1\x61a\x9b" + b"\xff" * 8,
        b"\x81\x01",
    ],
)
def test_bytes_that_are_no_map_are_damage(raw: bytes) -> None:
    test = compile_encoded({"a": {"$gt": "x"}, "b": 1})
    assert test is not None
    with pytest.raises(ValueError, match="damaged CBOR"):
        test.holds(raw)


def test_hostile_depth_is_damage_and_no_crash() -> None:
    test = compile_encoded({"b": 1})
    assert test is not None
    with pytest.raises(ValueError, match="damaged CBOR"):
        test.holds(b"\xa1\x61a" + b"\x81" * 1_000_000 + b"\x00")


@given(mappings, st.lists(st.sampled_from(["a", "b", "é"]), min_size=1, max_size=3))
def test_value_is_found_by_its_path(value: dict[str, Any], path: list[str]) -> None:
    encoded = encode_plain(value)
    expected: Any = decode_plain(encoded)
    for name in path:
        expected = expected.get(name, operator) if isinstance(expected, dict) else operator
    found = _items.find_value(encoded, tuple(name.encode() for name in path))
    assert (found is None) == (expected is operator)
    if found is not None:
        assert encode_plain(decode_plain(found)) == encode_plain(expected)


def test_half_floats_are_read_as_the_decoder_reads_them() -> None:
    for raw in range(0, 1 << 16, 7):
        encoded = b"\xa1\x61v\xf9" + raw.to_bytes(2, "big")
        value = cbor2.loads(encoded)["v"]
        is_number = not math.isnan(value)
        equal = compile_encoded({"v": float(value)})
        assert equal is not None
        assert equal.holds(encoded) is is_number
        single = b"\xa1\x61v\xfa" + np.array(value, ">f4").tobytes()
        assert equal.holds(single) is is_number


# --- reading an item ---


class Records(dict[bytes, bytes]):
    """Records by key, read as a snapshot reads them."""

    def get(self, table: Any, key: Any = None) -> Any:  # type: ignore[override]
        record = super().get(key)
        return None if record is None else layout.open_record(table, key, record)

    def mapped(self, key: bytes, default: None, _database: None) -> memoryview | None:
        """Return what LMDB's `get` does."""
        return memoryview(self[key]) if key in self else default


def stored(
    entry: tuple[Any, ...], beside: list[tuple[Any, ...]], *, compress: bool = False
) -> tuple[Records, bytes]:
    """Return the records of an item, with others in its pack, and its suffix."""
    suffix = items.item_suffix(7, "key")
    place = items.place_bytes((1, 2))
    pack_key, item_key = items.packs_of(7) + place, items.item_key(suffix)
    pack = b"".join(PYTHON.pack_entry(*one) for one in [*beside, entry])
    where = place + entry[1].to_bytes(8, "big")
    records = Records()
    for key, body in ((item_key, where), (pack_key, pack)):
        records[key] = layout.seal_record(layout.MEMORY, key, body, compress=compress)
    return records, suffix


def reference(records: Any, suffix: bytes) -> Any:
    """Return what a caller sees of an item, () without one, or the error."""
    try:
        found = items.read_item(records, suffix)
        if found is None:
            return ()
        key, record = found
        times = [
            PYTHON.utc_time(us) if us or at < 2 else None
            for at, us in enumerate((record.created_us, record.updated_us, record.deadline_us))
        ]
        text, value = record.key_text(key), record.value(key)
    except (CorruptionError, OverflowError) as error:
        return type(error)
    return text, value, *times, record.deadline_us, record.ttl_us


def fetched(records: Records, suffix: bytes) -> Any:
    return _items.fetch_item(records.mapped, None, items.decode_mapping, layout.MEMORY, suffix)


moments = st.integers(0, 253_402_300_799_999_999) | st.integers(0, 9)
stored_items = st.tuples(
    moments,
    st.integers(100, 2**64 - 1),
    moments,
    counts,
    moments,
    st.binary(max_size=12) | st.text(max_size=5).map(lambda text: text.encode()),
    st.dictionaries(st.text(max_size=3), st.integers() | st.decimals(allow_nan=False), max_size=3)
    .map(encode_plain),
)  # fmt: skip
empty = st.just(b"")
others = st.lists(
    st.tuples(counts, st.integers(0, 99), counts, counts, counts, st.binary(max_size=9), empty),
    max_size=3,
)


@given(entry=stored_items, beside=others)
def test_item_is_fetched_as_the_reference_reads_it(
    entry: tuple[Any, ...], beside: list[tuple[Any, ...]]
) -> None:
    records, suffix = stored(entry, beside)
    found, expected = fetched(records, suffix), reference(records, suffix)
    if found is None:  # it is left to the reference, and only what is unusual is
        assert expected is CorruptionError or _plain.decode_mapping(entry[-1]) is None
    else:
        assert found == expected
        assert [type(one) for one in found] == [type(one) for one in expected]


@given(
    entry=stored_items,
    which=st.integers(0, 1),
    at=st.integers(0, 300),
    byte=st.integers(1, 255),
    cut=st.integers(0, 60),
)
def test_damaged_item_is_left_to_the_reference(
    entry: tuple[Any, ...], which: int, at: int, byte: int, cut: int
) -> None:
    records, suffix = stored(entry, [])
    key = list(records)[which]
    record = bytearray(records[key])
    record[at % len(record)] ^= byte
    for damaged in (bytes(record), records[key][: max(0, len(record) - cut - 1)]):
        records[key] = damaged
        assert fetched(records, suffix) is None
        assert reference(records, suffix) is CorruptionError


@given(pack=hostile, sequence=st.integers(0, 9))
def test_hostile_pack_with_its_checksum_is_read_as_the_reference_does(
    pack: bytes, sequence: int
) -> None:
    records, suffix = stored((1, sequence, 1, 0, 0, b"key", encode_plain({})), [])
    key = list(records)[1]
    records[key] = layout.seal_record(layout.MEMORY, key, pack)
    found = fetched(records, suffix)
    assert found is None or found == reference(records, suffix)


def test_item_that_is_not_there_is_told_from_one_that_is_unusual() -> None:
    entry = 1, 100, 1, 0, 0, b"key", encode_plain({"text": "likes tea " * 200})
    records, suffix = stored(entry, [])
    assert fetched(Records(), suffix) == ()
    assert fetched(records, suffix)[1] == {"text": "likes tea " * 200}
    compressed, _ = stored(entry, [], compress=True)
    assert len(compressed[list(records)[1]]) < 1000
    assert fetched(compressed, suffix) is None
    assert reference(compressed, suffix) == fetched(records, suffix)
    del records[list(records)[1]]  # the pack
    assert fetched(records, suffix) is None
    assert reference(records, suffix) is CorruptionError
    assert fetched(records, b"") is None
