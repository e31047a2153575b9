"""The benchmarks run, compare like with like, and say under what conditions."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, MessagesState, StateGraph

from benchmarks import corpus
from benchmarks.__main__ import main
from benchmarks.aims import AIMS, Aim, Figures, judge
from benchmarks.backends import (
    PLAIN_STORES,
    SAVERS,
    STORES,
    Backend,
    InMemorySavers,
    LgkvSavers,
    Opened,
)
from benchmarks.chat import Chat
from benchmarks.measures import DEFAULT_SIZES, Filled, Gauge, Measure, Sizes, answer_size
from benchmarks.report import FORMAT, as_json, ratios, table
from benchmarks.runner import Results, Series, run_suite
from benchmarks.thread import thread_config
from benchmarks.workloads import SUITES, Suite
from benchmarks.workloads.copy_thread import copy_thread

TINY = Sizes(
    turns=4, short_turns=2, long_turns=10, steps=3, long_steps=5, channels=3, entries=4, blobs=2,
    blob_bytes=2_000, threads=12, items=40, long_items=60, vectors=40,
    rounds=2, long_rounds=1, calls_percent=1,
)  # fmt: skip


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
        for measure in suite.measure_names
        for backend in suite.backends
    }
    assert ran | skipped == wanted
    assert not ran & skipped
    assert all(reason for *_, reason in results.skipped)


def test_lgkv_skips_nothing(results: Results) -> None:
    assert "lgkv" not in {backend for _, _, backend, _ in results.skipped}


def test_every_round_is_measured(results: Results) -> None:
    for series in results.series:
        rounds = (
            1 if series.measure == "all_peak_memory" else SUITES[series.suite].sized(TINY).rounds
        )
        assert len(series.rounds) == rounds
        assert all(figure > 0 for one_round in series.rounds for figure in one_round)


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


@pytest.mark.parametrize(
    "backend", [*SAVERS, *STORES, *PLAIN_STORES], ids=lambda b: type(b).__name__
)
def test_durability_is_read_from_what_is_measured(backend: Backend[Any], tmp_path: Path) -> None:
    with Opened(backend, tmp_path) as opened:
        says = backend.durability(opened.subject)
    expected = {
        "lgkv": "durability=full",
        "lgkv-fields": "durability=full",
        "lgkv-words": "durability=full",
        "sqlite": "synchronous=FULL",
        "sqlite-wal": "journal_mode=wal, synchronous=FULL",
        "memory": "none",
    }
    assert expected[backend.name] in says


def test_both_savers_that_keep_a_file_count_its_bytes(results: Results) -> None:
    counted = {row[2] for row in results.stored_bytes if row[0] == "put_history"}
    assert counted == {"lgkv", "sqlite"}
    assert all(count > 0 for *_, count, _ in results.stored_bytes)


def test_bytes_are_counted_while_a_conversation_grows(results: Results) -> None:
    for backend in ("lgkv", "sqlite"):
        counts = {
            filled: count
            for suite, filled, of_backend, count, _ in results.stored_bytes
            if (suite, of_backend) == ("put_history", backend)
        }
        assert list(counts) == ["1 turns", "4 turns"]
        assert counts["1 turns"] < counts["4 turns"]


def test_new_bytes_are_every_message_and_write_once(results: Results) -> None:
    new = {
        (filled, backend): new_bytes
        for suite, filled, backend, _, new_bytes in results.stored_bytes
        if suite == "put_history"
    }
    messages = corpus.conversation(random.Random("chat 0"), TINY.turns)
    serde = JsonPlusSerializer()
    once = sum(len(serde.dumps_typed(m)[1]) + len(serde.dumps_typed([m])[1]) for m in messages)
    assert {new["4 turns", backend] for backend in ("lgkv", "sqlite")} == {once}
    assert new["1 turns", "lgkv"] < new["4 turns", "lgkv"]


def test_what_is_filled_is_the_same_for_every_backend(results: Results) -> None:
    new: dict[tuple[str, str], set[int | None]] = {}
    for suite, filled, _, _, new_bytes in results.stored_bytes:
        new.setdefault((suite, filled), set()).add(new_bytes)
    assert all(len(found) == 1 for found in new.values())


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
        assert row["calls"] >= len(row["round_medians"]) >= 1


def test_every_peer_has_a_ratio_to_lgkv(document: dict[str, Any]) -> None:
    assert {ratio["base"] for ratio in document["ratios"]} == {"lgkv"}
    peers = [row for row in document["times"] if row["backend"] != "lgkv"]
    assert len(document["ratios"]) == len(peers)


def test_table_names_every_measure_and_the_conditions(document: dict[str, Any]) -> None:
    text = table(document)
    for suite in SUITES.values():
        for measure in suite.measure_names:
            assert measure in text
    for row in document["aims"]:
        assert row["what"] in text
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
        for name, suite in SUITES.items():
            if "InMemorySaver" not in {type(b).__name__.removesuffix("s") for b in suite.backends}:
                continue
            workload = suite.workload(TINY)
            assert list(workload.fill(opened)), name
            measures: list[Measure] = workload.measures(opened)
            assert tuple(measure.name for measure in measures) == suite.measure_names


def test_runner_removes_what_it_measured(tmp_path: Path) -> None:
    suite = replace(SUITES["get_latest"], backends=(LgkvSavers(),))
    run_suite(suite, TINY, tmp_path, Results(), report=silent)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", SAVERS, ids=lambda b: b.name)
def test_a_copied_thread_is_what_its_source_is(backend: Backend[Any], tmp_path: Path) -> None:
    with Opened(backend, tmp_path) as opened:
        Chat(opened.subject, "chat", turns=9).turns(9)
        copy_thread(opened.subject, "chat", "copy")
        source, copy = (
            [
                (found.checkpoint, found.pending_writes, found.parent_config is None)
                for found in opened.subject.list(thread_config(thread_id))
            ]
            for thread_id in ("chat", "copy")
        )
    assert len(source) == 27
    assert copy == source


def test_arguments_of_a_put_put_nothing() -> None:
    saver = InMemorySaver()
    chat = Chat(saver, "chat", turns=1)
    chat.turn_but_the_last_put()
    before = len(list(saver.list(thread_config("chat"))))
    saver.put(*chat.arguments_of(chat.put_answer))
    newest = next(iter(saver.list(thread_config("chat"))))
    assert chat.saver is saver
    assert len(list(saver.list(thread_config("chat")))) == before + 1
    assert len(newest.checkpoint["channel_values"]["messages"]) == 2


class Flushing(InMemorySavers):
    """Says that each question took its flush a second."""

    asked = 0

    def flush_seconds(self, subject: Any) -> float:  # noqa: ARG002  the protocol's signature
        self.asked += 1
        return float(self.asked)


def test_flush_is_taken_off_the_time(tmp_path: Path) -> None:
    class Workload:
        name = "nothing"
        measure_names = ("with_flush", "without_flush")

        def __init__(self, sizes: Sizes) -> None:
            """Need no sizes."""

        def fill(self, opened: Opened[Any]) -> Any:  # noqa: ARG002  the protocol's signature
            yield Filled("nothing")

        def measures(self, opened: Opened[Any]) -> list[Measure]:  # noqa: ARG002  likewise
            cpu = Gauge.SECONDS_WITHOUT_FLUSH
            return [
                Measure("with_flush", lambda: None, 1),
                Measure("without_flush", lambda: None, 1, gauge=cpu),
            ]

    results = Results()
    run_suite(Suite(Workload, (Flushing(),)), TINY, tmp_path, results, report=silent)
    with_flush, without = (series.rounds[0][0] for series in results.series)
    assert 0 < with_flush < 0.5
    assert -1 < without < -0.5


def test_peak_memory_is_of_the_act_alone(results: Results) -> None:
    peaks = [series for series in results.series if series.gauge is Gauge.PEAK_BYTES]
    assert {series.measure for series in peaks} == {"all_peak_memory"}
    assert all(1_000 < series.rounds[0][0] < 20_000_000 for series in peaks)


# --- aims ----------------------------------------------------------------------------------


def _results(**rounds: list[float]) -> Results:
    """Return the results of a suite "s" with the measure "m" on these backends."""
    return Results(
        [Series("s", "m", name, [[seconds] for seconds in of]) for name, of in rounds.items()]
    )


def test_every_aim_has_a_figure_when_everything_ran(document: dict[str, Any]) -> None:
    assert [row["what"] for row in document["aims"]] == [aim.what for aim in AIMS]
    assert all(row["figure"] is not None for row in document["aims"])


def test_aims_are_judged_at_the_default_sizes_only() -> None:
    results = _results(lgkv=[1.0, 2.0, 4.0], sqlite=[8.0, 18.0, 40.0])
    aims = [
        Aim("s", "met", lambda f: f.times_as_fast("s", "m", "sqlite"), 9, 15, at_least=True),
        Aim("s", "short", lambda f: f.median("s", "m"), 1.5),
        Aim("s", "not run", lambda f: f.times_as_fast("s", "m", "memory"), 9, at_least=True),
        Aim("other", "of a suite that did not run", lambda f: f.median("s", "m"), 1),
    ]
    met, short, missing = judge(results, DEFAULT_SIZES, aims)
    assert (met.figure, met.aim, met.says) == (9.0, "at least 9, better 15", "met")
    assert (short.figure, short.aim, short.says) == (2.0, "at most 1.5", "short")
    assert (missing.figure, missing.says) == (None, "not run")
    says = {verdict.says for verdict in judge(results, TINY, aims)}
    assert says == {"other sizes", "not run"}


def test_overhead_is_what_a_saver_adds() -> None:
    results = Results([
        Series("s", measure, backend, [[seconds]])
        for measure, backend, seconds in (
            ("with_saver", "lgkv", 3.0), ("without_saver", "lgkv", 1.0),
            ("with_saver", "sqlite", 13.0), ("without_saver", "sqlite", 3.0),
        )
    ])  # fmt: skip
    assert Figures(results, TINY).overhead("s", "sqlite") == 5.0


def test_growth_in_bytes_is_counted_from_the_label_before() -> None:
    results = Results(stored_bytes=[
        ("s", "a", "lgkv", 1_000, 100), ("s", "b", "lgkv", 1_600, 400),
        ("s", "c", "lgkv", 2_000, None),
    ])  # fmt: skip
    figures = Figures(results, TINY)
    assert figures.size_to_new("s", "a") == 10.0
    assert figures.grown_to_new("s", "a", "b") == 2.0
    with pytest.raises(KeyError):
        figures.size_to_new("s", "c")


def test_slow_backends_run_the_long_suites_on_request_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--only", "copy_thread_long", "--size", "long_turns=2", "--folder", str(tmp_path)]
    found = []
    for more in ([], ["--full"]):
        path = tmp_path / "out.json"
        assert main([*arguments, *more, "--json", str(path)]) == 0
        document = json.loads(path.read_text(encoding="utf-8"))
        found.append({row["backend"] for row in document["times"]})
    assert found == [{"lgkv"}, {"lgkv", "sqlite"}]
    assert "slow: give --full" in capsys.readouterr().out
