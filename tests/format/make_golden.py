"""The calls that write the golden file, and what is read of it.

The calls cover every kind of record and every form of a channel's value. Clock and random
numbers stand still, so the same code writes the same file. Run as a module it writes
`format-N.lgkv` and `format-N.json` anew, N being the format version:

    python -m tests.format.make_golden
"""

from __future__ import annotations

import datetime
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig

import lgkv
from lgkv.keys import unpack_uint
from lgkv.langgraph import LgkvCache, LgkvSaver
from lgkv.langgraph.serde import StrictSerializer
from lgkv.layout import FORMAT_VERSION, Kind, Table
from lgkv.memory import Put
from tests.invariants import all_records

__all__ = [
    "CONTENTS",
    "GOLDEN",
    "Clock",
    "contents",
    "records",
    "serialised",
    "standing_clock",
    "write_all",
]

GOLDEN: Final = Path(__file__).with_name(f"format-{FORMAT_VERSION}.lgkv")
CONTENTS: Final = GOLDEN.with_suffix(".json")

BEGIN: Final = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
SECOND_NS: Final = 1_000_000_000
LONG: Final = "long é\0" * 60
THREADS: Final = ("chat", "fork", "wide", "changes", "plain", "наследство", LONG)
NAMESPACES: Final = ("", "child:1")


@dataclass
class Clock:
    """A clock that stands until it is told to go on."""

    ns: int = int(BEGIN.timestamp()) * SECOND_NS

    def wait(self, seconds: int) -> None:
        self.ns += seconds * SECOND_NS


@contextmanager
def standing_clock() -> Iterator[Clock]:
    """Let time and random numbers be the same in every run."""
    clock = Clock()
    with (
        patch("time.time_ns", lambda: clock.ns),
        patch("os.urandom", lambda size: bytes(range(size))),
    ):
        yield clock


# --- writing -------------------------------------------------------------------------------


def write_all(path: str | Path, clock: Clock) -> None:
    """Make the calls on a new file."""
    with lgkv.open(path) as db:
        saver = LgkvSaver(db)
        for write in (chat, wide, changes):
            write(saver, clock)
        plain(db)
        saver.copy_thread("chat", "наследство")
        fork(saver)
        saver.delete_thread("gone")
        memory(db)
        cache(db)


def id_of(number: int) -> str:
    return f"1f0e6b00-0000-6000-8000-{number:012}"


def version_of(step: int) -> str:
    return f"{step:032}.{7:016}"


def config_of(thread_id: str, ns: str = "", number: int | None = None) -> RunnableConfig:
    configurable = {"thread_id": thread_id, "checkpoint_ns": ns}
    if number is not None:
        configurable["checkpoint_id"] = id_of(number)
    return {"configurable": configurable}


def put(
    saver: LgkvSaver,
    config: RunnableConfig,
    number: int,
    values: Mapping[str, Any],
    versions: Mapping[str, int],
    *,
    metadata: Mapping[str, Any] | None = None,
) -> RunnableConfig:
    """Store checkpoint `number`; new are the versions of this number."""
    all_versions = {name: version_of(step) for name, step in versions.items()}
    checkpoint: Any = {
        "v": 4,
        "id": id_of(number),
        "ts": BEGIN.isoformat(),
        "channel_values": dict(values),
        "channel_versions": all_versions,
        "versions_seen": {"__input__": {}, "node": dict(list(all_versions.items())[:1])},
        "updated_channels": None,
    }
    made: Any = {"source": "loop", "step": number, "run_id": f"run {number // 10}"}
    new: Any = {name: all_versions[name] for name, step in versions.items() if step == number}
    return saver.put(config, checkpoint, made | dict(metadata or {}), new)


def messages(count: int) -> list[BaseMessage]:
    made: list[BaseMessage] = []
    for turn in range(count):
        made.append(HumanMessage(f"What is {turn} and {turn}? " + "Please. " * 20, id=f"h{turn}"))
        call = {"name": "add", "args": {"a": turn, "b": turn}, "id": f"c{turn}"}
        made.append(AIMessage("", id=f"a{turn}", tool_calls=[call]))
        made.append(ToolMessage(str(2 * turn), tool_call_id=f"c{turn}", id=f"t{turn}"))
    return made


def serialised() -> str:
    """Return a digest of what LangChain and LangGraph make of a message."""
    return hashlib.sha256(StrictSerializer().dumps_typed(messages(1))[1]).hexdigest()


def chat(saver: LgkvSaver, clock: Clock) -> None:
    """A list that grows, and pending writes; a large one that a checkpoint shares."""
    config = config_of("chat")
    for step in (1, 2, 3, 4):
        values = {"messages": messages(step), "turn": step}
        config = put(saver, config, step, values, {"messages": step, "turn": step})
        saver.put_writes(config, [("messages", messages(1)), ("turn", step)], "b", "~path")
        clock.wait(1)
    saver.put_writes(config, [("__interrupt__", "why?"), ("turn", None)], "a")
    large = "a text of its own. " * 900
    saver.put_writes(config, [("report", large)], "c")
    values = {"messages": messages(4), "turn": 4, "report": large}
    put(saver, config, 5, values, {"messages": 4, "turn": 4, "report": 5})


def fork(saver: LgkvSaver) -> None:
    """Two checkpoints that build on one, in a checkpoint namespace; a trimmed list; deletions."""
    said = ["x" * 300, "y" * 300]
    begin = put(saver, config_of("fork", "child:1"), 11, {"said": said}, {"said": 11})
    for number in (12, 13):
        put(saver, begin, number, {"said": [*said, f"branch {number}"]}, {"said": number})
    end = config_of("fork", "child:1", 13)
    put(saver, end, 14, {"said": [said[1], "trimmed"]}, {"said": 14}, metadata={"run_id": "last"})
    put(saver, config_of("fork"), 15, {"n": 1}, {"n": 15}, metadata={"run_id": "unwanted"})
    saver.delete_for_runs(["unwanted"])
    put(saver, config_of("gone"), 16, {"n": 1}, {"n": 16})


def wide(saver: LgkvSaver, clock: Clock) -> None:
    """Frames; a dict with a patch and a new key-frame; opaque, inline and empty values."""
    facts: dict[str, Any] = {f"fact {at}": f"{at} " * 250 for at in range(12)}
    document = "a text of its own. " * 50
    names = [f"channel {at:02}" for at in range(18)]
    values: dict[str, Any] = {name: at for at, name in enumerate(names)}
    values |= {"facts": facts, "document": document}
    versions = dict.fromkeys(values, 21)
    config = put(saver, config_of("wide"), 21, values, versions)
    clock.wait(1)
    values["facts"] = {**{key: facts[key] for key in list(facts)[1:]}, "new": {"nested": [1, None]}}
    config = put(saver, config, 22, values, versions | {"facts": 22, "document": 22})
    del values["channel 03"]
    values["channel 04"] = {"inline": True}
    versions |= {"facts": 22, "document": 22, "channel 03": 23, "channel 04": 23}
    config = put(saver, config, 23, values, versions)
    values["one more"] = 1.5
    values["facts"] = dict(reversed(values["facts"].items()))
    put(saver, config, 24, values, versions | {"one more": 24, "facts": 24})


def changes(saver: LgkvSaver, clock: Clock) -> None:
    """A channel kept as changes, pruned: carriers remain."""
    config = put(
        saver, config_of("changes"), 31, {"items": ["seed"], "n": 0}, {"items": 31, "n": 31}
    )
    for number in (32, 33, 34):
        saver.put_writes(config, [("items", [f"item {number}"])], f"task {number}")
        clock.wait(1)
        counters = {"counters_since_delta_snapshot": {"items": [number - 31, number - 31]}}
        versions = {"items": number, "n": 31}
        config = put(saver, config, number, {"n": 0}, versions, metadata=counters)
    saver.prune(["changes"])


def plain(db: lgkv.Database) -> None:
    """Plain data, with ids and versions of every form, under a long name."""
    array = np.arange(6, dtype="float32").reshape(2, 3)
    versions = {"array": 3, "bytes": 1.5, LONG: "a", "text": version_of(1)}
    values = {"array": array, "bytes": b"\0\xff", LONG: {"deep": [[]]}, "text": "é\0"}
    for thread_id, checkpoint_id in (("plain", "not a UUID"), (LONG, LONG)):
        checkpoint = {
            "v": 4,
            "id": checkpoint_id,
            "channel_values": values,
            "channel_versions": versions,
        }
        db.checkpoints.put(thread_id, checkpoint, metadata={"run_id": LONG, "big": 2**70})
        db.checkpoints.put_writes(thread_id, checkpoint_id, "task", [("array", array)])


def memory(db: lgkv.Database) -> None:
    put_item = db.memory.put
    put_item(("users", "bob"), "tea", {"likes": True, "since": BEGIN}, vectors=[1.0, 0.0, 0.5])
    put_item(("users", "bob"), "short", {"n": [1, 2.5]}, vectors=[0.0, 1.0, 0.0], ttl_seconds=60)
    put_item(("users", LONG), LONG, {"long": LONG})
    put_item(("gone", "away"), "item", {})
    db.memory.delete(("gone", "away"), "item")
    put_item(("users", "bob"), "tea", {"likes": "green"}, vectors=[1.0, 0.0, 0.25])
    more = [Put(("more",), f"m{number}", {}, [1.0, number, 1.0]) for number in range(20)]
    db.memory.put_many(more)
    db.memory.delete(("more",), "m3")  # leaves a vector that is marked dead
    db.vectors.configure(exact_floats=0)
    if not db.vectors.wait(60):
        raise TimeoutError("the graph was not built")
    db.memory.declare_fields({"likes": str, "meta.rank": int})
    for rank in range(3):
        value = {"likes": "black", "meta": {"rank": rank}}
        put_item(("users", "eve"), f"note {rank}", value, text=["Black tea, please", f"nº {rank}"])
    db.memory.delete(("users", "eve"), "note 1")


def cache(db: lgkv.Database) -> None:
    db.cache.set(("node", "a"), "plain", [1, {"b": b"c"}], ttl_seconds=60)
    db.cache.set(("node", "a"), LONG, "long key")
    LgkvCache[Any](db).set({(("node", "b"), "graph"): ({"said": messages(1)[0]}, None)})


# --- reading -------------------------------------------------------------------------------


def contents(db: lgkv.Database) -> dict[str, Any]:
    """Return all that the file gives back, as JSON has it."""
    saver = LgkvSaver(db)
    found: dict[str, Any] = {
        "threads": [[info.thread_id, info.checkpoints] for info in db.threads(limit=100)],
        "checkpoints": {name: list(checkpoints(saver, name)) for name in THREADS},
        "changes": saver.get_delta_channel_history(
            config=config_of("changes", number=34), channels=["items"]
        ),
        "namespaces": db.memory.namespaces(),
        "items": [
            [i.namespace, i.key, i.value, i.created_at, i.updated_at]
            for i in db.memory.search((), limit=100)
        ],
        "ranked": [
            [i.key, round(i.score or 0, 6)]
            for i in db.memory.search(("users",), vector=[1.0, 0.0, 0.0])
        ],
        "said": [[i.key, round(i.score or 0, 6)] for i in db.memory.search((), text="TEA nº 2")],
        "declared": db.memory.fields,
        "liked": [i.key for i in db.memory.search((), filter={"likes": {"$gte": "b"}})],
        "cached": [db.cache.get(("node", "a"), key) for key in ("plain", LONG)],
        "graph cached": LgkvCache[Any](db).get([(("node", "b"), "graph")])[("node", "b"), "graph"],
    }
    as_json: dict[str, Any] = json.loads(json.dumps(found, default=described))
    return as_json


def checkpoints(saver: LgkvSaver, thread_id: str) -> Iterator[Any]:
    """Yield the checkpoints of a thread, as plain data where they are."""
    if thread_id in ("plain", LONG):
        yield from saver._db.checkpoints.list(thread_id)
        return
    for namespace in NAMESPACES:
        for found in saver.list(config_of(thread_id, namespace)):
            yield [*found, saver.get_tuple(found.config) == found]


def described(value: Any) -> Any:
    """Return what JSON has no form for in terms that it has."""
    if isinstance(value, BaseMessage):
        return [value.type, value.id, value.content, getattr(value, "tool_calls", None)]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.tolist()]
    if isinstance(value, bytes):
        return value.hex(" ")
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    return {each.name: getattr(value, each.name) for each in fields(value)}


def records(db: lgkv.Database) -> dict[str, str]:
    """Return the bodies of all records, by table and key.

    How much space a thread takes is left out: it depends on the version of zstd.
    """
    found = {}
    with db._connection.snapshot() as snapshot:
        for table in Table:
            for key, body, _ in all_records(snapshot, table):
                of_thread = table is Table.THREADS and key[unpack_uint(key, 0)[1]] == Kind.THREAD
                kept = body[:24] + body[32:] if of_thread else body
                found[f"{table.label} {key.hex(' ')}"] = kept.hex(" ")
    return found


# --- the files -----------------------------------------------------------------------------


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, standing_clock() as clock:
        path = Path(folder) / "made.lgkv"
        write_all(path, clock)
        with lgkv.open(path, mode="r") as db:
            found = {"serialised": serialised()} | contents(db)
            db.backup(GOLDEN, overwrite=True)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    CONTENTS.write_text(text + "\n", encoding="utf-8")
    print(f"{GOLDEN}: {GOLDEN.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
