"""`energylens audit`: the LLM engines of a cluster, their power, and the savings of a plan. Read-only."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from energylens.audit.assessment import Assessment, AuditOptions
from energylens.audit.served import ServedModel
from energylens.audit.telemetry import Telemetry
from energylens.cli.errors import InputError, one_line_errors
from energylens.cli.inputs.audit import (
    Audited,
    assessed,
    audited_cluster,
    audited_file,
    hosts_of,
    served,
    telemetry_of_files,
    telemetry_of_pods,
    telemetry_of_prometheus,
)
from energylens.cli.inputs.decorated import with_options
from energylens.cli.inputs.live import ClusterAccess, cluster_options
from energylens.cli.inputs.options import OUTPUT
from energylens.cli.inputs.prometheus_options import PrometheusWindow, prometheus_options
from energylens.cli.inputs.rates import Rates, rates_options
from energylens.cli.text.audit import as_object, manifest, report
from energylens.cli.text.provenance import Provenance
from energylens.cli.text.tables import dump
from energylens.clock import SystemClock
from energylens.measure.prometheus_http import Access
from energylens.records import dataclass

MIN_SECONDS = 30.0
_Command = TypeVar("_Command", bound=Callable[..., Any])
_MILLISECONDS = click.IntRange(1, 3_600_000)


@dataclass(frozen=True)
class _Metrics:
    """The sources of metrics."""

    prometheus: Access | None
    files: tuple[Path, ...]
    window_seconds: float
    """Time span of the queries to Prometheus."""
    seconds: float
    """Time between the two reads of the pods' metrics pages."""


def _metrics_options(command: _Command) -> Callable[..., Any]:
    """Add the options for the sources of metrics; the command takes them as ``metrics``."""

    @wraps(command)
    def wrapped(
        *,
        prometheus: PrometheusWindow,
        metrics: tuple[Path, ...],
        seconds: float,
        **rest: Any,
    ) -> Any:
        return command(metrics=_Metrics(prometheus.access, metrics, prometheus.seconds, seconds), **rest)

    options = (
        prometheus_options("A Prometheus that scrapes the engines and dcgm-exporter, and meters of the hosts if any."),
        click.option(
            "--metrics",
            type=click.Path(path_type=Path),
            multiple=True,
            metavar="FILE",
            help="An answer of a Prometheus's /api/v1/query to a selector with a range such as "
            '{__name__=~"vllm:.*|sglang:.*|DCGM_.*|kepler_platform_watts"}[1h:30s]. May be repeated.',
        ),
        click.option(
            "--seconds",
            type=click.FloatRange(min=MIN_SECONDS, max=3600),
            default=180.0,
            show_default=True,
            help="Without --prometheus and --metrics: time over which the metrics pages of pods are read through the "
            "API server, s. dcgm-exporter's counters change every 30 s, and a window needs four changes.",
        ),
    )
    return with_options(wrapped, options)


def _question_options(command: _Command) -> Callable[..., Any]:
    """Add the bounds that a plan has to hold; the command takes them as ``question``."""

    @wraps(command)
    def wrapped(
        *, ttft_ms: int | None, itl_ms: int | None, tpot_ms: int | None, slack_percent: int, **rest: Any
    ) -> Any:
        bounds = {"ttft_milliseconds": ttft_ms, "itl_milliseconds": itl_ms, "tpot_milliseconds": tpot_ms}
        asked = {name: value for name, value in bounds.items() if value is not None}
        return command(question=AuditOptions(asked, slack_percent), **rest)

    options = (
        click.option("--ttft-ms", type=_MILLISECONDS, help="Bound on TTFT P95 instead of today's."),
        click.option("--itl-ms", type=_MILLISECONDS, help="Bound on ITL P95 instead of today's."),
        click.option("--tpot-ms", type=_MILLISECONDS, help="Bound on TPOT P95 instead of today's."),
        click.option(
            "--slack-percent",
            type=click.IntRange(0, 1000),
            default=0,
            show_default=True,
            help="Allowed increase of today's latencies.",
        ),
    )
    return with_options(wrapped, options)


@click.command()
@click.option(
    "--inventory",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Objects as `kubectl get nodes,pods,configmaps -A -o json` prints them, instead of a live cluster.",
)
@cluster_options
@click.option("-n", "--namespace", metavar="NAME", help="Show only this namespace. Default: all namespaces.")
@_metrics_options
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME=ID",
    help="Hugging Face id of a model that is served from a path. NAME or NAMESPACE/NAME is the workload's, such as "
    "team-a/chat. May be repeated.",
)
@_question_options
@rates_options
@click.option("--report", "report_file", type=click.Path(path_type=Path), metavar="FILE", help="Write an HTML page.")
@click.option(
    "--write",
    "write_to",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write an LLMDeployment for each model for which a plan saves energy.",
)
@OUTPUT
def audit(
    inventory: Path | None,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    metrics: _Metrics,
    models: tuple[str, ...],
    question: AuditOptions,
    rates: Rates,
    report_file: Path | None,
    write_to: Path | None,
    output: str,
) -> None:
    """Show which workloads serve LLMs now, their power, and the plan that would serve the same load with less energy.

    The command installs nothing and writes nothing to the cluster: it reads pods, nodes, and the counters of engines
    and GPUs. A plan must meet today's measured latencies, or the bounds of --ttft-ms, --itl-ms and --tpot-ms.
    """
    access = ClusterAccess(kubeconfig, context)
    with one_line_errors(InputError):
        _check_outputs(report_file, write_to)
        if metrics.prometheus is not None and metrics.files:
            raise InputError("--prometheus queries a server and --metrics reads its answers: give only one")
        ids = _model_ids(models)
        if inventory is not None and (kubeconfig is not None or context is not None):
            raise InputError("--inventory describes the cluster; --kubeconfig and --context read another: give one")
        audited = audited_file(inventory) if inventory is not None else audited_cluster(access)
        snapshot, found = served(audited, ids, str(inventory))
        found = [each for each in found if namespace is None or each.owner.namespace == namespace]
        _check_ids(ids, found)
        telemetry = _telemetry(metrics, audited, found, access, is_live=inventory is None)
        answers = assessed(found, audited, telemetry, question)
        hosts, unknown = hosts_of(audited, telemetry)
        failures = (*telemetry.failures, *unknown)
        if report_file is not None:
            from energylens.cli.pictures.audit_page import audit_page

            where = f"inventory {inventory.name}" if inventory is not None else "the live cluster"
            made = Provenance(SystemClock().now(), where, snapshot).text(
                {each.plan.predictor_version for each in answers if each.plan is not None}
            )
            _write_page(report_file, audit_page(answers, rates, telemetry.source, failures, made, hosts))
        if write_to is not None:
            _write_manifests(write_to, answers)
    if output == "table":
        click.echo(report(answers, rates, telemetry.source, failures, hosts))
    else:
        click.echo(dump([as_object(each, rates, hosts) for each in answers], output), nl=False)


def _check_outputs(report_file: Path | None, write_to: Path | None) -> None:
    """Refuse output files that cannot be written, before anything is read."""
    if report_file is not None:
        from energylens.cli.pictures.plot import check_plot

        check_plot(report_file, "--report", (".html",))
    if write_to is not None and write_to.exists() and not write_to.is_dir():
        raise InputError(f"--write={write_to}: is not a folder")


def _telemetry(
    metrics: _Metrics, audited: Audited, found: Sequence[ServedModel], access: ClusterAccess, *, is_live: bool
) -> Telemetry:
    """Return the measurements of the models: from files or a Prometheus if named, else from the pods' metrics pages."""
    if metrics.files:
        return telemetry_of_files(metrics.files, audited)
    if metrics.prometheus is not None:
        return telemetry_of_prometheus(metrics.prometheus, metrics.window_seconds, audited)
    if not is_live or not found:
        return Telemetry(0.0, 0.0)
    click.echo(f"reading the pages of pods for {metrics.seconds:.0f} s ...", err=True)
    return telemetry_of_pods(access, audited, found, metrics.seconds)


def _model_ids(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, model = text.partition("=")
        if not equals or not name or not model:
            raise InputError(f"--model={text}: must be NAME=ID, such as team-a/chat=meta-llama/Llama-3.1-70B-Instruct")
        found[name] = model
    return found


def _check_ids(ids: dict[str, str], found: Sequence[ServedModel]) -> None:
    known = {each.owner.name for each in found} | {f"{each.owner.namespace}/{each.owner.name}" for each in found}
    for name in ids:
        if name not in known:
            there = ", ".join(sorted(f"{each.owner.namespace}/{each.owner.name}" for each in found)) or "nothing"
            raise InputError(f"--model={name}: no such name; served here: {there}")


def _write_page(path: Path, page: str) -> None:
    from energylens.cli.pictures.plot import write_text

    write_text(path, page, "--report")
    click.echo(f"wrote {path}", err=True)


def _write_manifests(folder: Path, found: Sequence[Assessment]) -> None:
    from energylens.cli.pictures.plot import write_text

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--write={folder}: {error.strerror}") from error
    for each in found:
        if each.verdict == "Saves" and each.deployment is not None:
            metadata = each.deployment.metadata
            name = re.sub(r"[^A-Za-z0-9.-]", "-", f"{metadata.namespace}-{metadata.name}")
            path = folder / f"{name}.yaml"
            write_text(path, dump([manifest(each.deployment)], "yaml"), "--write")
            click.echo(f"wrote {path}", err=True)
