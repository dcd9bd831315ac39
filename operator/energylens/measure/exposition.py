"""Parses Prometheus text exposition, only the requested metrics, so that large pages cost little."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping

from prometheus_client.parser import text_string_to_metric_families

from energylens.records import dataclass

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class MalformedExpositionError(ValueError):
    """A line of a requested metric is not Prometheus text exposition; the message names the line."""


@dataclass(frozen=True)
class MetricSample:
    """One line of an exposition."""

    name: str
    """As written, ``_total`` and ``_bucket`` included."""
    labels: Mapping[str, str]
    value: float
    time: float | None
    """Seconds since the Unix epoch when the line carries a timestamp; most exporters write none."""


def parse(text: str, names: Collection[str]) -> Iterator[MetricSample]:
    """Yield the samples of the named metrics, in the order of the text; NaN values are left out.

    Lines of other metrics are not parsed: an engine writes thousands, and faults in them are irrelevant here.

    Raises:
        MalformedExpositionError: a line of a named metric cannot be parsed.
    """
    wanted = frozenset(names)
    for line in text.splitlines():
        match = _NAME.match(line)
        if match is None or match[0] not in wanted:
            continue
        try:
            (family,) = text_string_to_metric_families(line + "\n")
            (sample,) = family.samples
        except (ValueError, IndexError, KeyError) as error:
            raise MalformedExpositionError(f"not Prometheus text exposition: {line[:200]!r} ({error})") from error
        if not math.isnan(sample.value):
            time = None if sample.timestamp is None else float(sample.timestamp)
            yield MetricSample(match[0], sample.labels, float(sample.value), time)
