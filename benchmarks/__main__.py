"""The command line: `python -m benchmarks`, which `make bench` calls."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from benchmarks.measures import DEFAULT_SIZES, QUICK_SIZES, Sizes
from benchmarks.report import as_json, table, write_json
from benchmarks.runner import Results, run_suite
from benchmarks.workloads import SUITES, Suite

__all__ = ["main"]

RESULTS: Final = Path(__file__).parent / "results"
BACKENDS: Final = tuple(
    dict.fromkeys(backend.name for suite in SUITES.values() for backend in suite.backends)
)
SIZE_NAMES: Final = tuple(field.name for field in fields(Sizes))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for, write the JSON, print the table."""
    options = _parser().parse_args(arguments)
    sizes = _sizes(options)
    results = Results()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="run-") as folder:
        report = _progress(time.monotonic())
        for suite in _suites(options, results):
            run_suite(suite, sizes, Path(folder), results, report=report)
    document = as_json(results, sizes, options.folder)
    write_json(document, options.json)
    sys.stdout.write(f"{table(document)}\n\nJSON: {options.json}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    parser.add_argument("--quick", action="store_true", help="small sizes, a minute or two")
    parser.add_argument(
        "--full", action="store_true",
        help="let the slow backends run the long suites too, once: half an hour and 10 GB",
    )  # fmt: skip
    parser.add_argument("--only", action="append", choices=SUITES, help="this suite; repeatable")
    parser.add_argument(
        "--backend", action="append", choices=BACKENDS, help="this backend; repeatable"
    )
    parser.add_argument(
        "--size", action="append", type=_size, default=[], metavar="NAME=NUMBER",
        help=f"set one of {', '.join(SIZE_NAMES)}; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--json", type=Path, default=RESULTS / f"{now}.json", metavar="FILE",
        help="where the results go (default: a file named by the time in benchmarks/results/)",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=RESULTS,
        help="where the measured files live; must be on a real disk (default: benchmarks/results/)",
    )  # fmt: skip
    return parser


def _size(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in SIZE_NAMES or not number.isdecimal() or int(number) < 1:
        message = f"{text!r} is not NAME=NUMBER with one of {', '.join(SIZE_NAMES)}"
        raise argparse.ArgumentTypeError(message)
    return name, int(number)


def _sizes(options: argparse.Namespace) -> Sizes:
    sizes = QUICK_SIZES if options.quick else DEFAULT_SIZES
    if options.full:
        sizes = replace(sizes, long_rounds=1)
    return replace(sizes, **dict(options.size))


def _suites(options: argparse.Namespace, results: Results) -> Iterator[Suite]:
    for name in options.only or SUITES:
        suite = SUITES[name]
        wanted = {*(options.backend or BACKENDS)}
        if not options.full:
            slow = [b.name for b in suite.backends if b.name in wanted & suite.slow]
            results.skipped.extend(
                (name, measure, backend, "slow: give --full")
                for measure in suite.measure_names
                for backend in slow
            )
            wanted -= suite.slow
        backends = tuple(backend for backend in suite.backends if backend.name in wanted)
        if backends:
            yield replace(suite, backends=backends)


def _progress(start: float) -> Callable[[str], None]:
    def report(what: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - start:5.0f} s] {what}\n")

    return report


if __name__ == "__main__":
    sys.exit(main())
