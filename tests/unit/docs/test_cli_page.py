"""Every example of docs/cli.md is run: it exits as said, and prints the headings that the page shows.

Figures are not compared: they are those of the coefficients of the day.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from energylens.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "cli.md").read_text()
BLOCKS = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^\s*(?:[A-Z][A-Z/ -]*[A-Z]|W SAVED)(?:  +\S.*)?$")


def examples() -> list[tuple[str, str]]:
    """Return each command and what the page shows of its output."""
    found = []
    for block in BLOCKS:
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def cells(line: str) -> set[str]:
    """Return the columns of a heading; which there are depends on the figures, such as nodes where it is several."""
    return set(re.split(r"\s{2,}", line.strip()))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    spec = (ROOT / "examples" / "llama-3.1-70b.yaml").read_text()
    (tmp_path / "now.yaml").write_text(spec)
    (tmp_path / "proposed.yaml").write_text(spec.replace("itlMilliseconds: 30", "itlMilliseconds: 60"))
    monkeypatch.chdir(tmp_path)
    # The page's width; a worker's own terminal may have none.
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.mark.parametrize(("command", "shown"), examples(), ids=lambda text: text.partition("\n")[0][:60])
def test_the_example_runs_and_has_the_headings_shown(command: str, shown: str, here: Path) -> None:
    program, *arguments = shlex.split(command)
    assert program == "energylens"
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    printed = [cells(line) for line in result.stdout.splitlines()]
    headings = [line for line in shown.splitlines() if HEADING.match(line) or line.endswith(":")]
    assert [heading for heading in headings if not any(cells(heading) <= line for line in printed)] == []
    for option in ("--plot", "--report"):
        if option in arguments:
            assert (here / arguments[arguments.index(option) + 1]).stat().st_size > 10_000


def test_the_page_shows_headings_and_an_example_of_each_command_that_needs_no_cluster() -> None:
    assert sum(bool(HEADING.match(line)) for _, shown in examples() for line in shown.splitlines()) >= 8
    shown = {shlex.split(command)[1] for command, _ in examples()}
    assert shown == {"plan", "explain", "diff", "fleet", "models", "audit"}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_on_the_page(command: str) -> None:
    assert re.search(rf"`{command}`", PAGE), f"docs/cli.md does not name {command}"


def test_the_exit_codes_of_the_page() -> None:
    inventory = os.fspath(ROOT / "examples" / "inventory.yaml")
    assert CliRunner().invoke(cli, ["plan", "-f", "nowhere.yaml", "--inventory", inventory]).exit_code == 2
