"""Transcripts: commands that begin with ``$ `` and what each of them prints; replayed, and compared."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

from click.testing import CliRunner
from tests.gallery.scenario import play

from energylens.cli.main import cli
from energylens.clock import SystemClock

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
"""The time of every example; forecasts and periods of budgets depend on it."""
TOLERANCE = 0.02
"""How far a figure may be from the expected one, relative: other builds of NumPy round otherwise."""
PLAYER = ("python", "-m", "tests.gallery", "play")
_NUMBER = re.compile(r"(?<![\w.-])[-+]?\d+(?:\.\d+)?(?=m?\b)")
_HASH = re.compile(r"\b[0-9a-f]{16}\b")
_PREDICTOR = re.compile(r"predictor \S+")


def transcripts() -> list[Path]:
    """Return the expected.txt of every example."""
    return sorted(EXAMPLES.glob("*/expected.txt"))


def replay(text: str) -> str:
    """Return the transcript of the commands in ``text``, run from the root of the checkout at :data:`NOW`."""
    commands = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    with contextlib.chdir(ROOT), mock.patch.object(SystemClock, "now", return_value=NOW):
        return "\n".join(f"$ {command}\n{_run(shlex.split(command))}" for command in commands)


def _run(words: list[str]) -> str:
    if tuple(words[: len(PLAYER)]) == PLAYER:
        return play(Path(words[-1]))
    program, *arguments = words
    if program != "energylens":
        raise ValueError(f"{program!r} is neither energylens nor {' '.join(PLAYER)}")
    with mock.patch.dict(os.environ, {"COLUMNS": "120"}):
        result = CliRunner().invoke(cli, arguments)
    if result.exit_code not in (0, 3):
        raise RuntimeError(f"{shlex.join(words)} ended with {result.exit_code}: {result.output}")
    return result.output + (f"(exit code {result.exit_code})\n" if result.exit_code else "")


def difference(expected: str, found: str) -> str | None:
    """Return the first place where two transcripts differ in shape, in words, or in a figure by over 2 %.

    Candidates that were not chosen, and how many were removed by which rule, are not compared: they are there to be
    read. Hashes and the version of the predictor may differ.
    """
    ours, theirs = list(_compared(expected)), list(_compared(found))
    for one, other in zip(ours, theirs, strict=False):
        if _words(one) != _words(other) or not all(map(_near, _figures(one), _figures(other))):
            return f"expected  {one.strip()}\nfound     {other.strip()}"
    if len(ours) != len(theirs):
        alone = max(ours, theirs, key=len)[min(len(ours), len(theirs))]
        return f"{len(ours)} lines expected, {len(theirs)} found; the first without a partner: {alone}"
    return None


def _compared(text: str) -> Iterator[str]:
    table = False
    for line in filter(None, text.splitlines()):
        if line.endswith("WHY NOT"):
            table = True
        elif table and line.startswith(("     ", "  *")):
            if "  *" not in line[:3]:
                continue
        elif re.match(r" +\d+  \w+: ", line):
            continue
        else:
            table = False
        yield line


def _words(line: str) -> list[str]:
    return _NUMBER.sub("#", _PREDICTOR.sub("predictor", _HASH.sub("HASH", line))).split()


def _figures(line: str) -> list[float]:
    return [float(number) for number in _NUMBER.findall(_PREDICTOR.sub("", _HASH.sub("", line)))]


def _near(one: float, other: float) -> bool:
    # A whole number may be rounded the other way; small ones are counts, which must be equal.
    rounding = 1.0 if one.is_integer() and other.is_integer() and one > 20 else 0.0
    return abs(one - other) <= max(TOLERANCE * abs(one), rounding)


def write(path: Path) -> bool:
    """Replace the outputs of a transcript by those of today; return whether anything changed."""
    old = path.read_text()
    new = replay(old)
    path.write_text(new)
    return new != old
