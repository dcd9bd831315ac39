"""Measured rows beside their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from energylens.accuracy.evaluate import predict_runs
from energylens.cli.inputs.runs import predictor_for
from energylens.cli.text.tables import columns
from energylens.records import dataclass
from energylens.runs import Run, read_runs, resolver

FIGURES = {
    "itl": ("ITL P50, ms", "median_itl_ms"),
    "tpot": ("TPOT, ms", "time_per_output_token_ms"),
    "ttft": ("TTFT P50, ms", "time_to_first_token_ms"),
    "power": ("power, W", "power_watts"),
    "energy": ("J per token", "joules_per_output_token"),
}
"""The heading and the property of a measured run for each quantity of the predictor."""


@dataclass(frozen=True)
class Compared:
    """A measured row and its prediction; figures by quantity, None on a side that lacks the figure."""

    run: Run
    measured: dict[str, float | None]
    predicted: dict[str, float]
    error: str
    """Why there is no prediction; "" if there is one."""

    def error_percent(self, quantity: str) -> float | None:
        """Return 100 x (predicted - measured) / measured."""
        found = self.measured[quantity]
        return None if not found or self.error else 100.0 * (self.predicted[quantity] / found - 1.0)


def compare(path: Path, name: str) -> list[Compared]:
    """Return the rows of one measurement of a table beside their predictions.

    Args:
        path: The table.
        name: The beginning of the run_ids.

    Raises:
        RunsFileError: The file is no table of runs.
    """
    runs = [run for run in read_runs(path, measured=True).runs if run.run_id.startswith(f"{name}-")]
    predicted = predict_runs(runs, resolver(), predictor_for)
    return [
        Compared(
            run,
            {quantity: getattr(run.measured, field) for quantity, (_, field) in FIGURES.items()},
            {quantity: float(predicted.values[quantity][at]) for quantity in FIGURES},
            predicted.error[at],
        )
        for at, run in enumerate(runs)
    ]


def table_rows(compared: Sequence[Compared]) -> list[tuple[str, ...]]:
    """Return a header and a row per load: measured, predicted and error of each quantity."""
    rows = [("RUN", *(heading for heading, _ in FIGURES.values()))]
    for each in compared:
        cells = []
        for quantity in FIGURES:
            found, error = each.measured[quantity], each.error_percent(quantity)
            cells.append(
                "-"
                if found is None or error is None
                else f"{found:.3g} / {each.predicted[quantity]:.3g} ({error:+.0f} %)"
            )
        rows.append((each.run.run_id, *cells))
    return rows


def report(compared: Sequence[Compared]) -> str:
    """Return measured against predicted as text."""
    if not compared:
        return "nothing was measured\n"
    lines = ["measured / predicted (error)", *columns(table_rows(compared))]
    lines += [f"  {each.run.run_id}: no prediction: {each.error}" for each in compared if each.error]
    return "\n".join([*lines, ""])
