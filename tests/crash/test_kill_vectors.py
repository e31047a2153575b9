"""Killing a process that puts, builds the graph, saves it and reindexes, and what is there then."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lgkv
from lgkv.vectors import IndexConfig, planning, saving

DIMS = 12

CHILD = """
import sys
import numpy as np
import lgkv
from lgkv.vectors import IndexConfig, building, planning, saving
from tests.crash.test_kill_vectors import old_vector, new_vectors, texts_of

planning.GRAPH_US, saving.CHUNK_BYTES, building.ASIDE_ROWS = 0.0, 3_000, 50
building.SAVED_GROWTH = 0.0
with lgkv.open(sys.argv[1]) as db:
    db.vectors.configure(exact_floats=0)
    number = int(sys.argv[2])
    while True:
        puts = [
            lgkv.memory.Put(("a",), str(n), {"n": n}, old_vector(n))
            for n in range(number, number + 20)
        ]
        db.memory.put_many(puts)
        print(number + 20, flush=True)
        number += 20
        db.memory.delete(("a",), str(number - 10))
        print(-(number - 10), flush=True)
        db.memory.search((), vector=old_vector(number))
        if number % 100 == 0:
            def embed(texts):
                print("embedded", flush=True)
                return new_vectors(texts)

            db.vectors.reindex(embed, texts_of, IndexConfig(model="new"), batch_size=30)
            print("switched", flush=True)
            break
"""


def old_vector(number: int) -> Any:
    return np.random.default_rng(number).standard_normal(DIMS).astype(np.float32)


def new_vectors(texts: list[str]) -> list[Any]:
    return [old_vector(0) if text[0] == "t" else -old_vector(int(text)) for text in texts]


def texts_of(value: dict[str, Any], _: tuple[str, ...]) -> dict[str, str]:
    return {"n": str(value["n"])}


def run_and_kill(path: Path, first: int, lines: int) -> list[str]:
    """Let a child write until it has said so many lines, kill it, and return what it said."""
    said = []
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(first)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            said.append(line.strip())
            if len(said) == lines:
                child.send_signal(signal.SIGKILL)
    return said


def check(path: Path, alive: set[int], maybe: set[int]) -> bool:
    """Compare every search with brute force; return whether the vectors are the new ones."""
    with lgkv.open(path) as db:
        settings = db.vectors.settings()
        is_new = settings is not None and settings.model == "new"
        stored = {item.value["n"] for item in db.memory.search((), limit=10_000)}
        assert alive <= stored <= alive | maybe
        assert db.vectors.count() == len(stored)
        rows = {number: old_vector(number) * (-1 if is_new else 1) for number in stored}
        for seed in range(3):
            query = old_vector(10**6 + seed)
            scores = {
                number: float(row @ query / np.sqrt((row @ row) * (query @ query)))
                for number, row in rows.items()
            }
            found = db.memory.search((), vector=query, limit=10)
            best = sorted(scores.values(), reverse=True)[:10]
            assert [item.score for item in found] == pytest.approx(best, abs=1e-5)
        db.vectors.configure(exact_floats=0)
        assert db.vectors.wait(60)
        for number in sorted(stored)[:20]:
            assert db.memory.search((), vector=rows[number], limit=1)[0].value["n"] == number
        return is_new


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_while_vectors_are_put_built_saved_and_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "GRAPH_US", 0.0)
    monkeypatch.setattr(saving, "CHUNK_BYTES", 3_000)
    rnd, path, alive, first = random.Random(11), tmp_path / "a.lgkv", set[int](), 0
    reindexings = 0
    for _ in range(7):
        said = run_and_kill(path, first, rnd.randrange(4, 17))
        numbers = [int(word) for word in said if word not in ("embedded", "switched")]
        for number in numbers:
            if number > 0:
                alive |= set(range(number - 20, number))
            else:
                alive.discard(-number)
        last = max([first, *numbers])
        maybe = set(range(last, last + 20)) | ({last - 10} if last else set())
        alive -= {last - 10} if last - 10 in maybe else set()
        if not path.exists():
            continue
        is_new = check(path, alive, maybe)
        assert is_new or "switched" not in said
        with lgkv.open(path) as db:
            alive = {item.value["n"] for item in db.memory.search((), limit=10_000)}
            if is_new or db.vectors.reindexing() is not None:
                db.vectors.reindex(new_vectors, texts_of, IndexConfig(model="new"))
                reindexings += 1
                assert db.vectors.reindexing() is None
                db.vectors.reindex(
                    lambda texts: [-row for row in new_vectors(texts)],
                    texts_of,
                    IndexConfig(model="old"),
                )
            assert db.vectors.count() == len(alive)
        first = (max(alive, default=0) // 20 + 1) * 20
    assert reindexings
