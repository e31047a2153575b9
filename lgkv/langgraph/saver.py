"""The checkpointer: LangGraph's calls translated to `db.checkpoints`, sync and async.

Reads are done where they are asked for: they touch mapped memory only. An async write
waits for the engine's one writer thread, and never holds up the event loop.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import TASKS

from lgkv.checkpoints import Checkpoints, StoredCheckpoint, upkeep
from lgkv.checkpoints.types import check_mappings
from lgkv.checkpoints.values import BaseMovedError
from lgkv.database import Database
from lgkv.errors import InvalidInputError
from lgkv.langgraph import _loops
from lgkv.langgraph._opening import Opening, checked
from lgkv.langgraph.serde import AllowedType, SerdeCodec, StrictSerializer
from lgkv.writer import Change

__all__ = ["LgkvSaver"]

FIRST_VERSION_WITHOUT_SENDS: Final = 4
"""Checkpoints before this format have their pending sends among their parent's writes."""

VERSION_DIGITS: Final = 32
TAIL_DIGITS: Final = 16
LARGEST_STEP: Final = 1 << 31
"""Bounds the random part of a version that is a number."""


class LgkvSaver(Opening, BaseCheckpointSaver[str]):
    """A LangGraph checkpointer on an lgkv file.

    `serde` replaces the serialiser; the default is strict: it rebuilds LangChain's and
    LangGraph's own types, common standard types, those of the graph's schemas, and
    `allowed_types` (classes, or pairs of module and name).
    """

    def __init__(
        self,
        db: Database,
        *,
        serde: SerializerProtocol | None = None,
        allowed_types: Iterable[AllowedType] = (),
    ) -> None:
        super().__init__(serde=serde or StrictSerializer(allowed_types))
        self._db = checked(db)
        self._bound: tuple[SerializerProtocol, Checkpoints] | None = None

    @property
    def _checkpoints(self) -> Checkpoints:
        bound = self._bound
        if bound is None or bound[0] is not self.serde:  # which anybody may replace
            checkpoints = self._db.checkpoints.with_codec(SerdeCodec(self.serde))
            bound = self._bound = self.serde, checkpoints
        return bound[1]

    def with_allowlist(
        self, extra_allowlist: Collection[tuple[str, ...]]
    ) -> BaseCheckpointSaver[str]:
        """Return a saver on the same database that rebuilds these types as well.

        A serialiser of somebody's own decides for itself, and stays as it is.
        """
        inner = self.serde.serde if isinstance(self.serde, EncryptedSerializer) else self.serde
        if not isinstance(inner, JsonPlusSerializer):
            return self
        return super().with_allowlist(extra_allowlist)

    # --- reading ---

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that `config` names, the thread's newest without an id, or None."""
        checkpoint_id = _checkpoint_id(config)
        stored = self._checkpoints.get(
            _thread_id(config), namespace=_namespace(config), checkpoint_id=checkpoint_id
        )
        return None if stored is None else self._tuple(stored, config if checkpoint_id else None)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Return an iterator over checkpoints, newest id first, of all threads if `config` is None.

        `filter` is tried on the metadata: any key, nested, with the store's operators.
        """
        found = self._checkpoints.list(
            None if config is None else _thread_id(config),
            namespace=None if config is None else _configurable(config).get("checkpoint_ns"),
            checkpoint_id=None if config is None else _checkpoint_id(config),
            before=None if before is None else _checkpoint_id(before),
            filter=filter,
            limit=limit,
        )
        return (self._tuple(stored, None) for stored in found)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what `DeltaChannel`s are rebuilt from, in one walk over the ancestors."""
        history = self._checkpoints.delta_history(
            _thread_id(config),
            channels,
            namespace=_namespace(config),
            checkpoint_id=_checkpoint_id(config),
        )
        return {name: DeltaChannelHistory(**found) for name, found in history.items()}  # type: ignore[typeddict-item]

    def _tuple(self, stored: StoredCheckpoint, config: RunnableConfig | None) -> CheckpointTuple:
        checkpoint = stored.checkpoint
        if checkpoint.get("v", FIRST_VERSION_WITHOUT_SENDS) < FIRST_VERSION_WITHOUT_SENDS:
            self._adopt_sends(stored)
        parent = stored.parent_id
        return CheckpointTuple(
            config or _config(stored.thread_id, stored.namespace, stored.id),
            checkpoint,  # type: ignore[arg-type]
            stored.metadata,  # type: ignore[arg-type]
            None if parent is None else _config(stored.thread_id, stored.namespace, parent),
            stored.writes,
        )

    def _adopt_sends(self, stored: StoredCheckpoint) -> None:
        """Give an old checkpoint the sends that were stored with its parent."""
        if stored.parent_id is None:
            return
        writes = self._checkpoints.writes(
            stored.thread_id, stored.parent_id, namespace=stored.namespace
        )
        sends = [value for _, channel, value in writes if channel == TASKS]
        if not sends:
            return
        versions = stored.checkpoint["channel_versions"]
        stored.checkpoint["channel_values"][TASKS] = sends
        versions[TASKS] = max(versions.values()) if versions else self.get_next_version(None, None)

    # --- writing ---

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint whose parent is the id in `config`; return its own config."""
        thread_id, namespace, parent_id = _names(config)
        self._checkpoints.put(
            thread_id,
            checkpoint,
            namespace=namespace,
            parent_id=parent_id,
            metadata=_metadata(config, metadata),
            new_versions=new_versions,
        )
        return _config(thread_id, namespace, _text(checkpoint["id"]))

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store the pending writes of a task at the checkpoint that `config` names."""
        self._commit(self._put_writes_change(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Delete everything of a thread."""
        self._commit(upkeep.delete_thread(str(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that these runs have made, with their writes."""
        self._commit(upkeep.delete_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy everything of a thread to a new one."""
        self._commit(upkeep.copy_thread(str(source_thread_id), str(target_thread_id)))

    def prune(
        self,
        thread_ids: Sequence[str],
        *,
        strategy: str = "keep_latest",
        keep_last: int | None = None,
        older_than: datetime.timedelta | datetime.datetime | None = None,
    ) -> None:
        """Delete old checkpoints; see `lgkv.checkpoints.Checkpoints.prune`."""
        self._commit(upkeep.prune(thread_ids, strategy, keep_last, older_than))

    def _commit(self, change: Change[Any]) -> None:
        self._db.commit(change)

    def _put_writes_change(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> Change[Any]:
        thread_id, namespace, checkpoint_id = _names(config)
        if checkpoint_id is None:
            raise InvalidInputError(
                "config['configurable'] has no 'checkpoint_id': name the checkpoint to write at"
            )
        return self._checkpoints.put_writes_change(
            thread_id, checkpoint_id, task_id, writes, namespace=namespace, task_path=task_path
        )

    # --- async ---

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return what `get_tuple` does."""
        return await _loops.read(self._db, lambda: self.get_tuple(config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield what `list` does."""
        listed = self.list(config, filter=filter, before=before, limit=limit)
        while (found := await _loops.read(self._db, lambda: next(listed, None))) is not None:
            yield found

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what `get_delta_channel_history` does."""
        return await _loops.read(
            self._db, lambda: self.get_delta_channel_history(config=config, channels=channels)
        )

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Do what `put` does."""
        thread_id, namespace, parent_id = _names(config)
        given = checkpoint, parent_id, _metadata(config, metadata), new_versions
        while True:
            await _loops.breathe()
            try:
                await _loops.write(
                    self._db, self._checkpoints.put_in_turn(thread_id, namespace, given)
                )
            except BaseMovedError:
                continue
            break
        return _config(thread_id, namespace, _text(checkpoint["id"]))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Do what `put_writes` does."""
        await _loops.breathe()
        await _loops.write(self._db, self._put_writes_change(config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        """Do what `delete_thread` does."""
        await _loops.write(self._db, upkeep.delete_thread(str(thread_id)))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Do what `delete_for_runs` does."""
        await _loops.write(self._db, upkeep.delete_runs(run_ids))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Do what `copy_thread` does."""
        await _loops.write(
            self._db, upkeep.copy_thread(str(source_thread_id), str(target_thread_id))
        )

    async def aprune(
        self,
        thread_ids: Sequence[str],
        *,
        strategy: str = "keep_latest",
        keep_last: int | None = None,
        older_than: datetime.timedelta | datetime.datetime | None = None,
    ) -> None:
        """Do what `prune` does."""
        await _loops.write(self._db, upkeep.prune(thread_ids, strategy, keep_last, older_than))

    # --- versions ---

    def get_next_version(self, current: Any, channel: None) -> Any:  # noqa: ARG002
        """Return a version greater than `current`, which no other branch gives too.

        The form is the other savers': the count in 32 digits, a dot, 16 random digits. A
        version that is a number, in an imported thread, is followed by a whole number:
        LangGraph compares the versions of all channels, so they stay of one kind.
        """
        if isinstance(current, (int, float)):
            return int(current) + 1 + secrets.randbelow(LARGEST_STEP)
        tail = f"{secrets.randbelow(10**TAIL_DIGITS):0{TAIL_DIGITS}}"
        count = "0" if current is None else current.partition(".")[0]
        following = f"{int(count) + 1:0{VERSION_DIGITS}}.{tail}" if count.isdecimal() else ""
        if current is not None and following <= current:  # a form of somebody's own
            return f"{current}.{tail}"
        return following


def _configurable(config: RunnableConfig) -> Mapping[str, Any]:
    if type(config) is not dict and not isinstance(config, Mapping):
        raise InvalidInputError(
            f"the config is {config!r:.100}: give {{'configurable': {{'thread_id': '...'}}}}"
        )
    configurable = config.get("configurable") or {}
    if type(configurable) is not dict and not isinstance(configurable, Mapping):
        raise InvalidInputError(f"config['configurable'] is {configurable!r:.100}: give a dict")
    return configurable


def _text(name: Any) -> str:
    """Return a name as text: of a member of an enumeration that is a str its value."""
    return str.__str__(name) if isinstance(name, str) else str(name)


def _metadata(config: RunnableConfig, metadata: CheckpointMetadata) -> dict[str, Any]:
    """Return the metadata of a checkpoint with what of the config belongs to it."""
    if type(metadata) is not dict:
        check_mappings(metadata=metadata)
    return cast("dict[str, Any]", get_checkpoint_metadata(config, metadata))


def _names(config: RunnableConfig) -> tuple[str, str, str | None]:
    """Return thread id, namespace and checkpoint id, None if it has none."""
    configurable = _configurable(config)
    thread_id = configurable.get("thread_id")
    if thread_id is None:
        raise InvalidInputError("config['configurable'] has no 'thread_id': name the thread there")
    checkpoint_id = configurable.get("checkpoint_id")
    return (
        str(thread_id),
        configurable.get("checkpoint_ns") or "",
        _text(checkpoint_id) if checkpoint_id else None,
    )


def _thread_id(config: RunnableConfig) -> str:
    thread_id = _configurable(config).get("thread_id")
    if thread_id is None:
        raise InvalidInputError("config['configurable'] has no 'thread_id': name the thread there")
    return str(thread_id)


def _namespace(config: RunnableConfig) -> str:
    return _configurable(config).get("checkpoint_ns") or ""


def _checkpoint_id(config: RunnableConfig) -> str | None:
    checkpoint_id = _configurable(config).get("checkpoint_id")
    return _text(checkpoint_id) if checkpoint_id else None


def _config(thread_id: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    return {
        "configurable": {
            "thread_id": thread_id,
            "checkpoint_ns": namespace,
            "checkpoint_id": checkpoint_id,
        }
    }
