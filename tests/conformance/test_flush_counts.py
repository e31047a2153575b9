"""How often graphs flush: what a step writes side by side shares a flush."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver

import lgkv
from benchmarks.workloads.concurrent_graphs import three_nodes
from lgkv.langgraph import LgkvSaver
from lgkv.writer.commit import Committer
from tests.conformance.checkpoints import config_of

TURNS = 5


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a flush take long enough that who writes at the same time meets it."""
    flush = Committer._flush

    def flush_slowly(self: Committer, *arguments: Any) -> None:
        time.sleep(0.01)
        flush(self, *arguments)

    monkeypatch.setattr(Committer, "_flush", flush_slowly)


@pytest.fixture
def sqlite_commits(tmp_path: Path) -> Iterator[tuple[SqliteSaver, list[str]]]:
    with SqliteSaver.from_conn_string(str(tmp_path / "a.sqlite")) as saver:
        saver.setup()
        commits: list[str] = []
        saver.conn.set_trace_callback(
            lambda text: commits.append(text) if text.strip().upper() == "COMMIT" else None
        )
        yield saver, commits


@pytest.mark.usefixtures("slow_disk")
def test_graph_flushes_less_often_than_sqlite_commits(
    db: lgkv.Database, sqlite_commits: tuple[SqliteSaver, list[str]]
) -> None:
    sqlite, commits = sqlite_commits
    for saver in (LgkvSaver(db), sqlite):
        graph = three_nodes(saver)
        for _ in range(TURNS):
            graph.invoke({"steps": ["question"]}, config_of())  # LangGraph's own durability
    stats = db.stats()
    assert stats.changes == len(commits) == 9 * TURNS
    assert stats.commits < len(commits)
