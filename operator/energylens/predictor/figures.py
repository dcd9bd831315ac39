"""From an operating point to the figures of a prediction: latency, throughput, power, energy and their intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from energylens.predictor.fitted.adjustment import Adjustment
from energylens.predictor.fitted.profiles import EngineProfile
from energylens.predictor.load.decoding import Decoding, until_last_token
from energylens.predictor.load.operating_point import OperatingPoint
from energylens.predictor.load.scenario import Scenario
from energylens.predictor.load.ttft import (
    LEVELS,
    Schedule,
    ServedPace,
    arrival_latencies,
    saturated_decoding,
    steps_in_flight,
    ttft_in_flight_ms,
)
from energylens.predictor.prediction import Interval, Memory, Prediction
from energylens.predictor.step.power import sheet_limit
from energylens.predictor.step.rates import data_sheet
from energylens.predictor.types import FloatArray

IDLE_RETURN = 1.0
"""Share of static power that a loaded GPU draws between requests."""


def prediction(
    point: OperatingPoint, held: Memory, adjusted: Adjustment, profile: EngineProfile, static_watts: float
) -> Prediction:
    """Return the prediction of n candidates, all of which can run.

    Args:
        point: The operating point by physics.
        held: Memory of their GPUs, shape (n,).
        adjusted: Corrections of the physics from measured runs.
        profile: Profile of the engine.
        static_watts: Static power of one GPU while anything runs, W.
    """
    served = served_pace(point, adjusted.factors["step"])
    throughput = served.tokens_per_second
    limit, idle, power = _power(point, adjusted.factors["power"], static_watts)
    with np.errstate(divide="ignore", invalid="ignore"):
        energy = np.where(throughput > 0, power / np.maximum(throughput, 1e-300), np.inf)
    itl_factor, each = adjusted.factors["itl"], point.scenario.tokens_per_step if profile.divides_itl else 1.0
    ttft, steps, decoding = _latencies(point, served, profile)
    itl = {level: seconds * itl_factor * 1e3 / each for level, seconds in steps.items()}
    tpot = {level: served.tpot_ms * decoding.quantile(level) for level in LEVELS}
    rest = until_last_token(tpot, point.scenario.workload.parts)
    drawn = adjusted.interval("power", power)
    return Prediction(
        supported=np.ones_like(point.running, dtype=np.bool_),
        reason=np.full(point.running.shape, ""),
        sustainable=np.asarray(point.sustainable & (np.isfinite(ttft[0.5]) | (point.waiting is not None))),
        concurrency=point.running,
        max_concurrency=point.places,
        utilization=point.utilization,
        mean_step_ms=served.step * 1e3,
        tpot_ms=tpot[0.5],
        tpot_p95_ms=tpot[0.95],
        tpot_p99_ms=tpot[0.99],
        decoding_p50_ms=rest[0.5],
        decoding_p95_ms=rest[0.95],
        decoding_p99_ms=rest[0.99],
        itl_decode_ms=point.pace.mixture.decode * itl_factor * 1e3 / each,
        itl_p50_ms=itl[0.5],
        itl_p90_ms=itl[0.9],
        itl_p95_ms=itl[0.95],
        itl_p99_ms=itl[0.99],
        ttft_p50_ms=ttft[0.5],
        ttft_p95_ms=ttft[0.95],
        ttft_p99_ms=ttft[0.99],
        output_tokens_per_second=throughput,
        power_watts=power,
        idle_power_watts=idle,
        joules_per_output_token=energy,
        itl=adjusted.interval("itl", itl[0.5]),
        tpot=adjusted.interval("tpot", tpot[0.5]),
        ttft=adjusted.interval("itl", ttft[0.5]),
        throughput=adjusted.interval("step", throughput),
        power=Interval(drawn.low, np.minimum(drawn.high, np.maximum(limit, power))),
        energy=adjusted.interval("energy", energy),
        unshared_deviation=adjusted.doubt.unshared,
        layout_deviation=adjusted.doubt.layout,
        nearest=adjusted.nearest,
        memory=held,
    )


def _latencies(
    point: OperatingPoint, served: ServedPace, profile: EngineProfile
) -> tuple[dict[float, FloatArray], Mapping[float, FloatArray], Decoding]:
    """Return the uncorrected TTFT in ms and step time in s by level, each of shape (n,), and the TPOT."""
    schedule = schedule_of(profile, point.scenario)
    if point.waiting is not None:
        ttft = dict(ttft_in_flight_ms(point, served, schedule))
        return ttft, steps_in_flight(point, schedule), saturated_decoding(point)
    found = arrival_latencies(point, served, schedule)
    ttft = {level: 1e3 * seconds for level, seconds in found.ttft.items()}
    steps = {level: seconds / served.step_factor for level, seconds in found.step.items()}
    return ttft, steps, found.decoding


def schedule_of(profile: EngineProfile, scenario: Scenario) -> Schedule:
    """Return how the engine composes the steps of n replicas."""
    asked = scenario.gpu, scenario.layouts, scenario.model
    return Schedule(profile.steps_ahead, profile.step_limits(*asked), profile.default_limits(*asked))


def served_pace(point: OperatingPoint, factor: FloatArray) -> ServedPace:
    """Return how fast replicas serve, from the factors on their steps."""
    scenario, mixture = point.scenario, point.pace.mixture
    step = point.pace.mean_step * factor
    each = scenario.tokens_per_step
    # Requests that arrive are served at their rate, or at the most that the replica sustains.
    in_flight = point.most is None
    throughput = each * point.running / step if in_flight else point.rate * scenario.workload.output_tokens
    tpot = 1e3 * factor * mixture.tpot(point.running_while_busy / scenario.lanes) / each
    return ServedPace(factor, step, tpot, throughput)


def _power(point: OperatingPoint, factor: FloatArray, static_watts: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the power limit of all GPUs of a replica, their power between requests, and their mean power, in watts."""
    layouts = point.scenario.layouts
    gpus = layouts.gpus.astype(np.float64)
    limit = sheet_limit(data_sheet(point.scenario.gpu), layouts.power_cap_watts)
    # A cap also applies between requests, and the lowest cap of some products is below their power at that time.
    idle = np.minimum(static_watts * IDLE_RETURN, limit)
    # Requests never lower the power, also where a cap is so low that the corner below it is under the idle power.
    active = np.clip(point.pace.power_per_gpu * factor, idle, limit)
    return gpus * limit, gpus * idle, gpus * (point.busy * active + (1.0 - point.busy) * idle)
