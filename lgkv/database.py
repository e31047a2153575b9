"""An opened file: everything it holds, without LangGraph."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from lgkv.cache import Cache
from lgkv.checkpoints import Checkpoints, ThreadInfo
from lgkv.connection import Connection, connect
from lgkv.datafile import FILE_MODE, publish, temporary_beside
from lgkv.env import Options
from lgkv.errors import InvalidInputError, ReadOnlyError, StorageError
from lgkv.layout import FORMAT_VERSION, Table
from lgkv.memory import Memory, Vectors
from lgkv.writer import Change, Mailbox, Pending

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from typing_extensions import Self

__all__ = ["Database", "Stats", "open"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stats:
    """What a file holds, and what this process has done with it since it was opened.

    `records` counts by table; `used_bytes` are the pages in use, the rest of `file_bytes` is
    free for what comes. A commit is one batch of changes, flushed once; `largest_batch` is the
    most changes in one. `waits` are the commits that found another process writing. Seconds
    are summed over commits, the longest are those of one.
    """

    path: str
    format_version: int
    file_id: str
    file_bytes: int
    used_bytes: int
    map_bytes: int
    page_bytes: int
    records: dict[str, int]
    threads: int
    last_commit: int
    readers: int
    stale_readers_cleared: int
    map_growths: int
    commits: int
    changes: int
    failed_changes: int
    largest_batch: int
    flush_seconds: float
    longest_flush_seconds: float
    waits: int
    wait_seconds: float
    longest_wait_seconds: float

    @property
    def changes_per_commit(self) -> float:
        """How many changes shared a flush, on average; 0 before the first commit."""
        return self.changes / self.commits if self.commits else 0.0


class Database:
    """A handle on a `.lgkv` file. Safe to use from any thread, and after a fork.

    Closing the last handle of the process closes the file; any use of a closed handle is a
    `ClosedError`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.checkpoints = Checkpoints(connection)
        """Short-term memory: every checkpoint of every thread."""
        self.memory = Memory(connection)
        """Long-term memory: namespaced items."""
        self.vectors = Vectors(connection, self.memory.view)
        """How items are found by meaning."""
        self.cache = Cache(connection)
        """The node cache."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<lgkv.Database {self._connection.path!r}{' closed' if self.closed else ''}>"

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return self._connection.closed

    @property
    def options(self) -> Options:
        """What the file was opened with."""
        return self._connection.options

    @property
    def read_only(self) -> bool:
        """Whether it was opened with mode "r"."""
        return self._connection.options.read_only

    def close(self) -> None:
        """Release the handle, with everything that was written on the disk. Idempotent.

        Raises:
            CommitFailedError: With "interval" durability, what was written last is lost, and
                no call has said so yet.
        """
        self._connection.close()

    def flush(self) -> None:
        """Return once everything that was written through this process before is durable.

        Raises:
            CommitFailedError: Some of it is lost; the file has to be opened again.
        """
        self._connection.flush()

    @property
    def unflushed(self) -> bool:
        """Whether something was written that is not durable yet: with "interval" only."""
        return self._connection.unflushed

    def commit(self, change: Change[T]) -> T:
        """Write a prepared change; return its result once it is durable, or within the interval."""
        return self._connection.commit(change)

    def post(self, change: Change[Any] | None, mailbox: Mailbox, waiter: object) -> Pending:
        """Queue a prepared change, or a flush; its end is told to `mailbox` as `commit` tells it.

        `waiter` is in the `Pending` that the mailbox gets.
        """
        return self._connection.post(change, mailbox, waiter)

    def as_committed(self) -> AbstractContextManager[None]:
        """Let reads of this thread see what is flushed, and wait for nothing, in a `with`."""
        return self._connection.as_committed()

    def submit(self, change: Change[T]) -> Future[T]:
        """Queue a prepared change; the future is done once it is durable, or has failed."""
        return self._connection.submit(change)

    def threads(
        self,
        limit: int = 20,
        before: ThreadInfo | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> Sequence[ThreadInfo]:
        """Return up to `limit` threads, the one with the newest checkpoint first.

        `before` is the last of the page before; `filter` is tried on the metadata of a
        thread's newest checkpoint, with the operators of `lgkv.filters`.
        """
        return self.checkpoints.threads(limit, before, filter)

    def stats(self) -> Stats:
        """Return figures about the file and its use."""
        env, figures = self._connection.env, self._connection.writer.figures
        info = env.info()
        with self._connection.snapshot() as snapshot:
            records = {
                table.label: snapshot.entries(table) for table in Table if table is not Table.MAIN
            }
            pages = snapshot.used_pages()
            threads = self.checkpoints.count(snapshot)
            state = snapshot.read_state()
        return Stats(
            path=env.path,
            format_version=FORMAT_VERSION,
            file_id=env.file_id.hex(),
            file_bytes=os.path.getsize(env.path),
            used_bytes=pages * info["psize"],
            map_bytes=info["map_size"],
            page_bytes=info["psize"],
            records=records,
            threads=threads,
            last_commit=state.commit,
            readers=info["num_readers"],
            stale_readers_cleared=env.stale_readers,
            map_growths=env.map_growths,
            **asdict(figures),
        )

    def backup(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a compact copy of the newest commit to `path`; others go on writing.

        The copy appears at `path` whole and synced, or not at all.

        Raises:
            InvalidInputError: `path` exists and `overwrite` is not set, or its folder does not.
        """
        target = os.path.abspath(os.fsdecode(path))
        if os.path.isdir(target):
            raise InvalidInputError(f"{target!r} is a directory: name a file inside it")
        if self._connection.is_open_here(target):
            raise InvalidInputError(f"{target!r} is open in this process: name another file")
        if os.path.lexists(target) and not overwrite:
            raise InvalidInputError(f"{target!r} exists: pass overwrite=True, or name another file")
        self.flush()
        temporary = temporary_beside(target)
        try:
            descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE)
            try:
                self._connection.env.copy_to(descriptor)
            finally:
                os.close(descriptor)
            publish(temporary, target, replace=overwrite)
        except FileExistsError:
            raise InvalidInputError(f"{target!r} was made meanwhile: name another file") from None
        except FileNotFoundError as error:
            raise InvalidInputError(
                f"there is no folder for {target!r}: create it first"
            ) from error
        except PermissionError as error:
            raise ReadOnlyError(
                f"the folder of {target!r} is not writable: {error.strerror}"
            ) from error
        except OSError as error:
            reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
            raise StorageError(f"the backup to {target!r} failed: {reason}") from error
        finally:
            with contextlib.suppress(OSError):  # it is gone, or was never made
                os.unlink(temporary)


def open(
    path: str | os.PathLike[str],
    *,
    mode: str = "c",
    durability: str = "full",
    interval_ms: int = 50,
    map_size_bytes: int | None = None,
    lock_timeout_s: float = 30.0,
    cache_bytes: int = 64 << 20,
    compression: bool = True,
) -> Database:
    """Open the `.lgkv` file at `path`.

    `mode` "c" creates the file if it is missing, "w" does not, "r" never writes. With
    `durability` "full" a write that returned survives a crash and a power cut; with "interval"
    it reaches the disk up to `interval_ms` later, with all that came before it.
    `map_size_bytes` bounds the file's size (None: as large as the platform allows). A writer
    waits for others up to `lock_timeout_s`. `cache_bytes` bounds what memory holds of stored
    channel values, to find what is new in a value and to give copies of it without decoding;
    0 holds nothing. `compression` packs records with zstd where that saves an eighth; either
    way both kinds are read.

    A file that this process has open already is shared, and must be opened with the same
    options. Beside the file lies LMDB's `-lock` file, which holds no data.

    Raises:
        InvalidInputError: An option is not usable, there is no file and `mode` is not "c", or
            the path is a directory, a link, or a file that is not lgkv's.
        CorruptionError: The file is empty, cut short or damaged.
        FormatVersionError: The file needs another version of lgkv.
        ReadOnlyError: The file or its folder does not allow what `mode` asks for.
    """
    options = Options(
        read_only=mode == "r",
        durability=durability,
        interval_ms=interval_ms,
        map_size_bytes=map_size_bytes,
        lock_timeout_s=lock_timeout_s,
        cache_bytes=cache_bytes,
        compression=compression,
    )
    return Database(connect(path, mode, options))
