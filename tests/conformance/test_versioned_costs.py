"""What a step costs: elements serialised, pieces, extents and bytes, all of them counts."""

from __future__ import annotations

import itertools
import math
import random
import string
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.serde import jsonplus
from langgraph.graph import START, MessagesState, StateGraph

import lgkv
from lgkv.batch import Batch
from lgkv.checkpoints.values import PIECE_BYTES
from lgkv.langgraph import LgkvSaver, StrictSerializer
from lgkv.langgraph.serde import SerdeCodec
from lgkv.layout import Kind, Table
from tests.conformance.checkpoints import put
from tests.conformance.stored import StoredThread, audit

_random = random.Random(7)


def noise(size: int) -> str:
    """Return text that hardly compresses."""
    return "".join(_random.choices(string.ascii_letters + string.digits, k=size))


def message(number: Any, size: int = 300) -> HumanMessage:
    return HumanMessage(noise(size), id=f"m{number}")


def entry(number: Any) -> dict[str, Any]:
    return {"role": "user", "content": noise(300), "number": number}


@pytest.fixture
def db(path: str) -> Iterator[lgkv.Database]:
    """Give a database that does not wait for the disk."""
    with lgkv.open(path, durability="interval") as opened:
        yield opened


@pytest.fixture
def serialised(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what the serialiser is given: elements of lists and dicts, models, and payloads."""
    counted: Counter[str] = Counter()
    dumps, default = StrictSerializer.dumps_typed, jsonplus._msgpack_default
    decode = SerdeCodec.decode

    def counting_dumps(self: StrictSerializer, value: Any) -> tuple[str, bytes]:
        counted["elements"] += len(value) if type(value) in (list, dict) else 1
        return dumps(self, value)

    def counting_default(value: Any) -> Any:
        counted["models"] += hasattr(value, "model_dump")
        return default(value)

    def counting_decode(self: SerdeCodec, payload: tuple[str, bytes]) -> Any:
        counted["loads"] += 1
        return decode(self, payload)

    monkeypatch.setattr(StrictSerializer, "dumps_typed", counting_dumps)
    monkeypatch.setattr(SerdeCodec, "decode", counting_decode)
    monkeypatch.setattr(jsonplus, "_msgpack_default", counting_default)
    return counted


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the records and the bytes that are written, by kind."""
    counted: Counter[str] = Counter()

    def counting(put_record: Callable[..., int]) -> Callable[..., int]:
        def put(
            self: Batch, table: Table, key: bytes, body: bytes, *old_bytes: int, **options: bool
        ) -> int:
            if table is Table.THREADS:
                kind = Kind(key[2]).name  # the thread's number takes two bytes here
                counted[kind] += 1
                counted[f"{kind} bytes"] += len(body)
            return put_record(self, table, key, body, *old_bytes, **options)

        return put

    for name in ("put", "put_over"):
        monkeypatch.setattr(Batch, name, counting(getattr(Batch, name)))
    return counted


class Thread:
    """A thread whose one channel is put again and again."""

    def __init__(self, db: lgkv.Database, value: Any) -> None:
        self.db, self.saver = db, LgkvSaver(db)
        self.numbers = itertools.count(1)
        self.config = self.put(value, None)

    def put(self, value: Any, after: Any = ...) -> Any:
        """Put a value after a checkpoint, the last one if none is given; return the config."""
        parent = self.config if after is ... else after
        number = f"{next(self.numbers)}"
        self.config = put(self.saver, parent, {"a": value}, {"a": number})
        return self.config

    @property
    def stored(self) -> StoredThread:
        """What is in the file."""
        found = audit(self.db)
        assert found is not None
        return found


# --- lists: what is serialised ---------------------------------------------------------------

EDITS: dict[str, tuple[Callable[[list[Any], Any], list[Any]], int]] = {
    "append": (lambda items, new: [*items, new], 1),
    "append two": (lambda items, new: [*items, new, new], 2),
    "append and trim": (lambda items, new: [*items[7:], new], 1),
    "trim the front": (lambda items, _: items[11:], 0),
    "keep the last 3": (lambda items, _: items[-3:], 0),
    "trim the end": (lambda items, _: items[:-5], 0),
    "replace the first": (lambda items, new: [new, *items[1:]], 1),
    "replace the middle": (lambda items, new: [*items[:9], new, *items[10:]], 1),
    "replace the last": (lambda items, new: [*items[:-1], new], 1),
    "insert at the front": (lambda items, new: [new, *items], 1),
    "insert in the middle": (lambda items, new: [*items[:9], new, *items[9:]], 1),
    "remove the first": (lambda items, _: items[1:], 0),
    "remove in the middle": (lambda items, _: [*items[:9], *items[13:]], 0),
    "remove here and there": (lambda items, _: [*items[:3], *items[5:9], *items[12:]], 0),
    "summarise": (lambda items, new: [new, *items[-4:]], 1),
    "move the first to the end": (lambda items, _: [*items[1:], items[0]], 0),
    "swap halves": (lambda items, _: items[10:] + items[:10], 0),
    "nothing": (lambda items, _: list(items), 0),
    "empty": (lambda *_: [], 0),
}

MAKERS: dict[str, Callable[[Any], Any]] = {
    "messages": message,
    "dicts without id": entry,
    "texts": lambda _: noise(300),
    "lists": lambda number: ["row", number, noise(300)],
    "numbers": lambda number: 10**15 + hash(number) % 10**9,
}


@pytest.mark.parametrize("memory", ["warm", "cold"])
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("edit", EDITS)
def test_edit_serialises_only_what_is_new(
    db: lgkv.Database, serialised: Counter[str], edit: str, kind: str, memory: str
) -> None:
    make, (change, new) = MAKERS[kind], EDITS[edit]
    items = [make(number) for number in range(100 if kind == "numbers" else 20)]
    thread = Thread(db, items)
    pieces = {(piece.chain, piece.first): piece for piece in thread.stored.pieces}
    if memory == "cold":
        db._connection.shelf.clear()
    value = change(items, make("new"))
    serialised.clear()
    thread.put(value)
    expected = new or (not value)  # an empty list is serialised whole
    assert serialised["elements"] <= expected
    assert serialised["models"] <= new
    kept = thread.stored.pieces
    assert sum(piece.size for piece in kept) <= sum(p.size for p in pieces.values()) + new


def test_message_of_a_class_of_somebodys_own_is_kept_when_the_front_is_trimmed(
    db: lgkv.Database, written: Counter[str]
) -> None:
    class Own(HumanMessage):
        pass

    items: list[Any] = [Own(noise(400), id=f"{number}") for number in range(20)]
    thread = Thread(db, items)
    before = written["PIECE bytes"]
    thread.put([*items[5:], Own(noise(400), id="new")])
    assert written["PIECE bytes"] - before < 1_500


def test_same_message_elsewhere_in_a_long_list_is_found_at_once(
    db: lgkv.Database, serialised: Counter[str]
) -> None:
    items = [message(number, 30) for number in range(300)]
    thread = Thread(db, items)
    serialised.clear()
    thread.put([items[0], *items[200:]])  # what `trim_messages` leaves, the system message first
    assert serialised["elements"] == 0


def test_every_append_serialises_one_element(db: lgkv.Database, serialised: Counter[str]) -> None:
    items = [message(0)]
    thread = Thread(db, items)
    for number in range(1, 60):
        items = [*items, message(number)]
        serialised.clear()
        thread.put(items)
        assert serialised == {"elements": 1, "models": 1}


def test_whatever_was_put_is_compared_with_from_memory(
    db: lgkv.Database, serialised: Counter[str]
) -> None:
    items = [message(number) for number in range(20)]
    thread = Thread(db, items)
    for name, (change, _) in EDITS.items():
        items = change(items, message(name)) or items
        serialised.clear()
        thread.put(items)
        items = [*items, message(f"after {name}"), *(message(n) for n in range(20 - len(items)))]
        thread.put(items)
        thread.put(items[:-1])
        assert serialised["loads"] == 0, name


def test_every_append_to_what_was_read_serialises_one_element(
    db: lgkv.Database, serialised: Counter[str]
) -> None:
    thread = Thread(db, [message(0)])
    for number in range(1, 40):
        found = thread.saver.get_tuple(thread.config)
        assert found is not None
        items = found.checkpoint["channel_values"]["a"]
        serialised.clear()
        thread.put([*items, message(number)])
        assert serialised == {"elements": 1, "models": 1}


# --- dicts: what is serialised ---------------------------------------------------------------

HOW = list(itertools.product([message, entry], ["warm", "cold"]))

DICT_EDITS: dict[str, tuple[Callable[[dict[str, Any], Any], dict[str, Any]], int]] = {
    "change one": (lambda entries, new: {**entries, "k7": new}, 1),
    "add one": (lambda entries, new: {**entries, "new": new}, 1),
    "delete one": (lambda entries, _: {k: v for k, v in entries.items() if k != "k7"}, 0),
    "delete and add": (
        lambda entries, new: {**{k: v for k, v in entries.items() if k != "k7"}, "new": new},
        1,
    ),
    "change three": (lambda entries, new: {**entries, "k1": new, "k5": new, "k9": new}, 3),
    "nothing": (lambda entries, _: dict(entries), 0),
}


@pytest.mark.parametrize("how", HOW, ids=lambda how: f"{how[0].__name__} {how[1]}")
@pytest.mark.parametrize("edit", DICT_EDITS)
def test_edit_of_a_dict_serialises_only_what_is_new(
    db: lgkv.Database,
    serialised: Counter[str],
    written: Counter[str],
    edit: str,
    how: tuple[Callable[[Any], Any], str],
) -> None:
    (make, memory), (change, new) = how, DICT_EDITS[edit]
    entries = {f"k{number}": make(number) for number in range(100)}
    thread = Thread(db, entries)
    if memory == "cold":
        db._connection.shelf.clear()
    value = change(entries, make("new"))
    serialised.clear()
    written.clear()
    thread.put(value)
    assert serialised["elements"] <= new + 1  # the deleted keys are one more, a list
    assert serialised["models"] == (new if make is message else 0)
    assert written["PIECE bytes"] <= 700 * max(new, 1)


def test_dict_whose_entries_change_in_turn_costs_at_most_twice_its_changes(
    db: lgkv.Database, written: Counter[str]
) -> None:
    entries = {f"k{number}": noise(1_000) for number in range(300)}
    thread = Thread(db, entries)
    before = thread.stored.payload_bytes
    for number in range(900):
        entries = {**entries, f"k{number % 300}": noise(1_000)}
        thread.put(entries)
    assert thread.stored.payload_bytes - before <= 2 * 900 * 1_010
    assert written["PIECE bytes"] <= 900 * 1_010 * (math.log2(PIECE_BYTES / 1_000) + 2)
    thread.saver.prune(["t"])
    assert thread.stored.payload_bytes <= 3 * 300 * 1_010 + 2 * PIECE_BYTES


def test_dict_that_grows_entry_by_entry_costs_about_its_changes(
    db: lgkv.Database, written: Counter[str]
) -> None:
    entries: dict[str, Any] = {}
    thread = Thread(db, entries)
    for number in range(400):
        entries = {**entries, f"k{number}": noise(500)}
        thread.put(entries)
    assert thread.stored.payload_bytes <= 3 * 400 * 510
    assert written["PIECE bytes"] <= 400 * 510 * (math.log2(PIECE_BYTES / 500) + 2)


# --- pieces and extents ----------------------------------------------------------------------


def test_pieces_are_merged_and_each_element_is_rewritten_a_few_times(
    db: lgkv.Database, written: Counter[str]
) -> None:
    items = [noise(100)]
    thread = Thread(db, items)
    written.clear()
    for _ in range(1_000):
        items = [*items, noise(100)]
        thread.put(items)
    [chain] = thread.stored.chains
    pieces = thread.stored.pieces_in(chain)
    size = 102 * len(items)
    assert len(pieces) <= size / PIECE_BYTES * 2 + math.log2(PIECE_BYTES / 100) + 2
    assert written["PIECE bytes"] / size <= math.log2(PIECE_BYTES / 100) + 2
    assert thread.stored.extents <= len(thread.stored.versions)


def test_large_elements_are_not_written_again(db: lgkv.Database, written: Counter[str]) -> None:
    items = [noise(20_000)]
    thread = Thread(db, items)
    for _ in range(20):
        items = [*items, noise(20_000)]
        thread.put(items)
    assert written["PIECE bytes"] <= 1.01 * 20_000 * 21
    assert len(thread.stored.pieces) == 21


def test_alternating_appends_on_two_branches_cost_one_extent_a_step(db: lgkv.Database) -> None:
    trunk = [message(number, 40) for number in range(20)]
    thread = Thread(db, trunk)
    branches: list[tuple[Any, list[Any]]] = [(thread.config, trunk), (thread.config, trunk)]
    for number in range(1_000):
        config, items = branches[number % 2]
        items = [*items, message(f"b{number}", 40)]
        branches[number % 2] = thread.put(items, config), items
    stored = thread.stored
    assert stored.extents <= 2 * 1_001
    assert len(stored.chains) == 2
    assert len(stored.pieces) <= 30
    for config, items in branches:
        found = thread.saver.get_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"]["a"] == items


@pytest.mark.parametrize("tried", [2, 3])
def test_every_step_tried_again_costs_a_bounded_number_of_extents(
    db: lgkv.Database, written: Counter[str], tried: int
) -> None:
    """A user who has each answer made anew goes on from the last one, a fork at every step."""
    items = [message(0, 100)]
    thread = Thread(db, items)
    config, steps = thread.config, 200
    for number in range(steps):
        for attempt in range(tried):
            grown = [*items, message(f"{number}.{attempt}", 100)]
            last = thread.put(grown, config)
        config, items = last, grown
    stored = thread.stored
    assert stored.extents <= 64 * len(stored.versions)
    assert written["PIECE bytes"] <= 10 * steps * tried * 250
    found = thread.saver.get_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"]["a"] == items


def test_keeping_the_last_ones_costs_one_element_a_step_and_pruning_frees_the_rest(
    db: lgkv.Database, serialised: Counter[str]
) -> None:
    items = [message(number) for number in range(10)]
    thread = Thread(db, items)
    serialised.clear()
    for number in range(10, 200):
        items = [*items[1:], message(number)]
        thread.put(items)
    assert serialised == {"elements": 190, "models": 190}
    assert thread.stored.extents == len(thread.stored.versions)
    assert sum(piece.size for piece in thread.stored.pieces) == 200
    thread.saver.prune(["t"])
    stored = audit(db)
    assert stored is not None
    assert sum(piece.size for piece in stored.pieces) <= 10 + 2 * PIECE_BYTES / 400


# --- opaque values ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [noise(5_000), noise(5_000).encode(), {1: noise(5_000)}], ids=type
)
def test_equal_opaque_value_under_a_new_version_is_stored_once(
    db: lgkv.Database, written: Counter[str], value: Any
) -> None:
    thread = Thread(db, value)
    written.clear()
    for _ in range(5):
        thread.put(value)
    assert written["PIECE"] == 0
    assert len(thread.stored.pieces) == 1
    thread.saver.prune(["t"])
    assert len(thread.stored.pieces) == 1


def test_large_opaque_value_is_written_once(db: lgkv.Database, written: Counter[str]) -> None:
    size, steps = 5_000_000, 4
    thread = Thread(db, _random.randbytes(size))
    for _ in range(steps - 1):
        thread.put(_random.randbytes(size))
    assert written["PIECE"] == steps
    assert written["PIECE bytes"] <= 1.001 * size * steps
    assert db.stats().used_bytes <= 1.1 * size * steps


def test_one_channel_of_many_that_changes_costs_about_what_one_channel_alone_does(
    db: lgkv.Database,
) -> None:
    sizes = []
    for thread_id, count in (("one", 1), ("hundred", 100)):
        saver = LgkvSaver(db)
        config: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
        values = {f"c{number}": noise(2_000) for number in range(count)}
        versions = dict.fromkeys(values, f"{1:032}.{0:016}")
        config = put(saver, config, values, versions)
        before = db.stats().used_bytes
        for number in range(200):
            name = f"c{number % count}"
            values = {**values, name: noise(2_000)}
            versions = {**versions, name: f"{number + 2:032}.{_random.randrange(10**16):016}"}
            config = put(saver, config, values, versions, new=[name])
        sizes.append(db.stats().used_bytes - before)
    assert sizes[1] <= 1.5 * sizes[0]


# --- a conversation, driven by the runtime ---------------------------------------------------


class Once(LgkvSaver):
    """A saver that adds up what its serialiser gives for each message and each write, once."""

    def __init__(self, db: lgkv.Database) -> None:
        super().__init__(db)
        self.once: dict[Any, int] = {}

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        for each in checkpoint["channel_values"].get("messages", [])[-2:]:
            self.once[each.id] = len(self.serde.dumps_typed(each)[1])
        return super().put(config, checkpoint, metadata, new_versions)

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        size = sum(len(self.serde.dumps_typed(value)[1]) for _, value in writes)
        self.once[len(self.once)] = size
        super().put_writes(config, writes, task_id, task_path)


def chat(saver: LgkvSaver) -> Any:
    def answer(_: MessagesState) -> dict[str, list[AnyMessage]]:
        return {"messages": [AIMessage(noise(600), response_metadata={"model": "m", "n": 1})]}

    builder = StateGraph(MessagesState)
    builder.add_node("model", answer)
    builder.add_edge(START, "model")
    return builder.compile(checkpointer=saver)


def sizes_of_a_chat(db: lgkv.Database, stops: list[int]) -> Iterator[tuple[int, int]]:
    saver = Once(db)
    graph, config = chat(saver), {"configurable": {"thread_id": "t"}}
    empty = db.stats().used_bytes
    for turn in range(1, stops[-1] + 1):
        graph.invoke({"messages": [HumanMessage(noise(400))]}, config)
        if turn in stops:
            yield db.stats().used_bytes - empty, sum(saver.once.values())


def test_conversation_costs_what_is_new_in_it(db: lgkv.Database) -> None:
    sizes = list(sizes_of_a_chat(db, [50, 200]))
    for used, once in sizes:
        assert used <= 2.5 * once
    assert math.log(sizes[1][0] / sizes[0][0]) / math.log(4) <= 1.05
    audit(db)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_long_conversation_costs_what_is_new_in_it(db: lgkv.Database) -> None:
    sizes = list(sizes_of_a_chat(db, [100, 1_000]))
    for used, once in sizes:
        assert used <= 2.5 * once
    assert math.log10(sizes[1][0] / sizes[0][0]) <= 1.05
    audit(db)
