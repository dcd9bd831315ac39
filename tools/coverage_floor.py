"""Fail when lines that a change adds are not run by tests: the floor of `make coverage`.

Reads the JSON report of coverage.py and the difference to a base commit, and counts the statements among added lines.
Without --base the commit where the branch left main; on main itself the parent of the newest commit.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOOR_PERCENT = 90.0
_FILE = re.compile(r"^\+\+\+ b/(.*)$")
_HUNK = re.compile(r"^@@ -\S+ \+(\d+)(?:,(\d+))? @@")


def added(difference: str) -> dict[str, set[int]]:
    """Return the numbers of added lines by file, from a difference without context."""
    found: dict[str, set[int]] = {}
    path = ""
    for line in difference.splitlines():
        if file := _FILE.match(line):
            path = file[1]
        elif hunk := _HUNK.match(line):
            first, count = int(hunk[1]), int(hunk[2] or 1)
            found.setdefault(path, set()).update(range(first, first + count))
    return found


def missed(
    lines: Mapping[str, set[int]], report: Mapping[str, Mapping[str, list[int]]]
) -> tuple[int, dict[str, list[int]]]:
    """Return how many added statements there are, and those that no test ran, by file.

    Args:
        lines: Added lines by file.
        report: ``files`` of coverage's report: executed and missing lines by file.
    """
    statements, gaps = 0, {}
    for path, numbers in lines.items():
        file = report.get(path)
        if file is None:
            continue
        statements += len(numbers & {*file["executed_lines"], *file["missing_lines"]})
        if unrun := sorted(numbers & set(file["missing_lines"])):
            gaps[path] = unrun
    return statements, gaps


def git(folder: Path, *arguments: str) -> str | None:
    """Return the output of a git command in a folder; None where the command fails."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def branched_from(folder: Path) -> str:
    """Return the commit where the checked-out branch left main; on main itself the parent of its newest commit."""
    for main_branch in ("origin/main", "main"):
        base, head = git(folder, "merge-base", main_branch, "HEAD"), git(folder, "rev-parse", "HEAD")
        if base is not None:
            return base.strip() if base != head else "HEAD~1"
    return "HEAD~1"


def main(arguments: list[str]) -> int:
    """Print the share of added statements that tests ran; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="coverage's JSON report")
    parser.add_argument("--base", help="commit that the change starts from; default: where the branch left main")
    options = parser.parse_args(arguments)
    base = options.base or branched_from(ROOT)
    difference = git(ROOT, "diff", "--unified=0", "--no-color", base, "--", "operator")
    if difference is None:
        parser.error(f"--base {base}: git knows no such commit")
    document = json.loads(options.report.read_text())
    statements, gaps = missed(added(difference), document["files"])
    sys.stdout.write(f"all code: {document['totals']['percent_covered']:.1f} % of statements and branches\n")
    unrun = sum(map(len, gaps.values()))
    percent = 100.0 if not statements else 100.0 * (statements - unrun) / statements
    sys.stdout.write(
        f"added since {base[:12]}: {statements} statements, {percent:.1f} % run; floor {FLOOR_PERCENT:.0f} %\n"
    )
    for path, numbers in sorted(gaps.items()):
        sys.stdout.write(f"  {path}: {', '.join(map(str, numbers))}\n")
    return 1 if percent < FLOOR_PERCENT else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
