"""The checkpoints that this process stored last: the likely parents of the next ones.

A parent from here need not be read again. It may be another by now, or gone: the change
that builds on it looks at its record's mark, and fails with BaseMovedError then.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from lgkv.checkpoints.reading import Parent

__all__ = ["Recent"]

MAX_PARENTS: Final = 256

Name = tuple[str, str, str]
"""Thread id, namespace and checkpoint id."""


class Recent:
    """Parents by name, the latest used last. Safe to use from any thread."""

    def __init__(self) -> None:
        self._parents: OrderedDict[Name, Parent] = OrderedDict()
        self._lock = threading.Lock()

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

    def forget(self, name: Name) -> None:
        """Hold a checkpoint no more."""
        with self._lock:
            self._parents.pop(name, None)
