"""Watts that budgets leave and GPUs that plans hold: what is promised counts, and what runs is never pushed out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.api.energybudget import LabelSelector
from energylens.api.llmdeployment import BudgetStatus
from energylens.api.selectors import selects
from energylens.decide.budgets import allowance as module
from energylens.decide.budgets.budget import CLOSED, read_budget
from energylens.decide.budgets.membership import Surroundings
from energylens.decide.deployment.observed.observation import Allowed
from energylens.decide.planned import planned
from energylens.decide.reasons import Reason
from energylens.decide.reservations import Reservation, reserve
from energylens.decide.reservations import reservation as reservation_of
from energylens.planner.types import ClusterSnapshot, GpuAllocation, GpuNode

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
Body = dict[str, Any]


def member(name: str, watts: int | None = None, *, namespace: str = "team", **labels: str) -> Body:
    plan = {"predicted": {"powerWatts": watts}, "gpus": 8, "gpuProduct": "H100"}
    status = {"plan": plan} if watts is not None else {}
    return {"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": {}, "status": status}


def budget(watts: int | None = 1000, action: str = "Deny", *, namespace: str = "team", **spec: Any) -> Body:
    limit = {"powerWatts": watts} if watts is not None else {"energyWattHours": 2400, "period": "Day"}
    return {"metadata": {"name": "cap", "namespace": namespace}, "spec": {**limit, "action": action, **spec}}


def cluster_budget(watts: int = 1000, **spec: Any) -> Body:
    return {"metadata": {"name": "row-b"}, "spec": {"powerWatts": watts, "action": "Deny", **spec}}


def counted(body: Body, ready: str = "True", start: str = "2026-11-25T00:00:00Z", **status: Any) -> Body:
    """Return a budget as its keeper left it."""
    ready_condition = {
        "type": "Ready",
        "status": ready,
        "reason": "Any",
        "message": f"the exporter is gone{CLOSED}",
    }
    found = {
        "observedGeneration": 1,
        "periodStart": start,
        "usedWattHours": 1200,
        "remainingWattHours": 1200,
        "energyLimit": "spec.energyWattHours",
        "conditions": [ready_condition],
        **status,
    }
    return {**body, "status": found}


def taken(body: Body, name: str, watts: int) -> Body:
    return {**body, "status": {"members": [{"name": name, "namespace": "team", "allowedPowerWatts": watts}]}}


def allowance(me: Body, capping: list[Body], everybody: list[Body], around: Surroundings | None = None) -> Allowed:
    return module.allowance(planned(me), map(read_budget, capping), map(planned, everybody), NOW, around)


def watts(found: Allowed) -> float | None:
    return None if found.allowance is None else found.allowance.watts


def test_a_new_member_gets_what_the_others_leave() -> None:
    me = member("me")
    found = allowance(me, [budget()], [me, member("other", 600)])
    assert found.allowance is not None
    assert (found.allowance.watts, found.allowance.source) == (400.0, "EnergyBudget team/cap")
    assert (found.view.status, found.view.reason) == ("True", Reason.WITHIN_BUDGET)
    assert found.view.message == "EnergyBudget team/cap binds: spec.powerWatts=1000 W"


def test_a_member_says_the_same_whatever_the_other_members_commit_and_use() -> None:
    me, said = member("me", 300), set()
    for others, used in ((100, 0), (500, 40), (699, 41), (900, 100)):
        body = {**budget(1000), "status": {"usedPercent": used, "remainingWattHours": 1000 - used}}
        found = allowance(me, [body], [me, member("other", others)])
        said.add((found.view.status, found.view.message, found.status))
    within, over = sorted(said, key=lambda each: each[0], reverse=True)
    assert within[0] == "True"
    assert over[:2] == ("False", "EnergyBudget team/cap: more than spec.powerWatts=1000 W are committed")
    assert within[2] == over[2] == BudgetStatus(name="EnergyBudget team/cap", action="Deny")


def test_the_tightest_budget_counts_and_is_named() -> None:
    me = member("me")
    tight = {**budget(300), "metadata": {"name": "tight", "namespace": "team"}}
    found = allowance(me, [budget(), tight, cluster_budget(900)], [me])
    assert found.allowance is not None
    assert (found.allowance.watts, found.allowance.source) == (300.0, "EnergyBudget team/tight")
    assert found.status is not None
    assert (found.status.name, found.status.action) == ("EnergyBudget team/tight", "Deny")
    assert "EnergyBudget team/tight binds" in found.view.message
    assert "2 other budgets are met, too" in found.view.message


def test_a_budget_of_the_cluster_counts_other_namespaces() -> None:
    me = member("me")
    found = allowance(me, [cluster_budget()], [me, member("other", 600, namespace="elsewhere")])
    assert found.allowance is not None
    assert (found.allowance.watts, found.allowance.source) == (400.0, "ClusterEnergyBudget row-b")


def test_namespaces_are_selected_by_their_labels() -> None:
    me = member("me")
    body = cluster_budget(namespaceSelector={"matchLabels": {"tier": "gold"}})
    gold = Surroundings({"team": {"tier": "gold"}, "elsewhere": {}})
    other = member("other", 600, namespace="elsewhere")
    assert watts(allowance(me, [body], [me, other], gold)) == 1000.0
    assert watts(allowance(me, [body], [me, other], Surroundings({"team": {}}))) is None


def row(*held: tuple[str, str, int], rows: dict[str, str] | None = None) -> Surroundings:
    """Return nodes by name, owner and GPUs held; ``rows`` says in which row each node is."""
    names = {name for name, _, _ in held} | set(rows or {})
    return Surroundings(
        {},
        [
            GpuNode(
                name,
                "H100",
                8,
                tuple(GpuAllocation(owner, gpus) for node, owner, gpus in held if node == name and gpus),
                {"row": (rows or {}).get(name, "")},
            )
            for name in sorted(names)
        ],
    )


def test_of_a_member_that_spans_rows_the_part_in_this_row_counts() -> None:
    me = member("me")
    around = row(("n1", "team/other", 2), ("n2", "team/other", 6), rows={"n1": "b", "n2": "c"})
    found = allowance(me, [cluster_budget(nodeSelector={"row": "b"})], [me, member("other", 800)], around)
    assert watts(found) == 800.0


def test_a_member_that_spans_rows_does_not_exceed_the_budget_of_one_by_its_whole_power() -> None:
    me = member("me", 800)
    around = row(("n1", "team/me", 4), ("n2", "team/me", 4), rows={"n1": "b", "n2": "c"})
    # It asks for the other row only from now on, so that its half in this one is all that counts.
    me["spec"] = {"hardware": {"nodeSelector": {"row": "c"}}}
    found = allowance(me, [cluster_budget(500, nodeSelector={"row": "b"})], [me], around)
    assert (found.view.reason, watts(found)) == (Reason.WITHIN_BUDGET, 800.0)
    assert found.view.message == "ClusterEnergyBudget row-b binds: spec.powerWatts=500 W"


def test_another_budget_that_cannot_be_read_keeps_nothing_from_being_shed() -> None:
    me = member("me", 700)
    unreadable = {**budget(powerWatts="much"), "metadata": {"name": "broken", "namespace": "team"}}
    found = allowance(me, [unreadable, taken(budget(2000, "Shed"), "me", 450)], [me])
    assert watts(found) == 450.0
    assert found.view.reason is Reason.BUDGET_UNREADABLE


def test_what_is_not_placed_yet_counts_where_it_may_come() -> None:
    me = member("me")
    around = row(("n1", "", 0), ("n2", "team/other", 6), rows={"n1": "b", "n2": "c"})
    body = cluster_budget(nodeSelector={"row": "b"})
    assert watts(allowance(me, [body], [me, member("other", 800)], around)) == 800.0
    bound_elsewhere = {**member("me"), "spec": {"hardware": {"nodeSelector": {"row": "c"}}}}
    assert watts(allowance(bound_elsewhere, [body], [bound_elsewhere], around)) is None


def test_what_runs_is_never_pushed_out_by_what_others_committed() -> None:
    me = member("me", 700)
    found = allowance(me, [budget()], [me, member("other", 600)])
    assert watts(found) == 700.0
    assert (found.view.status, found.view.reason) == ("False", Reason.OVER_BUDGET)
    assert "more than spec.powerWatts=1000 W are committed" in found.view.message


def test_a_budget_that_only_reports_limits_nothing_and_still_tells() -> None:
    me = member("me", 1200)
    found = allowance(me, [budget(action="Report")], [me])
    assert found.allowance is None
    assert found.view.status == "False"


def test_a_budget_that_cannot_be_read_allows_no_growth() -> None:
    me = member("me", 700)
    found = allowance(me, [budget(powerWatts="much")], [me])
    assert watts(found) == 700.0
    assert (found.view.status, found.view.reason) == ("Unknown", Reason.BUDGET_UNREADABLE)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (budget(None), "not counted yet"),
        (counted(budget(None), ready="False"), "the exporter is gone"),
        (counted(budget(None), observedGeneration=0), "not counted yet"),
        (counted(budget(None), start="2026-11-24T00:00:00Z"), "energy of this period is not counted yet"),
    ],
    ids=["new", "cannot be checked", "changed since", "an old period"],
)
def test_energy_that_cannot_be_checked_allows_no_growth(body: Body, said: str) -> None:
    me = member("me", 70)
    found = allowance(me, [body], [me])
    assert watts(found) == 70.0
    assert (found.view.status, found.view.reason) == ("Unknown", Reason.BUDGET_NOT_CHECKED)
    assert said in found.view.message
    assert found.view.message.count("no plan may draw more") == 1
    assert watts(allowance(member("new"), [body], [me])) == 1.0


@pytest.mark.parametrize(
    ("body", "awaited"),
    [
        (budget(None), True),
        (counted(budget(None), observedGeneration=0), True),
        (counted(budget(None), start="2026-11-24T00:00:00Z"), True),
        (counted(budget(None), ready="False"), False),
        (counted(budget(None), ready="False", start="2026-11-24T00:00:00Z"), False),
        (counted(budget(None), usedWattHours=2400, remainingWattHours=0), False),
        (budget(powerWatts=1), False),
        (budget(powerWatts="much"), False),
    ],
    ids=["new", "edited", "new period", "unchecked", "unchecked in a new period", "used up", "power", "unreadable"],
)
def test_only_a_deployment_that_draws_nothing_waits_and_only_for_a_budget_that_will_be_counted(
    body: Body, awaited: bool
) -> None:
    found = allowance(member("new"), [body], []).allowance
    assert found is not None
    assert found.awaits_look is awaited
    runs = allowance(member("me", 70), [body], []).allowance
    assert runs is not None
    assert not runs.awaits_look
    kind = "the API server does not serve EnergyBudgets"
    unserved = module.allowance(planned(member("new")), [read_budget(body)], (), NOW, None, {"EnergyBudget": kind})
    assert unserved.allowance is not None
    assert not unserved.allowance.awaits_look


def test_a_budget_that_only_reports_and_cannot_be_checked_denies_nothing() -> None:
    me = member("me", 70)
    found = allowance(me, [budget(None, "Report")], [me])
    assert found.allowance is None
    assert found.view.reason is Reason.BUDGET_NOT_CHECKED
    assert "no plan may draw more" not in found.view.message


def test_energy_that_is_left_becomes_power() -> None:
    me = member("me")
    # 1200 Wh for the 12 h that are left; a whole day could have 2400 Wh.
    assert watts(allowance(me, [counted(budget(None))], [me, member("other", 30)])) == 70.0
    # Half of the energy is left for half of the day: more would not last, however little was used before.
    idle = counted(budget(None), usedWattHours=0, remainingWattHours=2400)
    assert watts(allowance(me, [idle], [me])) == 100.0


def test_energy_that_is_used_up_allows_nothing_new_and_leaves_what_runs() -> None:
    me = member("me", 500)
    gone = counted(budget(None), usedWattHours=2400, remainingWattHours=0, resetTime="2026-11-26T00:00:00Z")
    found = allowance(me, [gone], [me])
    assert watts(found) == 500.0
    assert found.view.reason is Reason.OVER_BUDGET
    assert "until 2026-11-26T00:00:00Z" in found.view.message


def test_what_is_measured_above_the_predictions_is_not_there_for_growth() -> None:
    me = member("me")
    body = {**budget(), "status": {"excessPowerWatts": 44}}
    assert watts(allowance(me, [body], [me, member("other", 600)])) == 350.0


def test_what_is_kept_of_a_budget_does_not_grow_with_its_members() -> None:
    members = [{"name": f"m{number}", "namespace": "team", "committedPowerWatts": 100} for number in range(50)]
    accounts = [{"uid": f"u{number}", "name": "m", "namespace": "team"} for number in range(50)]
    shed = {"name": "m50", "namespace": "team", "allowedPowerWatts": 40, "formerPowerWatts": 90}
    found = read_budget({**budget(2000, "Shed"), "status": {"members": [*members, shed], "ledger": accounts}})
    assert (found.status.members, found.status.ledger) == ((), ())
    assert found.caps == {("team", "m50"): 40}
    assert found.counted_until is None


@pytest.mark.parametrize(
    ("entries", "time"),
    [
        (
            [
                {"predictedWatts": 9, "accountedUntil": "2026-11-25T11:59:00Z"},
                {"accountedUntil": "2026-11-25T01:00:00Z"},
            ],
            59,
        ),
        ([{"predictedWatts": 9, "accountedUntil": f"2026-11-25T11:{minute}:00Z"} for minute in (58, 55)], 55),
        ([{"uid": "members", "accountedUntil": "2026-11-25T11:50:00Z"}], 50),
        ([{"predictedWatts": 9, "accountedUntil": "soon"}, {"predictedWatts": 9}], None),
    ],
)
def test_energy_is_counted_up_to_the_last_measurement_of_all_members(entries: list[Body], time: int | None) -> None:
    found = read_budget({**budget(2000), "status": {"ledger": entries}}).counted_until
    assert found == (None if time is None else NOW.replace(hour=11, minute=time))


def test_power_that_is_taken_binds_below_what_runs() -> None:
    me = member("me", 700)
    found = allowance(me, [taken(budget(2000, "Shed"), "me", 450)], [me])
    assert found.allowance is not None
    assert (found.allowance.watts, found.allowance.sheds) == (450.0, True)
    assert found.view.reason is Reason.POWER_TAKEN
    # The same status under another action is a remnant.
    assert watts(allowance(me, [taken(budget(2000, "Deny"), "me", 450)], [me])) == 2000.0


def test_what_is_suspended_or_only_shown_commits_nothing() -> None:
    me = member("me")
    stopped = {**member("stopped", 500), "spec": {"suspend": True}}
    shown = {**member("shown", 500), "spec": {"planning": {"mode": "Advisory"}}}
    assert watts(allowance(me, [budget()], [me, stopped, shown])) == 1000.0


def test_a_plan_that_waits_for_approval_commits_its_power_once_something_runs() -> None:
    me = member("me")
    waiting = {**member("waiting", 300), "spec": {"planning": {"mode": "Manual"}}}
    waiting["status"]["plan"]["hash"] = "b"
    assert watts(allowance(me, [budget()], [me, waiting])) == 1000.0
    running = {**waiting, "status": {**waiting["status"], "activeRevision": {"planHash": "a"}}}
    assert watts(allowance(me, [budget()], [me, running])) == 700.0
    # What runs draws more than the plan that waits.
    running["status"]["activeRevision"]["powerWatts"] = 450
    assert watts(allowance(me, [budget()], [me, running])) == 550.0


@pytest.mark.parametrize(
    "other",
    [
        budget(namespace="elsewhere"),
        budget(selector={"matchLabels": {"tier": "gold"}}),
        cluster_budget(selector={"matchLabels": {"tier": "gold"}}),
    ],
    ids=["another namespace", "not selected", "not selected in the cluster"],
)
def test_budgets_that_are_about_something_else_limit_nothing(other: Body) -> None:
    me = member("me", 2000)
    found = allowance(me, [other], [me])
    assert found.allowance is None
    assert (found.view.status, found.view.reason) == ("True", Reason.NO_BUDGET)
    assert found.status is None


def test_only_selected_neighbours_count() -> None:
    me = member("me", tier="gold")
    others = [member("gold", 300, tier="gold"), member("silver", 600, tier="silver")]
    assert watts(allowance(me, [budget(selector={"matchLabels": {"tier": "gold"}})], [me, *others])) == 700.0


@given(
    st.lists(st.integers(2, 900), min_size=2, max_size=4),
    st.integers(1, 2000),
    st.permutations(range(4)),
)
def test_whoever_asks_first_nobody_gets_the_same_watts(asked: list[int], limit: int, order: list[int]) -> None:
    names = [f"m{i}" for i in range(len(asked))]
    held: dict[str, Body] = {name: member(name) for name in names}
    for i in order:
        if i >= len(asked):
            continue
        found = allowance(held[names[i]], [budget(limit)], list(held.values()))
        assert found.allowance is not None
        if asked[i] <= found.allowance.watts:
            held[names[i]] = member(names[i], asked[i])
    total = sum(planned(body).committed_watts for body in held.values())
    assert total <= limit


@pytest.mark.parametrize(
    ("operator", "values", "labels", "selected"),
    [
        ("In", ["a"], {"team": "a"}, True),
        ("In", ["a"], {"team": "b"}, False),
        ("In", ["a"], {}, False),
        ("NotIn", ["a"], {"team": "b"}, True),
        ("NotIn", ["a"], {}, True),
        ("NotIn", ["a"], {"team": "a"}, False),
        ("Exists", [], {"team": ""}, True),
        ("Exists", [], {}, False),
        ("DoesNotExist", [], {}, True),
        ("DoesNotExist", [], {"team": "a"}, False),
    ],
)
def test_selectors_select_as_kubernetes_does(
    operator: str, values: list[str], labels: dict[str, str], selected: bool
) -> None:
    selector = LabelSelector.model_validate(
        {"matchExpressions": [{"key": "team", "operator": operator, "values": values}]}
    )
    assert selects(selector, labels) is selected


def promised(gpus: int = 8, *, per_replica: int = 4, nodes: int = 1, **spec: Any) -> dict[str, Any]:
    plan = {
        "gpus": gpus,
        "gpuProduct": "H100",
        "tensorParallel": per_replica,
        "pipelineParallel": 1,
        "dataParallel": 1,
        "nodesPerReplica": nodes,
    }
    return {"metadata": {"name": "other", "namespace": "team"}, "spec": spec, "status": {"plan": plan}}


def reservation(body: dict[str, Any], bound_gpus: int) -> Reservation | None:
    return reservation_of(planned(body), bound_gpus)


def two_nodes(free: int = 8) -> ClusterSnapshot:
    return ClusterSnapshot(tuple(GpuNode(f"n{i}", "H100", free) for i in range(2)))


def free(snapshot: ClusterSnapshot) -> list[int]:
    return [node.free_now for node in snapshot.nodes]


def test_a_plan_without_pods_holds_its_gpus() -> None:
    wanted = reservation(promised(), bound_gpus=0)
    assert wanted is not None
    assert (wanted.owner, wanted.gpus_per_pod, wanted.pods) == ("team/other", 4, 2)
    # Both on one node, so that the other stays whole.
    assert free(reserve(two_nodes(), [wanted])) == [0, 8]


def test_bound_pods_are_not_counted_twice() -> None:
    wanted = reservation(promised(), bound_gpus=4)
    assert wanted is not None
    assert wanted.pods == 1
    assert reservation(promised(), bound_gpus=8) is None


def test_a_replica_over_nodes_holds_a_part_of_each() -> None:
    wanted = reservation(promised(16, per_replica=16, nodes=2), bound_gpus=0)
    assert wanted is not None
    assert free(reserve(two_nodes(), [wanted])) == [0, 0]


def of_two_roles(decode: int, prefill: int) -> dict[str, Any]:
    """Return two decode pods and three prefill pods of so many GPUs each, of which none runs yet."""
    body = promised(2 * decode + 3 * prefill, per_replica=decode)
    body["status"]["plan"] |= {"replicas": 2, "prefill": {"replicas": 3, "tensorParallel": prefill}}
    return body


@pytest.mark.parametrize(
    ("decode", "prefill", "bound", "left"),
    [
        (4, 2, 0, [0, 2]),
        (2, 4, 0, [0, 0]),
        # Room for the larger pods is kept first.
        (4, 2, 6, [0, 8]),
        (4, 2, 12, [6, 8]),
    ],
)
def test_both_roles_hold_their_gpus(decode: int, prefill: int, bound: int, left: list[int]) -> None:
    wanted = reservation(of_two_roles(decode, prefill), bound_gpus=bound)
    assert wanted is not None
    assert free(reserve(two_nodes(), [wanted])) == left


def test_small_pods_hold_their_gpus_where_large_ones_fit_nowhere() -> None:
    wanted = reservation(of_two_roles(8, 1), bound_gpus=0)
    assert wanted is not None
    assert free(reserve(two_nodes(4), [wanted])) == [1, 4]


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {"name": "x", "namespace": "team"}, "spec": {}, "status": {}},
        promised(suspend=True),
        promised(planning={"mode": "Advisory"}),
    ],
    ids=["no plan", "suspended", "advisory"],
)
def test_what_will_never_start_holds_nothing(body: dict[str, Any]) -> None:
    assert reservation(body, bound_gpus=0) is None


def test_what_fits_nowhere_takes_nothing_from_others() -> None:
    wanted = reservation(promised(64, per_replica=16), bound_gpus=0)
    assert wanted is not None
    assert free(reserve(two_nodes(), [wanted])) == [8, 8]


GONE = "the API server does not serve energybudgets of energylens.dev/v1alpha1"


def without_the_kind(me: Body, capping: list[Body], everybody: list[Body], kind: str = "EnergyBudget") -> Allowed:
    others = map(planned, everybody)
    return module.allowance(planned(me), map(read_budget, capping), others, NOW, unserved={kind: GONE})


@pytest.mark.parametrize(("own", "left"), [(None, 1.0), (700, 700.0)])
def test_a_budget_whose_kind_is_not_served_any_more_allows_no_growth(own: int | None, left: float) -> None:
    me = member("me", own)
    found = without_the_kind(me, [budget()], [me])
    assert watts(found) == left
    assert (found.view.status, found.view.reason) == ("Unknown", Reason.BUDGET_NOT_CHECKED)
    assert f"EnergyBudget team/cap: {GONE}" in found.view.message
    assert "no plan may draw more than the running one" in found.view.message
    assert watts(without_the_kind(me, [cluster_budget()], [me])) == 1000.0
    assert watts(without_the_kind(me, [cluster_budget()], [me], "ClusterEnergyBudget")) == left


def test_power_that_was_taken_stays_taken_while_the_kind_is_not_served() -> None:
    me = member("me", 700)
    found = without_the_kind(me, [taken(budget(action="Shed"), "me", 300)], [me])
    assert found.allowance is not None
    assert (found.allowance.watts, found.allowance.sheds) == (300.0, True)


def test_an_operator_that_started_since_knows_from_the_status_which_budget_there_was() -> None:
    me = member("me", 700)
    limited = without_the_kind(me, [budget()], [me]).status
    assert limited is not None
    me["status"]["budget"] = limited.model_dump(by_alias=True, exclude_none=True)
    for _ in range(2):
        found = without_the_kind(me, [], [me])
        assert watts(found) == 700.0
        assert found.view.reason == Reason.BUDGET_NOT_CHECKED
        assert found.view.message.startswith(f"EnergyBudget team/cap: {GONE}")
        assert found.status is not None
        me["status"]["budget"] = found.status.model_dump(by_alias=True, exclude_none=True)
    assert watts(without_the_kind(me, [], [me], "ClusterEnergyBudget")) is None


def test_who_was_under_no_budget_is_not_limited_and_is_told() -> None:
    me = member("me", 700)
    only_reported = member("me", 700)
    only_reported["status"]["budget"] = {"name": "EnergyBudget team/cap", "usedPercent": 40}
    for asking in (me, only_reported):
        found = without_the_kind(asking, [], [asking])
        assert found.allowance is None
        assert (found.view.status, found.view.reason) == ("Unknown", Reason.BUDGET_NOT_CHECKED)
        assert found.view.message == f"{GONE}; no budget is known to select this deployment"
    other = member("other", 100)
    assert without_the_kind(me, [cluster_budget()], [me, other]).view.reason == Reason.WITHIN_BUDGET
