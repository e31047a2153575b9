"""What updates and deletions do to the packs of the store: `python -m benchmarks.thin_packs`.

A replaced item is cut out of its pack, and what is left of a pack stays where it is. This
prints how many packs there are, and how long a search takes that finds nothing and reads all.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import timeit
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from langgraph.store.base import PutOp

from benchmarks.workloads.store_items import put_op
from lgkv.langgraph import LgkvStore
from lgkv.layout import Kind, Table

ITEMS: Final = 50_000
ROUNDS: Final = 4
DELETED: Final = 0.9


def _put(store: LgkvStore, ops: Iterable[PutOp]) -> None:
    rest = iter(ops)
    while batch := list(itertools.islice(rest, 500)):
        store.batch(batch)


def _tell(store: LgkvStore, what: str) -> None:
    with store.db._connection.snapshot() as snapshot:  # noqa: SLF001  it counts what nobody else asks for
        packs = sum(1 for _ in snapshot.keys(Table.MEMORY, bytes((Kind.PACK,))))
    nowhere: Any = {"kind": "none such"}
    took = min(timeit.repeat(lambda: store.search(("spaces",), filter=nowhere), number=1, repeat=7))
    used = store.db.stats().used_bytes / 1e6
    print(f"{what:<28} {packs:>8,} {1e3 * took:>8.1f} {used:>8.1f}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", default="benchmarks/results")
    folder = Path(parser.parse_args().folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random("thin packs")
    with (
        tempfile.TemporaryDirectory(dir=folder) as name,
        LgkvStore.from_conn_string(f"{name}/agent.lgkv") as store,
    ):
        print(f"{'':<28} {'packs':>8} {'ms':>8} {'MB used':>8}")
        _put(store, (put_op(number, rng) for number in range(ITEMS)))
        _tell(store, f"{ITEMS:,} items")
        for round_ in range(1, ROUNDS + 1):
            _put(store, (put_op(rng.randrange(ITEMS), rng) for _ in range(ITEMS)))
            _tell(store, f"after {round_ * ITEMS:,} updates")
        gone = rng.sample(range(ITEMS), int(ITEMS * DELETED))
        _put(store, (put_op(number, rng)._replace(value=None) for number in gone))
        _tell(store, f"after {len(gone):,} deletions")


if __name__ == "__main__":
    main()
