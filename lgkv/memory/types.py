"""What a caller is given of items."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["SearchPlan", "StoredItem"]


class StoredItem(NamedTuple):
    """An item as it was read; the value is the caller's own.

    `score` is what a search by vector or by words gave it, None without one, and `parts` are
    the scores that it is made of, by "vector" and "keyword". Times are aware, in UTC;
    `expires_at` is None for an item that stays.
    """

    namespace: tuple[str, ...]
    key: str
    value: dict[str, Any]
    created_at: datetime.datetime
    updated_at: datetime.datetime
    score: float | None = None
    expires_at: datetime.datetime | None = None
    parts: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """How a search goes about it, and why.

    `plan` is "field" where the index of a declared field names what can match, `entries`
    items in all; else "recency": the items are tested one after the other, newest first.
    """

    plan: str
    field: str | None
    entries: int | None
    reason: str
