"""The gate: one process at a time, with a limit to waiting, and a turn for each."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lmdb
import pytest

import lgkv
from lgkv import StorageError, WriteLockTimeoutError
from lgkv import gate as gate_module
from lgkv.gate import Gate
from tests.processes import Program

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files and locks")


@pytest.fixture
def path(tmp_path: Path) -> str:
    lgkv.open(tmp_path / "agent.lgkv").close()
    return str(tmp_path / "agent.lgkv")


HOLD = """
import sys, time
from lgkv.gate import Gate
gate = Gate(sys.argv[1])
gate.acquire(5)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(path: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, which holds the gate of `path` until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


class TestGate:
    def test_gate_is_taken_again_and_again(self, path: str) -> None:
        gate = Gate(path)
        for _ in range(3):
            gate.acquire(0)
            gate.release()
        gate.close()

    def test_other_descriptor_waits_its_time_and_no_longer(self, path: str) -> None:
        first, second = Gate(path), Gate(path)
        first.acquire(0)
        began = time.monotonic()
        with pytest.raises(WriteLockTimeoutError, match=r"for 0\.1 s"):
            second.acquire(0.1)
        assert 0.1 <= time.monotonic() - began < 5
        first.release()
        second.acquire(0)
        second.close()
        first.acquire(0)  # closing let go
        first.close()

    def test_process_that_holds_it_keeps_others_out(
        self, path: str, holder: subprocess.Popen[str]
    ) -> None:
        gate = Gate(path)
        with pytest.raises(WriteLockTimeoutError):
            gate.acquire(0.05)
        holder.communicate("")
        gate.acquire(5)
        gate.close()

    def test_killed_process_lets_go(self, path: str, holder: subprocess.Popen[str]) -> None:
        gate = Gate(path)
        holder.send_signal(signal.SIGKILL)
        gate.acquire(5)
        gate.close()

    @pytest.mark.usefixtures("holder")
    def test_gate_is_no_business_of_lmdbs(self, path: str) -> None:
        with (
            lmdb.open(path, subdir=False, create=False, max_dbs=4, lib_version=0) as env,
            env.begin(write=True) as txn,
        ):
            assert txn.put(b"k", b"v")

    def test_failing_lock_is_a_typed_error(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import fcntl

        def flock(*_: Any) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        gate = Gate(path)
        monkeypatch.setattr(fcntl, "flock", flock)
        with pytest.raises(StorageError, match="cannot be locked"):
            gate.acquire(0)
        monkeypatch.undo()
        gate.close()

    def test_descriptor_is_not_inherited_by_programs(self, path: str) -> None:
        gate = Gate(path)
        assert not os.get_inheritable(gate.descriptor)
        gate.close()


class Clock(SimpleNamespace):
    """A clock that goes on when somebody sleeps, and a little when it is looked at."""

    def __init__(self) -> None:
        super().__init__(now=1000.0, slept=[])

    def monotonic(self) -> float:
        self.now += 0.000_05
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class TestTurns:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        clock = Clock()
        monkeypatch.setattr(gate_module, "time", clock)
        return clock

    @pytest.fixture
    def gate(self, path: str, clock: Clock) -> Iterator[Gate]:
        assert clock.slept == []
        gate = Gate(path)
        yield gate
        gate.close()

    def test_who_comes_back_at_once_takes_a_break_after_its_turn(
        self, gate: Gate, clock: Clock
    ) -> None:
        for _ in range(1_000):
            gate.acquire(1)
            clock.now += 0.001
            gate.release()
        breaks = len(clock.slept)
        assert set(clock.slept) == {Gate._BREAK_S}
        assert 1.0 / Gate._LONGEST_TURN_S <= breaks < 1.2 / Gate._TURN_S
        assert Gate._BREAK_S > Gate._LONGEST_PAUSE_S  # else nobody finds it free

    def test_turns_are_short_again_once_somebody_waits(
        self, path: str, gate: Gate, clock: Clock
    ) -> None:
        other = Gate(path)
        for _ in range(1_000):
            gate.acquire(1)
            clock.now += 0.001
            gate.release()
        other.acquire(1)
        with pytest.raises(lgkv.WriteLockTimeoutError):
            gate.acquire(0.01)
        other.close()
        clock.slept.clear()
        for _ in range(30):
            gate.acquire(1)
            clock.now += 0.001
            gate.release()
        assert clock.slept == [Gate._BREAK_S]

    def test_who_comes_now_and_then_takes_no_break(self, gate: Gate, clock: Clock) -> None:
        for _ in range(200):
            gate.acquire(1)
            gate.release()
            clock.now += 2 * Gate._BREAK_S
        assert clock.slept == []

    def test_who_has_waited_for_long_tries_more_often(
        self, path: str, gate: Gate, clock: Clock
    ) -> None:
        holder = Gate(path)
        holder.acquire(1)
        with pytest.raises(lgkv.WriteLockTimeoutError):
            gate.acquire(1)
        pauses = clock.slept
        assert max(pauses) <= Gate._LONGEST_PAUSE_S
        patient = pauses[len(pauses) // 4 :]
        assert patient == sorted(patient, reverse=True)
        assert patient[-1] <= max(pauses) / 5
        holder.close()

    def test_wait_is_told_in_seconds(self, path: str, gate: Gate, clock: Clock) -> None:
        assert gate.acquire(1) == 0
        gate.release()
        holder = Gate(path)
        holder.acquire(1)

        def let_go(seconds: float) -> None:
            clock.now += seconds
            holder.release()

        clock.sleep = let_go  # type: ignore[method-assign]
        assert 0 < gate.acquire(1) < 0.01
        holder.close()


WRITING = """
    import sys, lgkv
    from lgkv.writer import Change
    db = lgkv.open(sys.argv[1])

    def write(batch):
        print("writing")
        input()

    db.commit(Change(write))
    print("written")
    input()
    """


def test_opening_beside_a_writer_has_a_limit(path: str) -> None:
    with Program(WRITING, path) as writer:
        assert writer.hear() == "writing"
        with pytest.raises(lgkv.WriteLockTimeoutError):
            lgkv.open(path, lock_timeout_s=0.1)
        with lgkv.open(path, mode="r") as reader:  # which needs no lock
            assert reader.threads() == []
        writer.say("go on")
        assert writer.hear() == "written"
        with lgkv.open(path, lock_timeout_s=10) as db:
            db.memory.put(("a",), "k", {})
        writer.say("end")
