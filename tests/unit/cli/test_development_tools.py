"""The commands of the second package: there where it is installed, named with their source where it is not."""

from __future__ import annotations

from importlib import import_module

import pytest
from click.testing import CliRunner

main = import_module("energylens.cli.main")


def test_the_command_is_there_where_its_package_is() -> None:
    result = CliRunner().invoke(main.cli, ["dev", "--help"])
    assert result.exit_code == 0
    assert "  dev " in CliRunner().invoke(main.cli, ["--help"]).stdout


def test_without_its_package_the_command_says_where_it_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "find_spec", lambda package: None)
    result = CliRunner().invoke(main.cli, ["dev", "up"])
    assert result.exit_code == 2
    assert "`energylens dev` is one of the development tools, which are not installed" in result.stderr
    assert "pip install tools/energylens_dev" in result.stderr


def test_without_its_package_the_command_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "find_spec", lambda package: None)
    listed = CliRunner().invoke(main.cli, ["--help"]).stdout
    assert "  plan " in listed
    assert "  dev " not in listed
