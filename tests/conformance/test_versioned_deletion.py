"""What is deleted is freed, and nothing else; copies go their own way."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

import lgkv
from lgkv.checkpoints import writing
from lgkv.langgraph import LgkvSaver, StrictSerializer
from lgkv.langgraph.serde import SerdeCodec
from tests.conformance.checkpoints import config_of, id_of, put
from tests.conformance.growing import PAD, VALUES, as_list, grow, history, read
from tests.conformance.stored import audit, stored_thread
from tests.model.elsewhere import Elsewhere


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    process = Elsewhere()
    yield process
    process.close()


@pytest.mark.parametrize("kind", VALUES)
def test_pruning_leaves_exactly_what_is_used(
    db: lgkv.Database, saver: LgkvSaver, kind: str
) -> None:
    configs = grow(saver, VALUES[kind])
    for keep_last in (10, 3, 1):
        saver.prune(["t"], keep_last=keep_last)
        audit(db)
        assert history(saver) == {
            id_of(config): as_list(VALUES[kind](number))
            for number, config in list(enumerate(configs, 1))[-keep_last:]
        }
    saver.delete_thread("t")
    assert stored_thread(db) is None
    assert db.stats().records["threads"] == 0


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("runs", [["run0"], ["run3"], ["run6"], ["run1", "run4"]], ids=str)
def test_deleting_runs_frees_what_only_they_use(
    db: lgkv.Database, saver: LgkvSaver, kind: str, runs: list[str]
) -> None:
    configs = grow(saver, VALUES[kind])
    saver.delete_for_runs(runs)
    audit(db)
    left = {
        id_of(config): as_list(VALUES[kind](number))
        for number, config in enumerate(configs, 1)
        if f"run{number // 5}" not in runs
    }
    assert history(saver) == left
    db._connection.shelf.clear()
    assert history(saver) == left


def test_pieces_with_a_gap_between_them_are_not_merged(db: lgkv.Database, saver: LgkvSaver) -> None:
    def message(name: str, size: int) -> dict[str, str]:
        return {"id": name, "text": "".join(random.Random(name).choices("0123456789", k=size))}

    small = [message(str(at), 200) for at in range(5)]
    said = [*small, message("large", 40_000), message("after", 1_200)]
    config = None
    for step, value in enumerate(
        (small, said[:6], said, [*small, said[6]], [*small, said[6], message("last", 1_500)]), 1
    ):
        config = put(saver, config, {"said": value}, {"said": step})
        saver.prune(["t"])
        audit(db)
    db._connection.shelf.clear()
    found = read(saver, config, "said")
    assert [each["id"] for each in found] == ["0", "1", "2", "3", "4", "after", "last"]


def test_pruned_thread_is_about_as_small_as_a_new_one(db: lgkv.Database, saver: LgkvSaver) -> None:
    grow(saver, VALUES["changing dict"], steps=100)
    saver.prune(["t"])
    put(saver, config_of("new"), {"a": VALUES["changing dict"](100)}, {"a": "1"})
    [new, old] = db.threads()
    assert (new.thread_id, old.thread_id) == ("new", "t")
    assert old.size_bytes <= 4 * new.size_bytes


@pytest.mark.parametrize("reader", ["same memory", "cold", "another process"])
@pytest.mark.parametrize("gone", ["newest run", "all but the oldest", "pruned"])
def test_number_of_a_freed_element_is_never_another_elements(
    db: lgkv.Database, elsewhere: Elsewhere, path: str, gone: str, reader: str
) -> None:
    """A template of what was freed must not be taken for what came after it."""
    saver = LgkvSaver(db, serde=StrictSerializer())
    big = "x" * 20_000  # a piece of its own: it can be freed without the rest
    first = put(saver, None, {"a": ["0" + PAD, big]}, {"a": "1"}, metadata={"run_id": "one"})
    second = put(
        saver, first, {"a": ["0" + PAD, big, big + "2"]}, {"a": "2"}, metadata={"run_id": "two"}
    )
    third = put(
        saver,
        second,
        {"a": ["0" + PAD, big, big + "2", big + "3"]},
        {"a": "3"},
        metadata={"run_id": "two"},
    )
    assert len(read(saver, third)) == 4  # the templates of all are held now
    if reader == "another process":
        assert len(elsewhere("digests", path, "strict", "t")) == 3
    if gone == "pruned":
        fork = put(saver, first, {"a": ["0" + PAD, big]}, {"a": "f"}, metadata={"run_id": "f"})
        saver.prune(["t"])
        first = fork
    else:
        saver.delete_for_runs(["two"])
    audit(db)
    again = put(saver, first, {"a": ["0" + PAD, big, big + "other"]}, {"a": "4"})
    more = put(saver, again, {"a": ["0" + PAD, big, big + "other", "last"]}, {"a": "5"})
    if reader == "cold":
        db._connection.shelf.clear()
    want = ["0" + PAD, big, big + "other", "last"]
    assert read(saver, more) == want
    assert read(saver, again) == want[:3]
    assert read(saver, first) == want[:2]
    if reader == "another process":
        there = elsewhere("digests", path, "strict", "t")
        assert there[id_of(more)] == elsewhere_digest(want)
        elsewhere("close", path, "strict")


def elsewhere_digest(value: Any) -> str:
    from tests.model.elsewhere import digest

    return digest({"a": value})


def test_copy_is_the_same_and_goes_its_own_way(db: lgkv.Database, saver: LgkvSaver) -> None:
    configs = grow(saver, VALUES["list"], steps=12)
    before = stored_thread(db)
    saver.copy_thread("t", "c")
    copied = audit(db, "c")
    assert before is not None
    assert copied is not None
    assert copied.kinds == before.kinds
    assert history(saver, "c") == history(saver, "t")
    ends = {}
    for thread, config in (
        ("t", configs[-1]),
        ("c", config_of("c", checkpoint_id=id_of(configs[-1]))),
    ):
        ends[thread] = put(saver, config, {"a": [*VALUES["list"](12), thread]}, {"a": "new"})
    for _ in range(2):
        for thread, config in ends.items():
            assert read(saver, config) == [*VALUES["list"](12), thread]
        db._connection.shelf.clear()
    saver.delete_thread("t")
    assert read(saver, ends["c"]) == [*VALUES["list"](12), "c"]
    saver.prune(["c"])
    audit(db, "c")
    assert read(saver, ends["c"]) == [*VALUES["list"](12), "c"]


def test_thread_that_was_deleted_and_made_again_has_nothing_of_the_old(
    db: lgkv.Database, saver: LgkvSaver
) -> None:
    old = put(saver, None, {"a": ["old" + PAD], "d": {f"k{n}": PAD for n in range(20)}})
    read(saver, old)
    saver.delete_thread("t")
    new = put(saver, old, {"a": ["new" + PAD], "d": {f"k{n}": PAD[1:] for n in range(20)}})
    assert read(saver, new) == ["new" + PAD]
    assert read(saver, new, "d") == {f"k{n}": PAD[1:] for n in range(20)}
    audit(db)


@pytest.mark.parametrize("kind", VALUES)
def test_checkpoint_put_again_leaves_nothing_behind(
    db: lgkv.Database, saver: LgkvSaver, kind: str
) -> None:
    configs = grow(saver, VALUES[kind], steps=6)
    for value in (VALUES[kind](6), VALUES[kind](7), [PAD], {}, None, VALUES[kind](6)):
        parent, own = configs[-2], id_of(configs[-1])
        again = put(saver, parent, {"a": value}, {"a": "6"}, checkpoint_id=own)
        assert read(saver, again) == as_list(value)
        assert read(saver, parent) == as_list(VALUES[kind](5))
        audit(db)
    child = put(saver, again, {"a": VALUES[kind](7)}, {"a": "7"})
    put(saver, parent, {"a": VALUES[kind](2)}, {"a": "6"}, checkpoint_id=own)
    assert read(saver, child) == as_list(VALUES[kind](7))
    audit(db)


def test_parent_whose_version_the_child_has_too(db: lgkv.Database, saver: LgkvSaver) -> None:
    first = put(saver, None, {"a": [PAD]}, {"a": "1"})
    second = put(saver, first, {"a": [PAD, "new"]}, {"a": "1"})  # the version is not new
    assert read(saver, second) == [PAD, "new"]
    third = put(saver, second, {"a": [PAD, "new", "er"]}, {"a": "1"})
    assert read(saver, third) == [PAD, "new", "er"]
    audit(db)


def test_value_that_is_given_and_stored_nowhere_is_stored(saver: LgkvSaver) -> None:
    # As the documentation of other savers puts a checkpoint: no version is new.
    put(saver, None, {"a": "meow", "b": ["node"]}, new=[])
    found = saver.get_tuple(config_of())
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": "meow", "b": ["node"]}


def test_value_that_was_pruned_before_its_copy_is_put_is_stored(saver: LgkvSaver) -> None:
    first = put(saver, None, {"a": ["old"]}, {"a": "1"})
    second = put(saver, first, {"a": ["new"]}, {"a": "2"})
    old = saver.get_tuple(first)
    assert old is not None
    saver.prune(["t"])
    for parent in (second, None):  # as another worker may, between a reading and the put of a copy
        put(saver, parent, old.checkpoint["channel_values"], {"a": "1"}, new=[])
        found = saver.get_tuple(config_of())
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": ["old"]}


def test_value_that_another_checkpoint_has_is_not_serialised_again(
    db: lgkv.Database, saver: LgkvSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put(saver, None, {"a": ["x"] * 50}, {"a": "1"})
    second = put(saver, first, {"a": ["y"] * 50}, {"a": "2"})
    third = put(saver, second, {"a": ["z"] * 50}, {"a": "3"})
    encoded: list[Any] = []
    encode = SerdeCodec.encode
    monkeypatch.setattr(
        SerdeCodec, "encode", lambda codec, value: encoded.append(value) or encode(codec, value)
    )
    put(saver, third, {"a": ["y"] * 50}, {"a": "2"}, new=[])  # a copy of the second
    assert encoded == []
    found = saver.get_tuple(config_of())
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": ["y"] * 50}
    audit(db)


def test_value_that_goes_while_its_copy_is_put_is_stored(
    db: lgkv.Database, saver: LgkvSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put(saver, None, {"a": ["old"] * 50}, {"a": "1"})
    second = put(saver, first, {"a": ["new"] * 50}, {"a": "2"})
    looked = writing.stored_versions

    def pruned_then(*arguments: Any) -> Any:
        found = looked(*arguments)
        monkeypatch.undo()
        saver.prune(["t"])
        return found

    monkeypatch.setattr(writing, "stored_versions", pruned_then)
    put(saver, second, {"a": ["old"] * 50}, {"a": "1"}, new=[])
    found = saver.get_tuple(config_of())
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": ["old"] * 50}
    audit(db)
