"""`energylens predict`: predictions for a table of runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import click

from energylens.accuracy.evaluate import Predicted, predict_runs
from energylens.cli.errors import one_line_errors
from energylens.cli.inputs.runs import predictor_for
from energylens.runs import Run, RunsFileError, RunTable, read_runs, resolver

_COLUMNS = {
    "itl": "predicted_median_itl_ms",
    "tpot": "predicted_tpot_ms",
    "throughput": "predicted_output_tokens_per_second",
    "power": "predicted_power_watts",
    "energy": "predicted_joules_per_output_token",
}
_CONFIDENCE = ("measurement", "interpolation", "interpolation", "extrapolation")
"""Names of the confidence levels, by number."""
OUTPUT_COLUMNS = (
    "run_id",
    *(f"{name}{end}" for name in _COLUMNS.values() for end in ("", "_low", "_high")),
    "confidence",
    "error",
    "what_if",
    "predicted_ttft_ms",
)
"""``what_if``: the number format, if the checkpoint lacks it and the usual releases are assumed; else empty.
The time to first token has no interval, since it was measured only in closed loops."""

_BLANK = [""] * OUTPUT_COLUMNS[1:].index("error")


@click.command()
@click.option(
    "--runs",
    "runs_file",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="CSV with run_id, task, model_id, weight_precision, gpu_model, num_gpus, tensor_parallel, expert_parallel, "
    "data_parallel, max_num_seqs, concurrency, input_tokens_assumed, output_tokens, engine. Measured columns are not "
    "read. Without an engine: the newest profile of vLLM.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="CSV file to write.")
def predict(runs_file: Path, out: Path) -> None:
    """Predict latency, throughput, power and energy of each row of a table, with 80 % intervals.

    A row that cannot be predicted has a message in the column error; other rows are not affected. A row whose
    weight_precision the checkpoint lacks is a what-if: weights in that format by the usual recipe of such releases,
    named in the column what_if.
    """
    with one_line_errors(RunsFileError):
        table = read_runs(runs_file, measured=False)
    resolve = resolver()
    predicted = predict_runs(table.runs, resolve, predictor_for)
    what_ifs = [resolve(run).what_if for run in table.runs]
    try:
        out.write_text(as_csv(table, predicted, what_ifs), encoding="utf-8")
    except OSError as error:
        click.echo(f"Error: --out {out}: {error.strerror or error}", err=True)
        raise SystemExit(2) from error
    failed = len(table.errors) + int((~predicted.ok).sum())
    rows = f"{len(table.rows)} row{'' if len(table.rows) == 1 else 's'}"
    click.echo(f"{rows} written to {out}, {failed} without a prediction (see its column error)", err=True)


def as_csv(table: RunTable, predicted: Predicted, what_ifs: Sequence[str]) -> str:
    """Return the output table, one line per row of the input and in its order.

    Args:
        table: The rows.
        predicted: Predictions of the valid rows.
        what_ifs: The number format of each valid row that the checkpoint lacks; "" for the checkpoint's own format.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(OUTPUT_COLUMNS)
    at = 0
    for row in table.rows:
        if isinstance(row, Run):
            writer.writerow(_cells(row.run_id, predicted, at, what_ifs[at]))
            at += 1
        else:
            writer.writerow([row.run_id, *_BLANK, row.message, "", ""])
    return buffer.getvalue()


def _cells(run_id: str, predicted: Predicted, at: int, what_if: str) -> Sequence[str]:
    if predicted.error[at]:
        return [run_id, *_BLANK, predicted.error[at], what_if, ""]
    numbers = []
    for quantity in _COLUMNS:
        ends = predicted.intervals[quantity]
        numbers += [predicted.values[quantity][at], ends.low[at], ends.high[at]]
    figures, first = [f"{number:.6g}" for number in numbers], predicted.values["ttft"][at]
    return [run_id, *figures, _CONFIDENCE[predicted.nearest[at]], "", what_if, f"{first:.6g}"]
