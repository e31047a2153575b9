"""The saver against `InMemorySaver`, step by step, through every way into the file."""

from __future__ import annotations

import asyncio
import copy
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver

import lgkv
from lgkv.errors import InvalidInputError
from lgkv.langgraph import LgkvSaver
from tests.conformance.checkpoints import checkpoint_of, config_of, id_of
from tests.model.second_process import SecondProcess

# few names, the first of them often, so that steps meet
NAMES = ("t", "t2", "é\x00" * 120)
THREADS = st.sampled_from(["t", "t", "t", *NAMES])
NAMESPACES = st.sampled_from(["", "", "child:1"])
IDS = st.sampled_from(
    [
        "1ef4f797-8335-6428-8001-8a1503f9b875",
        "1ef4f797-8335-6428-8002-8a1503f9b875",
        "1EF4F797-8335-6428-8001-8A1503F9B875",
        "10",
        "2",
    ]
)
CHANNELS = ("a", "b")
VALUES = st.one_of(st.none(), st.integers(0, 9), st.text(max_size=3), st.lists(st.integers(0, 3)))
VERSIONS = st.sampled_from([1, "1", f"{3:032}.{7:016}"])
METADATA = st.fixed_dictionaries(
    {"step": st.integers(-1, 2), "source": st.sampled_from(["input", "loop"])},
    optional={"run_id": st.sampled_from(["r1", "r2"]), "flag": st.sampled_from([True, 1, "1"])},
)
WRITES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "__error__", "__interrupt__", "__resume__"]), VALUES),
    max_size=4,
)
TASKS = st.lists(
    st.tuples(st.sampled_from(["task1", "task2"]), st.sampled_from(["", "~a", "~b"]), WRITES),
    min_size=1,
    max_size=3,
)
FILTERS = st.sampled_from(
    [
        None,
        {},
        {"step": 1},
        {"step": "1"},
        {"flag": 1},
        {"run_id": None},
        {"source": "loop", "step": 0},
    ]
)
WAYS = st.sampled_from(["own", "own", "second handle", "second process", "event loop"])


PLACE = ("thread_id", "checkpoint_ns", "checkpoint_id")
SUPERSTEP: Any = {
    "way": WAYS,
    "thread": THREADS,
    "ns": NAMESPACES,
    "tasks": TASKS,
    "ids": st.tuples(IDS, IDS),
    "change": st.tuples(
        st.sampled_from(["append", "append", "trim", "edit", "set", "replace"]),
        st.integers(0, 3),
        VALUES,
    ),
}


def place(found: CheckpointTuple) -> list[tuple[str, str]]:
    """Return where a checkpoint lies, to sort by."""
    return sorted(found.config["configurable"].items())


def changed(value: Any, how: str, at: int, new: Any) -> Any:
    """Return a value as a node makes it from the one before."""
    if how == "set":
        return {**(value if isinstance(value, dict) else {}), f"key{at}": new}
    if not isinstance(value, list) or how == "replace":
        return [new, HumanMessage(f"{at}", id=f"{at}")]
    if how == "append":
        return [*value, *[HumanMessage(f"{new}", id=f"{at}"), new][: at + 1]]
    return value[at:] if how == "trim" else [*value[:at], new, *value[at + 1 :]]


class Memory(InMemorySaver):
    """`InMemorySaver` with what it lacks, and listings over all in the order of the ids."""

    def exists(self, thread: str) -> bool:
        return any(self.storage.get(thread, {}).values()) or any(
            key[0] == thread and writes for key, writes in self.writes.items()
        )

    def listed(
        self, config: Any, limit: int | None = None, **options: Any
    ) -> list[CheckpointTuple]:
        found = sorted(
            self.list(config, **options), key=lambda each: id_of(each.config), reverse=True
        )
        return found if limit is None else found[: max(limit, 0)]

    def copy_thread(self, source: str, target: str) -> None:
        self.storage[target] = copy.deepcopy(self.storage[source])
        for kept in (self.writes, self.blobs):
            for key in [key for key in kept if key[0] == source]:
                kept[(target, *key[1:])] = copy.copy(kept[key])

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        """Store a value that is not new as well if nothing has it: it may have been pruned."""
        thread, ns, _ = (config["configurable"].get(key) for key in PLACE)
        kept = {
            name: version
            for name, version in checkpoint["channel_versions"].items()
            if name in checkpoint["channel_values"]
            and (thread, ns, name, version) not in self.blobs
        }
        stored = super().put(config, checkpoint, metadata, kept | new_versions)
        self._free(thread, ns)
        return stored

    def is_used(self, thread: str, ns: str, name: str, version: Any, but_by: str) -> bool:
        """Whether a checkpoint other than `but_by` has this version of a channel."""
        return any(
            self.serde.loads_typed(stored)["channel_versions"].get(name) == version
            for checkpoint_id, (stored, _, _) in self.storage[thread][ns].items()
            if checkpoint_id != but_by
        )

    def is_empty(self, thread: str, ns: str, name: str, version: Any) -> bool:
        """Whether a channel was empty at a version: then nobody gives a value for it."""
        return self.blobs.get((thread, ns, name, version), ("", b""))[0] == "empty"

    def drop(self, thread: str, ns: str, ids: Sequence[str]) -> None:
        for checkpoint_id in ids:
            del self.storage[thread][ns][checkpoint_id]
            self.writes.pop((thread, ns, checkpoint_id), None)
        if ids:
            self._free(thread, ns)

    def _free(self, thread: str, ns: str) -> None:
        """Drop the values that no checkpoint uses, as pruning does."""
        used = set()
        for stored, _, _ in self.storage[thread][ns].values():
            used.update(self.serde.loads_typed(stored)["channel_versions"].items())
        for key in list(self.blobs):
            unused = key[:2] == (thread, ns) and key[2:] not in used
            if unused or (key[0] == thread and not self.exists(thread)):
                del self.blobs[key]

    def prune(self, threads: Sequence[str], strategy: str, keep_last: int) -> None:
        for thread in threads:
            if strategy == "delete":
                self.delete_thread(thread)
                continue
            for ns, stored in list(self.storage.get(thread, {}).items()):
                self.drop(thread, ns, sorted(stored, reverse=True)[keep_last:])

    def delete_for_runs(self, runs: Sequence[str]) -> None:
        for thread, spaces in list(self.storage.items()):
            for ns, stored in list(spaces.items()):
                metadata = {key: self.serde.loads_typed(each[1]) for key, each in stored.items()}
                self.drop(
                    thread,
                    ns,
                    [key for key, each in metadata.items() if each.get("run_id") in runs],
                )


class SaverMachine(RuleBasedStateMachine):
    """One file, four ways into it, and the model."""

    process: SecondProcess

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.path = f"{self.folder}/agent.lgkv"
        self.db = lgkv.open(self.path)
        self.saver = LgkvSaver(self.db)
        self.other = lgkv.open(self.path)
        self.model = Memory()
        self.versions = 1000

    def teardown(self) -> None:
        if not hasattr(self, "db"):
            return
        for thread in NAMES:
            self.saver.delete_thread(thread)
        left = self.db.stats().records
        self.process.call(self.path, "saver", "close")
        self.other.close()
        self.db.close()
        shutil.rmtree(self.folder)
        assert set(left.values()) == {0}

    def call(self, way: str, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of the saver through one of the ways into the file."""
        if way == "second process":
            return self.process.call(self.path, "saver", method, *args, **options)
        if way == "event loop":
            return asyncio.run(self._acall(method, *args, **options))
        saver = self.saver if way == "own" else LgkvSaver(self.other)
        result = getattr(saver, method)(*args, **options)
        return list(result) if method == "list" else result

    async def _acall(self, method: str, *args: Any, **options: Any) -> Any:
        if method == "list":
            return [each async for each in self.saver.alist(*args, **options)]
        return await getattr(self.saver, f"a{method}")(*args, **options)

    # --- writing ---

    @rule(
        way=WAYS,
        thread=THREADS,
        ns=NAMESPACES,
        checkpoint_id=IDS,
        parent=st.none() | IDS,
        channels=st.dictionaries(
            st.sampled_from(CHANNELS), st.tuples(VERSIONS, VALUES, st.sampled_from("nnekk"))
        ),
        metadata=METADATA,
    )
    def put(
        self,
        *,
        way: str,
        thread: str,
        ns: str,
        checkpoint_id: str,
        parent: str | None,
        channels: Any,
        metadata: Any,
    ) -> None:
        """Each channel is new with a value, new and empty, or kept as it is.

        What is new, or stored because nothing has it, has a version of its own: with two values
        of one version each checkpoint has the value that it was stored with, and in memory the
        last counts for all.
        """
        for name, (version, value, kind) in channels.items():
            fresh = kind != "k" or (thread, ns, name, version) not in self.model.blobs
            if fresh and self.model.is_used(thread, ns, name, version, checkpoint_id):
                self.versions += 1
                channels[name] = (f"{self.versions:032}.{8:016}", value, kind)
        checkpoint = checkpoint_of(
            {
                name: value
                for name, (version, value, kind) in channels.items()
                if kind == "n"
                or (kind == "k" and not self.model.is_empty(thread, ns, name, version))
            },
            {name: version for name, (version, _, _) in channels.items()},
            checkpoint_id=checkpoint_id,
        )
        new = {name: version for name, (version, _, kind) in channels.items() if kind != "k"}
        config = config_of(thread, ns, parent)
        stored = self.call(way, "put", config, checkpoint, metadata, new)
        assert stored == self.model.put(config, checkpoint, metadata, new)

    @rule(
        way=WAYS,
        thread=THREADS,
        ns=NAMESPACES,
        checkpoint_id=IDS,
        tasks=TASKS,
    )
    def put_writes(
        self, *, way: str, thread: str, ns: str, checkpoint_id: str, tasks: list[Any]
    ) -> None:
        config = config_of(thread, ns or None, checkpoint_id)
        for task, path, writes in tasks:
            self.call(way, "put_writes", config, writes, task, path)
            self.model.put_writes(config, writes, task, path)

    def superstep(
        self, *, way: str, thread: str, ns: str, tasks: list[Any], ids: tuple[str, str], change: Any
    ) -> None:
        """Tasks write at a checkpoint, and its child changes a value, as in a run or a fork."""
        parent, child = ids
        found = self.model.get_tuple(config_of(thread, ns, parent)) or self.model.get_tuple(
            config_of(thread, ns)
        )
        versions: dict[str, Any] = {}
        values: dict[str, Any] = {}
        parent_id = None
        if found is not None:
            parent_id = id_of(found.config)
            self.put_writes(way=way, thread=thread, ns=ns, checkpoint_id=parent_id, tasks=tasks)
            versions, values = (
                found.checkpoint["channel_versions"],
                found.checkpoint["channel_values"],
            )
        channels = {name: (version, None, "k") for name, version in versions.items()}
        for name in ("a", "messages"):
            following = LgkvSaver(self.db).get_next_version(versions.get(name), None)
            channels[name] = (following, changed(values.get(name), *change), "n")
        self.put(
            way=way,
            thread=thread,
            ns=ns,
            checkpoint_id=child,
            parent=parent_id,
            channels=channels,
            metadata={"source": "loop", "step": 0, "run_id": "r1"},
        )

    # twice, to come up more often than what deletes
    one_superstep = rule(**SUPERSTEP)(superstep)
    next_superstep = rule(**SUPERSTEP)(superstep)

    @rule(way=WAYS, thread=THREADS)
    def delete_thread(self, way: str, thread: str) -> None:
        self.call(way, "delete_thread", thread)
        self.model.delete_thread(thread)

    @rule(way=WAYS, runs=st.lists(st.sampled_from(["r1", "r2", "r3"]), max_size=2))
    def delete_for_runs(self, way: str, runs: list[str]) -> None:
        self.call(way, "delete_for_runs", runs)
        self.model.delete_for_runs(runs)

    @rule(way=WAYS, source=THREADS, copy_id=THREADS)
    def copy_thread(self, way: str, source: str, copy_id: str) -> None:
        try:
            self.call(way, "copy_thread", source, copy_id)
        except InvalidInputError:
            assert not self.model.exists(source) or self.model.exists(copy_id)
        else:
            assert self.model.exists(source)
            assert not self.model.exists(copy_id)
            self.model.copy_thread(source, copy_id)

    @rule(
        way=WAYS,
        threads=st.lists(THREADS, max_size=3),
        keep_last=st.integers(1, 3),
        strategy=st.sampled_from(["keep_latest", "keep_latest", "delete"]),
    )
    def prune(self, way: str, threads: list[str], keep_last: int, strategy: str) -> None:
        options = {"keep_last": keep_last} if strategy == "keep_latest" else {"strategy": strategy}
        self.call(way, "prune", threads, **options)
        self.model.prune(threads, strategy, keep_last)

    # --- the file ---

    @rule()
    def reopen(self) -> None:
        self.other.close()
        self.db.close()
        self.db = lgkv.open(self.path, mode="w")
        self.saver = LgkvSaver(self.db)
        self.other = lgkv.open(self.path, mode="w")

    @rule()
    def restart_the_second_process(self) -> None:
        self.process.call(self.path, "saver", "close")

    # --- reading ---

    @rule(way=WAYS, thread=THREADS, ns=NAMESPACES, checkpoint_id=st.none() | IDS)
    def get_tuple(self, way: str, thread: str, ns: str, checkpoint_id: str | None) -> None:
        config = config_of(thread, ns or None, checkpoint_id)
        found, expected = self.call(way, "get_tuple", config), self.model.get_tuple(config)
        assert found == expected
        if found is not None and checkpoint_id is not None:
            assert found.config == config

    @precondition(lambda self: any(any(spaces.values()) for spaces in self.model.storage.values()))
    @rule(
        way=WAYS,
        thread=st.none() | THREADS,
        ns=st.none() | NAMESPACES,
        checkpoint_id=st.none() | IDS,
        before=st.none() | IDS | st.just("5"),
        filter=FILTERS,
        limit=st.none() | st.integers(0, 4),
    )
    def list_checkpoints(
        self,
        *,
        way: str,
        thread: str | None,
        ns: str | None,
        checkpoint_id: str | None,
        before: str | None,
        filter: dict[str, Any] | None,
        limit: int | None,
    ) -> None:
        config = None if thread is None else config_of(thread, ns, checkpoint_id)
        options = {"filter": filter, "before": before and config_of("any", "", before)}
        found = self.call(way, "list", config, limit=limit, **options)
        expected = self.model.listed(config, **options)
        ids = [id_of(each.config) for each in found]
        assert (
            ids
            == [id_of(each.config) for each in expected][
                : len(expected) if limit is None else limit
            ]
        )
        assert all(each in expected for each in found)  # those of one id come in any order
        assert all(found.count(each) == 1 for each in found)

    @invariant()
    def everything_is_as_in_memory(self) -> None:
        if not hasattr(self, "db"):
            return
        assert sorted(self.saver.list(None), key=place) == sorted(
            self.model.listed(None), key=place
        )
        threads = {each.thread_id: each for each in self.db.threads(limit=99)}
        assert set(threads) == {thread for thread in self.names() if self.model.exists(thread)}
        for thread, info in threads.items():
            assert info.checkpoints == sum(map(len, self.model.storage[thread].values()))
            assert info.size_bytes > 0

    def names(self) -> set[str]:
        return {*self.model.storage, *(key[0] for key in self.model.writes)}


@pytest.mark.timeout(600)  # finding the shortest counterexample takes a while
def test_saver_does_what_the_memory_saver_does(second_process: SecondProcess) -> None:
    SaverMachine.process = second_process
    run_state_machine_as_test(
        SaverMachine,
        settings=settings(
            max_examples=settings.default.max_examples * 2 // 3, stateful_step_count=40
        ),
    )
