"""Every example of docs/cli.md is run, and prints what the page shows: the same words, and figures within 2 %.

After a change of coefficients or words, `make gallery` writes the outputs anew.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.gallery.samples import Sample, folder, printed, samples, shortened
from tests.gallery.transcript import difference

from energylens.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "cli.md").read_text()
SAMPLES = list(samples(PAGE))
COMMAND = re.compile(r"^\$ (energylens .*)$", re.MULTILINE)
UNSHOWN = sorted(set(COMMAND.findall(PAGE)) - {each.commands[-1] for each in SAMPLES})
"""Examples without an output on the page."""


@pytest.fixture
def here() -> Iterator[Path]:
    with folder() as found:
        yield found


def has_written(command: str, here: Path) -> bool:
    """Return whether the file of --plot or --report is there, if the command has any."""
    words = shlex.split(command)
    files = [words[at + 1] for at, word in enumerate(words) if word in ("--plot", "--report")]
    return all((here / file).stat().st_size > 10_000 for file in files)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.commands[-1][:60])
def test_the_page_shows_what_is_printed(sample: Sample, here: Path) -> None:
    command = sample.commands[-1]
    assert difference(sample.shown, shortened(printed(command), sample.keep)) is None, "see `make gallery`"
    assert has_written(command, here)


@pytest.mark.parametrize("command", UNSHOWN, ids=lambda command: command[:60])
def test_an_example_without_output_runs(command: str, here: Path) -> None:
    assert printed(command)
    assert has_written(command, here)


def test_the_page_shows_an_example_of_each_command_that_needs_no_cluster() -> None:
    assert len(SAMPLES) >= 9
    assert all(len(sample.shown.splitlines()) >= 2 for sample in SAMPLES)
    assert {shlex.split(command)[1] for sample in SAMPLES for command in sample.commands} == {
        "plan",
        "explain",
        "diff",
        "fleet",
        "models",
        "audit",
    }


def test_lines_are_picked_by_an_expression() -> None:
    text = "a\n\n\nb  \nc\n\n"
    assert shortened(text, "") == "a\n\nb\nc\n"
    assert shortened(text, "b|c") == "b\nc\n"
    (sample,) = samples("<!-- sample: ^x -->\n\n```console\n$ one\n$ two\nx 1\n```\n")
    assert (sample.commands, sample.keep, sample.shown) == (("one", "two"), "^x", "x 1\n")
    with pytest.raises(ValueError, match="'one': only the last command of a block shows output"):
        list(samples("<!-- sample -->\n\n```console\n$ one\nx\n$ two\n```\n"))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_on_the_page(command: str) -> None:
    assert re.search(rf"`{command}`", PAGE), f"docs/cli.md does not name {command}"


def test_the_exit_codes_of_the_page() -> None:
    inventory = os.fspath(ROOT / "examples" / "inventory.yaml")
    assert CliRunner().invoke(cli, ["plan", "-f", "nowhere.yaml", "--inventory", inventory]).exit_code == 2
