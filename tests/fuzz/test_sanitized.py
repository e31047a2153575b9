"""What `make fuzz` says where it cannot build with sanitisers, and what it needs where it can."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.fuzz import sanitized
from tests.fuzz.sanitized import UnavailableError

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the build")


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems_are_told_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], system: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert sanitized.main() == 0
    assert f"the sanitised build is for Linux; this is {system}" in capsys.readouterr().err


@linux_only
def test_missing_compiler_is_named_and_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -pthread")
    assert sanitized.main() == 1
    assert "there is no no-such-compiler: install gcc" in capsys.readouterr().err


@linux_only
def test_compiler_without_the_libraries_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho libasan.so\n")  # as gcc answers for what it lacks
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(UnavailableError, match=r"cc has no libasan\.so: install"):
        sanitized.preloads()


@linux_only
def test_failed_build_shows_what_the_compiler_said(tmp_path: Path) -> None:
    program = "import sys; sys.exit('error: no such file')"
    with pytest.raises(UnavailableError, match="error: no such file"):
        sanitized.compile_in(tmp_path, "-c", program)
