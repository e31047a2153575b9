"""Every error that lgkv raises of its own.

`StorageError` is about the file and the machine, `InvalidInputError` about what the
caller passed. Absence is not an error: it is `None`.
"""

from __future__ import annotations

__all__ = [
    "ClosedError",
    "CommitFailedError",
    "CorruptionError",
    "DimensionMismatchError",
    "EmbeddingMismatchError",
    "FilterError",
    "FormatVersionError",
    "InvalidInputError",
    "LgkvError",
    "MapFullError",
    "ReadOnlyError",
    "StorageError",
    "UnregisteredTypeError",
    "ValueTooLargeError",
    "WriteLockTimeoutError",
]


class LgkvError(Exception):
    """The base of every error of lgkv."""


class StorageError(LgkvError):
    """The file or the machine cannot do what was asked."""


class CorruptionError(StorageError):
    """Stored bytes are damaged.

    `database` is the file or the table, `key` the damaged record's key (None: the file as
    a whole), `reason` what is wrong.
    """

    def __init__(self, database: str, key: bytes | None, reason: str) -> None:
        self.database, self.key, self.reason = database, key, reason
        where = database if key is None else f"{database}, key {key.hex()}"
        super().__init__(f"damaged data in {where}: {reason}")


class FormatVersionError(StorageError):
    """The file's format is one that this lgkv does not read."""

    def __init__(self, found: str, supported: str, remedy: str) -> None:
        self.found, self.supported, self.remedy = found, supported, remedy
        super().__init__(f"the file has {found}; this lgkv reads {supported}: {remedy}")


class MapFullError(StorageError):
    """The file has reached the size that `map_size_bytes` or the disk allows."""


class CommitFailedError(StorageError):
    """A commit did not reach the disk; the database must be opened again."""


class WriteLockTimeoutError(StorageError):
    """Another writer held the write lock for longer than `lock_timeout_s`."""


class ClosedError(StorageError):
    """The database was closed."""


class ReadOnlyError(StorageError):
    """The database or its folder does not allow writing."""


class InvalidInputError(LgkvError, ValueError):
    """An argument is not usable; the message names it and the remedy."""


class ValueTooLargeError(InvalidInputError):
    """A value is larger than a record may be."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        self.size, self.limit = size, limit
        super().__init__(f"{what} has {size:,} bytes; the limit is {limit:,}: store it in parts")


class DimensionMismatchError(InvalidInputError):
    """A vector does not have the dimensions of the index."""

    def __init__(self, found: int, expected: int, remedy: str) -> None:
        self.found, self.expected = found, expected
        super().__init__(f"a vector has {found} dimensions, the index {expected}: {remedy}")


class EmbeddingMismatchError(InvalidInputError):
    """Vectors of another embedding model are stored: the two cannot be compared.

    `found` is the model that was given, `expected` the one that the file was filled with.
    """

    def __init__(self, found: str, expected: str) -> None:
        self.found, self.expected = found, expected
        super().__init__(
            f"the file's vectors are of the embedding model {expected!r}, not of {found!r}: "
            "embed with that one, or call reindex() to embed the stored texts again"
        )


class FilterError(InvalidInputError):
    """A filter has an unknown operator or an operand of the wrong type."""


class UnregisteredTypeError(InvalidInputError):
    """Stored data names a type that may not be rebuilt.

    `type_name` is the type's full name. Nothing was imported and nothing was called.
    """

    def __init__(self, module: str, name: str) -> None:
        self.type_name = f"{module}.{name}"
        super().__init__(
            f"the stored value is of the unregistered type {self.type_name}, which is not rebuilt: "
            f"name it in the graph's state schema, or allow it with "
            f"LgkvSaver(db, allowed_types=[({module!r}, {name!r})]), or LgkvCache alike"
        )
