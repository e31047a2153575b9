"""The long campaign: kills, power losses and failing disks, for as long as it is given.

    python -m tests.crash.torture [--minutes 10] [--seed N] [--jobs 2] [--keep FOLDER]

It prints a table of what was checked and what was wrong, and ends with 1 if anything was,
or if a worker that is wrong on purpose was not caught.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash.crash_states import check_states, record_worker, states
from tests.crash.io_faults import MODES, count_events, io_faults
from tests.crash.kill_loop import kill_loop
from tests.crash.result import Result, table
from tests.crash.shim import build_shim, why_no_shim

__all__ = ["main"]

MANY = sys.maxsize


@dataclass(frozen=True)
class Campaign:
    """Where, how long and with which seed the tools run."""

    folder: Path
    seconds: float
    seed: int
    jobs: int

    def until(self, share: float) -> float:
        """Return the end of a part that begins now and has a share of the time."""
        return time.monotonic() + self.seconds * share

    def place(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    # --- the parts ---

    def kills(self, writers: int, share: float, *worker: str) -> Result:
        folder = self.place("-".join([f"kill{writers}", *worker]))
        until = self.until(share)
        return kill_loop(
            folder,
            seed=self.seed,
            cycles=MANY,
            writers=writers,
            worker=worker,
            longest_s=0.25,
            until=until,
        )

    def power_losses(self, shim: Path, share: float) -> Result:
        """Check the states that runs of a growing length leave."""
        folder, until = self.place("power"), self.until(share)
        total = Result("crash states", "all that syncs allow")
        for at in itertools.count():
            if time.monotonic() > until:
                return total
            durability = "interval" if at % 2 else "full"
            record = record_worker(shim, folder, [str(20 * (at + 1)), f"durability={durability}"])
            found = states(record, seed=self.seed + at)
            add(total, check_states(found, folder, setting="", jobs=self.jobs, until=until))
        raise AssertionError

    def faults(self, shim: Path, share: float, *steps: str) -> Result:
        """Let every write and sync of a worker fail, in every way, in a random order."""
        folder, until = self.place("-".join(["faults", *steps])), self.until(share)
        numbers = range(1, count_events(shim, folder, steps) + 1)
        points = list(itertools.product(MODES, numbers))
        random.Random(self.seed).shuffle(points)
        found = io_faults(shim, folder, points, steps, jobs=self.jobs, until=until)
        found.setting = f"of {len(points):,} points, steps {' '.join(steps)}"
        return found

    # --- that a pass means something ---

    def early(self) -> Result:
        folder = self.place("early")
        wrong = ["wrong=early"]
        return kill_loop(folder, seed=self.seed, cycles=3, worker=wrong, longest_s=0.01)

    def unsynced(self, shim: Path) -> Result:
        folder = self.place("unsynced")
        record = record_worker(shim, folder, ["6", "wrong=unsynced"])
        return check_states(states(record, seed=self.seed), folder, setting="", jobs=self.jobs)


def add(total: Result, part: Result) -> None:
    total.checked += part.checked
    total.steps += part.steps
    total.seconds += part.seconds
    total.faults += part.faults


def control(name: str, run: Callable[[], Result]) -> Result:
    """Return a result that is well if a wrong worker was caught."""
    found = run()
    missed = [] if found.faults else ["a worker that is wrong was not caught"]
    return Result("control", name, found.checked, found.steps, missed, seconds=found.seconds)


def campaign(run: Campaign) -> Iterator[Result]:
    """Yield the result of each part."""
    missing = why_no_shim()
    yield control("acknowledged too early", run.early)
    yield run.kills(1, 0.1 if not missing else 0.3)
    yield run.kills(2, 0.15 if not missing else 0.4)
    yield run.kills(2, 0.1 if not missing else 0.3, "durability=interval")
    if missing:
        print(f"no power losses and no failing disks: {missing}")
        return
    shim = build_shim(run.folder)
    yield control("not synced", lambda: run.unsynced(shim))
    yield run.power_losses(shim, 0.35)
    yield run.faults(shim, 0.15, "8")
    yield run.faults(shim, 0.15, "28", "durability=interval")


def main() -> None:
    about = "Kills, power losses and failing disks, for as long as it is given."
    parser = argparse.ArgumentParser(prog="torture", description=about)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="leave the last files here")
    given = parser.parse_args()
    print(f"{given.minutes:g} minutes, seed {given.seed}", flush=True)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        where = given.keep or Path(folder)
        for result in campaign(Campaign(where, 60 * given.minutes, given.seed, given.jobs)):
            results.append(result)
            print(f"{result.tool}, {result.setting}: {len(result.faults)} faults", flush=True)
    print(table(results))
    sys.exit(any(result.faults for result in results))


if __name__ == "__main__":
    main()
