"""One thread of conversation, put as the LangGraph runtime puts it."""

from __future__ import annotations

import random
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from benchmarks import corpus

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import BaseCheckpointSaver

__all__ = ["StateThread", "Thread", "thread_config"]

_TRIGGER: Final = "branch:to:node"


def thread_config(thread_id: str, checkpoint_id: str | None = None) -> RunnableConfig:
    """Return the config that addresses a thread, or one checkpoint of it."""
    configurable = {"thread_id": thread_id, "checkpoint_ns": ""}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


class Thread:
    """A thread, and the checkpoint that it has come to.

    `new_bytes` counts what was handed over so far: each new value and each write once, as the
    saver's serialiser gives it.
    """

    def __init__(self, saver: BaseCheckpointSaver[Any], thread_id: str, *, seed: int = 0) -> None:
        self.saver = saver
        self.thread_id = thread_id
        self.new_bytes = 0
        self._rng = random.Random(f"{thread_id} {seed}")
        self._checkpoint: Checkpoint = empty_checkpoint()
        self._config = self._runtime_config()
        self._step = -2

    def load(self) -> None:
        """Read the newest checkpoint, as every invocation begins."""
        self._config = self._runtime_config()
        found = self.saver.get_tuple(self._config)
        if found is not None:
            self._checkpoint = found.checkpoint
            self._step = found.metadata["step"]
            self._config = self._runtime_config(found.checkpoint["id"])

    def count(self, *values: Any) -> None:
        """Count *values* as new."""
        self.new_bytes += sum(len(self.saver.serde.dumps_typed(value)[1]) for value in values)

    @property
    def _values(self) -> dict[str, Any]:
        return self._checkpoint["channel_values"]

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
        self.saver.put(self._config, checkpoint, described, new_versions)
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


class StateThread(Thread):
    """A thread whose channels are plain values; a step changes one of them.

    So does a graph of one node that is its own successor.
    """

    def begin(self, values: dict[str, Any]) -> None:
        """Put the first checkpoint."""
        self._put("loop", {**values, _TRIGGER: None}, (*values, _TRIGGER), seen={})
        self.count(*values.values())

    def value(self, channel: str) -> Any:
        """Return a channel's value, as it was put last."""
        return self._values[channel]

    def put(self, channel: str, value: Any) -> None:
        """Put the next checkpoint, with a new value of *channel*."""
        values = {**self._values, channel: value}
        self._put("loop", values, (channel, _TRIGGER), seen={"node": (_TRIGGER,)})

    def step(self, channel: str, value: Any) -> None:
        """Put the pending write of a node, then the next checkpoint."""
        self._put_writes([(channel, value), (_TRIGGER, None)], "node")
        self.put(channel, value)
