"""The rules that a plan must satisfy, each as a mask over the candidates.

Latencies and the energy objective are checked with the safety margin, since predictions without bias would break half
of the objectives that they just meet. By default, energy is checked at the upper end of the 80 % interval, and latency
at `ranking.LATENCY_SHARE` of the distance to that end. Power is checked without the margin, since budgets add up the
predicted power of many deployments, whose errors average out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from energylens.api.llmdeployment import BatchJob, LLMDeploymentSpec
from energylens.api.quantity import parse_quantity
from energylens.planner.inventory.capacity import replicas_that_fit
from energylens.planner.room import EnergyRoom, JobRoom
from energylens.planner.search import describe
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.job_room import courses_of, needed_watt_hours
from energylens.planner.types import PowerAllowance, Rejection
from energylens.predictor.types import BoolArray, FloatArray
from energylens.records import dataclass

Kind = Literal["Structure", "Memory", "GPUs", "Load", "SLO", "Power"]


LATENCIES = ("TTFTTooHigh", "ITLTooHigh", "TPOTTooHigh", "E2ETooHigh")
"""Rules of latency objectives."""
ENERGY_RULE = "EnergyBudgetExceeded"
"""Rule of the energy that a budget leaves a job."""
FREE_GPUS = "free GPUs"
"""Field of a constraint that the cluster sets, not the spec."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Constraint:
    """One rule; ``holds`` has shape (n,) and marks the candidates that satisfy it."""

    rule: str
    """CamelCase reason of a rejection."""
    kind: Kind
    field: str
    """Path in the spec, or a name such as ``free GPUs`` for a limit that is not in the spec."""
    value: str
    holds: BoolArray
    message: str
    needed: FloatArray | None = None
    """The smallest value of the field, in the field's resolution, with which each candidate would satisfy the rule;
    None if no number would."""
    what: str = ""
    """What ``needed`` measures, in words; ``render`` adds the unit."""
    render: Callable[[float], str] = str
    """Return a needed value as the spec writes it."""
    exceeded: Callable[[int], str] = str
    """Return why one candidate breaks the rule, such as ``20 GPUs > 16 (spec.hardware.maxGPUs)``."""
    excess: FloatArray | None = None
    """Relative amount of the field's value by which each candidate breaks the rule; None if there is no such amount."""
    resolution: float = 1.0
    """Step of the field."""

    def needed_text(self, i: int) -> str | None:
        """Return the value of the field with which one candidate would satisfy the rule; None if no number would."""
        value = math.nan if self.needed is None else float(self.needed[i])
        return self.render(value) if math.isfinite(value) else None

    @property
    def distance(self) -> FloatArray:
        """Return the relaxation of the field that each candidate needs, shape (n,): 0 if none, infinite for NaN."""
        excess = np.ones(self.holds.shape) if self.excess is None else np.nan_to_num(self.excess, nan=np.inf)
        return np.where(self.holds, 0.0, excess)


def build_constraints(
    rows: Candidates,
    spec: LLMDeploymentSpec,
    allowed_products: Sequence[str],
    free_gpus: Sequence[Sequence[int]],
    allowance: PowerAllowance | None,
) -> tuple[Constraint, ...]:
    """Return the rules of a spec in the order in which they are applied.

    Args:
        rows: The candidates.
        spec: The deployment's spec.
        allowed_products: Products that ``spec.hardware.gpuProducts`` lets the plan use.
        free_gpus: By GPU product, the GPUs that are free for this deployment on each node.
        allowance: Watts available from budgets.
    """
    return (
        *_structure(rows),
        *_hardware(rows, spec, allowed_products, free_gpus),
        _load(rows, spec),
        *_objectives(rows, spec),
        *_power(rows, spec, allowance),
    )


def _structure(rows: Candidates) -> list[Constraint]:
    refused = rows.reason[~rows.supported]
    example = ""
    if refused.size:
        reasons, counts = np.unique(refused, return_counts=True)
        example = f": {reasons[np.argmax(counts)]}"
    return [
        Constraint(
            rule="UnsupportedLayout",
            kind="Structure",
            field="layout",
            value="",
            holds=rows.supported,
            message=f"the engine cannot run the layout{example}",
            exceeded=lambda i: str(rows.reason[i]),
        ),
        Constraint(
            rule="MemoryTooSmall",
            kind="Memory",
            field="GPU memory",
            value="",
            holds=rows.fits | ~rows.supported,
            message="the weights and the KV cache of one request do not fit into the GPUs of a replica",
            exceeded=lambda i: "does not fit into GPU memory",
        ),
    ]


def _hardware(
    rows: Candidates, spec: LLMDeploymentSpec, allowed_products: Sequence[str], free_gpus: Sequence[Sequence[int]]
) -> list[Constraint]:
    hardware = spec.hardware
    constraints: list[Constraint] = []
    if hardware.gpu_products:
        allowed = np.asarray([product in allowed_products for product in rows.products])
        value = "[" + ", ".join(hardware.gpu_products) + "]"
        constraints.append(
            Constraint(
                rule="GPUProductNotAllowed",
                kind="GPUs",
                field="spec.hardware.gpuProducts",
                value=value,
                holds=allowed[rows.product],
                message=f"not one of spec.hardware.gpuProducts={value}",
                exceeded=lambda i: f"{rows.products[int(rows.product[i])]} is not in spec.hardware.gpuProducts",
            )
        )
    if hardware.max_gpus_per_replica is not None:
        constraints.append(
            _ceiling("TooManyGPUsPerReplica", "spec.hardware.maxGPUsPerReplica", hardware.max_gpus_per_replica,
                     rows.layouts.gpus.astype(float), "GPUs per replica")
        )  # fmt: skip
    if hardware.max_gpus is not None:
        constraints.append(
            _ceiling("TooManyGPUs", "spec.hardware.maxGPUs", hardware.max_gpus, rows.gpus.astype(float), "GPUs")
        )
    missing = np.zeros(len(rows))
    for number, gpus in enumerate(free_gpus):
        mine = rows.product == number
        fitting = replicas_that_fit(gpus, rows.gpus_per_node[mine], rows.nodes_per_replica[mine])
        missing[mine] = np.maximum(0, rows.replicas[mine] - fitting) * rows.layouts.gpus[mine]
    constraints.append(
        Constraint(
            rule="NotEnoughFreeGPUs",
            kind="GPUs",
            field=FREE_GPUS,
            value=", ".join(f"{sum(gpus)} of {name}" for name, gpus in zip(rows.products, free_gpus, strict=True)),
            holds=missing == 0,
            message="the GPUs that the plan needs are not free",
            exceeded=lambda i: "the GPUs that the plan needs are not free",
            excess=missing / max(1, sum(map(sum, free_gpus))),
        )
    )
    return constraints


def _ceiling(rule: str, field: str, limit: int, needed: FloatArray, what: str) -> Constraint:
    return Constraint(
        rule=rule,
        kind="GPUs",
        field=field,
        value=str(limit),
        holds=needed <= limit,
        message=f"more {what} than {field}={limit}",
        needed=needed,
        what=f"number of {what}",
        render=lambda value: f"{value:.0f}",
        exceeded=lambda i: f"{needed[i]:.0f} {what} > {limit} ({field})",
        excess=needed / limit - 1.0,
    )


def _load(rows: Candidates, spec: LLMDeploymentSpec) -> Constraint:
    workload = spec.workload
    if workload.job is not None:
        field, value = "spec.workload.job.requests", str(workload.job.requests)
        message = f"cannot complete {value} requests within {workload.job.complete_within_seconds} s of the pods' start"
    elif workload.concurrency is not None:
        field, value = "spec.workload.concurrency", str(workload.concurrency)
        message = f"cannot keep {value} requests running at once"
    else:
        field, value = "spec.workload.requestsPerSecond", str(workload.requests_per_second)
        message = f"cannot keep up with {value} requests per second"
    kept = [f"spec.planning.headroomPercent={spec.planning.headroom_percent}"]
    kept = kept if spec.planning.headroom_percent is not None and workload.concurrency is None else []
    if spec.planning.spare_replicas:
        kept.append(f"spec.planning.spareReplicas={spec.planning.spare_replicas}")
    message += f" with {' and '.join(kept)}" if kept else ""

    def exceeded(i: int) -> str:
        busy, limit = rows.utilization[i], rows.utilization_limit[i]
        if workload.job is not None and busy > limit:
            spare = "" if limit >= 1.0 else f", {describe.percent(limit)} % of it with headroom and spare replicas"
            return f"{busy * 100:.0f} % of the time after the start is needed{spare}: the replicas {message}"
        # A replica beyond its capacity shows full utilization; the missing capacity says more.
        if not limit < busy < 1.0:
            return f"the replicas {message}"
        return (
            f"{describe.percent_up(busy)} % utilized, but headroom and spare replicas allow {describe.percent(limit)} %"
        )

    return Constraint(
        rule="LoadTooHigh",
        kind="Load",
        field=field,
        value=value,
        holds=rows.sustainable,
        message=message,
        exceeded=exceeded,
    )


def _objectives(rows: Candidates, spec: LLMDeploymentSpec) -> list[Constraint]:
    slo, constraints = spec.slo, []
    for name, limit, predicted, upper, field in (
        ("TTFT", slo.ttft_milliseconds, rows.ttft_ms, rows.ttft_upper_ms, "spec.slo.ttftMilliseconds"),
        ("ITL", slo.itl_milliseconds, rows.itl_ms, rows.itl_upper_ms, "spec.slo.itlMilliseconds"),
        ("TPOT", slo.tpot_milliseconds, rows.tpot_ms, rows.tpot_upper_ms, "spec.slo.tpotMilliseconds"),
        ("E2E", slo.end_to_end_milliseconds, rows.end_to_end_ms, rows.end_to_end_upper_ms,
         "spec.slo.endToEndMilliseconds"),
    ):  # fmt: skip
        if limit is not None:
            constraints.append(_latency(f"{name} {slo.percentile}", limit, predicted, upper, field, f"{name}TooHigh"))
    if slo.joules_per_output_token is not None:
        ceiling = float(parse_quantity(slo.joules_per_output_token))
        constraints.append(
            Constraint(
                rule="EnergyTooHigh",
                kind="SLO",
                field="spec.slo.joulesPerOutputToken",
                value=slo.joules_per_output_token,
                holds=rows.joules_upper <= ceiling,
                message=f"energy above {describe.joules(ceiling)} per output token",
                needed=_ceil(rows.joules_upper, 1e-6),
                what="predicted energy per output token (safety margin included) in J",
                render=_ceil_milli,
                exceeded=lambda i: describe.above_joules(
                    rows.joules_per_output_token[i], rows.joules_upper[i], ceiling
                ),
                excess=rows.joules_upper / ceiling - 1.0,
                resolution=1e-6,
            )
        )
    return constraints


def _latency(name: str, limit: int, predicted: FloatArray, upper: FloatArray, field: str, rule: str) -> Constraint:
    return Constraint(
        rule=rule,
        kind="SLO",
        field=field,
        value=str(limit),
        # Values are compared in whole milliseconds, as SLOs and messages state them.
        holds=_ceil(upper, 1.0) <= limit,
        message=f"{name} above {limit} ms",
        needed=_ceil(upper, 1.0),
        what=f"predicted {name} (safety margin included) in ms",
        render=lambda value: f"{value:.0f}",
        exceeded=lambda i: describe.above(name, predicted[i], upper[i], limit),
        excess=_ceil(upper, 1.0) / limit - 1.0,
    )


def _power(rows: Candidates, spec: LLMDeploymentSpec, allowance: PowerAllowance | None) -> list[Constraint]:
    if allowance is None:
        return []
    if allowance.room is not None and spec.workload.job is not None:
        return _in_time(rows, spec.workload.job, allowance, allowance.room)
    # Values are compared in whole watts, as plans state their power, so that a running plan always fits its stated
    # power.
    watts, limit = np.rint(rows.power_watts), allowance.limit
    return [
        Constraint(
            rule="PowerBudgetExceeded",
            kind="Power",
            field=allowance.field,
            value=f"{allowance.watts:.0f}" if limit is None else str(limit.value),
            holds=watts <= allowance.watts,
            message=f"more power than the {allowance.watts:.0f} W available from {allowance.field}",
            needed=watts if limit is None else limit.needed(watts),
            what="predicted power in W",
            render=lambda value: f"{value:.0f}",
            exceeded=lambda i: f"{watts[i]:.0f} W > {allowance.watts:.0f} W ({allowance.field})",
            excess=watts / allowance.watts - 1.0,
        )
    ]


def _in_time(rows: Candidates, job: BatchJob, allowance: PowerAllowance, room: JobRoom) -> list[Constraint]:
    """Return the rules of a job: power while it runs, and energy in each period that it reaches."""
    courses = courses_of(rows, job)
    watts, limit, fit = courses.watts, allowance.limit, room.fit(courses)
    found = []
    if np.isfinite(room.most_watts):
        missing = np.maximum(watts - fit.left_watts, 0.0)
        found.append(
            Constraint(
                rule="PowerBudgetExceeded",
                kind="Power",
                field=allowance.field,
                value=f"{allowance.watts:.0f}" if limit is None else str(limit.value),
                holds=watts <= fit.left_watts,
                message=f"more power than {allowance.field} leaves while the job runs",
                needed=watts if limit is None else np.ceil(limit.value + missing),
                what="predicted power in W",
                render=lambda value: f"{value:.0f}",
                exceeded=lambda i: f"{watts[i]:.0f} W > {fit.left_watts[i]:.0f} W ({allowance.field})",
                excess=missing / np.maximum(fit.left_watts, 1.0),
            )
        )
    for each, excess, holds in zip(room.energy, fit.excess_watt_hours, fit.energy, strict=True):
        found.append(_energy(each, excess, holds))
    return found


def _energy(room: EnergyRoom, excess: FloatArray, holds: BoolArray) -> Constraint:
    limit = room.limit_watt_hours
    return Constraint(
        rule=ENERGY_RULE,
        kind="Power",
        field=room.field,
        value="" if limit is None else str(limit),
        holds=holds,
        message=f"more energy than {room.field} leaves in a period",
        needed=None if limit is None else needed_watt_hours(limit, excess),
        what="energy of the job in Wh",
        render=lambda value: f"{value:.0f}",
        exceeded=lambda i: f"the job takes {excess[i]:.0f} Wh more than {room.field} leaves in a period",
        excess=np.maximum(excess, 0.0) / (limit or 1.0),
    )


def _ceil_milli(joules: float) -> str:
    """Return joules as a quantity in milli units, rounded up, because the candidate would break a lower objective."""
    milli = np.ceil(round(joules * 1e6, 3)) / 1e3
    return f"{milli:.3f}".rstrip("0").rstrip(".") + "m"


def _ceil(values: FloatArray, resolution: float) -> FloatArray:
    """Return the values rounded up to a multiple of the resolution, ignoring rounding noise in the last digits."""
    result: FloatArray = np.ceil(np.round(values / resolution, 6)) * resolution
    return result


def feasible(constraints: Sequence[Constraint], size: int, *, without: Sequence[Constraint] = ()) -> BoolArray:
    """Return which of ``size`` candidates satisfy every constraint except the given ones; shape (size,)."""
    mask = np.ones(size, dtype=bool)
    for constraint in constraints:
        if constraint not in without:
            mask &= constraint.holds
    return mask


def count_rejections(constraints: Sequence[Constraint], size: int) -> tuple[Rejection, ...]:
    """Return for each rule, in order, how many candidates it removed that the rules before it had left."""
    left = np.ones(size, dtype=bool)
    rejections = []
    for constraint in constraints:
        removed = int((left & ~constraint.holds).sum())
        left &= constraint.holds
        if removed:
            rejections.append(Rejection(constraint.rule, removed, constraint.message))
    return tuple(rejections)
