"""Writers in a process of their own.

`python -m benchmarks.writers BACKEND FOLDER THREADS PUTS NAME`

It says "ready", waits for a line, and prints what it measured as JSON. With 0 puts it writes
until it is killed.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.backends import SAVERS
from benchmarks.clients import Latencies, run_threads

__all__ = ["endless_writer", "main", "run_processes"]

ROOT: Final = Path(__file__).resolve().parents[1]
ENDLESS: Final = 0


def main(arguments: Sequence[str]) -> None:
    """Write what the command line asks for."""
    name, folder, threads, puts, lane = arguments
    backend = next(backend for backend in SAVERS if backend.name == name)
    with backend.open(Path(folder)) as saver:
        print("ready", flush=True)
        sys.stdin.readline()
        for at in itertools.count():
            names = [f"{lane}-{at}-{number}" for number in range(int(threads))]
            found = run_threads(saver, names, int(puts) or 20)
            if int(puts) != ENDLESS:
                break
        print(json.dumps([found.seconds, found.calls]))


@contextmanager
def _started(
    backend: str, folder: Path, name: str, *, processes: int, threads: int, puts: int
) -> Iterator[list[subprocess.Popen[str]]]:
    """Start writers and let them go all at once; end them afterwards."""
    command = [sys.executable, "-m", "benchmarks.writers", backend, str(folder)]
    running = [
        subprocess.Popen(
            [*command, str(threads), str(puts), f"{name}-{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for number in range(processes)
    ]
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def run_processes(
    backend: str, folder: Path, name: str, *, processes: int, threads: int, puts: int
) -> Latencies:
    """Let processes of some threads each put checkpoints into the file in `folder`.

    The seconds are those of the slowest process.
    """
    crowd = _started(backend, folder, name, processes=processes, threads=threads, puts=puts)
    with crowd as running:
        told = [json.loads(process.stdout.readline()) for process in running if process.stdout]
    calls = [seconds for _, of_process in told for seconds in of_process]
    assert len(calls) == processes * threads * puts
    return Latencies(calls, max(seconds for seconds, _ in told))


@contextmanager
def endless_writer(backend: str, folder: Path, name: str) -> Iterator[None]:
    """Let a process of one thread write without a pause meanwhile."""
    with _started(backend, folder, name, processes=1, threads=1, puts=ENDLESS):
        yield


if __name__ == "__main__":
    main(sys.argv[1:])
