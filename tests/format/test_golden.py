"""A file that is kept in the repository is read as ever, and is what the code still writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

import lgkv
from lgkv.codec.plan import Form
from lgkv.keys import unpack_uint
from lgkv.langgraph import LgkvSaver
from lgkv.layout import FORMAT_VERSION, Kind, Table, decode_plain
from tests.format import make_golden as golden
from tests.invariants import (
    all_records,
    broken_invariants,
    orphaned_values,
    structural_damage,
)

REMEDY = """\
The code writes other records than those of tests/format/{name} for the same calls.
If that is wanted, and files on people's disks are read as before, make the golden file anew:
`python -m tests.format.make_golden`. If records have a new form, readers of older versions would
misread them: change docs/FORMAT.md, FORMAT_VERSION or a feature bit in lgkv/layout.py, and the
golden file together, and keep the old golden file for a test that it is still read.
Differing: {differing}"""


@pytest.fixture
def clock() -> Iterator[golden.Clock]:
    with golden.standing_clock() as clock:
        yield clock


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copyfile(golden.GOLDEN, tmp_path / "copy.lgkv"))


def expected() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(golden.CONTENTS.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("mode", ["c", "w", "r"])
def test_golden_file_is_read_as_when_it_was_written(
    copy: Path, clock: golden.Clock, mode: str
) -> None:
    clock.wait(10)
    with lgkv.open(copy, mode=mode) as db:
        assert expected() == {**golden.contents(db), "serialised": ANY}
        assert db.stats().format_version == FORMAT_VERSION


def test_golden_file_is_sound(copy: Path) -> None:
    assert structural_damage(str(copy)) == []
    with lgkv.open(copy, mode="r") as db:
        assert broken_invariants(db) == []
        assert orphaned_values(db) == set()


def test_golden_file_has_every_kind_of_record_and_every_form_of_a_value(copy: Path) -> None:
    kinds, forms = set(), set()
    with lgkv.open(copy, mode="r") as db, db._connection.snapshot() as snapshot:
        for table in (Table.THREADS, Table.MEMORY, Table.NAMES, Table.INDEX):
            for key, body, _ in all_records(snapshot, table):
                kind = key[unpack_uint(key, 0)[1] if table is Table.THREADS else 0]
                kinds.add(kind)
                if kind == Kind.CHECKPOINT:
                    forms |= {packed[0] for packed in decode_plain(body)[8][2::3] if packed}

    assert kinds == set(Kind)
    assert forms == set(Form) - {Form.EMPTY}


def test_deadlines_of_the_golden_file_are_kept(copy: Path, clock: golden.Clock) -> None:
    clock.wait(120)
    with lgkv.open(copy, mode="w") as db:
        assert db.memory.get(("users", "bob"), "short") is None
        assert db.memory.get(("users", "bob"), "tea") is not None
        assert db.cache.get(("node", "a"), "plain") is None
        assert db.memory.sweep() >= 1
        assert broken_invariants(db) == []


def test_golden_file_takes_writes(copy: Path, clock: golden.Clock) -> None:
    with lgkv.open(copy, mode="w") as db:
        saver = LgkvSaver(db)
        config = golden.config_of("chat", number=4)
        values = {"messages": golden.messages(5), "turn": 5}
        golden.put(saver, config, 5, values, {"messages": 5, "turn": 5})
        saver.prune(["chat", "wide", "fork"])
        db.memory.put(("users", "ann"), "tea", {"likes": False}, vectors=[0.0, 0.0, 1.0])
        db.cache.set(("node", "a"), "plain", "new")
    clock.wait(1)
    with lgkv.open(copy, mode="w") as db:
        found = LgkvSaver(db).get_tuple(golden.config_of("chat"))
        assert found is not None
        assert found.checkpoint["channel_values"] == values
        [first] = db.memory.search(("users",), vector=[0.0, 0.0, 1.0], limit=1)
        assert first.namespace == ("users", "ann")
        assert db.cache.get(("node", "a"), "plain") == "new"
        assert broken_invariants(db) == []
        assert orphaned_values(db) == set()


def test_code_still_writes_the_records_of_the_golden_file(
    copy: Path, tmp_path: Path, clock: golden.Clock
) -> None:
    if golden.serialised() != expected()["serialised"]:
        pytest.skip("this LangChain serialises messages otherwise than when the file was made")

    golden.write_all(tmp_path / "made.lgkv", clock)
    with lgkv.open(copy, mode="r") as old, lgkv.open(tmp_path / "made.lgkv", mode="r") as new:
        kept, made = golden.records(old), golden.records(new)

    differing = sorted(key for key in kept.keys() | made.keys() if kept.get(key) != made.get(key))
    assert not differing, REMEDY.format(name=golden.GOLDEN.name, differing=differing[:10])
