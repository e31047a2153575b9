"""The graph in the file: links only, in chunks under a number of their own, then a pointer.

Each chunk is a transaction of its own, so others write in between. A graph counts once the
pointer names it, which is when the one before it is deleted. What is damaged is dropped and
built anew: everything in it follows from the vectors.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from lgkv.errors import CorruptionError
from lgkv.keys import pack_uint
from lgkv.layout import Kind, Table, decode_plain, encode_plain
from lgkv.snapshot import Snapshot
from lgkv.vectors.directory import Directory
from lgkv.vectors.graph import LINKS, Frame, Graph, Links
from lgkv.vectors.ranking import Records
from lgkv.vectors.settings import read_state, write_state
from lgkv.writer import Batch, Change, Writer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CHUNK_BYTES",
    "SavedGraph",
    "drop_graph",
    "load_graph",
    "read_refusal",
    "read_saved",
    "save_graph",
    "save_refusal",
]

CHUNK_BYTES: Final = (4 << 20) - 4096
"""The most bytes of a chunk: with its envelope it stays below 4 MiB."""

MISSING: Final = 0.3
"""Beyond this part of vectors that are gone a saved graph is not worth loading."""

FILLED_ROWS: Final = 512
"""So many vectors are copied at a time."""

_POINTER_KEY: Final = bytes((Kind.VECTOR_GRAPH,))
_HEADER: Final = struct.Struct("<QQQQQQQQd")


@dataclass(frozen=True, slots=True)
class SavedGraph:
    """What the pointer says of the saved graph."""

    number: int
    generation: int
    covered: int
    width: int
    count: int
    upper_bytes: int
    entry: int
    max_level: int
    recall: float

    @classmethod
    def refusal(cls, number: int, generation: int, until: int, recall: float) -> SavedGraph:
        """Return what says that no graph has `recall`, as long as there are fewer vectors."""
        return cls(number, generation, 0, 0, 0, 0, until, 0, recall)

    def refuses(self, generation: int, vectors: int, recall: float) -> bool:
        """Whether it was found that no graph of so many vectors has `recall`."""
        return (
            not self.count
            and self.generation == generation
            and vectors < self.entry
            and recall >= self.recall
        )

    @property
    def total_bytes(self) -> int:
        """The bytes of all its chunks."""
        return self.count * (8 + 4 + 4 * (2 * LINKS + 1)) + self.upper_bytes

    @property
    def chunks(self) -> int:
        """How many chunks it has."""
        return -(-self.total_bytes // CHUNK_BYTES)


def _chunk_key(number: int, chunk: int) -> bytes:
    return _POINTER_KEY + pack_uint(number) + pack_uint(chunk)


def read_saved(snapshot: Snapshot) -> SavedGraph | None:
    """Return what the pointer says, or None."""
    body = snapshot.get(Table.MEMORY, _POINTER_KEY)
    if body is None:
        return None
    try:
        fields = decode_plain(body)
        return SavedGraph(*_HEADER.unpack(fields))
    except (ValueError, TypeError, struct.error) as error:
        raise CorruptionError(
            Table.MEMORY.label, _POINTER_KEY, f"a damaged pointer: {error}"
        ) from None


def read_refusal(snapshot: Snapshot, generation: int, vectors: int, recall: float) -> int:
    """Return from how many vectors on a graph may have `recall`, if fewer were found not to; or 0.

    What is damaged is left to loading, which tells.
    """
    try:
        saved = read_saved(snapshot)
    except CorruptionError:
        return 0
    refuses = saved is not None and saved.refuses(generation, vectors, recall)
    return saved.entry if saved is not None and refuses else 0


# --- saving --------------------------------------------------------------------------------


def save_graph(
    writer: Writer, graph: Graph, recall: float, stopping: Callable[[], bool]
) -> SavedGraph | None:
    """Save the graph; None if it was not: told to stop, or another process has a newer one."""
    links = graph.links()
    if links is None:
        return None
    body = memoryview(
        b"".join(
            (
                links.labels.astype("<u8").tobytes(),
                links.levels.astype("<i4").tobytes(),
                links.lowest.tobytes(),
                links.upper.tobytes(),
            )
        )
    )
    saved = SavedGraph(
        writer.commit(Change(_take_number)),
        graph.settings.generation,
        graph.covered,
        graph.width,
        len(links.labels),
        links.upper.size,
        links.entry,
        links.max_level,
        recall,
    )
    for chunk in range(saved.chunks):
        part = body[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES]
        writer.commit(_put(_chunk_key(saved.number, chunk), bytes(part)))
        if stopping():
            writer.commit(Change(lambda batch: _drop_chunks(batch, saved.number)))
            return None
    return saved if writer.commit(Change(lambda batch: _flip(batch, saved))) else None


def save_refusal(writer: Writer, generation: int, until: int, recall: float) -> None:
    """Save that no graph has `recall`, as long as there are fewer vectors than `until`."""
    number = writer.commit(Change(_take_number))
    refusal = SavedGraph.refusal(number, generation, until, recall)
    writer.commit(Change(lambda batch: _flip(batch, refusal)))


def _put(key: bytes, body: bytes) -> Change[int]:
    return Change(lambda batch: batch.put(Table.MEMORY, key, body))


def _take_number(batch: Batch) -> int:
    state = read_state(batch)
    state.graphs += 1
    write_state(batch, state)
    return state.graphs


def _flip(batch: Batch, saved: SavedGraph) -> bool:
    """Make `saved` the graph of the file, unless it is older than what is there."""
    before = read_saved(batch)
    whole = all(
        batch.has(Table.MEMORY, _chunk_key(saved.number, chunk)) for chunk in range(saved.chunks)
    )
    if (
        not whole
        or read_state(batch).live != saved.generation
        or (
            before is not None
            and saved.count
            and (before.generation, before.covered) > (saved.generation, saved.covered)
        )
    ):
        _drop_chunks(batch, saved.number)
        return False
    for number in range(0 if before is None else before.number, saved.number):
        _drop_chunks(batch, number)
    values = [getattr(saved, name) for name in SavedGraph.__slots__]
    batch.put(Table.MEMORY, _POINTER_KEY, encode_plain(_HEADER.pack(*values)))
    return True


def _drop_chunks(batch: Batch, number: int) -> None:
    batch.delete_range(Table.MEMORY, _POINTER_KEY + pack_uint(number))


def drop_graph(batch: Batch) -> None:
    """Delete the saved graph, and what is left of others."""
    batch.delete_range(Table.MEMORY, _POINTER_KEY)


# --- loading -------------------------------------------------------------------------------


def load_graph(
    snapshot: Snapshot, directory: Directory, map_epoch: int
) -> tuple[Graph, SavedGraph] | None:
    """Return the graph that the file has, with the vectors of `directory`; None without one.

    Raises:
        CorruptionError: It is damaged.
    """
    saved = read_saved(snapshot)
    if saved is None or saved.generation != directory.settings.generation or not saved.count:
        return None
    links = _read_links(snapshot, saved)
    slabs, rows = directory.locate(links.labels)
    if np.count_nonzero(slabs < 0) > MISSING * saved.count:
        return None
    known = np.count_nonzero(slabs >= 0)
    too_far = saved.covered > read_state(snapshot).labels + 1
    if too_far or known != directory.vectors_below(saved.covered):
        raise CorruptionError(
            Table.MEMORY.label, _POINTER_KEY, "the graph does not have the vectors that it covers"
        )
    try:
        links.check()
    except ValueError as error:
        raise CorruptionError(Table.MEMORY.label, _POINTER_KEY, str(error)) from None
    dead = np.flatnonzero(slabs < 0).tolist()
    gone = [(number, links.neighbours(number).copy()) for number in dead]
    frame = Frame(directory.settings, links)
    del links  # the frame has what is needed of them
    _fill(frame.vectors, Records(snapshot, directory, map_epoch), slabs, rows)
    _stand_in(frame.vectors, slabs, gone)
    graph = Graph.of_frame(directory.settings, frame)
    graph.covered, graph.width = saved.covered, saved.width
    return graph, saved


def _read_links(snapshot: Snapshot, saved: SavedGraph) -> Links:
    parts = []
    for chunk in range(saved.chunks):
        key = _chunk_key(saved.number, chunk)
        part = snapshot.get(Table.MEMORY, key)
        if part is None:
            raise CorruptionError(Table.MEMORY.label, key, "a chunk of the graph is missing")
        parts.append(part)
    body = b"".join(parts)
    if len(body) != saved.total_bytes:
        raise CorruptionError(Table.MEMORY.label, _POINTER_KEY, "the graph does not have its size")
    at, arrays = 0, []
    shapes: list[tuple[str, tuple[int, ...]]] = [
        ("<u8", (saved.count,)),
        ("<i4", (saved.count,)),
        ("<u1", (saved.count, 4 * (2 * LINKS + 1))),
        ("<u1", (saved.upper_bytes,)),
    ]
    for kind, shape in shapes:
        array = np.frombuffer(body, kind, int(np.prod(shape)), at).reshape(shape)
        arrays.append(array)
        at += array.nbytes
    labels, levels, lowest, upper = arrays
    return Links(labels, levels, lowest, upper, saved.entry, saved.max_level)


def _fill(
    vectors: NDArray[np.float32],
    records: Records,
    slabs: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> None:
    """Copy the vectors of the graph from the slabs, some at a time."""
    for number in np.unique(slabs[slabs >= 0]).tolist():
        here = np.flatnonzero(slabs == number)
        for some in np.array_split(here, 1 + len(here) // FILLED_ROWS):
            vectors[some] = records.graph_rows(number, rows[some])


def _stand_in(
    vectors: NDArray[np.float32],
    slabs: NDArray[np.int64],
    gone: list[tuple[int, NDArray[np.uint32]]],
) -> None:
    """Put those that are gone amid their neighbours."""
    for number, near in gone:
        there = near[slabs[near] >= 0]
        if len(there):
            vectors[number] = vectors[there].mean(axis=0)
