"""Step sizes: a lever on latency that is tried if the engine's default breaks an objective.

An engine limits the tokens of a step (vLLM's ``--max-num-batched-tokens``, SGLang's ``--chunked-prefill-size``). A
longer prompt takes several shorter steps: fewer tokens smooth the inter-token latency of the requests beside it, and
delay the prompt's first token. So fewer tokens are tried if inter-token latencies are too long, and more if first
tokens are late. (More tokens can also lower a percentile of the inter-token latency, because they gather the long steps
beyond that percentile.) Throughput and energy are assumed to equal those of the default, since the steps of a split
prompt also decode. The axis therefore need not be part of the whole space: other steps can only help candidates that
fail because of their latency.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from energylens.api.llmdeployment import LLMDeploymentSpec
from energylens.planner.engines import EngineSettings
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import LATENCIES, Constraint, feasible
from energylens.planner.search.objective import joules_at_risk, objective_values
from energylens.planner.search.ranking import LARGEST_TIE
from energylens.planner.search.space import ProductSpace
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import BoolArray, FloatArray, GpuSpec, IntArray, Layouts

STEP_TOKENS = (1024, 2048, 4096, 8192, 16384)
"""Step sizes to try, tokens. With smaller ones, matrix products no longer fill a GPU (the roofline of an H100 bends at
600 tokens in FP8), which costs energy. SGLang takes at most 16,384 prompt tokens at once by default
(``--max-prefill-tokens``)."""
MOST_TRIED = 1024
"""Number of candidates that are tried with other steps, the best first."""
_AT_ONCE = 256


def with_steps(layouts: Layouts, tokens: int, model: ModelSpec, gpu: GpuSpec, settings: EngineSettings) -> Layouts:
    """Return layouts with the given tokens of a step; 0, the engine's default, if that is equal."""
    own = settings.step_limits(model, gpu, layouts)
    return replace(layouts, max_batched_tokens=np.where(own == tokens, 0, tokens))


def with_other_steps(
    rows: Candidates,
    constraints: Sequence[Constraint],
    chosen: int | None,
    spec: LLMDeploymentSpec,
    gpus: Sequence[GpuSpec],
    predicted: Callable[[Sequence[ProductSpace]], Candidates],
    constrained: Callable[[Candidates], Sequence[Constraint]],
) -> Candidates | None:
    """Return candidates that meet their latency objectives with other steps, or come closer; None if there are none.

    For each candidate, the result has the steps nearest to the engine's default that meet all constraints, otherwise
    those that break them least.

    Args:
        rows: Candidates with the engine's default.
        constraints: Constraints of these candidates.
        chosen: The best of them; None if none satisfies every constraint.
        spec: The deployment's spec.
        gpus: GPU products of the rows.
        predicted: Function from spaces, one per product, to candidates.
        constrained: Function from candidates to their constraints.
    """
    values = objective_values(rows, spec.energy.objective)
    fewer, more = directions(rows, constraints, spec)
    most = highest_tried(values, chosen)
    index = np.flatnonzero((fewer | more) & (values <= most))
    index = index[np.lexsort((joules_at_risk(rows)[index], values[index]))][:MOST_TRIED]
    distance = _distance(constraints)
    found: list[Candidates] = []
    for start in range(0, index.size, _AT_ONCE):
        some = index[start : start + _AT_ONCE]
        if values[some[0]] > most:
            break
        options = _options(rows, some, fewer, more)
        others, origin, is_end = _tried(rows, some, options, gpus, predicted)
        if not len(others):
            continue
        limits = constrained(others)
        # If neither end of the options helps, the options between them are not considered.
        promising = np.isin(origin, origin[is_end & _promising(others, limits, rows.step_tokens[origin])])
        holds, far = feasible(limits, len(others)), np.where(is_end | promising, _distance(limits), np.inf)
        holds &= is_end | promising
        keep = _nearest(rows.step_tokens[origin], others.step_tokens, origin, holds, far, distance[origin])
        if keep.size:
            found.append(others.take(keep))
            held = objective_values(others, spec.energy.objective)[holds]
            most = min(most, float(held.min(initial=np.inf)) * LARGEST_TIE)
    if not found:
        return None
    joined, *rest = found
    for others in rest:
        joined = joined.joined(others)
    return joined


def highest_tried(values: FloatArray, chosen: int | None) -> float:
    """Return the highest value with which a candidate is tried with other steps.

    ``values`` are what is minimised, shape (n,), and ``chosen`` is the best candidate with the engine's default.
    """
    return math.inf if chosen is None else float(values[chosen]) * LARGEST_TIE


def directions(
    rows: Candidates, constraints: Sequence[Constraint], spec: LLMDeploymentSpec
) -> tuple[BoolArray, BoolArray]:
    """Return for which candidates fewer tokens may help, and for which more, shape (n,) each.

    They break only latencies, power, or a load within their capacity.
    """
    broken = {c.rule: ~c.holds for c in constraints if c.rule in LATENCIES}
    others = [c for c in constraints if c.rule not in LATENCIES and c.kind not in ("Load", "Power")]
    able = feasible(others, len(rows)) & np.isfinite(rows.joules_per_output_token)
    # The queue of prompts grows without bound although the replicas are fast enough: steps are too short for the
    # prompts.
    queued = rows.utilization <= np.minimum(rows.utilization_limit, 1.0 - 1e-9)
    able &= rows.sustainable | (queued & ~np.isfinite(rows.ttft_upper_ms))
    none = np.zeros(len(rows), dtype=bool)
    between = broken.get("ITLTooHigh", none) | broken.get("TPOTTooHigh", none)
    late = broken.get("TTFTTooHigh", none) | ~rows.sustainable
    whole = broken.get("E2ETooHigh", none)
    fewer, more = able & ~late & (between | whole), able & ~between & (late | whole)
    if spec.slo.itl_milliseconds is not None:
        # If steps without prompts are already too long, their size does not matter.
        fewer &= rows.itl_decode_upper_ms <= spec.slo.itl_milliseconds
    return fewer, more


def _options(rows: Candidates, index: IntArray, fewer: BoolArray, more: BoolArray) -> BoolArray:
    """Return which of `STEP_TOKENS` may help each of the candidates of an index array of shape (m,), shape (m, k)."""
    options, own = np.asarray(STEP_TOKENS), rows.step_tokens[index][:, None]
    helps = np.where(options < own, fewer[index][:, None], more[index][:, None])
    # A batch needs one token of a step for each sequence.
    return np.asarray(helps & (options != own) & (options >= rows.layouts.max_batch_size[index][:, None]))


def _ends(options: BoolArray, own: IntArray) -> BoolArray:
    """Return the smallest and the largest options: if these do not help, no option between them does."""
    below = options & (np.asarray(STEP_TOKENS) < own[:, None])
    above = options & ~below
    first = below & (np.cumsum(below, axis=1) == 1)
    last = above & (np.cumsum(above[:, ::-1], axis=1)[:, ::-1] == 1)
    return np.asarray(first | last)


def _promising(others: Candidates, limits: Sequence[Constraint], own: IntArray) -> BoolArray:
    """Return which candidates meet the objective of their change of steps, shape (n,).

    ``own`` is the engine's default.
    """
    between = feasible([c for c in limits if c.rule in ("ITLTooHigh", "TPOTTooHigh")], len(others))
    late = feasible([c for c in limits if c.rule == "TTFTTooHigh" or c.kind == "Load"], len(others))
    return np.where(others.step_tokens < own, between, late)


def _tried(
    rows: Candidates,
    index: IntArray,
    options: BoolArray,
    gpus: Sequence[GpuSpec],
    predicted: Callable[[Sequence[ProductSpace]], Candidates],
) -> tuple[Candidates, IntArray, BoolArray]:
    """Return candidates with the options of each, shape (m, k).

    The second value is the index of each one's original candidate, the third whether an option is one of :func:`_ends`.
    All options are predicted at once, since the calls cost more than the few candidates in them.
    """
    ends = _ends(options, rows.step_tokens[index])
    spaces, origins, at_ends = [], [], []
    for number, gpu in enumerate(gpus):
        place, option = np.nonzero(options & (rows.product[index] == number)[:, None])
        origin = index[place]
        layouts = replace(rows.layouts.take(origin), max_batched_tokens=np.asarray(STEP_TOKENS)[option])
        replicas = rows.replicas[origin]
        spaces.append(ProductSpace(gpu, layouts, rows.nodes_per_replica[origin], replicas, replicas))
        origins.append(origin)
        at_ends.append(ends[place, option])
    is_end = np.concatenate(at_ends)
    # Of two options as far from the default, one at an end comes first.
    order = np.argsort(~is_end, kind="stable")
    return predicted(spaces).take(order), np.concatenate(origins)[order], is_end[order]


def _distance(constraints: Sequence[Constraint]) -> FloatArray:
    return np.asarray(np.sum([c.distance for c in constraints], axis=0), dtype=np.float64)


def _nearest(
    own: IntArray, tokens: IntArray, origin: IntArray, holds: BoolArray, far: FloatArray, before: FloatArray
) -> IntArray:
    """Return for each candidate the most useful other steps, shape (m,).

    Args:
        own: Tokens of a step by default; all arrays have shape (n,).
        tokens: Tokens of the other steps.
        origin: Index of the original candidate.
        holds: Whether they satisfy every constraint.
        far: By how much they break constraints.
        before: By how much the candidate with its own steps breaks them.
    """
    apart = np.abs(np.log2(tokens / own))
    order = np.lexsort((apart, np.where(holds, 0.0, far), ~holds, origin))
    _, first = np.unique(origin[order], return_index=True)
    kept = order[first]
    better = holds[kept] | (np.isfinite(far[kept]) & (far[kept] < before[kept]))
    return np.sort(kept[better])
