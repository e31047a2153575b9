"""Results as JSON and as a table of medians and ratios."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.backends import BASE
from benchmarks.machine import MEMORY_FILE_SYSTEMS, describe_machine, describe_python
from benchmarks.measures import Sizes
from benchmarks.runner import Results, Series

__all__ = ["FORMAT", "Ratio", "as_json", "ratios", "table", "write_json"]

FORMAT = 1


@dataclass(frozen=True)
class Ratio:
    """How many times as long (or as large) a peer is as the base, paired by round."""

    suite: str
    measure: str
    peer: str
    base: str
    median: float
    minimum: float
    maximum: float


def ratios(series: Sequence[Series]) -> list[Ratio]:
    """Return each peer's ratio to `BASE`, or to the first backend where that did not run."""
    return [
        _ratio(base, peer)
        for of_measure in _by_measure(series)
        for base in (_base(of_measure),)
        for peer in of_measure
        if peer is not base
    ]


def as_json(results: Results, sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Return everything about a run. Times are seconds, sizes bytes."""
    return {
        "format": FORMAT,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(folder),
        "python": describe_python(),
        "sizes": asdict(sizes),
        "durability": [
            _named(row, "suite", "backend", "subject", "says") for row in results.durability
        ],
        "times": [_times(series) for series in results.series],
        "ratios": [asdict(ratio) for ratio in ratios(results.series)],
        "stored_bytes": [
            _named(row, "suite", "filled", "backend", "bytes") for row in results.stored_bytes
        ],
        "skipped": [
            _named(row, "suite", "measure", "backend", "reason") for row in results.skipped
        ],
    }


def write_json(document: dict[str, Any], path: Path) -> None:
    """Write *document* to *path*, whose folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def table(document: dict[str, Any]) -> str:
    """Return the end table of what `as_json` returned."""
    parts = (_heading, _durability_part, _ratio_part, _bytes_part, _skipped_part)
    return "\n\n".join(text for part in parts if (text := "\n".join(part(document))))


def _by_measure(series: Sequence[Series]) -> list[list[Series]]:
    groups: dict[tuple[str, str], list[Series]] = {}
    for one in series:
        groups.setdefault((one.suite, one.measure), []).append(one)
    return list(groups.values())


def _base(of_measure: Sequence[Series]) -> Series:
    return next((one for one in of_measure if one.backend == BASE), of_measure[0])


def _ratio(base: Series, peer: Series) -> Ratio:
    pairs = zip(base.round_medians, peer.round_medians, strict=True)
    of_rounds = [theirs / ours for ours, theirs in pairs]
    return Ratio(
        base.suite, base.measure, peer.backend, base.backend,
        statistics.median(of_rounds), min(of_rounds), max(of_rounds),
    )  # fmt: skip


def _times(series: Series) -> dict[str, Any]:
    calls = sorted(seconds for one_round in series.rounds for seconds in one_round)
    return {
        "suite": series.suite,
        "measure": series.measure,
        "backend": series.backend,
        "calls": len(calls),
        "answer_size": series.answer_size,
        "minimum": calls[0],
        "median": statistics.median(calls),
        "p99": calls[len(calls) * 99 // 100],
        "maximum": calls[-1],
        "round_medians": series.round_medians,
    }


def _named(row: tuple[Any, ...], *names: str) -> dict[str, Any]:
    return dict(zip(names, row, strict=True))


def _heading(document: dict[str, Any]) -> Iterator[str]:
    machine, python = document["machine"], document["python"]
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['system']} {machine['kernel']}"
    yield f"{python['implementation']} {python['version']}, SQLite {python['sqlite']}"
    versions = python["packages"].items()
    yield ", ".join(f"{name} {version}" for name, version in versions if version)
    yield ", ".join(f"{name} {value}" for name, value in document["sizes"].items())
    yield f"file system {machine['file_system']}"
    if machine["file_system"] in MEMORY_FILE_SYSTEMS:
        yield "WARNING: nothing is durable on this file system; choose another with --folder"


def _durability_part(document: dict[str, Any]) -> Iterator[str]:
    yield "Durability, as each backend states it:"
    rows = [[row["backend"], row["subject"], row["says"]] for row in document["durability"]]
    yield from _columns([row for at, row in enumerate(rows) if row not in rows[:at]])


def _ratio_part(document: dict[str, Any]) -> Iterator[str]:
    medians = {
        (row["suite"], row["measure"], row["backend"]): row["median"] for row in document["times"]
    }
    rows = [["suite", "measure", "base", "median", "peer", "median", "peer/base", "min-max"]]
    for ratio in document["ratios"]:
        where = (ratio["suite"], ratio["measure"])
        rows.append([
            *where,
            ratio["base"], _seconds(medians[(*where, ratio["base"])]),
            ratio["peer"], _seconds(medians[(*where, ratio["peer"])]),
            _times_as_long(ratio["median"]),
            f"{_times_as_long(ratio['minimum'])}-{_times_as_long(ratio['maximum'])}",
        ])  # fmt: skip
    if len(rows) > 1:
        yield "Time of a call. peer/base over 1: the base is faster. Ratios are paired by round."
        yield from _columns(rows)


def _bytes_part(document: dict[str, Any]) -> Iterator[str]:
    counts = document["stored_bytes"]
    base = {(r["suite"], r["filled"]): r["bytes"] for r in counts if r["backend"] == BASE}
    rows = [["suite", "filled with", "backend", "bytes on disk", f"to {BASE}"]]
    for row in sorted(counts, key=lambda row: (row["suite"], row["bytes"])):
        ours = base.get((row["suite"], row["filled"]))
        share = f"{row['bytes'] / ours:.2f}" if ours else ""
        rows.append([row["suite"], row["filled"], row["backend"], f"{row['bytes']:,}", share])
    if len(rows) > 1:
        yield "Bytes on disk, the file closed."
        yield from _columns(rows)


def _skipped_part(document: dict[str, Any]) -> Iterator[str]:
    if document["skipped"]:
        yield "Not measured:"
    names = ("suite", "measure", "backend", "reason")
    yield from _columns([[row[name] for name in names] for row in document["skipped"]])


def _columns(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  " + "  ".join(cells).rstrip()


def _times_as_long(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def _seconds(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1 or unit == "µs":
            return f"{seconds * factor:.3g} {unit}"
    raise AssertionError(seconds)
