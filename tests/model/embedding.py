"""A deterministic embedding of a few words, whose similarities are far apart."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

__all__ = ["DIMS", "INDEX", "WORDS", "embed"]

DIMS = 7
WORDS = ("tea", "coffee", "milk", "rain", "snow", "sun", "wind")


def _vector(word: str) -> list[float]:
    rng = random.Random(word)
    return [rng.uniform(-1, 1) for _ in range(DIMS)]


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Return a vector for each text; equal texts have equal ones."""
    return [_vector(text) for text in texts]


INDEX: Any = {"dims": DIMS, "embed": embed, "fields": ["text", "notes[*].text"]}
