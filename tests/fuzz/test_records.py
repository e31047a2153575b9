"""Files in which one record says what it may not, under a checksum that is right.

Whatever it says, every call ends, in bounded memory, and gives a value or an error that names
the damage; and what is not of the damaged record's kin reads and writes as if nothing were.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from typing import Final

import pytest
import zstandard
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lgkv._native import seal
from lgkv.layout import FLAG_COMPRESSED, META_KEY, STATE_KEY, Kind, Table, open_record
from tests.fuzz.damage import Damage, Sample, described
from tests.fuzz.sample import EVERYWHERE
from tests.fuzz.trial import Trial, faults
from tests.fuzz.victim import ALLOWANCE_BYTES, Outcome, Victim, VictimError

KINDS: Final = [META_KEY.decode(), STATE_KEY.decode(), *(kind.name for kind in Kind)]
fuzz = settings(
    max_examples=settings.default.max_examples // 50,
    derandomize=settings.default.max_examples <= 100,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # another seed is another damage, not a smaller one
)


def test_sample_has_records_of_every_kind(sample: Sample) -> None:
    assert set(sample.records) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@fuzz
@given(seed=st.integers(0, 2**48))
def test_damage_is_found_named_and_contained(trial: Trial, kind: str, seed: int) -> None:
    damage = trial.sample.damage(kind, random.Random(seed))
    try:
        wrong = trial.faults(damage, trial.open(damage))
    except VictimError as error:
        wrong = [str(error)]
    assert not wrong, "\n".join([described(damage, seed), *wrong])


# --- compressed records --------------------------------------------------------------------


def claimed(size: int, blocks: bytes) -> bytes:
    """Return a Zstandard frame that claims a content of `size` octets."""
    return b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little") + blocks


REPEATED: Final = b"\x02\x00\x10\x00"
"""A block of 128 KiB of zeros, which is not the last."""

BOMBS: Final = {
    "claims 2 GiB": claimed(0x7FFF_0000, b"\x01\x00\x00"),
    "claims 2**63": claimed(2**63, b"\x01\x00\x00"),
    "claims a little, gives 1 GiB": claimed(100, REPEATED * 8192 + b"\x01\x00\x00"),
    "claims nothing, gives 1 GiB": b"\x28\xb5\x2f\xfd\x00\x58" + REPEATED * 8192 + b"\x01\x00\x00",
    "claims more than it gives": claimed(1 << 20, REPEATED + b"\x01\x00\x00"),
    "two frames": zstandard.compress(b"a" * 999) * 2000,
    "no frame": b"\0" * 40,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_compressed_bomb_is_refused_before_there_is_room_made_for_it(
    trial: Trial, bomb: str
) -> None:
    for kind in ("PACK", "PIECE"):
        table, key, _ = trial.sample.records[kind][0]
        damage = Damage(table, key, (key, seal(table, key, FLAG_COMPRESSED, BOMBS[bomb])))
        found = trial.open(damage)
        assert not trial.faults(damage, found)
        assert any("damaged data" in outcome.result for outcome in found.values())


def test_frame_gives_no_more_than_is_allowed_for_its_size() -> None:
    """The densest frame that there is, of blocks that repeat an octet, is read."""
    count = 64
    frame = claimed(count << 17, REPEATED * (count - 1) + b"\x03\x00\x10\x00")
    record = seal(Table.MEMORY, b"key", FLAG_COMPRESSED, frame)
    assert open_record(Table.MEMORY, b"key", record) == bytes(count << 17)


# --- what does the looking -----------------------------------------------------------------


class TestVictim:
    """Faults that are put in on purpose are seen."""

    @staticmethod
    def planted(name: str, limit_s: float = 60.0) -> Iterator[Victim]:
        process = Victim(f"tests.fuzz.planted:{name}", limit_s)
        yield process
        process.close()

    def test_crash_is_told_and_the_next_file_is_opened(self) -> None:
        for victim in self.planted("crash_once"):
            with pytest.raises(VictimError, match="ended with"):
                victim("crash")
            assert victim("go on") == {}

    def test_hang_is_told(self) -> None:
        for victim in self.planted("hang", 2.0):
            with pytest.raises(VictimError, match="hangs"):
                victim("path")

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts what a process takes")
    def test_bomb_is_told(self) -> None:
        for victim in self.planted("take"):
            found = victim(str(2 * ALLOWANCE_BYTES))["take"]
            assert "MemoryError" in found.result
            assert victim("1000")["take"].verdict == "right"

    @pytest.mark.parametrize(
        ("found", "wrong"),
        [
            (Outcome("here", "typed", "CorruptionError"), 0),
            (Outcome("here", "wrong", "KeyError"), 1),
            (Outcome("elsewhere", "right", "digest"), 0),
            (Outcome("elsewhere", "right", "another"), 1),
            (Outcome("elsewhere", "typed", "CorruptionError"), 1),
            (Outcome(EVERYWHERE, "typed", "CorruptionError"), 0),
        ],
    )
    def test_damage_that_leaks_is_told(self, found: Outcome, wrong: int) -> None:
        undamaged = {"get": Outcome(found.group, "right", "digest")}
        assert len(faults({"get": found}, undamaged, "here")) == wrong
