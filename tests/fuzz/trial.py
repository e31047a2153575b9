"""One damaged file after another, opened by a victim, and what must not come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.fuzz.damage import Damage, Sample
from tests.fuzz.sample import EVERYWHERE
from tests.fuzz.victim import Outcome, Victim

__all__ = ["Trial", "faults"]


class Trial:
    """What all calls give on damaged copies of a file, beside what they give on the file."""

    def __init__(self, sample: Sample, victim: Victim, folder: Path) -> None:
        self.sample: Final = sample
        self._victim, self._path = victim, folder / "damaged.lgkv"
        self._good = self.open(None)
        wrong = {
            name: outcome for name, outcome in self._good.items() if outcome.verdict != "right"
        }
        assert not wrong, f"calls fail on the undamaged file: {wrong}"

    def open(self, damage: Damage | None) -> dict[str, Outcome]:
        """Return what all calls give on a file with this damage, in order and by name."""
        for each in (self._path, self._path.with_name(self._path.name + "-lock")):
            each.unlink(missing_ok=True)
        self.sample.copy_to(str(self._path))
        if damage is not None:
            damage.apply(str(self._path))
        return self._victim(str(self._path))

    def faults(self, damage: Damage, found: dict[str, Outcome]) -> list[str]:
        """Return what must not come of this damage."""
        return faults(found, self._good, self.sample.group(damage))


def faults(found: dict[str, Outcome], good: dict[str, Outcome], group: str | None) -> list[str]:
    """Return the errors without a type of their own, and what is felt outside the group."""
    wrong = []
    for name, outcome in found.items():
        if outcome.verdict == "wrong":
            wrong.append(f"{name}: {outcome.result}")
        elif group is not None and outcome.group not in (group, EVERYWHERE, ""):
            same = name.startswith("then ") or outcome.result == good[name].result
            if outcome.verdict != "right" or not same:
                wrong.append(f"{name} should not have felt it: {outcome.result}")
    return wrong
