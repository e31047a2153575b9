"""Changes to write, and what is found of them afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final

from lgkv.connection import Connection
from lgkv.layout import Table
from lgkv.snapshot import State
from lgkv.writer import Batch, Change

__all__ = [
    "LIMIT_S", "K", "failing", "names", "outcome", "putting", "queueing", "state", "together",
]  # fmt: skip

K: Final = b"\x99"  # a kind that lgkv does not use
LIMIT_S: Final = 20


def putting(name: bytes, body: bytes = b"body") -> Change[None]:
    def apply(batch: Batch) -> None:
        batch.state.threads += 1
        batch.put(Table.MEMORY, K + name, body)

    return Change(apply)


def failing(error: BaseException, name: bytes = b"failing") -> Change[None]:
    def apply(batch: Batch) -> None:
        putting(name).apply(batch)
        raise error

    return Change(apply)


def names(db: Connection) -> list[bytes]:
    with db.snapshot() as snapshot:
        return [key[1:] for key in snapshot.keys(Table.MEMORY, K)]


def state(db: Connection) -> State:
    with db.snapshot() as snapshot:
        return snapshot.read_state()


def outcome(future: Future[Any]) -> Any:
    error = future.exception(LIMIT_S)
    return future.result() if error is None else error


@contextmanager
def queueing(db: Connection) -> Iterator[None]:
    """Let what is submitted meanwhile wait, and go into one batch."""
    with db.writer._turn:
        yield


def together(db: Connection, *changes: Change[Any]) -> list[Any]:
    with queueing(db):
        futures = [db.submit(change) for change in changes]
    return [outcome(future) for future in futures]
