"""The second process, which all state machines share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model.second_process import SecondProcess


@pytest.fixture(scope="session")
def second_process() -> Iterator[SecondProcess]:
    """Give a process that opens whatever file it is asked about."""
    process = SecondProcess()
    yield process
    process.close()
