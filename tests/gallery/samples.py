"""Samples on the pages of docs/: commands and what they print, shortened to the lines that a page wants to show.

A comment ``<!-- sample -->`` before a console block, with or without a regular expression after a colon, marks a
sample: the last command of the block is run, and the lines of its output that the expression matches are shown; blank
lines between them stay. The other commands of the block show no output.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from click.testing import CliRunner
from tests.gallery.transcript import NOW, ROOT

from energylens.cli.main import cli
from energylens.clock import SystemClock

PAGE = ROOT / "docs" / "cli.md"
_SAMPLE = re.compile(
    r"^<!-- sample(?:: (?P<keep>.*?))? -->\n\n?```console\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Sample:
    """One block."""

    commands: tuple[str, ...]
    keep: str
    """Regular expression of the lines to show; "" for all."""
    shown: str
    """The output on the page."""


def samples(text: str) -> Iterator[Sample]:
    """Yield the samples of a page.

    Raises:
        ValueError: A block has output after a command that is not its last one.
    """
    for match in _SAMPLE.finditer(text):
        parts = [part.partition("\n") for part in re.split(r"^\$ ", match["body"], flags=re.MULTILINE)[1:]]
        for command, _, output in parts[:-1]:
            if output.strip():
                raise ValueError(f"{command!r}: only the last command of a block shows output")
        yield Sample(tuple(command for command, _, _ in parts), match["keep"] or "", parts[-1][2])


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Enter a folder with the examples and the files that commands of the page name, and leave it again."""
    spec = (ROOT / "examples" / "llama-3.1-70b.yaml").read_text()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        here = Path(name)
        (here / "examples").symlink_to(ROOT / "examples")
        (here / "now.yaml").write_text(spec)
        (here / "proposed.yaml").write_text(spec.replace("itlMilliseconds: 30", "itlMilliseconds: 60"))
        yield here


def printed(command: str) -> str:
    """Return what a command prints to standard output, at the time and the width of every example.

    Raises:
        RuntimeError: The command fails.
    """
    program, *arguments = shlex.split(command)
    if program != "energylens":
        raise ValueError(f"{command!r} is not energylens")
    # The page's width; a worker's own terminal may have none.
    with mock.patch.dict(os.environ, {"COLUMNS": "120"}), mock.patch.object(SystemClock, "now", return_value=NOW):
        result = CliRunner().invoke(cli, arguments)
    if result.exit_code != 0:
        raise RuntimeError(f"{command!r} ended with {result.exit_code}: {result.output}")
    return result.stdout


def shortened(output: str, keep: str) -> str:
    """Return the lines of an output that ``keep`` matches, and single blank lines between them."""
    lines: list[str] = []
    for line in output.splitlines():
        if not line.strip():
            if lines and lines[-1]:
                lines.append("")
        elif re.search(keep, line):
            lines.append(line.rstrip())
    return "\n".join(lines).rstrip("\n") + "\n"


def renewed(text: str) -> str:
    """Return a page with the outputs of today."""
    with folder():
        found = iter([(each, shortened(printed(each.commands[-1]), each.keep)) for each in samples(text)])

    def block(match: re.Match[str]) -> str:
        sample, output = next(found)
        commands = "".join(f"$ {command}\n" for command in sample.commands)
        return match[0].replace(match["body"], commands + output)

    return _SAMPLE.sub(block, text)


def write() -> bool:
    """Replace the outputs on the page by those of today; return whether anything changed."""
    old = PAGE.read_text()
    new = renewed(old)
    PAGE.write_text(new)
    return new != old
