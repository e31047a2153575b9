from collections.abc import Callable
from typing import Any, final

from numpy.typing import NDArray

def kernel_name(wanted: str | None = None) -> str: ...
def scan(
    parts: list[tuple[Any, int, int, int]],
    query: NDArray[Any],
    out: NDArray[Any],
    squared_distance: bool,
) -> None: ...
def scan_slabs(
    slabs: list[SlabRows],
    record_of: Callable[[int], Any],
    epoch: int,
    numbers: NDArray[Any],
    starts: NDArray[Any],
    stops: NDArray[Any],
    query: NDArray[Any],
    out: NDArray[Any],
    squared_distance: bool,
) -> None: ...
def locate(
    slabs: list[SlabRows],
    firsts: NDArray[Any],
    labels: NDArray[Any],
    numbers: NDArray[Any],
    rows: NDArray[Any],
) -> None: ...
def locate_in_ranges(
    ends: NDArray[Any],
    range_slabs: NDArray[Any],
    stops: NDArray[Any],
    places: NDArray[Any],
    numbers: NDArray[Any],
    rows: NDArray[Any],
) -> None: ...
def top(keys: NDArray[Any], places: NDArray[Any]) -> tuple[int, float]: ...
def measure(
    slabs: list[SlabRows],
    record_of: Callable[[int], Any],
    epoch: int,
    numbers: NDArray[Any],
    rows: NDArray[Any],
    query: NDArray[Any],
    size: int,
    metric: int,
) -> list[tuple[float, int, bytes]]: ...
def all_finite(row: NDArray[Any]) -> bool: ...
def measure_rows(rows: NDArray[Any], dims: int, lengths: NDArray[Any]) -> None: ...
def prepare(
    vector: NDArray[Any], unit: bool, wide: NDArray[Any], narrow: NDArray[Any]
) -> float: ...
def count_uncoded(
    slabs: list[SlabRows], numbers: NDArray[Any], starts: NDArray[Any], stops: NDArray[Any]
) -> int: ...
def encode_slabs(
    slabs: list[SlabRows],
    record_of: Callable[[int], Any],
    epoch: int,
    numbers: NDArray[Any],
    starts: NDArray[Any],
    stops: NDArray[Any],
    dims: int,
    size: int,
    scaled: bool,
) -> None: ...
def scan_codes(
    slabs: list[SlabRows],
    numbers: NDArray[Any],
    starts: NDArray[Any],
    stops: NDArray[Any],
    query: NDArray[Any],
    reach: float,
    margin: float,
    upper: NDArray[Any],
    count: int,
) -> float: ...

@final
class Codes:
    coded: int
    def __new__(cls, count: int, dims: int) -> Codes: ...

@final
class SlabRows:
    first: int
    count: int
    codes: Codes | None
    scanned: bool
    def __init__(
        self,
        first: int,
        labels: NDArray[Any],
        order: NDArray[Any],
        items: NDArray[Any],
        scales: NDArray[Any],
        alive: NDArray[Any] | None,
        rows_at: int,
        names_at: int,
    ) -> None: ...
    def share_codes(self, other: SlabRows) -> None: ...
    def held(self, epoch: int) -> Any: ...
    def hold(self, epoch: int, record: Any) -> None: ...
    def name(self, record: Any, row: int) -> bytes: ...
