"""What a workload is: sizes, something to fill a backend with, and the measures taken on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from benchmarks.backends import Opened

__all__ = ["DEFAULT_SIZES", "QUICK_SIZES", "Measure", "Sizes", "Workload", "answer_size"]

SubjectT = TypeVar("SubjectT")


@dataclass(frozen=True)
class Sizes:
    """How much each workload does; every one of them can be set on the command line."""

    turns: int = 200
    threads: int = 20_000
    items: int = 5_000
    vectors: int = 2_000
    rounds: int = 5
    calls_percent: int = 100

    def calls(self, usual: int) -> int:
        """Return how often a measure is called in a round when *usual* is its default."""
        return max(1, usual * self.calls_percent // 100)


DEFAULT_SIZES: Final = Sizes()
QUICK_SIZES: Final = Sizes(
    turns=30, threads=1_000, items=500, vectors=300, rounds=3, calls_percent=50
)


def _nothing() -> tuple[()]:
    return ()


@dataclass(frozen=True)
class Measure:
    """One timed act.

    `prepare` runs untimed before every call of `act` and returns its arguments. What `act`
    returns is sized once a round (`answer_size`), so that a wrong answer shows. `needs` names a
    feature that some backends lack.
    """

    name: str
    act: Callable[..., Any]
    calls: int
    prepare: Callable[[], tuple[Any, ...]] = _nothing
    needs: str | None = None

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

    def fill(self, opened: Opened[SubjectT]) -> Iterator[str]:
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
