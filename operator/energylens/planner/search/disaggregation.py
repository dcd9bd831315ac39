"""Separate prefill and decode: the best pair of prefill and decode replicas, exactly.

Energy, power and GPUs of a pair are sums. So are its TTFT and its end-to-end latency; the KV cache transfer belongs to
the decode role. ITL and TPOT are those of decode. A candidate of one role that another candidate of the role beats in
every figure and in pods is therefore in no best pair, and the remaining ones are paired as arrays. Percentiles of
latencies are added, which overstates the sum, because both roles are seldom slow at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from energylens.api.llmdeployment import LLMDeploymentSpec, PlanStatus, ReplicaLayout
from energylens.api.quantity import parse_quantity
from energylens.planner.inventory.capacity import pods_beside
from energylens.planner.search import describe
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.evaluate import evaluate
from energylens.planner.search.frontier import latencies, pareto
from energylens.planner.search.placement import layout_at
from energylens.planner.search.problem import MOST_CANDIDATES, Problem, clipped, question_of, spaces_of
from energylens.planner.search.ranking import breach_chance
from energylens.predictor.types import BoolArray, FloatArray, IntArray
from energylens.records import dataclass


@dataclass(frozen=True)
class Pair:
    """One candidate of each role on the same GPU product, with the figures of both together."""

    prefill: int
    """Row among the prefill candidates."""
    decode: int
    joules_per_output_token: float
    joules_upper: float
    """The figure with the safety margin."""
    power_watts: float
    gpus: int
    ttft_ms: float
    ttft_upper_ms: float
    end_to_end_ms: float
    end_to_end_upper_ms: float


@dataclass(frozen=True)
class Disaggregated:
    """The candidates of both roles, and the best pairs."""

    prefill: Candidates
    decode: Candidates
    pairs: tuple[tuple[Pair, tuple[str, ...]], ...]
    """The best pair of every GPU product, the best of all first, with the objectives and budgets that the pair breaks.
    """

    @property
    def best(self) -> Pair:
        """The best pair of all products."""
        return self.pairs[0][0]

    @property
    def is_feasible(self) -> bool:
        """Whether the best pair satisfies every constraint."""
        return not self.pairs[0][1]


@dataclass(frozen=True)
class Pairing:
    """Which candidates may be in a pair."""

    served: bool = False
    """Whether the operator must be able to run the pair: see :func:`_served_alone` and :func:`_exchange`."""
    only: PlanStatus | None = None
    """A plan with separate roles to which the pair must be equal; None for any."""


ANY = Pairing()
SERVED = Pairing(served=True)


def best_pairs(problem: Problem, pairing: Pairing = ANY) -> Disaggregated | None:
    """Return the best pairs of a problem with an arrival rate; None if no pair can run the load on the available GPUs.

    A pair that satisfies every constraint precedes pairs that do not. Among the others only the objective counts.
    """
    rate = problem.load.requests_per_second
    assert rate is not None
    # The candidates of both roles are in memory at once.
    spaces = [clipped(problem, space).within(MOST_CANDIDATES // 2)[0] for space in spaces_of(problem)]
    question = question_of(problem)
    prefill = evaluate(spaces, replace(question, role="prefill"))
    decode = evaluate(spaces, replace(question, role="decode"))
    found: dict[int, tuple[Pair, tuple[str, ...]]] = {}
    for strict in (True, False):
        for pair in _best_of_products(problem, prefill, decode, pairing, strict=strict):
            product = int(prefill.product[pair.prefill])
            found.setdefault(product, (pair, () if strict else tuple(_broken(problem, decode, pair))))
    if not found:
        return None
    ranked = sorted(found.values(), key=lambda each: (bool(each[1]), *_rank(problem.spec, each[0])))
    return Disaggregated(prefill, decode, tuple(ranked))


def _best_of_products(
    problem: Problem, prefill: Candidates, decode: Candidates, pairing: Pairing, *, strict: bool
) -> Iterator[Pair]:
    for number, product in enumerate(prefill.products):
        if pairing.only and pairing.only.gpu_product != product:
            continue
        alone = _alone(problem, prefill, pairing, strict=strict), _alone(problem, decode, pairing, strict=strict)
        first = _undominated(prefill, alone[0] & (prefill.product == number), ())
        second = _undominated(decode, alone[1] & (decode.product == number), latencies(decode, problem.spec))
        if first.size and second.size:
            pair = _best_of(problem, prefill, decode, first, second, product, pairing, strict=strict)
            if pair is not None:
                yield pair


def _alone(problem: Problem, rows: Candidates, pairing: Pairing, *, strict: bool) -> BoolArray:
    """Return which candidates of one role could be in a pair, shape (n,)."""
    slo = problem.spec.slo
    # The spaces have been clipped to the hardware limits of one role already.
    mask = rows.sustainable.copy()
    if pairing.served:
        mask &= _served_alone(rows)
    if pairing.only is not None:
        wanted = pairing.only.prefill if rows.role == "prefill" else pairing.only
        assert wanted is not None
        mask &= _equal_to(rows, wanted, mask)
    if strict and rows.role == "decode":
        for limit, upper in ((slo.itl_milliseconds, rows.itl_upper_ms), (slo.tpot_milliseconds, rows.tpot_upper_ms)):
            if limit is not None:
                mask &= np.ceil(np.round(upper, 6)) <= limit
    return mask


def _served_alone(rows: Candidates) -> BoolArray:
    """Return which candidates the operator can run as one role, shape (n,).

    vLLM's NIXL connector transfers the cache between single pipeline stages only (vllm-project/vllm pull request
    43366), and so does SGLang's as far as it was checked. The router knows a pod by one address, behind which there is
    one data-parallel rank.
    """
    layouts = rows.layouts
    return np.asarray((rows.nodes_per_replica == 1) & (layouts.pipeline_parallel == 1) & (layouts.data_parallel == 1))


def _exchange(engine: str, prefill: Candidates, decode: Candidates, first: IntArray, second: IntArray) -> BoolArray:
    """Return which pairs can exchange the KV cache, shape (len(first), len(second)).

    One tensor-parallel size divides the other, as the handshake of vLLM's NIXL connector requires: a rank reads the
    heads of whole ranks of the other role, or a part of those of one rank. SGLang transfers slices of heads between
    different sizes too, but failed under load (sgl-project/sglang issue 15674), so that its sizes are equal.
    """
    one = prefill.layouts.tensor_parallel[first][:, None]
    other = decode.layouts.tensor_parallel[second][None, :]
    if engine == "SGLang":
        return np.asarray(one == other)
    return np.asarray((one % other == 0) | (other % one == 0))


def _equal_to(rows: Candidates, wanted: ReplicaLayout, among: BoolArray) -> BoolArray:
    """Return which of some candidates have a layout and its replicas, shape (n,)."""
    expected = wanted.model_dump(include=set(ReplicaLayout.model_fields))
    layouts = rows.layouts
    near = among & (rows.replicas == wanted.replicas) & (layouts.tensor_parallel == wanted.tensor_parallel)
    near &= layouts.max_batch_size == wanted.max_batch_size
    result = np.zeros(len(rows), dtype=bool)
    for i in np.flatnonzero(near).tolist():
        result[i] = layout_at(rows, i).model_dump() == expected
    return result


def _undominated(rows: Candidates, mask: BoolArray, extra: tuple[FloatArray, ...]) -> IntArray:
    """Return the candidates of a mask that no candidate with pods of the same size beats in every relevant figure."""
    kept = []
    index = np.flatnonzero(mask)
    for size in np.flatnonzero(np.bincount(rows.gpus_per_node[index])) if index.size else ():
        same = index[rows.gpus_per_node[index] == size]
        figures = (
            rows.joules_per_output_token,
            rows.joules_upper,
            rows.power_watts,
            rows.ttft_upper_ms,
            rows.ttft_ms,
            # As many as pods, which have the same size.
            rows.gpus.astype(np.float64),
            *extra,
        )
        costs = np.column_stack([column[same] for column in figures])
        kept.append(same[pareto(costs, resolution=0.0)])
    return np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)


def _best_of(
    problem: Problem,
    prefill: Candidates,
    decode: Candidates,
    first: IntArray,
    second: IntArray,
    product: str,
    pairing: Pairing,
    *,
    strict: bool,
) -> Pair | None:
    """Return the best pair from two sets of candidates; the arrays inside have shape (len(first), len(second))."""
    spec, tokens = problem.spec, problem.spec.workload.mean_output_tokens

    def total(column: str, share: float = 1.0) -> FloatArray:
        return np.asarray(np.add.outer(getattr(prefill, column)[first] * share, getattr(decode, column)[second]))

    # Figures of a prefill replica are per prompt, and each request has one prompt.
    joules, upper = total("joules_per_output_token", 1 / tokens), total("joules_upper", 1 / tokens)
    watts, gpus = total("power_watts"), total("gpus").astype(np.int64)
    ttft = total("ttft_upper_ms")
    # Decode's end-to-end latency includes decode's part of the TTFT.
    whole = np.asarray(np.add.outer(prefill.ttft_upper_ms[first], decode.end_to_end_upper_ms[second]))
    valid = _placed(problem, prefill, decode, first, second, product)
    if pairing.served:
        valid &= _exchange(spec.engine.type, prefill, decode, first, second)
    if spec.hardware.max_gpus is not None:
        valid &= gpus <= spec.hardware.max_gpus
    if strict:
        if spec.slo.ttft_milliseconds is not None:
            valid &= np.ceil(np.round(ttft, 6)) <= spec.slo.ttft_milliseconds
        if spec.slo.end_to_end_milliseconds is not None:
            valid &= np.ceil(np.round(whole, 6)) <= spec.slo.end_to_end_milliseconds
        if spec.slo.joules_per_output_token is not None:
            valid &= upper <= float(parse_quantity(spec.slo.joules_per_output_token))
        if problem.allowance is not None:
            valid &= watts <= problem.allowance.watts
    if not valid.any():
        return None
    if spec.energy.objective == "MinimizeGPUs":
        valid &= gpus == gpus[valid].min()
    value = watts if spec.energy.objective == "MinimizePower" else joules
    i, j = np.unravel_index(int(np.argmin(np.where(valid, value, np.inf))), valid.shape)
    return Pair(
        int(first[i]),
        int(second[j]),
        float(joules[i, j]),
        float(upper[i, j]),
        float(watts[i, j]),
        int(gpus[i, j]),
        float(prefill.ttft_ms[first[i]] + decode.ttft_ms[second[j]]),
        float(ttft[i, j]),
        float(prefill.ttft_ms[first[i]] + decode.end_to_end_ms[second[j]]),
        float(whole[i, j]),
    )


def _placed(
    problem: Problem, prefill: Candidates, decode: Candidates, first: IntArray, second: IntArray, product: str
) -> BoolArray:
    """Return which pairs have a place for all of their pods at once, shape (len(first), len(second))."""
    free = problem.free_gpus(product)
    sizes = prefill.gpus_per_node[first], decode.gpus_per_node[second]
    pods = (
        prefill.replicas[first] * prefill.nodes_per_replica[first],
        decode.replicas[second] * decode.nodes_per_replica[second],
    )
    placed = np.zeros((first.size, second.size), dtype=bool)
    for one in np.flatnonzero(np.bincount(sizes[0])).tolist():
        rows = np.flatnonzero(sizes[0] == one)
        for other in np.flatnonzero(np.bincount(sizes[1])).tolist():
            columns = np.flatnonzero(sizes[1] == other)
            beside = pods_beside(free, one, other)
            room = np.where(pods[0][rows] < beside.size, beside[np.minimum(pods[0][rows], beside.size - 1)], -1)
            placed[np.ix_(rows, columns)] = pods[1][columns][None, :] <= room[:, None]
    return placed


def breach_of(found: Disaggregated, spec: LLMDeploymentSpec) -> float:
    """Return the chance that the best pair breaks a latency objective; 0 if GPUs are minimised.

    As for a single candidate, the objective that is broken most easily decides. A feasible pair, which meets every
    objective with the whole safety margin, has a chance of at most 10 %.
    """
    if spec.energy.objective == "MinimizeGPUs":
        return 0.0
    chances = (
        float(breach_chance(limit, np.array([predicted]), np.array([upper]))[0])
        for _, limit, predicted, upper in _bounded(spec, found.decode, found.best)
    )
    return max(chances, default=0.0)


def _bounded(spec: LLMDeploymentSpec, decode: Candidates, pair: Pair) -> Iterator[tuple[str, int, float, float]]:
    """Yield the name of each bounded latency, the bound, the predicted latency and the latency with the margin."""
    slo, j = spec.slo, pair.decode
    for name, limit, predicted, upper in (
        ("TTFT", slo.ttft_milliseconds, pair.ttft_ms, pair.ttft_upper_ms),
        ("ITL", slo.itl_milliseconds, decode.itl_ms[j], decode.itl_upper_ms[j]),
        ("TPOT", slo.tpot_milliseconds, decode.tpot_ms[j], decode.tpot_upper_ms[j]),
        ("E2E", slo.end_to_end_milliseconds, pair.end_to_end_ms, pair.end_to_end_upper_ms),
    ):
        if limit is not None:
            yield name, limit, float(predicted), float(upper)


def _broken(problem: Problem, decode: Candidates, pair: Pair) -> Iterator[str]:
    slo = problem.spec.slo
    for name, limit, predicted, upper in _bounded(problem.spec, decode, pair):
        if not (math.isfinite(upper) and describe.up(upper) <= limit):
            yield describe.above(f"{name} {slo.percentile}", predicted, upper, limit)
    if slo.joules_per_output_token is not None:
        ceiling = float(parse_quantity(slo.joules_per_output_token))
        if pair.joules_upper > ceiling:
            yield describe.above_joules(pair.joules_per_output_token, pair.joules_upper, ceiling)
    allowance = problem.allowance
    if allowance is not None and pair.power_watts > allowance.watts:
        yield f"{describe.up(pair.power_watts)} W > {allowance.watts:.0f} W ({allowance.source})"


def _rank(spec: LLMDeploymentSpec, pair: Pair) -> tuple[float, float]:
    if spec.energy.objective == "MinimizeGPUs":
        return float(pair.gpus), pair.joules_per_output_token
    if spec.energy.objective == "MinimizePower":
        return pair.power_watts, pair.gpus
    return pair.joules_per_output_token, pair.gpus
