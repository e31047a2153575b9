"""many_threads: a file of many short conversations."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.chat import Chat
from benchmarks.measures import Filled, Measure, Sizes
from benchmarks.thread import thread_config

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

    from benchmarks.backends import Opened

__all__ = ["ManyThreads"]

PAGE = 10
USERS = 500


class ManyThreads:
    """`threads` threads of one checkpoint each, in a file that `USERS` users share."""

    name: ClassVar[str] = "many_threads"
    measure_names: ClassVar[tuple[str, ...]] = (
        "get_random",
        "open_and_get",
        "open_and_close",
        "first_page",
        "list_newest",
        "list_of_a_user",
    )

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    def fill(self, opened: Opened[BaseCheckpointSaver[Any]]) -> Iterator[Filled]:
        """Put every thread's only checkpoint."""
        for number in range(self._sizes.threads):
            chat = Chat(opened.subject, f"thread-{number}", turns=1)
            chat.put_whole(user=f"user-{number % USERS}")
        yield Filled(f"{self._sizes.threads} threads")

    def measures(self, opened: Opened[BaseCheckpointSaver[Any]]) -> list[Measure]:
        """Return reads of random threads, and lists over all threads."""
        calls = self._sizes.calls
        rng = random.Random("many_threads")

        def random_thread() -> tuple[RunnableConfig]:
            return (thread_config(f"thread-{rng.randrange(self._sizes.threads)}"),)

        def get(config: RunnableConfig) -> CheckpointTuple | None:
            return opened.subject.get_tuple(config)

        def open_and_get(config: RunnableConfig) -> CheckpointTuple | None:
            opened.reopen()
            return opened.subject.get_tuple(config)

        def open_and_close() -> None:
            opened.reopen()

        def first_page() -> list[Any]:
            return list(opened.subject.db.threads(limit=PAGE))  # type: ignore[attr-defined]

        def list_newest() -> list[CheckpointTuple]:
            return list(opened.subject.list(None, limit=PAGE))

        def list_of_a_user() -> list[CheckpointTuple]:
            return list(opened.subject.list(None, filter={"user": "user-0"}, limit=PAGE))

        return [
            Measure("get_random", get, calls(200), random_thread),
            Measure("open_and_get", open_and_get, calls(5), random_thread, needs="file"),
            Measure("open_and_close", open_and_close, calls(5), needs="file"),
            Measure("first_page", first_page, calls(20), needs="pages"),
            Measure("list_newest", list_newest, calls(5)),
            Measure("list_of_a_user", list_of_a_user, calls(5)),
        ]
