"""What a workload is: sizes, something to fill a backend with, and the measures taken on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from benchmarks.backends import Opened

__all__ = [
    "DEFAULT_SIZES", "QUICK_SIZES", "Filled", "Gauge", "Measure", "Sizes", "Workload",
    "answer_size",
]  # fmt: skip

SubjectT = TypeVar("SubjectT")


@dataclass(frozen=True)
class Sizes:
    """How much each workload does; every one of them can be set on the command line.

    The suites of short and long chats have `short_turns` and `long_turns` for their `turns`,
    and so on.
    """

    turns: int = 200
    short_turns: int = 50
    long_turns: int = 1_000
    steps: int = 200
    long_steps: int = 2_500
    channels: int = 100
    entries: int = 1_000
    blobs: int = 20
    blob_bytes: int = 5_000_000
    threads: int = 20_000
    items: int = 5_000
    long_items: int = 50_000
    vectors: int = 2_000
    rounds: int = 5
    long_rounds: int = 3
    calls_percent: int = 100

    def calls(self, usual: int) -> int:
        """Return how often a measure is called in a round when *usual* is its default."""
        return max(1, usual * self.calls_percent // 100)


DEFAULT_SIZES: Final = Sizes()
QUICK_SIZES: Final = Sizes(
    turns=30, short_turns=10, long_turns=100, steps=30, long_steps=100, channels=20, entries=100,
    blobs=4, blob_bytes=500_000, threads=1_000, items=500, long_items=2_000, vectors=300,
    rounds=3, long_rounds=2, calls_percent=50,
)  # fmt: skip


class Gauge(Enum):
    """What is measured of an act: a time, or the most memory that it had allocated at once."""

    SECONDS = "s"
    SECONDS_WITHOUT_FLUSH = "s without the flush"
    PEAK_BYTES = "B"


class Filled(NamedTuple):
    """What a file holds by now; `new_bytes` is what of it was new, serialised once, if known."""

    label: str
    new_bytes: int | None = None


def _nothing() -> tuple[()]:
    return ()


@dataclass(frozen=True)
class Measure:
    """One timed act.

    `prepare` runs untimed before every call of `act` and returns its arguments. What `act`
    returns is sized once a round (`answer_size`), so that a wrong answer shows. `needs` names a
    feature that some backends lack. `once` is for an act that takes long: one round is enough.
    """

    name: str
    act: Callable[..., Any]
    calls: int
    prepare: Callable[[], tuple[Any, ...]] = _nothing
    needs: str | None = None
    gauge: Gauge = Gauge.SECONDS
    once: bool = False

    def missing(self, lacks: Mapping[str, str]) -> str | None:
        """Return why a backend that *lacks* features cannot do this, None where it can."""
        return None if self.needs is None else lacks.get(self.needs)


class Workload(Protocol[SubjectT]):
    """A way to use a saver or a store.

    `measure_names` are the names of what `measures` returns, in that order.
    """

    name: ClassVar[str]
    measure_names: ClassVar[tuple[str, ...]]

    def __init__(self, sizes: Sizes) -> None:
        """Prepare for *sizes*."""

    def fill(self, opened: Opened[SubjectT]) -> Iterator[Filled]:
        """Write what the measures need, untimed; yield what is there now.

        The bytes on disk are counted at every yield, and the subject is another one after it.
        """

    def measures(self, opened: Opened[SubjectT]) -> list[Measure]:
        """Return the measures, bound to *opened*; they look its subject up at every call."""


def answer_size(answer: object) -> int:
    """Return how much an act returned: its length, 1 for a single thing, 0 for nothing."""
    if answer is None:
        return 0
    return len(answer) if isinstance(answer, Sized) else 1
