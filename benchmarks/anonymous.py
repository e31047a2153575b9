"""How much anonymous memory this process takes: what is its own, and not the mapped file."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Watch"]

PAUSE_S: Final = 0.001
_STATUS: Final = Path("/proc/self/status")


def anonymous_mb() -> float:
    """Return it in megabytes; 0 where the system does not tell."""
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6


class Watch:
    """Watches it in a `with`; `figures` has the most and the last beyond what was there before."""

    def __enter__(self) -> Self:
        self._before = self._most = anonymous_mb()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()
        after = anonymous_mb()
        self.figures = {
            "peak_mb": round(max(self._most, after) - self._before, 1),
            "after_mb": round(after - self._before, 1),
        }

    def _watch(self) -> None:
        while not self._stop.wait(PAUSE_S):
            self._most = max(self._most, anonymous_mb())
