"""What the tests of shared versions have in common: values that grow, and reading them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lgkv.langgraph import LgkvSaver
from tests.conformance.checkpoints import config_of, put

__all__ = ["PAD", "VALUES", "as_list", "grow", "history", "read"]

PAD = "p" * 400
"""Makes a value large enough to be stored in pieces."""

VALUES: dict[str, Callable[[int], Any]] = {
    "list": lambda number: [f"{at}{PAD}" for at in range(number)],
    "kept list": lambda number: [f"{at}{PAD}" for at in range(max(0, number - 4), number)],
    "dict": lambda number: {f"k{at}": f"{PAD}{at}" for at in range(number + 8)},
    "changing dict": lambda number: {f"k{at}": f"{PAD}{max(at, number)}" for at in range(20)},
    "opaque": lambda number: PAD * 3 + str(number // 3),
    "tuple": lambda number: (PAD, number, PAD),
}


def grow(saver: LgkvSaver, make: Callable[[int], Any], *, steps: int = 30) -> list[Any]:
    """Put a line of checkpoints, in runs of five; return their configs."""
    configs: list[Any] = [None]
    for number in range(1, steps + 1):
        metadata = {"run_id": f"run{number // 5}"}
        configs.append(
            put(saver, configs[-1], {"a": make(number)}, {"a": f"{number}"}, metadata=metadata)
        )
    return configs[1:]


def as_list(value: Any) -> Any:
    return list(value) if type(value) is tuple else value


def read(saver: LgkvSaver, config: Any, name: str = "a") -> Any:
    found = saver.get_tuple(config)
    assert found is not None
    return found.checkpoint["channel_values"].get(name)


def history(saver: LgkvSaver, thread_id: str = "t") -> dict[str, Any]:
    """Return the values of channel a by checkpoint."""
    return {
        found.checkpoint["id"]: found.checkpoint["channel_values"].get("a")
        for found in saver.list(config_of(thread_id))
    }
