"""Time of the joint plan by the number of members, points and nodes, beside exhaustive search on small cases.

Run it from a checkout: ``.venv/bin/python bench/joint_speed.py``. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from energylens.planner.fleet.joint import (
    FrontierPoint,
    JointMember,
    JointPlan,
    JointProblem,
    JointResult,
    PowerLimit,
    solve_joint,
)
from energylens.planner.fleet.packing import Node

TARGET_SECONDS = 1.0
TARGET = (200, 30, 64)
GROWTH = ((10, 30, 8), (50, 30, 16), (100, 30, 32), (200, 30, 64), (200, 60, 64), (400, 30, 128), (800, 30, 256))
SMALL = ((3, 5, 2), (4, 6, 2), (5, 6, 3), (6, 6, 3))
PRODUCTS = {"H100": 700.0, "H200": 700.0, "L40S": 350.0}


@dataclass(frozen=True)
class Growth:
    members: int
    points: int
    nodes: int
    best_seconds: float
    median_seconds: float
    worst_seconds: float
    feasible: int
    problems: int


@dataclass(frozen=True)
class Compared:
    members: int
    points: int
    nodes: int
    problems: int
    joint_seconds: float
    exhaustive_seconds: float
    equal: bool


def problem(
    seed: int, members: int, points: int, nodes: int, *, tight: float = 0.9, pressure: float = 1.0, rate: bool = True
) -> JointProblem:
    """Return members whose frontiers trade power against GPUs, on nodes of 8 GPUs, with three nested power limits.

    Args:
        seed: Equal seeds give equal problems.
        members: Deployments.
        points: Points of each frontier.
        nodes: Nodes of 8 GPUs, shared out over three products.
        tight: 1 is the least power that the members can draw together, 0 the mean of their points.
        pressure: At 2 the best plan takes all GPUs, at 2.5 they do not suffice.
        rate: Whether loads are arrival rates, so that energy and power are the same.
    """
    rng = random.Random(seed)
    products = sorted(PRODUCTS)
    made = []
    for number in range(members):
        load = rng.uniform(0.2, 1.0) * pressure * 8 * nodes / members
        frontier = []
        for _ in range(points):
            product = rng.choice(products)
            size = rng.choice((1, 2, 4, 8))
            # A layout below its best size needs more GPUs for the same load; more GPUs at a smaller batch draw more.
            gpus = max(1, round(load * rng.uniform(0.6, 2.4)))
            pods = -(-gpus // size)
            watts = round(pods * size * PRODUCTS[product] * rng.uniform(0.25, 0.85))
            energy = watts if rate else round(watts * rng.uniform(0.7, 1.4))
            frontier.append(FrontierPoint(product, size, pods, float(watts), float(energy)))
        made.append(JointMember(f"team-{number % 10}/llm-{number}", tuple(frontier)))
    least = sum(min(p.power_watts for p in m.points) for m in made)
    mean = sum(statistics.mean(p.power_watts for p in m.points) for m in made)
    names = frozenset(m.name for m in made)
    whole = least + (mean - least) * (1 - tight)
    limits = [PowerLimit("cluster", round(whole), names)]
    for team in range(0, 10, 2):
        mine = [m for m in made if m.name.startswith(f"team-{team}/")]
        if mine:
            low = sum(min(p.power_watts for p in m.points) for m in mine)
            high = sum(statistics.mean(p.power_watts for p in m.points) for m in mine)
            limits.append(
                PowerLimit(f"team-{team}", round(low + (high - low) * (1 - tight)), frozenset(m.name for m in mine))
            )
    limits.append(PowerLimit("row of L40S", round(whole * 0.3), names, frozenset({"L40S"})))
    racks = tuple(Node(f"node-{i}", products[i % 3], 8) for i in range(nodes))
    return JointProblem(tuple(made), racks, tuple(limits))


def exhaustive(asked: JointProblem) -> float | None:
    """Return the least energy over every choice, placing pods by trying every node; None when nothing holds."""
    best: float | None = None
    for choice in itertools.product(*(range(len(m.points)) for m in asked.members)):
        points = [m.points[i] for m, i in zip(asked.members, choice, strict=True)]
        energy = sum(p.energy_watts for p in points)
        if best is not None and energy >= best:
            continue
        drawn = {
            limit.name: sum(
                p.power_watts
                for m, p in zip(asked.members, points, strict=True)
                if m.name in limit.members and (limit.products is None or p.product in limit.products)
            )
            for limit in asked.limits
        }
        if any(drawn[limit.name] > limit.watts for limit in asked.limits):
            continue
        pods = [
            (p.gpus_per_pod, p.product, m.nodes)
            for m, p in zip(asked.members, points, strict=True)
            for _ in range(p.pods)
        ]
        pods.sort(key=lambda pod: (-pod[0], pod[1]))
        if _places(pods, [[n.name, n.product, n.gpus] for n in asked.nodes]):
            best = energy
    return best


def _places(pods: list[tuple[int, str, frozenset[str] | None]], nodes: list[list[object]]) -> bool:
    """Return whether every pod finds a node, trying all of them; equal nodes are tried once."""
    if not pods:
        return True
    size, product, allowed = pods[0]
    tried = set()
    for node in nodes:
        name, kind, free = node
        assert isinstance(free, int)
        if kind != product or free < size or (allowed is not None and name not in allowed):
            continue
        same = (free, None if all(a is None for _, _, a in pods) else name)
        if same in tried:
            continue
        tried.add(same)
        node[2] = free - size
        if _places(pods[1:], nodes):
            return True
        node[2] = free
    return False


def timed(work: Callable[[], JointResult]) -> tuple[float, JointResult]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def nth(number: int, members: int, points: int, nodes: int) -> JointProblem:
    """Return one of a series that runs from loose to tight, in watts and in GPUs, with both kinds of load."""
    return problem(
        number,
        members,
        points,
        nodes,
        tight=0.5 + 0.1 * (number % 5),
        pressure=(1.0, 1.6, 2.0)[number % 3],
        rate=number % 2 == 0,
    )


def grow(members: int, points: int, nodes: int, problems: int) -> Growth:
    seconds, feasible = [], 0
    for seed in range(problems):
        asked = nth(seed, members, points, nodes)
        took, result = timed(lambda asked=asked: solve_joint(asked, explain=False))  # type: ignore[misc]
        seconds.append(took)
        feasible += isinstance(result, JointPlan)
    return Growth(
        members, points, nodes, min(seconds), statistics.median(seconds), max(seconds), feasible, problems
    )  # fmt: skip


def compare(members: int, points: int, nodes: int, problems: int) -> Compared:
    ours = theirs = 0.0
    equal = True
    for seed in range(problems):
        asked = nth(seed, members, points, nodes)
        took, result = timed(lambda asked=asked: solve_joint(asked, explain=False))  # type: ignore[misc]
        ours += took
        started = time.perf_counter()
        best = exhaustive(asked)
        theirs += time.perf_counter() - started
        found = result.energy_watts if isinstance(result, JointPlan) else None
        equal &= (found is None) == (best is None) and (best is None or abs((found or 0.0) - best) < 1e-3)
    return Compared(members, points, nodes, problems, ours / problems, theirs / problems, equal)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=10, help="random problems of each size (default: 10)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    solve_joint(problem(0, 3, 3, 2))  # imports SciPy
    small = [compare(*size, options.problems) for size in SMALL]
    grown = [grow(*size, options.problems) for size in GROWTH]
    target = next(row for row in grown if (row.members, row.points, row.nodes) == TARGET)
    met = target.median_seconds <= TARGET_SECONDS and all(row.equal for row in small)
    if options.json:
        print(json.dumps({"small": [asdict(r) for r in small], "growth": [asdict(r) for r in grown], "met": met}))
        return 0 if met else 1
    print(f"{platform.platform()}, Python {platform.python_version()}")
    print("members points nodes  joint (mean)  exhaustive (mean)   ratio  equal answers")
    for row in small:
        print(
            f"{row.members:7} {row.points:6} {row.nodes:5}  {1e3 * row.joint_seconds:9.1f} ms  "
            f"{1e3 * row.exhaustive_seconds:14.1f} ms {row.exhaustive_seconds / row.joint_seconds:7.1f}  "
            f"{'yes' if row.equal else 'NO'}"
        )
    print("members points nodes    best  median   worst  feasible")
    for r in grown:
        print(
            f"{r.members:7} {r.points:6} {r.nodes:5} {r.best_seconds:6.2f}s {r.median_seconds:6.2f}s "
            f"{r.worst_seconds:6.2f}s  {r.feasible} of {r.problems}"
        )
    print(f"target: {TARGET[0]} members x {TARGET[1]} points on {TARGET[2]} nodes in {TARGET_SECONDS:.0f} s (median)")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
