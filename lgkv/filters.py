"""Filters: which values a search or a listing keeps.

A filter is a mapping from field names to conditions; every one must hold. A condition is a
plain value (equal), a mapping of operators (`$gt` and the like, all must hold), a mapping
of fields (nested), or a list (element by element). `$and`, `$or` and `$not` combine filters
among the fields, and conditions on one field.

Values are compared by type and never as text: a number does not match a string, and as in
Python `True == 1`. A missing field is `None`, except to `$exists`.
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Mapping
from typing import Any, Final

from lgkv.errors import FilterError

__all__ = ["Predicate", "compile_filter", "matches", "validate_filter"]

Predicate = Callable[[Any], bool]

MAX_NESTING: Final = 100
"""The deepest nesting of a filter."""


class _Missing:
    """Stands for a field that is not there."""


_MISSING: Final = _Missing()
_NUMBERS: Final = (int, float, decimal.Decimal)
_ORDERED: Final = (_NUMBERS, (str,), (bytes,), (datetime.datetime,), (datetime.date,))


def matches(value: Mapping[str, Any], filter: Mapping[str, Any] | None) -> bool:
    """Whether `value` meets every condition of `filter`; an empty filter keeps everything.

    Raises:
        FilterError: An operator is unknown or has an operand of the wrong type.
    """
    return compile_filter(filter)(value)


def validate_filter(filter: Mapping[str, Any] | None) -> None:
    """Raise FilterError if an operator is unknown or has an operand of the wrong type."""
    compile_filter(filter)


def compile_filter(filter: Mapping[str, Any] | None) -> Predicate:
    """Return the test that `filter` stands for, all of it checked.

    Raises:
        FilterError: An operator is unknown or has an operand of the wrong type.
    """
    return _fields({} if filter is None else filter, MAX_NESTING)


# --- fields --------------------------------------------------------------------------------


def _fields(filter: Any, depth: int) -> Predicate:
    """Return the test of a whole filter: fields, and `$and`, `$or`, `$not` among them."""
    if not isinstance(filter, Mapping):
        raise FilterError(f"a filter is a mapping of fields to conditions, not {_shown(filter)}")
    _check_depth(depth)
    tests: list[Predicate] = []
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


def _field(name: str, test: Predicate) -> Predicate:
    def holds(value: Any) -> bool:
        return test(value.get(name, _MISSING))

    return holds


def _misplaced(name: str) -> str:
    if name in _OPERATORS:
        return f"the operator {name} tests a field: write {{'field': {{{name!r}: ...}}}}"
    return f"unknown operator {name!r}: use {', '.join(sorted((*_OPERATORS, *_COMBINERS)))}"


# --- conditions on one value ---------------------------------------------------------------


def _condition(condition: Any, depth: int) -> Predicate:
    _check_depth(depth)
    if isinstance(condition, Mapping):
        return _mapping_condition(condition, depth)
    if isinstance(condition, (list, tuple)):
        return _elements([_condition(element, depth - 1) for element in condition])
    return _equals(condition)


def _mapping_condition(condition: Mapping[Any, Any], depth: int) -> Predicate:
    marked = [isinstance(name, str) and name.startswith("$") for name in condition]
    if not any(marked):
        test = _fields(condition, depth)
        return lambda value: isinstance(value, Mapping) and test(value)
    if not all(marked):
        raise FilterError(
            f"operators and fields stand side by side in {_shown(condition)}: nest one of them"
        )
    return _all([_operator(name, operand, depth) for name, operand in condition.items()])


def _operator(name: str, operand: Any, depth: int) -> Predicate:
    if name in _COMBINERS:
        return _COMBINERS[name](name, operand, depth, _condition)
    if name not in _OPERATORS:
        raise FilterError(_misplaced(name))
    return _OPERATORS[name](name, operand)


def _elements(tests: list[Predicate]) -> Predicate:
    def holds(value: Any) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(tests)
            and all(test(element) for test, element in zip(tests, value, strict=True))
        )

    return holds


def _equals(operand: Any) -> Predicate:
    return lambda value: _equal(value, operand)


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
        return bool(value == operand)
    except (TypeError, ValueError):  # an array is neither equal nor unequal to anything
        return False


# --- operators -----------------------------------------------------------------------------


def _operand_equals(_name: str, operand: Any) -> Predicate:
    _check_plain_depth(operand, MAX_NESTING)
    return _equals(operand)


def _negated(make: Callable[[str, Any], Predicate]) -> Callable[[str, Any], Predicate]:
    def made(name: str, operand: Any) -> Predicate:
        test = make(name, operand)
        return lambda value: not test(value)

    return made


def _ordering(compare: Callable[[Any, Any], bool]) -> Callable[[str, Any], Predicate]:
    def made(name: str, operand: Any) -> Predicate:
        alike = next((kinds for kinds in _ORDERED if isinstance(operand, kinds)), None)
        if alike is None:
            raise FilterError(
                f"{name} takes a number, a str, bytes or a date, not {_shown(operand)}"
            )

        def holds(value: Any) -> bool:
            try:
                return isinstance(value, alike) and bool(compare(value, operand))
            except (
                TypeError,
                decimal.InvalidOperation,
            ):  # naive beside aware, a date beside a time
                return False

        return holds

    return made


def _one_of(name: str, operand: Any) -> Predicate:
    if not isinstance(operand, (list, tuple, set, frozenset)):
        raise FilterError(f"{name} takes a list, not {_shown(operand)}")
    for option in operand:
        _check_plain_depth(option, MAX_NESTING)
    options = tuple(operand)
    return lambda value: any(_equal(value, option) for option in options)


def _exists(name: str, operand: Any) -> Predicate:
    if not isinstance(operand, bool):
        raise FilterError(f"{name} takes True or False, not {_shown(operand)}")
    return lambda value: (value is not _MISSING) is operand


_OPERATORS: Final[dict[str, Callable[[str, Any], Predicate]]] = {
    "$eq": _operand_equals,
    "$ne": _negated(_operand_equals),
    "$gt": _ordering(lambda value, operand: value > operand),
    "$gte": _ordering(lambda value, operand: value >= operand),
    "$lt": _ordering(lambda value, operand: value < operand),
    "$lte": _ordering(lambda value, operand: value <= operand),
    "$in": _one_of,
    "$nin": _negated(_one_of),
    "$exists": _exists,
}


# --- combining -----------------------------------------------------------------------------

_Make = Callable[[Any, int], Predicate]


def _both(name: str, operand: Any, depth: int, make: _Make) -> Predicate:
    return _all(_parts(name, operand, depth, make))


def _either(name: str, operand: Any, depth: int, make: _Make) -> Predicate:
    tests = _parts(name, operand, depth, make)
    return lambda value: any(test(value) for test in tests)


def _neither(_name: str, operand: Any, depth: int, make: _Make) -> Predicate:
    test = make(operand, depth - 1)
    return lambda value: not test(value)


def _parts(name: str, operand: Any, depth: int, make: _Make) -> list[Predicate]:
    if not isinstance(operand, (list, tuple)) or not operand:
        raise FilterError(f"{name} takes a list of one or more, not {_shown(operand)}")
    return [make(part, depth - 1) for part in operand]


_COMBINERS: Final[dict[str, Callable[[str, Any, int, _Make], Predicate]]] = {
    "$and": _both,
    "$or": _either,
    "$not": _neither,
}


def _all(tests: list[Predicate]) -> Predicate:
    if len(tests) == 1:
        return tests[0]
    return lambda value: all(test(value) for test in tests)


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
