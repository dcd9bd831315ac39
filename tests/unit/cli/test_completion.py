"""Completion of commands, options and the values of options, in bash itself and by the protocols of the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import get_completion_class
from click.testing import CliRunner

from energylens.cli.completion import SHELLS, complete_for_kubectl
from energylens.cli.main import COMMANDS, cli

HEAVY = ("matplotlib", "kubernetes", "kopf", "scipy", "energylens.controller", "energylens.accuracy")
CASES = [
    (["pl"], {"plan"}),
    (["plan", "--inv"], {"--inventory"}),
    (["plan", "-o", ""], {"table", "json", "yaml"}),
    (["plan", "-o", "j"], {"json"}),
    (["dev", "do"], {"down"}),
    (["completion", ""], set(SHELLS)),
]


def named(value: list[str] | set[str]) -> str:
    """Return a name that is the same in every process: the order of a set is not."""
    return " ".join(value if isinstance(value, list) else sorted(value))


@pytest.mark.parametrize(("words", "expected"), CASES, ids=named)
def test_kubectl_is_told_commands_options_and_values(words: list[str], expected: set[str]) -> None:
    *lines, directive = complete_for_kubectl(words).splitlines()
    assert {line.partition("\t")[0] for line in lines} == expected
    assert directive == ":4"


def test_kubectl_is_told_every_command_with_its_help() -> None:
    lines = complete_for_kubectl([""]).splitlines()
    assert lines[:-1] == [f"{name}\t{COMMANDS[name][1]}" for name in sorted(COMMANDS)]


def test_the_help_shows_one_shell_a_line() -> None:
    lines = [line.strip() for line in CliRunner().invoke(cli, ["completion", "--help"]).output.splitlines()]
    first = lines.index("bash:  source <(energylens completion bash)")
    assert [line.partition(":")[0] for line in lines[first : first + 3]] == list(SHELLS)


def test_file_names_are_left_to_the_shell() -> None:
    assert complete_for_kubectl(["plan", "-f", "exa"]) == ":0"


def test_completing_a_command_imports_none() -> None:
    script = (
        "import sys; from energylens.cli.completion import complete_for_kubectl as complete; complete(['']);"
        f"print([m for m in sys.modules if m.startswith({HEAVY!r})])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell_asks_the_command(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert f"_ENERGYLENS_COMPLETE={shell}_complete" in result.stdout


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("words", "expected"), CASES, ids=named)
def test_each_shell_is_answered(
    shell: str, words: list[str], expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_WORDS", " ".join(["energylens", *words]))
    monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else str(len(words)))
    found = get_completion_class(shell)
    assert found is not None
    lines = found(cli, {}, "energylens", "_ENERGYLENS_COMPLETE").complete().splitlines()
    # zsh takes the type, the value and the help on a line each; the others a line per completion.
    named = lines[1::3] if shell == "zsh" else [line.partition(",")[2].partition("\t")[0] for line in lines]
    assert set(named) == expected


@pytest.mark.parametrize(("words", "expected"), CASES[:3], ids=named)
def test_bash_completes(words: list[str], expected: set[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["completion", "bash"])
    script = tmp_path / "completion.bash"
    script.write_text(result.stdout)
    command = (
        f"source {script}; COMP_WORDS=(energylens {' '.join(words[:-1])} '{words[-1]}'); COMP_CWORD={len(words)};"
        '_energylens_completion energylens; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, env=path)
    assert set(answer.stdout.split()) == expected, answer.stderr
