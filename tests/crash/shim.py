"""The library that records and fails a worker's writes, and workers that run under it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import lgkv
from tests.crash.checker import ROOT

__all__ = ["Run", "build_shim", "clear_folder", "make_file", "run_worker", "why_no_shim"]

SOURCE = Path(__file__).with_name("ioshim.c")
LIMIT_S = 100


def why_no_shim() -> str:
    """Return why the library cannot be used here; empty if it can."""
    if not sys.platform.startswith("linux"):
        return "the recorder of writes is for Linux"
    if compiler() is None:
        return "there is no C compiler"
    return ""


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build_shim(folder: Path) -> Path:
    """Compile the library into `folder`."""
    command, library = compiler(), folder / "ioshim.so"
    assert command is not None
    subprocess.run(
        [command, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"],
        check=True,
        capture_output=True,
        timeout=LIMIT_S,
    )
    return library


@dataclass(frozen=True)
class Run:
    """How a worker ended, and what it told. `code` is None for one that did not end."""

    code: int | None
    tried: list[str]
    acknowledged: list[str]
    errors: str


def run_worker(shim: Path, path: Path, options: Sequence[str], variables: Mapping[str, str]) -> Run:
    """Run a worker on lane 0 of the file at `path`; its folder is watched."""
    environment = os.environ | {f"IOSHIM_{name}": text for name, text in variables.items()}
    environment |= {"LD_PRELOAD": str(shim), "IOSHIM_ROOT": str(path.parent) + os.sep}
    code: int | None
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.crash.worker", str(path), "0", *options],
            env=environment,
            capture_output=True,
            cwd=ROOT,
            timeout=LIMIT_S,
            check=False,
        )
        code, output, errors = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        code, output, errors = None, error.stdout or b"", error.stderr or b""
    told = [line.split(" ", 1) for line in output.decode().splitlines() if " " in line]
    return Run(
        code,
        [token for word, token in told if word == "TRY"],
        [token for word, token in told if word == "ACK"],
        errors.decode(),
    )


def make_file(path: Path) -> None:
    """Make an empty lgkv file."""
    lgkv.open(path, map_size_bytes=1 << 28).close()


def clear_folder(folder: Path) -> None:
    """Leave an empty folder, made if it is not there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
