"""Which measured run a pod replays: the nearest one on the same GPUs, at the load that the pod has to carry."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

import numpy as np

from energylens.data import UnknownModelError, find_gpu, load_model
from energylens.predictor.model.architecture import ModelSpec, Quantization
from energylens.runs.resolve import weight_precision
from energylens.runs.table import parse_runs
from energylens.runs.types import Run

FILE = "ml-energy-benchmark-v3.csv"
SIBLING_DISTANCE = 1.0
"""Another model of the same architecture and precision."""
LAYOUT_DISTANCE = 1.0
"""The same number of GPUs split in another way."""
HOST_BOUND_DISTANCE = 0.5
"""Times the share of runs that the source's host slowed down."""


class NoRunError(LookupError):
    """Nothing was measured that could stand for a pod; the message says what was looked for."""


@dataclass(frozen=True)
class Load:
    """What one replica has to carry: output tokens per second, or concurrent sequences; neither means saturated."""

    output_tokens_per_second: float | None = None
    concurrency: float | None = None


@dataclass(frozen=True)
class Plan:
    """What one replica runs, and the mean request."""

    model: str
    precision: str | None
    """None: as the checkpoint has it."""
    gpu_product: str
    tensor_parallel: int
    pipeline_parallel: int
    data_parallel: int
    expert_parallel: bool
    max_num_seqs: int | None
    input_tokens: float | None
    output_tokens: float | None

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel


@dataclass(frozen=True)
class ReplicaFigures:
    """Measured figures of one replica, between at most two runs of one configuration."""

    run_ids: tuple[str, ...]
    model_id: str
    task: str
    concurrency: float
    output_tokens_per_second: float
    output_tokens: float
    """Per request."""
    input_tokens: float
    """Per request, as the source of the runs assumes: it measured no prompt lengths."""
    power_watts: float
    """All GPUs of the replica."""
    itl_ms: tuple[float, float, float, float]
    """Median, P90, P95 and P99."""
    distance: float
    """0 is the same model, layout and request shape; see `distance`."""
    clamped: str = ""
    """``below`` or ``above`` when the load is outside of what was measured, so that the nearest end stands for it."""


@cache
def measured_runs() -> tuple[Run, ...]:
    """Return the runs that the package keeps."""
    text = resources.files("energylens.data").joinpath("runs", FILE).read_text(encoding="utf-8")
    table = parse_runs(text, FILE, measured=True)
    if table.errors:
        raise ValueError(f"{FILE}: {table.errors[0].message}")
    return table.runs


def operating_point(plan: Plan, load: Load, runs: Iterable[Run] | None = None) -> ReplicaFigures:
    """Return what was measured nearest to a plan under a load.

    Model architecture, weight precision, GPU and number of GPUs must be the plan's. Of several configurations the one
    at the least `distance` is taken; within it figures are interpolated in the logarithm of concurrency.

    Raises:
        NoRunError: nothing was measured with these.
    """
    wanted = _architecture(plan.model)
    precision = plan.precision or weight_precision(_spec(plan.model))
    gpu = find_gpu(plan.gpu_product).name
    curves: dict[tuple[object, ...], list[Run]] = defaultdict(list)
    for run in measured_runs() if runs is None else runs:
        if (
            run.measured is None
            or run.measured.output_tokens_per_second is None
            or run.measured.power_watts is None
            or run.gpu_model != gpu
            or run.num_gpus != plan.gpus
            or run.weight_precision != precision
        ):
            continue
        if plan.pipeline_parallel == 1 and _architecture(run.model_id) == wanted:
            layout = (run.tensor_parallel, run.expert_parallel, run.data_parallel)
            curves[(run.model_id, run.task, *layout)].append(run)
    if not curves:
        raise NoRunError(
            f"no measured run of {plan.model} or a sibling in {precision} "
            f"on {plan.gpus} x {gpu} without pipeline parallelism"
        )
    away, curve = min(((distance(plan, curve), curve) for curve in curves.values()), key=lambda pair: pair[0])
    return _at(sorted(curve, key=lambda run: run.concurrency), plan, load, away)


def distance(plan: Plan, curve: Sequence[Run]) -> float:
    """Return how far the runs of one configuration are from a plan.

    A sibling model and another split of the same GPUs cost 1 each, request lengths the absolute logarithm of their
    ratio (half of it for the prompt, whose measured length is an assumption), host-bound runs half their share.
    """
    run = curve[0]
    away = SIBLING_DISTANCE * (run.model_id.lower() != plan.model.lower())
    layout = (run.tensor_parallel, run.data_parallel, run.expert_parallel > 1)
    away += LAYOUT_DISTANCE * (layout != (plan.tensor_parallel, plan.data_parallel, plan.expert_parallel))
    if plan.output_tokens:
        away += abs(math.log(plan.output_tokens / run.output_tokens))
    if plan.input_tokens:
        away += 0.5 * abs(math.log(plan.input_tokens / run.input_tokens))
    return away + HOST_BOUND_DISTANCE * sum(each.host_bound for each in curve) / len(curve)


@cache
def _spec(model: str) -> ModelSpec:
    try:
        return load_model(model)
    except UnknownModelError as error:
        raise NoRunError(f"no measured run of {model}: {error}") from error


@cache
def _architecture(model: str) -> ModelSpec:
    plain = Quantization()
    return replace(
        _spec(model),
        name="",
        max_position=0,
        attention_quant=plain,
        ffn_quant=plain,
        expert_quant=plain,
        head_quant=plain,
    )


def _at(curve: Sequence[Run], plan: Plan, load: Load, away: float) -> ReplicaFigures:
    """Pick the place on a curve of runs, ascending in concurrency, at least one."""
    logs = np.log([run.concurrency for run in curve])
    rates = np.array([run.measured.output_tokens_per_second for run in curve if run.measured])
    most = float(len(curve) - 1)
    if plan.max_num_seqs is not None:
        limit = plan.max_num_seqs * plan.data_parallel
        most = float(np.interp(math.log(limit), logs, np.arange(len(curve))))
    place, clamped = most, ""
    if load.concurrency is not None:
        wanted = math.log(load.concurrency)
        place = min(most, float(np.interp(wanted, logs, np.arange(len(curve)))))
        clamped = "below" if wanted < logs[0] - 1e-9 else "above" if wanted > logs[-1] + 1e-9 else ""
    elif load.output_tokens_per_second is not None:
        place, clamped = _place_of_rate(rates, load.output_tokens_per_second, most)
    floor = min(int(place), len(curve) - 1)
    share = place - floor
    ends = [curve[floor]] if share == 0 else [curve[floor], curve[floor + 1]]

    def mix(values: Sequence[float]) -> float:
        return values[0] if share == 0 else (1 - share) * values[0] + share * values[1]

    found = [run.measured for run in ends if run.measured]
    percentiles = [(m.median_itl_ms, m.p90_itl_ms, m.p95_itl_ms, m.p99_itl_ms) for m in found]
    median, p90, p95, p99 = (mix(each) for each in zip(*percentiles, strict=True))
    return ReplicaFigures(
        run_ids=tuple(run.run_id for run in ends),
        model_id=ends[0].model_id,
        task=ends[0].task,
        concurrency=math.exp(mix([math.log(run.concurrency) for run in ends])),
        output_tokens_per_second=mix([r for m in found if (r := m.output_tokens_per_second) is not None]),
        output_tokens=mix([run.output_tokens for run in ends]),
        input_tokens=mix([run.input_tokens for run in ends]),
        power_watts=mix([w for m in found if (w := m.power_watts) is not None]),
        itl_ms=(median, p90, p95, p99),
        distance=away,
        clamped=clamped,
    )


def _place_of_rate(rates: np.ndarray, wanted: float, most: float) -> tuple[float, str]:
    """Return the first place on the curve, an index with a fraction, whose throughput is ``wanted``."""
    if wanted <= rates[0]:
        return 0.0, "below" if wanted < rates[0] else ""
    for index in range(1, len(rates)):
        if rates[index] >= wanted:
            place = index - 1 + (wanted - rates[index - 1]) / (rates[index] - rates[index - 1])
            return (float(place), "") if place <= most else (most, "above")
    return min(most, float(np.argmax(rates))), "above"
