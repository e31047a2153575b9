"""Deleting, copying, pruning and listing threads: one change each."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lgkv.checkpoints import pruning
from lgkv.checkpoints import records as rec
from lgkv.checkpoints.heads import unpack_head
from lgkv.checkpoints.numbers import ROOT_NAMESPACE
from lgkv.checkpoints.order import LATEST, Bound, descending
from lgkv.checkpoints.reading import Place, newest_head
from lgkv.checkpoints.thread import ThreadEdit, now_us, read_thread
from lgkv.checkpoints.types import PLAIN_TYPE, PlainCodec, ThreadInfo, decode_parts, run_text
from lgkv.env import Snapshot
from lgkv.errors import CorruptionError, InvalidInputError
from lgkv.keys import decode_text, encode_text, pack_uint
from lgkv.layout import Kind, Table, split_key
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
    wanted = [_run_text(run_id) for run_id in _listed("run_ids", run_ids, "run ids")]

    def apply(batch: Batch) -> None:
        for (number, namespace), ids in _of_runs(batch, wanted).items():
            thread = ThreadEdit.load(batch, number)
            pruning.drop_checkpoints(thread, namespace, ids)
            thread.save()

    return Change(apply)


def _listed(name: str, given: Any, what: str) -> list[Any]:
    """Return what is given as a list; InvalidInputError if it is one text, or no list at all."""
    if isinstance(given, str):
        raise InvalidInputError(f"{name} is the str {given!r}: give a list of {what}")
    if not isinstance(given, Iterable) or isinstance(given, (bytes, bytearray)):
        raise InvalidInputError(f"{name} is {given!r:.100}: give a list of {what}")
    return list(given)


def _run_text(run_id: Any) -> str:
    text = run_text(run_id)
    if text is None:
        raise InvalidInputError(f"a run id is {run_id!r:.100}: give a str or a UUID")
    return text


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
        new = ThreadEdit.add(batch, target, now_us())
        if new is None:
            raise InvalidInputError(
                f"there is a thread {target!r} already: delete it first, or name another"
            )
        new.record.checkpoints = old.record.checkpoints
        new.record.carriers = old.record.carriers
        new.record.namespaces = old.record.namespaces
        new.record.latest_id = old.record.latest_id
        prefix, new_prefix = pack_uint(old.number), pack_uint(new.number)
        own = rec.thread_key(old.number, Kind.THREAD)
        for key, body in batch.scan(Table.THREADS, prefix):
            if key == own:
                continue
            if len(key) == len(prefix):
                raise CorruptionError(Table.THREADS.label, key, "a key without a kind")
            new.put(new_prefix + key[len(prefix) :], body)
            if key[len(prefix)] in (Kind.CHECKPOINT, Kind.CARRIER):
                (namespace, _) = split_key(Table.THREADS, key, len(prefix) + 1, "ui")
                head = unpack_head(batch, old.number, namespace, key, body)
                new.index_run(namespace, head)
        new.save()

    return Change(apply)


def prune(
    thread_ids: Sequence[str],
    strategy: str,
    keep_last: int | None,
    older_than: datetime.timedelta | datetime.datetime | None,
) -> Change[None]:
    """Prepare the deletion of old checkpoints."""
    names = [str(thread_id) for thread_id in _listed("thread_ids", thread_ids, "thread ids")]
    if strategy not in ("keep_latest", "delete"):
        raise InvalidInputError(f"unknown strategy {strategy!r}: use 'keep_latest' or 'delete'")
    if strategy == "delete" and (keep_last is not None or older_than is not None):
        raise InvalidInputError("strategy='delete' leaves nothing: drop keep_last and older_than")
    if keep_last is not None and (not isinstance(keep_last, int) or keep_last < 1):
        raise InvalidInputError(f"keep_last is {keep_last!r}: give a whole number, 1 or more")
    keep = pruning.Keep(keep_last or 1, None if older_than is None else _since_us(older_than))

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
    """Yield threads, the one with the newest checkpoint first, those without one last."""
    below = stop = None
    if before is not None:
        last_id = before.latest_checkpoint_id
        key = rec.latest_key(last_id, before.number)
        if last_id is None:
            stop = key
        else:
            below = Bound(encode_text(last_id), key)
    if stop is None:
        for _, key in descending(snapshot, Table.INDEX, LATEST, below):
            yield _info(snapshot, split_key(Table.INDEX, key, 1, "iu")[1])
    for key in snapshot.keys(Table.INDEX, LATEST + rec.NO_ID, stop=stop, reverse=True):
        yield _info(snapshot, split_key(Table.INDEX, key, 2, "u")[0])


def _info(snapshot: Snapshot, number: int) -> ThreadInfo:
    record = read_thread(snapshot, number)
    try:
        created, updated = _time(record.created_us), _time(record.updated_us)
    except OverflowError as error:
        key = rec.thread_key(number, Kind.THREAD)
        raise CorruptionError(Table.THREADS.label, key, f"a damaged time: {error}") from None
    return ThreadInfo(
        record.thread_id,
        created,
        updated,
        record.checkpoints,
        record.size_bytes,
        _root_metadata(snapshot, number, record.thread_id),
        number,
        record.latest_id,
    )


def _root_metadata(snapshot: Snapshot, number: int, name: str) -> dict[str, object]:
    head = newest_head(snapshot, Place(number, name, ROOT_NAMESPACE, ""))
    if head is None or head.payload[0] != PLAIN_TYPE:
        return {}
    return decode_parts(PlainCodec(), head.payload)[0]


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def _time(us: int) -> datetime.datetime:
    return _EPOCH + datetime.timedelta(microseconds=us)
