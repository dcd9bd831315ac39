"""Plans on nodes that a spec excludes: what a node selector, a missing toleration or a list of products costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from energylens.api.llmdeployment import Hardware, Toleration
from energylens.planner.inventory.capacity import BLOCKING_EFFECTS, eligible
from energylens.planner.inventory.nodes import usable_nodes
from energylens.planner.search.problem import Problem, solve
from energylens.planner.types import Change, ClusterSnapshot, Relaxation, Taint

_FIELD = "spec.hardware"


def placement_changes(problem: Problem, snapshot: ClusterSnapshot) -> tuple[Relaxation, ...]:
    """Return the change of the node selector, and of the tolerations, that alone adds nodes on which a plan exists.

    ``spec.hardware.gpuProducts`` is included only if the nodes have none of its products; otherwise it is a rule over
    candidates like any other.

    Args:
        problem: A problem without a feasible candidate.
        snapshot: All nodes of the cluster.
    """
    hardware = problem.spec.hardware
    found: list[Relaxation | None] = []
    if hardware.gpu_products and problem.nodes and not problem.allowed_products:
        listed = f"[{', '.join(hardware.gpu_products)}]"
        found.append(_tried(problem, snapshot, hardware.model_copy(update={"gpu_products": ()}), "gpuProducts", listed))
    if hardware.node_selector:
        labels = ", ".join(f"{key}={value}" for key, value in sorted(hardware.node_selector.items()))
        free = hardware.model_copy(update={"node_selector": {}})
        found.append(_tried(problem, snapshot, free, "nodeSelector", f"{{{labels}}}", "{}"))
    tolerated = f"[{', '.join(map(_words, hardware.tolerations))}]"
    tries = []
    for taints in sorted(set(_untolerated(hardware, snapshot)), key=str):
        more = tuple(
            Toleration(key=t.key, value=t.value or None, operator=_operator(t), effect=t.effect) for t in taints
        )
        wider = hardware.model_copy(update={"tolerations": (*hardware.tolerations, *more)})
        allowed = f"[{', '.join(map(_words, (*hardware.tolerations, *more)))}]"
        tries.append(_tried(problem, snapshot, wider, "tolerations", tolerated, allowed))
    # The fewest tolerations, and among equals the plan of least energy.
    found.append(
        min(
            (one for one in tries if one is not None),
            key=lambda one: (one.allowed.count(","), one.joules_per_output_token),
            default=None,
        )
    )
    return tuple(one for one in found if one is not None)


def _tried(
    problem: Problem, snapshot: ClusterSnapshot, hardware: Hardware, name: str, value: str, allowed: str | None = None
) -> Relaxation | None:
    """Return the change to other hardware, or None if it brings no plan; without ``allowed``, to the plan's product."""
    spec = problem.spec.model_copy(update={"hardware": hardware})
    nodes = usable_nodes(spec, problem.owner, snapshot, problem.gpus)
    if nodes == problem.nodes and name != "gpuProducts":
        return None
    wider = replace(problem, spec=spec, nodes=nodes, within_limits=True, within_power=True)
    if not wider.allowed_products:
        return None
    solution = solve(wider)
    i = solution.chosen
    if i is None:
        return None
    product = solution.rows.products[int(solution.rows.product[i])]
    change = Change(f"{_FIELD}.{name}", value, f"[{product}]" if allowed is None else allowed)
    return Relaxation(change, float(solution.rows.joules_per_output_token[i]))


def _untolerated(hardware: Hardware, snapshot: ClusterSnapshot) -> Iterator[tuple[Taint, ...]]:
    """Yield the blocking taints of each node that only taints exclude."""
    for node in snapshot.nodes:
        if eligible(node, {}, hardware.tolerations) or not eligible(
            replace(node, taints=()), hardware.node_selector, ()
        ):
            continue
        yield tuple(
            taint
            for taint in node.taints
            if taint.effect in BLOCKING_EFFECTS
            and not eligible(replace(node, taints=(taint,)), {}, hardware.tolerations)
        )


def _operator(taint: Taint) -> str:
    return "Equal" if taint.value else "Exists"


def _words(toleration: Toleration) -> str:
    value = f"={toleration.value}" if toleration.value else ""
    effect = f":{toleration.effect}" if toleration.effect else ""
    return f"{toleration.key or '*'}{value}{effect}"
