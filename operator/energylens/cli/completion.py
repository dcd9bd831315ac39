"""Shell completion: scripts for bash, zsh and fish, and the program that kubectl asks about its plugin."""

from __future__ import annotations

import sys

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_ENERGYLENS_COMPLETE"
_DEFAULT, _NO_FILES = 0, 4
"""Directives of kubectl's completion, which are cobra's: complete file names, or not."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  source <(energylens completion bash)
    zsh:   source <(energylens completion zsh)
    fish:  energylens completion fish | source

    `kubectl energylens` completes, too, if kubectl's own completion is set up and kubectl_complete-energylens, which is
    installed beside this command, is on PATH.
    """  # noqa: D301 - Click keeps the lines of a paragraph that begins with a backspace, which a raw string has not
    from energylens.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "energylens", _VARIABLE).source())


def kubectl_complete() -> None:
    """Entry point of kubectl_complete-energylens: the words after `kubectl energylens`, the last one unfinished."""
    click.echo(complete_for_kubectl(sys.argv[1:]))


def complete_for_kubectl(words: list[str]) -> str:
    """Return the answer to kubectl: a completion and its description a line, and at last the directive.

    The protocol is that of cobra's ``__complete``
    (https://github.com/kubernetes/kubectl/blob/master/pkg/cmd/plugin_completion.go).

    Args:
        words: The words after the plugin's name; the last is the word to complete, "" if nothing was typed yet.
    """
    from energylens.cli.main import cli

    *before, incomplete = words or [""]
    found = ShellComplete(cli, {}, "kubectl energylens", _VARIABLE).get_completions(before, incomplete)
    files = any(item.type in ("file", "dir") for item in found)
    lines = [_line(item) for item in found if item.type == "plain"]
    return "\n".join([*lines, f":{_DEFAULT if files else _NO_FILES}"])


def _line(item: CompletionItem) -> str:
    return f"{item.value}\t{item.help}" if item.help else str(item.value)
