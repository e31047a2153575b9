"""Vectors of items: checking, storing, and finding the nearest.

An item has any number of float32 vectors, each with the path of the field that it stands
for. All vectors of a file have the same dimensions, which the first ones set. `slabs` and
`records` are the file's side, `directory` and `graph` the memory's; `index` has both.
"""

from lgkv.vectors.checks import VectorSet, check_rows, check_vector, common_dims, vector_set
from lgkv.vectors.index import VectorIndex
from lgkv.vectors.packing import NewVectors, find_vectors
from lgkv.vectors.pending import (
    Pending,
    begin_pending,
    drop_generation,
    put_pending,
    read_pending,
    still_pending,
    still_to_do,
    switch,
)
from lgkv.vectors.planning import IndexOptions, Plan
from lgkv.vectors.ranking import Hit
from lgkv.vectors.records import VectorChanges
from lgkv.vectors.settings import (
    METRIC,
    IndexConfig,
    Settings,
    VectorState,
    check_query,
    read_settings,
    read_state,
)

__all__ = [
    "METRIC",
    "Hit",
    "IndexConfig",
    "IndexOptions",
    "NewVectors",
    "Pending",
    "Plan",
    "Settings",
    "VectorChanges",
    "VectorIndex",
    "VectorSet",
    "VectorState",
    "begin_pending",
    "check_query",
    "check_rows",
    "check_vector",
    "common_dims",
    "drop_generation",
    "find_vectors",
    "put_pending",
    "read_pending",
    "read_settings",
    "read_state",
    "still_pending",
    "still_to_do",
    "switch",
    "vector_set",
]
