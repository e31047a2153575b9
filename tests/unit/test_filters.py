"""Filters against a plain model of their rules, and what they refuse."""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lgkv
from lgkv.errors import FilterError, InvalidInputError
from lgkv.filters import compile_filter, validate_filter

UTC = datetime.timezone.utc
NOON = datetime.datetime(2024, 5, 1, 12, tzinfo=UTC)


def matches(value: Mapping[str, Any], filter: Mapping[str, Any] | None) -> bool:
    return compile_filter(filter)(value)


@pytest.mark.parametrize(
    ("value", "filter", "expected"),
    [
        ({"a": 1}, {}, True),
        ({"a": 1}, None, True),
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, False),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, True),
        ({"a": {"b": 1}}, {"a": {"b": {"$gt": 0}}}, True),
        ({"a": 1}, {"a": {"b": 1}}, False),
        ({"a": {}}, {"a": {}}, True),
        ({"a": 1}, {"a": {}}, False),
        ({"a": [1, 2]}, {"a": [1, 2]}, True),
        ({"a": [1, 2]}, {"a": (1, 2)}, True),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": [1, {"b": 5}]}, {"a": [1, {"b": {"$lt": 9}}]}, True),
        ({"a": [1]}, {"a": 1}, False),
        ({"a": [1, (2, 3)]}, {"a": {"$eq": [1, [2, 3]]}}, True),
        ({"a": {"b": 1, "c": 2}}, {"a": {"$eq": {"b": 1}}}, False),
        ({"a": {"b": [1]}}, {"a": {"$eq": {"b": (1,)}}}, True),
    ],
)
def test_plain_values_match_by_equality_and_mappings_by_their_fields(
    value: dict[str, Any],
    filter: dict[str, Any] | None,
    expected: bool,  # noqa: FBT001
) -> None:
    assert matches(value, filter) is expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"$eq": 5}, True),
        ({"$ne": 5}, False),
        ({"$gt": 4}, True),
        ({"$gt": 5}, False),
        ({"$gte": 5}, True),
        ({"$lt": 5}, False),
        ({"$lte": 5.0}, True),
        ({"$in": [1, 5]}, True),
        ({"$in": []}, False),
        ({"$nin": [1, 5]}, False),
        ({"$nin": []}, True),
        ({"$exists": True}, True),
        ({"$exists": False}, False),
        ({"$gt": 4, "$lt": 5}, False),
        ({"$not": {"$gt": 4}}, False),
        ({"$not": 4}, True),
        ({"$and": [{"$gt": 4}, {"$lt": 6}]}, True),
        ({"$or": [{"$gt": 9}, 5]}, True),
        ({"$or": [{"$gt": 9}, {"$lt": 1}]}, False),
    ],
)
def test_operators_on_a_number(condition: Any, expected: bool) -> None:  # noqa: FBT001
    assert matches({"n": 5}, {"n": condition}) is expected


@pytest.mark.parametrize("operator", ["$gt", "$gte", "$lt", "$lte"])
@pytest.mark.parametrize(
    ("value", "operand"), [("5", 4), (4, "5"), (None, 4), ([5], 4), ({"x": 1}, 4), (b"5", "4")]
)
def test_values_of_different_types_are_never_ordered(
    operator: str, value: Any, operand: Any
) -> None:
    assert not matches({"n": value}, {"n": {operator: operand}})


def test_numbers_are_compared_as_numbers_not_as_text() -> None:
    assert matches({"n": 10}, {"n": {"$gt": 9}})
    assert matches({"n": 2**70 + 1}, {"n": {"$gt": 2**70}})
    assert matches({"n": decimal.Decimal("1.5")}, {"n": {"$gt": 1.25}})
    assert not matches({"n": math.nan}, {"n": {"$gte": 0}})
    assert not matches({"n": 1}, {"n": "1"})


def test_true_equals_one_as_in_python() -> None:
    assert matches({"n": True}, {"n": 1})
    assert matches({"n": 1}, {"n": True})
    assert matches({"n": 0}, {"n": {"$in": [False]}})
    assert not matches({"n": 2}, {"n": True})


def test_missing_field_is_none_except_to_exists() -> None:
    assert matches({}, {"missing": None})
    assert matches({"missing": None}, {"missing": None})
    assert matches({}, {"missing": {"$ne": 1}})
    assert not matches({}, {"missing": {"$ne": None}})
    assert matches({}, {"missing": {"$in": [None, 3]}})
    assert matches({}, {"missing": {"$nin": [3]}})
    assert matches({}, {"missing": {"$exists": False}})
    assert matches({"missing": None}, {"missing": {"$exists": True}})
    assert not matches({}, {"missing": {"b": None}})
    assert not matches({}, {"missing": {"$lt": 5}})


def test_dates_are_ordered_among_themselves() -> None:
    later = NOON + datetime.timedelta(hours=1)
    assert matches({"at": later}, {"at": {"$gt": NOON}})
    assert matches({"at": later.date()}, {"at": {"$gte": NOON.date()}})
    assert not matches({"at": NOON.replace(tzinfo=None)}, {"at": {"$lte": later}})
    assert not matches({"at": NOON.isoformat()}, {"at": {"$lte": later}})
    assert not matches({"at": NOON.date()}, {"at": {"$lte": later}})


def test_combining_operators_stand_beside_fields() -> None:
    filter = {"kind": "note", "$or": [{"n": {"$gt": 5}}, {"pinned": True}]}
    assert matches({"kind": "note", "n": 9}, filter)
    assert matches({"kind": "note", "pinned": True}, filter)
    assert not matches({"kind": "note", "n": 1}, filter)
    assert not matches({"kind": "task", "n": 9}, filter)
    assert matches({"n": 1}, {"$not": {"n": 2}})
    assert matches({"n": 1}, {"$and": [{"n": 1}, {"$not": {"m": 1}}]})
    assert matches({"a": {"n": 1}}, {"a": {"$or": [{"n": 1}, {"n": 2}]}})


def test_array_matches_nothing_and_breaks_nothing() -> None:
    value = {"vector": np.array([1.0, 2.0])}
    assert not matches(value, {"vector": 1})
    assert not matches(value, {"vector": {"$gt": 0}})
    assert matches(value, {"vector": {"$exists": True}})


@pytest.mark.parametrize(
    ("filter", "named"),
    [
        ({"n": {"$regex": "x"}}, "$regex"),
        ({"$near": 1}, "$near"),
        ({"$gt": 1}, "$gt"),
        ({"n": {"$gt": 1, "m": 2}}, "side by side"),
        ({"n": {"$gt": None}}, "$gt"),
        ({"n": {"$lt": [1]}}, "$lt"),
        ({"n": {"$gte": {"a": 1}}}, "$gte"),
        ({"n": {"$in": "abc"}}, "$in"),
        ({"n": {"$nin": 5}}, "$nin"),
        ({"n": {"$exists": 1}}, "$exists"),
        ({"$or": {"n": 1}}, "$or"),
        ({"$and": []}, "$and"),
        ({"$or": [5]}, "mapping"),
        ({"$not": 5}, "mapping"),
        ({"n": {"$and": 5}}, "$and"),
        ({"n": {"$not": {"$what": 5}}}, "$what"),
        ({"a": {"b": {"$what": 5}}}, "$what"),
        ({"a": [{"$what": 5}]}, "$what"),
        ({5: 1}, "named by a str"),
        ("n = 5", "mapping"),
        ([("n", 5)], "mapping"),
    ],
)
def test_wrong_filter_is_refused_by_name(filter: Any, named: str) -> None:
    with pytest.raises(FilterError, match=".*" + named.replace("$", r"\$")):
        validate_filter(filter)
    with pytest.raises(InvalidInputError):
        matches({}, filter)


@pytest.mark.parametrize("operator", ["$not", "$eq", "$and", "field", "list", "$in"])
def test_nesting_without_end_is_refused(operator: str) -> None:
    wrap: dict[str, Callable[[Any], Any]] = {
        "$not": lambda inner: {"$not": inner},
        "$eq": lambda inner: {"$eq": {"a": [inner]}},
        "$and": lambda inner: {"$and": [inner]},
        "field": lambda inner: {"a": inner},
        "list": lambda inner: [inner],
        "$in": lambda inner: {"$in": [[inner]]},
    }
    condition: Any = 1
    for _ in range(500):
        condition = wrap[operator](condition)
    with pytest.raises(FilterError, match="deeper"):
        validate_filter({"field": condition})
    itself: dict[str, Any] = {}
    itself["a"] = itself
    with pytest.raises(FilterError, match="deeper"):
        validate_filter(itself)


def test_compiled_filter_is_tried_on_any_number_of_values() -> None:
    keeps = compile_filter({"n": {"$gte": 2}})
    assert [n for n in range(5) if keeps({"n": n})] == [2, 3, 4]


# --- against a model -----------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, 1.0, -2.0]),
    st.sampled_from("abc"),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=2)
    ),
    max_leaves=6,
)
ORDERED = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 1.5]), st.sampled_from("abc"))


def conditions(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    operators = st.one_of(
        st.tuples(st.sampled_from(["$eq", "$ne"]), VALUES),
        st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), ORDERED),
        st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(VALUES, max_size=3)),
        st.tuples(st.just("$exists"), st.booleans()),
        st.tuples(st.just("$not"), inner),
        st.tuples(st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=2)),
    )
    return st.one_of(
        st.lists(operators, min_size=1, max_size=2).map(dict),
        st.dictionaries(st.sampled_from("xyz"), inner, max_size=2),
        st.lists(inner, max_size=2),
    )


CONDITIONS = st.recursive(SCALARS, conditions, max_leaves=6)
FILTERS = st.recursive(
    st.dictionaries(st.sampled_from("xyz"), CONDITIONS, max_size=2),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "x": CONDITIONS,
            "$not": inner,
            "$and": st.lists(inner, min_size=1, max_size=2),
            "$or": st.lists(inner, min_size=1, max_size=2),
        },
    ),
    max_leaves=4,
)

ABSENT = object()
ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": lambda a, b: a > b,
    "$gte": lambda a, b: a >= b,
    "$lt": lambda a, b: a < b,
    "$lte": lambda a, b: a <= b,
}


def model(value: Any, condition: Any) -> bool:
    """Return whether `value` meets `condition`, rule by rule and without any preparation."""
    present = None if value is ABSENT else value
    if isinstance(condition, list):
        return (
            isinstance(value, list)
            and len(value) == len(condition)
            and all(model(v, c) for v, c in zip(value, condition, strict=True))
        )
    if not isinstance(condition, dict):
        return bool(present == condition)
    if any(name.startswith("$") for name in condition):
        return all(model_operator(value, name, operand) for name, operand in condition.items())
    return isinstance(value, dict) and all(
        model(value.get(name, ABSENT), part) for name, part in condition.items()
    )


def model_operator(value: Any, name: str, operand: Any) -> bool:
    present = None if value is ABSENT else value
    if name in ("$and", "$or"):
        return (all if name == "$and" else any)(model(value, part) for part in operand)
    if name == "$not":
        return not model(value, operand)
    if name in ORDER:
        both_text = isinstance(present, str) and isinstance(operand, str)
        both_numbers = isinstance(present, (int, float)) and isinstance(operand, (int, float))
        return (both_text or both_numbers) and ORDER[name](present, operand)
    return {
        "$eq": lambda: present == operand,
        "$ne": lambda: present != operand,
        "$in": lambda: any(present == option for option in operand),
        "$nin": lambda: all(present != option for option in operand),
        "$exists": lambda: (value is not ABSENT) == operand,
    }[name]()


def model_filter(value: dict[str, Any], filter: dict[str, Any]) -> bool:
    combine = {
        "$and": lambda parts: all(model_filter(value, part) for part in parts),
        "$or": lambda parts: any(model_filter(value, part) for part in parts),
        "$not": lambda part: not model_filter(value, part),
    }
    return all(
        combine[name](part) if name in combine else model(value.get(name, ABSENT), part)
        for name, part in filter.items()
    )


@given(st.dictionaries(st.sampled_from("xyz"), VALUES, max_size=3), FILTERS)
def test_filter_agrees_with_its_model(value: dict[str, Any], filter: dict[str, Any]) -> None:
    assert matches(value, filter) is model_filter(value, filter)


def test_time_without_a_zone_is_found_as_it_is_stored(tmp_path: Path) -> None:
    noon = NOON.replace(tzinfo=None)
    with lgkv.open(tmp_path / "agent.lgkv") as db:
        for hours in range(3):
            db.memory.put(("a",), str(hours), {"at": noon + datetime.timedelta(hours=hours)})
        hour = noon + datetime.timedelta(hours=1)

        def found(condition: Any) -> list[str]:
            return sorted(one.key for one in db.memory.search(("a",), filter={"at": condition}))

        assert found(hour) == found({"$eq": hour}) == found({"$in": [hour]}) == ["1"]
        assert found({"$ne": hour}) == ["0", "2"]
        assert found({"$gt": hour}) == ["2"]
        db.memory.put(("a",), "text", {"at": "zzz"})
        assert found({"$gt": hour}) == ["2"]
        db.memory.delete(("a",), "text")
        assert found({"$lte": hour}) == ["0", "1"]
        assert found({"$gte": noon, "$lt": hour + datetime.timedelta(microseconds=1)}) == ["0", "1"]
    assert compile_filter({"at": noon})({"at": noon})  # as a serialiser keeps it
    assert compile_filter({"at": {"$lt": hour}})({"at": noon})
    assert not compile_filter({"at": noon})({"at": noon.replace(tzinfo=datetime.timezone.utc)})
