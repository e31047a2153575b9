"""Results as JSON and as a table of medians and ratios."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.aims import judge
from benchmarks.backends import BASE
from benchmarks.machine import MEMORY_FILE_SYSTEMS, describe_machine, describe_python
from benchmarks.measures import Gauge, Sizes
from benchmarks.runner import Results, Series

__all__ = ["FORMAT", "Ratio", "as_json", "ratios", "table", "write_json"]

FORMAT = 2


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
    """Return everything about a run.

    Times are seconds, sizes bytes; a measure's `unit` says what its figures are.
    """
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
            _named(row, "suite", "filled", "backend", "bytes", "new_bytes")
            for row in results.stored_bytes
        ],
        "aims": [asdict(verdict) for verdict in judge(results, sizes)],
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
    parts = (
        _heading, _durability_part, _ratio_part, _bytes_part, _aims_part, _skipped_part,
    )  # fmt: skip
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
        "unit": series.gauge.value,
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
        (row["suite"], row["measure"], row["backend"]): _quantity(row["median"], row["unit"])
        for row in document["times"]
    }
    rows = [["suite", "measure", "base", "median", "peer", "median", "peer/base", "min-max"]]
    for ratio in document["ratios"]:
        where = (ratio["suite"], ratio["measure"])
        rows.append([
            *where,
            ratio["base"], medians[(*where, ratio["base"])],
            ratio["peer"], medians[(*where, ratio["peer"])],
            _times_as_long(ratio["median"]),
            f"{_times_as_long(ratio['minimum'])}-{_times_as_long(ratio['maximum'])}",
        ])  # fmt: skip
    rows.extend(_without_peer(document, medians))
    if len(rows) > 1:
        yield "Time of a call. peer/base over 1: the base is faster. Ratios are paired by round."
        yield "Those that end in _cpu are without the flush; bytes are the most allocated at once."
        yield from _columns(rows)


def _without_peer(
    document: dict[str, Any], medians: dict[tuple[str, str, str], str]
) -> Iterator[list[str]]:
    """Yield the rows of what ran on one backend only."""
    compared = {(ratio["suite"], ratio["measure"]) for ratio in document["ratios"]}
    for where, median in medians.items():
        if where[:2] not in compared:
            yield [*where, median, "", "", "", ""]


def _bytes_part(document: dict[str, Any]) -> Iterator[str]:
    counts = document["stored_bytes"]
    base = {(r["suite"], r["filled"]): r["bytes"] for r in counts if r["backend"] == BASE}
    rows = [["suite", "filled with", "backend", "bytes on disk", f"to {BASE}", "to new bytes"]]
    for row in sorted(counts, key=lambda row: (row["suite"], row["bytes"])):
        ours = base.get((row["suite"], row["filled"]))
        share = f"{row['bytes'] / ours:.2f}" if ours else ""
        new = f"{row['bytes'] / row['new_bytes']:.2f}" if row["new_bytes"] else ""
        rows.append([row["suite"], row["filled"], row["backend"], f"{row['bytes']:,}", share, new])
    if len(rows) > 1:
        yield "Bytes on disk, the file closed."
        yield from _columns(rows)


def _aims_part(document: dict[str, Any]) -> Iterator[str]:
    rows = [["figure of lgkv", "measured", "aim", ""]]
    for row in document["aims"]:
        figure = "" if row["figure"] is None else f"{row['figure']:.3g}"
        rows.append([row["what"], figure, row["aim"], row["says"]])
    if len(rows) > 1:
        yield "What lgkv aims at. Other sizes than the default ones are not judged."
        yield from _columns(rows)


def _skipped_part(document: dict[str, Any]) -> Iterator[str]:
    measures: dict[tuple[str, str, str], list[str]] = {}
    for row in document["skipped"]:
        where = (row["suite"], row["backend"], row["reason"])
        measures.setdefault(where, []).append(row["measure"])
    if measures:
        yield "Not measured:"
        yield from _columns([
            [suite, backend, reason, ", ".join(names)]
            for (suite, backend, reason), names in measures.items()
        ])  # fmt: skip


def _columns(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  " + "  ".join(cells).rstrip()


def _times_as_long(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def _quantity(figure: float, unit: str) -> str:
    return f"{figure / 1e6:.3g} MB" if unit == Gauge.PEAK_BYTES.value else _seconds(figure)


def _seconds(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1 or unit == "µs":
            return f"{seconds * factor:.3g} {unit}"
    raise AssertionError(seconds)
