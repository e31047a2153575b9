"""Where the time of one get and of one put of the store goes, and what their limits are.

    python -m benchmarks.store_profile

A put of `LgkvStore` and one of `SqliteStore` (write-ahead log, synchronous=FULL) are made in
turns, and between them a commit of a single record: no put of lgkv can be faster than that.
The steps of a get are timed one by one, each many times: the smallest counts.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import tempfile
import time
import timeit
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from langgraph.store.sqlite import SqliteStore

from benchmarks.machine import describe_machine, describe_python
from benchmarks.workloads.store_items import put_op
from lgkv.langgraph import LgkvStore
from lgkv.layout import MEMORY
from lgkv.memory.items import decode_mapping, fetch_item, item_suffix
from lgkv.nodes import find_node
from lgkv.writer import Change

ITEMS: Final = 50_000
PUTS: Final = 500
CALLS: Final = 2_000
NOTHING: Final[Change[None]] = Change(lambda batch: None)  # noqa: ARG005  the counters alone


def _fill(store: Any) -> None:
    rng = random.Random("fill")
    puts = (put_op(number, rng) for number in range(ITEMS))
    while batch := list(itertools.islice(puts, 500)):
        store.batch(batch)


def _puts(store: LgkvStore, peer: SqliteStore) -> Iterator[tuple[str, float]]:
    """Yield what was done and how many seconds it took."""
    rng, db = random.Random("puts"), store.db

    def timed(call: Callable[[], object]) -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    for number in range(ITEMS, ITEMS + PUTS):
        op = put_op(number, rng)
        value = op.value or {}
        flushed = db.stats().flush_seconds
        took = timed(lambda op=op, value=value: store.put(op.namespace, op.key, value))  # type: ignore[misc]
        commit = db.stats().flush_seconds - flushed
        yield "a put of lgkv", took
        yield "of it LMDB's commit: the pages, two flushes", commit
        yield "the rest", took - commit
        yield "a commit of lgkv with one record", timed(lambda: db.commit(NOTHING))
        yield (
            "a put of SqliteStore",
            timed(lambda op=op, value=value: peer.put(op.namespace, op.key, value)),  # type: ignore[misc]
        )


def _gets(store: LgkvStore) -> Iterator[tuple[str, float]]:
    """Yield the steps of a get and how many seconds they take at least."""
    op = put_op(ITEMS // 2, random.Random("get"))
    namespace, key, db = op.namespace, op.key, store.db

    def smallest(call: Callable[[], object]) -> float:
        return min(timeit.repeat(call, number=CALLS, repeat=15)) / CALLS

    def view() -> None:
        with db.memory.view():
            pass

    def snapshot() -> None:
        with db._connection.snapshot():  # noqa: SLF001  a step of a get
            pass

    yield "a get of LgkvStore", smallest(lambda: store.get(namespace, key))
    yield "a get of db.memory", smallest(lambda: db.memory.get(namespace, key))
    yield "  a view, begun and ended", smallest(view)
    yield "  of it the snapshot", smallest(snapshot)
    with db.memory.view() as open_view:
        inner = open_view.snapshot
        get, table = inner.reader(MEMORY)
        node = find_node(inner, namespace)
        suffix = item_suffix(node.number if node else 0, key)
        yield "  a get in a view", smallest(lambda: open_view.get(namespace, key))
        yield (
            "  of it two records, checked and decoded",
            smallest(lambda: fetch_item(get, table, decode_mapping, MEMORY, suffix)),
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", default="benchmarks/results", help="must be on a real disk")
    folder = Path(parser.parse_args().folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=folder) as name,
        LgkvStore.from_conn_string(f"{name}/agent.lgkv") as store,
        SqliteStore.from_conn_string(f"{name}/store.sqlite") as peer,
    ):
        peer.conn.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
        peer.setup()
        for each in (store, peer):
            _fill(each)
        gets = dict(_gets(store))
        times: dict[str, list[float]] = defaultdict(list)
        for what, took in _puts(store, peer):
            times[what].append(took)
    machine = describe_machine(folder) | describe_python()
    print(f"{machine['cpu']}, CPython {machine['version']}, file system {machine['file_system']}\n")
    print(f"{'µs':<50} {'median':>8} {'smallest':>9}")
    for what, several in times.items():
        print(f"{what:<50} {1e6 * statistics.median(several):>8.0f} {1e6 * min(several):>9.0f}")
    for what, took in gets.items():
        print(f"{what:<50} {'':>8} {1e6 * took:>9.2f}")


if __name__ == "__main__":
    main()
