"""Search by meaning at size: `python -m benchmarks.vectors --count 100000 --corpus overlapping`.

`LgkvStore` with an embedding that costs nothing, beside hnswlib alone at the width that lgkv
found, and, with `--peers`, `SqliteStore` (with a write-ahead log) and `InMemoryStore`. A tenth
of the items lies in one namespace and a thousandth in another. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import hnswlib
import numpy as np
from langgraph.store.base import PutOp
from langgraph.store.memory import InMemoryStore
from langgraph.store.sqlite import SqliteStore

import lgkv
from benchmarks.machine import describe_machine
from lgkv.langgraph import LgkvStore

DIMS: Final = 384
PAGE: Final = 10
BATCH: Final = 1000
CENTRES: Final = {"clustered": 200, "overlapping": 1000}
SPREADS: Final = {"clustered": 0.35, "overlapping": 1.3}
"""The length of the noise around centres of length 1."""

PREFIXES: Final = {"all": ("docs",), "tenth": ("docs", "tenth"), "thousandth": ("docs", "rare")}


def made_up(corpus: str, count: int, seed: int) -> Any:
    """Return `count` float32 vectors around centres that are the same for every seed."""
    centres = np.random.default_rng(1).standard_normal((CENTRES[corpus], DIMS))
    centres /= np.linalg.norm(centres, axis=1)[:, None]
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, DIMS)) * (SPREADS[corpus] / DIMS**0.5)
    return (centres[rng.integers(len(centres), size=count)] + noise).astype(np.float32)


def namespace(number: int) -> tuple[str, ...]:
    """Return where an item lies."""
    if number % 10 == 0:
        return PREFIXES["tenth"]
    return PREFIXES["thousandth"] if number % 1000 == 1 else ("docs", "rest", str(number % 7))


def median_ms(call: Callable[[int], object], numbers: Sequence[int]) -> float:
    """Return the median time of a call."""
    times = []
    for number in numbers:
        began = time.perf_counter()
        call(number)
        times.append(time.perf_counter() - began)
    return round(statistics.median(times) * 1000, 3)


class Corpus:
    """Vectors and queries, and an embedding that looks them up by the number in a text."""

    def __init__(self, corpus: str, count: int, queries: int) -> None:
        self.rows, self.queries = made_up(corpus, count, 5), made_up(corpus, queries, 6)
        self.unit = self.rows / np.linalg.norm(self.rows, axis=1)[:, None]

    def embed(self, texts: Sequence[str]) -> list[Any]:
        """Return the vectors of texts such as "d17" and "q3"."""
        return [(self.rows if t[0] == "d" else self.queries)[int(t[1:])] for t in texts]

    def nearest(self, query: int, prefix: tuple[str, ...]) -> set[str]:
        """Return the keys of the nearest, exactly."""
        among = [n for n in range(len(self.rows)) if namespace(n)[: len(prefix)] == prefix]
        scores = self.unit[among] @ self.queries[query]
        return {f"d{among[place]}" for place in np.argsort(-scores)[:PAGE].tolist()}


def measure(store: Any, corpus: Corpus, queries: Sequence[int]) -> dict[str, Any]:
    """Return times and recall of searches."""
    found: dict[str, Any] = {}
    for name, prefix in PREFIXES.items():

        def search(number: int, prefix: tuple[str, ...] = prefix) -> list[Any]:
            answer: list[Any] = store.search(prefix, query=f"q{number}", limit=PAGE)
            return answer

        search(queries[0])
        found[f"{name}_ms"] = median_ms(search, queries)
        hits = [
            len({item.key for item in search(number)} & corpus.nearest(number, prefix))
            for number in queries[:50]
        ]
        found[f"{name}_recall"] = sum(hits) / (PAGE * len(hits))
    return found


def fill(store: Any, count: int) -> float:
    """Put all items and return how many a second."""
    began = time.perf_counter()
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        store.batch([PutOp(namespace(n), f"d{n}", {"text": f"d{n}"}) for n in numbers])
    return round(count / (time.perf_counter() - began))


def lgkv_store(corpus: Corpus, count: int, folder: Path) -> dict[str, Any]:
    """Measure lgkv: putting, building, searching, and opening again."""
    path = folder / "a.lgkv"
    index: Any = {"embed": corpus.embed, "dims": DIMS, "fields": ["text"]}
    queries = range(len(corpus.queries))
    with lgkv.open(path) as db:
        store = LgkvStore(db, index=index)
        figures: dict[str, Any] = {"put_per_s": fill(store, count)}
        began = time.perf_counter()
        store.search(PREFIXES["all"], query="q0")
        db.vectors.wait()
        figures["graph_complete_s"] = round(time.perf_counter() - began, 1)
        plan = db.vectors.explain(corpus.queries[0], limit=PAGE)
        figures |= {"plan": plan.kind, "width": plan.width, "reason": plan.reason}
        figures |= measure(store, corpus, queries)
    with lgkv.open(path) as db:
        began = time.perf_counter()
        LgkvStore(db, index=index).search(PREFIXES["all"], query="q0")
        figures["first_answer_s"] = round(time.perf_counter() - began, 3)
        db.vectors.wait()
        figures["settled_s"] = round(time.perf_counter() - began, 3)
    return figures | {"file_mb": round(path.stat().st_size / 1e6, 1)}


def raw_hnswlib(corpus: Corpus, width: int) -> dict[str, Any]:
    """Measure hnswlib alone, without a store and without a file."""
    began = time.perf_counter()
    index = hnswlib.Index("ip", DIMS)
    index.init_index(len(corpus.unit), 16, 200, 100)
    index.add_items(corpus.unit)
    figures: dict[str, Any] = {"build_s": round(time.perf_counter() - began, 1)}
    index.set_ef(width)

    def search(number: int) -> list[int]:
        labels: list[int] = index.knn_query(corpus.queries[number], k=PAGE)[0][0].tolist()
        return labels

    queries = range(len(corpus.queries))
    figures["all_ms"] = median_ms(search, queries)
    hits = [
        len({f"d{n}" for n in search(q)} & corpus.nearest(q, PREFIXES["all"])) for q in queries[:50]
    ]
    return figures | {"width": width, "all_recall": sum(hits) / (PAGE * len(hits))}


def peers(corpus: Corpus, count: int, folder: Path) -> dict[str, Any]:
    """Measure the stores of LangGraph that run here; few queries, since they take long."""
    index: Any = {"embed": corpus.embed, "dims": DIMS, "fields": ["text"]}
    memory = InMemoryStore(index=index)
    found = {"memory": {"put_per_s": fill(memory, count), **measure(memory, corpus, range(3))}}
    if hasattr(sqlite3.Connection, "enable_load_extension"):
        with SqliteStore.from_conn_string(str(folder / "a.sqlite"), index=index) as store:
            store.conn.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
            store.setup()
            found["sqlite-wal"] = {"put_per_s": fill(store, count)}
            found["sqlite-wal"] |= measure(store, corpus, range(10))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vectors", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--corpus", choices=CENTRES, default="clustered")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--peers", action="store_true")
    given = parser.parse_args()
    corpus = Corpus(given.corpus, given.count, given.queries)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, Any] = {"lgkv": lgkv_store(corpus, given.count, folder)}
        found["hnswlib"] = raw_hnswlib(corpus, found["lgkv"]["width"] or 256)
        if given.peers:
            found |= peers(corpus, given.count, folder)
    about = {
        "machine": describe_machine(Path(tempfile.gettempdir())),
        "dims": DIMS,
        "page": PAGE,
        **vars(given),
    }
    json.dump({"about": about, "figures": found}, sys.stdout, indent=2, default=str)
    print()


if __name__ == "__main__":
    main()
