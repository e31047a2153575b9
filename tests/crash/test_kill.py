"""Writers that are killed: what they were told is written is there, and nothing by halves."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import lgkv
from tests.crash.checker import Checker, check
from tests.crash.kill_loop import kill_loop
from tests.crash.workload import STEPS, expected, last_step, observed, take_step


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Give a file with forty steps of lane 0."""
    path = tmp_path / "written.lgkv"
    with lgkv.open(path, map_size_bytes=1 << 28) as db:
        for number in range(40):
            take_step(db, 0, number)
    return path


def test_lane_holds_what_is_expected_after_every_step(tmp_path: Path) -> None:
    with lgkv.open(tmp_path / "m.lgkv") as db:
        assert observed(db, 0) == expected(0, -1)
        for number in range(12 * len(STEPS)):
            take_step(db, 0, number)
            assert observed(db, 0) == expected(0, number)
        assert last_step(db, 0) == number


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("writers", "cycles"), [(1, 10), (2, 7)])
def test_killed_writers_leave_every_acknowledged_step(
    tmp_path: Path, writers: int, cycles: int
) -> None:
    result = kill_loop(tmp_path, seed=writers, cycles=cycles, writers=writers, fresh_every=5)

    assert result.faults == []
    assert result.checked == cycles
    assert result.steps >= cycles * writers


# --- that a pass means something -----------------------------------------------------------


@pytest.mark.timeout(300)
def test_worker_that_acknowledges_too_early_is_caught(tmp_path: Path) -> None:
    result = kill_loop(tmp_path, seed=1, cycles=3, worker=["wrong=early"], longest_s=0.01)

    assert any("lost 0:" in fault for fault in result.faults), result


def test_lost_step_is_found(written: Path) -> None:
    assert check(str(written), ["0:39"], []).why == ""
    assert check(str(written), ["0:38"], ["0:39"]).why == ""
    assert "lost 0:40" in check(str(written), ["0:40"], []).why
    assert "nobody tried" in check(str(written), ["0:38"], []).why
    assert check(str(written), ["0:39", "1:0"], []).why.startswith("lane 1 lost 1:0")


def test_step_that_is_there_by_halves_is_found(written: Path) -> None:
    with lgkv.open(written, map_size_bytes=1 << 28) as db:
        db.memory.delete(("0", "many", "deep"), "right 5")

    assert "by halves" in check(str(written), ["0:39"], []).why


def test_missing_file_is_found(tmp_path: Path) -> None:
    assert check(str(tmp_path / "none.lgkv"), [], ["0:0"]).why == ""
    assert "no file" in check(str(tmp_path / "none.lgkv"), ["0:0"], []).why


def test_damaged_file_is_found(written: Path, tmp_path: Path) -> None:
    with Checker() as checker:
        assert checker.check(written, ["0:39"], []).last == {"0": 39}
        places = [part / 10 for part in range(1, 10)]  # some pages hold nothing any more
        for at in places:
            damaged = Path(shutil.copyfile(written, tmp_path / f"{at}.lgkv"))
            image = bytearray(damaged.read_bytes())
            middle = int(len(image) * at) & ~4095
            image[middle : middle + 4096] = bytes(4096)
            damaged.write_bytes(image)
        faults = [checker.check(tmp_path / f"{at}.lgkv", ["0:39"], []).why for at in places]

    assert any(faults)
