"""list_history: walking back through a long thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.chat import Chat
from benchmarks.measures import Filled, Gauge, Measure, Sizes
from benchmarks.thread import thread_config

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

    from benchmarks.backends import Opened

__all__ = ["ListHistory"]

PAGE = 10


class ListHistory:
    """A thread of `turns` turns, three checkpoints each; all of it, pages of it, parts of it."""

    name: ClassVar[str] = "list_history"
    measure_names: ClassVar[tuple[str, ...]] = (
        "all",
        "all_peak_memory",
        "newest_page",
        "page_before",
        "filtered_page",
        "filter_finds_nothing",
    )

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    def fill(self, opened: Opened[BaseCheckpointSaver[Any]]) -> Iterator[Filled]:
        """Have the whole conversation."""
        turns = self._sizes.turns
        Chat(opened.subject, "chat", turns=turns).turns(turns)
        yield Filled(f"{turns} turns")

    def measures(self, opened: Opened[BaseCheckpointSaver[Any]]) -> list[Measure]:
        """Return lists whose tuples are all built, with their values."""
        calls = self._sizes.calls
        config = thread_config("chat")
        every = [found.config for found in opened.subject.list(config)]
        middle = every[len(every) // 2]

        def walked() -> list[int]:
            """Look at the messages of every checkpoint, and keep none of them."""
            return [
                len(found.checkpoint["channel_values"].get("messages", ()))
                for found in opened.subject.list(config)
            ]

        def listed(**options: Any) -> list[CheckpointTuple]:
            return list(opened.subject.list(config, **options))

        def newest_page() -> list[CheckpointTuple]:
            return listed(limit=PAGE)

        def page_before() -> list[CheckpointTuple]:
            return listed(before=middle, limit=PAGE)

        def filtered_page() -> list[CheckpointTuple]:
            return listed(filter={"source": "input"}, limit=PAGE)

        def filter_finds_nothing() -> list[CheckpointTuple]:
            return listed(filter={"source": "fork"})

        return [
            Measure("all", walked, 1),
            Measure("all_peak_memory", walked, 1, gauge=Gauge.PEAK_BYTES, once=True),
            Measure("newest_page", newest_page, calls(5)),
            Measure("page_before", page_before, calls(5)),
            Measure("filtered_page", filtered_page, calls(5)),
            Measure("filter_finds_nothing", filter_finds_nothing, calls(5)),
        ]
