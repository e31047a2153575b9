"""lgkv: everything an agent has to remember, in one file.

An embedded storage engine with a vector index: short-term memory (checkpoints), long-term
memory (a namespaced store with semantic search) and a node cache. `lgkv.langgraph` has the
LangGraph classes; nothing here imports LangGraph.
"""

from lgkv.checkpoints import StoredCheckpoint, ThreadInfo
from lgkv.database import Database, Stats, open
from lgkv.errors import (
    ClosedError,
    CommitFailedError,
    CorruptionError,
    DimensionMismatchError,
    EmbeddingMismatchError,
    FilterError,
    FormatVersionError,
    InvalidInputError,
    LgkvError,
    MapFullError,
    ReadOnlyError,
    StorageError,
    UnregisteredTypeError,
    ValueTooLargeError,
    WriteLockTimeoutError,
)
from lgkv.memory import SearchPlan, StoredItem
from lgkv.vectors import IndexOptions, Plan

__all__ = [
    "ClosedError",
    "CommitFailedError",
    "CorruptionError",
    "Database",
    "DimensionMismatchError",
    "EmbeddingMismatchError",
    "FilterError",
    "FormatVersionError",
    "IndexOptions",
    "InvalidInputError",
    "LgkvError",
    "MapFullError",
    "Plan",
    "ReadOnlyError",
    "SearchPlan",
    "Stats",
    "StorageError",
    "StoredCheckpoint",
    "StoredItem",
    "ThreadInfo",
    "UnregisteredTypeError",
    "ValueTooLargeError",
    "WriteLockTimeoutError",
    "open",
]

__version__ = "0.1.0"
