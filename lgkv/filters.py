"""Filters: which values a search or a listing keeps.

A filter is a mapping from field names to conditions; every one must hold. A condition is a
plain value (equal), a mapping of operators (`$gt` and the like, all must hold), a mapping
of fields (nested), or a list (element by element). `$and`, `$or` and `$not` combine filters
among the fields, and conditions on one field.

Values are compared by type and never as text: a number does not match a string, and as in
Python `True == 1`. A time without a zone is compared with its ISO text, as which it is stored.
A missing field is `None`, except to `$exists`.

A filter is compiled twice: to a predicate on a value, which is the reference, and to a test
on the value's CBOR, which answers the same and makes no objects of what it refuses.
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from lgkv import _items
from lgkv._items import Test
from lgkv.errors import FilterError
from lgkv.keys import encode_text
from lgkv.layout import decode_plain

__all__ = ["Predicate", "Test", "compile_encoded", "compile_filter", "validate_filter"]

Predicate = Callable[[Any], bool]

MAX_NESTING: Final = 100
"""The deepest nesting of a filter."""


class _Missing:
    """Stands for a field that is not there."""


_MISSING: Final = _Missing()
_NUMBERS: Final = (int, float, decimal.Decimal)
_ORDERED: Final = (_NUMBERS, (str,), (bytes,), (datetime.datetime,), (datetime.date,))
_SCALARS: Final = (type(None), bool, int, float, str, bytes)


class _Condition(NamedTuple):
    """A condition, on a value and on its bytes."""

    holds: Predicate
    encoded: Test


def validate_filter(filter: Mapping[str, Any] | None) -> None:
    """Raise FilterError if an operator is unknown or has an operand of the wrong type."""
    if filter:
        _fields(filter, MAX_NESTING)
    elif filter is not None and not isinstance(filter, Mapping):
        raise FilterError(_no_mapping(filter))


def compile_filter(filter: Mapping[str, Any] | None) -> Predicate:
    """Return the test that `filter` stands for, all of it checked; an empty one keeps everything.

    Raises:
        FilterError: An operator is unknown or has an operand of the wrong type.
    """
    return _fields({} if filter is None else filter, MAX_NESTING).holds


def compile_encoded(filter: Mapping[str, Any] | None) -> Test | None:
    """Return the test of a value's CBOR that `filter` stands for; None if it keeps everything.

    Raises:
        FilterError: As `compile_filter` does.
    """
    validate_filter(filter)
    return _fields(filter, MAX_NESTING).encoded if filter else None


# --- fields --------------------------------------------------------------------------------


def _fields(filter: Any, depth: int) -> _Condition:
    """Return the test of a whole filter: fields, and `$and`, `$or`, `$not` among them."""
    if not isinstance(filter, Mapping):
        raise FilterError(_no_mapping(filter))
    _check_depth(depth)
    tests: list[_Condition] = []
    for name, condition in filter.items():
        if not isinstance(name, str):
            raise FilterError(f"a filter's field is named by a str, not {_shown(name)}")
        if name in _COMBINERS:
            tests.append(_COMBINERS[name](name, condition, depth, _fields))
        elif name.startswith("$"):
            raise FilterError(_misplaced(name))
        else:
            tests.append(_field(name, _condition(condition, depth - 1)))
    return _all(tests)


def _field(name: str, test: _Condition) -> _Condition:
    holds = test.holds
    return _Condition(
        lambda value: holds(value.get(name, _MISSING)),
        _items.field(encode_text(name), test.encoded),
    )


def _no_mapping(filter: Any) -> str:
    return f"a filter is a mapping of fields to conditions, not {_shown(filter)}"


def _misplaced(name: str) -> str:
    if name in _OPERATORS:
        return f"the operator {name} tests a field: write {{'field': {{{name!r}: ...}}}}"
    return f"unknown operator {name!r}: use {', '.join(sorted((*_OPERATORS, *_COMBINERS)))}"


# --- conditions on one value ---------------------------------------------------------------


def _condition(condition: Any, depth: int) -> _Condition:
    _check_depth(depth)
    if isinstance(condition, Mapping):
        return _mapping_condition(condition, depth)
    if isinstance(condition, (list, tuple)):
        return _elements([_condition(element, depth - 1) for element in condition])
    return _equals(condition)


def _mapping_condition(condition: Mapping[Any, Any], depth: int) -> _Condition:
    marked = [isinstance(name, str) and name.startswith("$") for name in condition]
    if not any(marked):
        test = _fields(condition, depth)
        return _Condition(
            lambda value: isinstance(value, Mapping) and test.holds(value),
            _items.mapping(test.encoded),
        )
    if not all(marked):
        raise FilterError(
            f"operators and fields stand side by side in {_shown(condition)}: nest one of them"
        )
    return _all([_operator(name, operand, depth) for name, operand in condition.items()])


def _operator(name: str, operand: Any, depth: int) -> _Condition:
    if name in _COMBINERS:
        return _COMBINERS[name](name, operand, depth, _condition)
    if name not in _OPERATORS:
        raise FilterError(_misplaced(name))
    return _OPERATORS[name](name, operand)


def _elements(tests: list[_Condition]) -> _Condition:
    def holds(value: Any) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(tests)
            and all(test.holds(element) for test, element in zip(tests, value, strict=True))
        )

    return _Condition(holds, _items.elements(test.encoded for test in tests))


def _equals(operand: Any) -> _Condition:
    return _compared(operand, lambda value: _equal(value, operand), equal=True)


def _compared(
    operand: Any,
    holds: Predicate,
    *,
    less: bool = False,
    equal: bool = False,
    greater: bool = False,
) -> _Condition:
    def on_bytes(encoded: bytes | None) -> bool:
        return holds(_MISSING if encoded is None else decode_plain(encoded))

    if type(operand) in _SCALARS:
        return _Condition(holds, _items.compare(operand, less, equal, greater, on_bytes))
    return _Condition(holds, _items.decoded(on_bytes))


def _equal(value: Any, operand: Any) -> bool:
    """Whether the two are equal as Python has it, a tuple being a list."""
    if value is _MISSING:
        return operand is None
    if isinstance(operand, (list, tuple)):
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(operand)
            and all(_equal(v, o) for v, o in zip(value, operand, strict=True))
        )
    if isinstance(operand, Mapping):
        return (
            isinstance(value, Mapping)
            and value.keys() == operand.keys()
            and all(_equal(value[key], o) for key, o in operand.items())
        )
    try:
        return bool(value == (_as_stored(operand) if isinstance(value, str) else operand))
    except (TypeError, ValueError, decimal.InvalidOperation):  # an array, a signalling NaN
        return False


def _as_stored(operand: Any) -> Any:
    """Return the text of a time without a zone, which CBOR has no other form for."""
    naive = isinstance(operand, datetime.datetime) and operand.tzinfo is None
    return operand.isoformat() if naive else operand


# --- operators -----------------------------------------------------------------------------


def _operand_equals(_name: str, operand: Any) -> _Condition:
    _check_plain_depth(operand, MAX_NESTING)
    return _equals(operand)


def _negated(make: Callable[[str, Any], _Condition]) -> Callable[[str, Any], _Condition]:
    return lambda name, operand: _opposite(make(name, operand))


def _opposite(test: _Condition) -> _Condition:
    return _Condition(lambda value: not test.holds(value), _items.not_(test.encoded))


def _ordering(
    compare: Callable[[Any, Any], bool],
    *,
    less: bool = False,
    equal: bool = False,
    greater: bool = False,
) -> Callable[[str, Any], _Condition]:
    def made(name: str, operand: Any) -> _Condition:
        alike = next((kinds for kinds in _ORDERED if isinstance(operand, kinds)), None)
        if alike is None:
            raise FilterError(
                f"{name} takes a number, a str, bytes or a date, not {_shown(operand)}"
            )

        naive = _as_stored(operand) is not operand

        def holds(value: Any) -> bool:
            try:
                if naive and isinstance(value, str):
                    value = datetime.datetime.fromisoformat(value)
                return isinstance(value, alike) and bool(compare(value, operand))
            except (
                TypeError,
                ValueError,
                decimal.InvalidOperation,
            ):  # naive beside aware, a date beside a time, a text that is none
                return False

        return _compared(operand, holds, less=less, equal=equal, greater=greater)

    return made


def _one_of(name: str, operand: Any) -> _Condition:
    if not isinstance(operand, (list, tuple, set, frozenset)):
        raise FilterError(f"{name} takes a list, not {_shown(operand)}")
    for option in operand:
        _check_plain_depth(option, MAX_NESTING)
    tests = [_equals(option) for option in operand]
    return _Condition(
        lambda value: any(test.holds(value) for test in tests),
        _items.any_of(test.encoded for test in tests),
    )


def _exists(name: str, operand: Any) -> _Condition:
    if not isinstance(operand, bool):
        raise FilterError(f"{name} takes True or False, not {_shown(operand)}")
    return _Condition(lambda value: (value is not _MISSING) is operand, _items.exists(operand))


_OPERATORS: Final[dict[str, Callable[[str, Any], _Condition]]] = {
    "$eq": _operand_equals,
    "$ne": _negated(_operand_equals),
    "$gt": _ordering(lambda value, operand: value > operand, greater=True),
    "$gte": _ordering(lambda value, operand: value >= operand, equal=True, greater=True),
    "$lt": _ordering(lambda value, operand: value < operand, less=True),
    "$lte": _ordering(lambda value, operand: value <= operand, less=True, equal=True),
    "$in": _one_of,
    "$nin": _negated(_one_of),
    "$exists": _exists,
}


# --- combining -----------------------------------------------------------------------------

_Make = Callable[[Any, int], _Condition]


def _both(name: str, operand: Any, depth: int, make: _Make) -> _Condition:
    return _all(_parts(name, operand, depth, make))


def _either(name: str, operand: Any, depth: int, make: _Make) -> _Condition:
    tests = _parts(name, operand, depth, make)
    return _Condition(
        lambda value: any(test.holds(value) for test in tests),
        _items.any_of(test.encoded for test in tests),
    )


def _neither(_name: str, operand: Any, depth: int, make: _Make) -> _Condition:
    return _opposite(make(operand, depth - 1))


def _parts(name: str, operand: Any, depth: int, make: _Make) -> list[_Condition]:
    if not isinstance(operand, (list, tuple)) or not operand:
        raise FilterError(f"{name} takes a list of one or more, not {_shown(operand)}")
    return [make(part, depth - 1) for part in operand]


_COMBINERS: Final[dict[str, Callable[[str, Any, int, _Make], _Condition]]] = {
    "$and": _both,
    "$or": _either,
    "$not": _neither,
}


def _all(tests: list[_Condition]) -> _Condition:
    if len(tests) == 1:
        return tests[0]
    return _Condition(
        lambda value: all(test.holds(value) for test in tests),
        _items.all_of(test.encoded for test in tests),
    )


# --- bounds --------------------------------------------------------------------------------


def _check_depth(depth: int) -> None:
    if depth < 0:
        raise FilterError(f"a filter nests deeper than {MAX_NESTING} levels, or holds itself")


def _check_plain_depth(operand: Any, depth: int) -> None:
    _check_depth(depth)
    if isinstance(operand, Mapping):
        for part in operand.values():
            _check_plain_depth(part, depth - 1)
    elif isinstance(operand, (list, tuple)):
        for part in operand:
            _check_plain_depth(part, depth - 1)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."
