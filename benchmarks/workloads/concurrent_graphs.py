"""concurrent_graphs: graphs that are invoked side by side, with LangGraph's own durability."""

from __future__ import annotations

import itertools
import operator
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from benchmarks.measures import Filled, Gauge, Measure, Measured, Sizes
from benchmarks.thread import thread_config

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from benchmarks.backends import Opened

__all__ = ["ConcurrentGraphs"]

CROWDS = (1, 16, 64)


class _State(TypedDict):
    steps: Annotated[list[str], operator.add]


class ConcurrentGraphs:
    """Graphs of three nodes, a thread id each: the seconds of all of them for each invocation."""

    name: ClassVar[str] = "concurrent_graphs"
    measure_names: ClassVar[tuple[str, ...]] = tuple(f"graphs_{count}" for count in CROWDS)

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._numbers = itertools.count()

    def fill(self, opened: Opened[BaseCheckpointSaver[Any]]) -> Iterator[Filled]:
        """Invoke one graph once."""
        self._crowd(opened, 1, 1)
        yield Filled("1 invocation")

    def measures(self, opened: Opened[BaseCheckpointSaver[Any]]) -> list[Measure]:
        """Return crowds of graphs."""
        turns = max(1, self._sizes.puts // 8)
        return [
            Measure(
                f"graphs_{count}",
                lambda count=count: self._crowd(opened, count, turns),  # type: ignore[misc]
                self._sizes.calls(2),
                gauge=Gauge.TOLD_SECONDS,
            )
            for count in CROWDS
        ]

    def _crowd(self, opened: Opened[BaseCheckpointSaver[Any]], count: int, turns: int) -> Measured:
        graph, crowd = three_nodes(opened.subject), next(self._numbers)
        began: list[float] = []
        begin = threading.Barrier(count, lambda: began.append(time.perf_counter()))

        def work(number: int) -> None:
            begin.wait()
            for turn in range(turns):
                graph.invoke({"steps": [f"{turn}"]}, thread_config(f"{crowd}, {number}"))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Measured((time.perf_counter() - began[0]) / (count * turns), range(count * turns))


def three_nodes(saver: BaseCheckpointSaver[Any]) -> Any:
    """Return a graph of three nodes that add a word each."""
    builder = StateGraph(_State)
    names = ["plan", "act", "answer"]
    for before, name in zip([START, *names], names, strict=False):
        builder.add_node(name, lambda _, name=name: {"steps": [name]})  # type: ignore[misc]
        builder.add_edge(before, name)
    return builder.compile(checkpointer=saver)
