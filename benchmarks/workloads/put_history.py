"""put_history: a chat thread grows by a turn at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.chat import Chat
from benchmarks.measures import Measure, Sizes

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
        "put_on_new_thread",
    )

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    def fill(self, opened: Opened[BaseCheckpointSaver[Any]]) -> Iterator[str]:
        """Have the whole conversation once, with a count at a quarter of it."""
        turns = self._sizes.turns
        chat = Chat(opened.subject, "chat", turns=turns)
        _have_turns(chat, turns // 4)
        yield f"{turns // 4} turns"
        chat.saver = opened.subject
        _have_turns(chat, turns - turns // 4)
        yield f"{turns} turns"

    def measures(self, opened: Opened[BaseCheckpointSaver[Any]]) -> list[Measure]:
        """Return the whole run in an empty file, and single calls on the filled one."""
        calls = self._sizes.calls
        numbers = itertools.count()
        turns = self._sizes.turns

        def empty_file() -> tuple[Chat, int]:
            return Chat(opened.beside().subject, "chat", turns=turns), turns

        def next_chat() -> tuple[Chat]:
            return (Chat(opened.subject, f"new-{next(numbers)}", turns=1),)

        def continued() -> tuple[Chat]:
            return (_continued(opened.subject, next(numbers)),)

        def before_last_put() -> tuple[Chat]:
            (chat,) = continued()
            chat.turn_but_the_last_put()
            return (chat,)

        def loaded_new_chat() -> tuple[Chat]:
            (chat,) = next_chat()
            chat.load()
            return (chat,)

        return [
            Measure("run", _have_turns, 1, empty_file),
            Measure("turn_at_end", Chat.turn, calls(5), continued),
            Measure("put_at_end", Chat.put_answer, calls(5), before_last_put),
            Measure("put_on_new_thread", Chat.put_input, calls(50), loaded_new_chat),
        ]


def _continued(saver: BaseCheckpointSaver[Any], number: int) -> Chat:
    """Return the filled thread's chat with something new to say."""
    return Chat(saver, "chat", turns=1, seed=number)


def _have_turns(chat: Chat, turns: int) -> None:
    for _ in range(turns):
        chat.turn()
