"""A saturated replica: its mixture of steps and its power.

Physics only; :mod:`energylens.predictor.core` adds the residual and the intervals.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from energylens.predictor.fitted.coefficients import Coefficients
from energylens.predictor.load.mixture import StepMixture
from energylens.predictor.load.pipeline import Pipeline, pipeline_of
from energylens.predictor.load.ranks import PROMPT_VARIATION, rank_prompts
from energylens.predictor.load.scenario import Role, Scenario
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.drafts import draft_of
from energylens.predictor.requests import prompt_shares, prompt_variation, running_shares
from energylens.predictor.step.building import build_work
from energylens.predictor.step.latency import Overlap, StepTime, step_time
from energylens.predictor.step.lockstep import APART, Lockstep
from energylens.predictor.step.power import capped, frequency_fraction, sheet_limit, step_energy, waiting_energy
from energylens.predictor.step.rates import Constants, DataSheet, KernelRates, data_sheet, kernel_rates
from energylens.predictor.step.work import ClassLoad, StepLoad, Work, joined
from energylens.predictor.types import FloatArray, GpuSpec, IntArray, Layouts, Workload
from energylens.records import dataclass

START_CLUMP = 2.5
"""Requests that start together once on average one or more starts per step.

With Poisson starts alone, more than half of the steps would prefill from 0.7 starts per step; measured medians show
that this takes three times as many. Sequences that started together end together, and the front end admits the requests
that arrived during a step at once.
"""


@dataclass(frozen=True)
class Pace:
    """Steps and power of a saturated replica before any learned correction; arrays of shape (n,)."""

    mixture: StepMixture
    mean_step: FloatArray
    """Mean step, s."""
    power_per_gpu: FloatArray
    """Power per GPU, W."""

    def take(self, index: IntArray) -> Pace:
        """Return the replicas of an index array of shape (m,)."""
        return Pace(self.mixture.take(index), self.mean_step[index], self.power_per_gpu[index])


@dataclass(frozen=True)
class Steady(Pace):
    """A saturated replica at a concurrency, with the times of both kinds of its steps."""

    decode: StepTime
    mixed: StepTime


@dataclass(frozen=True)
class Physics:
    """The constants and tables that turn the work of steps into time and power, and how an engine runs steps."""

    constants: Constants
    """Constants of the GPU product and the engine."""
    coefficients: Coefficients
    """Coefficients with the kernel tables."""
    rates: KernelRates
    """Rates that follow from the constants."""
    overlap: Overlap | None = None
    """How the engine overlaps collectives with kernels."""
    lockstep: Lockstep = APART
    """How data-parallel ranks synchronise their steps."""


def steady_state(scenario: Scenario, sequences: FloatArray, physics: Physics) -> Steady:
    """Return the time and power of the steps of n replicas.

    Args:
        scenario: The candidates and the requests.
        sequences: Running sequences per replica, shape (n,), positive.
        physics: Constants and tables.
    """
    layouts = scenario.layouts
    return combine(
        _work_of(scenario, sequences, physics),
        physics.constants,
        data_sheet(scenario.gpu),
        layouts.power_cap_watts,
        physics.overlap,
        scenario.lockstep_ranks,
        pipeline_of(layouts, sequences),
        physics.rates,
    )


@dataclass(frozen=True)
class _Loads:
    """Loads of both kinds of steps of n candidates."""

    decode: StepLoad
    mixed: StepLoad | None
    """Load of a step that also prefills; None if the role has one kind of steps."""
    starts: FloatArray
    """Mean starts per step, shape (n,)."""


class PhaseWork(NamedTuple):
    """The work of the steps of n replicas."""

    decode: Work
    """Work of a step that only decodes."""
    mixed: Work
    """Work of a step that also prefills."""
    starts: FloatArray
    """Mean requests that start per step on all ranks that step together, shape (n,)."""


def phase_work(
    model: ModelSpec,
    gpu: GpuSpec,
    layouts: Layouts,
    workload: Workload,
    sequences: FloatArray,
    coefficients: Coefficients,
    role: Role = "aggregated",
    lockstep: Lockstep = APART,
) -> PhaseWork:
    """Return the work of both kinds of steps.

    A step of a pipeline is a round in which each micro-batch passes all stages; the work is for one micro-batch.
    """
    loads = _phase_loads(model, layouts, workload, sequences, role, lockstep)
    decode = build_work(model, gpu, layouts, loads.decode, coefficients.tables)
    drafted: tuple[tuple[Work, float], ...] = ()
    if role != "prefill":
        drafted = _drafts(model, gpu, layouts, workload, loads.decode, coefficients)
        decode = replace(decode, drafts=drafted) if drafted else decode
    if loads.mixed is None:
        return PhaseWork(decode, decode, loads.starts)
    mixed = build_work(model, gpu, layouts, loads.mixed, coefficients.tables)
    return PhaseWork(decode, replace(mixed, drafts=drafted) if drafted else mixed, loads.starts)


def _work_of(scenario: Scenario, sequences: FloatArray, physics: Physics) -> PhaseWork:
    return phase_work(
        scenario.model,
        scenario.gpu,
        scenario.layouts,
        scenario.workload,
        sequences,
        physics.coefficients,
        scenario.role,
        physics.lockstep,
    )


def phase_mixture(scenario: Scenario, sequences: FloatArray, physics: Physics) -> StepMixture:
    """Return the steps of replicas without a power cap; the arguments are the arguments of :func:`steady_state`.

    Both kinds of steps are computed as the candidates of one call, because on few candidates the number of calls
    decides.
    """
    model, gpu, layouts, workload = scenario.model, scenario.gpu, scenario.layouts, scenario.workload
    constants, sheet = physics.constants, data_sheet(gpu)
    if scenario.role != "aggregated" or workload.speculation is not None:
        work_of_both = _work_of(scenario, sequences, physics)
        return step_mixture(work_of_both, physics.rates, constants, sheet, physics.overlap)[0]
    loads = _phase_loads(model, layouts, workload, sequences, scenario.role, physics.lockstep)
    assert loads.mixed is not None
    n = len(layouts)
    twice = layouts.take(np.tile(np.arange(n), 2))
    work = build_work(model, gpu, twice, joined(loads.decode, loads.mixed), physics.coefficients.tables)
    time = step_time(work, physics.rates, constants, sheet, mixed=np.arange(2 * n) >= n, overlap=physics.overlap)
    busy = time.kernels + time.collectives
    growing = np.maximum(busy[n:] - busy[:n], 0.0)
    decode_total, mixed_total = time.total[:n], time.total[n:]
    base = np.maximum(mixed_total - decode_total - growing, 0.0)
    longest = np.maximum(mixed_total, decode_total)
    return StepMixture(loads.starts, decode_total, longest, base, constants["prompt_spread"])


def _phase_loads(
    model: ModelSpec, layouts: Layouts, workload: Workload, sequences: FloatArray, role: Role, lockstep: Lockstep
) -> _Loads:
    pipeline = pipeline_of(layouts, sequences)
    running = np.maximum(sequences / (layouts.data_parallel * pipeline.in_flight), 1e-6)
    prompt, queries, prefix = workload.computed_prompt, workload.verified, workload.shared_prefix
    context = np.full_like(running, workload.input_tokens + workload.output_tokens * workload.age_share)
    length = np.full_like(running, prompt)
    zero = np.zeros_like(running)
    classes = _class_loads(workload)
    if role == "prefill":
        only = StepLoad(zero + 1e-9, length, length * running, length, prefix_tokens=prefix, classes=classes)
        return _Loads(only, None, np.maximum(running, 1e-9))
    starts = running / workload.decode_steps
    sent = lockstep.quantized_dispatch
    decode = StepLoad(
        running, context, zero, length, queries, classes=classes, greedy=workload.greedy, quantized_dispatch=sent
    )
    if role == "decode":
        return _Loads(decode, None, starts * 0.0)
    # Micro-batches of a pipeline follow one another: a prompt in one of them delays all.
    starts = starts * pipeline.in_flight
    clump = clumped(starts)
    share = -np.expm1(-starts / clump)
    prompts = np.maximum(starts / np.maximum(share, 1e-12), 1.0)
    tokens = prompt * np.maximum(prompts / pipeline.holding(prompts), 1.0)
    everywhere, padding = tokens * layouts.data_parallel, zero
    if model.is_moe and (layouts.data_parallel > 1).any():
        # Ranks that exchange experts' tokens step together: a prompt on one of them delays all.
        ranks = layouts.data_parallel.astype(np.float64)
        variation = prompt_variation(workload.parts, PROMPT_VARIATION)
        found = rank_prompts(starts, ranks, prompt, pipeline.in_flight, lockstep, variation, running * queries)
        several, holding = ranks > 1.0, pipeline.holding(found.everywhere / prompt)
        tokens = np.where(several, found.tokens / holding, tokens)
        everywhere = np.where(several, found.everywhere / holding, everywhere)
        padding = np.where(several, found.padding / holding, padding)
        starts = np.where(several, found.starts, starts / clump)
    else:
        starts = starts / clump
    mixed = StepLoad(
        running, context, tokens, length, queries, prefix, everywhere, padding, classes, workload.greedy, sent
    )
    return _Loads(decode, mixed, starts)


def clumped(starts: FloatArray) -> FloatArray:
    """Return the requests that start together on average, if ``starts`` start per step, same shape."""
    return 1.0 + (START_CLUMP - 1.0) * np.minimum(starts, 1.0)


def _class_loads(workload: Workload) -> tuple[ClassLoad, ...]:
    """Return the context to which sequences of each class attend; none if all have one shape."""
    classes = workload.classes
    if not classes:
        return ()
    shares = zip(classes, running_shares(classes), prompt_shares(classes), strict=True)
    return tuple(
        ClassLoad(running, part.share, prompts, part.input_tokens + part.age, part.computed_prompt, part.shared_prefix)
        for part, running, prompts in shares
    )


def _drafts(
    model: ModelSpec,
    gpu: GpuSpec,
    layouts: Layouts,
    workload: Workload,
    decode: StepLoad,
    coefficients: Coefficients,
) -> tuple[tuple[Work, float], ...]:
    """Return the passes that draft a step's tokens: one pass per draft token, over one token of every running sequence.

    The draft model's own prefill of prompts is ignored, since it is small beside that of the target.
    """
    speculation = workload.speculation
    drafts = None if speculation is None else draft_of(model, speculation)
    if speculation is None or drafts is None:
        return ()
    zero, one = np.zeros_like(decode.decode_tokens), np.ones_like(decode.decode_tokens)
    # Only the last stage of a pipeline drafts.
    place = replace(layouts, pipeline_parallel=np.ones_like(layouts.pipeline_parallel))
    load = StepLoad(decode.decode_tokens, decode.context_tokens, zero, one, classes=decode.classes)
    work = build_work(drafts, gpu, place, load, coefficients.tables)
    # Drafting takes the most likely token, which needs no sort.
    return ((replace(work, sorts=0.0), float(speculation.draft_tokens)),)


def step_mixture(
    work: PhaseWork, rates: KernelRates, c: Constants, sheet: DataSheet, overlap: Overlap | None = None
) -> tuple[StepMixture, StepTime, StepTime]:
    """Return the steps of a replica whose power is not capped, and the times of both kinds of steps."""
    td = step_time(work.decode, rates, c, sheet, mixed=False, overlap=overlap)
    tm = step_time(work.mixed, rates, c, sheet, mixed=True, overlap=overlap)
    growing = np.maximum(tm.kernels + tm.collectives - td.kernels - td.collectives, 0.0)
    base = np.maximum(tm.total - td.total - growing, 0.0)
    return StepMixture(work.starts, td.total, np.maximum(tm.total, td.total), base, c["prompt_spread"]), td, tm


def combine(
    work: PhaseWork,
    c: Constants,
    sheet: DataSheet,
    caps: FloatArray,
    overlap: Overlap | None = None,
    ranks: float | FloatArray = 1.0,
    pipeline: Pipeline | None = None,
    rates: KernelRates | None = None,
) -> Steady:
    """Return times and power from the work of both kinds of steps.

    Args:
        work: Work of both kinds of steps.
        c: Constants of the GPU product and the engine.
        sheet: Peaks of the GPU product.
        caps: Power caps in watts per GPU, NaN for none, shape (n,).
        overlap: How the engine overlaps collectives with kernels.
        ranks: Data-parallel ranks that step together, shape (n,).
        pipeline: Micro-batches in flight; None if no candidate has stages.
        rates: Rates that follow from the constants, if already computed.
    """
    rates = kernel_rates(c, sheet) if rates is None else rates
    mixture, td, tm = step_mixture(work, rates, c, sheet, overlap)
    steps = _Steps(work, mixture, td, tm)
    joules, busy = _energy_and_busy(steps, rates, c, ranks, pipeline)
    power, stretch = _under_cap(steps, joules, busy, c, sheet, caps)
    mixture = StepMixture(
        work.starts, mixture.decode * stretch, mixture.mixed * stretch, mixture.base * stretch, mixture.prompt_spread
    )
    return Steady(mixture, mixture.mean, power, td, tm)


@dataclass(frozen=True)
class _Steps:
    """Both kinds of steps of a replica whose power is not capped: their work, their mixture, and their times."""

    work: PhaseWork
    mixture: StepMixture
    decode_time: StepTime
    mixed_time: StepTime


def _energy_and_busy(
    steps: _Steps, rates: KernelRates, c: Constants, ranks: float | FloatArray, pipeline: Pipeline | None
) -> tuple[FloatArray, FloatArray]:
    """Return the dynamic energy of a mean step on one GPU, J, and the time in which the GPU runs anything, s."""
    mixture, td, tm = steps.mixture, steps.decode_time, steps.mixed_time
    share = mixture.mixed_share
    # A prompt delays all data-parallel ranks, but only the ranks that process it spend energy on it.
    micro = 1.0 if pipeline is None else pipeline.in_flight
    working = share * np.minimum(np.maximum(mixture.starts_when_mixed, 1.0) / (ranks * micro), 1.0)
    several = np.asarray(ranks) > 1.0
    working = np.where(several, -np.expm1(-mixture.starts / ranks) / micro, working)
    joules = (1.0 - working) * step_energy(steps.work.decode, td, rates, c).total
    joules = joules + working * step_energy(steps.work.mixed, tm, rates, c).total
    if several.any():
        waiting = (share - working) * waiting_energy(steps.work.decode, steps.work.mixed, td, tm, rates, c)
        joules = joules + np.where(several, waiting, 0.0)
    busy = (1.0 - working) * td.busy + working * tm.busy
    if pipeline is not None and pipeline.staged.any():
        worked = pipeline.filled * ((1.0 - working) * td.total + working * tm.total)
        polling = np.maximum(mixture.mean - worked, 0.0) * c["collective_activity"] * c["active_watts"]
        joules = np.where(pipeline.staged, pipeline.filled * joules + polling, joules)
        busy = np.where(pipeline.staged, pipeline.filled * busy, busy)
    return joules, busy


def _under_cap(
    steps: _Steps, joules: FloatArray, busy: FloatArray, c: Constants, sheet: DataSheet, caps: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the power of one GPU under its power cap, W, and the factor by which the cap lengthens steps."""
    static = np.asarray(c["static_watts"], dtype=np.float64)
    limit = sheet_limit(sheet, caps)
    default = capped(
        static + joules / steps.mixture.mean, np.asarray(sheet.power_limit, dtype=np.float64) * c["power_ceiling"]
    )
    fraction = frequency_fraction(default, static, limit)
    slowed = np.isfinite(caps) & (fraction < 1.0)
    share = steps.mixture.mixed_share
    # Only the computing part of kernels follows the core clock; memory keeps its own clock until the core clock is very
    # low.
    compute = (steps.work.mixed.flops.sum(axis=0) * share + steps.work.decode.flops.sum(axis=0) * (1.0 - share)) / (
        c["gemm_flops"] * sheet.flops_bf16
    )
    bound = np.clip(compute / np.maximum(busy, 1e-12), 0.1, 1.0)
    power = np.minimum(np.where(slowed, static + (default - static) * fraction**2, default), limit)
    return power, np.where(slowed, 1.0 + bound * (1.0 / fraction - 1.0), 1.0)
