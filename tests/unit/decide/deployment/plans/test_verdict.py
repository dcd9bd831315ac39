"""What a window of one replica says: latencies at the load that was measured, energy at the one that is planned for."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.decide.observations import NOW, PRODUCT, deployment, measured, model

from energylens.api.llmdeployment import LLMDeployment, PlanStatus, Slo
from energylens.api.quantity import parse_quantity
from energylens.data import load_gpus
from energylens.decide.deployment.loads.load import Followed, FollowedLoad
from energylens.decide.deployment.observed.served import predictor_of
from energylens.decide.deployment.plans.case import Case
from energylens.decide.deployment.plans.inputs import Inputs
from energylens.decide.deployment.plans.verdict import figures, judged, with_share
from energylens.decide.deployment.trials.verification import Verdict
from energylens.measure.types import LatencyQuantiles, WindowMeasurement
from energylens.planner.types import ClusterSnapshot, Feasible, GpuNode

TOKENS = 512
RATE = 4.0


def case_of(asked: LLMDeployment) -> Case:
    nodes = (GpuNode("h100-0", PRODUCT, 8), GpuNode("l40s-0", "NVIDIA-L40S", 8))
    inputs = Inputs(asked, None, ClusterSnapshot(nodes), None, False, None, NOW, False)
    return Case(inputs, model(), predictor_of(asked), load_gpus())


def planned(case: Case, **overrides: int) -> PlanStatus:
    asked = case.inputs.deployment
    planning = asked.spec.planning.model_copy(
        update={"overrides": asked.spec.planning.overrides.model_copy(update=overrides)}
    )
    found = case.plan(asked.model_copy(update={"spec": asked.spec.model_copy(update={"planning": planning})}))
    assert isinstance(found, Feasible)
    return found.plan


def joules(plan: PlanStatus) -> float:
    return float(parse_quantity(plan.predicted.joules_per_output_token))


class Pair:
    """Two replicas of two GPUs that run, and a plan of as many replicas of one."""

    def __init__(self, **spec: Any) -> None:
        workload = {"inputTokens": 512, "outputTokens": TOKENS, "requestsPerSecond": str(RATE)}
        hardware = {"gpuProducts": [PRODUCT]}
        self.case = case_of(deployment(**{"workload": workload, "hardware": hardware, **spec}))
        self.running = planned(self.case, tensor_parallel=2, replicas=2, max_batch_size=64)
        self.new = planned(self.case, tensor_parallel=1, replicas=2, max_batch_size=64)

    def expected(self, plan: PlanStatus, replicas: int, share: float) -> float:
        """Return the predicted energy per token of replicas under a share of the load."""
        found = figures(self.case, with_share(self.case.inputs.deployment, share), plan, replicas)
        assert found is not None
        return joules(found)

    def window(self, energy: float, share: float, itl: float | None = 10.0, **changes: Any) -> WindowMeasurement:
        found = measured(
            joules_per_output_token=energy,
            output_tokens_per_second=share * RATE * TOKENS,
            latency=LatencyQuantiles(50.0, itl),
        )
        return replace(found, **changes)

    def verdict(self, new: float, old: float | None, **changes: Any) -> Verdict:
        """Return the verdict on a replica with a third of the load; ``new`` and ``old`` are measured over predicted."""
        window = self.window(new * self.expected(self.new, 1, 1 / 3), 1 / 3, **changes)
        other = None if old is None else self.window(old * self.expected(self.running, 2, 2 / 3), 2 / 3)
        return judged(self.case, self.running, self.new, window, other)


def test_energy_is_compared_at_the_planned_load_whatever_load_was_measured() -> None:
    pair = Pair()
    promised = joules(pair.new) / joules(pair.running)
    assert promised < 0.9
    # With less load a GPU takes more energy per token, which says nothing against its plan.
    assert pair.expected(pair.new, 1, 1 / 3) > 1.05 * joules(pair.new)
    assert pair.verdict(1.0, 1.0).good is True
    assert pair.verdict(1.3, 1.3).good is True
    assert pair.verdict(1.04 / promised, 1.0).good is True
    worse = pair.verdict(1.07 / promised, 1.0)
    assert (worse.good, worse.reason) == (False, "HigherEnergy")
    assert pair.verdict(1.0, 0.9 * promised).good is False


def test_a_broken_latency_is_bad_whatever_the_energy() -> None:
    found = Pair(slo={"itlMilliseconds": 40}).verdict(0.5, 1.0, itl=41.0)
    assert (found.good, found.reason) == (False, "SLOViolation")
    assert found.text.startswith("ITL P95 41 ms > 40 ms at 1.333 requests/s")


def test_the_load_is_counted_in_requests_of_the_followed_length() -> None:
    pair = Pair(slo={"itlMilliseconds": 40})
    load = FollowedLoad(RATE, outputs=Followed(TOKENS, step=3))
    assert load.outputs is not None
    tokens = round(load.outputs.value)
    assert tokens > 1.9 * TOKENS
    case = replace(pair.case, inputs=replace(pair.case.inputs, load=load))
    window = pair.window(1.0, 1 / 3, itl=41.0, output_tokens_per_second=RATE / 3 * tokens)
    assert judged(case, pair.running, pair.new, window, None).text == "ITL P95 41 ms > 40 ms at 1.333 requests/s"


def test_without_the_figures_there_is_no_verdict() -> None:
    pair = Pair(slo={"itlMilliseconds": 40})
    assert pair.verdict(1.0, None).good is None
    assert "no window of the same time" in pair.verdict(1.0, None).text
    missing = pair.verdict(1.0, 1.0, itl=None)
    assert (missing.good, missing.text) == (None, "ITL was not measured")
    few = pair.window(1.0, 1 / 3, reason="TooFewTokens", joules_per_output_token=None)
    assert judged(pair.case, pair.running, pair.new, few, None).good is None
    wrong = judged(pair.case, pair.running, pair.new, pair.window(1.0, 1 / 3, reason="Implausible"), None)
    assert (wrong.good, wrong.text) == (None, "Implausible: it is Measured")
    late = pair.window(1.0, 2 / 3, window_start=0.0, window_end=600.0)
    assert judged(pair.case, pair.running, pair.new, pair.window(1.0, 1 / 3), late).good is None


def test_more_load_than_a_replica_is_made_for_proves_nothing() -> None:
    pair = Pair(slo={"itlMilliseconds": 40})
    found = judged(pair.case, pair.running, pair.new, pair.window(9.0, 0.7, itl=400.0), None)
    assert found.good is None
    assert "too many to judge (limit 2.66)" in found.text


def test_a_plan_that_promised_no_saving_is_not_held_to_one() -> None:
    pair = Pair()
    pair.running, pair.new = pair.new, pair.running
    found = pair.verdict(1.2, None)
    assert found.good is True
    assert "was not expected to save energy" in found.text


def test_a_plan_that_costs_exactly_as_much_is_not_held_to_a_saving() -> None:
    pair = Pair()
    pair.new = pair.running
    assert pair.verdict(1.0, None).good is True


def test_a_running_plan_that_is_no_longer_possible_is_not_compared() -> None:
    pair = Pair()
    asked = pair.case.inputs.deployment.model_dump(mode="json", by_alias=True, exclude_unset=True)["spec"]
    pair.case = case_of(deployment(**{**asked, "planning": {"overrides": {"tensorParallel": 1}}}))
    window = pair.window(pair.expected(pair.new, 1, 1 / 3), 1 / 3)
    found = judged(pair.case, pair.running, pair.new, window, None)
    assert found.good is True
    assert "; the running plan is no longer possible, so its energy is not compared at 1.333 requests/s" in found.text


def test_a_verdict_has_the_figures_behind_the_decision() -> None:
    found = Pair(slo={"itlMilliseconds": 40}).verdict(1.0, 1.0)
    number = r"[0-9.]+ J"
    measured = rf"{number} per output token at the planned load \(measured {number}\)"
    against = rf"the running plan {number} \(measured {number}\)"
    assert re.fullmatch(rf"ITL P95 10 ms, {measured}, {against} at 1\.333 requests/s", found.text)


@pytest.mark.parametrize("workload", [{"requestsPerSecond": "4"}, {"concurrency": 30}])
def test_a_window_without_a_load_has_no_energy_at_the_planned_load(workload: dict[str, Any]) -> None:
    pair = Pair(workload={"inputTokens": 512, "outputTokens": TOKENS, **workload})
    idle = pair.window(1.0, 1 / 3, output_tokens_per_second=None, mean_running=None)
    found = judged(pair.case, pair.running, pair.new, idle, pair.window(1.0, 2 / 3))
    assert (found.good, found.text) == (None, "the replica's energy at the planned load is not known")
    served = replace(pair.window(pair.expected(pair.new, 1, 1 / 3), 1 / 3), mean_running=10.0)
    unknown = judged(pair.case, pair.running, pair.new, served, replace(idle, joules_per_output_token=1.0))
    assert (unknown.good, unknown.text) == (None, "the running plan's energy at the planned load is not known")


def test_less_than_a_request_per_second_is_a_load() -> None:
    pair = Pair(workload={"inputTokens": 512, "outputTokens": TOKENS, "requestsPerSecond": "300m"})

    def served(plan: PlanStatus, replicas: int, share: float) -> WindowMeasurement:
        window = pair.window(pair.expected(plan, replicas, share), share)
        return replace(window, output_tokens_per_second=0.3 * share * TOKENS)

    new, old = served(pair.new, 1, 1 / 3), served(pair.running, 2, 2 / 3)
    found = judged(pair.case, pair.running, pair.new, new, old)
    assert found.good is True
    assert found.text.endswith(" at 0.1 requests/s")


@pytest.mark.parametrize(("replicas", "limit"), [(1, "5.32"), (2, "2.66"), (3, "1.773"), (9, "1.773")])
def test_a_replica_is_judged_up_to_its_part_of_the_load(replicas: int, limit: str) -> None:
    """Beside two running replicas the canary gets a third of the load, and in its plan the part of one replica."""
    pair = Pair()
    plan = pair.new.model_copy(update={"replicas": replicas})
    found = judged(pair.case, pair.running, plan, pair.window(1.0, 2.0), None)
    assert found.text == f"the replica served 8 requests/s, too many to judge (limit {limit})"


def test_a_part_of_a_load_has_the_unit_of_the_spec() -> None:
    rate = Pair().case.inputs.deployment
    half, tiny = with_share(rate, 0.5).spec.workload, with_share(rate, 1e-6).spec.workload
    assert (half.requests_per_second, half.concurrency) == ("2000m", None)
    assert tiny.requests_per_second == "1m"
    flying = deployment(workload={"inputTokens": 512, "outputTokens": TOKENS, "concurrency": 30})
    third, none = with_share(flying, 1 / 3).spec.workload, with_share(flying, 0.001).spec.workload
    assert (third.requests_per_second, third.concurrency) == (None, 10)
    assert none.concurrency == 1


def test_the_objective_of_energy_is_checked_at_the_planned_load() -> None:
    pair = Pair()
    asked = pair.case.inputs.deployment
    slo = Slo(joules_per_output_token=f"{round(1200 * joules(pair.new))}m")
    pair.case = case_of(asked.model_copy(update={"spec": asked.spec.model_copy(update={"slo": slo})}))
    assert pair.verdict(1.1, 1.5).good is True
    found = pair.verdict(1.3, 1.5)
    assert (found.good, found.reason) == (False, "SLOViolation")
    assert "over spec.slo.joulesPerOutputToken" in found.text


@pytest.mark.parametrize("concurrency", [30, 100])
def test_a_load_in_flight_is_compared_by_what_ran(concurrency: int) -> None:
    workload = {"inputTokens": 512, "outputTokens": TOKENS, "concurrency": concurrency}
    pair = Pair(workload=workload)

    def seen(plan: PlanStatus, replicas: int, share: float, ratio: float) -> WindowMeasurement:
        found = pair.window(ratio * pair.expected(plan, replicas, share), share)
        return replace(found, mean_running=share * concurrency, output_tokens_per_second=None)

    def verdict(ratio: float) -> bool | None:
        other = seen(pair.running, 2, 2 / 3, 1.0)
        return judged(pair.case, pair.running, pair.new, seen(pair.new, 1, 1 / 3, ratio), other).good

    promised = joules(pair.new) / joules(pair.running)
    assert verdict(1.0) is True
    assert verdict(1.1 / promised) is False
