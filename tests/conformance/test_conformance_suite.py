"""LangGraph's own conformance suite, on the saver as it is and with encryption."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability, DetectedCapabilities
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

import lgkv
from lgkv.langgraph import LgkvSaver, StrictSerializer
from lgkv.langgraph.aio import AsyncLgkvSaver


def encrypting() -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(StrictSerializer(), key=b"0123456789abcdef")


def registered(folder: Path, make_options: Callable[[], dict[str, Any]]) -> RegisteredCheckpointer:
    """Return the saver as the suite wants it; it asks for a fresh one for each capability."""
    made = iter(range(100))

    @checkpointer_test(name="LgkvSaver")
    async def lgkv_saver() -> AsyncIterator[LgkvSaver]:
        path = folder / f"{next(made)}.lgkv"
        async with AsyncLgkvSaver.from_conn_string(path, **make_options()) as saver:
            yield saver

    return lgkv_saver


@pytest.mark.parametrize("capability", [each.value for each in Capability])
@pytest.mark.parametrize(
    "make_options", [dict, lambda: {"serde": encrypting()}], ids=["strict", "encrypted"]
)
async def test_suite_passes(
    tmp_path: Path, capability: str, make_options: Callable[[], dict[str, Any]]
) -> None:
    report = await validate(registered(tmp_path, make_options), capabilities={capability})
    result = report.results[capability]
    assert result.failures == []
    assert result.detected
    assert result.passed
    assert result.tests_passed > 4
    assert result.tests_skipped == 0


def test_every_capability_is_detected(db: lgkv.Database) -> None:
    assert DetectedCapabilities.from_instance(LgkvSaver(db)).detected == frozenset(Capability)
