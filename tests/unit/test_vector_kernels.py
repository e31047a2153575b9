"""What the extension does with slabs: finding rows, measuring them, the best, and codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lgkv import _vectors
from lgkv.vectors.settings import METRICS
from tests.unit.vector_corpus import definition

INT = np.int64
DOT, L2 = False, True


@pytest.fixture(params=["avx512", "avx2", "plain"])
def kernel(request: pytest.FixtureRequest) -> Any:
    if _vectors.kernel_name(request.param) != request.param:
        _vectors.kernel_name("")
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    _vectors.kernel_name("")


def columns(*each: list[int]) -> list[Any]:
    return [np.array(column, INT) for column in each]


class Stored:
    """Slabs in records, as a search has them; `held` are mapped."""

    def __init__(self, several: list[Any], *, held: bool = False, dead: Any = ()) -> None:
        self.records: list[bytes] = []
        self.slabs: list[_vectors.SlabRows] = []
        self.asked: list[int] = []
        first = 1
        for number, rows in enumerate(several):
            count = len(rows)
            names = [b"%d/%d" % (number, row) for row in range(count)]
            ends = np.cumsum([len(name) for name in names]).astype("<u4")
            head = b"\x00" + ends.tobytes() + b"".join(names)
            self.records.append(head + rows.tobytes())
            lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
            with np.errstate(divide="ignore"):
                scales = np.where(lengths > 0, 1 / lengths, 0).astype(np.float32)
            alive = np.array([(number, row) not in dead for row in range(count)], np.uint8)
            labels = np.arange(count, dtype=np.uint32)
            slab = _vectors.SlabRows(
                first, labels, np.arange(count, dtype=INT), labels, scales, alive if dead else None,
                len(head), 1 + 4 * count,
            )  # fmt: skip
            if held:
                slab.hold(1, self.records[-1])
            self.slabs.append(slab)
            first += count

    def record(self, number: int) -> memoryview:
        self.asked.append(number)
        return memoryview(self.records[number])


def made_up(*shapes: tuple[int, int], kind: Any = np.float32, seed: int = 3) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(kind) for shape in shapes]


# --- finding rows ---


def slab_of(first: int, labels: list[int], order: list[int], alive: Any = None) -> Any:
    count = len(labels)
    return _vectors.SlabRows(
        first, np.array(labels, np.uint32), np.array(order, INT), np.zeros(count, np.uint32),
        np.ones(count, np.float32), None if alive is None else np.array(alive, np.uint8), 0, 0,
    )  # fmt: skip


def test_labels_are_located_among_slabs() -> None:
    slabs = [slab_of(10, [0, 3], [1, 0]), slab_of(20, [0, 1], [0, 1], [1, 0])]
    numbers, rows = np.empty(6, INT), np.empty(6, INT)
    firsts, labels = np.array([10, 20], np.uint64), np.array([9, 10, 13, 20, 21, 99], np.uint64)
    _vectors.locate(slabs, firsts, labels, numbers, rows)
    assert numbers.tolist() == [-1, 0, 0, 1, -1, -1]
    assert rows.tolist() == [-1, 1, 0, 0, -1, -1]
    with pytest.raises(ValueError, match="shapes"):
        _vectors.locate([], firsts, labels, numbers, rows)
    with pytest.raises(ValueError, match="one length"):
        slab_of(1, [0, 1], [0])
    with pytest.raises(ValueError, match="columns"):
        _vectors.locate([slab_of(1, [0], [7])], firsts[:1] - 9, firsts[:1] - 9, *numbers[:2, None])


@given(st.sets(st.integers(0, 30), min_size=1), st.randoms())
def test_every_label_is_found_and_no_other(there: set[int], random: Any) -> None:
    labels, order = sorted(there), list(range(len(there)))
    random.shuffle(order)
    asked = np.arange(5, 45, dtype=np.uint64)
    numbers, rows = np.empty(40, INT), np.empty(40, INT)
    _vectors.locate([slab_of(7, labels, order)], np.array([7], np.uint64), asked, numbers, rows)
    expected = [order[labels.index(n - 7)] if n - 7 in there else -1 for n in range(5, 45)]
    assert rows.tolist() == expected
    assert numbers.tolist() == [0 if row >= 0 else -1 for row in expected]


def test_rows_are_located_in_ranges() -> None:
    slabs, starts, stops = columns([4, 4, 9], [1, 6, 0], [3, 6, 2])
    numbers, rows = np.empty(4, INT), np.empty(4, INT)
    _vectors.locate_in_ranges(np.cumsum(stops - starts), slabs, stops, np.arange(4), numbers, rows)
    assert (numbers.tolist(), rows.tolist()) == ([4, 4, 9, 9], [1, 2, 0, 1])
    for place in (-1, 4):
        with pytest.raises(ValueError, match="no row"):
            _vectors.locate_in_ranges(
                np.cumsum(stops - starts), slabs, stops, *columns([place]), numbers[:1], rows[:1]
            )


# --- names ---


def named(count: int, names_at: int) -> Any:
    zeros = np.zeros(count, np.uint32)
    return _vectors.SlabRows(
        1, np.arange(count, dtype=np.uint32), np.arange(count), zeros,
        np.ones(count, np.float32), None, 0, names_at,
    )  # fmt: skip


def test_name_is_read_from_its_slabs_record() -> None:
    record = b"xx" + np.array([2, 2, 5], "<u4").tobytes() + b"abcde"
    slab = named(3, 14)
    assert [slab.name(memoryview(record), row) for row in range(3)] == [b"ab", b"", b"cde"]


@pytest.mark.parametrize(("start", "count", "row"), [
    (14, 3, 3), (14, 3, -1), (11, 3, 0), (15, 3, 2), (20, 3, 0),
])  # fmt: skip
def test_name_outside_its_record_is_refused(start: int, count: int, row: int) -> None:
    record = b"xx" + np.array([2, 1, 5], "<u4").tobytes() + b"abcde"
    with pytest.raises(ValueError, match="does not lie"):
        named(count, start).name(record, row)


# --- the best ---

KEYS = st.lists(st.floats(-4, 4, width=16) | st.sampled_from([np.inf, -np.inf, 0.5]), max_size=60)


@given(KEYS, st.integers(0, 20))
def test_the_best_are_those_that_sorting_gives(keys: list[float], room: int) -> None:
    places = np.full(room, -1, INT)
    found, least = _vectors.top(np.array(keys, np.float32), places)
    some = sorted((key for key in keys if key > -np.inf), reverse=True)
    assert found == min(room, len(some))
    assert len(set(places[:found].tolist())) == found
    assert sorted((keys[place] for place in places[:found]), reverse=True) == some[:room]
    assert least == (some[room - 1] if 0 < room < len(some) else -np.inf)


# --- measuring ---


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("kind", "size"), [(np.float32, 4), (np.float16, 2)])
@pytest.mark.parametrize("held", [True, False])
def test_rows_are_measured_in_float64(metric: str, kind: Any, size: int, *, held: bool) -> None:
    several = made_up((6, 7), (3, 7), kind=kind)
    several[0][0] = [0, -0.0, 6e-8, -6e-5, 1, 65504 if size == 2 else 1e30, -2]
    several[1][1] = 0
    stored, query = Stored(several, held=held), made_up((1, 7), seed=4)[0][0].astype(np.float64)
    wide = query / np.linalg.norm(query) if metric == "cosine" else query
    numbers, rows = columns([0, -1, 1, 1, 0], [5, 0, 1, 2, 0])
    found = _vectors.measure(
        stored.slabs, stored.record, 1, numbers, rows, wide, size, METRICS.index(metric)
    )
    assert bool(stored.asked) is not held
    assert [(label, name) for _, label, name in found] == [
        (6, b"0/5"), (8, b"1/1"), (9, b"1/2"), (1, b"0/0")
    ]  # fmt: skip
    for (key, _, _), (number, row) in zip(found, [(0, 5), (1, 1), (1, 2), (0, 0)], strict=True):
        score = definition(metric, wide, several[number][row])
        assert key == pytest.approx(-score * score if metric == "l2" else score, rel=1e-9)


def test_what_is_not_in_its_record_is_not_measured() -> None:
    stored, query = Stored(made_up((6, 7))), np.ones(7)
    for number, row in ((0, 6), (0, -1), (1, 0)):
        with pytest.raises(ValueError, match=r"not lie|no slab"):
            _vectors.measure(stored.slabs, stored.record, 1, *columns([number], [row]), query, 4, 0)
    with pytest.raises(ValueError, match="shapes"):
        _vectors.measure(stored.slabs, stored.record, 1, *columns([0], [0]), query, 3, 0)


def test_held_record_is_of_its_epoch() -> None:
    stored = Stored(made_up((2, 3)), held=True)
    (slab,) = stored.slabs
    assert slab.held(1) is stored.records[0]
    assert slab.held(2) is None
    _vectors.measure(stored.slabs, stored.record, 2, *columns([0], [1]), np.ones(3), 4, 0)
    assert stored.asked == [0]


@pytest.mark.parametrize("unit", [True, False])
def test_query_is_prepared(*, unit: bool) -> None:
    vector = made_up((1, 37))[0][0]
    wide, narrow = np.empty(37), np.empty(37, np.float32)
    length = _vectors.prepare(vector, unit, wide, narrow)
    assert length == pytest.approx(np.linalg.norm(vector.astype(np.float64)), rel=1e-12)
    assert wide == pytest.approx(vector.astype(np.float64) / (length if unit else 1), rel=1e-12)
    assert (narrow == wide.astype(np.float32)).all()
    assert _vectors.prepare(np.zeros(37, np.float32), unit, wide, narrow) == 0
    assert not wide.any()
    with pytest.raises(ValueError, match="shapes"):
        _vectors.prepare(vector, unit, wide[1:], narrow)


def test_number_that_is_not_finite_is_found() -> None:
    row = np.array([0, -0.0, 3e38, -3e38, 1e-45], np.float32)
    assert _vectors.all_finite(row)
    for wrong in (np.nan, np.inf, -np.inf):
        for at in range(5):
            spoilt = row.copy()
            spoilt[at] = wrong
            assert not _vectors.all_finite(spoilt)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_lengths_are_those_of_the_rows(kind: Any) -> None:
    rows, lengths = made_up((5, 9), kind=kind)[0], np.empty(5)
    _vectors.measure_rows(rows.view(np.uint8), 9, lengths)
    assert lengths == pytest.approx(np.linalg.norm(rows.astype(np.float64), axis=1), rel=1e-12)
    with pytest.raises(ValueError, match="shapes"):
        _vectors.measure_rows(rows.view(np.uint8), 7, lengths)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("held", [True, False])
def test_slabs_are_scanned_as_their_parts_are(*, held: bool) -> None:
    stored = Stored(made_up((9, 20), (4, 20)), held=held)
    query = made_up((1, 20), seed=4)[0][0]
    ranges = columns([0, 0, 1], [0, 5, 1], [3, 9, 4])
    rows_at = [
        len(record) - 80 * count for record, count in zip(stored.records, (9, 4), strict=True)
    ]
    parts = [(stored.records[n], rows_at[n], a, b) for n, a, b in zip(*ranges, strict=True)]
    for l2 in (DOT, not DOT):
        out, expected = np.empty(10, np.float32), np.empty(10, np.float32)
        _vectors.scan_slabs(stored.slabs, stored.record, 1, *ranges, query, out, l2)
        _vectors.scan(parts, query, expected, l2)
        assert out.tolist() == expected.tolist()
    for wrong in (columns([0], [3], [10]), columns([2], [0], [1]), columns([0], [2], [1])):
        with pytest.raises(ValueError, match=r"not lie|no slab"):
            _vectors.scan_slabs(stored.slabs, stored.record, 1, *wrong, query, out, DOT)


# --- codes ---


def coded(stored: Stored, ranges: list[Any], dims: int, *, scaled: bool, size: int = 4) -> None:
    _vectors.encode_slabs(stored.slabs, stored.record, 1, *ranges, dims, size, scaled)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("dims", [1, 7, 8, 16, 33, 384])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_no_key_is_beyond_what_codes_say(dims: int, kind: Any, *, scaled: bool) -> None:
    several = made_up((70, dims), (5, dims), kind=kind)
    several[0][3] = 0
    several[0][4] *= 100
    several[1][2, 0] = 300
    dead = {(0, 5), (1, 4)}
    stored = Stored(several, held=True, dead=dead)
    ranges = columns([0, 1], [1, 0], [69, 5])
    coded(stored, ranges, dims, scaled=scaled, size=np.dtype(kind).itemsize)
    query = made_up((1, dims), seed=4)[0][0].astype(np.float64)
    query /= np.linalg.norm(query) if scaled else 1
    rows = np.concatenate([several[0][1:69], several[1]]).astype(np.float64)
    keys = rows @ query
    lengths = np.linalg.norm(rows, axis=1)
    if scaled:
        keys /= np.where(lengths > 0, lengths, 1)
    keys[[4, -1]] = -np.inf
    margin = (
        4 * (dims / 4 + 16) * 2.0**-24 * (1 if scaled else np.linalg.norm(query) * max(lengths))
    )
    reach = float(np.linalg.norm(query)) * (1 + 2.0**-20)
    for count in (1, 10, 71, 72):
        upper = np.empty(len(keys), np.float32)
        floor = _vectors.scan_codes(
            stored.slabs, *ranges, query.astype(np.float32), reach, margin, upper, count
        )
        assert (keys <= upper).all()
        assert (upper[[4, -1]] == -np.inf).all()
        assert floor <= sorted(keys, reverse=True)[count - 1]
        assert np.count_nonzero(upper >= floor) >= min(count, 71)
        assert (floor > -np.inf) == (count <= 71)


def test_rows_that_cannot_be_compared_in_float32_are_never_left_out() -> None:
    rows = np.array([[1e20, 1], [1, 2], [3, 4]], np.float32)
    stored = Stored([rows], held=True)
    labels = np.arange(3, dtype=np.uint32)
    scales = np.array([np.nan, 0.4472136, 0.2], np.float32)
    slab = _vectors.SlabRows(1, labels, np.arange(3), labels, scales, None,
                             len(stored.records[0]) - 24, 13)  # fmt: skip
    slab.hold(1, stored.records[0])
    ranges = columns([0], [0], [3])
    for scaled in (True, False):
        _vectors.encode_slabs([slab], stored.record, 1, *ranges, 2, 4, scaled)
        upper = np.empty(3, np.float32)
        query = np.array([1, 0], np.float32)
        floor = _vectors.scan_codes([slab], *ranges, query, 1.0, 0.0, upper, 2)
        assert upper[0] == np.inf
        assert np.isfinite(upper[1:]).all()
        assert floor <= upper[1:].min()


def test_codes_are_counted_shared_and_made_once() -> None:
    stored = Stored(made_up((10, 6), (4, 6)))
    ranges, some = columns([0, 1], [0, 0], [10, 4]), columns([0], [2], [5])
    assert _vectors.count_uncoded(stored.slabs, *ranges) == 14
    coded(stored, some, 6, scaled=True)
    assert _vectors.count_uncoded(stored.slabs, *ranges) == 11
    upper, query = np.empty(14, np.float32), np.ones(6, np.float32)
    with pytest.raises(ValueError, match="shapes"):  # some rows have none
        _vectors.scan_codes(stored.slabs, *ranges, query, 1.0, 0.0, upper, 3)
    coded(stored, ranges, 6, scaled=True)
    coded(stored, ranges, 6, scaled=True)
    first = stored.slabs[0].codes
    assert first is not None
    assert first.coded == 10
    other = Stored(made_up((10, 6)), dead={(0, 1)}).slabs[0]
    other.share_codes(stored.slabs[0])
    assert other.codes is first
    with pytest.raises(ValueError, match="one length"):
        stored.slabs[1].share_codes(other)


@pytest.mark.parametrize(
    "wrong", [([0], [0], [11]), ([2], [0], [1]), ([0], [-1], [1]), ([0], [0], [])]
)
def test_codes_of_rows_that_are_not_there_are_refused(wrong: Any) -> None:
    stored = Stored(made_up((10, 6)))
    coded(stored, columns([0], [0], [10]), 6, scaled=True)
    ranges, query, upper = columns(*wrong), np.ones(6, np.float32), np.empty(10, np.float32)
    with pytest.raises(ValueError, match=r"no rows|no slab|shapes"):
        coded(stored, ranges, 6, scaled=True)
    with pytest.raises(ValueError, match=r"no rows|no slab|shapes"):
        _vectors.count_uncoded(stored.slabs, *ranges)
    with pytest.raises(ValueError, match=r"no rows|no slab|shapes"):
        _vectors.scan_codes(stored.slabs, *ranges, query, 1.0, 0.0, upper, 3)


# --- scans of buffers ---


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("dims", [1, 3, 15, 16, 17, 64, 100, 384, 1000])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 64])
def test_kernel_agrees_with_the_definition_within_its_bound(dims: int, count: int) -> None:
    rng = np.random.default_rng(dims)
    rows = rng.standard_normal((count, dims)).astype(np.float32)
    query = rng.standard_normal(dims).astype(np.float32)
    out = np.empty(count, np.float32)
    bound = (dims / 4 + 8) * 2**-24
    for at in (0, 1, 17):  # no alignment is needed
        record = b"\x00" * at + rows.tobytes()
        _vectors.scan([(record, at, 0, count)], query, out, DOT)
        wide = rows.astype(np.float64)
        exact = wide @ query.astype(np.float64)
        assert (np.abs(out - exact) <= bound * (np.abs(wide) @ np.abs(query)) + 1e-30).all()
        _vectors.scan([(record, at, 0, count)], query, out, L2)
        squares = ((wide - query) ** 2).sum(axis=1)
        assert (np.abs(out - squares) <= (bound + 2**-21) * squares + 1e-30).all()


@pytest.mark.usefixtures("kernel")
def test_kernel_scans_parts_of_several_buffers() -> None:
    rows = np.arange(40, dtype=np.float32).reshape(10, 4)
    query = np.array([1, 0, 0, 0], np.float32)
    out = np.empty(5, np.float32)
    parts = [(rows.tobytes(), 0, 2, 5), (b"xx" + rows.tobytes(), 2, 9, 10), (rows, 0, 0, 0)]
    _vectors.scan([*parts, (rows, 0, 1, 2)], query, out, DOT)
    assert out.tolist() == [8, 12, 16, 36, 4]


@pytest.mark.parametrize(
    ("part", "places"),
    [((0, 0, 3), 3), ((1, 0, 2), 2), ((0, -1, 1), 2), ((0, 2, 1), 0), ((-1, 0, 1), 1),
     ((0, 0, 2), 3)],
)  # fmt: skip
def test_kernel_refuses_rows_outside_their_buffer(part: tuple[int, ...], places: int) -> None:
    rows, query = np.ones((2, 3), np.float32), np.ones(3, np.float32)
    with pytest.raises(ValueError, match="rows"):
        _vectors.scan([(rows, *part)], query, np.empty(places, np.float32), DOT)
