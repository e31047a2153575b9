"""The savers and stores that are compared, behind one protocol."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Protocol, TypeVar

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.store.memory import InMemoryStore
from langgraph.store.sqlite import SqliteStore

import lgkv
from benchmarks import corpus
from lgkv.langgraph import LgkvSaver, LgkvStore

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.store.base import BaseStore
    from typing_extensions import Self

__all__ = ["BASE", "PLAIN_STORES", "SAVERS", "STORES", "WORD_STORES", "Backend", "Opened"]

SubjectT = TypeVar("SubjectT")
SubjectT_co = TypeVar("SubjectT_co", covariant=True)

BASE: Final = "lgkv"
DURABILITY: Final = "full"
INDEX: Final[Any] = {"embed": corpus.embed, "dims": corpus.DIMS, "fields": ["text"]}
SQLITE_INDEX: Final[Any] = {**INDEX, "text_fields": INDEX["fields"]}
"""`SqliteStore` does not look at "fields"."""

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
IN_MEMORY: Final[Mapping[str, str]] = MappingProxyType({"file": "it keeps nothing on disk"})
NO_FLUSH: Final[Mapping[str, str]] = MappingProxyType({
    "flush": "SQLite does not tell its flush from its other work"
})  # fmt: skip
SYNCHRONOUS: Final = ("OFF", "NORMAL", "FULL", "EXTRA")


class Backend(Protocol[SubjectT_co]):
    """Something to measure."""

    @property
    def name(self) -> str:
        """What it is called in the results."""

    @property
    def lacks(self) -> Mapping[str, str]:
        """Why features are missing that a measure may need: "file", "vectors", "flush"."""

    def open(self, folder: Path) -> AbstractContextManager[SubjectT_co]:
        """Open what is in *folder*, or create it there."""

    def durability(self, subject: Any) -> str:
        """Say what a write that returned has survived, read from *subject* itself."""

    def flush_seconds(self, subject: Any) -> float:
        """Return how long *subject* has waited for the disk until now.

        Where that cannot be told, the backend lacks the feature "flush".
        """


class Opened(Generic[SubjectT]):
    """A backend that is open in a folder of its own. A context manager; the folder stays."""

    def __init__(self, backend: Backend[SubjectT], folder: Path) -> None:
        self.backend = backend
        self._folder = folder
        self._beside: Opened[SubjectT] | None = None
        self._stack = ExitStack()
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the subject and what was opened beside it."""
        if self._beside is not None:
            self._beside.close()
        self._stack.close()

    def reopen(self) -> None:
        """Close the subject and open it again from its file."""
        self._stack.close()
        self._open()

    def beside(self) -> Opened[SubjectT]:
        """Return the same backend in an empty folder; the one from the previous call is removed."""
        folder = self._folder / "beside"
        if self._beside is not None:
            self._beside.close()
            shutil.rmtree(folder)
        self._beside = Opened(self.backend, folder)
        return self._beside

    def count_bytes(self) -> int:
        """Return the length of the files that are left when the subject is closed; reopens it.

        LMDB's lock file is not counted: it holds no data and its size is a constant.
        """
        self._stack.close()
        files = [path for path in self._folder.iterdir() if path.is_file()]
        self._open()
        return sum(path.stat().st_size for path in files if not path.name.endswith("-lock"))

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.subject = self._stack.enter_context(self.backend.open(self._folder))


class Lgkv:
    """What lgkv's backends have in common."""

    name: str = BASE
    lacks: Mapping[str, str] = NOTHING

    def durability(self, subject: Any) -> str:  # noqa: ARG002  the protocol's signature
        return f"durability={DURABILITY}, a flushed commit a call"

    def flush_seconds(self, subject: Any) -> float:
        seconds: float = subject.db.stats().flush_seconds
        return seconds


class InMemory:
    """What the backends that keep nothing have in common."""

    name: ClassVar[str] = "memory"
    lacks: ClassVar[Mapping[str, str]] = IN_MEMORY

    def durability(self, subject: Any) -> str:  # noqa: ARG002  the protocol's signature
        return "none, nothing is written"

    def flush_seconds(self, subject: Any) -> float:  # noqa: ARG002  the protocol's signature
        return 0.0


class Sqlite:
    """What SQLite's backends have in common."""

    def durability(self, subject: Any) -> str:
        """Return what SQLite itself says about the connection."""
        (journal_mode,) = subject.conn.execute("PRAGMA journal_mode").fetchone()
        (synchronous,) = subject.conn.execute("PRAGMA synchronous").fetchone()
        return f"journal_mode={journal_mode}, synchronous={SYNCHRONOUS[synchronous]}"

    def flush_seconds(self, subject: Any) -> float:
        raise NotImplementedError(NO_FLUSH["flush"])


class LgkvSavers(Lgkv):
    """`LgkvSaver` with `DURABILITY`."""

    @contextmanager
    def open(self, folder: Path) -> Iterator[LgkvSaver]:
        with lgkv.open(folder / "agent.lgkv", durability=DURABILITY) as db:
            yield LgkvSaver(db)


class LgkvStores(Lgkv):
    """`LgkvStore` with `DURABILITY`, and with options of its own."""

    def __init__(self, name: str = BASE, **options: Any) -> None:
        self.name, self._options = name, options

    @contextmanager
    def open(self, folder: Path) -> Iterator[LgkvStore]:
        with lgkv.open(folder / "agent.lgkv", durability=DURABILITY) as db:
            yield LgkvStore(db, **self._options)


class SqliteSavers(Sqlite):
    """`SqliteSaver` as shipped: it sets WAL itself, and SQLite's default is synchronous=FULL."""

    name: ClassVar[str] = "sqlite"
    lacks: ClassVar[Mapping[str, str]] = NO_FLUSH

    @contextmanager
    def open(self, folder: Path) -> Iterator[SqliteSaver]:
        with SqliteSaver.from_conn_string(str(folder / "checkpoints.sqlite")) as saver:
            saver.setup()
            yield saver


class SqliteStores(Sqlite):
    """`SqliteStore` as shipped, or made fair: with a write-ahead log, as `SqliteSaver` has it."""

    def __init__(self, name: str, *, wal: bool, vectors: bool = True) -> None:
        self.name = name
        self.lacks = _sqlite_lacks() if vectors else NO_FLUSH
        self._wal, self._vectors = wal, vectors

    @contextmanager
    def open(self, folder: Path) -> Iterator[SqliteStore]:
        index = SQLITE_INDEX if self._vectors and "vectors" not in self.lacks else None
        with SqliteStore.from_conn_string(str(folder / "store.sqlite"), index=index) as store:
            if self._wal:
                store.conn.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
            store.setup()
            yield store


class InMemorySavers(InMemory):
    """`InMemorySaver`."""

    @contextmanager
    def open(self, folder: Path) -> Iterator[InMemorySaver]:  # noqa: ARG002  the protocol's signature
        yield InMemorySaver()


class InMemoryStores(InMemory):
    """`InMemoryStore`."""

    @contextmanager
    def open(self, folder: Path) -> Iterator[InMemoryStore]:  # noqa: ARG002  the protocol's signature
        yield InMemoryStore(index=INDEX)


def _sqlite_lacks() -> Mapping[str, str]:
    if hasattr(sqlite3.Connection, "enable_load_extension"):
        return NO_FLUSH
    reason = "this Python's sqlite3 cannot load extensions, so sqlite-vec does not run"
    return {**NO_FLUSH, "vectors": reason}


SAVERS: Final[tuple[Backend[BaseCheckpointSaver[Any]], ...]] = (
    LgkvSavers(),
    SqliteSavers(),
    InMemorySavers(),
)
STORES: Final[tuple[Backend[BaseStore], ...]] = (
    LgkvStores(index=INDEX),
    SqliteStores("sqlite", wal=False),
    SqliteStores("sqlite-wal", wal=True),
    InMemoryStores(),
)
PLAIN_STORES: Final[tuple[Backend[BaseStore], ...]] = (
    LgkvStores(),
    LgkvStores("lgkv-fields", fields={"user": str}),
    SqliteStores("sqlite-wal", wal=True, vectors=False),
)
"""Stores without vectors."""
WORD_STORES: Final[tuple[Backend[BaseStore], ...]] = (
    LgkvStores(index={"mode": "keyword", "fields": ["text"]}),
)
"""Stores that search by words."""
