"""A graph with delta channels, and a saver that does everything in memory as well."""

from collections.abc import Sequence
from typing import Annotated, Any

from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Overwrite
from typing_extensions import TypedDict

import lgkv
from lgkv.langgraph import LgkvSaver

__all__ = ["Mirrored", "branching_graph", "states"]


class Mirrored(LgkvSaver):
    """Stores in `memory` too whatever it stores, under the same ids and versions."""

    def __init__(self, db: lgkv.Database) -> None:
        super().__init__(db)
        self.memory = InMemorySaver()

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        self.memory.put(config, checkpoint, metadata, new_versions)
        return super().put(config, checkpoint, metadata, new_versions)

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        self.memory.put_writes(config, writes, task_id, task_path)
        super().put_writes(config, writes, task_id, task_path)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        self.memory.put(config, checkpoint, metadata, new_versions)
        return await super().aput(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        self.memory.put_writes(config, writes, task_id, task_path)
        await super().aput_writes(config, writes, task_id, task_path)


def append(state: list[Any], writes: Sequence[Any]) -> list[Any]:
    return [*state, *(element for write in writes for element in write)]


def merge(state: dict[str, Any], writes: Sequence[Any]) -> dict[str, Any]:
    merged = dict(state)
    for write in writes:
        merged |= write
    return merged


def branching_graph(saver: Any, frequency: int) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Return a graph in which tasks write delta channels side by side.

    `items` is snapshotted every `frequency` updates, `facts` far less often, and a turn that
    ends in "!" replaces the items. `count` and `turns` are ordinary channels.
    """

    class State(TypedDict):
        turn: str
        count: int
        turns: Annotated[list[str], lambda old, new: old + new]
        items: Annotated[list[Any], DeltaChannel(append, snapshot_frequency=frequency)]
        facts: Annotated[dict[str, Any], DeltaChannel(merge, snapshot_frequency=frequency * 7)]

    def begin(state: State) -> dict[str, Any]:
        return {"count": state.get("count", 0) + 1, "turns": [state.get("turn", "")]}

    def writer(name: str) -> Any:
        def write(state: State) -> dict[str, Any]:
            count, turn = state.get("count", 0), state.get("turn", "")
            written: dict[str, Any] = {"items": [f"{name}{count}"]}
            if name == "a":
                written["facts"] = {turn: count, "last": turn}
            return written

        return write

    def finish(state: State) -> dict[str, Any]:
        if state.get("turn", "").endswith("!"):
            return {"items": Overwrite([f"replaced{state.get('count', 0)}"])}
        return {"turns": ["end"]}

    builder = StateGraph(State)
    builder.add_node("begin", begin)
    for name in "cab":
        builder.add_node(name, writer(name))
        builder.add_edge("begin", name)
    builder.add_node("finish", finish)
    builder.add_edge(START, "begin")
    builder.add_edge(["c", "a", "b"], "finish")
    builder.add_edge("finish", END)
    return builder.compile(checkpointer=saver)


def states(graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig) -> dict[str, Any]:
    """Return values and next nodes of every checkpoint of a thread, by id, each read alone."""
    found = {}
    for snapshot in graph.get_state_history(config):
        read = graph.get_state(snapshot.config)
        assert read.values == snapshot.values
        found[snapshot.config["configurable"]["checkpoint_id"]] = (read.values, read.next)
    return found
