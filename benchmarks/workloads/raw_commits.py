"""raw_commits: lgkv's writer beside the same records written by LMDB alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import lmdb

import lgkv
from benchmarks.backends import BASE, NOTHING, Backend
from benchmarks.measures import Filled, Measure, Sizes
from lgkv.layout import STATE_KEY, Table, seal_record
from lgkv.writer import Batch, Change

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.backends import Opened

__all__ = ["COMMITTERS", "RawCommits"]

FILE: Final = "agent.lgkv"
KIND: Final = b"\x99"  # one that lgkv does not use
MAP_BYTES: Final = 1 << 34

Records = list[tuple[Table, bytes, bytes]]


class Committing:
    """What commits records."""

    def __init__(self, commit: Callable[[Records], None]) -> None:
        self.commit = commit


class WriterCommits:
    """lgkv's writer, without anything above it."""

    name: ClassVar[str] = BASE
    lacks: ClassVar[Mapping[str, str]] = NOTHING

    @contextmanager
    def open(self, folder: Path) -> Iterator[Any]:
        with lgkv.open(folder / FILE) as db:
            self.db = db
            yield Committing(self._commit)

    def _commit(self, records: Records) -> None:
        def apply(batch: Batch) -> None:
            for table, key, body in records:
                batch.put_new(table, key, body)

        self.db.commit(Change(apply))

    def durability(self, subject: Any) -> str:  # noqa: ARG002  the protocol's signature
        return f"durability={self.db.options.durability}, a flushed commit a call"

    def flush_seconds(self, subject: Any) -> float:  # noqa: ARG002  likewise
        return self.db.stats().flush_seconds


class RawLmdb:
    """py-lmdb: the same records, sealed and uncompressed, in the same tables and the counters."""

    name: ClassVar[str] = "lmdb"
    lacks: ClassVar[Mapping[str, str]] = NOTHING

    @contextmanager
    def open(self, folder: Path) -> Iterator[Any]:
        lgkv.open(folder / FILE).close()
        with lmdb.open(
            str(folder / FILE), subdir=False, create=False, map_size=MAP_BYTES, max_dbs=8,
            metasync=True, sync=True, lib_version=0,
        ) as env:  # fmt: skip
            tables = {
                table: env.open_db(table.label.encode(), create=False)
                for table in Table
                if table is not Table.MAIN
            }

            def commit(records: Records) -> None:
                with env.begin(write=True, buffers=True) as txn:
                    for table, key, body in records:
                        record = seal_record(table, key, body, compress=True)
                        txn.put(key, record, overwrite=False, db=tables[table])
                    txn.put(STATE_KEY, seal_record(Table.MAIN, STATE_KEY, bytes(56)))

            yield Committing(commit)

    def durability(self, subject: Any) -> str:  # noqa: ARG002  the protocol's signature
        return "sync=True, metasync=True"

    def flush_seconds(self, subject: Any) -> float:
        raise NotImplementedError


COMMITTERS: Final[tuple[Backend[Any], ...]] = (WriterCommits(), RawLmdb())


class RawCommits:
    """Commits of the records of a small step: four in one table, one in another."""

    name: ClassVar[str] = "raw_commits"
    measure_names: ClassVar[tuple[str, ...]] = ("commit",)

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._numbers = itertools.count()

    def fill(self, opened: Opened[Any]) -> Iterator[Filled]:
        """Commit some, so that pages are used again."""
        for _ in range(20):
            opened.subject.commit(self._records())
        yield Filled("20 commits")

    def measures(self, opened: Opened[Any]) -> list[Measure]:
        """Return one commit."""

        def prepare() -> tuple[Records]:
            return (self._records(),)

        def commit(records: Records) -> None:
            opened.subject.commit(records)

        return [Measure("commit", commit, self._sizes.calls(300), prepare)]

    def _records(self) -> Records:
        key = KIND + b"%08d" % next(self._numbers)
        parts: Records = [(Table.THREADS, key + b"%d" % part, bytes(180)) for part in range(4)]
        return [*parts, (Table.INDEX, key, bytes(20))]
