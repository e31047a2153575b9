"""What the tests of the LangGraph classes share: a file, a handle on it, a saver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lgkv
from lgkv.langgraph import LgkvSaver
from lgkv.snapshot import Snapshot


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the file will be."""
    return str(tmp_path / "agent.lgkv")


@pytest.fixture
def db(path: str) -> Iterator[lgkv.Database]:
    """Give an open database, closed afterwards."""
    with lgkv.open(path) as opened:
        yield opened


@pytest.fixture
def saver(db: lgkv.Database) -> LgkvSaver:
    """Give a saver with the default, strict serialiser."""
    return LgkvSaver(db)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the records that are looked up and walked over, in every snapshot."""
    counted: Counter[str] = Counter()
    get, walk = Snapshot.get, Snapshot._walk

    def counting_get(self: Snapshot, *args: Any) -> bytes | None:
        counted["get"] += 1
        return get(self, *args)

    def counting_walk(self: Snapshot, *args: Any, **options: Any) -> Iterator[Any]:
        for found in walk(self, *args, **options):
            counted["walk"] += 1
            yield found

    monkeypatch.setattr(Snapshot, "get", counting_get)
    monkeypatch.setattr(Snapshot, "_walk", counting_walk)
    return counted
