"""Checkpoints within an interval, and a map that is full: what was acknowledged is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lgkv
from lgkv import MapFullError
from lgkv.langgraph import LgkvSaver
from tests.conformance.checkpoints import put

PAD = "some text to fill the file with. "


def acknowledged_until_full(db: lgkv.Database, most: int) -> tuple[list[Any], bool]:
    """Put checkpoints that build on each other; return their configs, and whether all fitted."""
    saver, configs, said = LgkvSaver(db), [], []
    for step in range(most):
        said.append({"id": str(step), "text": f"{step} {PAD * (step % 40)}"})
        try:
            parent = configs[-1] if configs else None
            configs.append(put(saver, parent, {"said": list(said)}, {"said": f"{step + 1:032}"}))
        except MapFullError:
            return configs, False
    return configs, True


def found(path: Path) -> list[list[str]]:
    with lgkv.open(path) as db:
        values = [each.checkpoint["channel_values"] for each in LgkvSaver(db).list(None)]
        return [[said["id"] for said in value["said"]] for value in values][::-1]


@pytest.mark.parametrize("size", [300_000, 1 << 19, 1 << 20])
def test_map_that_grows_at_the_flush_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("lgkv.opening._map_sizes", lambda _: (size,))
    path = tmp_path / "a.lgkv"
    with lgkv.open(path, durability="interval", interval_ms=60_000) as db:
        configs, fitted = acknowledged_until_full(db, 400)
        assert fitted
        assert db.stats().map_growths
    monkeypatch.undo()
    assert found(path) == [[str(at) for at in range(step + 1)] for step in range(len(configs))]


@pytest.mark.parametrize("durability", ["full", "interval"])
def test_full_map_takes_no_more_and_keeps_what_it_took(tmp_path: Path, durability: str) -> None:
    path = tmp_path / "a.lgkv"
    with lgkv.open(path, durability=durability, interval_ms=60_000, map_size_bytes=1 << 20) as db:
        configs, fitted = acknowledged_until_full(db, 4_000)
        assert not fitted
        assert len(configs) > 20
        for config in configs[-3:]:
            assert LgkvSaver(db).get_tuple(config) is not None
    assert path.stat().st_size <= (1 << 20) + (1 << 18)
    assert found(path) == [[str(at) for at in range(step + 1)] for step in range(len(configs))]
