"""A cluster's measurements as a table of runs, so that the predictor can be fitted to the site."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.quantity import parse_quantity
from energylens.data import UnknownModelError, find_gpu, load_model
from energylens.planner.engines.versions import tagged_version
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.parameters import active_parameter_count, parameter_count
from energylens.predictor.model.requantize import UnsupportedQuantizationError, with_quantization
from energylens.records import dataclass
from energylens.runs import weight_precision

COLUMNS = (
    "run_id", "task", "model_id", "architecture", "total_params_billions", "activated_params_billions",
    "weight_precision", "gpu_model", "num_gpus", "tensor_parallel", "expert_parallel", "data_parallel",
    "max_num_seqs", "concurrency", "input_tokens_assumed", "output_tokens", "engine", "host_bound",
    "median_itl_ms", "p90_itl_ms", "p95_itl_ms", "p99_itl_ms", "output_tokens_per_second", "power_watts",
    "joules_per_output_token",
)  # fmt: skip
"""Columns of the shipped runs."""
TASK = "site"


class _LeftOutError(Exception):
    """A deployment yields no run; the message says why."""


@dataclass(frozen=True)
class RunsTable:
    """The CSV text, its number of runs, and a sentence for each LLMDeployment without a run."""

    text: str
    written: int
    left_out: tuple[str, ...]


def runs_csv(deployments: Sequence[LLMDeployment]) -> RunsTable:
    """Return one run per LLMDeployment with a complete measurement; missing figures are never filled in."""
    buffer, written, left_out = io.StringIO(newline=""), 0, []
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for deployment in deployments:
        try:
            writer.writerow(_run(deployment))
            written += 1
        except _LeftOutError as error:
            left_out.append(f"{deployment.metadata.namespace}/{deployment.metadata.name}: {error}")
    return RunsTable(buffer.getvalue(), written, tuple(left_out))


def _run(deployment: LLMDeployment) -> dict[str, object]:
    status, spec = deployment.status, deployment.spec
    plan, measured, itl = status.plan, status.measured, status.measured.itl_percentiles if status.measured else None
    available = next((c for c in status.conditions if c.type == "EnergyMetricsAvailable"), None)
    if plan is None or measured is None or available is None or available.status != "True":
        raise _LeftOutError(f"not measured ({available.reason if available is not None else 'no plan'})")
    figures = (measured.power_watts, measured.output_tokens_per_second, measured.joules_per_output_token)
    if itl is None or measured.running_requests is None or None in figures:
        raise _LeftOutError("the engine reports no inter-token latency or running requests")
    if plan.pipeline_parallel > 1:
        raise _LeftOutError("pipeline parallelism has no column in a table of runs")
    if plan.power_cap_watts_per_gpu is not None:
        raise _LeftOutError("a power cap has no column in a table of runs")
    if measured.acceptance_percent is not None or spec.workload.speculative is not None:
        raise _LeftOutError("speculative decoding has no column in a table of runs")
    tokens_per_request = measured.output_tokens or round(spec.workload.mean_output_tokens)
    model, replicas = _model(deployment), plan.replicas
    power, rate = float(figures[0] or 0) / replicas, float(figures[1] or 0) / replicas
    concurrency = float(parse_quantity(measured.running_requests)) / replicas
    if concurrency <= 0 or rate <= 0:
        raise _LeftOutError("no request ran")
    identity = f"{deployment.metadata.uid} {plan.hash} {measured.window_end}"
    return {
        "run_id": f"s{hashlib.sha256(identity.encode()).hexdigest()[:8]}",
        "task": TASK,
        "model_id": spec.model.name,
        "architecture": "MoE" if model.is_moe else "Dense",
        "total_params_billions": f"{parameter_count(model) / 1e9:.1f}",
        "activated_params_billions": f"{active_parameter_count(model) / 1e9:.1f}",
        "weight_precision": weight_precision(model),
        "gpu_model": find_gpu(plan.gpu_product).name,
        "num_gpus": plan.gpus // replicas,
        "tensor_parallel": plan.tensor_parallel,
        "expert_parallel": plan.expert_parallel,
        "data_parallel": plan.data_parallel,
        "max_num_seqs": plan.max_batch_size * plan.data_parallel,
        "concurrency": f"{concurrency:.6g}",
        "input_tokens_assumed": measured.input_tokens or round(spec.workload.mean_input_tokens),
        "output_tokens": tokens_per_request,
        "engine": _engine(deployment),
        "host_bound": 0,
        **{f"{column}_itl_ms": _number(value) for column, value in zip(
            ("median", "p90", "p95", "p99"), (itl.p50, itl.p90, itl.p95, itl.p99), strict=True)},
        "output_tokens_per_second": f"{rate:.6g}",
        "power_watts": f"{power:.6g}",
        "joules_per_output_token": _number(measured.joules_per_output_token or "0"),
    }  # fmt: skip


def _number(quantity: str) -> str:
    return f"{float(parse_quantity(quantity)):.6g}"


def _engine(deployment: LLMDeployment) -> str:
    engine = deployment.spec.engine
    version = tagged_version(engine)
    return f"{engine.type.lower()}=={version}" if version else engine.type.lower()


def _model(deployment: LLMDeployment) -> ModelSpec:
    asked = deployment.spec.model
    if asked.config_ref is not None:
        raise _LeftOutError("spec.model.configRef: `calibrate fit` knows the models of the catalogue only")
    try:
        return with_quantization(load_model(asked.name), asked.quantization)
    except (UnknownModelError, UnsupportedQuantizationError) as error:
        raise _LeftOutError(f"spec.model.{error}") from error
