"""Python programs that a test runs beside itself."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Program", "run_program"]

LIMIT_S = 60


def run_program(code: str, *arguments: str, **options: object) -> str:
    """Run `code` to its end and return what it printed; its failure is the test's."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, f"ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


class Program:
    """A running program, spoken to in lines. `kill` is SIGKILL; leaving the `with` ends it."""

    def __init__(self, code: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """Return the next line of its standard output."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the program ended with {self._process.wait(LIMIT_S)}"
        return line.rstrip("\n")

    def lines(self) -> Iterator[str]:
        """Yield the rest of its output, to its end."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield line.rstrip("\n")

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._process.kill()
        self._process.wait(LIMIT_S)

    def finish(self) -> None:
        """Close its input and wait until it ends, which it must do well."""
        self._process.communicate(timeout=LIMIT_S)
        assert self._process.returncode == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                stream.close()
