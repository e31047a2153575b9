"""The workloads, by the name of their suite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks.backends import SAVERS, STORES, Backend
from benchmarks.workloads.get_latest import GetLatest
from benchmarks.workloads.list_history import ListHistory
from benchmarks.workloads.many_threads import ManyThreads
from benchmarks.workloads.put_history import PutHistory
from benchmarks.workloads.store_put_get_search import StorePutGetSearch

if TYPE_CHECKING:
    from benchmarks.measures import Workload

__all__ = ["SUITES", "Suite"]


@dataclass(frozen=True)
class Suite:
    """A workload and the backends that it runs against."""

    workload: type[Workload[Any]]
    backends: tuple[Backend[Any], ...]


SUITES: Final = {
    suite.workload.name: suite
    for suite in (
        Suite(PutHistory, SAVERS),
        Suite(GetLatest, SAVERS),
        Suite(ListHistory, SAVERS),
        Suite(ManyThreads, SAVERS),
        Suite(StorePutGetSearch, STORES),
    )
}
