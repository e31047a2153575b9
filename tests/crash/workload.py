"""What a worker writes, step by step, and what a file must hold after each of its steps.

A worker has a *lane*: a thread, a namespace of items and a cache namespace of its own. Turn
`n // len(STEPS)` of a lane is a checkpoint with a list that grows and is trimmed, its pending
writes, items that replace and delete others, a cache entry and a pruning, each one call that
is one commit. So the step that came last says all that the lane holds, and old pages are
used again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.store.base import PutOp

import lgkv
from lgkv.langgraph import LgkvSaver, LgkvStore

__all__ = ["STEPS", "expected", "last_step", "observed", "take_step"]

KEPT: Final = 4
"""So many checkpoints stay when a turn prunes."""
WINDOW: Final = 30
"""So long is the list."""
KEYS: Final = 7
"""So many items and cache entries are written in turn."""


# --- the values ----------------------------------------------------------------------------


def values_of(turn: int) -> dict[str, Any]:
    """Return the channels of a checkpoint: a list, a dict, and a text that changes at times."""
    said = [f"said in turn {at} " * (1 + at % 9) for at in range(max(0, turn - WINDOW), turn + 1)]
    facts = {f"fact {key}": "x" * (turn - (turn - key) % 10 + 10) for key in range(10)}
    return {"said": said, "facts": facts, "text": f"{turn // 5} " * 400}


def versions_of(turn: int) -> dict[str, str]:
    at = {"said": turn + 1, "facts": turn + 1, "text": turn // 5 + 1}
    return {name: f"{count:032}.{count:016}" for name, count in at.items()}


def item_of(turn: int) -> dict[str, Any]:
    size = 9000 if turn % 4 == 0 else 50 + turn % 100  # pages of its own at times
    return {"turn": turn, "body": "b" * size}


def write_of(turn: int) -> list[Any]:
    return [turn, "w" * (turn % 50)]


def checkpoint_id(lane: int, turn: int) -> str:
    return f"1f0e6b00-0000-6000-8{lane:03}-{turn:012}"


def config_of(lane: int, turn: int | None = None) -> RunnableConfig:
    configurable = {"thread_id": f"lane {lane}", "checkpoint_ns": ""}
    if turn is not None and turn >= 0:
        configurable["checkpoint_id"] = checkpoint_id(lane, turn)
    return {"configurable": configurable}


# --- the steps -----------------------------------------------------------------------------


def put_checkpoint(db: lgkv.Database, lane: int, turn: int) -> None:
    checkpoint: Any = {
        "v": 4,
        "id": checkpoint_id(lane, turn),
        "ts": "2026-01-01T00:00:00+00:00",
        "channel_values": values_of(turn),
        "channel_versions": versions_of(turn),
        "versions_seen": {},
        "updated_channels": None,
    }
    before = versions_of(turn - 1) if turn else {}
    new: Any = {name: at for name, at in versions_of(turn).items() if before.get(name) != at}
    LgkvSaver(db).put(config_of(lane, turn - 1), checkpoint, {"step": turn}, new)


def put_writes(db: lgkv.Database, lane: int, turn: int) -> None:
    writes = [("said", write_of(turn)), ("facts", None)]
    LgkvSaver(db).put_writes(config_of(lane, turn), writes, "task")


def put_item(db: lgkv.Database, lane: int, turn: int) -> None:
    vector = [float(turn % 5), 1.0, 0.0]
    db.memory.put((f"{lane}", "one"), f"{turn % KEYS}", item_of(turn), vectors=vector)


def put_items(db: lgkv.Database, lane: int, turn: int) -> None:
    """Put two items and delete two others in one commit."""
    space = (f"{lane}", "many")
    LgkvStore(db).batch(
        [
            PutOp(space, f"left {turn}", item_of(turn)),
            PutOp((*space, "deep"), f"right {turn}", {"turn": turn}),
            PutOp(space, f"left {turn - KEYS}", None),
            PutOp((*space, "deep"), f"right {turn - KEYS}", None),
        ]
    )


def set_cached(db: lgkv.Database, lane: int, turn: int) -> None:
    db.cache.set((f"{lane}",), f"{turn % KEYS}", item_of(turn + 1))


def prune(db: lgkv.Database, lane: int, turn: int) -> None:  # noqa: ARG001  a step as any other
    LgkvSaver(db).prune([f"lane {lane}"], keep_last=KEPT)


STEPS: Final[list[Callable[[lgkv.Database, int, int], None]]] = [
    put_checkpoint,
    put_writes,
    put_item,
    put_items,
    set_cached,
    prune,
]


def take_step(db: lgkv.Database, lane: int, number: int) -> None:
    """Make the call of step `number`, the first being 0; it returns once it is durable."""
    turn, step = divmod(number, len(STEPS))
    STEPS[step](db, lane, turn)


# --- what there is -------------------------------------------------------------------------


def expected(lane: int, number: int) -> dict[str, Any]:
    """Return what a lane holds after step `number`; nothing after step -1."""

    def turns(step: Callable[..., None]) -> int:
        """Return in how many turns a step was taken."""
        return (number + len(STEPS) - STEPS.index(step)) // len(STEPS)

    last = turns(put_checkpoint)
    first = max(0, turns(prune) - KEPT)
    written = turns(put_writes)
    one, many, cached = turns(put_item), turns(put_items), turns(set_cached)
    return {
        "checkpoints": [
            [
                checkpoint_id(lane, turn),
                turn,
                values_of(turn),
                [write_of(turn), None] if turn < written else [],
            ]
            for turn in reversed(range(first, last))
        ],
        "one": {f"{t % KEYS}": item_of(t) for t in range(max(0, one - KEYS), one)},
        "ranked": min(one, KEYS),
        "many": {f"left {t}": item_of(t) for t in range(max(0, many - KEYS), many)},
        "deep": {f"right {t}": {"turn": t} for t in range(max(0, many - KEYS), many)},
        "cached": {f"{t % KEYS}": item_of(t + 1) for t in range(max(0, cached - KEYS), cached)},
    }


def observed(db: lgkv.Database, lane: int) -> dict[str, Any]:
    """Return what the file holds of a lane."""
    found = db.memory.search((f"{lane}", "many"), limit=1000)
    ranked = db.memory.search((f"{lane}", "one"), vector=[0.0, 1.0, 0.0], limit=1000)
    cached = {str(key): db.cache.get((f"{lane}",), str(key)) for key in range(KEYS)}
    return {
        "checkpoints": [
            [
                each.config["configurable"]["checkpoint_id"],
                each.metadata["step"],
                each.checkpoint["channel_values"],
                [value for _, _, value in each.pending_writes or []],
            ]
            for each in LgkvSaver(db).list(config_of(lane))
        ],
        "one": {i.key: i.value for i in db.memory.search((f"{lane}", "one"), limit=1000)},
        "ranked": len(ranked),
        "many": {i.key: i.value for i in found if len(i.namespace) == 2},
        "deep": {i.key: i.value for i in found if len(i.namespace) == 3},
        "cached": {key: value for key, value in cached.items() if value is not None},
    }


def last_step(db: lgkv.Database, lane: int) -> int | None:
    """Return the number of the lane's last step, -1 for none; None if it is not whole.

    Steps that change nothing, as the first prunings, count as taken.
    """
    found = observed(db, lane)
    turns = [turn for _, turn, *_ in found["checkpoints"]]
    begin = len(STEPS) * max(turns) if turns else -len(STEPS)
    for number in reversed(range(begin, begin + len(STEPS))):
        if found == expected(lane, number):
            return number
    return None
