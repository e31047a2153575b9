"""What a tool has found."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

__all__ = ["Result", "table"]

SHOWN = 5


@dataclass
class Result:
    """How many files were checked, how many steps were acknowledged, what was wrong."""

    tool: str
    setting: str
    checked: int = 0
    steps: int = 0
    faults: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def count(self, fault: str, *, checked: int = 0) -> None:
        """Add a fault unless it is empty."""
        self.checked += checked
        self.seconds = time.monotonic() - self.began
        if fault:
            self.faults.append(fault)


def table(results: list[Result]) -> str:
    """Return results as a table, with the first faults below it."""
    rows = [("tool", "setting", "checked", "steps", "seconds", "faults")]
    rows += [
        (
            each.tool,
            each.setting,
            f"{each.checked:,}",
            f"{each.steps:,}",
            f"{each.seconds:,.0f}",
            f"{len(each.faults):,}",
        )
        for each in results
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    shown = [
        f"{each.tool}, {each.setting}: {why}" for each in results for why in each.faults[:SHOWN]
    ]
    return "\n".join([*lines, *shown])
