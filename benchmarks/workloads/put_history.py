"""put_history: a chat thread grows by a turn at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.chat import Chat, PutArguments
from benchmarks.measures import Filled, Gauge, Measure, Sizes

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from benchmarks.backends import Opened

__all__ = ["PutHistory"]


class PutHistory:
    """A thread of `turns` turns; what the whole of it costs, and what its end costs."""

    name: ClassVar[str] = "put_history"
    measure_names: ClassVar[tuple[str, ...]] = (
        "run",
        "turn_at_end",
        "put_at_end",
        "put_at_end_cpu",
        "put_on_new_thread",
        "put_on_new_thread_cpu",
    )

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    def fill(self, opened: Opened[BaseCheckpointSaver[Any]]) -> Iterator[Filled]:
        """Have the whole conversation once, with a count at a tenth of it."""
        turns = self._sizes.turns
        tenth = max(1, turns // 10)
        chat = Chat(opened.subject, "chat", turns=turns)
        chat.turns_counted(tenth)
        yield Filled(f"{tenth} turns", chat.new_bytes)
        chat.saver = opened.subject
        chat.turns_counted(turns - tenth)
        yield Filled(f"{turns} turns", chat.new_bytes)

    def measures(self, opened: Opened[BaseCheckpointSaver[Any]]) -> list[Measure]:
        """Return the whole run in an empty file, and single calls on the filled one.

        Those that end in "_cpu" are calls of `put` alone, without the flush.
        """
        calls = self._sizes.calls
        numbers = itertools.count()
        turns = self._sizes.turns

        def empty_file() -> tuple[Chat, int]:
            return Chat(opened.beside().subject, "chat", turns=turns), turns

        def continued() -> tuple[Chat]:
            return (Chat(opened.subject, "chat", turns=1, seed=next(numbers)),)

        def before_last_put() -> tuple[Chat]:
            (chat,) = continued()
            chat.turn_but_the_last_put()
            return (chat,)

        def loaded_new_chat() -> tuple[Chat]:
            chat = Chat(opened.subject, f"new-{next(numbers)}", turns=1)
            chat.load()
            return (chat,)

        def last_put() -> PutArguments:
            (chat,) = before_last_put()
            return chat.arguments_of(chat.put_answer)

        def first_put() -> PutArguments:
            (chat,) = loaded_new_chat()
            return chat.arguments_of(chat.put_input)

        def put(*arguments: Any) -> None:
            opened.subject.put(*arguments)

        cpu = Gauge.SECONDS_WITHOUT_FLUSH
        return [
            Measure("run", Chat.turns, 1, empty_file),
            Measure("turn_at_end", Chat.turn, calls(5), continued),
            Measure("put_at_end", Chat.put_answer, calls(5), before_last_put),
            Measure("put_at_end_cpu", put, calls(20), last_put, needs="flush", gauge=cpu),
            Measure("put_on_new_thread", Chat.put_input, calls(50), loaded_new_chat),
            Measure("put_on_new_thread_cpu", put, calls(200), first_put, needs="flush", gauge=cpu),
        ]
