"""Energy of a step and power over time: joules per byte and per FLOP, static power, and the power limit.

The form is the additive energy roofline of Choi et al. (IPDPS 2013): energy = static power x time + energy per
operation x operations. Energies are added over operations even if these overlap in time.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from energylens.predictor.model.einsum import Collective
from energylens.predictor.step.kernels import KERNEL_INDEX
from energylens.predictor.step.latency import StepTime, padded_seconds
from energylens.predictor.step.rates import Constants, DataSheet, KernelRates, per_operation
from energylens.predictor.step.work import CollectiveWork, Work
from energylens.predictor.types import BoolArray, FloatArray
from energylens.records import dataclass

_EXPERTS = [index for name, index in KERNEL_INDEX.items() if name.startswith("moe")]


@dataclass(frozen=True)
class StepEnergy:
    """Joules of one step on one GPU without static power; arrays of shape (n,)."""

    weights: FloatArray
    cache: FloatArray
    """KV cache and recurrent state."""
    activations: FloatArray
    """Other memory traffic, including bytes moved by small kernels."""
    compute: FloatArray
    link: FloatArray
    overhead: FloatArray
    """Clocks of a busy GPU, sampling, and the padding of expert kernels."""

    @property
    def total(self) -> FloatArray:
        """Sum of all parts."""
        return self.weights + self.cache + self.activations + self.compute + self.link + self.overhead


def moved_bytes(work: CollectiveWork) -> FloatArray:
    """Return the bytes that each GPU sends over the link per step, shape (n,)."""
    total = np.zeros(work.group.shape[1])
    for kind, count, message, group in zip(work.kind, work.count, work.message_bytes, work.group, strict=True):
        factor = {Collective.ALL_REDUCE: 2.0, Collective.NONE: 1.0}.get(kind, 1.0)
        share = np.where(group > 1, 1.0 if kind is Collective.NONE else (group - 1.0) / group, 0.0)
        total += factor * count * message * share
    return total


def step_energy(work: Work, time: StepTime, rates: KernelRates, c: Constants) -> StepEnergy:
    """Return the dynamic energy of one step on an average GPU.

    Args:
        work: Work of the step.
        time: Time of the step.
        rates: Kernel rates of the GPU product.
        c: Constants of the GPU product and the engine.
    """
    pick = work.kernel
    per_byte = per_operation(rates.joules_per_byte, pick)
    cache = work.cache_bytes * per_operation(rates.joules_per_cache_byte, pick)
    compute = (work.flops + work.prefill_attention_flops) * per_operation(rates.joules_per_flop, pick)
    small = work.small_bytes * c["energy_byte_pj"] * 1e-12
    link = moved_bytes(work.collectives) * c["energy_link_byte_pj"] * 1e-12
    # Rows that pad a tile are zeros, which switch fewer gates; padding rows of an aligned buffer have arbitrary
    # contents.
    zeros = np.where(work.tile_flops > 0, np.maximum(work.tile_flops - work.flops, 0.0), 0.0) * c["padding_energy"]
    stale = np.where(work.aligned_flops > 0, np.maximum(work.aligned_flops - work.flops, 0.0), 0.0)
    stale = stale * c["aligned_rows"]
    padding = ((zeros + stale) * per_operation(rates.joules_per_flop, pick)).sum(axis=0)
    active = time.kernels + time.sampler + c["collective_activity"] * time.collectives
    overhead = np.minimum(active, time.total) * c["active_watts"] + time.sampler * c["sampler_watts"] + padding
    found = StepEnergy(
        (work.weight_bytes * per_byte).sum(axis=0),
        cache.sum(axis=0),
        (work.activation_bytes * per_byte).sum(axis=0) + small,
        compute.sum(axis=0),
        link,
        overhead,
    )
    for draft, passes in work.drafts:
        # The step's times include its drafts; the energy of the drafts themselves is counted above.
        one, none = step_energy(draft, time, rates, c), "overhead"
        more = {f.name: getattr(found, f.name) + passes * getattr(one, f.name) for f in fields(one) if f.name != none}
        found = StepEnergy(**more, overhead=found.overhead)
    return found


def waiting_energy(
    decode: Work, mixed: Work, td: StepTime, tm: StepTime, rates: KernelRates, c: Constants
) -> FloatArray:
    """Return the additional joules on a rank while other ranks have a prompt, beyond a decode step, shape (n,).

    The rank's GPU computes its share of the experts' work for all ranks, and polls in a collective for the rest of the
    time, also while the GPU that holds the experts of all padding computes them.
    """
    experts = _expert_energy(mixed, rates, c) - _expert_energy(decode, rates, c)
    longer = np.maximum(tm.total - td.total, 0.0)
    computing = _expert_seconds(mixed, tm, rates, c) - _expert_seconds(decode, td, rates, c)
    computing = np.clip(computing, 0.0, longer)
    active = computing + c["collective_activity"] * (longer - computing)
    return np.asarray(experts + active * c["active_watts"])


def _expert_seconds(work: Work, time: StepTime, rates: KernelRates, c: Constants) -> FloatArray:
    """Return the time of the experts of a step without padding that one GPU alone computes, shape (n,)."""
    return np.asarray(((time.operations - padded_seconds(work, rates, c)) * _routed(work)).sum(axis=0))


def _expert_energy(work: Work, rates: KernelRates, c: Constants) -> FloatArray:
    pick = work.kernel
    moved = (work.weight_bytes + work.activation_bytes) * per_operation(rates.joules_per_byte, pick)
    aligned = c["aligned_rows"] * (work.aligned_flops > 0.0)
    stale = aligned * np.maximum(work.aligned_flops - work.flops, 0.0)
    computed = work.flops + stale + (1.0 - aligned) * work.padded_flops * c["padding_energy"]
    joules = moved + computed * per_operation(rates.joules_per_flop, pick)
    return np.asarray((joules * _routed(work)).sum(axis=0))


def _routed(work: Work) -> BoolArray:
    """Return which operations are routed experts, shape (k, 1) or (k, n)."""
    routed = np.isin(work.kernel, _EXPERTS)
    return routed if work.kernel.ndim == 2 else routed[:, None]


def capped(power: FloatArray, limit: FloatArray) -> FloatArray:
    """Return the power per GPU under a limit, with a soft corner just below the limit; never above ``limit``."""
    ratio = power / limit
    return np.asarray(limit * ratio / (1.0 + ratio**12) ** (1.0 / 12.0))


def frequency_fraction(power: FloatArray, idle: FloatArray, limit: FloatArray) -> FloatArray:
    """Return the share of the boost clock at which ``power`` meets ``limit``; 1 if it already does.

    Dynamic power follows V^2 f, and voltage falls about linearly with frequency above its floor, which together is
    close to a power of 2 over the range that power limits reach on Ampere to Blackwell. Below 40 % of the clock the
    voltage is at its floor; the result stops at 0.2.
    """
    room = np.maximum(limit - idle, 1.0)
    dynamic = np.maximum(power - idle, 1.0)
    return np.asarray(np.clip(np.sqrt(np.minimum(room / dynamic, 1.0)), 0.2, 1.0))


def sheet_limit(sheet: DataSheet, caps: FloatArray) -> FloatArray:
    """Return the effective limit per GPU, W: the product's limit, or a lower cap; NaN means no cap."""
    default = np.asarray(sheet.power_limit, dtype=np.float64)
    return np.where(np.isnan(caps), default, np.minimum(caps, default))
