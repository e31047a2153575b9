"""What the LangGraph classes share: opening by a connection string, and closing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

import lgkv
from lgkv.database import Database
from lgkv.errors import InvalidInputError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Done", "Opening", "checked"]

OPEN_OPTIONS: Final = (
    "compression",
    "mode",
    "durability",
    "interval_ms",
    "map_size_bytes",
    "lock_timeout_s",
    "cache_bytes",
)


class Done:
    """The result of a method that has nothing to do, and may be awaited or not."""

    def __await__(self) -> Generator[None, None, None]:
        """Give None at once."""
        yield from ()


def checked(db: Any) -> Database:
    """Return `db`; InvalidInputError unless it is a database."""
    if not isinstance(db, Database):
        raise InvalidInputError(
            f"db is {db!r:.100}: give lgkv.open(path), or call from_conn_string(path)"
        )
    return db


class Opening:
    """A class on a database: usable at once, and as a sync or async context manager.

    Made by `from_conn_string` it owns the database and closes it at the end of a `with`;
    made from a `Database` it leaves closing to whoever opened that.
    """

    _db: Database
    _owns_db: bool = False

    @classmethod
    def from_conn_string(cls, conn_string: str | os.PathLike[str], **options: Any) -> Self:
        """Open the file at the path `conn_string`.

        `options` are those of `lgkv.open` and of the class itself.
        """
        if conn_string == ":memory:":
            raise InvalidInputError(
                "lgkv keeps its data in a file: give a path instead of ':memory:'"
            )
        if isinstance(conn_string, str) and "://" in conn_string:
            kind = conn_string.partition("://")[0]  # the rest may hold a password
            raise InvalidInputError(
                f"a connection string that begins with {kind!r} is another database's: "
                "give the path of a file, such as 'agent.lgkv'"
            )
        opening = {name: options.pop(name) for name in OPEN_OPTIONS if name in options}
        db = lgkv.open(conn_string, **opening)
        try:
            made = cls(db, **options)  # type: ignore[call-arg]  # every such class takes a database first
        except BaseException:
            db.close()
            raise
        made._owns_db = True
        return made

    @property
    def db(self) -> Database:
        """The database underneath."""
        return self._db

    def setup(self) -> Done:
        """Do nothing: the file is ready. May be called or awaited."""
        return Done()

    async def asetup(self) -> None:
        """Do nothing, as `setup` does: the name that the Redis classes have for it."""

    def close(self) -> None:
        """Close the database, if `from_conn_string` opened it."""
        if self._owns_db:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        await asyncio.to_thread(self.close)  # the last commit may be under way
