"""Where a benchmark ran: machine, Python, packages."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import sys
from pathlib import Path
from typing import Any, Final

__all__ = ["MEMORY_FILE_SYSTEMS", "describe_machine", "describe_python", "file_system"]

PACKAGES: Final = (
    "lgkv", "lmdb", "cbor2", "xxhash", "numpy", "hnswlib", "langgraph", "langgraph-checkpoint",
    "langgraph-checkpoint-sqlite", "langchain-core", "ormsgpack", "sqlite-vec", "pytest-benchmark",
)  # fmt: skip
MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs"})
"""Where a flush does nothing, so that durable writes cannot be compared."""


def describe_machine(folder: Path) -> dict[str, Any]:
    """Return CPU, cores, system, kernel and the file system that *folder* is on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "kernel": platform.release(),
        "file_system": file_system(folder),
    }


def describe_python() -> dict[str, Any]:
    """Return the versions of Python, SQLite and the packages that were measured."""
    return {
        "implementation": platform.python_implementation(),
        "version": platform.python_version(),
        "build": sys.version,
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: _version(name) for name in PACKAGES},
    }


def file_system(folder: Path) -> str:
    """Return the type of the file system that holds *folder*, "unknown" where nothing tells."""
    mounts = _mounts()
    real = folder.resolve()
    return next((mounts[str(p)] for p in (real, *real.parents) if str(p) in mounts), "unknown")


def _mounts() -> dict[str, str]:
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    fields = [line.split(" ") for line in lines]
    return {point: kind for _, point, kind, *_ in fields}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
