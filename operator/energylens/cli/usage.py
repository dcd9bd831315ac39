"""Errors in how a command was called, on one line like every other error of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click
from click.exceptions import NoArgsIsHelpError


@contextmanager
def one_line_usage_errors() -> Iterator[None]:
    """Raise errors of click without the usage lines that click prints above the message.

    A wrong value gets what is allowed; other mistakes of a call get the command that prints the help.
    """
    try:
        yield
    except NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        _raise_in_one_line(error)


def _raise_in_one_line(error: click.UsageError) -> NoReturn:
    message = " ".join(error.format_message().split())
    if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter):
        kind = error.param.type if error.param is not None else None
        value, _, fault = error.message.partition(" is not ")
        if isinstance(kind, click.IntRange | click.FloatRange) and fault.startswith(("a valid", "in the range")):
            message = message.replace(" ".join(error.message.split()), f"{value} must be {_allowed(kind)}")
    elif error.ctx is not None and type(error) is not click.UsageError:
        message = f"{message.removesuffix('.')}; see `{error.ctx.command_path} --help`"
    raise click.UsageError(message) from error


def _allowed(kind: click.IntRange | click.FloatRange) -> str:
    """Return the values that an option of a range takes, in words."""
    number = "a whole number" if isinstance(kind, click.IntRange) else "a number"
    least = None if kind.min is None else f"{'above' if kind.min_open else 'from'} {kind.min:g}"
    most = None if kind.max is None else f"{'below' if kind.max_open else 'to'} {kind.max:g}"
    if least is not None and most is None:
        least = least.replace("from", "of at least")
    if most is not None and least is None:
        most = most.replace("to", "of at most")
    return " ".join([number, *filter(None, (least, most))])
