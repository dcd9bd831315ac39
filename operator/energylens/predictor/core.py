"""The predictor: a model, a GPU product, layouts and a load in; latency, power and energy out."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import numpy as np
import numpy.typing as npt

from energylens.predictor.fitted.coefficients import Coefficients
from energylens.predictor.fitted.evidence import Evidence, evidence
from energylens.predictor.fitted.features import (
    ENGINE,
    NOTHING,
    beyond_island,
    is_unpacked,
    kinds_of,
    measured_parallelism,
    nearest,
    run_features,
)
from energylens.predictor.fitted.intervals import around
from energylens.predictor.fitted.noise import noise_variance, physics_spread
from energylens.predictor.fitted.profiles import EngineProfile
from energylens.predictor.fitted.residual import TARGETS, RunFeatures, correct, prior_variance
from energylens.predictor.load.arrivals import Step, busy_share, distinct, running_sequences
from energylens.predictor.load.first_token import first_token_quantile
from energylens.predictor.load.mixture import normal_quantile
from energylens.predictor.load.queueing import closed_loop_wait, wait_quantile, wait_tail
from energylens.predictor.load.steady import Pace, Role, Steady, phase_work, steady_state, step_mixture
from energylens.predictor.model.architecture import ModelSpec, served_on
from energylens.predictor.model.drafts import draft_of
from energylens.predictor.model.memory import memory, resident_sequences
from energylens.predictor.model.rules import unsupported_reasons
from energylens.predictor.step.power import sheet_limit
from energylens.predictor.step.rates import data_sheet, kernel_rates
from energylens.predictor.step.work import graph_tokens
from energylens.predictor.types import (
    FloatArray,
    GpuSpec,
    IntArray,
    Interval,
    Layouts,
    Memory,
    Prediction,
    Sampled,
    Workload,
    spread,
)

CODE_VERSION = "6"
FIRST_TOKEN_SECONDS = 0.008
"""From a request's first byte to its answer's, beside the engine's steps: HTTP, tokenizing, hops between processes.
Measured at one request at a time on one H200 host with vLLM 0.26: 7 to 11 ms over four models of 14 to 30 thousand
million parameters."""
UNKNOWN_VARIANCE = 0.12**2
"""Of the logarithm, without a residual model."""
IDLE_RETURN = 1.0
"""Share of static power that a loaded GPU draws between requests."""


class Predictor:
    """Predicts with one set of coefficients and one engine profile."""

    sees_nodes = False
    """Whether predictions depend on ``GpuSpec.max_gpus_per_node``: planners then ask once per size of node."""

    def __init__(self, coefficients: Coefficients, profile: EngineProfile) -> None:
        self.coefficients = coefficients
        self.profile = profile
        self.version = f"{CODE_VERSION}+{coefficients.version}"

    def with_profile(self, profile: EngineProfile) -> Self:
        """Return a predictor with the same coefficients for an engine that was told other limits."""
        return type(self)(self.coefficients, profile)

    def constants(self, gpu: GpuSpec) -> tuple[dict[str, float], bool]:
        """Return the constants of a product under this engine, and whether they were fitted on both."""
        values, measured = self.coefficients.for_gpu(gpu, self.profile.name)
        for name, factor in self.coefficients.engines.get(self.profile.name, self.profile.factors).items():
            values[name] = values[name] * factor
        return values, measured

    def memory(self, model: ModelSpec, gpu: GpuSpec, layouts: Layouts, workload: Workload) -> Memory:
        """Return what the most loaded GPU holds for every candidate."""
        profile = self.profile
        return memory(
            model,
            gpu,
            layouts,
            workload,
            profile.memory_utilization,
            step_tokens=profile.step_tokens,
            fixed_cache_bytes=profile.kv_cache_bytes,
            longest_request=profile.longest_request,
            draft=None if workload.speculation is None else draft_of(model, workload.speculation),
        )

    def evidence(
        self, model: ModelSpec, gpu: GpuSpec, layouts: Layouts, workload: Workload, running: FloatArray
    ) -> Evidence:
        """Return what was measured near one candidate, with layouts and running sequences of shape (1,)."""
        served = served_on(model, fp4_arithmetic=gpu.flops_fp4 > 0)
        return evidence(self.coefficients, self.profile, served, gpu, layouts, workload, running)

    def at_concurrency(
        self,
        model: ModelSpec,
        gpu: GpuSpec,
        layouts: Layouts,
        workload: Workload,
        concurrency: FloatArray,
        role: Role = "aggregated",
        sampled: Sampled | None = None,
        *,
        in_flight: bool = True,
    ) -> Prediction:
        """Return a saturated replica with ``concurrency`` requests, shape (n,).

        Args:
            model: The architecture.
            gpu: The product.
            layouts: Candidates, shape (n,).
            workload: Mean request.
            concurrency: Requests per replica, shape (n,), positive.
            role: Which phases the replica runs.
            sampled: Where a benchmark takes its median inter-token latency, when not in steady state.
            in_flight: The requests that the engine has no room for wait, and count as well; False where all of them
                run, by the engine's own count.

        Raises:
            ValueError: ``concurrency`` does not have one positive number per candidate, or the workload is not
                positive.
        """
        concurrency = _checked("concurrency", concurrency, len(layouts), zero=False)
        _check_workload(workload)
        model = served_on(model, fp4_arithmetic=gpu.flops_fp4 > 0)
        held, reason = self._placed(model, gpu, layouts, workload)
        can = np.flatnonzero(reason == "")
        found = self._saturated(
            model, gpu, layouts.take(can), workload, concurrency[can], role, sampled, held.take(can), in_flight
        )
        return spread(found, can, reason, held)

    def _saturated(
        self,
        model: ModelSpec,
        gpu: GpuSpec,
        layouts: Layouts,
        workload: Workload,
        concurrency: FloatArray,
        role: Role,
        sampled: Sampled | None,
        held: Memory,
        in_flight: bool,
    ) -> Prediction:
        places = np.minimum(layouts.max_batch_size * layouts.data_parallel, held.max_concurrency)
        running = resident_sequences(concurrency, layouts, held, self.profile.full_cache) if in_flight else concurrency
        constants, measured = self.constants(gpu)
        steady = self._steady(model, gpu, layouts, workload, running, constants, role)
        median = None
        if sampled is not None:
            age = workload.age_share if sampled.age_share is None else sampled.age_share
            there = replace(workload, age_share=age)
            fewer = running * sampled.running_share
            median = self._steady(model, gpu, layouts, there, fewer, constants, role).mixture.quantile(sampled.level)
        busy = np.ones_like(running)
        rate = running / (steady.mean_step * workload.decode_steps)
        return self._finish(
            model, gpu, layouts, workload, steady, running, places, held, constants, measured, busy,
            np.ones_like(running), concurrency <= places * (1.0 + 1e-9), rate, role, median,
            np.maximum(concurrency - running, 0.0),
        )  # fmt: skip

    def _steady(
        self,
        model: ModelSpec,
        gpu: GpuSpec,
        layouts: Layouts,
        workload: Workload,
        running: FloatArray,
        constants: dict[str, float],
        role: Role,
    ) -> Steady:
        profile = self.profile
        return steady_state(
            model, gpu, layouts, workload, running, constants, self.coefficients, role, profile.overlap,
            profile.lockstep,
        )  # fmt: skip

    def at_rate(
        self,
        model: ModelSpec,
        gpu: GpuSpec,
        layouts: Layouts,
        workload: Workload,
        requests_per_second: FloatArray,
        role: Role = "aggregated",
    ) -> Prediction:
        """Return a replica under Poisson arrivals, ``requests_per_second`` per replica, shape (n,).

        The mean number of running sequences solves Little's law, C = rate x output tokens x mean step(C). Where that
        exceeds the places, the replica runs full and ``sustainable`` is False.

        Raises:
            ValueError: ``requests_per_second`` does not have one number >= 0 per candidate, or the workload is not
                positive.
        """
        rate = _checked("requests_per_second", requests_per_second, len(layouts), zero=True)
        _check_workload(workload)
        model = served_on(model, fp4_arithmetic=gpu.flops_fp4 > 0)
        held, reason = self._placed(model, gpu, layouts, workload)
        can = np.flatnonzero(reason == "")
        found = self._arriving(model, gpu, layouts.take(can), workload, rate[can], role, held.take(can))
        return spread(found, can, reason, held)

    def _placed(
        self, model: ModelSpec, gpu: GpuSpec, layouts: Layouts, workload: Workload
    ) -> tuple[Memory, npt.NDArray[np.str_]]:
        """Return what candidates hold, and why they cannot run: half of a model's splits may be such."""
        held = self.memory(model, gpu, layouts, workload)
        reason = unsupported_reasons(model, layouts).astype(object)
        reason[(reason == "") & ~held.fits] = f"weights and one sequence do not fit in {gpu.name}'s memory"
        return held, reason.astype(np.str_)

    def _arriving(
        self,
        model: ModelSpec,
        gpu: GpuSpec,
        layouts: Layouts,
        workload: Workload,
        rate: FloatArray,
        role: Role,
        held: Memory,
    ) -> Prediction:
        constants, measured = self.constants(gpu)
        places = np.minimum(layouts.max_batch_size * layouts.data_parallel, held.max_concurrency)
        full = np.maximum(places, 1.0)

        def step_of(where: Layouts) -> Step:
            return self._mean_step(model, gpu, where, workload, constants, measured, role)

        # Of the graphs' tokens, which grow with those that are verified for each sequence.
        prompt = workload.computed_prompt / workload.verified
        running, most = running_sequences(
            layouts, rate, full, held.max_concurrency, step_of, prompt, workload.decode_steps
        )
        sustainable = (rate <= most) & (places >= 1.0)
        mean = np.where(sustainable, running, full)
        busy, while_busy = busy_share(mean, full)
        # Replicas of unlike batches and the same load run alike.
        unlike, same = distinct(*layouts.split, graph_tokens(layouts), while_busy)
        pace = self._steady(model, gpu, layouts.take(unlike), workload, while_busy[unlike], constants, role).take(same)
        utilization = np.minimum(np.where(most > 0, rate / most, np.inf), 1.0)
        return self._finish(
            model, gpu, layouts, workload, pace, mean, places, held, constants, measured, busy, utilization,
            sustainable, np.minimum(rate, most), role,
        )  # fmt: skip

    def _mean_step(
        self,
        model: ModelSpec,
        gpu: GpuSpec,
        layouts: Layouts,
        workload: Workload,
        constants: dict[str, float],
        measured: bool,
        role: Role,
    ) -> Step:
        """Return the mean step of some of the layouts, in seconds, as a function of the running sequences."""
        residual = self.coefficients.residual if measured else None
        sheet, coefficients, overlap = data_sheet(gpu), self.coefficients, self.profile.overlap
        lockstep = self.profile.lockstep
        rates, capped = kernel_rates(constants, sheet), bool(np.isfinite(layouts.power_cap_watts).any())
        tag, alone = self.profile.tag, np.ones(len(layouts))
        features = None if residual is None else run_features(model, gpu, layouts, workload, alone, tag)

        def step(index: IntArray, running: FloatArray) -> FloatArray:
            where = layouts.take(index)
            if capped:
                seconds = self._steady(model, gpu, where, workload, running, constants, role).mean_step
            else:
                # Only a cap makes the time depend on the power, which takes a quarter of the work.
                decode, mixed, starts = phase_work(model, gpu, where, workload, running, coefficients, role, lockstep)
                seconds = step_mixture(decode, mixed, starts, rates, constants, sheet, overlap)[0].mean
            if residual is None or features is None:
                return seconds
            runs = RunFeatures({key: labels[index] for key, labels in features.keys.items()}, np.log(running))
            return np.asarray(seconds * np.exp(correct(residual, runs, ("step",))["step"][0]))

        return step

    def _finish(
        self,
        model: ModelSpec,
        gpu: GpuSpec,
        layouts: Layouts,
        workload: Workload,
        steady: Pace,
        running: FloatArray,
        places: FloatArray,
        held: Memory,
        constants: dict[str, float],
        measured: bool,
        busy: FloatArray,
        utilization: FloatArray,
        sustainable: np.ndarray,
        rate: FloatArray,
        role: Role,
        median: FloatArray | None = None,
        queue: FloatArray | None = None,
    ) -> Prediction:
        """Return the prediction; ``queue``: of a fixed number in flight the requests that wait, None for arrivals."""
        while_busy = np.maximum(running / np.maximum(busy, 1e-12), 1.0)
        logs, halves, near = self._residual(model, gpu, layouts, workload, while_busy, measured)
        step_factor, itl_factor, power_factor = (np.exp(logs[t]) for t in ("step", "itl", "power"))
        gpus = layouts.gpus.astype(np.float64)
        limit = sheet_limit(data_sheet(gpu), layouts.power_cap_watts)
        # A cap holds between requests, too, and the lowest that some products take is below what they draw then.
        idle = gpus * np.minimum(constants["static_watts"] * IDLE_RETURN, limit)
        active = gpus * np.minimum(steady.power_per_gpu * power_factor, limit)
        power = busy * active + (1.0 - busy) * idle
        step = steady.mean_step * step_factor
        generated = 1.0 if role == "prefill" else workload.tokens_per_step
        throughput = np.where(utilization >= 1.0, generated * running / step, rate * workload.output_tokens)
        with np.errstate(divide="ignore", invalid="ignore"):
            energy = np.where(throughput > 0, power / np.maximum(throughput, 1e-300), np.inf)
        itl = {q: steady.mixture.tail(q) * itl_factor * 1e3 for q in (0.9, 0.95, 0.99)}
        itl[0.5] = steady.mixture.quantile(0.5) * itl_factor * 1e3
        if median is not None:
            itl[0.5] = median * itl_factor * 1e3
        if self.profile.divides_itl:
            itl = {q: values / generated for q, values in itl.items()}
        ranks = np.where(model.is_moe, layouts.data_parallel, 1).astype(np.float64)

        # Requests in one start of the mixture, which lets them start together where many do.
        prompts_per_step = while_busy * ranks / (layouts.data_parallel * layouts.pipeline_parallel)
        prompts_per_step = prompts_per_step / workload.decode_steps
        together = np.maximum(prompts_per_step / np.maximum(steady.mixture.starts, 1e-12), 1.0)
        together = np.where(steady.mixture.starts > 0, together, 1.0) if role == "aggregated" else np.ones_like(step)

        def prefill_of(prompts: float) -> FloatArray:
            return np.asarray(steady.mixture.with_starts(prompts / together) * step_factor)

        tpot = 1e3 * step_factor * steady.mixture.tpot(while_busy / ranks) / generated
        uneven = steady.mixture.tpot_spread(while_busy / ranks, workload.decode_steps)
        prefill = prefill_of(1.0)
        transfer = self._transfer(model, gpu, workload) if role == "decode" else 0.0
        in_flight = while_busy / layouts.data_parallel
        # A request that comes while others run waits for the rest of their step, and for steps already scheduled.
        met = busy if queue is None else np.minimum(in_flight - 1.0, 1.0)
        base = FIRST_TOKEN_SECONDS + prefill + met * step * (0.5 + self.profile.steps_ahead) + transfer
        service = step * workload.decode_steps + prefill
        load = running / np.maximum(places, 1e-9)
        queued = sustainable & (utilization < 1.0)
        # With a fixed number in flight each request follows another: a prompt waits for the prompts of those, and
        # before that for a place where there are fewer places than requests (Little's law).
        one_more = prefill_of(2.0) - prefill
        decoding = 1e-3 * tpot * (workload.output_tokens - 1.0)
        behind_others = closed_loop_wait(in_flight, one_more, decoding)
        most_wait = (in_flight - 1.0) * one_more
        prompts_busy = most_wait / (decoding + base + behind_others)
        first = {}
        for q in (0.5, 0.95, 0.99):
            joined = first_token_quantile(q, steady.mixture, busy, self.profile.steps_ahead, together) * step_factor
            waited = joined + transfer + FIRST_TOKEN_SECONDS
            waited = waited + wait_quantile(q, np.where(queued, load, 0.0), places, service)
            if queue is not None:
                waited = wait_tail(q, behind_others, prompts_busy, most_wait)
                first[q] = 1e3 * (base + waited + queue * workload.output_tokens / throughput)
            else:
                # Beyond capacity the queue grows for ever.
                first[q] = 1e3 * np.where(queued, waited, np.where(sustainable, base, np.inf))

        def interval(value: FloatArray, target: str) -> Interval:
            return around(value, halves[target])

        drawn = interval(power, "power")
        return Prediction(
            supported=np.ones(len(layouts), dtype=np.bool_),
            reason=np.full(len(layouts), ""),
            sustainable=np.asarray(sustainable),
            concurrency=running,
            max_concurrency=places,
            utilization=utilization,
            mean_step_ms=step * 1e3,
            tpot_ms=tpot,
            tpot_p95_ms=tpot * np.exp(normal_quantile(0.95) * uneven),
            tpot_p99_ms=tpot * np.exp(normal_quantile(0.99) * uneven),
            itl_p50_ms=itl[0.5],
            itl_p90_ms=itl[0.9],
            itl_p95_ms=itl[0.95],
            itl_p99_ms=itl[0.99],
            ttft_p50_ms=first[0.5],
            ttft_p95_ms=first[0.95],
            ttft_p99_ms=first[0.99],
            output_tokens_per_second=throughput,
            power_watts=power,
            idle_power_watts=idle,
            joules_per_output_token=energy,
            itl=interval(itl[0.5], "itl"),
            tpot=interval(tpot, "tpot"),
            ttft=interval(first[0.5], "itl"),
            throughput=interval(throughput, "step"),
            power=Interval(drawn.low, np.minimum(drawn.high, np.maximum(gpus * limit, power))),
            energy=interval(energy, "energy"),
            nearest=near,
            memory=held,
        )

    def _residual(
        self,
        model: ModelSpec,
        gpu: GpuSpec,
        layouts: Layouts,
        workload: Workload,
        running: FloatArray,
        measured: bool,
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray], IntArray]:
        n = len(layouts)
        runs = run_features(model, gpu, layouts, workload, running, self.profile.tag)
        scales = self.coefficients.intervals
        residual = self.coefficients.residual
        logs = {t: np.zeros(n) for t in TARGETS}
        variance = {}
        near = np.full(n, NOTHING, dtype=np.int64)
        learned = correct(residual, runs) if residual is not None and measured else {}
        for target in TARGETS:
            if target in learned:
                logs[target], variance[target] = learned[target]
            else:
                prior = UNKNOWN_VARIANCE if residual is None else prior_variance(residual.targets[target].terms)
                variance[target] = np.full(n, prior)
        noise = {t: noise_variance(t, runs) for t in TARGETS}
        variance["tpot"], noise["tpot"] = variance["step"], noise["step"]
        variance["energy"] = variance["step"] + variance["power"]
        noise["energy"] = noise["step"] + noise["power"]
        widen = np.ones(n)
        if residual is not None:
            if measured:
                near = nearest(residual.training, runs, here_only=is_unpacked(model))
            # Neither pipeline stages nor messages over a host link, whose speed differs between machines of one
            # product, are in the runs that the intervals were set on.
            new = ~measured_parallelism(residual.training, runs) & (measured | beyond_island(gpu, layouts))
            # What other versions of an engine say of a kind of model is less than what left-out models have left.
            new |= (near == ENGINE) & ~np.isin(kinds_of(runs), kinds_of(residual.training))
            widen = np.where(new, scales.extrapolation, 1.0)
            # Left-out products had relatives of their architecture among those that were fitted to.
            if not self.coefficients.knows_architecture(gpu):
                widen = widen * scales.extrapolation
        if workload.speculation is not None:
            # No run that the coefficients were fitted to drafted tokens.
            near, widen = np.full(n, NOTHING, dtype=np.int64), widen * scales.extrapolation
        spread = physics_spread(runs)
        halves = {t: widen * scales.half_width(t, near, variance[t], noise[t], spread) for t in variance}
        return logs, halves, near

    def _transfer(self, model: ModelSpec, gpu: GpuSpec, workload: Workload) -> float:
        """Seconds to move a prompt's KV cache from a prefill replica: PCIe speed, the slowest common link."""
        from energylens.predictor.model.parameters import kv_cache_bytes

        return kv_cache_bytes(model, workload.input_tokens) / gpu.pcie_bandwidth


def _checked(name: str, value: FloatArray, n: int, *, zero: bool) -> FloatArray:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim == 0:
        array = np.full(n, float(array))
    if array.shape != (n,):
        raise ValueError(f"{name} has shape {array.shape}; one number per candidate, ({n},), is needed")
    bad = ~np.isfinite(array) | (array < 0) | ((array == 0) & (not zero))
    if bad.any():
        allowed = "finite and not negative" if zero else "finite and positive"
        raise ValueError(f"{name} must be {allowed}, not {array[bad][0]}")
    return array


def _check_workload(workload: Workload) -> None:
    for name in ("input_tokens", "output_tokens"):
        value = getattr(workload, name)
        if not np.isfinite(value) or value < 1:
            raise ValueError(f"workload {name} must be at least 1, not {value}")
    for name in ("cached_input_fraction", "prefix_hit_fraction"):
        if not 0.0 <= getattr(workload, name) <= 1.0:
            raise ValueError(f"workload {name} must be in 0 to 1, not {getattr(workload, name)}")
    speculation = workload.speculation
    if speculation is not None:
        if speculation.draft_tokens < 1:
            raise ValueError(f"speculation draft_tokens must be at least 1, not {speculation.draft_tokens}")
        if not 0.0 <= speculation.acceptance <= 1.0:
            raise ValueError(f"speculation acceptance must be in 0 to 1, not {speculation.acceptance}")
