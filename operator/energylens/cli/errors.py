"""Errors of the command line: one line on stderr, exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

BAD_INPUT = 2
"""Exit code of input that cannot be used, a cluster that cannot be read included."""
INFEASIBLE = 3
"""Exit code when at least one deployment has no plan."""


DEFECT = 1
"""Exit code of an internal error, and of a pipe that was closed before everything was written."""


class InputError(ValueError):
    """The input cannot be used. The message names the file, field or option and the fault."""


@contextmanager
def one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn an error of these kinds into its message on one line of stderr and exit code 2."""
    try:
        yield
    except kinds as error:
        click.echo(f"Error: {' '.join(str(error).split())}", err=True)
        raise SystemExit(BAD_INPUT) from error
