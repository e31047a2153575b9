"""wide_state, dict_channel, opaque_channel: states of which a step changes a part."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks import corpus
from benchmarks.measures import Filled, Measure, Sizes
from benchmarks.thread import StateThread

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from benchmarks.backends import Opened

__all__ = ["DictChannel", "OpaqueChannel", "WideState"]

CHANNEL_CHARS = 2_000
ENTRY_CHARS = 1_000

Step = tuple[StateThread, str, Any]
"""A thread, a channel of it, and the channel's next value."""


class WideState:
    """Threads of one channel and of `channels` channels of 2 KB; a step replaces one channel."""

    name: ClassVar[str] = "wide_state"
    measure_names: ClassVar[tuple[str, ...]] = ("narrow_step", "wide_step")

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._widths = {"narrow": 1, "wide": sizes.channels}

    def fill(self, opened: Opened[BaseCheckpointSaver[Any]]) -> Iterator[Filled]:
        """Take `steps` steps on the narrow thread, then on the wide one."""
        rng = random.Random("wide_state")
        for name, width in self._widths.items():
            thread = StateThread(opened.subject, name)
            thread.begin({_channel(n): corpus.passage(rng, CHANNEL_CHARS) for n in range(width)})
            yield Filled(f"{name}: the first checkpoint", thread.new_bytes)
            thread.saver = opened.subject
            for number in range(self._sizes.steps):
                text = corpus.passage(rng, CHANNEL_CHARS)
                thread.step(_channel(number % width), text)
                thread.count(text)
            yield Filled(f"{name}: {self._sizes.steps} steps", thread.new_bytes)

    def measures(self, opened: Opened[BaseCheckpointSaver[Any]]) -> list[Measure]:
        """Return a step on each thread: put_writes and put."""
        rng = random.Random("wide_state steps")
        threads = {name: _resumed(opened, name) for name in self._widths}

        def next_step(name: str) -> Step:
            channel = _channel(rng.randrange(self._widths[name]))
            return threads[name], channel, corpus.passage(rng, CHANNEL_CHARS)

        calls = self._sizes.calls(50)
        step = StateThread.step
        return [
            Measure("narrow_step", step, calls, lambda: next_step("narrow")),
            Measure("wide_step", step, calls, lambda: next_step("wide")),
        ]


class DictChannel:
    """A channel that is a dict of `entries` texts of 1 KB; a put replaces one of them."""

    name: ClassVar[str] = "dict_channel"
    measure_names: ClassVar[tuple[str, ...]] = ("put",)

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    def fill(self, opened: Opened[BaseCheckpointSaver[Any]]) -> Iterator[Filled]:
        """Put the dict, then `steps` times with another entry changed."""
        rng = random.Random("dict_channel")
        thread = StateThread(opened.subject, "dict")
        numbers = range(self._sizes.entries)
        thread.begin({"notes": {_entry(n): corpus.passage(rng, ENTRY_CHARS) for n in numbers}})
        yield Filled("the first checkpoint", thread.new_bytes)
        thread.saver = opened.subject
        for _ in range(self._sizes.steps):
            changed = self._change(rng)
            thread.put("notes", {**thread.value("notes"), **changed})
            thread.count(changed)
        yield Filled(f"{self._sizes.steps} puts", thread.new_bytes)

    def measures(self, opened: Opened[BaseCheckpointSaver[Any]]) -> list[Measure]:
        """Return a put of the dict with one entry changed."""
        rng = random.Random("dict_channel puts")
        thread = _resumed(opened, "dict")

        def next_put() -> Step:
            return thread, "notes", {**thread.value("notes"), **self._change(rng)}

        return [Measure("put", StateThread.put, self._sizes.calls(20), next_put)]

    def _change(self, rng: random.Random) -> dict[str, str]:
        return {_entry(rng.randrange(self._sizes.entries)): corpus.passage(rng, ENTRY_CHARS)}


class OpaqueChannel:
    """A channel of `blob_bytes` random bytes, replaced at each put."""

    name: ClassVar[str] = "opaque_channel"
    measure_names: ClassVar[tuple[str, ...]] = ("put",)

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    def fill(self, opened: Opened[BaseCheckpointSaver[Any]]) -> Iterator[Filled]:
        """Put `blobs` values, then as many of which a node's pending write comes first."""
        rng = random.Random("opaque_channel")
        thread = StateThread(opened.subject, "opaque")
        thread.begin({"blob": self._blob(rng)})
        for put in (thread.put, thread.step):
            thread.saver = opened.subject
            for _ in range(self._sizes.blobs):
                blob = self._blob(rng)
                put("blob", blob)
                thread.count(blob)
            what = "puts" if put == thread.put else "steps of put_writes and put more"
            yield Filled(f"{self._sizes.blobs} {what}", thread.new_bytes)

    def measures(self, opened: Opened[BaseCheckpointSaver[Any]]) -> list[Measure]:
        """Return a put of new bytes."""
        rng = random.Random("opaque_channel puts")
        thread = _resumed(opened, "opaque")

        def next_put() -> Step:
            return thread, "blob", self._blob(rng)

        return [Measure("put", StateThread.put, self._sizes.calls(5), next_put)]

    def _blob(self, rng: random.Random) -> bytes:
        return rng.randbytes(self._sizes.blob_bytes)


def _resumed(opened: Opened[BaseCheckpointSaver[Any]], thread_id: str) -> StateThread:
    """Return the thread that `fill` has left."""
    thread = StateThread(opened.subject, thread_id)
    thread.load()
    return thread


def _channel(number: int) -> str:
    return f"channel-{number}"


def _entry(number: int) -> str:
    return f"note-{number}"
