"""Whether pods of several sizes fit on nodes, as rows of a mixed-integer program; exact, not a bound.

Nodes that the same pods may use form a pool. If each pod size divides the next larger one (1, 2, 4, 8), pods fit on a
pool exactly when, for each size, there are enough slots of that size for the pods of that size and larger: a pod takes
the same number of slots on any node. For other sizes (3 beside 2) the nodes are modelled as arc flows (Valério de
Carvalho 1999, "Exact solution of bin-packing problems using column generation and branch-and-bound"): a path from 0
GPUs upwards, one arc for each pod.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from itertools import pairwise

from energylens.planner.fleet.milp import INFINITY, Program
from energylens.records import dataclass


@dataclass(frozen=True)
class Node:
    """GPUs of one node that the members may use."""

    name: str
    product: str
    gpus: int


@dataclass(frozen=True)
class Hole:
    """Missing room for pods: GPUs that would have to be free together on one node."""

    product: str
    gpus: int
    """GPUs that are missing on one node."""
    count: int = 1
    """Number of such nodes."""


@dataclass(frozen=True)
class Demand:
    """Pods of one size that the variables of a program request."""

    product: str
    nodes: frozenset[str] | None
    """Nodes that the pods may use; None for all."""
    gpus_per_pod: int
    pods: dict[int, float] = field(default_factory=dict)
    """Pods per unit of a variable."""


def add_packing(
    program: Program, demands: Sequence[Demand], nodes: Iterable[Node], *, elastic: bool = False
) -> list[tuple[int, Hole]]:
    """Add the rows that give every requested pod a place on a node.

    Args:
        program: The program that has the variables of the demands.
        demands: Pods by size and allowed nodes.
        nodes: The available nodes.
        elastic: Whether pods may stay without a node, at the price of their GPUs.

    Returns:
        With ``elastic``, the columns that count the pods without a node, each with the pod size.
    """
    pools = _pools(demands, nodes)
    holes: list[tuple[int, Hole]] = []
    placed: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, demand in enumerate(demands):
        row = {column: -pods for column, pods in demand.pods.items()}
        for position, pool in enumerate(pools):
            if number in pool.demands and demand.gpus_per_pod <= max(pool.sizes):
                (column,) = program.add_variables([0.0])
                row[column] = 1.0
                placed[position][demand.gpus_per_pod].append(column)
        if elastic:
            (column,) = program.add_variables([float(demand.gpus_per_pod)])
            row[column] = 1.0
            holes.append((column, Hole(demand.product, demand.gpus_per_pod)))
        program.add_row(row, 0.0, 0.0)
    for position, pool in enumerate(pools):
        wanted = placed[position]
        if _divisible(sorted(wanted)):
            _add_slots(program, wanted, pool.sizes)
        else:
            _add_flows(program, wanted, pool.sizes)
    return holes


@dataclass(frozen=True)
class _Pool:
    demands: frozenset[int]
    """Indices of the demands whose pods may use the pool's nodes."""
    sizes: Counter[int]
    """Number of nodes by number of free GPUs."""


def _pools(demands: Sequence[Demand], nodes: Iterable[Node]) -> list[_Pool]:
    sizes: dict[frozenset[int], Counter[int]] = defaultdict(Counter)
    for node in nodes:
        users = frozenset(
            number
            for number, demand in enumerate(demands)
            if demand.product == node.product and (demand.nodes is None or node.name in demand.nodes)
        )
        if users and node.gpus > 0:
            sizes[users][node.gpus] += 1
    return [_Pool(users, counted) for users, counted in sizes.items()]


def _divisible(sizes: Sequence[int]) -> bool:
    return all(larger % smaller == 0 for smaller, larger in pairwise(sizes))


def _add_slots(program: Program, placed: Mapping[int, Sequence[int]], sizes: Mapping[int, int]) -> None:
    for size in placed:
        slots = sum(count * (gpus // size) for gpus, count in sizes.items())
        row = {column: larger / size for larger, columns in placed.items() if larger >= size for column in columns}
        program.add_row(row, -INFINITY, float(slots))


def _add_flows(program: Program, placed: Mapping[int, Sequence[int]], sizes: Mapping[int, int]) -> None:
    """Add one flow for each number of free GPUs; a path packs its pods from large to small."""
    rows: dict[int, dict[int, float]] = {size: dict.fromkeys(columns, -1.0) for size, columns in placed.items()}
    for gpus, count in sizes.items():
        balance: dict[int, dict[int, float]] = defaultdict(dict)
        reached = {0}
        for size in sorted(placed, reverse=True):
            # In ascending order, so that an arc may follow another arc of its size.
            starts = sorted(reached)
            while starts:
                start = starts.pop(0)
                end = start + size
                if end > gpus:
                    continue
                (arc,) = program.add_variables([0.0], upper=float(count))
                rows[size][arc] = 1.0
                balance[start][arc] = balance[start].get(arc, 0.0) + 1.0
                balance[end][arc] = -1.0
                if end not in reached:
                    reached.add(end)
                    starts = sorted({*starts, end})
        for place, row in balance.items():
            program.add_row(row, -INFINITY, float(count) if place == 0 else 0.0)
    for row in rows.values():
        program.add_row(row, 0.0, 0.0)
