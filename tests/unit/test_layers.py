"""What an import brings with it. `make check` has the layers of the modules themselves."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lgkv import _native


def run(program: str, *arguments: str) -> str:
    """Run *program* in a fresh interpreter and return what it prints."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("name", ["langgraph", "langchain_core", "asyncio"])
def test_importing_lgkv_leaves_the_layer_of_langgraph_alone(name: str) -> None:
    assert run(f"import lgkv, sys; print({name!r} in sys.modules)") == "False"


def test_engine_works_where_langgraph_is_not_installed(tmp_path: object) -> None:
    program = """
import sys
sys.modules.update(dict.fromkeys(["langchain_core", "langgraph"]))  # an import of them fails
import lgkv
with lgkv.open(sys.argv[1]) as db:
    db.memory.put(("facts",), "tea", {"text": "likes tea"})
    print(db.memory.get(("facts",), "tea").value["text"])
"""
    assert run(program, f"{tmp_path}/agent.lgkv") == "likes tea"


def test_extension_imports_nothing_of_lgkv() -> None:
    program = """
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.ExtensionFileLoader("_native", sys.argv[1])
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("_native", loader))
loader.exec_module(module)
print([name for name in sys.modules if name.startswith("lgkv")])
"""
    assert run(program, _native.__file__) == "['lgkv._native']"
