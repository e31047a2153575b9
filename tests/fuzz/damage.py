"""Stored records, and the same file with one of them changed and sealed again."""

from __future__ import annotations

import os
import random
import shutil
from collections import defaultdict
from typing import Any, Final, NamedTuple

import lmdb

import lgkv
from lgkv.keys import unpack_uint
from lgkv.layout import Kind, Table, seal_record
from lgkv.names import thread_number
from tests.fuzz.hostile import mangled, mangled_key
from tests.fuzz.sample import GRAPH_THREADS, PLAIN_THREADS, make_sample
from tests.invariants import all_records

__all__ = ["Damage", "Sample", "described"]


class Damage(NamedTuple):
    """What is done to one record: it is stored with another body, under another key, or not."""

    table: Table
    key: bytes
    stored: tuple[bytes, bytes] | None
    """The key and the sealed record that come in its place."""

    def apply(self, path: str) -> None:
        """Do it to the file at `path`, below all checks."""
        room = os.path.getsize(path) + (4 << 20)
        options = {"subdir": False, "lock": False, "sync": False, "lib_version": 0}
        with (
            lmdb.open(path, map_size=room, max_dbs=len(Table), **options) as env,
            env.begin(write=True) as txn,
        ):
            main = self.table is Table.MAIN
            database = None if main else env.open_db(self.table.label.encode(), txn, create=False)
            txn.delete(self.key, db=database)
            if self.stored is not None:
                txn.put(*self.stored, db=database)


class Sample:
    """The undamaged file, and its records by kind."""

    def __init__(self, path: str) -> None:
        make_sample(path)
        self.path: Final = path
        self.records: Final = defaultdict[str, list[tuple[Table, bytes, bytes]]](list)
        self._threads: Final[dict[int, str]] = {}
        with lgkv.open(path, mode="r") as db, db._connection.snapshot() as snapshot:
            for table in Table:
                for key, body, _ in all_records(snapshot, table):
                    self.records[kind_of(table, key)].append((table, key, body))
            for name in (*GRAPH_THREADS, *PLAIN_THREADS):
                number = thread_number(snapshot, name)
                assert number is not None
                self._threads[number] = name

    def damage(self, kind: str, rnd: random.Random) -> Damage:
        """Return damage to a record of `kind`."""
        table, key, body = rnd.choice(self.records[kind])
        what = rnd.random()
        if not body and what < 0.8:  # of an index entry, whose key says all
            what = 0.97
        if what < 0.85:
            changed = mangled(rnd, body)
            while rnd.random() < 0.15:
                changed = mangled(rnd, changed)
        elif what < 0.95:
            changed = rnd.choice(self.records[rnd.choice((kind, kind, *self.records))])[2]
        else:
            changed = body
        if what >= 0.99:
            return Damage(table, key, None)
        new_key = mangled_key(rnd, key) if what >= 0.95 else key
        record = seal_record(table, new_key, changed, compress=rnd.random() < 0.5)
        return Damage(table, key, (new_key, record))

    def copy_to(self, path: str) -> None:
        """Write the file anew at `path`."""
        shutil.copyfile(self.path, path)

    def group(self, damage: Damage) -> str | None:
        """Return the group of calls that may feel the damage, None if all may."""
        keys = [damage.key] if damage.stored is None else [damage.key, damage.stored[0]]
        groups = {self._group_of(damage.table, key) for key in keys}
        return groups.pop() if len(groups) == 1 else None

    def _group_of(self, table: Table, key: bytes) -> str | None:
        if table is Table.THREADS:
            try:
                return self._threads.get(unpack_uint(key, 0)[0])
            except ValueError:
                return None
        if table is Table.MEMORY:
            return "cache" if key[0] == Kind.CACHE else "memory"
        return None


def kind_of(table: Table, key: bytes) -> str:
    """Return the name of a record's kind."""
    if table is Table.MAIN:
        return key.decode()
    return Kind(key[1 + key[0]] if table is Table.THREADS else key[0]).name


def described(damage: Damage, seed: Any) -> str:
    """Return what it takes to do the same damage again."""
    new = "nothing" if damage.stored is None else ": ".join(part.hex() for part in damage.stored)
    return f"seed {seed}: {damage.table.label} {damage.key.hex()} became {new}"
