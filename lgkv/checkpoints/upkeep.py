"""Deleting, copying, pruning and listing threads: one change each."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterator, Sequence

from lgkv.checkpoints import pruning
from lgkv.checkpoints import records as rec
from lgkv.checkpoints.heads import unpack_head
from lgkv.checkpoints.reading import Place, newest_head
from lgkv.checkpoints.thread import ThreadEdit, namespace_number, now_us
from lgkv.checkpoints.types import PLAIN_TYPE, ThreadInfo
from lgkv.env import Snapshot
from lgkv.errors import CorruptionError, InvalidInputError
from lgkv.keys import decode_text, pack_uint
from lgkv.layout import Kind, Table, decode_plain, split_key
from lgkv.names import add_thread, thread_name, thread_number
from lgkv.writer import Batch, Change

__all__ = ["copy_thread", "delete_runs", "delete_thread", "iterate_threads", "prune"]


def delete_thread(thread_id: str) -> Change[None]:
    """Prepare the deletion of a thread."""

    def apply(batch: Batch) -> None:
        thread = ThreadEdit.find(batch, thread_id)
        if thread is not None:
            thread.remove()

    return Change(apply)


def delete_runs(run_ids: Sequence[str]) -> Change[None]:
    """Prepare the deletion of what runs have made, in whatever threads."""
    if isinstance(run_ids, str):
        raise InvalidInputError(f"run_ids is the str {run_ids!r}: give a list of run ids")
    wanted = [str(run_id) for run_id in run_ids]

    def apply(batch: Batch) -> None:
        for (number, namespace), ids in _of_runs(batch, wanted).items():
            thread = ThreadEdit.load(batch, thread_name(batch, number), number)
            pruning.drop_checkpoints(thread, namespace, ids)
            thread.save()

    return Change(apply)


def _of_runs(batch: Batch, run_ids: list[str]) -> dict[tuple[int, int], list[str]]:
    """Return the ids of the runs' checkpoints by thread and namespace."""
    places: dict[tuple[int, int], list[str]] = defaultdict(list)
    for run_id in run_ids:
        prefix = rec.run_prefix(run_id)
        for key, body in batch.scan(Table.INDEX, prefix):
            thread, namespace, _ = split_key(Table.INDEX, key, len(prefix), "uui")
            places[thread, namespace].append(decode_text(body))
    return places


def copy_thread(source: str, target: str) -> Change[None]:
    """Prepare a copy of a thread, record by record."""

    def apply(batch: Batch) -> None:
        old = ThreadEdit.find(batch, source)
        if old is None:
            raise InvalidInputError(f"there is no thread {source!r} to copy")
        if thread_number(batch, target) is not None:
            raise InvalidInputError(
                f"there is a thread {target!r} already: delete it first, or name another"
            )
        now = now_us()
        new = ThreadEdit(batch, target, add_thread(batch, target), rec.ThreadRecord(now, now))
        new.record.checkpoints = old.record.checkpoints
        new.record.namespaces = old.record.namespaces
        batch.put(Table.INDEX, rec.updated_key(now, new.number), b"")
        prefix, new_prefix = pack_uint(old.number), pack_uint(new.number)
        own = rec.thread_key(old.number, Kind.THREAD)
        for key, body in batch.scan(Table.THREADS, prefix):
            if key == own:
                continue
            new.put(new_prefix + key[len(prefix) :], body)
            kind = key[len(prefix)]
            if kind in (Kind.CHECKPOINT, Kind.CARRIER):
                (namespace, _) = split_key(Table.THREADS, key, len(prefix) + 1, "ui")
                head = unpack_head(batch, old.number, namespace, key, body)
                new.index(namespace, head, Kind(kind))
        new.save()

    return Change(apply)


def prune(
    thread_ids: Sequence[str],
    strategy: str,
    keep_last: int | None,
    older_than: datetime.timedelta | datetime.datetime | None,
) -> Change[None]:
    """Prepare the deletion of old checkpoints."""
    if isinstance(thread_ids, str):
        raise InvalidInputError(f"thread_ids is the str {thread_ids!r}: give a list of thread ids")
    if strategy not in ("keep_latest", "delete"):
        raise InvalidInputError(f"unknown strategy {strategy!r}: use 'keep_latest' or 'delete'")
    if strategy == "delete" and (keep_last is not None or older_than is not None):
        raise InvalidInputError("strategy='delete' leaves nothing: drop keep_last and older_than")
    if keep_last is not None and (not isinstance(keep_last, int) or keep_last < 1):
        raise InvalidInputError(f"keep_last is {keep_last!r}: give a whole number, 1 or more")
    keep = pruning.Keep(keep_last or 1, None if older_than is None else _since_us(older_than))
    names = [str(thread_id) for thread_id in thread_ids]

    def apply(batch: Batch) -> None:
        for name in names:
            thread = ThreadEdit.find(batch, name)
            if thread is None:
                continue
            if strategy == "delete":
                thread.remove()
            else:
                pruning.prune_thread(thread, keep)
                thread.save()

    return Change(apply)


def _since_us(older_than: datetime.timedelta | datetime.datetime) -> int:
    if isinstance(older_than, datetime.timedelta):
        return now_us() - older_than // datetime.timedelta(microseconds=1)
    if isinstance(older_than, datetime.datetime) and older_than.tzinfo is not None:
        return int(older_than.timestamp() * 1_000_000)
    raise InvalidInputError(
        f"older_than is {older_than!r}: give a timedelta, or a datetime with a time zone"
    )


def iterate_threads(snapshot: Snapshot, before: ThreadInfo | None) -> Iterator[ThreadInfo]:
    """Yield threads, the one with the newest checkpoint first."""
    stop = None
    if before is not None:
        stop = rec.updated_key(_time_us(before.updated_at), before.number)
    for key in snapshot.keys(Table.INDEX, bytes((Kind.THREAD_UPDATED,)), stop=stop, reverse=True):
        _, number = split_key(Table.INDEX, key, 1, "uu")
        yield _info(snapshot, number)


def _info(snapshot: Snapshot, number: int) -> ThreadInfo:
    key = rec.thread_key(number, Kind.THREAD)
    body = snapshot.get(Table.THREADS, key)
    if body is None:
        raise CorruptionError(Table.THREADS.label, key, "the thread's record is missing")
    record = rec.ThreadRecord.unpack(key, body)
    name = thread_name(snapshot, number)
    return ThreadInfo(
        name,
        _time(record.created_us),
        _time(record.updated_us),
        record.checkpoints,
        record.size_bytes,
        _root_metadata(snapshot, number, name),
        number,
    )


def _root_metadata(snapshot: Snapshot, number: int, name: str) -> dict[str, object]:
    namespace = namespace_number(snapshot, number, "")
    head = None if namespace is None else newest_head(snapshot, Place(number, name, namespace, ""))
    if head is None or head.metadata[0] != PLAIN_TYPE:
        return {}
    return dict(decode_plain(head.metadata[1]))


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def _time(us: int) -> datetime.datetime:
    return _EPOCH + datetime.timedelta(microseconds=us)


def _time_us(time: datetime.datetime) -> int:
    return (time - _EPOCH) // datetime.timedelta(microseconds=1)
