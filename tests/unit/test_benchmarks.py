"""The benchmarks run, compare like with like, and say under what conditions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from benchmarks.__main__ import main
from benchmarks.backends import SAVERS, STORES, Backend, InMemorySavers, LgkvSavers, Opened
from benchmarks.chat import Chat
from benchmarks.measures import Measure, Sizes, answer_size
from benchmarks.report import FORMAT, as_json, ratios, table
from benchmarks.runner import Results, Series, run_suite
from benchmarks.workloads import SUITES

TINY = Sizes(turns=4, threads=12, items=40, vectors=40, rounds=2, calls_percent=1)


def silent(what: str) -> None:
    """Report nothing."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    results = Results()
    folder = tmp_path_factory.mktemp("benchmarks")
    for suite in SUITES.values():
        run_suite(suite, TINY, folder, results, report=silent)
    return results


@pytest.fixture(scope="module")
def document(results: Results, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return as_json(results, TINY, tmp_path_factory.getbasetemp())


def test_every_measure_runs_on_every_backend_or_says_why_not(results: Results) -> None:
    ran = {(series.suite, series.measure, series.backend) for series in results.series}
    skipped = {(suite, measure, backend) for suite, measure, backend, _ in results.skipped}
    wanted = {
        (name, measure, backend.name)
        for name, suite in SUITES.items()
        for measure in suite.workload.measure_names
        for backend in suite.backends
    }
    assert ran | skipped == wanted
    assert not ran & skipped
    assert all(reason for *_, reason in results.skipped)


def test_lgkv_skips_nothing(results: Results) -> None:
    assert "lgkv" not in {backend for _, _, backend, _ in results.skipped}


def test_every_round_is_measured(results: Results) -> None:
    for series in results.series:
        assert len(series.rounds) == TINY.rounds
        assert all(seconds > 0 for one_round in series.rounds for seconds in one_round)


def test_every_backend_gives_an_answer_of_the_same_size(results: Results) -> None:
    sizes: dict[tuple[str, str], set[int]] = {}
    for series in results.series:
        sizes.setdefault((series.suite, series.measure), set()).add(series.answer_size)
    assert {measure: found for measure, found in sizes.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    "measure", [("get_latest", "latest"), ("list_history", "all"), ("many_threads", "get_random")]
)
def test_reads_find_something(results: Results, measure: tuple[str, str]) -> None:
    found = [s.answer_size for s in results.series if (s.suite, s.measure) == measure]
    assert found
    assert all(found)


@pytest.mark.parametrize("backend", [*SAVERS, *STORES], ids=lambda b: type(b).__name__)
def test_durability_is_read_from_what_is_measured(backend: Backend[Any], tmp_path: Path) -> None:
    with Opened(backend, tmp_path) as opened:
        says = backend.durability(opened.subject)
    expected = {
        "lgkv": "durability=full",
        "sqlite": "synchronous=FULL",
        "sqlite-wal": "journal_mode=wal, synchronous=FULL",
        "memory": "none",
    }
    assert expected[backend.name] in says


def test_both_savers_that_keep_a_file_count_its_bytes(results: Results) -> None:
    counted = {backend for suite, _, backend, _ in results.stored_bytes if suite == "put_history"}
    assert counted == {"lgkv", "sqlite"}
    assert all(count > 0 for *_, count in results.stored_bytes)


def test_bytes_are_counted_while_a_conversation_grows(results: Results) -> None:
    for backend in ("lgkv", "sqlite"):
        counts = {
            filled: count
            for suite, filled, of_backend, count in results.stored_bytes
            if (suite, of_backend) == ("put_history", backend)
        }
        assert list(counts) == ["1 turns", "4 turns"]
        assert counts["1 turns"] < counts["4 turns"]


def test_lgkv_flushes_every_write(tmp_path: Path) -> None:
    backend: Backend[Any] = LgkvSavers()
    with Opened(backend, tmp_path) as opened:
        db = opened.subject.db
        before = db.stats()
        Chat(opened.subject, "chat", turns=1).turn()
        after = db.stats()
    assert after.commits - before.commits == 5
    assert after.flush_seconds > before.flush_seconds


def test_json_says_where_and_with_what_it_ran(document: dict[str, Any]) -> None:
    assert document["format"] == FORMAT
    assert document["machine"].keys() == {
        "cpu", "cores", "architecture", "system", "kernel", "file_system",
    }  # fmt: skip
    assert document["python"]["packages"]["lmdb"]
    assert document["python"]["sqlite"]
    assert document["sizes"]["turns"] == TINY.turns
    assert {row["subject"] for row in document["durability"]} == {
        "LgkvSaver", "SqliteSaver", "InMemorySaver", "LgkvStore", "SqliteStore", "InMemoryStore",
    }  # fmt: skip


def test_json_holds_only_json(document: dict[str, Any]) -> None:
    assert json.loads(json.dumps(document)) == document


def test_times_are_ordered(document: dict[str, Any]) -> None:
    for row in document["times"]:
        assert 0 < row["minimum"] <= row["median"] <= row["p99"] <= row["maximum"]
        assert row["calls"] >= len(row["round_medians"]) == TINY.rounds


def test_every_peer_has_a_ratio_to_lgkv(document: dict[str, Any]) -> None:
    assert {ratio["base"] for ratio in document["ratios"]} == {"lgkv"}
    assert len(document["ratios"]) == sum(row["backend"] != "lgkv" for row in document["times"])


def test_table_names_every_measure_and_the_conditions(document: dict[str, Any]) -> None:
    text = table(document)
    for suite in SUITES.values():
        for measure in suite.workload.measure_names:
            assert measure in text
    assert "journal_mode=wal, synchronous=FULL" in text
    assert "bytes on disk" in text


def test_table_warns_about_a_file_system_in_memory(document: dict[str, Any]) -> None:
    machine = {**document["machine"], "file_system": "tmpfs"}
    assert "WARNING" in table({**document, "machine": machine})


def test_ratio_is_paired_by_round() -> None:
    base = Series("suite", "measure", "lgkv", [[1.0, 1.0, 9.0], [4.0]])
    peer = Series("suite", "measure", "sqlite", [[2.0], [12.0]])
    (ratio,) = ratios([base, peer])
    assert (ratio.minimum, ratio.median, ratio.maximum) == (2.0, 2.5, 3.0)
    assert (ratio.base, ratio.peer) == ("lgkv", "sqlite")


def test_ratio_without_lgkv_is_to_the_first_backend() -> None:
    series = [Series("suite", "measure", name, [[1.0]]) for name in ("sqlite", "memory")]
    (ratio,) = ratios(series)
    assert (ratio.base, ratio.peer) == ("sqlite", "memory")


@pytest.mark.parametrize(("answer", "size"), [(None, 0), ([], 0), ([1, 2], 2), (object(), 1)])
def test_answer_size(answer: object, size: int) -> None:
    assert answer_size(answer) == size


def test_command_line_chooses_suite_backend_and_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "out.json"
    status = main([
        "--quick", "--only", "get_latest", "--backend", "lgkv", "--backend", "memory",
        "--size", "turns=3", "--size", "rounds=1",
        "--json", str(path), "--folder", str(tmp_path / "files"),
    ])  # fmt: skip
    document = json.loads(path.read_text(encoding="utf-8"))
    assert status == 0
    assert {row["suite"] for row in document["times"]} == {"get_latest"}
    assert {row["backend"] for row in document["times"]} == {"lgkv", "memory"}
    assert document["sizes"]["turns"] == 3
    assert "get_latest" in capsys.readouterr().out
    assert list((tmp_path / "files").iterdir()) == []


@pytest.mark.parametrize("size", ["turns", "turns=0", "turns=-1", "turns=x", "unknown=3"])
def test_command_line_refuses_a_size_it_does_not_know(
    size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--size", size])
    assert "NAME=NUMBER" in capsys.readouterr().err


def test_opened_beside_starts_empty_each_time(tmp_path: Path) -> None:
    backend = next(backend for backend in SAVERS if backend.name == "sqlite")
    with Opened(backend, tmp_path) as opened:
        for _ in range(2):
            saver = opened.beside().subject
            assert list(saver.list(None)) == []
            Chat(saver, "chat", turns=1).turn()


class Spy(InMemorySaver):
    """Notes the shape of every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def get_tuple(self, config: Any) -> Any:
        self.calls.append("get_tuple")
        return super().get_tuple(config)

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        self.calls.append({
            "parent": "checkpoint_id" in config["configurable"],
            "source": metadata["source"],
            "step": metadata["step"],
            "fields": sorted(checkpoint),
            "values": {name: _shape(value) for name, value in checkpoint["channel_values"].items()},
            "versions": sorted(checkpoint["channel_versions"]),
            "seen": {node: sorted(seen) for node, seen in checkpoint["versions_seen"].items()},
            "updated": checkpoint["updated_channels"],
            "new": sorted(new_versions),
        })  # fmt: skip
        return super().put(config, checkpoint, metadata, new_versions)

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        shapes = [(channel, _shape(value)) for channel, value in writes]
        self.calls.append({"writes": shapes, "path": task_path})
        super().put_writes(config, writes, task_id, task_path)


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shape(part) for name, part in value.items()}
    return len(value) if isinstance(value, list) else type(value).__name__


def _by_kind(calls: list[Any]) -> tuple[list[Any], list[Any]]:
    """Separate puts from the rest: the runtime submits them to different threads."""
    puts = [call for call in calls if isinstance(call, dict) and "source" in call]
    return puts, [call for call in calls if call not in puts]


def test_chat_calls_the_saver_as_the_runtime_does() -> None:
    runtime, ours = Spy(), Spy()
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda _: {"messages": [AIMessage("answer")]})
    builder.add_edge(START, "model")
    graph = builder.compile(checkpointer=runtime)
    chat = Chat(ours, "chat", turns=3)
    for _ in range(3):
        config: Any = {"configurable": {"thread_id": "chat"}}
        graph.invoke({"messages": [HumanMessage("question")]}, config, durability="sync")
        chat.turn()
    assert _by_kind(ours.calls) == _by_kind(runtime.calls)


def test_measures_are_those_that_a_workload_names(tmp_path: Path) -> None:
    backend: Backend[Any] = InMemorySavers()
    with Opened(backend, tmp_path) as opened:
        for name in ("put_history", "get_latest", "list_history", "many_threads"):
            workload = SUITES[name].workload(TINY)
            assert list(workload.fill(opened))
            measures: list[Measure] = workload.measures(opened)
            assert tuple(measure.name for measure in measures) == workload.measure_names
