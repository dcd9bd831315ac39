"""The output of `energylens models check`."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

from energylens.cli.text.tables import columns
from energylens.data.published import PublishedCount
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.parameters import (
    active_parameter_count,
    kv_bytes_per_token,
    served_parameter_count,
    weight_bytes,
)
from energylens.records import dataclass

TOLERANCE_PERCENT = 1.0
_HEADING = ("FILE", "FAMILY", "B PARAMS", "ACTIVE", "KV B/TOKEN", "WEIGHTS GB", "PUBLISHED", "OFF")
_LEAST_FILE = 24


@dataclass(frozen=True)
class Counted:
    """A file whose model was counted."""

    file: str
    model: ModelSpec
    unserved: tuple[str, ...]
    """Parts of the checkpoint that engines do not load by default."""
    published: PublishedCount | None

    @property
    def parameters(self) -> int:
        """Parameters that an engine loads, towers included."""
        return served_parameter_count(self.model)

    @property
    def expected(self) -> int | None:
        """Published parameters of the same parts, or None."""
        if self.published is None:
            return None
        return self.published.comparable(text_only=not self.model.extra_weight_bytes)

    @property
    def difference_percent(self) -> float | None:
        """Difference from the published count, or None."""
        return None if self.expected is None else 100.0 * (self.parameters / self.expected - 1.0)

    @property
    def off(self) -> bool:
        """Whether the count is off by more than the tolerance."""
        return self.difference_percent is not None and abs(self.difference_percent) > TOLERANCE_PERCENT


@dataclass(frozen=True)
class Refused:
    """A file whose model cannot be counted."""

    file: str
    model: str
    reason: str


@dataclass(frozen=True)
class UnreadFile:
    """A file that is not JSON, or cannot be read."""

    file: str
    reason: str


Row = Counted | Refused | UnreadFile


def as_text(rows: Sequence[Row], width: int) -> str:
    """Return the table, the refusals and a summary line, within ``width`` columns unless a word is wider."""
    counted = [row for row in rows if isinstance(row, Counted)]
    lines: list[str] = []
    if counted:
        lines += _table([_HEADING, *(_cells(row) for row in counted)], width)
    for title, kind in (("Refused:", Refused), ("Not read:", UnreadFile)):
        some = [row for row in rows if isinstance(row, kind)]
        if some:
            lines += ["", title, *(line for row in some for line in _reason(row.file, row.reason, width))]
    off = [row for row in counted if row.off]
    if off:
        lines += ["", f"Off by more than {TOLERANCE_PERCENT:g} %:"]
        lines += [line for row in off for line in _reason(row.file, _why_off(row), width)]
    left_out = _left_out(counted)
    if left_out:
        lines += ["", "Not counted, because engines do not load them by default:"]
        lines += [line for part, files in left_out for line in _reason(part, files, width)]
    lines += ["", *textwrap.wrap(_summary(rows), width)]
    return "\n".join(lines).lstrip("\n")


def as_document(rows: Sequence[Row], output: str) -> str:
    """Return the rows and their numbers as JSON or YAML."""
    document = {"files": [_entry(row) for row in rows], "summary": _numbers(rows)}
    if output == "yaml":
        return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120))
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _cells(row: Counted) -> tuple[str, ...]:
    difference = row.difference_percent
    return (
        row.file,
        row.model.family,
        f"{row.parameters / 1e9:.3f}",
        f"{active_parameter_count(row.model) / 1e9:.3f}" if row.model.is_moe else "",
        f"{kv_bytes_per_token(row.model):.0f}",
        f"{weight_bytes(row.model) / 1e9:.1f}",
        "" if row.expected is None else f"{row.expected / 1e9:.3f}",
        "" if difference is None else f"{difference:+.2f} %",
    )


def _table(rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
    rest = max(len(line) for line in columns([row[1:] for row in rows]))
    room = width - rest - 2
    if room >= _LEAST_FILE:
        return columns([(_shortened(row[0], room), *row[1:]) for row in rows])
    # A narrow terminal: the file on a line of its own, its figures below.
    figures = columns([("", *row[1:]) for row in rows])
    return [line for row, below in zip(rows, figures, strict=True) for line in (_shortened(row[0], width), below)]


def _shortened(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    half = (room - 3) // 2
    return f"{text[: room - 3 - half]}...{text[len(text) - half :]}"


def _reason(file: str, reason: str, width: int) -> list[str]:
    return textwrap.wrap(
        f"{file}: {reason}", width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
    )


def _why_off(row: Counted) -> str:
    published, expected = row.published, row.expected
    if published is None or expected is None:
        return ""
    left_out = f" without {published.unserved_part}" if published.unserved_part else ""
    return (
        f"{row.parameters / 1e9:.3f} B counted, {expected / 1e9:.3f} B published of {published.model}{left_out} "
        f"({published.source})"
    )


def _left_out(rows: Sequence[Counted]) -> list[tuple[str, str]]:
    files: dict[str, list[str]] = {}
    for row in rows:
        if row.unserved:
            files.setdefault(", ".join(row.unserved), []).append(row.file)
    few = 3
    return [(part, ", ".join(names) if len(names) <= few else f"{len(names)} files") for part, names in files.items()]


def _summary(rows: Sequence[Row]) -> str:
    numbers = _numbers(rows)
    parts = [
        f"{numbers['files']} file{'' if numbers['files'] == 1 else 's'}",
        f"{numbers['withinTolerance']} within {TOLERANCE_PERCENT:g} %",
        f"{numbers['off']} off",
        f"{numbers['nothingPublished']} with no published count known",
        f"{numbers['refused']} refused",
    ]
    if numbers["notRead"]:
        parts.append(f"{numbers['notRead']} not read")
    return ", ".join(parts)


def _numbers(rows: Sequence[Row]) -> dict[str, int]:
    counted = [row for row in rows if isinstance(row, Counted)]
    off = sum(row.off for row in counted)
    nothing = sum(row.published is None for row in counted)
    return {
        "files": len(rows),
        "withinTolerance": len(counted) - off - nothing,
        "off": off,
        "nothingPublished": nothing,
        "refused": sum(isinstance(row, Refused) for row in rows),
        "notRead": sum(isinstance(row, UnreadFile) for row in rows),
    }


def _entry(row: Row) -> dict[str, Any]:
    if isinstance(row, Refused):
        return {"file": row.file, "model": row.model, "refused": row.reason}
    if isinstance(row, UnreadFile):
        return {"file": row.file, "notRead": row.reason}
    entry: dict[str, Any] = {
        "file": row.file,
        "model": row.model.name,
        "family": row.model.family,
        "parameters": row.parameters,
        "activeParameters": active_parameter_count(row.model),
        "besideTextParameters": round(row.model.extra_weight_bytes / 2),
        "kvBytesPerToken": kv_bytes_per_token(row.model),
        "weightBytes": weight_bytes(row.model),
        "notServed": list(row.unserved),
    }
    if row.published is not None and row.expected is not None and row.difference_percent is not None:
        entry["published"] = {
            "parameters": row.published.parameters,
            "compared": row.expected,
            "source": row.published.source,
            "notServed": row.published.unserved_part,
        }
        entry["differencePercent"] = round(row.difference_percent, 3)
        entry["withinTolerance"] = not row.off
    return entry
