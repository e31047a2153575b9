"""The file that is damaged, and the process that opens what becomes of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.damage import Sample
from tests.fuzz.trial import Trial
from tests.fuzz.victim import Victim


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Give a folder in memory where the system has one: nothing here is to outlive the tests."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def sample(folder: Path) -> Sample:
    return Sample(str(folder / "sample.lgkv"))


@pytest.fixture(scope="session")
def trial(sample: Sample, folder: Path) -> Iterator[Trial]:
    victim = Victim()
    yield Trial(sample, victim, folder)
    victim.close()
