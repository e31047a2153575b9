"""Every state that a power loss may leave: rebuilt from a record of a worker's writes, checked.

The model: a write through an O_DSYNC descriptor, and every write before an fsync of the file,
is on the disk once the call has returned. Of the others any subset may be there, in any
order, and one may be torn between sectors. A truncation counts as a write. After each event
of the record come the states with all pending writes, none, only the newest, all but the
newest, all but the oldest, some random subsets, and some with a torn write.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from tests.crash.checker import Checker
from tests.crash.result import Result
from tests.crash.shim import clear_folder, make_file, run_worker

__all__ = ["Event", "Record", "State", "check_states", "record_worker", "states"]

HEAD = struct.Struct("=cBHIQ")
SECTOR_BYTES = 512


class Event(NamedTuple):
    """What the library saw: W a write, T a truncation, S a sync, M a line the worker told."""

    kind: str
    path: str = ""
    offset: int = 0
    body: bytes = b""
    durable: bool = False


class Write(NamedTuple):
    """A write (a truncation if `body` is None) that may not have reached the disk."""

    offset: int
    body: bytes | None

    def apply(self, image: bytearray) -> None:
        end = self.offset + len(self.body or b"")
        if end > len(image):
            image.extend(bytes(end - len(image)))
        if self.body is None:
            del image[self.offset :]
        else:
            image[self.offset : end] = self.body


@dataclass(frozen=True)
class Record:
    """A file as it was, and what a worker did with it."""

    begin: bytes
    events: list[Event]


class State(NamedTuple):
    """What the disk may hold at a time, and what was told by then."""

    label: str
    image: bytes
    acknowledged: tuple[str, ...]
    tried: tuple[str, ...]


# --- recording -----------------------------------------------------------------------------


def record_worker(shim: Path, folder: Path, options: Sequence[str]) -> Record:
    """Run a worker on a new file and return what it wrote and synced."""
    path, log = folder / "watched" / "recorded.lgkv", folder / "events"
    clear_folder(path.parent)
    log.unlink(missing_ok=True)
    make_file(path)
    begin = path.read_bytes()
    run = run_worker(shim, path, options, {"LOG": str(log)})
    assert run.code == 0, run.errors
    return Record(begin, [e for e in read_log(log) if e.kind == "M" or e.path == str(path)])


def read_log(log: Path) -> Iterator[Event]:
    raw, at = log.read_bytes(), 0
    while at < len(raw):
        kind, durable, path_size, size, offset = HEAD.unpack_from(raw, at)
        at += HEAD.size
        path = raw[at : at + path_size].decode()
        at += path_size
        has_body = kind in b"WRM"
        body = raw[at : at + size * has_body]
        yield Event(kind.decode(), path, offset, body, durable=bool(durable))
        at += len(body)


# --- states --------------------------------------------------------------------------------


@dataclass
class Disk:
    """What is on the disk for certain, and what may be."""

    certain: bytearray
    pending: list[Write] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)

    def take(self, event: Event) -> None:
        """Go on by one event; a durable write is pending until `settle`."""
        if event.kind == "M":
            for line in event.body.decode().splitlines():
                word, _, token = line.partition(" ")
                (self.acknowledged if word == "ACK" else self.tried).append(token)
        elif event.kind == "S":
            for write in self.pending:
                write.apply(self.certain)
            self.pending = []
        elif event.kind in "WT":
            self.pending.append(Write(event.offset, event.body if event.kind == "W" else None))

    def settle(self, event: Event) -> None:
        if event.kind == "W" and event.durable:
            self.pending.pop().apply(self.certain)


def states(record: Record, *, seed: int, subsets: int = 6, torn: int = 4) -> Iterator[State]:
    """Yield the states that the disk may be in, each once."""
    chance, disk = random.Random(seed), Disk(bytearray(record.begin))
    seen: set[tuple[bytes, int, int]] = set()
    for at, event in enumerate(record.events):
        disk.take(event)
        choices = itertools.chain(
            subsets_of(disk.pending, chance, subsets),
            torn_writes(disk.pending, chance, torn, newest=event.durable),
        )
        for label, writes in choices:
            image = bytearray(disk.certain)
            for write in writes:
                write.apply(image)
            digest = hashlib.blake2b(image, digest_size=16).digest()
            key = digest, len(disk.acknowledged), len(disk.tried)
            if key not in seen:
                seen.add(key)
                told = tuple(disk.acknowledged), tuple(disk.tried)
                yield State(f"{at}:{event.kind}:{label}", bytes(image), *told)
        disk.settle(event)


def subsets_of(
    pending: list[Write], chance: random.Random, count: int
) -> Iterator[tuple[str, list[Write]]]:
    yield "none", []
    yield "all", pending
    if len(pending) < 2:
        return
    yield "newest", pending[-1:]
    yield "not the newest", pending[:-1]
    yield "not the oldest", pending[1:]
    for _ in range(count):
        share = chance.random()
        yield "some", [write for write in pending if chance.random() < share]
        yield "most", [write for write in pending if chance.random() < 0.8]


def torn_writes(
    pending: list[Write], chance: random.Random, count: int, *, newest: bool
) -> Iterator[tuple[str, list[Write]]]:
    """Yield subsets with one write of which some sectors arrived: first ones, last ones, any."""
    for _ in range(count if pending else 0):
        at = len(pending) - 1 if newest else chance.randrange(len(pending))
        offset, body = pending[at]
        sectors = [
            Write(offset + cut, (body or b"")[cut : cut + SECTOR_BYTES])
            for cut in range(0, len(body or b""), SECTOR_BYTES)
        ]
        if len(sectors) > 1:
            middle = chance.randrange(1, len(sectors))
            any_of = [sector for sector in sectors if chance.random() < 0.5]
            part = chance.choice([sectors[:middle], sectors[middle:], any_of])
            before = [write for write in pending[:at] if chance.random() < chance.choice([0.5, 1])]
            yield "torn", [*before, *part]


# --- checking ------------------------------------------------------------------------------


def check_states(
    found: Iterator[State],
    folder: Path,
    *,
    setting: str,
    jobs: int = 2,
    until: float = float("inf"),
) -> Result:
    """Check each state as a file in `folder`, with `jobs` checkers at a time."""
    result, idle = Result("crash states", setting), SimpleQueue[tuple[Path, Checker]]()
    checkers = [Checker() for _ in range(jobs)]
    for at, checker in enumerate(checkers):
        idle.put((folder / f"state{at}", checker))

    def check(state: State) -> str:
        slot, checker = idle.get()
        try:
            clear_folder(slot)
            path = slot / "state.lgkv"
            path.write_bytes(state.image)
            maybe = set(state.tried) - set(state.acknowledged)
            why = checker.check(path, state.acknowledged, maybe).why
            return why and f"{state.label}: {why}"
        finally:
            idle.put((slot, checker))

    try:
        with ThreadPoolExecutor(jobs) as pool:
            while time.monotonic() < until:
                some = list(itertools.islice(found, 8 * jobs))  # images are large
                for why in pool.map(check, some):
                    result.count(why, checked=1)
                if not some:
                    break
                result.steps = len(some[-1].acknowledged)
    finally:
        for checker in checkers:
            checker.close()
    return result
