"""Whether a new plan is verified on one replica first, and what runs meanwhile."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.decide.deployment.plans.test_scheduled import CAP, at
from tests.unit.decide.deployment.plans.test_verdict import Pair
from tests.unit.decide.observations import NOW, PRODUCT

from energylens.api.llmdeployment import FollowedPlan, PlanStatus, PrefillReplicas, VerificationStatus
from energylens.api.timestamp import timestamp
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.plans.case import Case
from energylens.decide.deployment.plans.verifying import verified
from energylens.decide.deployment.trials.verification import Beside, SeenReplica
from energylens.decide.reasons import Reason
from energylens.planner.search.identity import identified
from energylens.planner.types import ClusterSnapshot, GpuNode, PowerAllowance


@functools.cache
def pair() -> Pair:
    found = Pair(rollout={"verify": "Measured"})
    spec = found.case.inputs.deployment.spec
    found.running, found.new = identified(found.running, spec), identified(found.new, spec)
    return found


def choice(plan: PlanStatus | None = None, **changes: Any) -> PlanChoice:
    wanted = pair().new if plan is None else plan
    fields: dict[str, Any] = {"adopted": True, "decision": "EnergySaving", "weighed": "it saves", "table": ({},)}
    return PlanChoice(wanted, pair().case.model, True, Reason.PLANNED, "a plan", **{**fields, **changes})


def beside(**changes: Any) -> Beside:
    return Beside(**{"running": pair().running, "serving": True, **changes})


def case(memory: VerificationStatus | None = None, spec: dict[str, Any] | None = None, **inputs: Any) -> Case:
    """Return a deployment whose running plan serves on two GPUs each of two replicas."""
    base = pair().case.inputs.deployment
    parts: dict[str, Any] = {
        "status": base.status.model_copy(update={"plan": pair().running, "verification": memory}),
        "spec": base.spec.model_copy(update=spec or {}),
    }
    return at(pair().case, **{"deployment": base.model_copy(update=parts), "beside": beside(), **inputs})


FOLLOWED = FollowedPlan(plan_hash="f" * 16, verified=True, message="it was measured", time="2026-02-01T00:00:00Z")
TRIAL = VerificationStatus(plan=None, inputs="0" * 16, good_windows=1, followed=FOLLOWED)
SETTLED = VerificationStatus(followed=FOLLOWED)


def test_without_a_running_plan_to_compare_with_the_choice_stays() -> None:
    asked = choice()
    assert verified(case(TRIAL, beside=None), asked) is asked
    plain = replace(asked, verification=SETTLED)
    assert verified(case(TRIAL, beside=beside(running=None)), asked) == plain


@pytest.mark.parametrize("changes", [{"good": False}, {"plan": None}])
def test_a_choice_without_a_good_plan_is_not_verified(changes: dict[str, Any]) -> None:
    asked = replace(choice(), **changes)
    assert verified(case(TRIAL), asked) == replace(asked, verification=SETTLED)


def test_what_does_not_serve_is_not_verified() -> None:
    planning = pair().case.inputs.deployment.spec.planning
    for spec in ({"suspend": True}, {"planning": planning.model_copy(update={"mode": "Advisory"})}):
        assert verified(case(TRIAL, spec), choice()) == choice(verification=SETTLED)


def test_a_verified_plan_that_is_not_written_yet_is_not_verified_again() -> None:
    said = FOLLOWED.model_copy(update={"plan_hash": pair().new.hash})
    decided = VerificationStatus(followed=said)
    assert verified(case(decided), choice()) == choice(verification=decided)


def test_the_same_pods_in_another_number_need_no_verification() -> None:
    more = identified(pair().running.model_copy(update={"replicas": 3, "gpus": 6}), pair().case.inputs.deployment.spec)
    measured = FOLLOWED.model_copy(update={"plan_hash": pair().running.hash})
    found = verified(case(VerificationStatus(followed=measured)), choice(more))
    assert (found.plan, found.held, found.adopted) == (more, False, True)
    assert found.verification is not None
    assert found.verification.followed is not None
    assert found.verification.followed == measured.model_copy(update={"plan_hash": more.hash})


PREFILL = PrefillReplicas(
    replicas=1, tensor_parallel=1, pipeline_parallel=1, expert_parallel=1, data_parallel=1, max_batch_size=4
)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"serving": False}, "no replica of the running plan is ready"),
        ({"same_model": False}, "the running replicas serve another model, and the Service would mix the two"),
        (
            {"running": pair().running.model_copy(update={"prefill": PREFILL})},
            "the running plan separates prefill and decode",
        ),
    ],
)
def test_what_cannot_be_compared_is_adopted_at_once_and_says_why(changes: dict[str, Any], why: str) -> None:
    found = verified(case(TRIAL, beside=beside(**changes)), choice())
    assert (found.plan, found.held, found.adopted) == (pair().new, False, True)
    assert found.verification is not None
    assert found.verification.followed == FollowedPlan(
        plan_hash=pair().new.hash, verified=False, message=why, time=timestamp(NOW)
    )


def began(found: PlanChoice) -> bool:
    assert found.plan is not None
    assert (found.plan.hash, found.held, found.good) == (pair().running.hash, True, True)
    assert (found.replica is not None) is (found.reason is Reason.VERIFYING)
    assert found.decision == found.reason.value
    return found.began


def test_one_replica_of_a_new_plan_starts_beside_the_running_pods() -> None:
    found = verified(case(), choice())
    assert began(found)
    assert found.replica is not None
    assert (found.replica.hash, found.replica.replicas, found.replica.gpus) == (pair().new.hash, 1, 1)
    assert found.plan is not None
    assert found.verification is not None
    # The next look continues.
    again = verified(case(found.verification), choice())
    assert not began(again)
    assert again.reason is Reason.VERIFYING


def nodes(free: int, product: str = PRODUCT) -> ClusterSnapshot:
    return ClusterSnapshot((GpuNode("h100-0", product, free),))


def hardware(most: int) -> dict[str, Any]:
    return {"hardware": pair().case.inputs.deployment.spec.hardware.model_copy(update={"max_gpus": most})}


def watts(extra: float) -> PowerAllowance:
    one = -(-pair().new.predicted.power_watts // pair().new.replicas)
    return PowerAllowance(pair().running.predicted.power_watts + one + extra, CAP, because="it is not counted")


@pytest.mark.parametrize(
    ("spec", "inputs", "why"),
    [
        ({}, {"beside": beside(exclusive="the claim models is mounted once")}, "the claim models is mounted once"),
        (hardware(5), {}, ""),
        (hardware(4), {}, "4 GPUs run, and 1 GPU more would exceed spec.hardware.maxGPUs=4"),
        ({}, {"allowance": watts(0)}, ""),
        ({}, {"allowance": watts(-1)}, " W (it is not counted)"),
        ({}, {"allowance": replace(watts(-1), because="")}, " W"),
        ({}, {"snapshot": nodes(8)}, ""),
        ({}, {"snapshot": nodes(0)}, f"1 GPU of {PRODUCT} for one replica is not free"),
    ],
)
def test_a_replica_needs_gpus_power_and_volumes_beside_the_running_pods(
    spec: dict[str, Any], inputs: dict[str, Any], why: str
) -> None:
    needs_the_plan = inputs.get("snapshot") == nodes(0)
    found = verified(case(None, spec, **inputs), choice())
    assert found.held is not needs_the_plan
    if found.held:
        assert began(found) is not bool(why)
        assert found.reason is (Reason.NO_ROOM_TO_VERIFY if why else Reason.VERIFYING)
        assert f"{why}; " in found.message
    else:
        # The running plan does not meet the spec either.
        assert found.verification is not None
        assert found.verification.followed is not None
        assert found.verification.followed.message.endswith(why)


def test_two_good_windows_of_the_replica_adopt_the_plan() -> None:
    begun = verified(case(), choice()).verification
    assert begun is not None
    known = begun.model_copy(update={"good_windows": 1, "start_time": "1970-01-01T00:00:00Z"})
    window = pair().window(pair().expected(pair().new, 1, 1 / 3), 1 / 3)
    other = pair().window(pair().expected(pair().running, 2, 2 / 3), 2 / 3)
    seen = beside(replica=SeenReplica(ready=True, window=window), window=other)
    found = verified(case(known, beside=seen), choice())
    assert (found.plan, found.held, found.adopted, found.reason) == (pair().new, False, True, Reason.PLANNED)
    assert (found.decision, found.table) == ("Verified", ({},))
    assert found.weighed.startswith("it saves; one replica was measured for 2 windows: ")
    assert found.verification is not None
    assert found.verification.followed is not None
    assert found.verification.followed.verified
    assert found.verification.plan is None


def manual(approved: str | None) -> dict[str, Any]:
    planning = pair().case.inputs.deployment.spec.planning
    return {"planning": planning.model_copy(update={"mode": "Manual", "approved_plan_hash": approved})}


def test_a_plan_is_verified_once_it_is_approved() -> None:
    assert verified(case(TRIAL, manual(None)), choice()) == choice(verification=SETTLED)
    assert verified(case(TRIAL, manual("0" * 16)), choice()) == choice(verification=SETTLED)
    assert began(verified(case(None, manual(pair().new.hash)), choice()))
    # A plan in verification stays approved while planning prefers another one.
    begun = verified(case(None, manual(pair().new.hash)), choice()).verification
    other = identified(pair().new.model_copy(update={"max_batch_size": 63}), pair().case.inputs.deployment.spec)
    found = verified(case(begun, manual(pair().new.hash)), choice(other))
    assert not began(found)
    assert found.replica is not None
    assert found.replica.hash == pair().new.hash
