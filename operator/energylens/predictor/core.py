"""The predictor: from a model, a GPU product, layouts and a load to latency, power and energy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Self

import numpy as np
import numpy.typing as npt

from energylens.predictor.figures import prediction, schedule_of, served_pace
from energylens.predictor.fitted.adjustment import Adjustment, adjustment
from energylens.predictor.fitted.coefficients import Coefficients
from energylens.predictor.fitted.evidence import Evidence, evidence
from energylens.predictor.fitted.features import run_features
from energylens.predictor.fitted.profiles import EngineProfile
from energylens.predictor.fitted.residual import correct
from energylens.predictor.load.arrivals import StepTimes, busy_share, distinct, running_sequences
from energylens.predictor.load.loop import lasting_variation, longer_apart
from energylens.predictor.load.mixture import StepMixture
from energylens.predictor.load.operating_point import NearbySteps, OperatingPoint
from energylens.predictor.load.scenario import Role, Scenario
from energylens.predictor.load.steady import Physics, Steady, phase_mixture, steady_state
from energylens.predictor.load.ttft import arrival_latencies
from energylens.predictor.model.architecture import ModelSpec, served_on
from energylens.predictor.model.drafts import draft_of
from energylens.predictor.model.memory import memory, resident_sequences
from energylens.predictor.model.rules import unsupported_reasons
from energylens.predictor.prediction import Memory, Prediction, spread
from energylens.predictor.step.rates import KernelRates, data_sheet, kernel_rates
from energylens.predictor.step.work import graph_tokens
from energylens.predictor.types import FloatArray, GpuSpec, IntArray, Layouts, Sampled, Workload

CODE_VERSION = "17"
BESIDE = 1.25
"""Ratio to the running sequences at which a replica is also timed, to learn how steps grow."""


class Predictor:
    """Predicts with one set of coefficients and one engine profile."""

    sees_nodes = False
    """Whether planners predict once per node size, with ``GpuSpec.max_gpus_per_node``; this predictor reads the size
    from ``Layouts.node_gpus``, so that one call serves all."""

    def __init__(self, coefficients: Coefficients, profile: EngineProfile) -> None:
        self.coefficients = coefficients
        self.profile = profile
        self.version = f"{CODE_VERSION}+{coefficients.version}"
        self._rates: dict[GpuSpec, KernelRates] = {}

    def with_profile(self, profile: EngineProfile) -> Self:
        """Return a predictor with the same coefficients and another engine profile, for an engine with other limits."""
        return type(self)(self.coefficients, profile)

    def constants(self, gpu: GpuSpec) -> tuple[dict[str, float], bool]:
        """Return the constants of a product under this engine, and whether they were fitted to runs of both."""
        values, measured = self.coefficients.for_gpu(gpu, self.profile.name)
        for name, factor in self.coefficients.engines.get(self.profile.name, self.profile.factors).items():
            values[name] = values[name] * factor
        return values, measured

    def memory(self, model: ModelSpec, gpu: GpuSpec, layouts: Layouts, workload: Workload) -> Memory:
        """Return the memory of the most loaded GPU of every candidate."""
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
        """Return the measurements near one candidate, with layouts and running sequences of shape (1,)."""
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
            gpu: The GPU product.
            layouts: Candidates, shape (n,).
            workload: The mean request.
            concurrency: Requests per replica, shape (n,), positive.
            role: The phases that the replica runs.
            sampled: Where a benchmark takes its median inter-token latency, if not in steady state.
            in_flight: Whether ``concurrency`` includes requests that wait because the engine has no room; False if all
                of them run, as counted by the engine.

        Raises:
            ValueError: ``concurrency`` does not have one positive number per candidate, or the workload is not
                positive.
        """
        concurrency = _checked("concurrency", concurrency, len(layouts), zero=False)
        _check_workload(workload)
        scenario = Scenario(served_on(model, fp4_arithmetic=gpu.flops_fp4 > 0), gpu, layouts, workload, role)
        held, reason = self._placed(scenario)
        can = np.flatnonzero(reason == "")
        found = self._saturated(scenario.take(can), concurrency[can], held.take(can), sampled, in_flight=in_flight)
        return spread(found, can, reason, held)

    def at_rate(
        self,
        model: ModelSpec,
        gpu: GpuSpec,
        layouts: Layouts,
        workload: Workload,
        requests_per_second: FloatArray,
        role: Role = "aggregated",
    ) -> Prediction:
        """Return a replica at which requests arrive at a rate, ``requests_per_second`` per replica, shape (n,).

        The workload has the variation of the times between requests: 1 for Poisson arrivals, more for bursts. The mean
        number of running sequences solves Little's law, C = rate x output tokens x mean step(C). If that exceeds the
        places, the replica runs full and ``sustainable`` is False.

        Raises:
            ValueError: ``requests_per_second`` does not have one number >= 0 per candidate, or the workload is not
                positive.
        """
        rate = _checked("requests_per_second", requests_per_second, len(layouts), zero=True)
        _check_workload(workload)
        scenario = Scenario(served_on(model, fp4_arithmetic=gpu.flops_fp4 > 0), gpu, layouts, workload, role)
        held, reason = self._placed(scenario)
        can = np.flatnonzero(reason == "")
        constants, measured = self.constants(gpu)
        point = self._arriving(scenario.take(can), rate[can], held.take(can))
        return spread(self._prediction(point, held.take(can), constants, measured), can, reason, held)

    def class_ttft_ms(
        self, model: ModelSpec, gpu: GpuSpec, layouts: Layouts, workload: Workload, requests_per_second: FloatArray
    ) -> tuple[Mapping[float, FloatArray], ...]:
        """Return quantiles of the TTFT of each class of requests by level, in ms, shape (n,).

        Args:
            model: The architecture.
            gpu: The GPU product.
            layouts: Candidates, shape (n,), all of which can run.
            workload: A workload with classes.
            requests_per_second: Arrival rate at each replica, shape (n,).
        """
        scenario = Scenario(served_on(model, fp4_arithmetic=gpu.flops_fp4 > 0), gpu, layouts, workload, "aggregated")
        held, _ = self._placed(scenario)
        point = self._arriving(scenario, requests_per_second, held)
        _, measured = self.constants(gpu)
        served = served_pace(point, self._adjustment(point, measured).factors["step"])
        schedule = schedule_of(self.profile, scenario)
        found = arrival_latencies(point, served, schedule, by_class=True)
        return tuple({level: 1e3 * seconds for level, seconds in each.items()} for each in found.class_ttft)

    def _placed(self, scenario: Scenario) -> tuple[Memory, npt.NDArray[np.str_]]:
        """Return the memory of candidates, and why some cannot run: that may be half of a model's layouts."""
        model, gpu, layouts = scenario.model, scenario.gpu, scenario.layouts
        held = self.memory(model, gpu, layouts, scenario.workload)
        reason = unsupported_reasons(model, layouts).astype(object)
        reason[(reason == "") & ~held.fits] = f"weights and one sequence do not fit in {gpu.name}'s memory"
        return held, reason.astype(np.str_)

    def _saturated(
        self,
        scenario: Scenario,
        concurrency: FloatArray,
        held: Memory,
        sampled: Sampled | None,
        *,
        in_flight: bool,
    ) -> Prediction:
        layouts, workload = scenario.layouts, scenario.workload
        places = np.minimum(layouts.max_batch_size * layouts.data_parallel, held.max_concurrency)
        running = resident_sequences(concurrency, layouts, held, self.profile.full_cache) if in_flight else concurrency
        constants, measured = self.constants(scenario.gpu)
        steady = self._steady(scenario, running, constants)
        median = None
        if sampled is not None:
            age = workload.age_share if sampled.age_share is None else sampled.age_share
            there = replace(scenario, workload=replace(workload, age_share=age))
            fewer = running * sampled.running_share
            median = self._steady(there, fewer, constants).mixture.quantile(sampled.level)
        point = OperatingPoint(
            scenario=scenario,
            pace=steady,
            running=running,
            places=places,
            busy=np.ones_like(running),
            utilization=np.ones_like(running),
            sustainable=concurrency <= places * (1.0 + 1e-9),
            rate=running / (steady.mean_step * workload.decode_steps),
            median_step=median,
            waiting=np.maximum(concurrency - running, 0.0),
        )
        return self._prediction(point, held, constants, measured)

    def _arriving(self, scenario: Scenario, rate: FloatArray, held: Memory) -> OperatingPoint:
        layouts, workload = scenario.layouts, scenario.workload
        constants, measured = self.constants(scenario.gpu)
        places = np.minimum(layouts.max_batch_size * layouts.data_parallel, held.max_concurrency)
        full = np.maximum(places, 1.0)

        lanes, lockstep = scenario.lanes, scenario.lockstep_ranks
        starts = full / lanes / workload.decode_steps
        varied = lasting_variation(workload.arrival_variation, workload.output_variation, workload.decode_steps)

        def steps_of(where: Layouts) -> StepTimes:
            return self._step_times(replace(scenario, layouts=where), constants, measured)

        def longer(once: FloatArray) -> FloatArray:
            return longer_apart(once, starts, varied, lanes, lockstep)

        # CUDA graphs are sized in tokens, which grow with the tokens verified per sequence.
        prompt = workload.computed_prompt / workload.verified
        running, most = running_sequences(
            layouts, rate, full, held.max_concurrency, steps_of, prompt, workload.decode_steps, longer
        )
        sustainable = (rate <= most) & (places >= 1.0)
        mean = np.where(sustainable, running, full)
        # Each lane idles while it has no request, whatever runs on the others.
        busy, while_busy = busy_share(mean / lanes, full / lanes)
        while_busy = while_busy * lanes
        # Replicas with different batches behave the same under the same load.
        unlike, same = distinct(*layouts.split, graph_tokens(layouts), while_busy)
        some, here = scenario.take(unlike), while_busy[unlike]
        near = np.maximum(BESIDE * here, here + 4.0)
        return OperatingPoint(
            scenario=scenario,
            pace=self._steady(some, here, constants).take(same),
            running=mean,
            places=places,
            busy=busy,
            utilization=np.minimum(np.where(most > 0, rate / most, np.inf), 1.0),
            sustainable=sustainable,
            rate=np.minimum(rate, most),
            most=most,
            beside=NearbySteps(self._mixture(some, near, constants).take(same), near[same]),
        )

    def _steady(self, scenario: Scenario, running: FloatArray, constants: dict[str, float]) -> Steady:
        return steady_state(scenario, running, self._physics(scenario, constants))

    def _physics(self, scenario: Scenario, constants: dict[str, float]) -> Physics:
        profile, gpu = self.profile, scenario.gpu
        lockstep = profile.lockstep_of(gpu, scenario.layouts, scenario.model)
        return Physics(constants, self.coefficients, self._rates_of(gpu, constants), profile.overlap, lockstep)

    def _rates_of(self, gpu: GpuSpec, constants: dict[str, float]) -> KernelRates:
        if gpu not in self._rates:
            self._rates[gpu] = kernel_rates(constants, data_sheet(gpu))
        return self._rates[gpu]

    def _mixture(self, scenario: Scenario, running: FloatArray, constants: dict[str, float]) -> StepMixture:
        """Return the steps with the given running sequences, shape (n,)."""
        if np.isfinite(scenario.layouts.power_cap_watts).any():
            return self._steady(scenario, running, constants).mixture
        # The time depends on the power only under a cap, and the power takes a quarter of the work.
        return phase_mixture(scenario, running, self._physics(scenario, constants))

    def _step_times(self, scenario: Scenario, constants: dict[str, float], measured: bool) -> StepTimes:
        """Return the steps of some layouts, with what measured runs correct."""
        model, gpu, layouts, workload = scenario.model, scenario.gpu, scenario.layouts, scenario.workload
        residual = self.coefficients.residual if measured else None
        tag, alone = self.profile.tag, np.ones(len(layouts))
        features = None if residual is None else run_features(model, gpu, layouts, workload, alone, tag)

        def timed(index: IntArray, running: FloatArray) -> tuple[StepMixture, FloatArray]:
            mixture = self._mixture(scenario.take(index), running, constants)
            if residual is None or features is None:
                return mixture, alone[index]
            assert features.rows is not None
            runs = features.at(features.rows[index], np.log(running))
            return mixture, np.exp(correct(residual, runs, ("step",))["step"][0])

        def mean(index: IntArray, running: FloatArray) -> FloatArray:
            mixture, factor = timed(index, running)
            return np.asarray(mixture.mean * factor)

        def with_once(index: IntArray, running: FloatArray) -> tuple[FloatArray, FloatArray]:
            mixture, factor = timed(index, running)
            return np.asarray(mixture.mean * factor), np.asarray(mixture.once * factor)

        return StepTimes(mean, with_once)

    def _prediction(
        self, point: OperatingPoint, held: Memory, constants: dict[str, float], measured: bool
    ) -> Prediction:
        return prediction(point, held, self._adjustment(point, measured), self.profile, constants["static_watts"])

    def _adjustment(self, point: OperatingPoint, measured: bool) -> Adjustment:
        scenario = point.scenario
        return adjustment(
            self.coefficients,
            scenario.model,
            scenario.gpu,
            scenario.layouts,
            scenario.workload,
            point.running_while_busy,
            tag=self.profile.tag,
            measured=measured,
        )


def _checked(name: str, value: FloatArray, n: int, *, zero: bool) -> FloatArray:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim == 0:
        array = np.full(n, float(array))
    if array.shape != (n,):
        raise ValueError(f"{name} has shape {array.shape}; it must have one number per candidate, ({n},)")
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
    if workload.classes and not np.isclose(sum(part.share for part in workload.classes), 1.0):
        raise ValueError(
            f"workload classes have shares of {sum(part.share for part in workload.classes)} in all, not 1"
        )
    speculation = workload.speculation
    if speculation is not None:
        if speculation.draft_tokens < 1:
            raise ValueError(f"speculation draft_tokens must be at least 1, not {speculation.draft_tokens}")
        if not 0.0 <= speculation.acceptance <= 1.0:
            raise ValueError(f"speculation acceptance must be in 0 to 1, not {speculation.acceptance}")
