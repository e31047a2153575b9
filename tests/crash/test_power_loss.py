"""What a disk may hold after a power loss, and disks that fail: nothing acknowledged is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.crash_states import Event, Record, check_states, record_worker, states
from tests.crash.io_faults import MODES, count_events, io_faults
from tests.crash.shim import build_shim, why_no_shim

needs_shim = pytest.mark.skipif(bool(why_no_shim()), reason=why_no_shim() or "can be built")
STEPS = "14"


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_shim(tmp_path_factory.mktemp("shim"))


@needs_shim
@pytest.mark.timeout(300)
@pytest.mark.parametrize("durability", ["full", "interval"])
def test_no_power_loss_takes_an_acknowledged_step(
    shim: Path, tmp_path: Path, durability: str
) -> None:
    record = record_worker(shim, tmp_path, [STEPS, f"durability={durability}"])
    found = states(record, seed=1, subsets=2, torn=2)
    result = check_states(found, tmp_path, setting="short")

    assert result.faults == []
    assert result.checked > (50 if durability == "full" else 20)
    assert result.steps == int(STEPS)


@needs_shim
@pytest.mark.timeout(300)
def test_worker_that_does_not_wait_for_the_disk_is_caught(shim: Path, tmp_path: Path) -> None:
    record = record_worker(shim, tmp_path, ["3", "wrong=unsynced"])
    result = check_states(states(record, seed=1, subsets=1, torn=0), tmp_path, setting="control")

    assert any("lost 0:" in fault for fault in result.faults)


@needs_shim
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "options", [["5"], ["14", "durability=interval"]], ids=["full", "interval"]
)
def test_failing_disk_costs_nothing_acknowledged(
    shim: Path, tmp_path: Path, options: list[str]
) -> None:
    events = count_events(shim, tmp_path, options)
    points = [(mode, events * (at + 1) // len(MODES)) for at, mode in enumerate(MODES)]
    result = io_faults(shim, tmp_path, points, options)

    assert result.faults == []
    assert result.checked == len(points)
    assert result.steps > 0


def test_states_are_those_that_the_syncs_allow() -> None:
    def write(offset: int, body: bytes, *, durable: bool = False) -> Event:
        return Event("W", offset=offset, body=body, durable=durable)

    events = [
        Event("M", body=b"TRY 0:0\n"),
        write(0, b"aa"),
        write(2, b"bb"),
        Event("S"),
        write(4, b"c", durable=True),
        Event("M", body=b"ACK 0:0\n"),
        Event("T", offset=3),
    ]
    found = list(states(Record(b"....", events), seed=1))

    assert {state.image for state in found} == {
        b"....", b"aa..", b"..bb", b"aabb", b"aabbc", b"aab",
    }  # fmt: skip
    assert {state.image for state in found if state.acknowledged} == {b"aabbc", b"aab"}
