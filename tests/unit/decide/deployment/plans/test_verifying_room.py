"""What one replica of a new plan needs beside the running pods, and the share of the load that it would get."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
from tests.unit.decide.deployment.plans.test_scheduled import at
from tests.unit.decide.deployment.plans.test_verdict import case_of, planned
from tests.unit.decide.deployment.plans.test_verifying import began, beside, case, choice, pair
from tests.unit.decide.observations import PRODUCT, deployment

from energylens.api.llmdeployment import PlanStatus, PredictedFigures
from energylens.decide.deployment.plans.case import Case
from energylens.decide.deployment.plans.verdict import figures, with_share
from energylens.decide.deployment.plans.verifying import _inputs, _obstacle, _too_much_for_one, verified
from energylens.decide.deployment.trials.verification import SeenReplica
from energylens.decide.reasons import Reason
from energylens.planner.search.identity import identified
from energylens.planner.types import ClusterSnapshot, GpuAllocation, GpuNode


def loaded(rate: str, **slo: int) -> Case:
    load = {"inputTokens": 512, "outputTokens": 512, "requestsPerSecond": rate}
    return case_of(deployment(workload=load, hardware={"gpuProducts": [PRODUCT]}, slo=slo))


@functools.cache
def eight() -> PlanStatus:
    """Return a plan of eight replicas for 40 requests per second."""
    return planned(loaded("40"), tensor_parallel=1, replicas=8, max_batch_size=64)


def running(replicas: int) -> PlanStatus:
    return eight().model_copy(update={"replicas": replicas})


def with_part(part: float) -> PredictedFigures:
    """Return the figures of one replica with a part of the load."""
    found = figures(loaded("40"), with_share(loaded("40").inputs.deployment, part), eight(), 1)
    assert found is not None
    return found.predicted


def test_a_replica_that_cannot_sustain_its_share_of_the_load_is_not_measured() -> None:
    share = "the Service gives one of 3 replicas 1/3 of the load, but the plan is made for 1/8; it sustains "
    most = with_part(1 / 3).output_tokens_per_second
    assert most < 40 * 512 / 3
    assert _too_much_for_one(loaded("40"), running(2), eight()) == f"{share}{most} of {40 * 512 / 3:.0f} tokens/s"
    # Figures are rounded: a replica that sustains as many tokens as its share has is enough.
    assert _too_much_for_one(loaded("40"), running(6), eight()) == ""


@pytest.mark.parametrize(
    ("field", "name", "figure"),
    [
        ("ttftMilliseconds", "TTFT", "ttft_milliseconds"),
        ("itlMilliseconds", "ITL", "itl_milliseconds"),
        ("tpotMilliseconds", "TPOT", "tpot_milliseconds"),
        ("endToEndMilliseconds", "E2E", "end_to_end_milliseconds"),
    ],
)
def test_a_replica_that_would_break_an_objective_with_its_share_is_not_measured(
    field: str, name: str, figure: str
) -> None:
    value = getattr(with_part(1 / 4), figure)
    found = _too_much_for_one(loaded("40", **{field: value - 1}), running(3), eight())
    assert found.endswith(f" is made for 1/8; {name} would be {value} ms, more than {value - 1} ms")
    assert _too_much_for_one(loaded("40", **{field: value}), running(3), eight()) == ""


def test_a_replica_that_gets_its_part_of_the_load_is_measured_whatever_its_figures() -> None:
    strict = loaded("40", ttftMilliseconds=1)
    assert _too_much_for_one(strict, running(7), eight()) == ""
    assert "TTFT would be " in _too_much_for_one(strict, running(6), eight())


def test_without_figures_a_replica_is_not_measured() -> None:
    other = eight().model_copy(update={"gpu_product": "NVIDIA-L40S"})
    assert _too_much_for_one(loaded("40"), running(2), other).endswith("; its figures at that load are not known")


def cluster(free: int) -> ClusterSnapshot:
    """Return a node with eight GPUs, of which the running plan has four."""
    held = (GpuAllocation("team/llama", 4), GpuAllocation("team/other", 4 - free))
    return ClusterSnapshot((GpuNode("h100-0", PRODUCT, 8, allocations=held),))


@pytest.mark.parametrize("free", [0, 1])
def test_a_replica_starts_where_its_gpus_are_free(free: int) -> None:
    found = verified(case(snapshot=cluster(free)), choice())
    assert began(found) is bool(free)
    assert found.reason is (Reason.VERIFYING if free else Reason.NO_ROOM_TO_VERIFY)


def test_a_replica_that_has_its_gpus_needs_no_free_ones() -> None:
    begun = verified(case(snapshot=cluster(1)), choice()).verification
    again = verified(case(begun, snapshot=cluster(0)), choice())
    assert (began(again), again.reason) == (False, Reason.VERIFYING)
    # A replica of another plan would have other pods.
    assert begun is not None
    assert begun.plan is not None
    other = begun.model_copy(update={"plan": begun.plan.model_copy(update={"max_batch_size": 8})})
    assert verified(case(other, snapshot=cluster(0)), choice()).reason is Reason.NO_ROOM_TO_VERIFY


@pytest.mark.parametrize(
    ("gpus", "nodes", "text"),
    [
        (1, 1, f"1 GPU of {PRODUCT} for one replica is not free"),
        (2, 1, f"2 GPUs of {PRODUCT} for one replica are not free"),
        (16, 2, f"16 GPUs of {PRODUCT} on 2 nodes for one replica are not free"),
    ],
)
def test_the_missing_gpus_are_named(gpus: int, nodes: int, text: str) -> None:
    wide = {"gpus": 2 * gpus, "tensor_parallel": gpus, "nodes_per_replica": nodes}
    plan = pair().new.model_copy(update=wide)
    assert _obstacle(case(snapshot=cluster(0)), beside(), pair().running, plan) == text


@pytest.mark.parametrize(("nodes", "letters", "fits"), [(1, 60, True), (2, 60, False), (2, 5, True)])
def test_a_group_needs_a_short_name(nodes: int, letters: int, fits: bool) -> None:
    base = case(snapshot=cluster(0))
    asked = base.inputs.deployment
    named = asked.model_copy(update={"metadata": asked.metadata.model_copy(update={"name": "x" * letters})})
    plan = pair().new.model_copy(update={"nodes_per_replica": nodes, "tensor_parallel": 2, "gpus": 4})
    found = _obstacle(at(base, deployment=named), beside(), pair().running, plan)
    assert (" is too long for a LeaderWorkerSet" in found) is not fits
    assert ("not free" in found) is fits


def test_a_plan_that_must_be_followed_is_not_held_up_by_missing_room() -> None:
    blocked = {"exclusive": "the claim is mounted once"}
    stays = verified(case(beside=beside(**blocked)), choice())
    assert (stays.held, stays.reason) == (True, Reason.NO_ROOM_TO_VERIFY)
    # The running pods have other arguments than the spec's.
    edited = pair().running.model_copy(update={"serving_hash": "0" * 16})
    follows = verified(case(beside=beside(running=edited, **blocked)), choice())
    assert (follows.held, follows.plan) == (False, pair().new)
    assert follows.verification is not None
    assert follows.verification.followed is not None
    assert follows.verification.followed.message == (
        "the running plan does not meet the spec, and no replica can be verified first: the claim is mounted once"
    )


def test_the_plan_in_verification_stays_while_planning_prefers_another_one() -> None:
    begun = verified(case(), choice()).verification
    other = identified(pair().new.model_copy(update={"max_batch_size": 63}), pair().case.inputs.deployment.spec)
    found = verified(case(begun), choice(other))
    assert not began(found)
    assert found.replica is not None
    assert found.replica.hash == pair().new.hash
    assert verified(case(), choice(other)).replica != found.replica


def test_a_verified_plan_is_adopted_with_the_figures_of_today() -> None:
    begun = verified(case(), choice()).verification
    assert begun is not None
    stale = pair().new.predicted.model_copy(update={"power_watts": 1})
    known = begun.model_copy(
        update={
            "plan": pair().new.model_copy(update={"predicted": stale}),
            "good_windows": 1,
            "start_time": "1970-01-01T00:00:00Z",
        }
    )
    window = pair().window(pair().expected(pair().new, 1, 1 / 3), 1 / 3)
    running_window = pair().window(pair().expected(pair().running, 2, 2 / 3), 2 / 3)
    seen = beside(replica=SeenReplica(ready=True, window=window), window=running_window)
    other = identified(pair().new.model_copy(update={"max_batch_size": 63}), pair().case.inputs.deployment.spec)
    found = verified(case(known, beside=seen), choice(other))
    assert (found.held, found.decision, found.table) == (False, "Verified", None)
    assert found.plan is not None
    assert (found.plan.hash, found.plan.predicted) == (pair().new.hash, pair().new.predicted)


def test_the_plan_of_the_status_stays_with_all_its_fields() -> None:
    stated = pair().running.model_copy(update={"inputs_hash": "1" * 16})
    base = case()
    asked = base.inputs.deployment

    def kept(plan: PlanStatus | None) -> PlanStatus | None:
        status = asked.status.model_copy(update={"plan": plan})
        return verified(at(base, deployment=asked.model_copy(update={"status": status})), choice()).plan

    assert kept(stated) == stated
    # The status has a plan that waits for approval.
    assert kept(pair().new) == pair().running
    assert kept(None) == pair().running


def test_a_verdict_holds_for_the_products_of_the_cluster() -> None:
    nodes = case().inputs.snapshot.nodes

    def of(*more: GpuNode) -> str:
        return _inputs(at(case(), snapshot=ClusterSnapshot((*nodes, *more))))

    assert of(GpuNode("b", "NVIDIA-H200", 0)) == of()
    assert of(GpuNode("b", PRODUCT, 8)) == of()
    assert of(GpuNode("b", "NVIDIA-H200", 8)) != of()
    assert _inputs(replace(case(), model=replace(case().model, name="other"))) != of()
