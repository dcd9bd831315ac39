"""The Prometheus that a command reads, and the window of its queries."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from energylens.cli.inputs.decorated import with_options
from energylens.measure.prometheus_http import Access
from energylens.records import dataclass


@dataclass(frozen=True)
class PrometheusWindow:
    """A Prometheus and the last seconds to read from it."""

    access: Access | None
    """None if no Prometheus was named."""
    seconds: float


def prometheus_options(content: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add --prometheus, its token and authorities, and --window-minutes; the command takes them as ``prometheus``.

    Args:
        content: Help of --prometheus: what it has to scrape, and for what.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def wrapped(
            *,
            prometheus: str | None,
            prometheus_token_file: Path | None,
            prometheus_ca_file: Path | None,
            window_minutes: int,
            **rest: Any,
        ) -> Any:
            access = None if prometheus is None else Access(prometheus, prometheus_token_file, prometheus_ca_file)
            return command(prometheus=PrometheusWindow(access, 60.0 * window_minutes), **rest)

        options = (
            click.option("--prometheus", metavar="URL", help=content),
            click.option(
                "--prometheus-token-file",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="Bearer token for --prometheus.",
            ),
            click.option(
                "--prometheus-ca-file",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="PEM file of the trusted certificate authorities.",
            ),
            click.option(
                "--window-minutes",
                type=click.IntRange(2, 10_080),
                default=60,
                show_default=True,
                help="Length of the window that is read from --prometheus.",
            ),
        )
        return with_options(wrapped, options)

    return decorate
