"""Draw docs/images/layers.svg: the packages in their layers, read from the import contract of pyproject.toml.

``python tools/layers.py`` writes the picture; ``--check`` fails when it is not that of the contract.
"""

from __future__ import annotations

import sys
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "layers.svg"
CONTRACT = "data flows one way"
PACKAGES = {
    "accuracy": ("predictions against measured runs", "pure"),
    "api": ("custom resources, CRDs", "pure"),
    "budget": ("ledgers, periods, shedding", "pure"),
    "benchmark": ("loads for a running engine", "io"),
    "calibration": ("fits of coefficients", "pure"),
    "cli": ("commands, site, pictures, text, inputs", "io"),
    "audit": ("what serves models now, beside a plan", "pure"),
    "cluster": ("the Kubernetes client", "io"),
    "controller": ("watches, queue, Lease, writes", "io"),
    "data": ("GPUs, models, coefficients", "files"),
    "decide": ("children, status, conditions, events", "pure"),
    "energylens_dev": ("a second package, tools/energylens_dev: control plane, replay exporter", "io"),
    "measure": ("counters to J per token", "io"),
    "planner": ("the search for a plan", "pure"),
    "predictor": ("latency, power, energy", "pure"),
    "runs": ("tables of measured runs", "files"),
    "serving": ("a plan to manifests", "pure"),
}
"""What each package is about, and whether it does I/O."""
COLOURS = {"pure": ("#d7ecdf", "#2f6b4a"), "io": ("#f6dfcd", "#8a4b16"), "files": ("#dbe4f3", "#33527f")}
LEGEND = (("pure", "pure: no I/O, no clock"), ("files", "reads files"), ("io", "talks to the world"))
WIDTH, ROW, GAP, HEAD = 860, 52, 8, 44


def layers() -> list[list[str]]:
    """Return the packages of each layer, the highest layer first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [contract for contract in contracts if contract["name"] == CONTRACT]
    return [[part.strip().rpartition(".")[2] for part in layer.split("|")] for layer in contract["layers"]]


def draw(rows: list[list[str]]) -> str:
    """Return the picture as SVG."""
    height = HEAD + len(rows) * (ROW + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" role="img">',
        "<title>Layers of the package: each imports only from layers below</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
    ]
    left = 16.0
    for kind, text in LEGEND:
        fill, ink = COLOURS[kind]
        parts.append(f'<rect x="{left:.0f}" y="14" width="16" height="16" rx="3" fill="{fill}" stroke="{ink}"/>')
        parts.append(f'<text x="{left + 22:.0f}" y="27" font-size="13" fill="#333333">{escape(text)}</text>')
        left += 40 + 7.2 * len(text)
    parts.append(
        f'<text x="{WIDTH - 16}" y="27" font-size="13" fill="#333333" text-anchor="end">imports go down</text>'
    )
    for index, packages in enumerate(rows):
        top = HEAD + index * (ROW + GAP)
        width = (WIDTH - 32 - GAP * (len(packages) - 1)) / len(packages)
        for column, package in enumerate(packages):
            about, kind = PACKAGES[package]
            fill, ink = COLOURS[kind]
            x = 16 + column * (width + GAP)
            middle = x + width / 2
            parts += [
                f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{ROW}" rx="5" fill="{fill}" stroke="{ink}"/>',
                f'<text x="{middle:.1f}" y="{top + 22}" font-size="15" font-weight="bold" fill="{ink}" '
                f'text-anchor="middle">{package}</text>',
                f'<text x="{middle:.1f}" y="{top + 40}" font-size="12" fill="#333333" text-anchor="middle">'
                f"{escape(about)}</text>",
            ]
    return "\n".join([*parts, "</svg>", ""])


def main(arguments: list[str]) -> int:
    """Write or check the picture; return the exit code."""
    picture = draw(layers())
    if "--check" not in arguments:
        PICTURE.write_text(picture)
    elif not PICTURE.exists() or PICTURE.read_text() != picture:
        sys.stderr.write(f"{PICTURE.relative_to(ROOT)} is not that of the import contract; run `make generate`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
