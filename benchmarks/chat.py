"""Drives a saver through a chat as the LangGraph runtime does for a graph of one model node."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from benchmarks import corpus

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import BaseCheckpointSaver

__all__ = ["Chat", "thread_config"]

_MODEL_TRIGGER: Final = "branch:to:model"


def thread_config(thread_id: str, checkpoint_id: str | None = None) -> RunnableConfig:
    """Return the config that addresses a thread, or one checkpoint of it."""
    configurable = {"thread_id": thread_id, "checkpoint_ns": ""}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


class Chat:
    """One thread of a `MessagesState` graph; each turn is a question and an answer.

    A turn calls the saver as `graph.invoke` with `durability="sync"` does, one call after another:
    get_tuple, put (input), put_writes, put (loop), put_writes, put (loop). The messages of a turn
    are appended to the list that `get_tuple` returned. What is said is written up front, for as
    many turns as `turns` allows, so that a timed turn is the saver's work.
    """

    def __init__(
        self, saver: BaseCheckpointSaver[Any], thread_id: str, *, turns: int, seed: int = 0
    ) -> None:
        self.saver = saver
        self.thread_id = thread_id
        self._rng = random.Random(f"{thread_id} {seed}")
        self._script = iter(corpus.conversation(self._rng, turns))
        self._checkpoint: Checkpoint = empty_checkpoint()
        self._config = self._runtime_config()
        self._step = -2
        self.steps: tuple[Callable[[], None], ...] = (
            self.load, self.put_input, self.write_input, self.put_question,
            self.write_answer, self.put_answer,
        )  # fmt: skip

    def turn(self) -> None:
        """Have one turn."""
        for step in self.steps:
            step()

    def turn_but_the_last_put(self) -> None:
        """Do everything in a turn that precedes `put_answer`."""
        for step in self.steps[:-1]:
            step()

    def load(self) -> None:
        """Read the newest checkpoint, as every invocation begins."""
        self._config = self._runtime_config()
        found = self.saver.get_tuple(self._config)
        if found is not None:
            self._checkpoint = found.checkpoint
            self._step = found.metadata["step"]
            self._config = self._runtime_config(found.checkpoint["id"])
        self._question = next(self._script)
        self._answer = next(self._script)

    def put_input(self) -> None:
        """Put the checkpoint that holds the turn's input."""
        values = {**self._values(), "__start__": {"messages": [self._question]}}
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

    def _values(self) -> dict[str, Any]:
        return self._checkpoint["channel_values"]

    def _messages(self) -> list[Any]:
        messages: list[Any] = self._values().get("messages", [])
        return messages

    def _runtime_config(self, checkpoint_id: str | None = None) -> RunnableConfig:
        config = thread_config(self.thread_id, checkpoint_id)
        config["configurable"]["__pregel_durability"] = "sync"
        return {
            "tags": [],
            "metadata": {"thread_id": self.thread_id},
            "callbacks": None,
            "recursion_limit": 10_007,
            **config,
        }

    def _put(
        self,
        source: Any,
        values: dict[str, Any],
        changed: tuple[str, ...],
        *,
        seen: dict[str, tuple[str, ...]],
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Put the next checkpoint, with one new version for all of *changed*."""
        self._step += 1
        checkpoint = self._successor(values, changed, seen)
        new_versions = {name: checkpoint["channel_versions"][name] for name in changed}
        described: Any = {"source": source, "step": self._step, "parents": {}, **(metadata or {})}
        self._put_and_follow(checkpoint, described, new_versions)

    def _put_and_follow(
        self, checkpoint: Checkpoint, metadata: CheckpointMetadata, new_versions: dict[str, Any]
    ) -> None:
        self.saver.put(self._config, checkpoint, metadata, new_versions)
        self._checkpoint = checkpoint
        self._config = self._runtime_config(checkpoint["id"])

    def _successor(
        self, values: dict[str, Any], changed: tuple[str, ...], seen: dict[str, tuple[str, ...]]
    ) -> Checkpoint:
        before = self._checkpoint
        versions = dict(before["channel_versions"])
        newest = max(versions.values(), default=None)
        versions_seen = {node: dict(of_node) for node, of_node in before["versions_seen"].items()}
        for node, channels in seen.items():
            versions_seen.setdefault(node, {}).update({c: versions[c] for c in channels})
        versions.update(dict.fromkeys(changed, self.saver.get_next_version(newest, None)))
        return {
            "v": 4,
            "ts": datetime.now(timezone.utc).isoformat(),
            "id": str(uuid6(clock_seq=self._step)),
            "channel_values": values,
            "channel_versions": versions,
            "versions_seen": versions_seen,
            "updated_channels": sorted(set(changed) & {*values}),
        }

    def _put_writes(self, writes: list[tuple[str, Any]], node: str) -> None:
        task_id = corpus.random_id(self._rng)
        self.saver.put_writes(self._config, writes, task_id, f"~__pregel_pull, {node}")
