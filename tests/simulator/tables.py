"""Writes the tables of the serving model in docs/accuracy.md: ``python -m tests.simulator.tables FILE``.

FILE keeps one line of JSON for each simulated case, so that a run that was interrupted goes on where it ended. A case
is simulated again if the simulator, the rate of its requests or the time of its steps has changed; predictions are
always those of the current code. ``--only-write`` simulates nothing. All cases take five minutes of one core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.simulator import batching, lanes
from tests.simulator.compare import (
    MIXED,
    MIXES,
    UTILIZATIONS,
    Case,
    Figures,
    Outcome,
    StepTable,
    draw,
    figures,
    grid,
    physics,
    predicted,
    requests_of,
    simulated,
    step_seconds,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "accuracy.md"
END = "<!-- end -->"
LISTED = ("Poisson arrivals", "outputs of SCV 0.5", MIXED, "bursts of SCV 4")
"""Variants of the tables."""
AIM = 0.10
"""Largest error of a percentile."""
LEVELS = ("p50", "p95", "p99")
PERCENTILES = tuple(f"{figure} {level}" for figure in ("ttft", "itl") for level in LEVELS)


class TablesError(RuntimeError):
    """A table cannot be written; the message says why."""


@dataclass(frozen=True)
class Row:
    """A served case: what is predicted and what is simulated."""

    variant: str
    case: Case
    figures: Figures

    @property
    def shape(self) -> str:
        """The case without its load."""
        return self.case.name.rpartition(" at ")[0]

    def error(self, figure: str) -> float:
        """Return what is predicted over what is simulated, less 1."""
        return self.figures.errors[figure]


def cases() -> Iterator[tuple[str, Case]]:
    """Yield all cases with the name of their variant."""
    for variant in LISTED:
        for case in grid(variant):
            yield variant, replace(case, requests=requests_of(case))


def served(path: Path) -> dict[str, Outcome]:
    """Return what was simulated, by the digest of the case."""
    if not path.exists():
        return {}
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        kept = json.loads(line)
        columns = {name: _by_level(value) for name, value in kept["outcome"].items()}
        found[kept["digest"]] = Outcome(**columns)
    return found


def rows_of(path: Path, *, simulate: bool) -> list[Row]:
    """Return the rows of all cases; simulate what the file lacks, and append a line for each.

    Raises:
        TablesError: A case has not been simulated and is not now.
    """
    known, predictor, found = served(path), physics(), []
    for variant, case in cases():
        rate, prediction = predicted(predictor, case)
        places = int(prediction.max_concurrency[0])
        key = digest(case, rate, step_seconds(predictor, case, places))
        if key not in known:
            if not simulate:
                raise TablesError(f"{case.name} has not been simulated with this rate and these steps")
            known[key] = simulated(predictor, case, rate, places)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"case": case.name, "digest": key, "outcome": vars(known[key])}) + "\n")
        found.append(Row(variant, case, figures(prediction, known[key])))
    return found


def digest(case: Case, rate: float, steps: StepTable) -> str:
    """Return a digest of all on which a simulated case depends."""
    found = hashlib.sha256(f"{case} {rate!r}".encode())
    for column in vars(steps).values():
        found.update(column.tobytes())
    for module in (batching, lanes):
        found.update(Path(str(module.__file__)).read_bytes())
    return found.hexdigest()[:16]


def source(rows: Sequence[Row]) -> list[str]:
    """Return of what the tables are."""
    numbers = [row.case.requests * row.case.runs for row in rows]
    return [
        f"{len(rows)} cases of {min(numbers):,} to {max(numbers):,} requests each, {sum(numbers) / 1e6:.0f} million in "
        f"all; predictor {physics().version}."
    ]


def errors(rows: Sequence[Row]) -> list[str]:
    """Return the errors by variant and load."""
    lines = []
    for variant in LISTED:
        mine = [row for row in rows if row.variant == variant]
        loads = {load: [row for row in mine if row.case.utilization == load] for load in UTILIZATIONS}
        lines += [_errors(f"{variant}, {100 * load:.0f} %", some) for load, some in loads.items() if some]
        lines.append(_errors(f"{variant}, all", mine))
    lines.append(_errors("all", rows))
    heading = ("arrivals over predicted capacity", "cases", "throughput", "requests running")
    return _table((*heading, "TTFT P50 / P95 / P99", "ITL P50 / P95 / P99", "over 10 %"), lines)


def mixes(rows: Sequence[Row]) -> list[str]:
    """Return the errors of TTFT of each mix."""
    found: dict[tuple[str, float], dict[str, str]] = {}
    names = {classes: name for name, classes in MIXES.items()}
    for row in rows:
        if row.variant == MIXED:
            errors = " / ".join(f"{100 * row.error(f'ttft {level}'):+.0f}" for level in LEVELS)
            where = f"{row.case.model.split('/')[-1]}, {row.case.tensor_parallel} {row.case.gpu}"
            found.setdefault((names[row.case.classes], row.case.utilization), {})[where] = errors
    columns = list(next(iter(found.values())))
    lines = [(name, f"{100 * load:.0f} %", *by.values()) for (name, load), by in sorted(found.items())]
    return _table(("mix", "load", *(f"TTFT P50 / P95 / P99, {column}" for column in columns)), lines)


def beyond(rows: Sequence[Row]) -> list[str]:
    """Return every percentile whose error is above the aim, the largest first."""
    off = [(row, figure) for row in rows for figure in PERCENTILES if abs(row.error(figure)) > AIM]
    off.sort(key=lambda each: -abs(each[0].error(each[1])))
    lines = []
    for row, figure in off:
        noise = row.figures.noise.get(figure)
        name, level = figure.split()
        lines.append(
            (
                f"{row.shape} at {100 * row.case.utilization:.0f} %",
                f"{name.upper()} {level.upper()}",
                f"{row.figures.predicted[figure]:,.0f} / {row.figures.simulated[figure]:,.0f}",
                f"{100 * row.error(figure):+.0f}",
                "-" if noise is None else f"{100 * noise:.0f}",
            )
        )
    return _table(("case", "figure", "predicted / simulated, ms", "error, %", "standard error, %"), lines)


TABLES: Mapping[str, Callable[[Sequence[Row]], list[str]]] = {
    "source": source,
    "errors": errors,
    "mixes": mixes,
    "beyond": beyond,
}


def with_tables(page: str, rows: Sequence[Row]) -> str:
    """Return the page with every table written again.

    Raises:
        TablesError: The page lacks a table or the end of one.
    """
    for name, table in TABLES.items():
        begin = f"<!-- serving: {name} -->"
        before, found, after = page.partition(begin)
        if not found or END not in after:
            raise TablesError(f"the page has no {begin} with {END} after it")
        page = f"{before}{begin}\n\n" + "\n".join(table(rows)) + f"\n\n{END}{after.partition(END)[2]}"
    return page


def main(arguments: Sequence[str]) -> int:
    """Serve what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("file", type=Path, help="of the cases that are served, one a line")
    parser.add_argument("--only-write", action="store_true", help="serve nothing")
    parser.add_argument("--plot", metavar="IMAGE", help="draw the cases of the first variant")
    given = parser.parse_args(arguments)
    try:
        rows = rows_of(given.file, simulate=not given.only_write)
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    except TablesError as refused:
        sys.stderr.write(f"{refused}\n")
        return 1
    if given.plot is not None:
        draw([(row.case, row.figures) for row in rows if row.variant == LISTED[0]], given.plot)
    return 0


def _by_level(value: Any) -> Any:
    """Return quantiles by number, which JSON keeps by name; other values as they are."""
    return {float(level): each for level, each in value.items()} if isinstance(value, dict) else value


def _errors(name: str, rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the mean absolute errors in percent, and the largest in parentheses."""

    def cell(figure: str) -> str:
        off = [100 * abs(row.error(figure)) for row in rows]
        return f"{sum(off) / len(off):.0f} ({max(off):.0f})"

    beyond = [sum(abs(row.error(f"{part} {level}")) > AIM for row in rows for level in LEVELS) for part in _PARTS]
    return (
        name,
        str(len(rows)),
        cell("throughput"),
        cell("running"),
        *(" / ".join(cell(f"{part} {level}") for level in LEVELS) for part in _PARTS),
        " + ".join(f"{count} of {3 * len(rows)}" for count in beyond),
    )


_PARTS = ("ttft", "itl")


def _table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    cells = [list(heading), *map(list, rows)]
    rule = "|" + "---|" * len(cells[0])
    return [f"| {' | '.join(cells[0])} |", rule, *(f"| {' | '.join(row)} |" for row in cells[1:])]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
