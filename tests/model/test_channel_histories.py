"""Random histories of channels: at every checkpoint what LangGraph's memory saver gives.

Every branch is driven as the runtime drives it: with live objects that are changed in place
between steps, or from what was read back. Everything that is returned is wrecked by the test,
so what a caller does to it would show in the next comparison.
"""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from langgraph.checkpoint.memory import InMemorySaver

import lgkv
from lgkv.errors import InvalidInputError
from lgkv.langgraph import LgkvSaver
from tests.conformance.checkpoints import config_of, new_id
from tests.conformance.stored import audit
from tests.model.elsewhere import Elsewhere, digest, digests
from tests.model.serialisers import NAMES, serialiser
from tests.unit.shadows import changes, leaves, messages, plain, storable, wreck

# The other process does not make errors of warnings, nor should this one: a serialiser that
# pickles what fails would do so here only.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")

LONG = settings().max_examples > 100
CACHES = [0, 3_000, 20_000, 64 << 20]
CHANNELS = ["a", "b"]


@dataclass(frozen=True)
class Known:
    """A checkpoint that must be there, and the one of the memory saver that it is like."""

    thread: str
    id: str
    origin: str
    run: str


_processes: list[Elsewhere] = []
"""The other process, once it is needed."""


@pytest.fixture(scope="module", autouse=True)
def process() -> Iterator[None]:
    """End the other process."""
    yield
    while _processes:
        _processes.pop().close()


def elsewhere() -> Elsewhere:
    if not _processes:
        _processes.append(Elsewhere())
    return _processes[0]


class Histories(RuleBasedStateMachine):
    """A file and the memory saver, driven alike. Subclasses say what channels hold."""

    elements: Any = storable()
    serdes: tuple[str, ...] = NAMES
    firsts: tuple[Any, ...] = (None,)

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.path = os.path.join(self.folder, "agent.lgkv")
        self.known: list[Known] = []
        self.number = 0
        self.live: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.elsewhere = False
        self.db: lgkv.Database | None = None

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.first = data.draw(st.sampled_from(self.firsts), label="first value")
        self.name = data.draw(st.sampled_from(self.serdes), label="serialiser")
        self.cache_bytes = data.draw(st.sampled_from(CACHES), label="cache")
        self.serde = serialiser(self.name)
        self.memory = InMemorySaver(serde=self.serde)
        self.open()

    def open(self) -> None:
        self.db = lgkv.open(self.path, cache_bytes=self.cache_bytes)
        self.saver = LgkvSaver(self.db, serde=self.serde)

    def teardown(self) -> None:
        if self.db is not None:
            self.db.close()
        if self.elsewhere:
            elsewhere()("close", self.path, self.name)
        shutil.rmtree(self.folder)

    # --- what a step does to a channel ---

    def edit(self, value: Any, data: st.DataObject) -> Any:
        raise NotImplementedError

    @rule(data=st.data(), fork=st.integers(0, 5), via=st.sampled_from(["here"] * 6 + ["there"]))
    def put(self, data: st.DataObject, fork: int, via: str) -> None:
        parent = self._parent(data, fork)
        state = self._state(parent)
        versions = dict(self.versions.get(parent.origin, {}) if parent else {})
        new = {}
        for channel in data.draw(st.sampled_from([["a"], ["b"], ["a", "b"], []]), label="channels"):
            self._step(state, channel, data)
            self.number += 1
            new[channel] = versions[channel] = f"{self.number:032}.{7:016}"
        self._put(parent, state, versions, new, via)

    def _parent(self, data: st.DataObject, fork: int) -> Known | None:
        if not self.known:
            return None
        if fork:
            return self.known[-1]
        return data.draw(st.sampled_from([None, *self.known]), label="parent")

    def _state(self, parent: Known | None) -> dict[str, Any]:
        """Return the live objects of a branch, or what is read back of its last checkpoint."""
        if parent is None:
            return {}
        live = self.live.pop(parent.id, None)
        if live is not None:
            return live
        found = self.saver.get_tuple(config_of(parent.thread, checkpoint_id=parent.id))
        assert found is not None
        return dict(found.checkpoint["channel_values"])

    def _step(self, state: dict[str, Any], channel: str, data: st.DataObject) -> None:
        what = data.draw(st.sampled_from(["edit"] * 6 + ["change"] * 3 + ["type", "drop"]))
        ways = list(changes(state.get(channel)))
        if what == "change" and ways:
            data.draw(st.sampled_from(ways))()
        elif what == "type":
            state[channel] = data.draw(self.elements | st.sampled_from([None, [], {}, "", 0, b""]))
        elif what == "drop":
            state.pop(channel, None)
        else:
            old = state.get(channel, copy.deepcopy(self.first))
            state[channel] = self.edit(old, data)

    def _put(
        self,
        parent: Known | None,
        state: dict[str, Any],
        versions: dict[str, str],
        new: dict[str, str],
        via: str,
    ) -> None:
        self.number += 1
        thread = parent.thread if parent else f"t{self.number}"
        checkpoint: Any = {
            "v": 4,
            "id": new_id(),
            "ts": "2024-07-31T20:14:19.804150+00:00",
            "channel_values": state,
            "channel_versions": versions,
            "versions_seen": {"__input__": {}, "node": dict(versions)},
            "updated_channels": None,
        }
        run = f"run{self.number % 3}"
        metadata: Any = {"source": "loop", "step": self.number, "run_id": run}
        config = config_of(thread, checkpoint_id=parent.id if parent else None)
        if not self._storable([state[name] for name in new if name in state]):
            with pytest.raises(InvalidInputError):
                self.saver.put(config, checkpoint, metadata, new)
            self.live = {}
            return
        memory_config = config_of("m", checkpoint_id=parent.origin if parent else None)
        self.memory.put(memory_config, copy.copy(checkpoint), metadata, new)
        if via == "there":
            self.elsewhere = True
            elsewhere()("put", self.path, self.name, config, checkpoint, metadata, new)
        else:
            self.saver.put(config, checkpoint, metadata, new)
        self.known.append(Known(thread, checkpoint["id"], checkpoint["id"], run))
        self.live = {checkpoint["id"]: state}
        self.versions[checkpoint["id"]] = versions
        self.again = (config, checkpoint, metadata, new)

    def _storable(self, values: list[Any]) -> bool:
        try:
            for value in values:
                self.serde.dumps_typed(value)
        except TypeError:
            return False
        return True

    @precondition(lambda self: self.known and self.known[-1].id in self.live)
    @rule()
    def put_again(self) -> None:
        config, checkpoint, metadata, new = self.again
        self.memory.put(
            config_of("m", checkpoint_id=self._origin(config)), copy.copy(checkpoint), metadata, new
        )
        self.saver.put(config, checkpoint, metadata, new)

    def _origin(self, config: Any) -> str | None:
        checkpoint_id = config["configurable"].get("checkpoint_id")
        return next((known.origin for known in self.known if known.id == checkpoint_id), None)

    # --- upkeep ---

    def _thread(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted({known.thread for known in self.known})))

    @precondition(lambda self: self.known)
    @rule(data=st.data(), keep_last=st.integers(1, 4))
    def prune(self, data: st.DataObject, keep_last: int) -> None:
        thread = self._thread(data)
        self.saver.prune([thread], keep_last=keep_last)
        ids = sorted(known.id for known in self.known if known.thread == thread)
        self._forget(thread, ids[:-keep_last])
        audit(self._db(), thread)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def delete_runs(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted({known.run for known in self.known})))
        self.saver.delete_for_runs([run])
        for thread in {known.thread for known in self.known}:
            gone = [k.id for k in self.known if k.thread == thread and k.run == run]
            self._forget(thread, gone)
            audit(self._db(), thread)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def delete_thread(self, data: st.DataObject) -> None:
        thread = self._thread(data)
        self.saver.delete_thread(thread)
        self._forget(thread, [known.id for known in self.known if known.thread == thread])
        assert audit(self._db(), thread) is None

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def copy_thread(self, data: st.DataObject) -> None:
        thread = self._thread(data)
        self.number += 1
        self.saver.copy_thread(thread, f"t{self.number}")
        self.known[:0] = [
            Known(f"t{self.number}", known.id, known.origin, known.run)
            for known in self.known
            if known.thread == thread
        ]
        self.live = {}

    def _forget(self, thread: str, ids: list[str]) -> None:
        self.known = [k for k in self.known if k.thread != thread or k.id not in ids]

    @rule()
    def reopen(self) -> None:
        self._db().close()
        self.open()

    def _db(self) -> lgkv.Database:
        assert self.db is not None
        return self.db

    # --- what must hold ---

    @invariant()
    def every_checkpoint_is_as_in_the_memory_saver(self) -> None:
        if self.db is None:
            return
        self._compare(self.saver)
        for thread in {known.thread for known in self.known}:
            audit(self.db, thread)

    def _compare(self, saver: LgkvSaver) -> None:
        expected = self._expected()
        for thread in {known.thread for known in self.known}:
            found = list(saver.list(config_of(thread, ns=None)))
            ids = {known.id for known in self.known if known.thread == thread}
            assert {each.checkpoint["id"] for each in found} == ids
            for each in found:
                check = expected[thread, each.checkpoint["id"]]
                assert digest(each.checkpoint["channel_values"]) == digest(check["channel_values"])
                for name in ("channel_versions", "versions_seen"):
                    assert repr(each.checkpoint[name]) == repr(check[name])
                wreck(each.checkpoint["channel_values"])
        if self.known:
            last = self.known[-1]
            one = saver.get_tuple(config_of(last.thread, checkpoint_id=last.id))
            assert one is not None
            check = expected[last.thread, last.id]
            assert digest(one.checkpoint["channel_values"]) == digest(check["channel_values"])
            wreck(one.checkpoint["channel_values"])

    def _expected(self) -> dict[tuple[str, str], Any]:
        expected = {}
        for known in self.known:
            found = self.memory.get_tuple(config_of("m", checkpoint_id=known.origin))
            assert found is not None
            expected[known.thread, known.id] = found.checkpoint
        return expected

    @precondition(lambda self: self.known)
    @rule()
    def read_through_another_handle(self) -> None:
        with lgkv.open(self.path, cache_bytes=self.cache_bytes) as other:
            self._compare(LgkvSaver(other, serde=self.serde))

    @precondition(lambda self: self.known)
    @rule()
    def read_in_another_process(self) -> None:
        self.elsewhere = True
        expected = self._expected()
        for thread in {known.thread for known in self.known}:
            assert elsewhere()("digests", self.path, self.name, thread) == {
                known.id: digest(expected[thread, known.id]["channel_values"])
                for known in self.known
                if known.thread == thread
            }
            assert digests(self.saver, thread).keys() == {
                known.id for known in self.known if known.thread == thread
            }


class Lists(Histories):
    """Channels that hold lists, as `messages` does."""

    firsts = ([], [["x" * 50, number] for number in range(12)])

    def edit(self, value: Any, data: st.DataObject) -> Any:
        items = list(value) if isinstance(value, list) else []
        new = data.draw(self.elements, label="element")
        at = data.draw(st.integers(0, len(items)), label="at")
        pads = ["x" * data.draw(st.sampled_from([0, 0, 300, 6_000]))]
        edits = {
            "append": lambda: [*items, new],
            "append many": lambda: [*items, new, *pads, new],
            "trim": lambda: items[at:],
            "keep last": lambda: [*items[-at:], new],
            "replace": lambda: [*items[:at], new, *items[at + 1 :]],
            "insert": lambda: [*items[:at], new, *items[at:]],
            "remove": lambda: [*items[:at], *items[at + 1 :]],
            "reorder": lambda: items[at:] + items[:at],
            "reverse": lambda: items[::-1],
            "duplicate": lambda: [*items, *items[at : at + 1]],
            "double": lambda: items + items if len(items) < 30 else items[:5],
            "empty": list,
            "same": lambda: items,
            "copy": lambda: copy.deepcopy(items),
            "tuple": lambda: tuple(items),
        }
        weights = ["append"] * 6 + ["append many"] * 3 + list(edits)
        return edits[data.draw(st.sampled_from(weights), label="edit")]()


class Messages(Lists):
    """Lists of messages, in the default serialiser's hands."""

    elements = messages()
    serdes = ("strict",)


class Dicts(Histories):
    """Channels that hold dicts."""

    firsts = ({}, {f"k{number}": ["x" * 50, number] for number in range(20)})

    def edit(self, value: Any, data: st.DataObject) -> Any:
        entries = dict(value) if isinstance(value, dict) else {}
        keys = data.draw(
            st.lists(st.sampled_from([*entries, "a", "b", "id"]), max_size=4), label="keys"
        )
        new = data.draw(self.elements, label="value")
        pad = "x" * data.draw(st.sampled_from([0, 0, 400, 3_000]))
        edits = {
            "set": lambda: {**entries, **dict.fromkeys(keys, new)},
            "fill": lambda: {**entries, **{f"k{n}": pad for n in range(20)}},
            "delete": lambda: {k: v for k, v in entries.items() if k not in keys},
            "delete and set": lambda: {
                **{k: v for k, v in entries.items() if k not in keys},
                "last": new,
            },
            "reorder": lambda: dict(reversed(entries.items())),
            "to the end": lambda: {
                **{k: v for k, v in entries.items() if k not in keys},
                **{k: v for k, v in entries.items() if k in keys},
            },
            "other keys": lambda: {**entries, 1: new, None: 2},
            "empty": dict,
            "same": lambda: entries,
            "copy": lambda: copy.deepcopy(entries),
            "nest": lambda: {**entries, "deep": {"a": [new, {"b": pad}]}},
        }
        weights = ["set"] * 5 + ["fill"] * 3 + list(edits)
        return edits[data.draw(st.sampled_from(weights), label="edit")]()


class Mixed(Lists):
    """Channels that hold anything, and opaque values that repeat."""

    def edit(self, value: Any, data: st.DataObject) -> Any:
        choices = ["list", "opaque", "same", "bytes", "tuple"]
        what = data.draw(st.sampled_from(choices), label="kind")
        if what == "list":
            return super().edit(value, data)
        if what == "opaque":
            return data.draw(leaves() | plain())
        if what == "bytes":
            return b"\x00" * data.draw(st.sampled_from([1, 300, 70_000]))
        return (value, 1) if what == "tuple" else copy.deepcopy(value)


SETTINGS = settings(
    max_examples=400 if LONG else 25,
    stateful_step_count=50 if LONG else 20,
    suppress_health_check=list(HealthCheck),
)

for machine in (Lists, Messages, Dicts, Mixed):
    machine.TestCase.settings = SETTINGS

TestLists = Lists.TestCase
TestMessages = Messages.TestCase
TestDicts = Dicts.TestCase
TestMixed = Mixed.TestCase
