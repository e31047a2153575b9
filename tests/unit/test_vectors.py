"""Checking, storing and scoring vectors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lgkv
from lgkv.connection import Connection, connect
from lgkv.env import Options
from lgkv.errors import CorruptionError, DimensionMismatchError, InvalidInputError
from lgkv.layout import Kind, Table
from lgkv.vectors import (
    Settings,
    VectorSet,
    best_scores,
    check_dims,
    check_rows,
    check_vector,
    common_dims,
    get_vectors,
    pack_vectors,
    read_settings,
    scan_vectors,
    set_dims,
    vector_set,
)
from lgkv.writer import Batch, Change


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    return connect(str(tmp_path / "a.lgkv"), "c", Options())


def rows_of(*vectors: list[float]) -> np.ndarray[Any, Any]:
    return np.array(vectors, dtype=np.float32)


# --- what may be given ---


@pytest.mark.parametrize(
    ("given_vectors", "paths", "shape"),
    [
        ([1, 2, 3], ("0",), (1, 3)),
        ([[1, 2], [3, 4]], ("0", "1"), (2, 2)),
        (np.ones(4, dtype=np.float64), ("0",), (1, 4)),
        (np.ones((3, 2), dtype=np.float32), ("0", "1", "2"), (3, 2)),
        ({"title": [1, 2], "body": (3, 4)}, ("title", "body"), (2, 2)),
    ],
)
def test_vectors_are_given_singly_as_a_list_or_by_path(
    given_vectors: Any, paths: tuple[str, ...], shape: tuple[int, int]
) -> None:
    vectors = vector_set(given_vectors)
    assert vectors is not None
    assert (vectors.paths, vectors.rows.shape, vectors.rows.dtype) == (paths, shape, np.float32)


@pytest.mark.parametrize("nothing", [None, [], {}, np.zeros((0, 3))])
def test_nothing_gives_no_vectors(nothing: Any) -> None:
    assert vector_set(nothing) is None


@pytest.mark.parametrize(
    ("vector", "named"),
    [
        ([1.0, math.nan], "nan at 1"),
        ([math.inf, 1.0], "inf at 0"),
        ([1.0, -math.inf], "-inf at 1"),
        ([1.0, 1e300], "inf at 1"),
        ([], "shape"),
        (["1", "2"], "list of numbers"),
        ([[1.0], [1.0, 2.0]], "list of numbers"),
        ([[[1.0]]], "shape"),
        (5.0, "shape"),
        ([True, False], "list of numbers"),
        ([1 + 2j], "list of numbers"),
        (None, "list of numbers"),
    ],
)
def test_wrong_vector_is_refused_by_name(vector: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=f"the query.*{named}"):
        check_vector(vector, "the query")


def test_wrong_one_of_several_is_named_by_its_number() -> None:
    with pytest.raises(InvalidInputError, match=r"\(number 2\) holds nan at 0"):
        check_rows([[1.0], [2.0], [math.nan]], "the embedding")
    with pytest.raises(InvalidInputError, match="'body'"):
        vector_set({"title": [1.0], "body": [math.nan]})


def test_checked_vector_is_a_copy() -> None:
    original = np.ones(3, dtype=np.float32)
    checked = check_vector(original, "it")
    original[0] = 7
    assert checked.tolist() == [1, 1, 1]


def test_vectors_of_differing_length_are_refused() -> None:
    with pytest.raises(DimensionMismatchError):
        vector_set({"a": [1.0], "b": [1.0, 2.0]})
    one, two = vector_set([1.0]), vector_set([1.0, 2.0])
    assert one is not None
    assert two is not None
    with pytest.raises(DimensionMismatchError) as caught:
        common_dims([one, two])
    assert (caught.value.found, caught.value.expected) == (2, 1)
    assert common_dims([two, two]) == 2
    assert common_dims([]) is None


# --- settings ---


def test_first_vectors_settle_the_dimensions(connection: Connection) -> None:
    with connection.snapshot() as snapshot:
        assert read_settings(snapshot) is None
    connection.commit(Change(lambda batch: set_dims(batch, 3)))
    with connection.snapshot() as snapshot:
        assert read_settings(snapshot) == Settings(3, "cosine")


def test_other_dimensions_are_refused_while_there_are_vectors(connection: Connection) -> None:
    stored = VectorSet(("0",), rows_of([1, 2, 3]))

    def fill(batch: Batch) -> None:
        set_dims(batch, 3)
        batch.put(Table.MEMORY, bytes((Kind.VECTORS,)) + b"x", pack_vectors(stored))

    connection.commit(Change(fill))
    connection.commit(Change(lambda batch: set_dims(batch, 3)))
    with pytest.raises(DimensionMismatchError, match="another file"):
        connection.commit(Change(lambda batch: set_dims(batch, 4)))
    connection.commit(
        Change(lambda batch: batch.delete(Table.MEMORY, bytes((Kind.VECTORS,)) + b"x"))
    )
    connection.commit(Change(lambda batch: set_dims(batch, 4)))
    with connection.snapshot() as snapshot:
        assert read_settings(snapshot) == Settings(4, "cosine")


def test_query_must_have_the_dimensions_of_the_file() -> None:
    check_dims(None, 7)
    check_dims(Settings(7, "cosine"), 7)
    with pytest.raises(DimensionMismatchError) as caught:
        check_dims(Settings(7, "cosine"), 8)
    assert (caught.value.found, caught.value.expected) == (8, 7)


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x80", b"\xa1ddims\x03", b"\xf6"])
def test_damaged_settings_are_named(connection: Connection, body: bytes) -> None:
    key = bytes((Kind.VECTOR_SETTINGS,))
    connection.commit(Change(lambda batch: batch.put(Table.MEMORY, key, body)))
    with connection.snapshot() as snapshot, pytest.raises(CorruptionError) as caught:
        read_settings(snapshot)
    assert caught.value.key == key


# --- records ---


def test_vectors_come_back_as_they_were(connection: Connection) -> None:
    stored = VectorSet(("title", "parts.\ud800", ""), rows_of([1, 2], [0, -0.0], [3.5, 1e-30]))
    key = bytes((Kind.VECTORS,)) + b"x"
    connection.commit(Change(lambda batch: batch.put(Table.MEMORY, key, pack_vectors(stored))))
    with connection.snapshot() as snapshot:
        found = get_vectors(snapshot, b"x")
        assert get_vectors(snapshot, b"y") is None
        assert [suffix for suffix, _ in scan_vectors(snapshot, b"")] == [b"x"]
    assert found is not None
    assert found.paths == stored.paths
    assert found.rows.tobytes() == stored.rows.tobytes()


@pytest.mark.parametrize("cut", [0, 4, 12, 20])
def test_damaged_vectors_are_named(connection: Connection, cut: int) -> None:
    body = pack_vectors(VectorSet(("0",), rows_of([1, 2, 3])))[:cut]
    key = bytes((Kind.VECTORS,)) + b"x"
    connection.commit(Change(lambda batch: batch.put(Table.MEMORY, key, body)))
    with connection.snapshot() as snapshot, pytest.raises(lgkv.CorruptionError) as caught:
        get_vectors(snapshot, b"x")
    assert caught.value.key == key


# --- scores ---


def test_score_is_the_best_cosine_of_an_item() -> None:
    query = check_vector([1, 0], "q")
    several = [rows_of([2, 0]), rows_of([0, 3]), rows_of([-1, 0]), rows_of([0, 1], [5, 5])]
    assert best_scores(query, several) == pytest.approx([1, 0, -1, math.sqrt(0.5)])


def test_zero_vector_scores_zero() -> None:
    assert best_scores(check_vector([1, 1], "q"), [rows_of([0, 0])]).tolist() == [0]
    assert best_scores(check_vector([0, 0], "q"), [rows_of([3, 4])]).tolist() == [0]


def test_scores_of_nothing_are_none() -> None:
    assert best_scores(check_vector([1], "q"), []).tolist() == []


def test_huge_and_tiny_numbers_do_not_spoil_a_score() -> None:
    query = check_vector([3e38, 3e38], "q")
    scores = best_scores(query, [rows_of([1e38, 1e38]), rows_of([1e-38, 1e-38]), rows_of([1, -1])])
    assert scores == pytest.approx([1, 1, 0])


def test_equal_vectors_score_equal_wherever_they_stand() -> None:
    rng = np.random.default_rng(7)
    same = rng.standard_normal(37, dtype=np.float32)
    several = [
        rng.standard_normal((1 + number % 3, 37), dtype=np.float32) for number in range(5_000)
    ]
    places = [0, 1, 2, 1_000, 2_047, 4_095, 4_999]
    for place in places:
        several[place] = same[None, :].copy()
    scores = best_scores(rng.standard_normal(37, dtype=np.float32), several)
    assert len({scores[place] for place in places}) == 1


FLOATS = st.floats(-100, 100, width=32)


@given(
    st.integers(1, 5).flatmap(
        lambda dims: st.tuples(
            st.lists(FLOATS, min_size=dims, max_size=dims),
            st.lists(
                st.lists(st.lists(FLOATS, min_size=dims, max_size=dims), min_size=1, max_size=3),
                max_size=5,
            ),
        )
    )
)
def test_scores_agree_with_the_definition(
    case: tuple[list[float], list[list[list[float]]]],
) -> None:
    query, several = case

    def cosine(a: list[float], b: list[float]) -> float:
        lengths = math.hypot(*a) * math.hypot(*b)
        return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0

    expected = [max(cosine(query, row) for row in rows) for rows in several]
    scores = best_scores(check_vector(query, "q"), [rows_of(*rows) for rows in several])
    assert scores == pytest.approx(expected, abs=1e-6)
