"""The extensions built with AddressSanitizer and UBSan, and the hostile tests run on that build.

    python -m tests.fuzz.sanitized [pytest's options]

Everything is made anew in `build/sanitized`, a copy of what the tests need, and nothing of it
touches the extensions in use. Before the tests run, `overrun.pyx` shows that faults are noticed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

__all__ = ["UnavailableError", "build", "environment", "preloads", "run"]

ROOT: Final = Path(__file__).resolve().parents[2]
PLACE: Final = ROOT / "build" / "sanitized"
FLAGS: Final = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
RUNTIMES: Final = ("libasan.so", "libubsan.so", "libstdc++.so")
"""Libraries that must be there before Python is; the last for extensions in C++."""

SUITE: Final = (
    "tests/unit/test_heads.py",
    "tests/unit/test_items.py",
    "tests/unit/test_models.py",
    "tests/unit/test_native.py",
    "tests/unit/test_msgpack.py",
    "tests/unit/test_recycling.py",
    "tests/unit/test_shadow.py",
    "tests/unit/test_vector_kernels.py",
    "tests/unit/test_vector_pruning.py",
    "tests/fuzz",
)


class UnavailableError(Exception):
    """The machine has no sanitisers; the message says what is missing."""


def preloads() -> list[str]:
    """Return the sanitisers' libraries, and what must be loaded before them.

    Raises:
        UnavailableError: The system or the compiler has none.
    """
    if sys.platform != "linux":
        raise UnavailableError(f"the sanitised build is for Linux; this is {sys.platform}")
    compiler = compiler_name()
    if shutil.which(compiler) is None:
        raise UnavailableError(f"there is no {compiler}: install gcc, or name it in CC")
    found = []
    for name in RUNTIMES:
        command = [compiler, f"-print-file-name={name}"]
        path = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        if not os.path.isabs(path):
            raise UnavailableError(f"{compiler} has no {name}: install its sanitisers' libraries")
        found.append(os.path.realpath(path))
    return found


def compiler_name() -> str:
    """Return the C compiler's name, as setuptools finds it."""
    return (os.environ.get("CC") or sysconfig.get_config_var("CC") or "gcc").split()[0]


def build(place: Path = PLACE) -> None:
    """Copy the package and its tests to `place` and build the extensions there."""
    shutil.rmtree(place, ignore_errors=True)
    no_binaries = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    for folder in ("lgkv", "tests", "ext"):
        shutil.copytree(ROOT / folder, place / folder, ignore=no_binaries)
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, place / name)
    compile_in(place, "setup.py", "build_ext", "--inplace")
    compile_in(place, "-c", SETUP_OVERRUN, "build_ext", "--inplace")
    for binary in (place / "lgkv").glob("_*.so"):
        if b"__asan_init" not in binary.read_bytes():
            raise AssertionError(f"{binary} was built without AddressSanitizer")


SETUP_OVERRUN: Final = """
from Cython.Build import cythonize
from setuptools import Extension, setup
source = Extension("overrun", ["tests/fuzz/overrun.pyx"])
setup(name="overrun", py_modules=[], ext_modules=cythonize([source], build_dir="build"))
"""


def compile_in(place: Path, *command: str) -> None:
    """Run Python in `place` with the sanitisers' flags for its compiler."""
    flags = {"CFLAGS": FLAGS, "LDFLAGS": "-fsanitize=address,undefined", "CC": compiler_name()}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=place,
        env={**os.environ, **flags},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UnavailableError(f"the sanitised build failed:\n{done.stdout}{done.stderr}")


IMPORT_ALL: Final = """
import os, lgkv, sys
names = [name for name in sys.modules if name.startswith("lgkv._")]
assert names and all(sys.modules[name].__file__.startswith(os.getcwd()) for name in names), names
"""


def environment(libraries: list[str]) -> dict[str, str]:
    """Return the variables under which a Python runs sanitised.

    Every object has an allocation of its own, and a request for more than 256 MiB is a MemoryError.
    """
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONMALLOC": "malloc",
        # hnswlib's binding deletes an array of its answers as one object.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=256"
        ":alloc_dealloc_mismatch=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def run(libraries: list[str], *command: str, place: Path = PLACE) -> tuple[int, str]:
    """Run Python on the sanitised build; return its exit code and what stands in its errors."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=place,
        env=environment(libraries),
        check=False,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    return done.returncode, done.stderr


def check_that_faults_are_noticed(libraries: list[str]) -> None:
    """Make the faults of `overrun.pyx`, each of which must end the process."""
    code, errors = run(libraries, "-c", IMPORT_ALL)
    if code:
        raise AssertionError(f"the sanitised extensions are not those in use:\n{errors}")
    for call, word in (
        ("read_behind(b'x' * 100)", "heap-buffer-overflow"),
        ("overflow(1)", "signed integer overflow"),
    ):
        code, errors = run(libraries, "-c", f"import overrun; overrun.{call}")
        if code == 0 or word not in errors:
            raise AssertionError(f"{call} was not noticed; exit code {code}:\n{errors}")


def main() -> int:
    try:
        libraries = preloads()
        print(f"building the extensions with the sanitisers of {compiler_name()} ...", flush=True)
        build()
    except UnavailableError as error:
        print(f"no sanitised build: {error}", file=sys.stderr)
        return 1 if sys.platform == "linux" else 0
    check_that_faults_are_noticed(libraries)
    print("two faults made on purpose were noticed", flush=True)
    # What the sanitisers write must not be kept by pytest, which dies with it.
    code, errors = run(libraries, "-m", "pytest", "--capture=sys", *SUITE, *sys.argv[1:])
    print(f"{errors}the sanitised tests ended with {code}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
