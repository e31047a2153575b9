"""The saver with every serialiser: what comes back, and what lies in the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send

import lgkv
from lgkv.errors import InvalidInputError
from lgkv.langgraph import LgkvSaver
from tests.conformance.checkpoints import checkpoint_of, config_of, id_of, ids_of, put


def records(db: lgkv.Database) -> dict[str, int]:
    return db.stats().records


class Untyped:
    """A serialiser of somebody's own, from before types."""

    def dumps(self, value: Any) -> bytes:
        return repr(value).encode()[::-1]

    def loads(self, raw: bytes) -> Any:
        return eval(raw[::-1].decode())


class Bytearrays:
    """A typed serialiser of somebody's own, which gives bytearrays and odd tags."""

    def dumps_typed(self, value: Any) -> tuple[str, bytes]:
        return "my tag+ü", bytearray(Untyped().dumps(value))

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        assert data[0] == "my tag+ü"
        return Untyped().loads(data[1])


def aes(serde: SerializerProtocol | None = None) -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(
        serde or JsonPlusSerializer(), key=b"0123456789abcdef"
    )


SERIALISERS: dict[str, Callable[[], Any]] = {
    "default": lambda: None,
    "permissive": JsonPlusSerializer,
    "strict": lambda: JsonPlusSerializer(allowed_msgpack_modules=None),
    "encrypted": aes,
    "encrypted strict": lambda: aes(lgkv_strict()),
    "untyped": Untyped,
    "bytearrays": Bytearrays,
}


def lgkv_strict() -> SerializerProtocol:
    from lgkv.langgraph import StrictSerializer

    return StrictSerializer()


@pytest.mark.parametrize("name", SERIALISERS)
def test_every_serialiser_brings_everything_back(db: lgkv.Database, name: str) -> None:
    saver = LgkvSaver(db, serde=SERIALISERS[name]())
    values = {"none": None, "text": "x", "raw": b"\x00\xff", "list": [1, {"a": None}], "empty": ""}
    config = put(saver, None, values, metadata={"who": "me", "n": 1})
    saver.put_writes(config, [("none", None), ("raw", b"\x01")], "task")
    for found in (saver.get_tuple(config), *saver.list(None, filter={"who": "me"})):
        assert found is not None
        assert found.checkpoint["channel_values"] == values
        assert found.checkpoint["versions_seen"] == {
            "__input__": {},
            "node": {"branch:to:node": "1.5"},
        }
        assert found.metadata == {"source": "loop", "step": 1, "who": "me", "n": 1}
        assert found.pending_writes == [("task", "none", None), ("task", "raw", b"\x01")]
    child = put(saver, config, {}, {"list": 1}, new=[])
    history = saver.get_delta_channel_history(config=child, channels=["list", "none"])
    assert history["list"] == {"writes": [], "seed": [1, {"a": None}]}
    assert history["none"] == {"writes": [("task", "none", None)], "seed": None}


@pytest.mark.parametrize("name", [name for name in SERIALISERS if name != "default"])
def test_serialiser_assigned_to_the_saver_is_used(db: lgkv.Database, name: str) -> None:
    saver = LgkvSaver(db)
    saver.serde = SERIALISERS[name]()
    config = put(saver, None, {"a": [1]}, metadata={"who": "me"})
    found = saver.get_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": [1]}
    assert found.metadata["who"] == "me"


def test_values_of_msgpack_come_back_as_its_serialiser_has_them(saver: LgkvSaver) -> None:
    values = {
        "tuple": (1, (2, "x")),
        "bytearray": bytearray(b"abc"),
        "bytes": b"abc",
        "set": {1, 2},
        "int keys": {1: "one"},
        "message": HumanMessage("hi", id="1"),
        "send": Send("node", {"x": 1}),
    }
    config = put(saver, None, values)
    saver.put_writes(config, list(values.items()), "task")
    found = saver.get_tuple(config)
    assert found is not None
    expected = {**values, "tuple": [1, [2, "x"]]}
    assert found.checkpoint["channel_values"] == expected
    assert type(found.checkpoint["channel_values"]["bytearray"]) is bytearray
    assert type(found.checkpoint["channel_values"]["bytes"]) is bytes
    assert found.pending_writes == [("task", name, value) for name, value in expected.items()]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="float32").reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype="int64").reshape(2, 3)),
        np.arange(20)[::3],
        np.array(5.0),
        np.array([], dtype="uint8"),
        np.array([1 + 2j]),
        np.array([True, False]),
        np.array([float("nan"), float("inf"), -0.0]),
    ],
    ids=str,
)
def test_numpy_arrays_come_back(saver: LgkvSaver, array: np.ndarray[Any, Any]) -> None:
    config = put(saver, None, {"a": array, "b": {"nested": [array]}})
    found = saver.get_tuple(config)
    assert found is not None
    for back in (
        found.checkpoint["channel_values"]["a"],
        found.checkpoint["channel_values"]["b"]["nested"][0],
    ):
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


SECRETS = [
    f"secret-{part}-0123456789"
    for part in ("value", "key", "write", "metadata", "config", "metakey", "seen")
]


def put_secrets(saver: LgkvSaver) -> None:
    config = config_of()
    config["metadata"] = {"user": SECRETS[4]}
    checkpoint = checkpoint_of({"a": [SECRETS[0], {SECRETS[1]: b"x"}]})
    checkpoint["versions_seen"] = {"node": {"a": SECRETS[6]}}
    stored = saver.put(config, checkpoint, {"note": SECRETS[3], SECRETS[5]: [1]}, {"a": 1})
    saver.put_writes(stored, [("a", SECRETS[2])], "task")


def in_file(db: lgkv.Database) -> list[str]:
    """Return those of the secrets that can be read in the file's bytes."""
    with open(db.stats().path, "rb") as file:
        raw = file.read()
    return [secret for secret in SECRETS if secret.encode() in raw]


class Masking(JsonPlusSerializer):
    """Somebody's own encryption, by way of a subclass."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        kind, raw = super().dumps_typed(obj)
        return kind, bytes(byte ^ 0x5A for byte in raw)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return super().loads_typed((data[0], bytes(byte ^ 0x5A for byte in data[1])))


@pytest.mark.parametrize(
    "make", [aes, lambda: aes(lgkv_strict()), Masking], ids=["aes", "strict aes", "own"]
)
def test_nothing_of_values_or_metadata_is_in_clear_under_encryption(
    tmp_path: Path, make: Callable[[], Any]
) -> None:
    with lgkv.open(tmp_path / "a.lgkv", compression=False) as db:
        put_secrets(LgkvSaver(db, serde=make()))
        assert in_file(db) == []
        [thread] = db.threads()
        assert thread.metadata == {}


def test_without_encryption_the_secrets_are_in_the_file(tmp_path: Path) -> None:
    with lgkv.open(tmp_path / "a.lgkv", compression=False) as db:
        put_secrets(LgkvSaver(db))
        assert in_file(db) == SECRETS  # else the test above could not fail


def test_filter_works_on_encrypted_metadata(db: lgkv.Database) -> None:
    saver = LgkvSaver(db, serde=aes())
    ids = [id_of(put(saver, metadata={"step": step})) for step in range(5)]
    assert ids_of(saver.list(None, filter={"step": {"$gte": 3}})) == [ids[4], ids[3]]


def test_encrypted_values_do_not_open_with_another_key(db: lgkv.Database) -> None:
    config = put(LgkvSaver(db, serde=aes()), None, {"a": 1})
    other = EncryptedSerializer.from_pycryptodome_aes(key=b"fedcba9876543210")
    with pytest.raises(ValueError, match="MAC"):
        LgkvSaver(db, serde=other).get_tuple(config)


def test_clone_with_an_allowlist_shares_the_database(db: lgkv.Database) -> None:
    saver = LgkvSaver(db)
    clone = saver.with_allowlist([("some.module", "Name")])
    assert isinstance(clone, LgkvSaver)
    assert clone is not saver
    assert clone.serde is not saver.serde
    assert clone.db is saver.db
    config = put(clone, None, {"a": 1})
    assert saver.get_tuple(config) == clone.get_tuple(config)
    clone.close()
    assert not db.closed
    assert saver.with_allowlist([]) is saver


@pytest.mark.parametrize("name", SERIALISERS)
def test_graph_runs_with_every_serialiser_and_nothing_is_logged(
    db: lgkv.Database, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    builder = StateGraph(MessagesState)
    builder.add_node("node", lambda state: {"messages": [f"re: {state['messages'][-1].content}"]})
    builder.add_edge(START, "node")
    graph = builder.compile(checkpointer=LgkvSaver(db, serde=SERIALISERS[name]()))
    for text in ("one", "two"):
        graph.invoke({"messages": [HumanMessage(text)]}, config_of())
    contents = [each.content for each in graph.get_state(config_of()).values["messages"]]
    assert contents == ["one", "re: one", "two", "re: two"]
    assert caplog.records == []


def test_what_was_stored_without_langgraph_is_read_by_the_saver(
    db: lgkv.Database, saver: LgkvSaver
) -> None:
    checkpoint: dict[str, Any] = dict(checkpoint_of({"a": [1, {"b": None}]}))
    db.checkpoints.put("t", checkpoint, metadata={"step": 3})
    db.checkpoints.put_writes("t", checkpoint["id"], "task", [("a", [2])])
    for reader in (saver, LgkvSaver(db, serde=aes())):
        found = reader.get_tuple(config_of())
        assert found is not None
        assert found.checkpoint == checkpoint
        assert found.pending_writes == [("task", "a", [2])]
        assert found.metadata == {"step": 3}


@pytest.mark.parametrize(
    "value",
    [object(), {"deep": [lambda: 1]}, 2**64, {1, object()}],
    ids=["object", "lambda", "int", "set"],
)
def test_value_that_cannot_be_encoded_is_a_clear_error_and_nothing_is_written(
    db: lgkv.Database, saver: LgkvSaver, value: Any
) -> None:
    config = put(saver, None, {"a": 1})
    before = records(db)
    with pytest.raises(InvalidInputError, match="cannot be stored"):
        put(saver, config, {"a": 2, "b": value})
    with pytest.raises(InvalidInputError, match="cannot be stored"):
        saver.put_writes(config, [("a", 1), ("b", value)], "task")
    assert records(db) == before


def test_pickle_is_neither_written_nor_read(db: lgkv.Database, saver: LgkvSaver) -> None:
    config = put(
        LgkvSaver(db, serde=JsonPlusSerializer(pickle_fallback=True)),
        None,
        {"a": {1, (2, 3)}, "b": range(3)},
    )
    with pytest.raises(InvalidInputError, match="pickle"):
        saver.get_tuple(config)
    assert saver.serde.pickle_fallback is False
