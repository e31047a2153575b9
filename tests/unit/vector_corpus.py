"""Vectors for tests: seeded, clustered, and searched by brute force."""

from __future__ import annotations

from typing import Any

import numpy as np

from lgkv.memory import Put
from lgkv.vectors import IndexConfig

__all__ = ["clustered", "definition", "nearest", "put_all"]


def clustered(count: int, dims: int, seed: int, *, spread: float = 0.5) -> Any:
    """Return float32 vectors around 20 centres, which are the same for every seed."""
    centres = np.random.default_rng(1).standard_normal((20, dims))
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(20, size=count)] + spread * rng.standard_normal((count, dims))
    return rows.astype(np.float32)


def put_all(
    db: Any,
    rows: Any,
    *,
    namespace: tuple[str, ...] = ("a",),
    config: IndexConfig | None = None,
    at_once: int = 1000,
) -> None:
    """Store a vector an item, with its number for a key."""
    for start in range(0, len(rows), at_once):
        puts = [
            Put(namespace, str(start + number), {"n": start + number}, row)
            for number, row in enumerate(rows[start : start + at_once])
        ]
        db.commit(db.memory.change(puts, (), config))


def definition(metric: str, query: Any, row: Any) -> float:
    """Return the score of a row, as it is defined."""
    a, b = np.asarray(query, np.float64), np.asarray(row, np.float64)
    if metric == "inner_product":
        return float(a @ b)
    if metric == "l2":
        return -float(np.sqrt(((a - b) ** 2).sum()))
    lengths = np.sqrt(a @ a) * np.sqrt(b @ b)
    return float(a @ b / lengths) if lengths else 0.0


def nearest(rows: Any, query: Any, count: int, metric: str = "cosine") -> list[int]:
    """Return the numbers of the rows nearest to `query`, by brute force."""
    scores = [definition(metric, query, row) for row in rows]
    return sorted(range(len(rows)), key=lambda number: -scores[number])[:count]
