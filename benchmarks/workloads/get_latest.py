"""get_latest: reading one checkpoint of a long thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.chat import Chat
from benchmarks.measures import Filled, Measure, Sizes
from benchmarks.thread import thread_config

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from benchmarks.backends import Opened

__all__ = ["GetLatest"]


class GetLatest:
    """A thread of `turns` turns; its newest checkpoint, and the one in its middle by id."""

    name: ClassVar[str] = "get_latest"
    measure_names: ClassVar[tuple[str, ...]] = (
        "latest",
        "by_id",
        "open_and_latest",
        "latest_after_open",
        "plain_decode",
    )

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    def fill(self, opened: Opened[BaseCheckpointSaver[Any]]) -> Iterator[Filled]:
        """Have the whole conversation."""
        turns = self._sizes.turns
        Chat(opened.subject, "chat", turns=turns).turns(turns)
        yield Filled(f"{turns} turns")

    def measures(self, opened: Opened[BaseCheckpointSaver[Any]]) -> list[Measure]:
        """Return reads of a warm file, of one just opened, and what decoding the value takes."""
        calls = self._sizes.calls
        latest = thread_config("chat")
        middle = _checkpoint_in_the_middle(opened.subject)
        stored = opened.subject.serde.dumps_typed(_messages(opened.subject, latest))

        def read(config: RunnableConfig) -> list[BaseMessage]:
            return _messages(opened.subject, config)

        def open_and_read(config: RunnableConfig) -> list[BaseMessage]:
            opened.reopen()
            return _messages(opened.subject, config)

        def just_opened() -> tuple[RunnableConfig]:
            opened.reopen()
            return (latest,)

        def decode() -> Any:
            return opened.subject.serde.loads_typed(stored)

        return [
            Measure("latest", read, calls(20), lambda: (latest,)),
            Measure("by_id", read, calls(20), lambda: (middle,)),
            Measure("open_and_latest", open_and_read, calls(5), lambda: (latest,), needs="file"),
            Measure("latest_after_open", read, calls(10), just_opened, needs="file"),
            Measure("plain_decode", decode, calls(10)),
        ]


def _messages(saver: BaseCheckpointSaver[Any], config: RunnableConfig) -> list[BaseMessage]:
    found = saver.get_tuple(config)
    messages: list[BaseMessage] = found.checkpoint["channel_values"]["messages"] if found else []
    return messages


def _checkpoint_in_the_middle(saver: BaseCheckpointSaver[Any]) -> RunnableConfig:
    """Return the config of a checkpoint that a model's answer made."""
    ids = [
        found.checkpoint["id"]
        for found in saver.list(thread_config("chat"), filter={"source": "loop"})
    ]
    return thread_config("chat", ids[len(ids) // 2])
