"""What is at a path before LMDB maps it, and files that appear whole or not at all."""

from __future__ import annotations

import builtins
import errno
import mmap
import os
import socket
import sqlite3
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import lgkv
from lgkv import (
    CorruptionError,
    InvalidInputError,
    ReadOnlyError,
    StorageError,
    datafile,
)
from lgkv.datafile import create_file, file_id, inspect_file, publish, temporary_beside
from lgkv.opening import _verify

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files and locks")

PAGE = mmap.PAGESIZE


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "agent.lgkv")


@pytest.fixture
def good(path: str) -> str:
    """A closed file with a few pages, and no lock file beside it."""
    with lgkv.open(path, compression=False) as db:
        for number in range(20):
            db.memory.put(("n",), str(number), {"text": "x" * 900})
    os.unlink(path + "-lock")
    return path


def inspect(path: str) -> datafile.FileId | None:
    return inspect_file(path, _verify)


def pages(path: str) -> list[bytes]:
    raw = Path(path).read_bytes()
    return [raw[at : at + PAGE] for at in range(0, len(raw), PAGE)]


class TestInspection:
    def test_missing_file_is_none(self, path: str) -> None:
        assert inspect(path) is None

    def test_good_file_gives_its_identity(self, good: str) -> None:
        found = os.stat(good)
        assert inspect(good) == (found.st_dev, found.st_ino) == file_id(good)

    def test_inspection_changes_nothing(self, good: str) -> None:
        before, names = Path(good).read_bytes(), os.listdir(os.path.dirname(good))
        inspect(good)
        assert Path(good).read_bytes() == before
        assert os.listdir(os.path.dirname(good)) == names

    def test_directory_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match="is a directory"):
            inspect(str(tmp_path))

    def test_part_that_is_a_file_is_refused(self, good: str) -> None:
        with pytest.raises(InvalidInputError, match="not a directory"):
            inspect(os.path.join(good, "agent.lgkv"))

    def test_fifo_is_refused_without_waiting_for_a_writer(self, path: str) -> None:
        os.mkfifo(path)
        with pytest.raises(InvalidInputError, match="not a regular file"):
            inspect(path)

    def test_socket_and_device_are_refused(self, tmp_path: Path) -> None:
        where = str(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(where)
            for odd in (where, "/dev/null"):
                with pytest.raises(InvalidInputError, match="not a regular file"):
                    inspect(odd)

    @pytest.mark.parametrize("target", ["agent.lgkv", "missing", "."])
    def test_symbolic_link_is_refused(self, good: str, target: str) -> None:
        link = Path(good).with_name("link.lgkv")
        link.symlink_to(link.with_name(target) if target != "." else link.parent)
        with pytest.raises(InvalidInputError, match="not a regular file"):
            inspect(str(link))

    def test_second_hard_link_is_refused_by_both_names(self, good: str, tmp_path: Path) -> None:
        other = str(tmp_path / "other.lgkv")
        os.link(good, other)
        for name in (good, other):
            with pytest.raises(InvalidInputError, match="2 hard links"):
                inspect(name)
        os.unlink(other)
        assert inspect(good)

    def test_name_that_a_killed_creator_left_is_no_second_link(self, good: str) -> None:
        os.link(good, temporary_beside(good))
        began = time.monotonic()
        assert inspect(good) == file_id(good)
        assert time.monotonic() - began < 1
        lgkv.open(good).close()

    def test_temporary_name_of_another_file_does_not_excuse_a_second_link(
        self, good: str, tmp_path: Path
    ) -> None:
        Path(temporary_beside(good)).touch()
        os.link(good, tmp_path / "other.lgkv")
        with pytest.raises(InvalidInputError, match="2 hard links"):
            inspect(good)

    def test_file_of_another_user_is_refused(
        self, good: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: os.stat(good).st_uid + 1)
        with pytest.raises(InvalidInputError, match="belongs to user"):
            inspect(good)

    def test_roots_files_are_everyones_to_refuse_but_root_may_open_all(
        self, good: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert inspect(good)

    @pytest.mark.parametrize("kind", ["link", "directory"])
    def test_odd_thing_at_the_lock_files_path_is_refused(
        self, good: str, tmp_path: Path, kind: str
    ) -> None:
        if kind == "link":
            (tmp_path / "elsewhere").touch()
            os.symlink(tmp_path / "elsewhere", good + "-lock")
        else:
            os.mkdir(good + "-lock")
        with pytest.raises(InvalidInputError, match=r"agent.lgkv-lock.*remove it"):
            inspect(good)

    def test_name_of_a_lock_file_is_refused_before_it_is_opened(
        self, good: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with lgkv.open(good):
            for module in (os, builtins):
                monkeypatch.setattr(module, "open", lambda *_, **__: pytest.fail("opened"))
            with pytest.raises(InvalidInputError, match="lock file"):
                inspect(good + "-lock")
            with pytest.raises(InvalidInputError, match="lock file"):
                temporary_beside(good + "-lock")
            monkeypatch.undo()

    @pytest.mark.parametrize("name", ["x" * 300, "a\x00b", "loop"])
    def test_path_that_no_file_can_have_is_refused(self, tmp_path: Path, name: str) -> None:
        os.symlink("loop", tmp_path / "loop")
        where = f"{tmp_path}/{name}/file" if name == "loop" else f"{tmp_path}/{name}"
        with pytest.raises(InvalidInputError, match="cannot be a file's path"):
            inspect(where)

    def test_folder_that_may_not_be_searched_is_said_to_be_so(
        self, good: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any, **__: Any) -> Any:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(os, "stat", refuse)
        with pytest.raises(ReadOnlyError, match="cannot be looked at: Permission denied"):
            inspect(good)
        assert file_id(good) is None


class TestForeignFiles:
    def test_empty_file_is_damaged(self, path: str) -> None:
        Path(path).touch()
        with pytest.raises(CorruptionError, match="is empty"):
            inspect(path)

    @pytest.mark.parametrize("size", [1, 15, 16, 151, 152, 153, 5_000])
    @pytest.mark.parametrize("byte", [b"\x00", b"a", b"\xff"])
    def test_file_of_one_byte_again_and_again_is_not_ours(
        self, path: str, size: int, byte: bytes
    ) -> None:
        Path(path).write_bytes(byte * size)
        with pytest.raises(InvalidInputError, match="not an lgkv file"):
            inspect(path)

    def test_sqlite_database_is_not_ours(self, path: str) -> None:
        connection = sqlite3.connect(path)
        connection.execute("create table t (a)")
        connection.close()
        with pytest.raises(InvalidInputError, match=r"not an lgkv file.*SQLite format 3"):
            inspect(path)

    def test_lock_file_of_lmdb_is_not_ours(self, good: str, tmp_path: Path) -> None:
        with lgkv.open(good):
            pass
        renamed = tmp_path / "renamed.lgkv"
        os.rename(good + "-lock", renamed)
        with pytest.raises(InvalidInputError, match="not an lgkv file"):
            inspect(str(renamed))

    @pytest.mark.parametrize("size", [0, 3, 256, 1000, 131_072, 2**32 - 1])
    def test_page_size_that_cannot_be_is_not_ours(self, good: str, size: int) -> None:
        with open(good, "rb+") as file:
            file.seek(16 + 24)
            file.write(size.to_bytes(4, sys.byteorder))
        with pytest.raises(InvalidInputError, match="not an lgkv file"):
            inspect(good)


class TestShortFiles:
    def test_file_cut_at_any_page_or_within_is_damaged(self, good: str) -> None:
        whole = Path(good).read_bytes()
        for size in (*range(0, len(whole), PAGE), *range(PAGE // 2, len(whole), PAGE)):
            Path(good).write_bytes(whole[:size])
            # Without the first meta page nothing tells that the file was ever LMDB's.
            with pytest.raises((CorruptionError, InvalidInputError)) as caught:
                inspect(good)
            assert isinstance(caught.value, CorruptionError) or 0 < size < PAGE
            assert str(len(whole)) in str(caught.value).replace(",", "") or size <= PAGE

    def test_file_without_its_second_meta_page_is_damaged(self, good: str) -> None:
        Path(good).write_bytes(Path(good).read_bytes()[:PAGE])
        with pytest.raises(CorruptionError, match="cut short"):
            inspect(good)

    def test_file_that_lacks_only_free_pages_is_whole(self, path: str) -> None:
        with lgkv.open(path, compression=False) as db:
            db.memory.put(("n",), "kept", {"a": 1})
            db.memory.put(("n",), "large", {"text": "x" * 20 * PAGE})
            db.memory.delete(("n",), "large")
            db.memory.put(("n",), "kept", {"a": 2})
            db.memory.put(("n",), "kept", {"a": 3})
        whole, size = Path(path).read_bytes(), os.path.getsize(path)
        while not _verify(path):  # cut off the free pages at the end, one by one
            size -= PAGE
            os.truncate(path, size)
        with pytest.raises(CorruptionError, match="cut short"):
            inspect(path)
        Path(path).write_bytes(whole[: size + PAGE])
        assert size < 20 * PAGE < len(whole)
        assert inspect(path)
        with lgkv.open(path) as db:
            assert db.memory.get(("n",), "kept").value == {"a": 3}
            db.memory.put(("n",), "large", {"text": "y" * 30 * PAGE})
            assert len(db.memory.get(("n",), "large").value["text"]) == 30 * PAGE
        assert _verify(path) == []

    def test_what_is_found_while_others_commit_is_looked_at_again(self, good: str) -> None:
        whole = Path(good).read_bytes()
        os.truncate(good, len(whole) - PAGE)
        transactions = [whole[at : at + 8] for at in (16 + 128, PAGE + 16 + 128)]
        newest = transactions.index(max(transactions, key=lambda raw: raw[::-1]))
        calls = []

        def verify(path: str) -> list[str]:
            calls.append(path)
            if len(calls) < 3:  # somebody commits meanwhile
                with open(path, "rb+") as file:
                    file.seek(newest * PAGE + 16 + 128)
                    file.write((1_000 + len(calls)).to_bytes(8, "little"))
                return ["a page was overwritten"]
            return []

        assert inspect_file(good, verify)
        assert len(calls) == 3

    def test_long_file_is_not_verified_page_by_page(self, good: str) -> None:
        assert inspect_file(good, lambda _: pytest.fail("verified"))


class TestCreation:
    @staticmethod
    def fill(path: str) -> None:
        Path(path).write_bytes(b"filled")

    def test_file_appears_filled(self, path: str) -> None:
        create_file(path, self.fill)
        assert Path(path).read_bytes() == b"filled"
        assert os.listdir(os.path.dirname(path)) == ["agent.lgkv"]
        assert os.stat(path).st_nlink == 1

    def test_nothing_is_at_the_path_until_it_is_filled(self, path: str) -> None:
        def fill(temporary: str) -> None:
            self.fill(temporary)
            assert not os.path.lexists(path)
            assert os.path.dirname(temporary) == os.path.dirname(path)

        create_file(path, fill)

    def test_file_that_was_there_first_stays(self, path: str) -> None:
        def fill(temporary: str) -> None:
            self.fill(temporary)
            Path(path).write_bytes(b"theirs")

        create_file(path, fill)
        assert Path(path).read_bytes() == b"theirs"
        assert os.listdir(os.path.dirname(path)) == ["agent.lgkv"]

    def test_link_that_was_there_first_stays(self, path: str) -> None:
        os.symlink("nowhere", path)
        create_file(path, self.fill)
        assert os.readlink(path) == "nowhere"

    def test_contents_are_synced_before_the_name_and_the_folder_after(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events: list[str] = []

        def fsync(descriptor: int) -> None:
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            events.append("folder" if is_folder else f"file, named: {os.path.lexists(path)}")

        monkeypatch.setattr(os, "fsync", fsync)
        create_file(path, self.fill)
        assert events == ["file, named: False", "folder"]

    def test_folder_is_synced_before_the_temporary_name_goes(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        links: list[int] = []
        monkeypatch.setattr(
            datafile, "_sync_folder", lambda _: links.append(os.stat(path).st_nlink)
        )
        create_file(path, self.fill)
        assert links == [2]

    def test_who_opens_a_file_that_is_being_published_syncs_the_folder(
        self, good: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folders: list[str] = []
        monkeypatch.setattr(datafile, "_sync_folder", folders.append)
        inspect(good)
        assert folders == []
        os.link(good, temporary_beside(good))
        inspect(good)
        assert folders == [os.path.dirname(good)]

    @pytest.mark.parametrize(
        ("number", "error", "says"),
        [
            (errno.EACCES, ReadOnlyError, "not writable"),
            (errno.EPERM, ReadOnlyError, "not writable"),
            (errno.EROFS, ReadOnlyError, "read-only file system"),
            (errno.ENOSPC, StorageError, "No space left"),
            (errno.EIO, StorageError, "cannot be created"),
            (errno.ENOENT, InvalidInputError, "there is no folder"),
        ],
    )
    def test_failed_creation_is_a_typed_error_and_leaves_nothing(
        self, path: str, number: int, error: type[Exception], says: str
    ) -> None:
        def fill(temporary: str) -> None:
            self.fill(temporary)
            raise OSError(number, os.strerror(number), temporary)

        with pytest.raises(error, match=says):
            create_file(path, fill)
        assert os.listdir(os.path.dirname(path)) == []

    @pytest.mark.parametrize("number", [errno.EROFS, errno.ENAMETOOLONG, errno.EIO])
    def test_temporary_file_that_cannot_be_removed_hides_no_error(
        self, path: str, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        def refuse(*_: Any) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "unlink", refuse)
        with pytest.raises(StorageError, match=r"read-only file system|cannot be created"):
            create_file(path, refuse)

    def test_name_that_leaves_no_room_for_a_temporary_one_is_a_typed_error(
        self, tmp_path: Path
    ) -> None:
        with pytest.raises(StorageError, match="File name too long"):
            create_file(str(tmp_path / ("x" * 250)), self.fill)

    def test_failed_sync_publishes_nothing(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fsync(_: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(StorageError, match="Input/output error"):
            create_file(path, self.fill)
        assert os.listdir(os.path.dirname(path)) == []

    @pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EMLINK])
    def test_file_system_without_hard_links_is_served_too(
        self, path: str, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        def link(*_: Any, **__: Any) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "link", link)
        create_file(path, self.fill)
        assert Path(path).read_bytes() == b"filled"
        Path(path).write_bytes(b"theirs")
        create_file(path, self.fill)
        assert Path(path).read_bytes() == b"theirs"
        assert os.listdir(os.path.dirname(path)) == ["agent.lgkv"]

    def test_publishing_may_replace(self, path: str) -> None:
        Path(path).write_bytes(b"old")
        temporary = temporary_beside(path)
        self.fill(temporary)
        with pytest.raises(FileExistsError):
            publish(temporary, path)
        publish(temporary, path, replace=True)
        assert Path(path).read_bytes() == b"filled"
        assert os.listdir(os.path.dirname(path)) == ["agent.lgkv"]

    def test_temporary_names_differ(self, path: str) -> None:
        assert len({temporary_beside(path) for _ in range(100)}) == 100
