"""``energylens calibrate run``: measure an engine on this machine's GPUs under known loads."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from energylens.benchmark.client import ServerUnderTest
from energylens.benchmark.points import LEVELS, POISSON_SHARE, Point, closed_points, poisson_point
from energylens.benchmark.record import RunRecordError, Subject, append, read_rows, row_of, run_id
from energylens.cli.errors import InputError, one_line_errors
from energylens.cli.inputs.engine_points import Bench, PointFailedError, gpu_names, measure_point
from energylens.cli.inputs.engine_run import EngineUnderTest, ask_engine, read_command, started
from energylens.clock import SystemClock
from energylens.data import UnknownGpuError, UnknownModelError, find_gpu, load_model
from energylens.measure.nvml import NvmlSource, NvmlUnavailableError
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.requantize import UnsupportedQuantizationError, with_quantization
from energylens.runs import weight_precision

MIN_SECONDS = 5.0
FAILED = 1


@click.command("run", context_settings={"ignore_unknown_options": True})
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="URL of the engine, without /v1.")
@click.option("--start", is_flag=True, help="Start COMMAND, wait until it is healthy, and stop it at the end.")
@click.option(
    "--start-timeout",
    type=click.FloatRange(min=1),
    default=1800.0,
    show_default=True,
    help="Maximum time until the engine is healthy, s.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE", help="CSV file.")
@click.option(
    "--gpu", "gpus", multiple=True, metavar="INDEX|UUID", help="GPUs that the engine uses. Default: all GPUs."
)
@click.option(
    "--concurrency",
    "levels",
    default=",".join(map(str, LEVELS)),
    show_default=True,
    metavar="N,...",
    help="Requests in flight of the closed loops; those above the engine's batch are left out.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Poisson arrivals per second. Default: 0.65 of the best closed loop's.",
)
@click.option("--no-poisson", is_flag=True, help="Closed loops only.")
@click.option("--input-tokens", type=click.IntRange(1, 1_000_000), default=300, show_default=True)
@click.option("--output-tokens", type=click.IntRange(2, 100_000), default=400, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(min=MIN_SECONDS, max=3600),
    default=20.0,
    show_default=True,
    help="Length of the window of a closed loop, s; Poisson arrivals take three times as long.",
)
@click.option("--name", help="Name of the measurement, and prefix of every run_id. Default: model and GPU.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the prompts, which are random tokens.")
@click.option("--report", "report_file", type=click.Path(path_type=Path), metavar="FILE", help="Write an HTML page.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run_command(
    url: str,
    start: bool,
    start_timeout: float,
    out: Path,
    gpus: tuple[str, ...],
    levels: str,
    rate: float | None,
    no_poisson: bool,
    input_tokens: int,
    output_tokens: int,
    seconds: float,
    name: str | None,
    seed: int,
    report_file: Path | None,
    command: tuple[str, ...],
) -> None:
    """Measure an engine on this machine: latency by streaming clients, energy by NVML, a row per load.

    COMMAND, after `--`, is the engine's command line. It states the model and the layout; only --start runs it. Closed
    loops come first, then Poisson arrivals. Nothing else may use the engine or its GPUs meanwhile. Rows are written one
    by one; running the same command again measures the missing rows. `calibrate fit --runs FILE --add-shipped` fits to
    the rows. Exit code 1: a load could not be measured.
    """
    clock = SystemClock()
    with one_line_errors(InputError, NvmlUnavailableError, RunRecordError), ExitStack() as stack:
        if report_file is not None:
            from energylens.cli.pictures.plot import check_plot

            check_plot(report_file, "--report", (".html",))
        engine, arguments = read_command(command)
        model = _model(arguments.model, arguments.quantization)
        wanted = _levels(levels)
        stack.enter_context(_ended_by_sigterm())
        source = stack.enter_context(NvmlSource(clock))
        url = url.rstrip("/")
        if start:
            took = stack.enter_context(started(command, url, out.with_suffix(".log"), start_timeout))
            click.echo(f"healthy after {took:.0f} s", err=True)
        found = ask_engine(url, engine, arguments)
        bench = Bench(ServerUnderTest(url, found.served_name, model.vocab), gpus, seconds, seed, source, clock)
        subject = _subject(found, model, gpu_names(bench), name, clock.now().date().isoformat())
        failed = _measure_all(bench, subject, out, wanted, rate, no_poisson, (input_tokens, output_tokens))
        _say(out, subject, report_file)
    if failed:
        raise SystemExit(FAILED)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the command as an exit does, which also stops the load and a started engine."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _measure_all(
    bench: Bench,
    subject: Subject,
    out: Path,
    levels: tuple[int, ...],
    rate: float | None,
    no_poisson: bool,
    shape: tuple[int, int],
) -> int:
    """Measure every point that the table lacks, and return the number of failures."""
    rows = read_rows(out, subject)
    points = closed_points(levels, subject.max_num_seqs, *shape)
    if not points and (no_poisson or rate is None):
        raise InputError(f"--concurrency: every value exceeds the engine's batch of {subject.max_num_seqs}")
    total = len(points) + (not no_poisson)
    failed = 0
    begun = time.monotonic()
    for number, point in enumerate(_with_arrivals(points, rate, no_poisson, subject, out, shape), 1):
        if any(row["run_id"] == run_id(subject, point) for row in rows):
            click.echo(f"{number}/{total} {point.name}: already in {out}", err=True)
            continue
        try:
            found = measure_point(bench, point)
        except PointFailedError as error:
            failed += 1
            click.echo(f"{number}/{total} {point.name}: not measured: {error}", err=True)
            continue
        row = row_of(subject, found, rows)
        try:
            append(out, row)
        except OSError as error:
            raise InputError(f"--out={out}: {error.strerror or error}") from error
        rows.append(row)
        minutes = (time.monotonic() - begun) / 60
        click.echo(
            f"{number}/{total} {point.name}: {found.output_tokens_per_second:.0f} tokens/s, {found.power_watts:.0f} W, "
            f"{found.joules_per_output_token:.3g} J per token, {minutes:.1f} min",
            err=True,
        )
    return failed


def _with_arrivals(
    points: Sequence[Point], rate: float | None, no_poisson: bool, subject: Subject, out: Path, shape: tuple[int, int]
) -> Iterator[Point]:
    yield from points
    if no_poisson:
        return
    if rate is None:
        # Rows of an earlier run of the command count, too.
        done = [
            float(row["output_tokens_per_second"])
            for row in read_rows(out, subject)
            if row["run_id"] in {run_id(subject, point) for point in points}
        ]
        if not done:
            click.echo("no closed loop was measured, so the rate of arrivals is unknown; give --rate", err=True)
            return
        rate = POISSON_SHARE * max(done) / shape[1]
    yield poisson_point(rate, *shape)


def _levels(text: str) -> tuple[int, ...]:
    try:
        found = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        found = ()
    if not found or found[0] < 1:
        raise InputError(f"--concurrency={text}: must be whole numbers above 0 with commas, such as 1,8,64")
    return found


def _model(name: str, quantization: str) -> ModelSpec:
    try:
        model = load_model(name)
        return with_quantization(model, "FP8" if quantization.lower().startswith("fp8") else None)
    except UnknownModelError as error:
        raise InputError(f"COMMAND: `calibrate fit` knows the models of the catalogue only: {error}") from error
    except UnsupportedQuantizationError as error:
        raise InputError(f"COMMAND: {error}") from error


def _subject(found: EngineUnderTest, model: ModelSpec, products: Sequence[str], name: str | None, date: str) -> Subject:
    layout = found.arguments.layout
    assert layout.max_batch_size is not None
    if len(set(products)) > 1:
        raise InputError(f"--gpu: several products, {', '.join(sorted(set(products)))}; name the engine's GPUs")
    if len(products) != layout.gpus:
        raise InputError(
            f"--gpu: {len(products)} GPUs, but COMMAND uses {layout.gpus}; name the engine's GPUs by --gpu"
        )
    try:
        gpu = find_gpu(products[0])
    except UnknownGpuError as error:
        raise InputError(f"--gpu: {error}") from error
    batch = layout.max_batch_size * layout.data_parallel
    default = f"{found.arguments.model.rpartition('/')[2]}-{gpu.name}-tp{layout.tensor_parallel}".lower()
    return Subject(
        run=re.sub(r"[^A-Za-z0-9.]+", "-", name or default).strip("-"),
        source=f"energylens calibrate run {date}",
        model=found.arguments.model,
        weight_precision=weight_precision(model),
        gpu=gpu.name,
        gpus=layout.gpus,
        tensor_parallel=layout.tensor_parallel,
        expert_parallel=layout.expert_parallel,
        data_parallel=layout.data_parallel,
        max_num_seqs=batch,
        engine=f"{found.name}=={found.version.partition('+')[0]}",
    )


def _say(out: Path, subject: Subject, report_file: Path | None) -> None:
    """Print predicted beside measured, and write the page."""
    from energylens.cli.text.measured_runs import compare, report

    compared = compare(out, subject.run)
    click.echo(report(compared), nl=False)
    if report_file is not None:
        from energylens.cli.pictures.measured_runs_page import measured_runs_page
        from energylens.cli.pictures.plot import write_text

        write_text(report_file, measured_runs_page(compared, subject.engine), "--report")
        click.echo(f"wrote {report_file}", err=True)
    sys.stdout.flush()
