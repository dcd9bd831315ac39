"""Writes the table of values in the chart's README from values.yaml: name, default, and the comment above it.

``python -m tools.chart_readme`` writes; with ``--check`` a difference ends with exit code 1.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHART = Path(__file__).resolve().parents[1] / "charts" / "energylens"
BEGIN, END = "<!-- values: written by tools/chart_readme.py -->", "<!-- end of values -->"
_KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):(?: (.*))?$")


def rows(text: str) -> list[tuple[str, str, str]]:
    """Return path, default and description of every value of a values.yaml, in its order; a section needs a comment."""
    found: list[tuple[str, str, str]] = []
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    list_at: int | None = None
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.lstrip("#").strip() if not stripped.startswith("#  ") else "")
            continue
        indentation = len(line) - len(line.lstrip())
        if stripped and list_at is not None and indentation > list_at:
            continue
        list_at = indentation if stripped.startswith("- ") else None
        match = _KEY.match(line)
        if match is None:
            comment = []
            continue
        indent, name, default = len(match[1]), match[2], (match[3] or "").partition(" #")[0].strip()
        while path and path[-1][0] >= indent:
            path.pop()
        path.append((indent, name))
        described = " ".join(filter(None, comment)).replace("|", "\\|").replace("<", "&lt;")
        if default or described:
            found.append((".".join(part for _, part in path), default, described))
        comment = []
    return found


def with_table(page: str, values: str) -> str:
    """Return the README with the table of ``values`` between its two marks.

    Raises:
        ValueError: A mark is missing.
    """
    if BEGIN not in page or END not in page:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    lines = ["| value | default | description |", "|---|---|---|"]
    for name, default, described in rows(values):
        lines.append(f"| `{name}` | {f'`{default}`' if default else ''} | {described} |")
    return f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Write or check the table; return the exit code."""
    page = CHART / "README.md"
    now = page.read_text(encoding="utf-8")
    wanted = with_table(now, (CHART / "values.yaml").read_text(encoding="utf-8"))
    if "--check" in arguments:
        if now != wanted:
            sys.stderr.write("charts/energylens/README.md is not that of values.yaml: run make generate\n")
        return int(now != wanted)
    page.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
