"""Prefill and decode apart: the best pair against plain loops over all pairs and all placements of their pods."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.planner.latency import end_to_end
from tests.unit.predictor.models import layouts

from energylens.api.llmdeployment import Alternative, LLMDeployment
from energylens.api.quantity import parse_quantity
from energylens.planner import plan
from energylens.planner.explain.disaggregation import NOT_SERVED
from energylens.planner.inventory.capacity import pods_beside
from energylens.planner.types import ClusterSnapshot, Feasible, Infeasible, PlanningResult, PowerAllowance
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.rules import unsupported_reasons
from energylens.predictor.types import GpuSpec, Workload

H100, H200 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200"


@dataclass(frozen=True)
class Setup:
    models: dict[str, ModelSpec]
    gpus: dict[str, GpuSpec]
    predictor: Any
    make_deployment: Callable[..., LLMDeployment]

    def plan(self, model: str, snapshot: ClusterSnapshot, allowance: Any = None, **parts: Any) -> PlanningResult:
        planning = {"disaggregation": "Compare"} | parts.pop("planning", {})
        asked = self.make_deployment(**parts, planning=planning)
        return plan(asked, self.models[model], snapshot, self.gpus, self.predictor, allowance=allowance)


@pytest.fixture(scope="module")
def setup(
    models: dict[str, ModelSpec],
    gpus: dict[str, GpuSpec],
    predictor: Any,
    make_deployment: Callable[..., LLMDeployment],
) -> Setup:
    return Setup(models, gpus, predictor, make_deployment)


def apart(result: PlanningResult) -> Alternative:
    """Return the alternative of separate roles."""
    assert isinstance(result, Feasible), result
    (found,) = [a for a in result.plan.alternatives if a.prefill is not None]
    return found


# --- placing pods of two sizes ---------------------------------------------------------------------------------------


def placements(free: list[int], pod: int, other: int) -> dict[int, int]:
    """Return for every number of pods of one size the most of the other size that fit beside them."""
    found: dict[int, int] = {}
    for counts in itertools.product(*(range(gpus // pod + 1) for gpus in free)):
        beside = sum((gpus - pod * count) // other for gpus, count in zip(free, counts, strict=True))
        found[sum(counts)] = max(found.get(sum(counts), 0), beside)
    return found


@given(
    free=st.lists(st.integers(0, 8), max_size=5),
    pod=st.integers(1, 8),
    other=st.integers(1, 8),
)
def test_pods_of_two_sizes_are_placed_as_well_as_can_be(free: list[int], pod: int, other: int) -> None:
    expected = placements(free, pod, other)
    found = pods_beside(free, pod, other)
    assert found.tolist() == [expected[count] for count in range(len(expected))]


# --- the best pair, found once more by plain loops -------------------------------------------------------------------


@dataclass(frozen=True)
class One:
    """A candidate of one role."""

    joules: float
    watts: float
    upper_joules: float
    ttft: float
    itl: float
    tpot: float
    whole: float
    gpus: int
    pod: int
    pods: int


def of_role(setup: Setup, model: ModelSpec, product: str, sizes: list[int], spec: Any, role: str) -> Iterator[One]:
    gpu, rate = setup.gpus[product], float(parse_quantity(spec.workload.requests_per_second))
    outputs = 1 if role == "prefill" else spec.workload.output_tokens
    shape = Workload(spec.workload.input_tokens, outputs)
    caps = [math.nan] if spec.energy.power_cap.mode == "Never" else [math.nan, 200.0, 300.0, 400.0, 500.0, 600.0]
    batch, largest = spec.planning.overrides.max_batch_size, max(sizes)
    for tp, pp in itertools.product(range(1, largest + 1), range(1, 9)):
        if tp * pp > sum(sizes):
            continue
        spans = {
            next((n for n in range(1, len(sizes) + 1) if pp % n == 0 and tp * pp // n <= size), None) for size in sizes
        }
        for nodes, cap in itertools.product(sorted(span for span in spans if span), caps):
            layout = layouts((tp, pp, 1, 1), batch=batch, cap=cap)
            if unsupported_reasons(model, layout)[0]:
                continue
            if not setup.predictor.memory(model, gpu, layout, shape).fits[0]:
                continue
            seen = gpu if nodes == 1 else type(gpu)(**{**gpu.__dict__, "max_gpus_per_node": tp * pp // nodes})
            for replicas in range(1, sum(size // (tp * pp // nodes) for size in sizes) // nodes + 1):
                p = setup.predictor.at_rate(model, seen, layout, shape, np.array([rate / replicas]), role)
                if not p.sustainable[0]:
                    continue
                yield One(
                    float(p.joules_per_output_token[0]),
                    float(p.power_watts[0]) * replicas,
                    float(p.energy.high[0]),
                    float(p.ttft_p95_ms[0] * p.ttft.high[0] / p.ttft_p50_ms[0]),
                    float(p.itl_p95_ms[0] * p.itl.high[0] / p.itl_p50_ms[0]),
                    float(p.tpot_p95_ms[0] * p.tpot.high[0] / p.tpot_ms[0]),
                    end_to_end(p),
                    tp * pp * replicas,
                    tp * pp // nodes,
                    replicas * nodes,
                )


def brute_force(
    setup: Setup, model: ModelSpec, product: str, sizes: list[int], free: list[int], spec: Any, watts: float
) -> float:
    """Return the lowest energy of a pair, infinity when none is feasible."""
    lowest, slo = math.inf, spec.slo
    beside: dict[tuple[int, int], dict[int, int]] = {}
    decodes = list(of_role(setup, model, product, sizes, spec, "decode"))
    for p in of_role(setup, model, product, sizes, spec, "prefill"):
        for d in decodes:
            joules = p.joules / spec.workload.output_tokens + d.joules
            if joules >= lowest or p.gpus + d.gpus > (spec.hardware.max_gpus or math.inf):
                continue
            if p.watts + d.watts > watts:
                continue
            upper = p.upper_joules / spec.workload.output_tokens + d.upper_joules
            if slo.joules_per_output_token and upper > float(parse_quantity(slo.joules_per_output_token)):
                continue
            if math.ceil(round(p.ttft + d.ttft, 6)) > slo.ttft_milliseconds:
                continue
            if math.ceil(round(d.itl, 6)) > slo.itl_milliseconds:
                continue
            if math.ceil(round(d.tpot, 6)) > (slo.tpot_milliseconds or math.inf):
                continue
            if math.ceil(round(p.ttft + d.whole, 6)) > (slo.end_to_end_milliseconds or math.inf):
                continue
            if (p.pod, d.pod) not in beside:
                beside[p.pod, d.pod] = placements(free, p.pod, d.pod)
            if d.pods <= beside[p.pod, d.pod].get(p.pods, -1):
                lowest = joules
    return lowest


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_pair_is_the_best_of_all(
    data: st.DataObject, setup: Setup, make_snapshot: Callable[..., ClusterSnapshot]
) -> None:
    model = data.draw(st.sampled_from(["8b", "70b"]))
    product = data.draw(st.sampled_from([H100, H200]))
    pools = data.draw(st.sampled_from([[(4, 1)], [(2, 2)], [(4, 1), (2, 1)], [(3, 2)]]))
    used = data.draw(st.integers(0, 1))
    slo: dict[str, Any] = {
        "ttftMilliseconds": data.draw(st.sampled_from([40, 100, 1000, 5000])),
        "itlMilliseconds": data.draw(st.sampled_from([12, 25, 60, 200])),
    }
    if data.draw(st.booleans()):
        slo["tpotMilliseconds"] = data.draw(st.sampled_from([14, 25, 60]))
    if data.draw(st.booleans()):
        slo["endToEndMilliseconds"] = data.draw(st.sampled_from([1500, 3000, 6000]))
    if data.draw(st.integers(0, 3)) == 0:
        slo["joulesPerOutputToken"] = f"{data.draw(st.sampled_from([1500, 4000, 12000]))}m"
    parts: dict[str, Any] = {
        "slo": slo,
        "workload": {
            "inputTokens": 600,
            "outputTokens": 200,
            "requestsPerSecond": f"{data.draw(st.sampled_from([200, 700, 1500, 4000]))}m",
        },
        "planning": {"overrides": {"maxBatchSize": data.draw(st.sampled_from([8, 64]))}},
        "energy": {"powerCap": {"mode": data.draw(st.sampled_from(["Never", "Plan"]))}},
    }
    if data.draw(st.booleans()):
        parts["hardware"] = {"maxGPUs": data.draw(st.integers(2, 6))}
    watts = data.draw(st.sampled_from([math.inf, math.inf, 700.0, 450.0]))
    allowance = None if watts == math.inf else PowerAllowance(watts, "EnergyBudget team-a/cap")

    snapshot = make_snapshot(*((product, size, count) for size, count in pools), used=used)
    sizes = [node.allocatable for node in snapshot.nodes]
    result = setup.plan(model, snapshot, allowance, **{k: dict(v) for k, v in parts.items()})
    spec = setup.make_deployment(**parts).spec
    expected = brute_force(setup, setup.models[model], product, sizes, [size - used for size in sizes], spec, watts)

    if isinstance(result, Infeasible):
        assert (NOT_SERVED in result.message) is (expected < math.inf)
        return
    found = [a for a in result.plan.alternatives if a.prefill is not None]
    held = [a for a in found if " > " not in a.reason]
    assert bool(held) is (expected < math.inf)
    for pair in held:
        assert float(parse_quantity(pair.joules_per_output_token)) == pytest.approx(expected, abs=0.0006)


# --- what is said of it ----------------------------------------------------------------------------------------------


def test_never_shows_no_pair(setup: Setup, make_snapshot: Callable[..., ClusterSnapshot]) -> None:
    result = setup.plan("8b", make_snapshot((H100, 4, 1)), planning={"disaggregation": "Never"})
    assert isinstance(result, Feasible)
    assert all(a.prefill is None for a in result.plan.alternatives)
    assert all(row["prefill"] is None for row in result.table)


def test_the_pair_is_shown_with_both_roles_and_why_it_is_not_followed(
    setup: Setup, make_snapshot: Callable[..., ClusterSnapshot]
) -> None:
    result = setup.plan("8b", make_snapshot((H100, 8, 1)))
    found = apart(result)
    assert found.prefill is not None
    replicas = found.prefill.replicas * found.prefill.tensor_parallel * found.prefill.pipeline_parallel
    assert found.gpus == replicas + found.replicas * found.tensor_parallel * found.pipeline_parallel
    assert ": uses " in found.reason
    assert found.reason.startswith(f"prompts on {found.prefill.replicas} x TP1, max batch ")
    assert isinstance(result, Feasible)
    assert result.plan.replicas * result.plan.tensor_parallel * result.plan.pipeline_parallel == result.plan.gpus
    (row,) = [row for row in result.table if row["prefill"]]
    assert row["reason"] == found.reason
    assert row["prefill"] == f"{found.prefill.replicas} x TP1, max batch {found.prefill.max_batch_size}"
    assert [row["chosen"] for row in result.table].count(True) == 1
    joules = [parse_quantity(str(row["joulesPerOutputToken"])) for row in result.table]
    assert joules == sorted(joules)


def test_the_table_has_the_best_pair_of_every_product(
    setup: Setup, make_snapshot: Callable[..., ClusterSnapshot]
) -> None:
    result = setup.plan("70b", make_snapshot((H100, 8, 1), (H200, 8, 1)), slo={"itlMilliseconds": 60})
    assert isinstance(result, Feasible)
    rows = [row for row in result.table if row["prefill"]]
    assert {row["gpuProduct"] for row in rows} == {H100, H200}
    shown = apart(result)
    assert min(parse_quantity(str(row["joulesPerOutputToken"])) for row in rows) == parse_quantity(
        shown.joules_per_output_token
    )


def test_a_pair_that_would_be_better_is_not_followed_for_want_of_a_router(
    setup: Setup, make_snapshot: Callable[..., ClusterSnapshot]
) -> None:
    """A TTFT that only decode replicas with prompts out of the way hold on few GPUs."""
    long = {"inputTokens": 20_000, "outputTokens": 100, "requestsPerSecond": "1"}
    for limit in range(60, 800, 20):
        result = setup.plan("8b", make_snapshot((H100, 8, 1)), workload=long, slo={"ttftMilliseconds": limit})
        if isinstance(result, Feasible) and apart(result).reason.endswith(NOT_SERVED):
            return
    pytest.fail("no limit made the pair the better plan")


def test_a_pair_that_breaks_an_objective_says_which(
    setup: Setup, make_snapshot: Callable[..., ClusterSnapshot]
) -> None:
    result = setup.plan("8b", make_snapshot((H100, 1, 2)), slo={"ttftMilliseconds": 19, "percentile": "P50"})
    if isinstance(result, Feasible):
        assert ": TTFT P50 " in apart(result).reason


def test_at_most_five_alternatives_with_the_pair_among_them(
    setup: Setup, make_snapshot: Callable[..., ClusterSnapshot]
) -> None:
    snapshot = make_snapshot((H100, 8, 1), (H200, 8, 1), ("NVIDIA-L40S", 4, 2))
    result = setup.plan("70b", snapshot, slo={"itlMilliseconds": 20, "ttftMilliseconds": 300})
    assert isinstance(result, Feasible)
    assert len(result.plan.alternatives) <= 5
    assert apart(result)


@settings(max_examples=15, deadline=None)
@given(limit=st.integers(60, 900), tighter=st.integers(20, 99), rate=st.integers(100, 8000))
def test_a_tighter_ttft_never_makes_the_pair_cheaper(
    limit: int, tighter: int, rate: int, setup: Setup, make_snapshot: Callable[..., ClusterSnapshot]
) -> None:
    def best(ttft: int) -> float:
        load = {"inputTokens": 600, "outputTokens": 200, "requestsPerSecond": f"{rate}m"}
        result = setup.plan("8b", make_snapshot((H100, 4, 1)), workload=load, slo={"ttftMilliseconds": ttft})
        found = [a for a in result.plan.alternatives if a.prefill] if isinstance(result, Feasible) else []
        held = [a for a in found if " > " not in a.reason]
        return float(parse_quantity(held[0].joules_per_output_token)) if held else math.inf

    assert best(max(1, limit * tighter // 100)) >= best(limit)
