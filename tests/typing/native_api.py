"""What a type checker sees of the API on plain data; mypy reads this, nothing runs it."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from typing_extensions import assert_type

import lgkv


def opening() -> None:
    """`open` takes any path and gives a context manager."""
    with lgkv.open("agent.lgkv") as db:
        assert_type(db, lgkv.Database)
    assert_type(
        lgkv.open(
            Path("agent.lgkv"),
            mode="w",
            durability="interval",
            interval_ms=20,
            map_size_bytes=1 << 30,
            lock_timeout_s=1.5,
        ),
        lgkv.Database,
    )
    lgkv.open("agent.lgkv", "r")  # type: ignore[call-arg]
    lgkv.open(b"agent.lgkv")  # type: ignore[arg-type]
    lgkv.open("agent.lgkv", readonly=True)  # type: ignore[call-arg]


def checkpoints(db: lgkv.Database, checkpoint: dict[str, Any]) -> None:
    """A checkpoint is a dict; what is stored comes back as a record with named fields."""
    db.checkpoints.put("thread", checkpoint, parent_id=None, metadata={"step": 1})
    db.checkpoints.put_writes("thread", "id", "task", [("messages", "hi")], task_path="~")
    stored = db.checkpoints.get("thread", namespace="", checkpoint_id="id")
    assert_type(stored, lgkv.StoredCheckpoint | None)
    len(stored.id)  # type: ignore[union-attr]
    if stored is not None:
        assert_type((stored.thread_id, stored.namespace, stored.id), tuple[str, str, str])
        assert_type(stored.parent_id, str | None)
        assert_type(stored.checkpoint, dict[str, Any])
        assert_type(stored.metadata, dict[str, Any])
        stored.id = "other"  # type: ignore[misc]
    assert_type(
        db.checkpoints.list("thread", filter={"source": "loop"}, limit=5),
        Iterator[lgkv.StoredCheckpoint],
    )
    db.checkpoints.prune(["thread"], keep_last=3, older_than=timedelta(days=30))
    db.checkpoints.delete_thread("thread")
    db.checkpoints.delete_runs(["run"])
    db.checkpoints.copy_thread("thread", "copy")
    db.checkpoints.put("thread", "checkpoint")  # type: ignore[arg-type]


def memory(db: lgkv.Database) -> None:
    """An item is a dict under a namespace, which is a tuple of labels."""
    db.memory.put(("facts", "u1"), "tea", {"text": "likes tea"}, ttl_seconds=60)
    item = db.memory.get(("facts", "u1"), "tea")
    assert_type(item, lgkv.StoredItem | None)
    if item is not None:
        assert_type((item.namespace, item.key), tuple[tuple[str, ...], str])
        assert_type(item.value, dict[str, Any])
        assert_type(item.score, float | None)
    assert_type(
        db.memory.search(("facts",), filter={"n": {"$gt": 1}}, limit=5, offset=5),
        list[lgkv.StoredItem],
    )
    assert_type(db.memory.namespaces(prefix=("facts",), max_depth=2), list[tuple[str, ...]])
    assert_type(db.memory.search((), text="tea", mode="keyword"), list[lgkv.StoredItem])
    db.memory.declare_fields({"user": str, "meta.rank": int})
    assert_type(db.memory.fields, dict[str, str])
    assert_type(db.memory.explain((), filter={"user": "u1"}), lgkv.SearchPlan)
    assert_type(db.memory.sweep(), int)
    db.memory.delete(("facts", "u1"), "tea")
    db.memory.get("facts", "tea")  # type: ignore[arg-type]
    db.memory.put(("facts",), "tea", "likes tea")  # type: ignore[arg-type]


def the_rest(db: lgkv.Database) -> None:
    """The node cache, the threads, the figures and the backup."""
    db.cache.set(("node",), "key", {"any": "value"}, ttl_seconds=60)
    assert_type(db.cache.get(("node",), "key"), Any)
    db.cache.clear()
    assert_type(db.threads(limit=5), Sequence[lgkv.ThreadInfo])
    assert_type(db.stats(), lgkv.Stats)
    db.backup("copy.lgkv", overwrite=True)
    db.close()


def errors(error: lgkv.LgkvError) -> None:
    """An error tells what it is about in attributes."""
    if isinstance(error, lgkv.CorruptionError):
        assert_type((error.database, error.key, error.reason), tuple[str, bytes | None, str])
    if isinstance(error, lgkv.ValueTooLargeError):
        assert_type((error.size, error.limit), tuple[int, int])
    invalid: type[ValueError] = lgkv.InvalidInputError
    full: type[lgkv.StorageError] = lgkv.MapFullError
    assert issubclass(invalid, lgkv.LgkvError)
    assert issubclass(full, lgkv.LgkvError)
