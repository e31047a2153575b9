"""Checking vectors, and what all vectors of a file have in common."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lgkv
from lgkv.errors import CorruptionError, DimensionMismatchError, InvalidInputError
from lgkv.keys import encode_text
from lgkv.layout import Kind, Table, encode_fields
from lgkv.memory import Put
from lgkv.memory.items import item_suffix
from lgkv.nodes import find_node
from lgkv.vectors import (
    IndexConfig,
    Settings,
    VectorSet,
    check_query,
    check_rows,
    check_vector,
    common_dims,
    find_vectors,
    read_settings,
    read_state,
    vector_set,
)
from lgkv.vectors.packing import vectors_key
from lgkv.writer import Change

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


def test_list_of_vectors_is_copied_when_checked() -> None:
    several = [np.zeros(3, np.float32), np.ones(3, np.float32)]
    checked = check_rows(several, "the embedding")
    several[0][0] = np.nan
    assert checked.tolist() == [[0, 0, 0], [1, 1, 1]]
    whole = np.zeros((2, 3), np.float32)
    assert not np.shares_memory(check_rows(whole, "the embedding"), whole)


def test_vectors_among_others_are_the_items_own() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    for numbers in ([2], [1, 2], [3, 0, 3]):
        among = VectorSet.among(tuple("abc"[: len(numbers)]), rows, numbers)
        assert among is not None
        assert among.own.tolist() == rows[numbers].tolist()
    assert VectorSet.among((), rows, []) is None


@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),
            st.lists(st.sampled_from(["a", "b", "\ud800"]), min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_items_find_their_vectors_and_paths(several: list[tuple[int, list[str]]]) -> None:
    with tempfile.TemporaryDirectory() as folder, lgkv.open(f"{folder}/a.lgkv") as opened:
        puts = [
            Put((f"n{node}",), str(number), {}, VectorSet(tuple(paths), rows(number, len(paths))))
            for number, (node, paths) in enumerate(several)
        ]
        opened.memory.put_many(puts)
        with opened.memory.view() as view:
            for put in puts:
                assert view.vectors(put.namespace, put.key).tolist() == put.vectors.rows.tolist()
                node = find_node(view.snapshot, put.namespace)
                assert node is not None
                suffix = item_suffix(node.number, put.key)
                found = find_vectors(view.snapshot, 1, suffix)
                assert found is not None
                first, paths = found
                assert paths == put.vectors.paths
                body = view.snapshot.get(Table.MEMORY, vectors_key(1, suffix))
                assert body == encode_fields([first, [encode_text(path) for path in paths]])


def rows(number: int, count: int) -> Any:
    """Return vectors that no other item has."""
    return np.array([[number, at, 1] for at in range(count)], np.float32)


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


@pytest.fixture
def db(tmp_path: Path) -> lgkv.Database:
    return lgkv.open(tmp_path / "a.lgkv")


def test_first_vectors_settle_what_all_have_in_common(db: lgkv.Database) -> None:
    assert db.vectors.settings() is None
    db.memory.put(("a",), "k", {}, vectors=[1, 2, 3])
    assert db.vectors.settings() == Settings(3, "cosine", "float32", None, 1)
    assert db.vectors.count() == 1


def test_other_dimensions_are_refused_while_there_are_vectors(db: lgkv.Database) -> None:
    db.memory.put(("a",), "k", {"n": 1}, vectors=[1, 2, 3])
    with pytest.raises(DimensionMismatchError, match="another file"):
        db.memory.put(("a",), "other", {}, vectors=[1, 2])
    with pytest.raises(DimensionMismatchError) as caught:
        db.memory.search((), vector=[1, 2])
    assert (caught.value.found, caught.value.expected) == (2, 3)
    assert db.vectors.count() == 1
    db.memory.put(("a",), "k", {"n": 2})
    db.memory.put(("a",), "other", {"n": 3}, vectors=[1, 2])
    assert db.vectors.settings() == Settings(2, "cosine", "float32", None, 2)
    assert [item.key for item in db.memory.search((), vector=[1, 2])] == ["other", "k"]


def test_only_item_may_change_its_dimensions(db: lgkv.Database) -> None:
    db.memory.put(("a",), "k", {}, vectors=[1, 2, 3])
    db.memory.put(("a",), "k", {}, vectors=[1, 2])
    assert [item.score for item in db.memory.search((), vector=[2, 4])] == [pytest.approx(1)]


def put(db: lgkv.Database, key: str, vector: list[float], config: IndexConfig) -> None:
    db.commit(db.memory.change([lgkv.memory.Put(("a",), key, {}, vector)], (), config))


def test_other_model_metric_or_storage_is_refused_by_name(db: lgkv.Database) -> None:
    put(db, "k", [1, 2], IndexConfig("l2", "float16", "small"))
    assert db.vectors.settings() == Settings(2, "l2", "float16", "small", 1)
    put(db, "k", [1, 2], IndexConfig())
    with pytest.raises(lgkv.EmbeddingMismatchError, match="reindex") as caught:
        put(db, "k2", [1, 2], IndexConfig(model="large"))
    assert (caught.value.found, caught.value.expected) == ("large", "small")
    with pytest.raises(InvalidInputError, match="compared by 'l2', not 'cosine'"):
        put(db, "k2", [1, 2], IndexConfig(metric="cosine"))
    with pytest.raises(InvalidInputError, match="stored as 'float16', not 'float32'"):
        put(db, "k2", [1, 2], IndexConfig(storage="float32"))
    assert db.vectors.count() == 1


def test_name_of_a_model_is_taken_by_vectors_that_have_none(db: lgkv.Database) -> None:
    put(db, "k", [1, 2], IndexConfig())
    put(db, "k2", [1, 2], IndexConfig(model="small"))
    settings = db.vectors.settings()
    assert settings is not None
    assert (settings.model, settings.generation) == ("small", 1)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"metric": "manhattan"}, "manhattan"),
        ({"storage": "int8"}, "int8"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
    ],
)
def test_wrong_configuration_is_named(config: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        IndexConfig(**config)


def test_number_too_large_for_float16_is_refused(db: lgkv.Database) -> None:
    with pytest.raises(InvalidInputError, match="65504"):
        put(db, "k", [1, 7e4], IndexConfig(storage="float16"))
    assert db.vectors.count() == 0


def test_query_must_have_the_dimensions_of_the_file() -> None:
    check_query(None, 7)
    check_query(Settings(7), 7)
    with pytest.raises(DimensionMismatchError) as caught:
        check_query(Settings(7), 8)
    assert (caught.value.found, caught.value.expected) == (8, 7)


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"\x80", b"\xf6", b"\xa1ddims\x03", b"\xa2ddims\x00fmetricfcosine"]
)
def test_damaged_settings_are_named(db: lgkv.Database, body: bytes) -> None:
    db.memory.put(("a",), "k", {}, vectors=[1, 2, 3])
    key = bytes((Kind.VECTOR_SETTINGS,))
    db.commit(Change(lambda batch: batch.put(Table.MEMORY, key, body)))
    with db._connection.snapshot() as snapshot, pytest.raises(CorruptionError) as caught:
        read_settings(snapshot)
    assert caught.value.key == key


def test_damaged_counters_are_named(db: lgkv.Database) -> None:
    key = bytes((Kind.VECTOR_STATE,))
    db.commit(Change(lambda batch: batch.put(Table.MEMORY, key, b"x")))
    with db._connection.snapshot() as snapshot, pytest.raises(CorruptionError) as caught:
        read_state(snapshot)
    assert caught.value.key == key
