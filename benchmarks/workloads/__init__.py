"""The workloads, by the name of their suite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from benchmarks.backends import BASE, PLAIN_STORES, SAVERS, STORES, WORD_STORES, Backend
from benchmarks.workloads.copy_thread import CopyThread
from benchmarks.workloads.get_latest import GetLatest
from benchmarks.workloads.graph_invoke import GraphInvoke
from benchmarks.workloads.list_history import ListHistory
from benchmarks.workloads.many_threads import ManyThreads
from benchmarks.workloads.put_history import PutHistory
from benchmarks.workloads.state_steps import DictChannel, OpaqueChannel, WideState
from benchmarks.workloads.store_items import StoreItems, StoreWords
from benchmarks.workloads.store_put_get_search import StorePutGetSearch

if TYPE_CHECKING:
    from benchmarks.measures import Sizes, Workload

__all__ = ["LONG", "SHORT", "SUITES", "Suite"]

SHORT: Final = "_short"
LONG: Final = "_long"


def _as_it_is(sizes: Sizes) -> Sizes:
    return sizes


def _short(sizes: Sizes) -> Sizes:
    return replace(sizes, turns=sizes.short_turns)


def _long(sizes: Sizes) -> Sizes:
    return replace(sizes, turns=sizes.long_turns, steps=sizes.long_steps, rounds=sizes.long_rounds)


def _many_items(sizes: Sizes) -> Sizes:
    return replace(sizes, items=sizes.long_items)


@dataclass(frozen=True)
class Suite:
    """A workload and the backends that it runs against.

    `slow` names those that take minutes and gigabytes, and run only if that is asked for.
    """

    kind: type[Workload[Any]]
    backends: tuple[Backend[Any], ...]
    suffix: str = ""
    sized: Callable[[Sizes], Sizes] = _as_it_is
    slow: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What it is called in the results."""
        return self.kind.name + self.suffix

    @property
    def measure_names(self) -> tuple[str, ...]:
        """The names of the workload's measures."""
        return self.kind.measure_names

    def workload(self, sizes: Sizes) -> Workload[Any]:
        """Return the workload, in this suite's own sizes."""
        return self.kind(self.sized(sizes))


def _of(*names: str) -> tuple[Backend[Any], ...]:
    return tuple(backend for backend in SAVERS if backend.name in names)


FILES: Final = _of(BASE, "sqlite")
LONG_SQLITE: Final = frozenset({"sqlite"})

SUITES: Final = {
    suite.name: suite
    for suite in (
        Suite(PutHistory, SAVERS, SHORT, _short),
        Suite(PutHistory, SAVERS),
        Suite(PutHistory, SAVERS, LONG, _long, LONG_SQLITE),
        Suite(GetLatest, SAVERS),
        Suite(GetLatest, SAVERS, LONG, _long, LONG_SQLITE),
        Suite(ListHistory, SAVERS),
        Suite(ListHistory, FILES, LONG, _long, LONG_SQLITE),
        Suite(CopyThread, SAVERS),
        Suite(CopyThread, FILES, LONG, _long, LONG_SQLITE),
        Suite(GraphInvoke, SAVERS),
        Suite(GraphInvoke, FILES, LONG, _long, LONG_SQLITE),
        Suite(WideState, FILES),
        Suite(DictChannel, FILES),
        Suite(DictChannel, _of(BASE), LONG, _long),
        Suite(OpaqueChannel, FILES),
        Suite(ManyThreads, SAVERS),
        Suite(StorePutGetSearch, STORES),
        Suite(StoreItems, PLAIN_STORES, sized=_many_items),
        Suite(StoreWords, WORD_STORES),
    )
}
