"""Build the Cython extensions; everything else is in pyproject.toml."""

import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

COMPILE_ARGS = ["/O2", "/W3"] if sys.platform == "win32" else ["-O2", "-Wall", "-Wextra"]

setup(
    ext_modules=cythonize(
        [
            Extension(f"lgkv.{name}", [f"ext/{name}.pyx"], extra_compile_args=COMPILE_ARGS)
            for name in ("_heads", "_items", "_msgpack", "_native", "_plain", "_shadow", "_vectors")
        ],
        build_dir="build/cython",
        language_level=3,
    ),
)
