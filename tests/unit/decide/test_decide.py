"""What a reconcile decides on: which pods are whose, which plan they run, and when a job starts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from tests.unit.decide.deployment.pods.test_job_start_rules import CLEAN_LATER, PLAN, asked, hours_of
from tests.unit.decide.observations import HASH, NOW, OTHER, deployment, model, plan, pod, snapshot, workload

from energylens.api.llmdeployment import EnergyAccount
from energylens.api.timestamp import timestamp
from energylens.decide.decide import Live, Outcome, decide
from energylens.decide.deployment.loads.load import FollowedLoad
from energylens.decide.deployment.observed.observation import Allowed, BudgetView, PlanChoice
from energylens.decide.deployment.plans.inputs import Inputs
from energylens.decide.deployment.pods.job_start import own_workload, planned_start
from energylens.decide.deployment.pods.workloads import Workloads, replicas_of
from energylens.decide.reasons import Reason
from energylens.serving.claims import Claims

ALLOWED = Allowed(None, BudgetView("True", Reason.NO_BUDGET, "no budget"), None)
CHOICE = PlanChoice(plan(), model(), True, Reason.PLANNED, "2 x H100 TP1")
LWS = {**workload(), "kind": "LeaderWorkerSet"}


def decided(running: Live, planning: PlanChoice = CHOICE, account: EnergyAccount | None = None, **inputs: Any) -> Any:
    fields: dict[str, Any] = {
        "deployment": deployment(),
        "config": None,
        "snapshot": snapshot(),
        "allowance": None,
        "serves_lws": False,
        "adopted_at": None,
        "now": NOW,
        "want_table": False,
    }
    return decide(Inputs(**{**fields, **inputs}), planning, ALLOWED, running, now=NOW, account=account)


def test_each_pod_is_seen_in_its_role() -> None:
    pods = pod("p0"), pod("c0", canary=True), pod("f0", prefill=True)
    canary, prefill = workload(plan(OTHER)), workload(plan())
    live = Live(
        Workloads((workload(),)), pods, canary=canary, prefill=prefill, refused_pods="quota", unread="forbidden"
    )
    found = decided(live).observed
    assert [one.name for one in found.pods] == ["p0"]
    assert [one.name for one in found.canary_pods] == ["c0"]
    assert [one.name for one in found.prefill_pods] == ["f0"]
    assert (found.canary, found.prefill, found.refused_pods, found.unread) == (canary, prefill, "quota", "forbidden")


def test_the_workload_is_of_the_kind_that_the_running_plan_needs() -> None:
    both = Live(Workloads((LWS, workload())))
    one_node = decided(both).observed
    assert (one_node.workload["kind"], one_node.outgoing["kind"]) == ("Deployment", "LeaderWorkerSet")
    several = replace(CHOICE, plan=plan(OTHER, tensor_parallel=2, nodes_per_replica=2, gpus=4))
    spanning = decided(both, several, serves_lws=True).observed
    assert (spanning.workload["kind"], spanning.outgoing["kind"]) == ("LeaderWorkerSet", "Deployment")
    # The plan that waits for approval is not the plan whose pods run.
    waits = decided(both, several, standing=plan()).observed
    assert (waits.workload["kind"], waits.standing) == ("Deployment", plan())


def test_what_others_say_is_passed_on() -> None:
    account = EnergyAccount(
        period_start=timestamp(NOW), reset_time=timestamp(NOW), accounted_until=timestamp(NOW), measured_joules=7
    )
    claims = Claims()
    view = BudgetView("False", Reason.BUDGET_EXCEEDED, "too much")
    inputs = Inputs(deployment(), None, snapshot(), None, True, None, NOW, False, load=FollowedLoad(4.0, step=3))
    carried = replace(CHOICE, carried_step=2)
    found = decide(
        inputs, carried, Allowed(None, view, None), Live(claims=claims), now=NOW + timedelta(hours=1), account=account
    ).observed
    assert (found.energy_account, found.claims, found.budget, found.serves_lws) == (account, claims, view, True)
    assert (found.workload, found.outgoing, found.measurement) == (None, None, None)
    assert found.now == NOW + timedelta(hours=1)
    # The plan was made for an earlier step of the load.
    assert found.load == FollowedLoad(4.0, step=2)


def job(*bodies: dict[str, Any], hours: Any = None, planning: PlanChoice | None = None) -> Outcome:
    """Return the outcome of a job whose clean hours begin in four."""
    workloads, hours = Workloads(bodies), hours_of(CLEAN_LATER) if hours is None else hours
    own = own_workload(asked(), workloads.running(PLAN))
    start = planned_start(asked(), PLAN, hours, NOW, runs=own is not None and replicas_of(own) > 0)
    found: Outcome = decided(
        Live(workloads),
        planning or PlanChoice(PLAN, model(), True, Reason.PLANNED, "", job_start=start),
        deployment=asked(),
        job_hours=hours,
    )
    return found


def test_a_job_without_pods_waits_for_its_hour_and_is_looked_at_then() -> None:
    for bodies in ((), (workload(replicas=0) | {"spec": {**workload()["spec"], "replicas": 0}},)):
        observed = job(*bodies).observed
        assert observed.job_start is not None
        assert (observed.job_start.state, observed.job_start.start_time) == ("Waiting", "2026-03-01T16:00:00Z")
        assert observed.planning.next_look == NOW + timedelta(hours=4)


def test_a_job_whose_pods_exist_is_not_interrupted() -> None:
    one = workload(ready=0)
    one["spec"] = {**one["spec"], "replicas": 1}
    observed = job(one).observed
    assert observed.job_start is not None
    assert (observed.job_start.state, observed.job_start.reason) == ("Started", Reason.ALREADY_RUNNING)
    assert observed.planning.next_look is None


def test_pods_of_a_deleted_namesake_start_no_job() -> None:
    body = workload()
    body["metadata"] = {**body["metadata"], "ownerReferences": [{"uid": "gone"}]}
    observed = job(body).observed
    assert observed.job_start is not None
    assert observed.job_start.state == "Waiting"


def test_without_a_choice_of_the_start_the_next_look_stays() -> None:
    looks = replace(CHOICE, next_look=NOW + timedelta(minutes=5))
    assert decided(Live(), looks).observed.planning.next_look == NOW + timedelta(minutes=5)


def test_the_status_describes_the_state_after_the_writes() -> None:
    outcome = decided(Live())
    assert "activeRevision" not in outcome.status()
    assert outcome.status()["plan"]["hash"] == HASH
    served = outcome.after(workload=workload(), pods=(pod("p0"), pod("p1")))
    assert served.children is outcome.children
    status = served.status()
    assert status["activeRevision"]["readyReplicas"] == 2
    assert [reason.value for reason, _ in served.events(status)] == ["BecameReady"]
