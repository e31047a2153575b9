"""Checkpoints to store and configs to store them by, as LangGraph's runtime makes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointTuple
from langgraph.checkpoint.base.id import uuid6

__all__ = ["checkpoint_of", "config_of", "id_of", "ids_of", "new_id", "put"]


def new_id() -> str:
    """Return an id that is greater than those before it."""
    return str(uuid6(clock_seq=0))


def config_of(
    thread_id: str = "t", ns: str | None = "", checkpoint_id: str | None = None
) -> RunnableConfig:
    """Return a config that names a thread, and what else is given."""
    configurable: dict[str, Any] = {"thread_id": thread_id}
    if ns is not None:
        configurable["checkpoint_ns"] = ns
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def checkpoint_of(
    values: Mapping[str, Any] | None = None,
    versions: Mapping[str, Any] | None = None,
    *,
    checkpoint_id: str | None = None,
    v: int = 4,
) -> Checkpoint:
    """Return a checkpoint; without `versions` each value has version 1."""
    return {
        "v": v,
        "id": checkpoint_id or new_id(),
        "ts": "2024-07-31T20:14:19.804150+00:00",
        "channel_values": dict(values or {}),
        "channel_versions": dict(dict.fromkeys(values or {}, 1) if versions is None else versions),
        "versions_seen": {"__input__": {}, "node": {"branch:to:node": "1.5"}},
        "updated_channels": None,
    }


def put(
    saver: BaseCheckpointSaver[Any],
    config: RunnableConfig | None = None,
    values: Mapping[str, Any] | None = None,
    versions: Mapping[str, Any] | None = None,
    *,
    new: Iterable[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    checkpoint_id: str | None = None,
    v: int = 4,
) -> RunnableConfig:
    """Store a checkpoint whose parent is in `config`; `new` are the channels new in it."""
    checkpoint = checkpoint_of(values, versions, checkpoint_id=checkpoint_id, v=v)
    all_versions = checkpoint["channel_versions"]
    new_versions = {
        name: all_versions.get(name, 1) for name in (all_versions if new is None else new)
    }
    return saver.put(
        config or config_of(),
        checkpoint,
        {"source": "loop", "step": 1, **(metadata or {})},
        new_versions,
    )


def id_of(config: RunnableConfig) -> str:
    """Return the checkpoint id of a config."""
    return str(config["configurable"]["checkpoint_id"])


def ids_of(found: Iterable[CheckpointTuple]) -> list[str]:
    """Return the checkpoint ids of a listing."""
    return [id_of(each.config) for each in found]
