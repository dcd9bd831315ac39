"""How much of a large cluster can affect one plan, so that planning and its inputs do not grow with the cluster.

A GPU with a running engine never draws less than an idle one. Once a plan that draws P watts is known, every candidate
with more than P / (idle power of a GPU) GPUs draws more and, at a given arrival rate, uses more energy per token: it
need not be evaluated. Plans are compared with the risk of their predictions, which is bounded, so `OUT_OF_REACH` times
P is used, and more if the plan may break a latency objective. Bounds are tried in a few steps, the lowest first; a
bound is kept only if the plan found within it proves the bound. If only power is missing, the same floor proves that
more GPUs do not help. If no plan is found for another reason, the whole cluster is evaluated.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from operator import attrgetter

import numpy as np

from energylens.api.llmdeployment import LLMDeploymentSpec, Overrides, PlanStatus, PowerCap
from energylens.planner.search.breach import breach_percent
from energylens.planner.search.constraints import feasible
from energylens.planner.search.objective import best
from energylens.planner.search.problem import Problem, Solution, most_powered, most_replicas, solve
from energylens.planner.search.ranking import OUT_OF_REACH, breach_factor
from energylens.planner.search.space import enumerate_space
from energylens.planner.types import GpuNode
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec, IntArray

STEPS = (16, 64, 256, 1024)
"""Bounds to try, in GPUs of one product; the lowest suffices for most plans."""
SMALL = 64
"""Clusters with at most this many GPUs of each product are evaluated whole, so that explanations cover everything."""
_KEPT_DIGESTS = 4096
_product_and_size = attrgetter("product", "allocatable")


def solve_within(problem: Problem) -> tuple[Solution, int | None]:
    """Return the exact optimum, and the GPUs of a product beyond which no candidate was evaluated; None if all were.

    If no plan fits the power, the bound also contains the candidates that an explanation needs: the candidate of least
    power, and every candidate that a change of another limit would admit.
    """
    is_bounded = _is_bounded(problem.spec, problem.corrections is not None)
    may_lack_power = most_powered(problem, problem.floor_watts) is not None
    for most in _steps(problem.nodes) if is_bounded or may_lack_power else ():
        solution = solve(problem, most)
        if _is_answer(solution, problem, most, is_bounded):
            return solution, most
        nothing_fits = solution.chosen is None
        # Its candidates would lie beside those of the next search.
        del solution
        if not (nothing_fits or is_bounded):
            break
    return solve(problem), None


def _is_answer(solution: Solution, problem: Problem, most: int, is_bounded: bool) -> bool:
    """Return whether no candidate beyond a bound could change the answer."""
    i = solution.chosen
    if i is None:
        return _lacks_power(solution, problem, most)
    rows = solution.rows
    watts, breach = round(float(rows.power_watts[i])), breach_percent(rows, i, problem.spec)
    return is_bounded and _holds(most, problem.spec, int(rows.gpus[i]), watts, breach, problem.floor_watts)


def reach_of(
    plan: PlanStatus,
    spec: LLMDeploymentSpec,
    nodes: Collection[GpuNode],
    gpus: Mapping[str, GpuSpec],
    *,
    corrected: bool,
) -> int | None:
    """Return the bound with which :func:`solve_within` would find this plan; None if no candidate is left out.

    Args:
        plan: The current plan.
        spec: The deployment's spec.
        nodes: Nodes of known products that the spec may use.
        gpus: Known GPU products.
        corrected: Whether factors learned from measurement affect the plan.
    """
    floor = min((gpus[product].idle_watts for product in {node.product for node in nodes}), default=0.0)
    return next(
        (
            most
            for most in bounds(spec, nodes, corrected=corrected)
            if most is None
            or _holds(most, spec, plan.gpus, plan.predicted.power_watts, plan.predicted.breach_percent, floor)
        ),
        None,
    )


def bounds(spec: LLMDeploymentSpec, nodes: Collection[GpuNode], *, corrected: bool) -> Iterator[int | None]:
    """Yield the bounds within which a plan is searched, the lowest first, and finally None for no bound."""
    if _is_bounded(spec, corrected):
        yield from _steps(nodes)
    yield None


def is_tried(most: int | None, nodes: Iterable[GpuNode]) -> bool:
    """Return whether a plan on these nodes may be searched within a bound, without evaluating the whole cluster."""
    return most in _steps(nodes)


def _steps(nodes: Iterable[GpuNode]) -> tuple[int, ...]:
    """Return the bounds that leave candidates out, the lowest first; none in a small cluster."""
    largest = max(_totals(nodes).values(), default=0)
    return tuple(most for most in STEPS if most < largest) if largest > SMALL else ()


def _lacks_power(solution: Solution, problem: Problem, most: int) -> bool:
    """Return whether only the available power excludes every candidate, within a bound and beyond it."""
    floor = problem.floor_watts
    powered = most_powered(problem, floor)
    power = [constraint for constraint in solution.constraints if constraint.kind == "Power"]
    mask = feasible(solution.constraints, len(solution.rows), without=power)
    if powered is None or powered > most or not mask.any():
        return False
    # No candidate beyond the bound draws less than the one that the message names.
    return (most + 1) * floor > float(solution.rows.power_watts[mask].min())


def power_restricts(solution: Solution, spec: LLMDeploymentSpec) -> bool:
    """Return whether another candidate would be chosen without the power limit of budgets."""
    power = [constraint for constraint in solution.constraints if constraint.kind == "Power"]
    if not power:
        return False
    mask = feasible(solution.constraints, len(solution.rows), without=power)
    return best(solution.rows, mask, spec.energy.objective) != solution.chosen


def inventory_within(
    spec: LLMDeploymentSpec, model: ModelSpec, nodes: Iterable[GpuNode], gpus: Mapping[str, GpuSpec], most: int | None
) -> list[list[object]]:
    """Return the properties of nodes that decide a plan of at most ``most`` GPUs per product, as plain sorted values.

    For a product with more GPUs they are a digest of the space, which most added or removed nodes leave unchanged.
    """
    sizes: dict[str, dict[int, int]] = {}
    for (product, size), count in _sizes(nodes).items():
        if size > 0:
            sizes.setdefault(product, {})[size] = count
    found: list[list[object]] = []
    for product, counts in sorted(sizes.items()):
        if most is None or product not in gpus or sum(size * count for size, count in counts.items()) <= most:
            found += [[product, size, count] for size, count in sorted(counts.items())]
            continue
        nodes_of_sizes = tuple(sorted(counts.items()))
        last = most_replicas(spec.workload.in_flight, spec.planning)
        overrides, cap = spec.planning.overrides, spec.energy.power_cap
        digest = _space_digest(model, gpus[product], nodes_of_sizes, overrides, cap, last, most)
        found.append([product, most, digest])
    return found


def seen_within(nodes: Collection[GpuNode], most: int | None) -> tuple[object, ...]:
    """Return the properties of nodes that plans of at most ``most`` GPUs per product depend on, without node selectors.

    The result is the node sizes by product, taints and access to the GPUs, with the number of nodes of each, capped at
    the most that such a plan can use. Equal results mean equal :func:`inventory_within` under the same bound, and an
    equal bound.
    """
    counts = Counter((node.product, node.allocatable, node.taints, node.access) for node in nodes)
    return _steps(nodes), frozenset(
        (kind, count if most is None else min(count, most)) for kind, count in counts.items()
    )


def places_within(free: Iterable[int], most: int | None) -> dict[int, int]:
    """Return how many pods of each size can be placed, capped at what candidates of at most ``most`` GPUs need.

    Two sets of free GPUs with equal results can place the same candidates.

    Args:
        free: Available GPUs on each node.
        most: Most GPUs of a candidate; None for any number.
    """
    sizes, counts = np.unique(np.asarray(list(free), dtype=np.int64), return_counts=True)
    pods: IntArray = np.arange(1, int(sizes.max(initial=0)) + 1)
    places = (counts[None, :] * (sizes[None, :] // pods[:, None])).sum(axis=1)
    if most is not None:
        places = np.minimum(places, most // pods)
    return dict(zip(pods.tolist(), places.tolist(), strict=True))


def _is_bounded(spec: LLMDeploymentSpec, corrected: bool) -> bool:
    """Return whether a bound can be proved: with learned factors or a load by concurrency, more GPUs may cost less."""
    if corrected or spec.planning.overrides.replicas is not None or spec.planning.disaggregation != "Never":
        return False
    return spec.workload.in_flight is None or spec.energy.objective == "MinimizeGPUs"


def _holds(most: int, spec: LLMDeploymentSpec, gpus: int, watts: int, breach: int | None, floor_watts: float) -> bool:
    if spec.energy.objective == "MinimizeGPUs":
        return gpus <= most
    # A plan's power is rounded, and other plans are compared including its risk.
    beyond = OUT_OF_REACH * float(breach_factor((breach or 0) / 100.0))
    return (most + 1) * floor_watts > beyond * (watts + 1)


def _totals(nodes: Iterable[GpuNode]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for (product, size), count in _sizes(nodes).items():
        totals[product] = totals.get(product, 0) + size * count
    return totals


def _sizes(nodes: Iterable[GpuNode]) -> Counter[tuple[str, int]]:
    """Return how many nodes there are of each product and size."""
    # Every reconcile counts up to thousands of nodes, so this avoids a Python loop.
    return Counter(map(_product_and_size, nodes))


@lru_cache(maxsize=_KEPT_DIGESTS)
def _space_digest(
    model: ModelSpec,
    gpu: GpuSpec,
    sizes: tuple[tuple[int, int], ...],
    overrides: Overrides,
    cap: PowerCap,
    max_replicas: int | None,
    most: int,
) -> str:
    """Return a digest of the candidates of one product.

    ``sizes`` has the GPUs of a node and the number of such nodes.
    """
    node_sizes = [size for size, count in sizes for _ in range(count)]
    space = enumerate_space(model, gpu, node_sizes, overrides, cap, max_replicas=max_replicas, most_gpus=most)
    layouts = space.layouts
    columns = (
        layouts.tensor_parallel,
        layouts.pipeline_parallel,
        layouts.expert_parallel,
        layouts.data_parallel,
        layouts.max_batch_size,
        layouts.power_cap_watts,
        space.nodes_per_replica,
        space.first,
        space.last,
    )
    digest = hashlib.sha256()
    for column in columns:
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()[:16]
