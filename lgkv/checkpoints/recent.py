"""The checkpoints that this process stored last: the likely parents of the next ones.

A parent from here need not be read again. It may be another by now, or gone: the change
that builds on it looks at its record's mark, and fails with BaseMovedError then.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import Final

from lgkv.checkpoints.apart import Shared
from lgkv.checkpoints.reading import Parent
from lgkv.codec import Payload
from lgkv.keys import encode_text
from lgkv.locks import Mutex

__all__ = ["Recent", "digest_of"]

MAX_PARENTS: Final = 256

Name = tuple[str, str, str]
"""Thread id, namespace and checkpoint id."""


def digest_of(payload: Payload) -> bytes:
    """Return what no other payload has."""
    kind, raw = payload
    digest = blake2b(encode_text(kind), digest_size=16)
    digest.update(b"\0")
    digest.update(raw)
    return digest.digest()


class Recent:
    """Parents by name, the latest used last. Safe to use from any thread."""

    def __init__(self) -> None:
        self._parents: OrderedDict[Name, Parent] = OrderedDict()
        self._large: OrderedDict[Name, dict[bytes, Shared]] = OrderedDict()
        self._lock = Mutex()

    def get(self, name: Name) -> Parent | None:
        """Return what was held under `name`, or None."""
        return self._parents.get(name)

    def hold(self, name: Name, parent: Parent) -> None:
        """Hold a checkpoint once it is committed."""
        with self._lock:
            self._parents[name] = parent
            self._parents.move_to_end(name)
            if len(self._parents) > MAX_PARENTS:
                self._parents.popitem(last=False)

    def hold_large(self, name: Name, digest: bytes, piece: Shared) -> None:
        """Hold a large value that was written at a checkpoint, or by the next one, by its digest.

        It may be gone by the time it is looked up, or never be committed.
        """
        with self._lock:
            self._large[name] = self._large.pop(name, {}) | {digest: piece}
            if len(self._large) > MAX_PARENTS:
                self._large.popitem(last=False)

    def large(self, name: Name, digest: bytes) -> Shared | None:
        """Return the value that was held."""
        return self._large.get(name, {}).get(digest)

    def forget(self, name: Name) -> None:
        """Hold a checkpoint no more."""
        with self._lock:
            self._parents.pop(name, None)
