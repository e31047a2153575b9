"""Clones that came back: given out again if nobody holds anything of them and all is as it was."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from pydantic import BaseModel

from lgkv import _shadow
from lgkv._shadow import Node, clone_all, run_length
from lgkv.codec import reference
from tests.unit.shadows import MODELS, exactly, values, wreck
from tests.unit.test_shadow import MUTATIONS, rich

pytestmark = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="without the lock of the interpreter a reference count says nothing",
)

HOLDERS: dict[str, Callable[[AIMessage], Any]] = {
    "message": lambda m: m,
    "fields": lambda m: m.__dict__,
    "kwargs": lambda m: m.additional_kwargs,
    "deep dict": lambda m: m.additional_kwargs["deep"],
    "deep list": lambda m: m.additional_kwargs["deep"]["er"],
    "content": lambda m: m.content,
    "tool call": lambda m: m.tool_calls[0],
    "extra": lambda m: m.__pydantic_extra__,
    "extra value": lambda m: m.moods,
    "set fields": lambda m: m.__pydantic_fields_set__,
    "view": lambda m: m.additional_kwargs.items(),
    "iterator": lambda m: iter(m.tool_calls),
    "method": lambda m: m.tool_calls.append,
    "weak reference": weakref.ref,
}

CHANGES: dict[str, Callable[[AIMessage], Any]] = {
    **MUTATIONS,
    "set fields": lambda m: m.__pydantic_fields_set__.add("name"),
    "fewer set fields": lambda m: m.__pydantic_fields_set__.clear(),
    "other set fields": lambda m: m.__pydantic_fields_set__.symmetric_difference_update(
        {"content", "surprise"}
    ),
    "private": lambda m: object.__setattr__(m, "__pydantic_private__", {}),
    "class": lambda m: object.__setattr__(m, "__class__", HumanMessage),
    "equal float": lambda m: m.response_metadata["usage"].update(n=True),
    "fields of another kind": lambda m: object.__setattr__(m, "__dict__", dict(m.__dict__)),
}


def node_of(value: Any) -> Node:
    node = _shadow.build(value, MODELS, decoded=True)
    assert node is not None
    return node


def give(*nodes: Node) -> list[Any]:
    return clone_all(list(nodes), None)


def test_clone_that_nobody_holds_is_given_out_again() -> None:
    node = node_of(rich())
    first = id(give(node)[0])
    assert [id(give(node)[0]) for _ in range(5)] == [first] * 5
    assert exactly(give(node)) == exactly([rich()])


@pytest.mark.parametrize("value", [rich(), {"role": "user", "parts": [1, {}]}, [1, [2.0], {}]])
def test_two_clones_take_turns_where_each_is_held_until_the_next(value: Any) -> None:
    node = node_of(value)
    held, met = give(node), set()
    for _ in range(10):
        met.add(id(held[0]))
        held = give(node)
        assert exactly(held) == exactly([value])
    assert len(met) == 2


@pytest.mark.parametrize("name", HOLDERS)
def test_clone_of_which_somebody_holds_a_part_stays_theirs(name: str) -> None:
    node = node_of(rich())
    held = HOLDERS[name](give(node)[0])
    for _ in range(3):
        [other] = give(node)
        assert exactly(other) == exactly(rich())
        wreck(other)
        del other
    if isinstance(held, (list, dict, set, BaseModel)):
        assert exactly(held) == exactly(HOLDERS[name](rich()))


@pytest.mark.parametrize("name", CHANGES)
def test_clone_that_was_changed_is_not_given_out(name: str) -> None:
    node = node_of(rich())
    CHANGES[name](give(node)[0])
    for _ in range(3):
        assert exactly(give(node)) == exactly([rich()])


def test_elements_of_any_size_are_given_and_compared_in_a_long_list() -> None:
    # What lies ahead in the list is fetched; of elements of many pieces, a part.
    wide = {f"name {at}": {"at": at, "parts": [[], {}, (at, [at])]} for at in range(200)}
    kinds = [rich(), wide, [wide, [rich().additional_kwargs]], "text", 1.5, None, {}, [], b"bytes"]
    values = [kinds[at % len(kinds)] for at in range(20 * len(kinds))]
    nodes = [node_of(value) for value in values]
    wanted = exactly([reference.clone(_reference(value)) for value in values])
    held: list[Any] = []
    for turn in range(8):
        fresh = clone_all(nodes, None)
        assert exactly(fresh) == wanted
        assert run_length(nodes, 0, fresh, 0, None) == len(nodes)
        assert run_length(nodes[3:], 0, fresh, 3, None) == len(nodes) - 3
        if turn % 3:
            held = fresh
        else:
            held.clear()
        del fresh


def test_node_that_a_list_has_twice_gives_two_clones() -> None:
    node = node_of({"a": [1]})
    give(node)
    one, other, third = give(node, node, node)
    assert len({id(one), id(other), id(third)}) == 3


@given(st.lists(values(), min_size=1, max_size=4), st.data())
def test_what_is_given_out_is_right_and_nobody_elses(kinds: list[Any], data: st.DataObject) -> None:
    made = [(node, value) for value in kinds if (node := _shadow.build(value, MODELS, True))]  # noqa: FBT003
    nodes = [node for node, _ in made]
    wanted = [exactly(reference.clone(_reference(value))) for _, value in made]
    held: list[list[Any]] = []
    for _ in range(data.draw(st.integers(1, 6))):
        given_out = clone_all(list(nodes), None)
        assert [exactly(value) for value in given_out] == wanted
        assert not _parts(given_out) & {part for values in held for part in _parts(values)}
        for value in given_out:
            if data.draw(st.booleans()):
                wreck(value)
        if data.draw(st.booleans()):
            held.append(given_out)
        if held and data.draw(st.booleans()):
            held.pop(0)
        del given_out


def _reference(value: Any) -> reference.Node:
    node = reference.build(value, MODELS, decoded=True)
    assert node is not None
    return node


def _parts(value: Any) -> set[int]:
    """Return the identities of everything in a value that can be changed."""
    return {id(part) for part in _changeable(value)}


def _changeable(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, dict, set, BaseModel)):
        yield value
    if isinstance(value, BaseModel):
        parts = (value.__dict__, value.__pydantic_extra__, value.__pydantic_fields_set__)
        for part in parts:
            yield from _changeable(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _changeable(part)
    elif isinstance(value, list):
        for part in value:
            yield from _changeable(part)


class Heavy:
    """What somebody puts into a message."""


def test_clone_that_was_found_changed_is_let_go() -> None:
    node = node_of(rich())
    [mine] = give(node)
    heavy = Heavy()
    gone = weakref.ref(heavy)
    mine.additional_kwargs["image"] = heavy
    del heavy
    assert run_length([node], 0, [mine], 0, None) == 0
    del mine
    gc.collect()
    assert gone() is None


def test_node_keeps_two_clones_at_most() -> None:
    node, heavies = node_of(rich()), []
    for _ in range(5):
        [mine] = give(node)
        mine.additional_kwargs["image"] = heavy = Heavy()
        heavies.append(weakref.ref(heavy))
        del mine, heavy
    gc.collect()
    assert sum(gone() is not None for gone in heavies) <= 2


def test_threads_never_get_the_same_clone() -> None:
    nodes = [node_of(rich()) for _ in range(20)]
    wanted, wrong = exactly(rich()), []
    start = threading.Barrier(4)

    def read(me: int) -> None:
        start.wait()
        for turn in range(200):
            for message in clone_all(nodes, None):
                if exactly(message) != wanted:
                    wrong.append(message)
                message.additional_kwargs["mine"] = (me, turn)
                if message.additional_kwargs["mine"] != (me, turn):
                    wrong.append(message)
                if turn % 2:
                    del message.additional_kwargs["mine"]

    threads = [threading.Thread(target=read, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
