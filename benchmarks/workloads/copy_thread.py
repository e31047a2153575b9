"""copy_thread: a long thread under a second name."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from langgraph.checkpoint.base import BaseCheckpointSaver

from benchmarks.chat import Chat
from benchmarks.measures import Filled, Measure, Sizes
from benchmarks.thread import thread_config

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

    from benchmarks.backends import Opened

__all__ = ["CopyThread", "copy_thread"]

PAGE = 20


class CopyThread:
    """A thread of `turns` turns; a copy of it, by the saver or by reading and putting."""

    name: ClassVar[str] = "copy_thread"
    measure_names: ClassVar[tuple[str, ...]] = ("copy",)

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    def fill(self, opened: Opened[BaseCheckpointSaver[Any]]) -> Iterator[Filled]:
        """Have the whole conversation."""
        turns = self._sizes.turns
        Chat(opened.subject, "chat", turns=turns).turns(turns)
        yield Filled(f"{turns} turns")

    def measures(self, opened: Opened[BaseCheckpointSaver[Any]]) -> list[Measure]:
        """Return the copy. The one before it is deleted first."""
        numbers = itertools.count()

        def next_target() -> tuple[str]:
            number = next(numbers)
            opened.subject.delete_thread(f"copy-{number - 1}")
            return (f"copy-{number}",)

        def copy(target: str) -> None:
            copy_thread(opened.subject, "chat", target)

        return [Measure("copy", copy, 1, next_target)]


def copy_thread(saver: BaseCheckpointSaver[Any], source: str, target: str) -> None:
    """Copy a thread as the saver does, or as its users do where it cannot."""
    if type(saver).copy_thread is not BaseCheckpointSaver.copy_thread:
        saver.copy_thread(source, target)
        return
    before: RunnableConfig | None = None
    while page := list(saver.list(thread_config(source), before=before, limit=PAGE)):
        for found in page:
            parent = found.parent_config and found.parent_config["configurable"]["checkpoint_id"]
            config = saver.put(
                thread_config(target, parent),
                found.checkpoint,
                found.metadata,
                found.checkpoint["channel_versions"],
            )
            tasks = itertools.groupby(found.pending_writes or (), lambda write: write[0])
            for task_id, writes in tasks:
                saver.put_writes(
                    config, [(channel, value) for _, channel, value in writes], task_id
                )
        before = page[-1].config
