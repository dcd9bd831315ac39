"""Where the energy of an output token is spent.

The parts of a step follow from the same terms as the power (:mod:`energylens.predictor.step.power`). Static power is
used unchanged; the learned correction and the power limit scale the dynamic parts in proportion.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from energylens.predictor.core import Predictor
from energylens.predictor.figures import IDLE_RETURN
from energylens.predictor.load.scenario import Role, Scenario
from energylens.predictor.load.steady import combine, phase_work
from energylens.predictor.model.architecture import ModelSpec, served_on
from energylens.predictor.prediction import Prediction
from energylens.predictor.step.power import step_energy
from energylens.predictor.step.rates import data_sheet, kernel_rates
from energylens.predictor.types import FloatArray, GpuSpec, Layouts, Workload
from energylens.records import dataclass


@dataclass(frozen=True)
class EnergyParts:
    """Joules per output token of one replica by cause, arrays of shape (n,); their sum is the predicted energy."""

    idle: FloatArray
    """Power between requests."""
    static: FloatArray
    """Static power while requests run."""
    weights: FloatArray
    """Reading weights."""
    cache: FloatArray
    """Reading and writing the KV cache and recurrent state."""
    activations: FloatArray
    """Other memory traffic."""
    compute: FloatArray
    links: FloatArray
    """Collectives between GPUs."""
    overhead: FloatArray
    """Clocks of busy GPUs, sampling, and the padding of expert kernels."""

    @property
    def total(self) -> FloatArray:
        """Sum of all parts."""
        return np.asarray(sum(getattr(self, f.name) for f in fields(self)))


def energy_parts(
    predictor: Predictor,
    model: ModelSpec,
    gpu: GpuSpec,
    layouts: Layouts,
    workload: Workload,
    prediction: Prediction,
    *,
    saturated: bool,
    role: Role = "aggregated",
) -> EnergyParts:
    """Return the parts of a prediction's energy; NaN if the layout is not supported.

    Args:
        predictor: The predictor that made the prediction.
        model: The predicted model.
        gpu: The GPU product.
        layouts: The n candidates of the prediction.
        workload: The workload of the prediction.
        prediction: The prediction.
        saturated: Whether the prediction is for a number of requests in flight, not for an arrival rate.
        role: The phases that the replica runs.
    """
    model = served_on(model, fp4_arithmetic=gpu.flops_fp4 > 0)
    c, sheet = predictor.constants(gpu)[0], data_sheet(gpu)
    rates = kernel_rates(c, sheet)
    mean = np.nan_to_num(prediction.concurrency, nan=1.0)
    lanes = np.ones_like(mean) if saturated else Scenario(model, gpu, layouts, workload, role).lanes
    busy = np.ones_like(mean) if saturated else np.where(prediction.sustainable, -np.expm1(-mean / lanes), 1.0)
    running = np.maximum(mean / np.maximum(busy, 1e-12), lanes)
    lockstep = predictor.profile.lockstep_of(gpu, layouts, model)
    work = phase_work(model, gpu, layouts, workload, running, predictor.coefficients, role, lockstep)
    no_cap = np.full(len(layouts), np.nan)
    steady = combine(work, c, sheet, no_cap, predictor.profile.overlap)
    share = steady.mixture.mixed_share
    pure, filled = step_energy(work.decode, steady.decode, rates, c), step_energy(work.mixed, steady.mixed, rates, c)
    moving = {f.name: (1.0 - share) * getattr(pure, f.name) + share * getattr(filled, f.name) for f in fields(pure)}
    idle = (1.0 - busy) * prediction.idle_power_watts
    active = prediction.power_watts - idle
    static = np.minimum(busy * prediction.idle_power_watts / IDLE_RETURN, active)
    scale = (active - static) / np.maximum(sum(moving.values()), 1e-300)
    tokens = prediction.output_tokens_per_second
    return EnergyParts(
        idle=idle / tokens,
        static=static / tokens,
        weights=moving["weights"] * scale / tokens,
        cache=moving["cache"] * scale / tokens,
        activations=moving["activations"] * scale / tokens,
        compute=moving["compute"] * scale / tokens,
        links=moving["link"] * scale / tokens,
        overhead=moving["overhead"] * scale / tokens,
    )
