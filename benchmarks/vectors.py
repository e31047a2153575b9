"""Search by meaning at size: `python -m benchmarks.vectors --count 100000`.

`LgkvStore` with an embedding that costs nothing, and hnswlib alone at the width that lgkv found,
asked in turns. A tenth of the items lies in one namespace and a thousandth in another. Recall
is measured again after half of the items were replaced and a tenth deleted. With `--peers`,
`SqliteStore` (with a write-ahead log) and `InMemoryStore` as well. `--reopen-only` is for a count
of which exact answers would take long. Prints JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import hnswlib
import numpy as np
from langgraph.store.base import PutOp
from langgraph.store.memory import InMemoryStore

import lgkv
from benchmarks.anonymous import Watch
from benchmarks.machine import describe_machine, describe_python
from lgkv.langgraph import LgkvStore

DIMS: Final = 384
PAGE: Final = 10
BATCH: Final = 1000
PART: Final = 50_000
"""So many vectors are made up, and put, at a time."""

CENTRES: Final = {"clustered": 200, "overlapping": 1000}
SPREADS: Final = {"clustered": 0.35, "overlapping": 1.8}
"""The length of the noise around centres of length 1."""

PREFIXES: Final = {"all": ("docs",), "tenth": ("docs", "tenth"), "thousandth": ("docs", "rare")}


def made_up(corpus: str, count: int, seed: int) -> Any:
    """Return `count` float32 vectors around centres that are the same for every seed."""
    centres = np.random.default_rng(1).standard_normal((CENTRES[corpus], DIMS))
    centres /= np.linalg.norm(centres, axis=1)[:, None]
    rng = np.random.default_rng(seed)
    rows = np.empty((count, DIMS), np.float32)
    for start in range(0, count, PART):
        part = rows[start : start + PART]
        noise = rng.standard_normal(part.shape) * (SPREADS[corpus] / DIMS**0.5)
        part[:] = centres[rng.integers(len(centres), size=len(part))] + noise
    return rows


def namespace(number: int) -> tuple[str, ...]:
    """Return where an item lies."""
    if number % 10 == 0:
        return PREFIXES["tenth"]
    return PREFIXES["thousandth"] if number % 1000 == 1 else ("docs", "rest", str(number % 7))


def median_ms(times: Sequence[float]) -> float:
    """Return the median of seconds in milliseconds."""
    return round(statistics.median(times) * 1000, 3)


class Corpus:
    """Vectors and queries, and an embedding that looks them up by the number in a text."""

    def __init__(self, corpus: str, count: int, queries: int) -> None:
        self.count = count
        self.rows, self.queries = made_up(corpus, count, 5), made_up(corpus, queries, 6)
        self.places = [namespace(number) for number in range(count)]
        self.alive = np.ones(count, np.bool_)

    def embed(self, texts: Sequence[str]) -> list[Any]:
        """Return the vectors of texts such as "d17" and "q3"."""
        return [(self.rows if t[0] == "d" else self.queries)[int(t[1:])] for t in texts]

    def churn(self, corpus: str) -> Iterator[PutOp]:
        """Yield what replaces half of the items and deletes a tenth, which from then on counts."""
        order = np.random.default_rng(8).permutation(self.count)
        replaced, gone = np.split(order[: self.count * 6 // 10], [self.count // 2])
        self.rows[replaced] = made_up(corpus, len(replaced), 9)
        self.alive[gone] = False
        for number in replaced.tolist():
            yield PutOp(self.places[number], f"d{number}", {"text": f"d{number}"})
        for number in gone.tolist():
            yield PutOp(self.places[number], f"d{number}", None)

    def nearest(self, prefix: tuple[str, ...], queries: Sequence[int]) -> list[set[str]]:
        """Return the keys of the nearest to each query, exactly."""
        among = np.array([
            number
            for number in np.flatnonzero(self.alive).tolist()
            if self.places[number][: len(prefix)] == prefix
        ])  # fmt: skip
        scores = np.empty((len(queries), len(among)), np.float32)
        for start in range(0, len(among), PART):
            rows = self.rows[among[start : start + PART]]
            products = self.queries[list(queries)] @ rows.T
            scores[:, start : start + PART] = products / np.linalg.norm(rows, axis=1)
        best = np.argsort(-scores, axis=1)[:, :PAGE]
        return [{f"d{among[place]}" for place in each} for each in best.tolist()]


# --- measures ------------------------------------------------------------------------------


def recall(store: Any, corpus: Corpus, queries: Sequence[int]) -> dict[str, float]:
    """Return which part of the nearest searches find, by prefix."""
    found = {}
    for name, prefix in PREFIXES.items():
        exact = corpus.nearest(prefix, queries)
        hits = [
            len({item.key for item in store.search(prefix, query=f"q{number}", limit=PAGE)} & best)
            for number, best in zip(queries, exact, strict=True)
        ]
        found[f"{name}_recall"] = round(sum(hits) / sum(map(len, exact)), 4)
    return found


def in_turns(calls: dict[str, Callable[[int], object]], queries: Sequence[int]) -> dict[str, float]:
    """Return the median time of each call, all of them made in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in [queries[0], *queries]:
        for name, call in calls.items():
            began = time.perf_counter()
            call(number)
            times[name].append(time.perf_counter() - began)
    return {f"{name}_ms": median_ms(each[1:]) for name, each in times.items()}


def searches(store: Any) -> dict[str, Callable[[int], object]]:
    """Return a search by each prefix."""

    def search(prefix: tuple[str, ...]) -> Callable[[int], object]:
        return lambda number: store.search(prefix, query=f"q{number}", limit=PAGE)

    return {name: search(prefix) for name, prefix in PREFIXES.items()}


def put_all(store: Any, ops: Iterator[PutOp]) -> float:
    """Put items and return how many a second."""
    began, count = time.perf_counter(), 0
    batch: list[PutOp] = []
    for op in ops:
        batch.append(op)
        count += 1
        if len(batch) == BATCH:
            store.batch(batch)
            batch = []
    if batch:
        store.batch(batch)
    return round(count / (time.perf_counter() - began))


def items(corpus: Corpus) -> Iterator[PutOp]:
    """Yield the puts of all items."""
    for number, place in enumerate(corpus.places):
        yield PutOp(place, f"d{number}", {"text": f"d{number}"})


# --- lgkv and hnswlib alone ----------------------------------------------------------------


def lgkv_store(name: str, corpus: Corpus, folder: Path, *, only_reopen: bool) -> dict[str, Any]:
    """Measure lgkv: putting, building, searching beside hnswlib, changing, opening again."""
    path = folder / "a.lgkv"
    index: Any = {"embed": corpus.embed, "dims": DIMS, "fields": ["text"]}
    queries = range(len(corpus.queries))
    with lgkv.open(path) as db:
        store = LgkvStore(db, index=index)
        figures: dict[str, Any] = {"put_per_s": put_all(store, items(corpus))}
        began = time.perf_counter()
        for number in queries[:64]:  # it is tuned by what is asked
            store.search(PREFIXES["all"], query=f"q{number}")
        db.vectors.wait()
        figures["graph_complete_s"] = round(time.perf_counter() - began, 1)
        plan = db.vectors.explain(corpus.queries[0], limit=PAGE)
        figures |= {"plan": plan.kind, "width": plan.width, "reason": plan.reason}
        if only_reopen:
            figures |= in_turns(searches(store), queries)
            figures |= recall(store, corpus, queries[:20])
        else:
            alone = _hnswlib(corpus, plan.width or 256)
            figures |= in_turns({**searches(store), "hnswlib": alone.pop("search")}, queries)
            figures |= alone | recall(store, corpus, queries)
    figures |= reopened(path, corpus, index, only_reopen=only_reopen)
    if not only_reopen:
        with lgkv.open(path) as db:
            store = LgkvStore(db, index=index)
            figures["churn_per_s"] = put_all(store, corpus.churn(name))
            store.search(PREFIXES["all"], query="q0")
            db.vectors.wait()
            figures["after_churn"] = {
                "plan": db.vectors.explain(corpus.queries[0], limit=PAGE).kind,
                **recall(store, corpus, queries),
            }
    return figures


def reopened(path: Path, corpus: Corpus, index: Any, *, only_reopen: bool) -> dict[str, Any]:
    """Measure opening again, the memory in a process of its own."""
    with lgkv.open(path) as db:
        began = time.perf_counter()
        LgkvStore(db, index=index).search(PREFIXES["all"], query="q0")
        figures = {"first_answer_s": round(time.perf_counter() - began, 3)}
        db.vectors.wait()
        figures["settled_s"] = round(time.perf_counter() - began, 3)
    figures["file_mb"] = round(path.stat().st_size / 1e6, 1)
    processes = {"loading": str(path)}
    if not only_reopen:
        processes["hnswlib"] = str(corpus.count)
    for what, argument in processes.items():
        told = subprocess.run(
            [sys.executable, "-m", "benchmarks.vectors", f"--memory-of-{what}", argument],
            check=True,
            capture_output=True,
            text=True,
        )
        figures |= {f"{what}_{name}": value for name, value in json.loads(told.stdout).items()}
    return figures


def _hnswlib(corpus: Corpus, width: int) -> dict[str, Any]:
    """Return hnswlib alone, without a store and without a file: a search, and figures."""
    began = time.perf_counter()
    index = hnswlib.Index("ip", DIMS)
    index.init_index(corpus.count, 16, 200, 100)
    for start in range(0, corpus.count, PART):
        rows = corpus.rows[start : start + PART]
        index.add_items(rows / np.linalg.norm(rows, axis=1)[:, None])
    build_s = round(time.perf_counter() - began, 1)
    index.set_ef(width)
    best = corpus.nearest(PREFIXES["all"], range(len(corpus.queries)))
    found = [index.knn_query(query, k=PAGE)[0][0].tolist() for query in corpus.queries]
    hits = [len({f"d{n}" for n in each} & those) for each, those in zip(found, best, strict=True)]
    return {
        "search": lambda number: index.knn_query(corpus.queries[number], k=PAGE),
        "hnswlib_build_s": build_s,
        "hnswlib_recall": round(sum(hits) / (PAGE * len(hits)), 4),
    }


def memory_of_loading(path: str) -> dict[str, float]:
    """Return how much anonymous memory opening a file takes until its graph is there.

    "searched" is what is there once each namespace was searched: as much as it becomes.
    """
    with lgkv.open(path) as db, Watch() as searched:
        with Watch() as loaded:
            db.memory.search((), vector=np.ones(DIMS))
            db.vectors.wait()
        for number in range(20):
            db.memory.search(namespace(number), vector=np.ones(DIMS))
    return {**loaded.figures, "searched_mb": searched.figures["after_mb"]}


def memory_of_hnswlib(count: int) -> dict[str, float]:
    """Return how much of it hnswlib takes for so many vectors; which ones makes no difference."""
    rows = made_up("clustered", 1000, 5)
    index = hnswlib.Index("ip", DIMS)
    with Watch() as watch:
        index.init_index(count, 16, 20, 100)
        for start in range(0, count, len(rows)):
            index.add_items(rows[: count - start] + np.float32(start))
    return watch.figures


# --- peers ---------------------------------------------------------------------------------


def peers(corpus: Corpus, folder: Path) -> dict[str, Any]:
    """Measure the stores of LangGraph that run here; few queries, since they take long."""
    index: Any = {"embed": corpus.embed, "dims": DIMS, "fields": ["text"]}
    memory = InMemoryStore(index=index)
    found: dict[str, Any] = {"memory": {"put_per_s": put_all(memory, items(corpus))}}
    found["memory"] |= in_turns(searches(memory), range(3))
    driver = loadable_sqlite()
    if driver is None:
        reason = "no sqlite3 that loads extensions: pip install pysqlite3-binary"
        return found | {"sqlite-wal": reason}
    from langgraph.store.sqlite import SqliteStore  # noqa: PLC0415  it takes the sqlite3 it finds

    index["text_fields"] = index["fields"]  # it does not look at "fields"
    with SqliteStore.from_conn_string(str(folder / "a.sqlite"), index=index) as store:
        store.conn.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
        store.setup()
        figures: dict[str, Any] = {"driver": driver, "put_per_s": put_all(store, items(corpus))}
        figures |= in_turns(searches(store), range(10)) | recall(store, corpus, range(10))
    return found | {"sqlite-wal": figures}


def loadable_sqlite() -> str | None:
    """Make `import sqlite3` give one that loads extensions, and return which; None without."""
    if hasattr(sqlite3.Connection, "enable_load_extension"):
        return f"sqlite3, SQLite {sqlite3.sqlite_version}"
    try:
        other = importlib.import_module("pysqlite3")
    except ImportError:
        return None
    sys.modules["sqlite3"] = other
    return f"pysqlite3, SQLite {other.sqlite_version}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vectors", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--corpus", choices=CENTRES, action="append")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--reopen-only", action="store_true")
    parser.add_argument("--memory-of-loading", help=argparse.SUPPRESS)
    parser.add_argument("--memory-of-hnswlib", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of_loading or given.memory_of_hnswlib:
        path, count = given.memory_of_loading, given.memory_of_hnswlib
        json.dump(memory_of_loading(path) if path else memory_of_hnswlib(count), sys.stdout)
        return
    found: dict[str, Any] = {}
    for name in given.corpus or CENTRES:
        corpus = Corpus(name, given.count, given.queries)
        with tempfile.TemporaryDirectory() as folder:
            if given.peers:
                found[name] = peers(corpus, Path(folder))
            figures = lgkv_store(name, corpus, Path(folder), only_reopen=given.reopen_only)
            found[name] = {"lgkv": figures, **found.get(name, {})}
    about = {
        "machine": describe_machine(Path(tempfile.gettempdir())),
        "python": describe_python(),
        "dims": DIMS,
        "page": PAGE,
        "count": given.count,
        "queries": given.queries,
    }
    json.dump({"about": about, "figures": found}, sys.stdout, indent=2, default=str)
    print()


if __name__ == "__main__":
    main()
