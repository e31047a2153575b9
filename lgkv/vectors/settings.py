"""What all vectors of a file have in common, and the counters of what is stored of them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any, Final

from lgkv.errors import (
    CorruptionError,
    DimensionMismatchError,
    EmbeddingMismatchError,
    InvalidInputError,
)
from lgkv.layout import Kind, Table, decode_plain, encode_plain
from lgkv.snapshot import Snapshot
from lgkv.vectors.checks import MAX_DIMS
from lgkv.writer import Batch

__all__ = [
    "METRIC",
    "METRICS",
    "MOST_NUMBERS",
    "STORAGES",
    "IndexConfig",
    "Settings",
    "VectorState",
    "check_query",
    "read_settings",
    "read_state",
    "settle",
    "write_settings",
    "write_state",
]

METRIC: Final = "cosine"
METRICS: Final = ("cosine", "inner_product", "l2")
STORAGES: Final = ("float32", "float16")

MOST_NUMBERS: Final = 1 << 62
"""Labels and other numbers stay below this."""

_SETTINGS_KEY: Final = bytes((Kind.VECTOR_SETTINGS,))
_STATE_KEY: Final = bytes((Kind.VECTOR_STATE,))
_STATE: Final = struct.Struct("<7Q")


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """What a caller wants of the vectors that it stores and searches; None for no matter.

    `metric` is "cosine", "inner_product" or "l2", `storage` "float32" or "float16", `model`
    a name for what made the vectors.

    Raises:
        InvalidInputError: A name is none of these.
    """

    metric: str | None = None
    storage: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        for what, value, known in (
            ("metric", self.metric, METRICS),
            ("storage", self.storage, STORAGES),
        ):
            if value is not None and value not in known:
                raise InvalidInputError(f"the {what} is {value!r}: use one of {', '.join(known)}")
        if self.model is not None and (not isinstance(self.model, str) or not self.model):
            raise InvalidInputError(f"the model is {self.model!r}: give its name, or None")


@dataclass(frozen=True, slots=True)
class Settings:
    """What all vectors of a file have in common.

    `generation` numbers the vectors that were stored under these settings.
    """

    dims: int
    metric: str = METRIC
    storage: str = "float32"
    model: str | None = None
    generation: int = 1

    @property
    def float_bytes(self) -> int:
        """The bytes of one stored number."""
        return 2 if self.storage == "float16" else 4

    def pack(self) -> dict[str, Any]:
        """Return the settings as plain data."""
        return {
            "dims": self.dims,
            "metric": self.metric,
            "storage": self.storage,
            "model": self.model,
            "generation": self.generation,
        }

    @classmethod
    def unpack(cls, fields: Any) -> Settings:
        """Return the settings that `pack` made `fields` of; ValueError if it did not."""
        if type(fields) is not dict or len(fields) != 5:
            raise ValueError("the settings are not a mapping of five")
        made = cls(**fields)
        good = (
            isinstance(made.dims, int)
            and 0 < made.dims <= MAX_DIMS
            and made.metric in METRICS
            and made.storage in STORAGES
            and isinstance(made.model, (str, type(None)))
            and isinstance(made.generation, int)
        )
        if not good:
            raise ValueError(f"the settings are {fields!r}")
        return made


@dataclass(slots=True)
class VectorState:
    """The counters of a file's vectors. Labels, entries and generations are never used again."""

    labels: int = 0
    """The last label given."""
    sequence: int = 0
    """The last entry of the log."""
    first: int = 1
    """The first entry that the log still has."""
    vectors: int = 0
    """How many vectors there are."""
    generation: int = 0
    """The last generation given."""
    live: int = 0
    """The generation that is searched."""
    graphs: int = 0
    """The last number given to a saved graph."""


# --- reading -------------------------------------------------------------------------------


def read_settings(snapshot: Snapshot) -> Settings | None:
    """Return what the vectors of the file have in common; None as long as there are none."""
    body = snapshot.get(Table.MEMORY, _SETTINGS_KEY)
    if body is None:
        return None
    try:
        return Settings.unpack(decode_plain(body))
    except (ValueError, TypeError) as error:
        raise CorruptionError(
            Table.MEMORY.label, _SETTINGS_KEY, f"damaged settings: {error!r}"
        ) from None


def read_state(snapshot: Snapshot) -> VectorState:
    """Return the counters as of `snapshot`."""
    body = snapshot.get(Table.MEMORY, _STATE_KEY)
    if body is None:
        return VectorState()
    if len(body) != _STATE.size:
        raise CorruptionError(Table.MEMORY.label, _STATE_KEY, "the counters do not have their size")
    state = VectorState(*_STATE.unpack(body))
    if max(_STATE.unpack(body)) >= MOST_NUMBERS:
        raise CorruptionError(Table.MEMORY.label, _STATE_KEY, "a counter cannot be so far")
    return state


def check_query(settings: Settings | None, dims: int, config: IndexConfig | None = None) -> None:
    """Raise unless a query of `dims` goes with what the file has."""
    if settings is None:
        return
    if config is not None:
        _check_config(settings, config)
    if settings.dims != dims:
        raise DimensionMismatchError(
            dims,
            settings.dims,
            "embed with the model that the file was filled with, call reindex() to embed the "
            "stored texts with this one, or use another file",
        )


def _check_config(settings: Settings, config: IndexConfig) -> None:
    if None not in (config.model, settings.model) and config.model != settings.model:
        raise EmbeddingMismatchError(str(config.model), str(settings.model))
    if config.metric not in (None, settings.metric):
        raise InvalidInputError(
            f"the file's vectors are compared by {settings.metric!r}, not {config.metric!r}: "
            "ask for that one, or call reindex() to store them anew"
        )
    if config.storage not in (None, settings.storage):
        raise InvalidInputError(
            f"the file's vectors are stored as {settings.storage!r}, not {config.storage!r}: "
            "ask for that one, or call reindex() to store them anew"
        )


# --- writing -------------------------------------------------------------------------------


def write_settings(batch: Batch, settings: Settings) -> None:
    """Store what the vectors of the file have in common."""
    batch.put(Table.MEMORY, _SETTINGS_KEY, encode_plain(settings.pack()))


def write_state(batch: Batch, state: VectorState) -> None:
    """Store the counters."""
    body = _STATE.pack(
        state.labels,
        state.sequence,
        state.first,
        state.vectors,
        state.generation,
        state.live,
        state.graphs,
    )
    batch.put(Table.MEMORY, _STATE_KEY, body)


def settle(batch: Batch, state: VectorState, dims: int, config: IndexConfig | None) -> Settings:
    """Return the settings for vectors of `dims`: the file's, or new ones if it has no vectors.

    Raises:
        DimensionMismatchError: The file's vectors have other dimensions.
        EmbeddingMismatchError: They are of another model.
        InvalidInputError: They are compared or stored otherwise.
    """
    config = config or IndexConfig()
    settings = read_settings(batch)
    if settings is not None and state.vectors:
        check_query(settings, dims, config)
        if settings.model is None and config.model is not None:
            settings = replace(settings, model=config.model)
            write_settings(batch, settings)
        return settings
    base = settings if settings is not None and settings.dims == dims else Settings(dims)
    wanted = Settings(
        dims,
        config.metric or base.metric,
        config.storage or base.storage,
        config.model or base.model,
        0 if settings is None else settings.generation,
    )
    if wanted != settings:
        state.generation += 1
        state.live = state.generation
        wanted = replace(wanted, generation=state.generation)
        write_settings(batch, wanted)
    return wanted
