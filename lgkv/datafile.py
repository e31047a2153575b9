"""The file before LMDB sees it: is it ours, and is it whole.

LMDB maps what it is given and trusts it, so a damaged or foreign file is refused here.
Nothing here, nor anywhere in lgkv, ever opens the lock file: closing any descriptor of it
would drop the locks that LMDB holds for this process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from lgkv.errors import (
    CorruptionError,
    InvalidInputError,
    ReadOnlyError,
    StorageError,
)

if sys.platform == "win32":
    pass
else:
    pass

__all__ = [
    "FileId",
    "Options",
    "create_file",
    "file_id",
    "inspect_file",
    "publish",
    "temporary_beside",
]

FILE_MODE: Final = 0o600
LOCK_SUFFIX: Final = "-lock"
TEMPORARY_SUFFIX: Final = ".tmp"

# LMDB 0.9 meta pages, in the byte order and word size of the machine.
_META_MAGIC: Final = 0xBEEFC0DE
_META_OFFSET: Final = 16
_META: Final = struct.Struct("=IIQQ48s48sQQ")
_META_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Options:
    """What `lgkv.open` was asked for; handles that share an environment must agree on it."""

    read_only: bool = False
    durability: str = "full"
    interval_ms: int = 50
    map_size_bytes: int | None = None
    lock_timeout_s: float = 30.0
    cache_bytes: int = 64 << 20
    compression: bool = True


class FileId(NamedTuple):
    """What tells one file from another, whatever its path."""

    device: int
    inode: int


def file_id(path: str) -> FileId | None:
    """Return the identity of the file at `path` now, or None if none can be seen there."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return FileId(found.st_dev, found.st_ino)


def inspect_file(path: str, verify: Callable[[str], list[str]]) -> FileId | None:
    """Check that the file at `path` may be mapped; None if there is no file.

    `verify` reads every page in use and lists what is wrong; it is slow, and only called
    for a file that is shorter than its last page says.

    Raises:
        InvalidInputError: It is a directory, a symbolic link, has a second hard link, belongs
            to another user, is no LMDB file, or has the name of a lock file.
        CorruptionError: It is empty, or shorter than its own pages.
    """
    _refuse_lock_name(path)
    found = _stat(path)
    if found is None:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise InvalidInputError(f"{path!r} is a directory: name a file inside it")
    if not stat.S_ISREG(found.st_mode):
        raise InvalidInputError(
            f"{path!r} is not a regular file: open the file itself; "
            "through a link it would have locks of its own"
        )
    if found.st_nlink > 1:
        if not _is_temporary_link(path, found):
            raise InvalidInputError(
                f"{path!r} has {found.st_nlink} hard links: two names would have two locks; "
                "remove the others"
            )
        with contextlib.suppress(OSError):  # its creator may not have come to that
            _sync_folder(os.path.dirname(path) or ".")
    if hasattr(os, "geteuid") and os.geteuid() not in (0, found.st_uid):
        raise InvalidInputError(
            f"{path!r} belongs to user {found.st_uid}: copy it to a file of your own"
        )
    _check_lock_path(path)
    _check_pages(path, verify)
    return FileId(found.st_dev, found.st_ino)


def _refuse_lock_name(path: str) -> None:
    """Refuse the name of a lock file, before anything opens it, or puts a file in its place."""
    if path.endswith(LOCK_SUFFIX):
        raise InvalidInputError(
            f"{path!r} is the name of a lock file of LMDB's: name the file beside it, or another"
        )


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise InvalidInputError(f"a part of {path!r} is not a directory") from None
    except PermissionError as error:
        raise ReadOnlyError(f"{path!r} cannot be looked at: {error.strerror}") from error
    except (OSError, ValueError) as error:  # too long, a loop of links, a NUL, no file name at all
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidInputError(f"{path!r} cannot be a file's path: {reason}") from error


def _is_temporary_link(path: str, found: os.stat_result) -> bool:
    """Whether the only other name is the temporary one of a creator at work, or killed there.

    Nobody opens a file by that name, so it brings no second lock.
    """
    folder, name = os.path.split(path)
    if found.st_nlink != 2:
        return False
    try:
        with os.scandir(folder or ".") as entries:
            return (
                any(
                    entry.name.startswith(f".{name}.")
                    and entry.name.endswith(TEMPORARY_SUFFIX)
                    and entry.inode() == found.st_ino
                    for entry in entries
                )
                or os.stat(path, follow_symlinks=False).st_nlink == 1
            )
    except OSError:
        return False


def _check_lock_path(path: str) -> None:
    try:
        mode = os.lstat(path + LOCK_SUFFIX).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise InvalidInputError(f"{path + LOCK_SUFFIX!r} is not a regular file: remove it")


class _Extent(NamedTuple):
    """How long a file is, and how long its newest commit says it is."""

    size: int
    expected: int
    transaction: int


def _check_pages(path: str, verify: Callable[[str], list[str]]) -> None:
    extent = _read_extent(path)
    # A page that the last commit took and gave back may never have been written, so a file
    # can be short and whole: then every page in use is there. What is found in a file that
    # is being written meanwhile says nothing.
    while extent.size < extent.expected and verify(path):
        again = _read_extent(path)
        if again.transaction == extent.transaction:
            raise CorruptionError(
                path, None, f"the file is cut short: {extent.size:,} bytes of {extent.expected:,}"
            )
        extent = again


def _read_extent(path: str) -> _Extent:
    try:
        with open(path, "rb") as file:
            head = file.read(_META_OFFSET + _META.size)
            if not head:
                raise CorruptionError(
                    path, None, "the file is empty; delete it, and a new one can be created"
                )
            first = _parse_meta(head)
            if first is None:
                raise InvalidInputError(
                    f"{path!r} is not an lgkv file (it begins with {head[:16]!r}): name another"
                )
            page_size = first[0]
            file.seek(page_size)
            second = _parse_meta(file.read(_META_OFFSET + _META.size))
            size = os.fstat(file.fileno()).st_size  # after the meta pages: a live file grows first
    except PermissionError as error:
        raise ReadOnlyError(f"{path!r} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise StorageError(f"{path!r} cannot be read: {error.strerror}") from error
    _, last_page, transaction = first if second is None or first[2] >= second[2] else second
    return _Extent(size, (last_page + 1) * page_size, transaction)


def _parse_meta(page: bytes) -> tuple[int, int, int] | None:
    """Return page size, last page and transaction of a meta page, or None if it is none."""
    if len(page) < _META_OFFSET + _META.size:
        return None
    magic, version, _, _, free_db, _, last_page, transaction = _META.unpack_from(page, _META_OFFSET)
    if magic != _META_MAGIC or version != _META_VERSION:
        return None
    (page_size,) = struct.unpack_from("=I", free_db)
    if not 512 <= page_size <= 65536 or page_size & (page_size - 1):
        return None
    return page_size, last_page, transaction


# --- publishing a finished file ------------------------------------------------------------


def temporary_beside(path: str) -> str:
    """Return a name for an unfinished file, in the folder of `path`."""
    _refuse_lock_name(path)
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}")


def create_file(path: str, fill: Callable[[str], None]) -> None:
    """Make a file aside with `fill`, and publish it at `path` unless one is there by then."""
    temporary = temporary_beside(path)
    try:
        fill(temporary)
        publish(temporary, path)
    except FileExistsError:
        return  # another process was first: its file is as good
    except FileNotFoundError as error:
        folder = os.path.dirname(path)
        raise InvalidInputError(f"there is no folder {folder!r}: create it first") from error
    except PermissionError as error:
        raise ReadOnlyError(f"the folder of {path!r} is not writable: {error.strerror}") from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise ReadOnlyError(f"the folder of {path!r} is on a read-only file system") from error
        raise StorageError(f"{path!r} cannot be created: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):  # on a read-only file system even of what is not there
            os.unlink(temporary)


def publish(temporary: str, path: str, *, replace: bool = False) -> None:
    """Sync the file at `temporary` and give it the name `path`; FileExistsError if taken."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    if replace:
        os.replace(temporary, path)
    elif sys.platform == "win32":
        os.rename(temporary, path)
    else:
        try:
            os.link(temporary, path, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            # A file system without hard links (FAT): the best there is.
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
            os.rename(temporary, path)
        else:
            _sync_folder(os.path.dirname(path) or ".")
            os.unlink(temporary)  # last: while it is there, the new name may not be durable
            return
    _sync_folder(os.path.dirname(path) or ".")


def _sync_folder(folder: str) -> None:
    if sys.platform == "win32":  # a directory cannot be opened there; its entry is journaled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
