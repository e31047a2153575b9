"""Making and opening files through LMDB, and what its errors are here."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, Final

import lmdb
from lmdb import verify as lmdb_verify

from lgkv.datafile import FILE_MODE, FileId, Options, create_file, inspect_file
from lgkv.errors import (
    CorruptionError,
    FormatVersionError,
    InvalidInputError,
    LgkvError,
    MapFullError,
    ReadOnlyError,
    StorageError,
)
from lgkv.layout import META_KEY, STATE_KEY, Table, seal_record
from lgkv.meta import new_meta
from lgkv.snapshot import State

__all__ = ["ATTEMPTS", "LARGE_MAP_BYTES", "open_lmdb", "prepare", "restless", "translate"]

LARGE_MAP_BYTES: Final = 1 << 40
FIRST_MAP_BYTES: Final = 64 << 20
MAX_READERS: Final = 4096
ATTEMPTS: Final = 20
"""How often a transaction is tried to begin while other processes write beyond the map."""
TABLES: Final = (Table.THREADS, Table.MEMORY, Table.NAMES, Table.INDEX)


def translate(error: lmdb.Error, path: str) -> LgkvError:
    """Return lgkv's error for LMDB's: the one place where the two meet."""
    if isinstance(error, lmdb.MapFullError):
        return MapFullError(
            f"{path!r} is full: open it with a larger map_size_bytes, or free disk space"
        )
    if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError)):
        return CorruptionError(path, None, str(error))
    if isinstance(error, lmdb.InvalidError):
        return InvalidInputError(f"{path!r} is not an lgkv file: {error}")
    if isinstance(error, lmdb.VersionMismatchError):
        return FormatVersionError(
            f"another LMDB format ({error})", "LMDB 0.9", "export it with what wrote it"
        )
    if isinstance(error, (lmdb.ReadonlyError, lmdb.LockError)):
        return ReadOnlyError(f"{path!r} cannot be locked or written: {error}")
    return StorageError(f"{path!r}: {error}")


def prepare(path: str, mode: str) -> FileId:
    """Return the identity of the file at `path`, which mode "c" creates if it is missing."""
    identity = inspect_file(path, _verify)
    if identity is None and mode != "c":
        raise InvalidInputError(
            f"there is no file {path!r}: check the path, or pass mode='c' to create it"
        )
    if identity is None:
        create_file(path, _fill)
        identity = inspect_file(path, _verify)
    if identity is None:
        raise StorageError(f"{path!r} was removed while it was being created: try again")
    return identity


def _verify(path: str) -> list[str]:
    try:
        return list(lmdb_verify.verify(path, subdir=False))  # type: ignore[no-untyped-call]
    except lmdb_verify.VerifyError as error:
        return [str(error)]


def _fill(path: str) -> None:
    """Make a new, empty lgkv file at `path`, which nobody else knows yet."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, FILE_MODE))
    try:
        with lmdb.open(
            path, map_size=1 << 20, subdir=False, max_dbs=len(TABLES), lock=False, lib_version=0
        ) as env:
            for table in TABLES:
                env.open_db(table.label.encode())
            with env.begin(write=True) as txn:
                for key, body in ((META_KEY, new_meta()), (STATE_KEY, State().pack())):
                    txn.put(key, seal_record(Table.MAIN, key, body))
    except lmdb.Error as error:
        raise translate(error, path) from error


def open_lmdb(path: str, options: Options) -> tuple[Any, tuple[Any, ...]]:
    """Return LMDB's environment of an lgkv file and the tables, by number."""
    for _ in range(ATTEMPTS):
        with contextlib.suppress(lmdb.MapResizedError):  # another process wrote beyond it meanwhile
            return _open_some_map(path, options)
    raise restless(path)


def _open_some_map(path: str, options: Options) -> tuple[Any, tuple[Any, ...]]:
    last: Exception | None = None
    for size in _map_sizes(options):
        try:
            env = lmdb.open(
                path,
                map_size=size,
                subdir=False,
                readonly=options.read_only,
                metasync=True,
                sync=True,
                mode=FILE_MODE,
                create=False,
                writemap=False,
                max_readers=MAX_READERS,
                max_dbs=len(TABLES),
                lib_version=0,
            )
            return env, _open_tables(env, path)
        except (lmdb.MemoryError, MemoryError) as error:  # not so much address space: try less
            last = error
        except lmdb.MapResizedError:
            raise
        except lmdb.Error as error:
            raise translate(error, path) from error
    raise StorageError(f"{path!r} cannot be mapped: {last}: use a smaller map_size_bytes") from last


def restless(path: str) -> StorageError:
    """Return what is wrong where others write beyond the map again and again."""
    return StorageError(f"{path!r}: the map keeps changing its size: try again")


def _map_sizes(options: Options) -> tuple[int, ...]:
    if options.map_size_bytes is not None:
        return (options.map_size_bytes,)
    if sys.platform == "win32" or sys.maxsize < 1 << 32:
        return (FIRST_MAP_BYTES,)
    return (LARGE_MAP_BYTES, 1 << 36, 1 << 33, FIRST_MAP_BYTES)


def _open_tables(env: Any, path: str) -> tuple[Any, ...]:
    """Return the tables, by number."""
    try:
        names = [table.label.encode() for table in TABLES]
        return env.open_db(None), *(env.open_db(name, create=False) for name in names)
    except BaseException as error:
        env.close()
        if not isinstance(error, lmdb.NotFoundError):
            raise
        raise InvalidInputError(
            f"{path!r} is an LMDB file, but not one of lgkv's: name another"
        ) from None
