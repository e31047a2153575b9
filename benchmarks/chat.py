"""Drives a saver through a chat as the LangGraph runtime does for a graph of one model node."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from benchmarks import corpus
from benchmarks.thread import Thread

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

__all__ = ["Chat", "PutArguments"]

_MODEL_TRIGGER: Final = "branch:to:model"


PutArguments = tuple[Any, Any, Any, Any]
"""Config, checkpoint, metadata and new versions."""


class _Catcher:
    """Stands in for a saver, and keeps the arguments of `put`."""

    arguments: PutArguments

    def __init__(self, saver: BaseCheckpointSaver[Any]) -> None:
        self.get_next_version = saver.get_next_version

    def put(self, *arguments: Any) -> None:
        self.arguments = arguments  # type: ignore[assignment]


class Chat(Thread):
    """One thread of a `MessagesState` graph; each turn is a question and an answer.

    A turn calls the saver as `graph.invoke` with `durability="sync"` does, one call after another:
    get_tuple, put (input), put_writes, put (loop), put_writes, put (loop). The messages of a turn
    are appended to the list that `get_tuple` returned. What is said is written up front, for as
    many turns as `turns` allows, so that a timed turn is the saver's work.
    """

    def __init__(
        self, saver: BaseCheckpointSaver[Any], thread_id: str, *, turns: int, seed: int = 0
    ) -> None:
        super().__init__(saver, thread_id, seed=seed)
        self._script = iter(corpus.conversation(self._rng, turns))
        self.steps: tuple[Callable[[], None], ...] = (
            self.load, self.put_input, self.write_input, self.put_question,
            self.write_answer, self.put_answer,
        )  # fmt: skip

    def turn(self) -> None:
        """Have one turn."""
        for step in self.steps:
            step()

    def turns(self, number: int) -> None:
        """Have *number* turns."""
        for _ in range(number):
            self.turn()

    def turns_counted(self, number: int) -> None:
        """Have *number* turns, and count each message and each of its two writes."""
        for _ in range(number):
            self.turn()
            said = (self._question, self._answer)
            self.count(*said, *([message] for message in said))

    def turn_but_the_last_put(self) -> None:
        """Do everything in a turn that precedes `put_answer`."""
        for step in self.steps[:-1]:
            step()

    def arguments_of(self, put: Callable[[], None]) -> PutArguments:
        """Return what *put*, one of the steps, would call `saver.put` with; nothing is put."""
        saver, catcher = self.saver, _Catcher(self.saver)
        self.saver = catcher  # type: ignore[assignment]
        try:
            put()
        finally:
            self.saver = saver
        return catcher.arguments

    def load(self) -> None:
        """Read the newest checkpoint, and think of what will be said."""
        super().load()
        self._question = next(self._script)
        self._answer = next(self._script)

    def put_input(self) -> None:
        """Put the checkpoint that holds the turn's input."""
        values = {**self._values, "__start__": {"messages": [self._question]}}
        self._put("input", values, ("__start__",), seen={"__input__": ()})

    def write_input(self) -> None:
        """Put the pending writes of the task that hands the input to the graph."""
        writes = [("messages", [self._question]), (_MODEL_TRIGGER, None)]
        self._put_writes(writes, "__start__")

    def put_question(self) -> None:
        """Put the checkpoint after the input was applied."""
        values = {"messages": [*self._messages(), self._question], _MODEL_TRIGGER: None}
        changed = ("__start__", "messages", _MODEL_TRIGGER)
        self._put("loop", values, changed, seen={"__start__": ("__start__",)})

    def write_answer(self) -> None:
        """Put the pending writes of the model's task."""
        self._put_writes([("messages", [self._answer])], "model")

    def put_answer(self) -> None:
        """Put the checkpoint after the model's answer was applied."""
        values = {"messages": [*self._messages(), self._answer]}
        changed = ("messages", _MODEL_TRIGGER)
        self._put("loop", values, changed, seen={"model": (_MODEL_TRIGGER,)})

    def put_whole(self, **metadata: Any) -> None:
        """Put a single checkpoint that already holds a question and an answer."""
        values = {"messages": [next(self._script), next(self._script)]}
        self._put("loop", values, ("messages",), seen={}, metadata=metadata)

    def _messages(self) -> list[Any]:
        messages: list[Any] = self._values.get("messages", [])
        return messages
