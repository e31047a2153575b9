"""What a scan of vectors takes, by kernel, as they are and as codes: `python -m benchmarks.scans`.

One thread, the smallest of many times, rows in anonymous memory. Prints a table in milliseconds.
"""

from __future__ import annotations

import argparse
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.machine import describe_machine, describe_python
from lgkv import _vectors

DIMS: Final = 384
COUNTS: Final = (500, 10_000, 100_000)
KERNELS: Final = ("avx512", "avx2", "plain")
REPEAT: Final = 15
SCALED: Final = True
L2: Final = True
ENOUGH: Final = 14
"""As many are asked of the codes as for a page of ten."""


def smallest_ms(call: Callable[[], object], count: int) -> float:
    """Return the smallest time of a call on so many rows."""
    number = max(1, 10_000 // count)
    return 1000 * min(timeit.repeat(call, number=number, repeat=REPEAT)) / number


def scans(count: int) -> dict[str, Callable[[], object]]:
    """Return a scan of so many rows, and one of their codes."""
    rows = np.random.default_rng(5).standard_normal((count, DIMS)).astype(np.float32)
    labels, record = np.arange(count, dtype=np.uint32), memoryview(rows).cast("B")
    scales = (1 / np.linalg.norm(rows, axis=1)).astype(np.float32)
    order = np.arange(count, dtype=np.int64)
    slab = _vectors.SlabRows(1, labels, order, labels, scales, None, 0, 0)
    slab.hold(0, record)
    ranges = [np.array([each], np.int64) for each in (0, 0, count)]
    _vectors.encode_slabs([slab], _nothing, 0, *ranges, DIMS, 4, SCALED)
    query, out = rows[0] * scales[0], np.empty(count, np.float32)
    return {
        "float32": lambda: _vectors.scan_slabs([slab], _nothing, 0, *ranges, query, out, not L2),
        "codes": lambda: _vectors.scan_codes([slab], *ranges, query, 1.0, 0.0, out, ENOUGH),
    }


def _nothing(number: int) -> Any:
    raise AssertionError(number)  # the slab holds its record


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(prog="python -m benchmarks.scans", description=__doc__).parse_args()
    machine = describe_machine(Path(tempfile.gettempdir())) | describe_python()
    print(f"{machine['cpu']}, CPython {machine['version']}, {DIMS} dimensions, ms\n")
    for count in COUNTS:
        for what, call in scans(count).items():
            for kernel in KERNELS:
                if _vectors.kernel_name(kernel) == kernel:
                    print(f"{count:>8,} {what:<8} {kernel:<7} {smallest_ms(call, count):8.3f}")
    _vectors.kernel_name("")


if __name__ == "__main__":
    main()
