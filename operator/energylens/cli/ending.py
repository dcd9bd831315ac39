"""Ends a command: its output is written, or one line says why not."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable

import click

from energylens.cli.errors import BAD_INPUT, DEFECT
from energylens.described import described

TRACEBACK_VARIABLE = "ENERGYLENS_TRACEBACK"


def run_to_end(command: Callable[[], object]) -> int:
    """Run a command, flush its output, and return the exit code; one line on stderr describes a failure."""
    if sys.stdout is None:
        return _told("standard output is closed: there is nowhere to write to")
    try:
        try:
            command()
            code = 0
        except SystemExit as ended:
            code = _code_of(ended)
        sys.stdout.flush()
        return code
    except OSError as error:
        # The interpreter would otherwise retry writing the rest, and print an error.
        _drop_output()
        if error.errno == errno.EPIPE:
            return DEFECT
        where = f"{error.filename}: " if error.filename else "cannot write the output: "
        return _told(f"{where}{error.strerror or error}")
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            traceback.print_exc()
        _told(f"internal error, please report it: {described(error)}; {TRACEBACK_VARIABLE}=1 shows the traceback")
        return DEFECT


def _code_of(ended: SystemExit) -> int:
    """Return the exit code that Python itself would give."""
    if ended.code is None:
        return 0
    if isinstance(ended.code, int):
        return ended.code
    click.echo(str(ended.code), err=True)
    return 1


def _told(message: str) -> int:
    click.echo(f"Error: {message}", err=True)
    return BAD_INPUT


def _drop_output() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, sys.stdout.fileno())
    except (OSError, ValueError):
        return
    finally:
        os.close(null)
