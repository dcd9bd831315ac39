"""Writes the tables of docs/accuracy.md from reports of `energylens accuracy -o json`, so that all are of one commit.

``python -m tools.accuracy_tables DIRECTORY`` runs the command for each way to leave runs out whose report in the
directory is missing or of other coefficients, then writes the page; ``--only-write`` runs nothing. A table stands
between ``<!-- table: NAME -->`` and ``<!-- end -->``, with the commit and the coefficients above it in ``source``.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from energylens.accuracy.after_windows import NEAREST_WINDOW

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "accuracy.md"
END = "<!-- end -->"
LEFT_OUT: Mapping[str, tuple[str, ...]] = {
    "nothing": (),
    "run": ("--leave-out", "run"),
    "layout": ("--leave-out", "layout"),
    "model": ("--leave-out", "model", "--after-windows", "1", "--after-windows", "2", "--after-windows", "4"),
    "gpu-type": ("--leave-out", "gpu-type"),
    "gpu-count": ("--leave-out", "gpu-count"),
    "task": ("--leave-out", "task"),
}
"""Name of a report -> arguments of `energylens accuracy`."""
OWN_RUNS = ROOT / "operator" / "energylens" / "data" / "runs" / "own-2026.csv"
NEVER_FITTED: Mapping[str, tuple[str, ...]] = {
    "own": ("--runs", str(OWN_RUNS.relative_to(ROOT))),
    "latency": ("--latency-runs",),
}
"""The same of runs that no fit includes."""
NAMES = {
    "nothing": "nothing (in-sample)",
    "run": "`run` (a fifth of the rows)",
    "layout": "`layout` (a fifth of the layouts)",
}
QUANTITIES = {"itl": "median ITL", "tpot": "TPOT", "throughput": "throughput", "power": "power", "energy": "energy"}
OWN_QUANTITIES = {
    "itl": "median ITL",
    "tpot": "TPOT",
    "ttft": "median TTFT",
    "throughput": "throughput",
    "power": "power",
    "energy": "energy",
}
COMPARED = (
    ("median_itl_ms", "predicted_median_itl_ms", 1),
    ("mean_tpot_ms", "predicted_tpot_ms", 1),
    ("median_ttft_ms", "predicted_ttft_ms", 0),
    ("power_watts", "predicted_power_watts", 0),
    ("joules_per_output_token", "predicted_joules_per_output_token", 3),
)
"""Column of the measured figure, column of the prediction, and digits."""
PRECISIONS = {"bfloat16": "BF16", "fp8": "FP8", "mxfp4": "MXFP4"}
SCOPES = ("clean", "clean and host-bound", "clean, several GPUs", "data parallel only")
WINDOWS = 2
"""Windows of the project's aim."""
WINDOWED = ("itl", "tpot", "power", "energy")
Report = Mapping[str, Any]
Reports = Mapping[str, Report]


class TablesError(RuntimeError):
    """A table cannot be written; the message says why."""


def _pair(mean: float | None, median: float | None) -> str:
    return "-" if mean is None or median is None else f"{mean:.1f} / {median:.1f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def _table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    cells = [list(heading), *map(list, rows)]
    return [
        f"| {' | '.join(cells[0])} |",
        "|" + "---|" * len(cells[0]),
        *(f"| {' | '.join(row)} |" for row in cells[1:]),
    ]


def _refitted(reports: Reports) -> Reports:
    return {name: reports[name] for name in LEFT_OUT}


def _named(name: str) -> str:
    return NAMES.get(name, f"`{name}`")


def _scope(report: Report, by: str, name: str, *, host_bound: bool = False) -> Mapping[str, Any] | None:
    for part in report["errors"]:
        if part["by"] == by and part["name"] == name and part["with_host_bound"] == host_bound:
            return dict(part)
    return None


def _errors(part: Mapping[str, Any]) -> list[str]:
    return [*(_pair(part["mean"][q], part["median"][q]) for q in QUANTITIES), _signed(part["bias"]["energy"])]


def source(reports: Reports) -> list[str]:
    """Return what all tables are of.

    Raises:
        TablesError: Reports are of several commits or coefficients.
    """
    found = {(report["commit"], report["coefficients"]) for report in reports.values()}
    if len(found) != 1:
        listed = ", ".join(f"{commit} with {coefficients}" for commit, coefficients in sorted(found))
        raise TablesError(f"reports are of {listed}; run them again on one commit")
    commit, coefficients = found.pop()
    return [f"Commit {commit}, coefficients {coefficients}; percent."]


def errors(reports: Reports) -> list[str]:
    """Return errors by what was left out, over all rows and by engine."""
    rows = []
    for name, report in _refitted(reports).items():
        parts = [part for scope in SCOPES if (part := _scope(report, "rows", scope)) is not None]
        parts += [part for part in report["errors"] if part["by"] == "engine" and not part["with_host_bound"]]
        rows += [[_named(name), f"{part['name']} ({part['runs']})", *_errors(part)] for part in parts]
    return _table(["left out", "rows", *QUANTITIES.values(), "bias of energy"], rows)


def gpus(reports: Reports) -> list[str]:
    """Return errors by GPU type, with models, GPU types and counts left out, without and with host-bound rows."""
    rows = []
    for name in ("model", "gpu-type", "gpu-count"):
        for part in reports[name]["errors"]:
            if part["by"] == "GPU":
                more = " and host-bound" if part["with_host_bound"] else ""
                rows.append([_named(name), f"{part['name']}{more} ({part['runs']})", *_errors(part)])
    return _table(["left out", "rows", *QUANTITIES.values(), "bias of energy"], rows)


def models(reports: Reports) -> list[str]:
    """Return errors by model with models left out, the worst energy first."""
    parts = [
        part for part in reports["model"]["errors"] if part["by"] == "model" and part["mean"]["energy"] is not None
    ]
    parts = [part for part in parts if not part["with_host_bound"]]
    parts.sort(key=lambda part: -part["mean"]["energy"])
    return _table(
        ["model", "runs", *QUANTITIES.values(), "bias of energy"],
        ([part["name"], str(part["runs"]), *_errors(part)] for part in parts),
    )


def intervals(reports: Reports) -> list[str]:
    """Return the share inside the 80 % intervals by what was nearest."""
    rows = []
    for name, report in _refitted(reports).items():
        for part in report["coverage"]:
            inside, width = part["inside"], part["width"]
            cells = ["-" if inside[q] is None else f"{inside[q]:.1f} ({width[q]:.2f})" for q in QUANTITIES]
            rows.append([_named(name), f"{part['name'].removeprefix('nearest: ')} ({part['runs']})", *cells])
    return _table(["left out", "nearest", *QUANTITIES.values()], rows)


def decisions(reports: Reports) -> list[str]:
    """Return what picks by the predictions would have done."""
    rows = []
    for name, report in _refitted(reports).items():
        every = report["decisions"][-1]
        rows.append(
            [
                _named(name),
                f"{every['broken']} of {every['picks']} ({_percent(every['broken_percent'])})",
                f"{every['without_pick']} of {every['feasible']} ({_percent(every['without_pick_percent'])})",
                _percent(every["energy_above_best"]),
                f"{report['by_means']['broken_percent']:.1f} / {report['by_means']['energy_above_best']:.1f} %",
                _percent(report["pareto"]["recovered_percent"]),
            ]
        )
    heading = ("left out", "picks that break the bound", "without a pick", "energy above best, mean")
    return _table([*heading, "by means: broken / above best", "true Pareto points recovered"], rows)


def losses(reports: Reports) -> list[str]:
    """Return the causes of the energy above the best choice, which add up to that energy."""
    rows = []
    for name, report in _refitted(reports).items():
        found = report["losses"]
        causes = (_percent(found[cause]) for cause in ("ranking", "width", "latency"))
        rows.append([_named(name), str(found["cases"]), *causes])
    heading = (
        "left out",
        "picks that meet the bound",
        "ranking",
        "width of the interval",
        "latency predicted too high",
    )
    return _table(heading, rows)


def widths(reports: Reports) -> list[str]:
    """Return decisions with wider and narrower latency intervals: bounds broken, no pick, energy above best."""
    shown = ("model", "gpu-type", "gpu-count", "task")
    columns = ("broken_percent", "without_pick_percent", "energy_above_best")
    rows = []
    for place, row in enumerate(reports["model"]["at_widths"]):
        cells = [" / ".join(f"{reports[name]['at_widths'][place][c]:.1f}" for c in columns) for name in shown]
        rows.append([f"{row['factor']:g} x", *cells])
    return _table(["half-width", *map(_named, shown)], rows)


def same_load(reports: Reports) -> list[str]:
    """Return what picks save at the same load."""
    rows = [
        [
            _named(name),
            row["rival"],
            str(row["cases"]),
            str(row["sets"]),
            _percent(row["best_percent"]),
            _percent(row["kept_percent"]),
            str(row["broken"]),
            str(row["without_pick"]),
        ]
        for name, report in _refitted(reports).items()
        for row in report["same_load"]
    ]
    return _table(
        ["left out", "against", "cases", "sets", "best layout", "picks", "break bound", "no pick"],
        rows,
    )


def windows(reports: Reports) -> list[str]:
    """Return errors before and after two measured windows: mean before > after (median after)."""
    parts = [part for part in reports["model"]["after_windows"] if part["windows"] == WINDOWS]
    return _windows([part for part in parts if part["name"] not in NEAREST_WINDOW])


def nearest_window(reports: Reports) -> list[str]:
    """Return the errors before and after two windows by how near the nearest window is, with the share of cases."""
    parts = [part for part in reports["model"]["after_windows"] if part["windows"] == WINDOWS]
    whole = next(part["cases"] for part in parts if part["name"] == "all")
    shown = [part for part in parts if part["name"] in NEAREST_WINDOW]
    return _windows([{**part, "name": f"{part['name']}, {100 * part['cases'] / whole:.0f} %"} for part in shown])


def curve(reports: Reports) -> list[str]:
    """Return errors of all sites before and after one, two and four windows."""
    parts = [part for part in reports["model"]["after_windows"] if part["name"] == "all"]
    return _windows([{**part, "name": f"{part['windows']} windows"} for part in parts])


def _windows(parts: Iterable[Report]) -> list[str]:
    rows = []
    for part in parts:
        before, after, median = part["before"], part["after"], part["median_after"]
        cells = ["-" if after[q] is None else f"{before[q]:.1f} > {after[q]:.1f} ({median[q]:.1f})" for q in WINDOWED]
        rows.append([part["name"], str(part["sites"]), str(part["runs"]), *cells])
    return _table(["part", "sites", "runs", *(QUANTITIES[q] for q in WINDOWED)], rows)


def aims(reports: Reports) -> list[str]:
    """Return the project's aims beside what is reached with models, layouts and rows left out."""
    shown = [reports[name] for name in ("model", "layout", "run")]

    def mean(quantity: str, by: str = "rows", name: str = "clean") -> list[str]:
        found = [_scope(report, by, name) for report in shown]
        return [_percent(None if part is None else part["mean"][quantity]) for part in found]

    every = [report["decisions"][-1] for report in shown]
    kept = [f"{row['kept_percent']:.1f} of {row['best_percent']:.1f} %" for row in (r["same_load"][0] for r in shown)]
    after = next(part for part in reports["model"]["after_windows"] if part["windows"] == WINDOWS)["after"]
    inside = {q: [_percent(report["coverage"][0]["inside"][q]) for report in shown] for q in QUANTITIES}
    rows = [
        ["energy, all engines", "9 %", *mean("energy")],
        ["TPOT", "10 %", *mean("tpot")],
        ["power", "10 %", *mean("power")],
        ["median ITL, vLLM 0.11.1", "8 %", *mean("itl", "engine", "vllm==0.11.1")],
        ["energy, vLLM 0.11.1", "7 %", *mean("energy", "engine", "vllm==0.11.1")],
        ["picks that break the bound", "3 %", *(_percent(row["broken_percent"]) for row in every)],
        ["without a pick", "8 %", *(_percent(row["without_pick_percent"]) for row in every)],
        ["energy above the best choice", "12 %", *(_percent(row["energy_above_best"]) for row in every)],
        ["saved against all GPUs of the node", "at least 30 %", *kept],
        *([f"inside the 80 % interval, {QUANTITIES[q]}", "72 to 88 %", *inside[q]] for q in ("itl", "tpot", "energy")),
        *([f"{QUANTITIES[q]} after two windows", "6 %", _percent(after[q]), "", ""] for q in ("energy", "tpot", "itl")),
    ]  # fmt: skip
    return _table(["", "aim", "model left out", "a fifth of the layouts", "a fifth of the rows"], rows)


def own(reports: Reports) -> list[str]:
    """Return errors of this project's runs by model, and the share inside the 80 % intervals."""
    report, shown = reports["own"], OWN_QUANTITIES
    parts = [part for part in report["errors"] if not part["with_host_bound"]]
    parts = [
        *(part for part in parts if (part["by"], part["name"]) == ("rows", "clean")),
        *(part for part in parts if part["by"] == "model"),
    ]
    rows = [
        [
            "all" if part["by"] == "rows" else part["name"],
            str(part["runs"]),
            *(_pair(part["mean"][q], part["median"][q]) for q in shown),
            _signed(part["bias"]["energy"]),
        ]
        for part in parts
    ]
    inside = report["coverage"][0]["inside"]
    rows.append(["80 % interval covers", "", *("-" if inside[q] is None else f"{inside[q]:.1f}" for q in shown), ""])
    return _table(["", "runs", *shown.values(), "bias of energy"], rows)


def own_runs(reports: Reports) -> list[str]:
    """Return measured and predicted figures of each of this project's runs."""
    rows = []
    for row in reports["own"]["rows"]:
        load = f"{row['task'].replace('closed-', '').replace('-', '/').replace('poisson/', '')}"
        rate = row["requests_per_second"]
        at = f"Poisson {float(rate):.1f}/s" if rate else f"{row['concurrency']} at once"
        host = " (host-bound)" if row["host_bound"] == "1" else ""
        cells = [_compared(row, *columns) for columns in COMPARED]
        model = f"{row['model_id'].partition('/')[2].removesuffix('-FP8')} {PRECISIONS[row['weight_precision']]}"
        rows.append([model, f"{at}, {load}{host}", *cells])
    heading = ("median ITL, ms", "TPOT, ms", "median TTFT, ms", "power, W", "energy, J/token")
    return _table(["model", "load", *heading], rows)


def _compared(row: Mapping[str, str], measured: str, predicted: str, digits: int) -> str:
    if not row[measured]:
        return "-"
    truth, found = float(row[measured]), float(row[predicted])
    return f"{truth:.{digits}f} / {found:.{digits}f} ({100.0 * (found / truth - 1.0):+.0f} %)"


def latency(reports: Reports) -> list[str]:
    """Return errors of latency runs by engine and version."""
    parts = [part for part in reports["latency"]["errors"] if part["by"] == "engine" and not part["with_host_bound"]]
    return _table(
        ["engine", "runs", "TPOT", "bias of TPOT", "TTFT"],
        (
            [
                part["name"],
                str(part["runs"]),
                _pair(part["mean"]["tpot"], part["median"]["tpot"]),
                _signed(part["bias"]["tpot"]),
                _pair(part["mean"]["ttft"], part["median"]["ttft"]),
            ]
            for part in parts
        ),
    )


TABLES: Mapping[str, Callable[[Reports], list[str]]] = {
    table.__name__.replace("_", "-"): table
    for table in (
        own, own_runs, latency, source, errors, gpus, models, intervals, decisions, losses, widths, same_load, curve,
        windows, nearest_window, aims,
    )
}  # fmt: skip


def with_tables(page: str, reports: Reports) -> str:
    """Return the page with every table written again.

    Raises:
        TablesError: The page lacks a table or the end of one, or names one that does not exist.
    """
    for name, table in TABLES.items():
        begin = f"<!-- table: {name} -->"
        before, found, after = page.partition(begin)
        if not found or END not in after:
            raise TablesError(f"the page has no {begin} with {END} after it")
        page = f"{before}{begin}\n\n" + "\n".join(table(reports)) + f"\n\n{END}{after.partition(END)[2]}"
    return page


def _commit() -> str:
    if _git("status", "--porcelain", "operator"):
        raise TablesError("operator/ has changes that are not committed; figures are of a commit")
    return _git("rev-parse", "--short=7", "HEAD")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def gathered(directory: Path, coefficients: str, *, run: bool) -> Reports:
    """Return the reports of a directory, those that are missing or of other coefficients made by the command.

    Raises:
        TablesError: A report is missing or of other coefficients and none is made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    reports: dict[str, Report] = {}
    for name, arguments in {**LEFT_OUT, **NEVER_FITTED}.items():
        path = directory / f"{name}.json"
        report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if report.get("coefficients") != coefficients:
            if not run:
                raise TablesError(f"{path} is missing or not of coefficients {coefficients}")
            commit = _commit()
            command = [sys.executable, "-m", "energylens", "accuracy", *arguments, "-o", "json"]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
            report = {"commit": commit, **json.loads(done.stdout)}
            if name == "own":
                report["rows"] = _predicted_rows(directory / "own.csv")
            path.write_text(json.dumps(report), encoding="utf-8")
        reports[name] = report
    return reports


def _predicted_rows(out: Path) -> list[dict[str, str]]:
    """Return this project's runs, each with the figures that `energylens predict` writes for it."""
    command = [sys.executable, "-m", "energylens", "predict", "--runs", str(OWN_RUNS), "--out", str(out)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    with OWN_RUNS.open(encoding="utf-8") as measured, out.open(encoding="utf-8") as predicted:
        found = {row["run_id"]: row for row in csv.DictReader(predicted)}
        return [{**row, **found[row["run_id"]]} for row in csv.DictReader(measured)]


def main() -> int:
    """Write the page."""
    from energylens.data.predictor import load_coefficients

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("directory", type=Path, help="of reports, one for each way to leave runs out")
    parser.add_argument("--only-write", action="store_true", help="run nothing")
    given = parser.parse_args()
    try:
        reports = gathered(given.directory, load_coefficients().version, run=not given.only_write)
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), reports), encoding="utf-8")
    except TablesError as refused:
        sys.stderr.write(f"{refused}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
