"""The tree of namespaces: labels of every kind, counting, removal, order."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgkv.connection import Connection, connect
from lgkv.env import Options
from lgkv.errors import CorruptionError
from lgkv.keys import pack_bytes
from lgkv.layout import Kind, Table, encode_fields
from lgkv.nodes import Node, Paths, Tree, Wanted, find_node, walk_nodes
from lgkv.writer import Batch, Change

LONG = "x" * 100_000


def count_items(tree: Tree, node: Node, change: int) -> None:
    """Have so many items more in `node`."""
    node.items += change
    tree.changed(node)


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    return connect(str(tmp_path / "a.lgkv"), "c", Options())


def add(connection: Connection, *namespaces: tuple[str, ...], change: int = 1) -> None:
    def apply(batch: Batch) -> None:
        tree = Tree(batch)
        for namespace in namespaces:
            count_items(tree, tree.make(namespace), change)
        tree.save()

    connection.commit(Change(apply))


def listed(connection: Connection, wanted: list[Wanted] | None = None) -> list[tuple[str, ...]]:
    with connection.snapshot() as snapshot:
        return [path for path, node in walk_nodes(snapshot, wanted or []) if node.items]


def records(connection: Connection) -> int:
    with connection.snapshot() as snapshot:
        return snapshot.entries(Table.MEMORY)


def test_namespace_is_found_by_all_its_labels_alone(connection: Connection) -> None:
    add(connection, ("a", "b"), ("ab",))
    with connection.snapshot() as snapshot:
        assert find_node(snapshot, ()) is None
        assert find_node(snapshot, ("a", "b", "c")) is None
        assert find_node(snapshot, ("b",)) is None
        between = find_node(snapshot, ("a",))
        found = find_node(snapshot, ("a", "b"))
    assert between is not None
    assert found is not None
    assert (between.items, between.children) == (0, 1)
    assert (found.items, found.children, found.parent) == (1, 0, between.number)


@pytest.mark.parametrize(
    "label",
    [
        "",
        "a.b",
        "a\x00b",
        "\x00",
        "\ud800",
        "é",
        "e\u0301",
        "😀",
        "*",
        LONG,
        LONG + "y",
        "\x00" * 500,
    ],
)
def test_label_of_any_text_is_one_label(connection: Connection, label: str) -> None:
    add(connection, (label,), ("first", label, "last"), ("a",), ("b",), (LONG + "z",))
    assert (label,) in listed(connection)
    assert listed(connection, [frozenset(("first",)), frozenset((label,))]) == [
        ("first", label, "last")
    ]
    with connection.snapshot() as snapshot:
        assert find_node(snapshot, (label + "?",)) is None


def test_deep_namespace_is_no_trouble(connection: Connection) -> None:
    deep = tuple(str(depth) for depth in range(3_000))
    add(connection, deep)
    assert listed(connection) == [deep]
    add(connection, deep, change=-1)
    assert records(connection) == 0


def test_empty_namespace_is_removed_with_its_empty_parents(connection: Connection) -> None:
    add(connection, ("a", "b", "c"), ("a", "d"))
    add(connection, ("a", "b", "c"), change=-1)
    with connection.snapshot() as snapshot:
        assert find_node(snapshot, ("a", "b")) is None
        assert snapshot.read_state().names_epoch == 2
    assert listed(connection) == [("a", "d")]
    add(connection, ("a", "d"), change=-1)
    assert records(connection) == 0


def test_namespace_with_children_stays_without_items(connection: Connection) -> None:
    add(connection, ("a",), ("a", "b"))
    add(connection, ("a",), change=-1)
    assert listed(connection) == [("a", "b")]


def test_numbers_are_never_given_again(connection: Connection) -> None:
    numbers = []
    for _ in range(3):
        add(connection, ("a",))
        with connection.snapshot() as snapshot:
            node = find_node(snapshot, ("a",))
            assert node is not None
            numbers.append(node.number)
        add(connection, ("a",), change=-1)
    assert numbers == [1, 2, 3]


def test_node_is_found_by_its_number_and_shared_in_a_change(connection: Connection) -> None:
    add(connection, ("a", "b"))

    def apply(batch: Batch) -> None:
        tree = Tree(batch)
        node = tree.node(2)
        assert node is tree.find(("a", "b"))
        assert node is tree.make(("a", "b"))
        count_items(tree, node, -1)
        tree.save()

    connection.commit(Change(apply))
    assert records(connection) == 0


def test_namespaces_made_and_emptied_in_one_change_leave_nothing(connection: Connection) -> None:
    def apply(batch: Batch) -> None:
        tree = Tree(batch)
        for _ in range(2):
            node = tree.make(("a", "b"))
            count_items(tree, node, 1)
            count_items(tree, node, -1)
        tree.save()

    connection.commit(Change(apply))
    assert records(connection) == 0


def test_walk_may_allow_some_labels_at_a_depth(connection: Connection) -> None:
    add(connection, ("a", "x"), ("a", "y"), ("b", "x"), ("b", "x", "z"), ("c",))
    assert listed(connection, [None, frozenset("x")]) == [("a", "x"), ("b", "x"), ("b", "x", "z")]
    assert listed(connection, [frozenset("cb")]) == [("b", "x"), ("b", "x", "z"), ("c",)]
    assert listed(connection, [frozenset()]) == []
    assert listed(connection, [None, None, None]) == [("b", "x", "z")]


LABELS = st.one_of(
    st.text(max_size=3),
    st.sampled_from(["a", "ab", "a\x00", "a\x00b", "\ud800", "\uffff", "\U0001f600"]),
    st.sampled_from(["k" * 198, "k" * 199, "k" * 200]).flatmap(
        lambda start: st.text("ab\x00", max_size=3).map(lambda end: start + end)
    ),
)
NAMESPACES = st.sets(st.lists(LABELS, min_size=1, max_size=3).map(tuple), max_size=12)


def test_namespaces_are_listed_as_sorted_and_counted(connection: Connection) -> None:
    @settings(max_examples=60)
    @given(NAMESPACES)
    def check(namespaces: set[tuple[str, ...]]) -> None:
        add(connection, *namespaces)
        assert listed(connection) == sorted(namespaces)
        add(connection, *namespaces, change=-1)
        assert records(connection) == 0

    check()


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x84\x01\x01\x00", b"\x83\x01\x01\x00", b"\x00"])
def test_damaged_node_is_named(connection: Connection, body: bytes) -> None:
    add(connection, ("a",))
    with connection.snapshot() as snapshot:
        key = next(snapshot.keys(Table.MEMORY, bytes((Kind.NODE,))))
    connection.commit(Change(lambda batch: batch.put(Table.MEMORY, key, body)))
    with connection.snapshot() as snapshot, pytest.raises(CorruptionError) as caught:
        find_node(snapshot, ("a",))
    assert (caught.value.database, caught.value.key) == ("memory", key)


@pytest.mark.parametrize("number", [1, 0, -1, 2**64])
def test_namespace_inside_itself_is_damage_and_no_endless_walk(
    connection: Connection, number: int
) -> None:
    add(connection, ("a", "b"))
    with connection.snapshot() as snapshot:
        key = next(snapshot.keys(Table.MEMORY, bytes((Kind.NODE, 1, 1))))
    body = encode_fields([number, 1, 1, None])
    connection.commit(Change(lambda batch: batch.put(Table.MEMORY, key, body)))
    with pytest.raises(CorruptionError) as caught:
        listed(connection)
    assert (caught.value.database, caught.value.key) == ("memory", key)


def test_label_that_is_no_text_is_named(connection: Connection) -> None:
    key = bytes((Kind.NODE, 0)) + pack_bytes(b"\xff")
    body = encode_fields([1, 1, 0, None])
    connection.commit(Change(lambda batch: batch.put(Table.MEMORY, key, body)))
    with pytest.raises(CorruptionError) as caught:
        listed(connection)
    assert (caught.value.database, caught.value.key) == ("memory", key)


def test_item_without_its_namespace_is_damage(connection: Connection) -> None:
    add(connection, ("a",))
    change = Change(lambda batch: Tree(batch).node(2))
    with pytest.raises(CorruptionError, match="namespace of an item is missing"):
        connection.commit(change)
    connection.commit(Change(lambda batch: batch.delete_range(Table.MEMORY, bytes((Kind.NODE,)))))
    with pytest.raises(CorruptionError, match="not where it says"):
        connection.commit(Change(lambda batch: Tree(batch).node(1)))


# --- numbers that are remembered -------------------------------------------------------------


def test_numbers_are_remembered_while_the_counters_stand_still(connection: Connection) -> None:
    paths = Paths()
    add(connection, ("a",))
    with connection.snapshot() as snapshot:
        number = paths.number(snapshot, ("a",))
        assert number is not None
        assert paths.number(snapshot, ("b",)) is None
    add(connection, ("a",))
    with connection.snapshot() as snapshot:
        assert paths.known(snapshot) == {("a",): number, ("b",): None}
    add(connection, ("b",))
    with connection.snapshot() as snapshot:
        assert paths.known(snapshot) == {}
        assert paths.number(snapshot, ("b",)) is not None
    add(connection, ("a",), change=-2)
    with connection.snapshot() as snapshot:
        assert paths.number(snapshot, ("a",)) is None


def test_nothing_is_remembered_of_a_transaction_that_is_open(connection: Connection) -> None:
    paths = Paths()

    def apply(batch: Batch) -> None:
        tree = Tree(batch)
        count_items(tree, tree.make(("a",)), 1)
        tree.save()
        assert paths.number(batch.view(), ("a",)) is not None
        raise ValueError("as if it had failed")

    with pytest.raises(ValueError, match="as if"):
        connection.commit(Change(apply))
    add(connection, ("b",))
    with connection.snapshot() as snapshot:
        assert paths.number(snapshot, ("a",)) is None
