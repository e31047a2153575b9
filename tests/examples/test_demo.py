"""The demo, run as a newcomer runs it: what it prints is true of the file that it leaves."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from langchain_core.runnables import RunnableConfig

import lgkv
from lgkv.langgraph import LgkvSaver

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclass(frozen=True)
class Demo:
    """What a run of the demo printed, and the file that it left."""

    text: str
    path: Path

    @property
    def parts(self) -> tuple[str, str]:
        """What the first process printed, and what the second did."""
        first, second = self.text.split("Process 2 of 2")
        return first, second

    def section(self, title: str) -> str:
        """Return what was printed under the heading that starts with *title*."""
        found = re.search(
            rf"^{re.escape(title)}.*?(?=^[A-Z]|\Z)", self.text, re.MULTILINE | re.DOTALL
        )
        assert found, self.text
        return found[0]


def run_demo(path: Path) -> Demo:
    """Run the demo on *path* in a folder of its own."""
    command = [sys.executable, str(EXAMPLES / "agent.py"), str(path)]
    done = subprocess.run(
        command,
        cwd=path.parent,
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return Demo(done.stdout, path)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Run the demo once, on a new file."""
    return run_demo(tmp_path_factory.mktemp("demo") / "agent.lgkv")


@pytest.fixture
def db(demo: Demo) -> Iterator[lgkv.Database]:
    """Open the file that the demo left."""
    with lgkv.open(demo.path, mode="r") as database:
        yield database


def home() -> RunnableConfig:
    """Return the config of the demo's first thread."""
    return {"configurable": {"thread_id": "home-1", "checkpoint_ns": ""}}


def test_it_runs_in_two_processes(demo: Demo) -> None:
    pids = re.findall(r"Process \d of 2, pid (\d+)", demo.text)
    assert len(pids) == 2
    assert pids[0] != pids[1]


def test_the_second_process_resumes_the_interrupt_of_the_first(demo: Demo) -> None:
    first, second = demo.parts
    request = "Book two seats on the Saturday train to Chamonix."
    assert first.rstrip().endswith(f"Thread trip-1 still waits for: May I? {request}")
    assert "approval" not in first
    assert re.search(r"approval yes\n +agent +Booked\. That is booking number 1", second)


def test_the_subgraph_remembers_its_bookings(demo: Demo) -> None:
    assert "booking number 2 in this conversation" in demo.parts[1]
    assert "booking number 3" not in demo.text


def test_a_refusal_books_nothing(demo: Demo) -> None:
    assert re.search(r"approval no\n +agent +All right, I have not booked it", demo.parts[1])


def test_a_thread_recalls_the_facts_of_another(demo: Demo) -> None:
    phone = demo.section("Thread phone-1")
    assert "Your name is Bob." in phone
    assert "I remember that you love pizza" in phone
    assert "your sister Ana's birthday is on 3 May" in phone


def test_facts_are_found_by_meaning(demo: Demo) -> None:
    found = re.search(r'I\'m hungry\n +\(found by meaning: "(.*)", similarity 0\.\d\d\)', demo.text)
    assert found
    assert found[1].startswith("I love pizza")


def test_the_node_cache_answers_the_second_call_and_the_second_process(demo: Demo) -> None:
    first, second = demo.parts
    sources = [re.findall(r"\(from the (\S+ \S+), ", part) for part in (first, second)]
    assert sources[0] == ["slow service", "node cache", "slow service"]
    assert sources[1] == ["node cache", "slow service"]  # Zürich again; then Rome, in the fork


def test_the_history_is_as_long_as_it_says(demo: Demo, db: lgkv.Database) -> None:
    before = re.search(r"had (\d+) checkpoints and now has (\d+)", demo.text)
    assert before
    assert f"... {before[1]} checkpoints in all" in demo.text
    assert len(list(LgkvSaver(db).list(home()))) == int(before[2]) > int(before[1])


def test_the_replay_gives_the_same_answer(demo: Demo) -> None:
    assert "I remember that you love pizza" in demo.section("Replay")


def test_the_fork_changes_the_answer_and_keeps_the_original(demo: Demo, db: lgkv.Database) -> None:
    assert "The forecast for Rome" in demo.section("Fork")
    ends = {
        stored.checkpoint["channel_values"]["messages"][-1].text
        for stored in LgkvSaver(db).list(home())
        if stored.checkpoint["channel_values"].get("messages")
    }
    assert {
        "The forecast for Rome is dry and bright, 14 degrees.",
        "The forecast for Zürich is dry and bright, 14 degrees.",
    } <= ends


def test_the_report_is_true_of_the_file(demo: Demo, db: lgkv.Database) -> None:
    numbers = re.findall(r"([\d,]+) (?:bytes|threads|check|facts)", demo.section("The file"))
    size, threads, checkpoints, facts, once, every = (int(n.replace(",", "")) for n in numbers)
    assert str(demo.path.resolve()) in demo.text
    assert size == demo.path.stat().st_size
    assert threads == len(db.threads()) == 3
    assert checkpoints == len(list(LgkvSaver(db).list(None)))
    assert facts == len(db.memory.search(("memories", "bob"), limit=100))
    assert 0 < once < every


def test_a_second_run_carries_on_with_the_same_file(demo: Demo, tmp_path: Path) -> None:
    assert f"{demo.path} is new." in demo.text
    second = run_demo(Path(shutil.copy(demo.path, tmp_path)))
    assert "exists already" in second.text
    assert "Thread home-2" in second.parts[0]
    assert "Thread trip-2 still waits" in second.parts[0]
    assert "slow service" not in second.text
    assert "bytes, with 6 threads" in second.text


def test_a_file_of_another_kind_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Buy milk.\n" * 1_000)
    command = [sys.executable, str(EXAMPLES / "agent.py"), str(path)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert "lgkv.errors." in done.stderr
    assert "Process 2" not in done.stdout
    assert path.read_text() == "Buy milk.\n" * 1_000


def test_nothing_is_left_beside_the_file(demo: Demo) -> None:
    assert {entry.name for entry in demo.path.parent.iterdir()} == {"agent.lgkv", "agent.lgkv-lock"}
