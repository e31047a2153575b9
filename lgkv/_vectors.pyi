from typing import Any

from numpy.typing import NDArray

def kernel_name(wanted: str | None = None) -> str: ...
def scan(
    parts: list[tuple[Any, int, int, int]],
    query: NDArray[Any],
    out: NDArray[Any],
    squared_distance: bool,
) -> None: ...
def rescore(
    parts: list[tuple[Any, int, int]], query: NDArray[Any], size: int, out: NDArray[Any]
) -> None: ...
def name_at(record: Any, start: int, count: int, row: int) -> bytes: ...
def locate(
    labels: NDArray[Any],
    firsts: NDArray[Any],
    sorted_labels: list[NDArray[Any]],
    orders: list[NDArray[Any]],
    alive: list[NDArray[Any] | None],
    slabs: NDArray[Any],
    rows: NDArray[Any],
) -> None: ...
