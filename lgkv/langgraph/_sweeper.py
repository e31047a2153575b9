"""A thread that deletes expired items again and again."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError

from lgkv.errors import ClosedError

__all__ = ["Sweeper"]

logger = logging.getLogger("lgkv")


class Sweeper:
    """Calls `sweep` every `interval_s` seconds until stopped, cancelled or closed.

    `future` is done when it has ended: with None, or with the error that ended it, which
    is logged too.
    """

    def __init__(self, sweep: Callable[[], int], interval_s: float) -> None:
        self._sweep, self._interval_s = sweep, interval_s
        self._stopped = threading.Event()
        self.future: Future[None] = Future()
        self.future.add_done_callback(lambda _: self._stopped.set())
        self._thread = threading.Thread(target=self._run, name="lgkv-sweeper", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self._thread.is_alive() and not self._stopped.is_set()

    def stop(self) -> None:
        """Let it end, without waiting."""
        self._stopped.set()

    def join(self, timeout_s: float | None) -> bool:
        """Wait until it has ended; whether it has within `timeout_s`."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        failure: Exception | None = None
        try:
            while not self._stopped.wait(self._interval_s):
                swept = self._sweep()
                if swept:
                    logger.info("%d expired items were deleted", swept)
        except ClosedError:
            logger.debug("the sweeper ends with its database")
        except Exception as error:
            logger.exception("the sweeper ends: expired items are no longer deleted")
            failure = error
        with contextlib.suppress(InvalidStateError):  # it was cancelled
            if failure is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(failure)
