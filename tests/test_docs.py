"""What the documents say is tried: their Python, their links, their numbers and their bytes."""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import lmdb
import pytest

import lgkv
from lgkv.codec.plan import Form
from lgkv.layout import FORMAT_VERSION, Kind, Table

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
TEST = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)


@dataclass
class Block:
    """A fenced block of a document, and where it begins."""

    language: str
    body: str
    line: int


def blocks(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], text[: found.start(2)].count("\n"))
        for found in FENCE.finditer(text)
    ]


def prose(document: Path) -> str:
    return FENCE.sub("", document.read_text(encoding="utf-8"))


# --- Python --------------------------------------------------------------------------------


@each_document
def test_python_of_a_document_runs_and_prints_what_it_says(
    document: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Run the blocks in order in one namespace; a `text` block after one is its output."""
    monkeypatch.chdir(tmp_path)
    checker = doctest.OutputChecker()

    for block, expected in run_python(document, monkeypatch):
        printed = capsys.readouterr().out
        assert checker.check_output(expected, printed, doctest.ELLIPSIS), (
            f"{document.name}:{block.line + 1} prints\n{printed}"
        )


def run_python(document: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Block, str]]:
    """Run each Python block, then yield it with the output that the document shows."""
    module = types.ModuleType("document")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found = [*blocks(document), Block("", "", 0)]
    for block, following in pairwise(found):
        if block.language == "python":
            source = "\n" * block.line + block.body
            code = compile(source, str(document), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, vars(module))
            if inspect.iscoroutine(result):
                asyncio.run(result)
            yield block, following.body if following.language == "text" else ""


# --- links, commands, names ----------------------------------------------------------------


@each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    for target, anchor in LINK.findall(prose(document)):
        if target.startswith(("http://", "https://")):
            continue
        page = (document.parent / target).resolve() if target else document
        assert page.exists(), target
        if anchor:
            headings = HEADING.findall(page.read_text(encoding="utf-8"))
            assert anchor in [slug(heading) for heading in headings], f"{target}#{anchor}"


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@each_document
def test_every_make_target_that_is_named_exists(document: Path) -> None:
    targets = re.findall(
        r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    named = re.findall(r"(?:`|^)make ([a-z]+)", document.read_text(encoding="utf-8"), re.MULTILINE)

    assert set(named) <= set(targets)


@each_document
def test_every_file_of_the_project_that_is_named_exists(document: Path) -> None:
    folders = "benchmarks|docs|examples|ext|lgkv|tests"
    for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", prose(document)):
        assert (ROOT / name).exists(), name


@each_document
def test_every_test_that_is_named_exists(document: Path) -> None:
    tests = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in TEST.findall(file.read_text(encoding="utf-8"))
    }
    assert set(re.findall(r"`(test_\w+)`", prose(document))) <= tests


def test_readme_starts_with_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    start = text.split("\n## Start\n")[1].split("\n## ")[0]

    assert re.findall(r"^make .*$", start, re.MULTILINE) == ["make demo", "make test"]


def test_changelog_names_the_version_and_its_file_format() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = text.split("\n## ")[1]

    assert newest.startswith(lgkv.__version__)
    assert f"File format version: {FORMAT_VERSION}." in newest


def test_design_shows_the_layers_that_are_checked() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r"^layers = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert found is not None
    design = (ROOT / "docs" / "DESIGN.md").read_text(encoding="utf-8")
    shown = re.search(r"```layers\n(.*?)```", design, re.DOTALL)
    assert shown is not None

    assert shown[1].splitlines() == re.findall(r'"(.*)"', found[1])


# --- the file format -----------------------------------------------------------------------

FORMAT = ROOT / "docs" / "FORMAT.md"
BEGIN_NS = 1_767_225_600_000_000_000  # 2026-01-01 00:00:00 UTC


def test_format_document_has_every_kind_of_key_under_its_number() -> None:
    rows = re.findall(r"^\| `0x([1-9]\w)` \| `(\w+)` \|", prose(FORMAT), re.MULTILINE)

    assert {name: int(number, 16) for number, name in rows} == {k.name: k.value for k in Kind}


def test_format_document_has_every_form_of_a_value_under_its_number() -> None:
    rows = re.findall(r"^\| `0x(0\w)` \| `(\w+)` \|", prose(FORMAT), re.MULTILINE)

    assert {name: int(number, 16) for number, name in rows} == {f.name: f.value for f in Form}


def test_format_document_has_every_table_under_its_number() -> None:
    rows = re.findall(r"^\| (\d) \| `(\w+)` \|", prose(FORMAT), re.MULTILINE)

    assert {name: int(number) for number, name in rows} == {t.label: t.value for t in Table}


@dataclass
class Record:
    """A record as the document shows it: a table, a key and the stored bytes."""

    table: str
    key: bytes = b""
    record: bytes = b""
    parts: dict[str, str] = field(default_factory=lambda: {"key": "", "record": ""})


def test_format_document_shows_the_bytes_that_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.time_ns", lambda: BEGIN_NS)
    monkeypatch.setattr("os.urandom", lambda size: bytes(range(size)))
    for _ in run_python(FORMAT, monkeypatch):
        pass
    monkeypatch.undo()
    shown = [record for b in blocks(FORMAT) if b.language == "bytes" for record in parse(b)]

    assert {(r.table, r.key.hex(" ")): r.record.hex(" ") for r in shown} == {
        (table, key.hex(" ")): record.hex(" ")
        for (table, key), record in stored(tmp_path / "example.lgkv").items()
    }


def parse(block: Block) -> list[Record]:
    """Read `table`, `key` and `record` lines; after a semicolon comes a remark."""
    records: list[Record] = []
    part = ""
    for line in block.body.splitlines():
        code = line.split(";")[0]
        first, _, rest = code.strip().partition(" ")
        if first == "table":
            records.append(Record(rest.strip()))
            continue
        if first in ("key", "record"):
            part, code = first, rest
        if code.strip():
            records[-1].parts[part] += code
    for record in records:
        record.key = bytes.fromhex(record.parts["key"])
        record.record = bytes.fromhex(record.parts["record"])
    return records


def stored(path: Path) -> dict[tuple[str, bytes], bytes]:
    """Return every record of a file as LMDB alone sees it."""
    labels = {table: table.label.encode() for table in Table if table is not Table.MAIN}
    env = lmdb.open(
        str(path), subdir=False, readonly=True, lock=False, max_dbs=len(labels), lib_version=0
    )
    found = {}
    with env, env.begin() as txn:
        for table in Table:
            handle = env.open_db(labels.get(table), txn, create=False)
            for key, value in txn.cursor(handle):
                if table is Table.MAIN and key in labels.values():
                    continue  # LMDB's own: where the table's tree begins
                found[table.label, key] = value
    return found
