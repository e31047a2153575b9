"""A file with records of every kind, and every call that reads or writes it.

Calls belong to groups: what is damaged in one group's records must not be felt in another's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import lgkv
from lgkv.langgraph import LgkvCache, LgkvSaver, LgkvStore
from tests.format import make_golden as golden

__all__ = ["Call", "make_sample", "reads", "writes"]

EVERYWHERE: Final = "everywhere"
"""The group of calls that touch the records of all others."""

STORE_INDEX: Any = {"dims": 3, "embed": lambda texts: [embed(text) for text in texts]}
GRAPH_THREADS: Final = ("chat", "fork", "wide", "changes", "наследство")
PLAIN_THREADS: Final = ("plain", golden.LONG)
LABEL: Final = "label " * 60


class Call(NamedTuple):
    """A call on an open file, by a name for messages."""

    name: str
    group: str
    run: Callable[[], Any]


def embed(text: str) -> list[float]:
    return [float(len(text) % 5), 1.0, float(sum(map(ord, text)) % 7)]


def make_sample(path: str) -> None:
    """Write the file: what the golden file has, and more of what memory holds."""
    rnd = random.Random(5)
    with golden.standing_clock() as clock:
        golden.write_all(path, clock)
        with lgkv.open(path) as db:
            store = LgkvStore(db, index=STORE_INDEX, fields={"n": int, "who": str})
            db.memory.put(("words",), "said", {"who": "bob"}, text="some words, some more")
            db.memory.put(("words",), "also", {"who": "eve"}, text="words")
            for number in range(6):
                value = {"text": f"note {number} " * 40, "n": number, "tags": ["a", {"b": number}]}
                store.put(("notes", str(number % 2)), f"note {number}", value)
            noise = {"noise": rnd.randbytes(600)}
            store.put(("notes", LABEL), golden.LONG, noise, index=False, ttl=9e6)


# --- calls ---------------------------------------------------------------------------------


def reads(db: lgkv.Database) -> Iterator[Call]:
    """Yield every call that reads."""
    saver = LgkvSaver(db)
    for thread_id in GRAPH_THREADS:
        yield from _reads_of_thread(saver, thread_id)
    for thread_id in PLAIN_THREADS:
        yield from _reads_of_plain_thread(db, thread_id)
    yield from _reads_of_memory(db)
    yield from _reads_of_cache(db)
    yield Call("list", EVERYWHERE, lambda: list(saver.list(None)))
    yield Call("list filter", EVERYWHERE, lambda: list(saver.list(None, filter={"step": 3})))
    yield Call("run", EVERYWHERE, lambda: list(saver.list(None, filter={"run_id": "run 0"})))
    yield Call("threads", EVERYWHERE, lambda: db.threads(limit=100))
    yield Call("threads filter", EVERYWHERE, lambda: db.threads(filter={"step": 3}))
    yield Call("stats", EVERYWHERE, lambda: db.stats().records)
    if hasattr(db, "check"):
        yield Call("check", EVERYWHERE, db.check)


def _reads_of_thread(saver: LgkvSaver, thread_id: str) -> Iterator[Call]:
    for ns in golden.NAMESPACES:
        config = golden.config_of(thread_id, ns)
        for name, run in (
            ("get", lambda config=config: saver.get_tuple(config)),
            ("list", lambda config=config: list(saver.list(config))),
            ("page", lambda config=config: list(saver.list(config, limit=2, filter={"step": 2}))),
        ):
            yield Call(f"{name} {thread_id} {ns}", thread_id, run)
    first = {"chat": 1, "fork": 11, "wide": 21, "changes": 31}.get(thread_id, 1)
    ns = "child:1" if thread_id == "fork" else ""
    for number in range(first, first + 4):
        config = golden.config_of(thread_id, ns, number)
        yield Call(
            f"get {thread_id} {number}", thread_id, lambda config=config: saver.get_tuple(config)
        )
        yield Call(
            f"delta history {thread_id} {number}",
            thread_id,
            lambda config=config: saver.get_delta_channel_history(
                config=config, channels=["messages", "items", "facts", "said"]
            ),
        )


def _reads_of_plain_thread(db: lgkv.Database, thread_id: str) -> Iterator[Call]:
    checkpoints, whole = db.checkpoints, "not a UUID" if thread_id == "plain" else thread_id
    for name, run in (
        ("get", lambda: checkpoints.get(thread_id)),
        ("get by id", lambda: checkpoints.get(thread_id, checkpoint_id=whole)),
        ("list", lambda: list(checkpoints.list(thread_id))),
        ("writes", lambda: checkpoints.writes(thread_id, whole)),
        ("delta history", lambda: checkpoints.delta_history(thread_id, ["array", golden.LONG])),
    ):
        yield Call(f"{name} {thread_id[:9]}", thread_id, run)


def _reads_of_memory(db: lgkv.Database) -> Iterator[Call]:
    store, memory = LgkvStore(db, index=STORE_INDEX), db.memory
    nearest = [0.5, 1.0, 0.25]
    for name, run in (
        ("get", lambda: store.get(("users", "bob"), "tea")),
        ("get note", lambda: store.get(("notes", "1"), "note 1")),
        ("get and refresh", lambda: store.get(("notes", LABEL), golden.LONG)),
        ("get long", lambda: memory.get(("users", golden.LONG), golden.LONG)),
        ("search", lambda: memory.search((), limit=100)),
        ("search in", lambda: store.search(("notes",), limit=3, offset=1)),
        ("filter", lambda: memory.search((), filter={"n": {"$gt": 2}})),
        ("nearest", lambda: memory.search((), vector=nearest, limit=100)),
        ("nearest in", lambda: store.search(("notes",), query="note", limit=2)),
        (
            "nearest of filtered",
            lambda: memory.search((), vector=nearest, filter={"n": {"$gte": 0}}, limit=9),
        ),
        ("field", lambda: memory.search((), filter={"who": {"$in": ["bob", "eve"]}})),
        ("explain", lambda: memory.explain((), filter={"n": {"$lt": 3}})),
        ("fields", lambda: memory.fields),
        ("words", lambda: memory.search((), text="some words")),
        ("words in", lambda: memory.search(("words",), text="words", vector=nearest)),
        ("namespaces", memory.namespaces),
        ("namespaces in", lambda: store.list_namespaces(prefix=("notes",), max_depth=1)),
        ("due", memory.has_due),
    ):
        yield Call(f"store {name}", "memory", run)


def _reads_of_cache(db: lgkv.Database) -> Iterator[Call]:
    cache: LgkvCache[Any] = LgkvCache(db)
    keys: Sequence[tuple[tuple[str, ...], str]] = [
        (("node", "a"), "plain"),
        (("node", "a"), golden.LONG),
        (("node", "b"), "graph"),
    ]
    for space, key in keys:
        yield Call(
            f"cache payload {key[:9]}",
            "cache",
            lambda full=(space, key): db.cache.get_many([full]),
        )
    for space, key in keys[:2]:
        yield Call(f"cache get {key[:9]}", "cache", lambda s=space, k=key: db.cache.get(s, k))
    yield Call("cache get for the graph", "cache", lambda: cache.get(keys[2:]))


def writes(db: lgkv.Database) -> Iterator[Call]:
    """Yield calls that write: on top of what there is, and to the end of it."""
    saver, store = LgkvSaver(db), LgkvStore(db, index=STORE_INDEX)
    tops = {"chat": 4, "fork": 14, "wide": 24, "changes": 34, "наследство": 4}
    for thread_id, top in tops.items():
        yield from _writes_of_thread(saver, thread_id, top)
    for thread_id in PLAIN_THREADS:
        yield Call(
            f"prune {thread_id[:9]}",
            thread_id,
            lambda thread_id=thread_id: db.checkpoints.prune([thread_id]),
        )
    for name, run in (
        ("put", lambda: store.put(("notes", "1"), "note 1", {"text": "again"})),
        ("put new", lambda: store.put(("notes", "new"), "new", {"text": "new"})),
        ("delete", lambda: store.delete(("users", "bob"), "tea")),
        ("delete long", lambda: store.delete(("notes", LABEL), golden.LONG)),
        ("put words", lambda: db.memory.put(("words",), "said", {"who": "al"}, text="other words")),
        ("delete words", lambda: db.memory.delete(("words",), "also")),
        ("declare", lambda: db.memory.declare_fields({"n": float, "tags": str})),
        ("sweep", db.memory.sweep),
    ):
        yield Call(f"store {name}", "memory", run)
    yield Call("cache set", "cache", lambda: db.cache.set(("node", "a"), "plain", 1))
    yield Call("delete runs", EVERYWHERE, lambda: saver.delete_for_runs(["run 2", "last"]))
    yield Call("prune all", EVERYWHERE, lambda: saver.prune(list(tops)))
    yield from reads(db)
    for thread_id in (*tops, *PLAIN_THREADS):
        yield Call(
            f"delete {thread_id[:10]}",
            thread_id,
            lambda thread_id=thread_id: db.checkpoints.delete_thread(thread_id),
        )
    yield Call("cache clear a", "cache", lambda: db.cache.clear(("node", "a")))
    yield Call("cache clear", "cache", db.cache.clear)


def _writes_of_thread(saver: LgkvSaver, thread_id: str, top: int) -> Iterator[Call]:
    ns = "child:1" if thread_id == "fork" else ""
    values: dict[str, Any] = {
        "messages": golden.messages(5),
        "said": ["y" * 300, "trimmed", "more"],
        "facts": {f"fact {at}": f"{at} " * 250 for at in range(13)},
        "items": ["seed", "other"],
    }
    top_config, number = golden.config_of(thread_id, ns, top), top + 5
    versions = dict.fromkeys(values, number)
    for name, run in (
        ("put on top of", lambda: golden.put(saver, top_config, number, values, versions)),
        (
            "put aside of",
            lambda: golden.put(saver, golden.config_of(thread_id, ns), 90, values, versions),
        ),
        ("put writes of", lambda: saver.put_writes(top_config, [("messages", "w" * 400)], "b")),
        ("put first writes of", lambda: saver.put_writes(top_config, [("n", 1)], "new")),
        ("get of", lambda: saver.get_tuple(golden.config_of(thread_id, ns))),
        ("copy", lambda: saver.copy_thread(thread_id, f"copy of {thread_id}")),
        ("read the copy of", lambda: saver.get_tuple(golden.config_of(f"copy of {thread_id}", ns))),
        ("prune", lambda: saver.prune([thread_id], keep_last=2)),
        ("list", lambda: list(saver.list(golden.config_of(thread_id, ns)))),
    ):
        yield Call(f"{name} {thread_id}", thread_id, run)
