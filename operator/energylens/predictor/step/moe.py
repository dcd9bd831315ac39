"""Mixtures of experts: how many experts a step uses, and how uneven the load is over GPUs.

Like EnergyLens (arXiv 2605.14249), this uses the average load for energy and the most loaded rank for time.
"""

from __future__ import annotations

import numpy as np

from energylens.predictor.model.architecture import MoeFfn
from energylens.predictor.model.einsum import ACTIVATION_BYTES
from energylens.predictor.types import FloatArray
from energylens.records import dataclass


@dataclass(frozen=True)
class ExpertLoad:
    """Load of the routed experts of one layer on one GPU, arrays of shape (n,).

    Means over GPUs unless stated otherwise.
    """

    experts: int
    top_k: int
    width: int
    intermediate: int
    tokens: FloatArray
    """Tokens of all data-parallel ranks together."""
    expert_parallel: FloatArray
    tensor_parallel: FloatArray
    hit: FloatArray
    """Local experts that receive at least one token."""
    pairs: FloatArray
    """Token-expert pairs that this GPU computes."""
    flops: FloatArray
    weight_bytes: FloatArray
    activation_bytes: FloatArray
    max_over_mean: FloatArray
    """Ratio of the pairs on the most loaded GPU to the mean."""
    hit_max_over_mean: FloatArray
    """Ratio of experts hit on the most loaded GPU to the mean: once all are hit, more pairs read no more weights."""


# Gauss-Hermite nodes and weights of a standard normal distribution, for popularity quantiles of experts.
_NODES = np.array([-2.8569700138728056, -1.3556261799742657, 0.0, 1.3556261799742657, 2.8569700138728056])
_WEIGHTS = np.array(
    [0.011257411327720693, 0.22207592200561263, 0.5333333333333333, 0.22207592200561263, 0.011257411327720693]
)


def experts_hit(experts: float, top_k: float, tokens: FloatArray, skew: float = 0.0) -> FloatArray:
    """Return the expected number of experts that a step reads, shape of ``tokens``.

    With uniform routing it is ``E (1 - (1 - k/E)^T)``, since each of T tokens misses a given expert with probability 1
    - k/E. With a skew the experts' popularity is log-normal; ``skew`` is the standard deviation of its logarithm.
    """
    if top_k >= experts:
        return np.full_like(tokens, experts)
    if skew <= 0.0:
        return np.asarray(experts * -np.expm1(tokens * np.log1p(-top_k / experts)))
    weights = np.exp(skew * _NODES)
    weights /= _WEIGHTS @ weights
    # An expert gets each token at most once; the excess of popular experts goes to the others.
    share = np.minimum(top_k / experts * weights, 0.999)
    for _ in range(3):
        share = np.minimum(share * (top_k / experts) / (_WEIGHTS @ share), 0.999)
    missed = np.exp(tokens[..., None] * np.log1p(-share)) @ _WEIGHTS
    return np.asarray(experts * (1.0 - missed))


def evenly_hit(experts: float, top_k: float, tokens: FloatArray) -> FloatArray:
    """Return the experts that a step reads if its tokens are dealt out to them in turn, shape of ``tokens``.

    The kernel tables of balanced routing were measured this way: no expert gets a second token before every expert has
    one.
    """
    return np.minimum(experts, top_k * tokens)


def most_loaded(pairs: FloatArray, ranks: FloatArray, experts: float = np.inf, skew: float = 0.0) -> FloatArray:
    """Return the expected load of the most loaded of ``ranks`` GPUs relative to the mean, shape of ``pairs``.

    Pairs per rank are nearly normal, with a variance equal to their mean, plus a variance of the popularity of a rank's
    experts, independent of the number of tokens. The expected maximum of r normals is about ``sqrt(2 ln r)`` standard
    deviations above the mean. The result is capped at the most that one rank can get.

    Args:
        pairs: Mean token-expert pairs per rank.
        ranks: GPUs that share the experts.
        experts: Number of experts of the layer.
        skew: Unevenness of routing, see :func:`experts_hit`.
    """
    spread = np.sqrt(2.0 * np.log(np.maximum(ranks, 1.0)))
    popular = np.expm1(skew**2) * ranks / experts
    busiest = 1.0 + spread * np.sqrt(1.0 / np.maximum(pairs, 1.0) + popular)
    return np.asarray(np.minimum(busiest, np.maximum(ranks, 1.0)))


def expert_load(
    moe: MoeFfn,
    width: int,
    bytes_per_weight: float,
    tokens: FloatArray,
    expert_parallel: FloatArray,
    tensor_parallel: FloatArray,
    skew: float = 0.0,
) -> ExpertLoad:
    """Return the load of one layer's routed experts.

    Args:
        moe: The mixture.
        width: Hidden width in which the experts work.
        bytes_per_weight: Stored bytes per weight, scales included.
        tokens: Tokens of the step over all data-parallel ranks, shape (n,).
        expert_parallel: GPUs that share the experts, shape (n,).
        tensor_parallel: GPUs that share each expert, shape (n,).
        skew: Unevenness of routing, see :func:`experts_hit`.
    """
    pairs = tokens * moe.top_k / expert_parallel
    hit = experts_hit(moe.experts, moe.top_k, tokens, skew) / expert_parallel
    busiest = most_loaded(pairs, expert_parallel, moe.experts, skew)
    hit_on_busiest = experts_hit(moe.experts, moe.top_k, tokens * busiest, skew) / expert_parallel
    matrices = 3.0 if moe.gated else 2.0
    weights = matrices * width * moe.intermediate / tensor_parallel
    return ExpertLoad(
        experts=moe.experts,
        top_k=moe.top_k,
        width=width,
        intermediate=moe.intermediate,
        tokens=tokens,
        expert_parallel=expert_parallel,
        tensor_parallel=tensor_parallel,
        hit=hit,
        pairs=pairs,
        flops=2.0 * pairs * weights,
        weight_bytes=hit * weights * bytes_per_weight,
        activation_bytes=ACTIVATION_BYTES * pairs * (2.0 * width + matrices * moe.intermediate / tensor_parallel),
        max_over_mean=busiest,
        hit_max_over_mean=hit_on_busiest / hit,
    )
