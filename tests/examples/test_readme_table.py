"""The table in README.md names tests that are there."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

HERE = Path(__file__).resolve().parent
TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
NAMED = re.compile(r"`(?:[\w.]+::|…::)?(test_[\w…]+(?:\.py)?)`")


def test_every_test_in_the_table_exists() -> None:
    files = {file.name: file.read_text(encoding="utf-8") for file in HERE.glob("test_*.py")}
    tests = {name for text in files.values() for name in TEST.findall(text)}
    table = (HERE / "README.md").read_text(encoding="utf-8")
    named = set(NAMED.findall(table)) | set(re.findall(r"test_\w+\.py", table))

    missing = {
        name
        for name in named
        if name not in files
        and not any(fnmatchcase(test, name.replace("…", "*")) for test in tests)
    }

    assert named
    assert missing == set()
