"""What others read of a deployment: the power that its plan commits and keeps, and the GPUs that its pods lack."""

from __future__ import annotations

from typing import Any

import pytest

from energylens.decide.planned import (
    DEFAULT_WINDOW_SECONDS,
    HOURS,
    UNKNOWN_LEAD_SECONDS,
    HeldPlan,
    PlannedDeployment,
    WeekWatts,
    key_of,
    name_of,
    planned,
)
from energylens.decide.reservations import Reservation, reservation, reserve
from energylens.planner.types import ClusterSnapshot, GpuAccess, GpuAllocation, GpuNode

PLAN: dict[str, Any] = {
    "hash": "a" * 16,
    "gpuProduct": "H100",
    "gpus": 16,
    "replicas": 2,
    "tensorParallel": 2,
    "pipelineParallel": 2,
    "dataParallel": 2,
    "predicted": {"powerWatts": 1000},
}


def read(spec: dict[str, Any] | None = None, plan: dict[str, Any] | None = PLAN, **status: Any) -> PlannedDeployment:
    stated = {**({} if plan is None else {"plan": plan}), **status}
    return planned({"metadata": {"name": "me", "namespace": "team"}, "spec": spec, "status": stated})


def test_an_object_without_anything_has_the_defaults_of_the_api() -> None:
    found = planned({"metadata": {"name": "me"}, "spec": None, "status": None})
    assert found == PlannedDeployment(("", "me"))
    assert (found.mode, found.priority, found.min_replicas) == ("Auto", 0, 1)
    assert (found.window_seconds, found.committed_watts, found.reserved_watts) == (DEFAULT_WINDOW_SECONDS, 0, 0)
    assert (found.plan, found.running_power_watts, found.is_limited, found.is_waiting) == (None, None, False, False)


def test_what_is_stated_is_read() -> None:
    spec = {
        "energy": {"priority": 7, "minReplicas": 3, "budget": {"powerWatts": 500}},
        "planning": {"mode": "Manual", "approvedPlanHash": "b" * 16},
        "hardware": {"nodeSelector": {"row": "b"}},
        "validation": {"windowSeconds": 60},
    }
    found = read(spec, budget={"name": "EnergyBudget team/cap", "allowedPowerWatts": 400}, measured={"powerWatts": 9})
    assert (found.priority, found.min_replicas, found.window_seconds) == (7, 3, 60)
    assert (found.mode, found.approved_plan_hash, found.node_selector) == ("Manual", "b" * 16, {"row": "b"})
    assert (found.limited_by, found.is_limited, found.allowed_power_watts) == ("EnergyBudget team/cap", True, 400.0)
    assert found.measured_power_watts == 9
    assert found.budget is not None
    assert found.budget.power_watts == 500
    assert (found.owner, found.namespace) == ("team/me", "team")


@pytest.mark.parametrize(
    ("budget", "expected"),
    [({}, False), ({"action": "Report"}, False), ({"action": "Deny"}, True), ({"allowedPowerWatts": 0}, True)],
)
def test_a_budget_limits_where_it_denies_or_an_earlier_operator_stated_watts(
    budget: dict[str, Any], expected: bool
) -> None:
    assert read(budget=budget).is_limited is expected


def test_parts_that_cannot_be_read_are_none_and_unknown_fields_do_not_matter() -> None:
    assert read({"energy": {"budget": {"powerWatts": "much"}}}).budget is None
    newer = read({"energy": {"budget": {"powerWatts": 5, "comesLater": 1}}}).budget
    assert newer is not None
    assert newer.power_watts == 5
    assert read(energyAccount={"measuredJoules": "x"}).account is None


def test_the_pods_of_a_plan_have_the_gpus_of_its_layout() -> None:
    plan = HeldPlan.read(
        {**PLAN, "nodesPerReplica": 2, "lowestPowerWatts": 300, "shedFromPowerWatts": 2000, "shedBy": "cap"}
    )
    assert (plan.gpus_per_pod, plan.gpus, plan.replicas, plan.power_watts) == (4, 16, 2, 1000)
    assert (plan.lowest_power_watts, plan.shed_from_power_watts, plan.shed_by) == (300, 2000, "cap")
    assert (plan.prefill_gpus_per_pod, plan.prefill_replicas, plan.peak_power_watts) == (0, 0, 0)
    roles = HeldPlan.read({**PLAN, "prefill": {"replicas": 3, "tensorParallel": 2}, "peakPowerWatts": 1500})
    assert (roles.prefill_gpus_per_pod, roles.prefill_replicas, roles.peak_power_watts) == (2, 3, 1500)
    fewer = HeldPlan.read({"fewerReplicas": [{"replicas": 1, "powerWatts": 400}]})
    assert (fewer.fewer_replicas, fewer.gpus, fewer.gpus_per_pod, fewer.replicas) == (((1, 400),), 0, 1, 1)
    assert (fewer.hash, fewer.lowest_power_watts, fewer.shed_from_power_watts) == (None, None, None)
    assert HeldPlan.read({**PLAN, "nodesPerReplica": 99}).gpus_per_pod == 1


START = {"workload": {"job": {"start": {"completeBy": "2026-03-02T00:00:00Z"}}}}


@pytest.mark.parametrize(
    ("spec", "status", "committed", "reserved"),
    [
        ({}, {}, 1000, 1000),
        ({"suspend": True}, {}, 0, 0),
        ({"scaling": {"mode": "External"}, "replicas": 0}, {}, 0, 0),
        ({"scaling": {"mode": "External"}, "replicas": 1}, {}, 1000, 1000),
        ({"replicas": 0}, {}, 1000, 1000),
        ({"planning": {"mode": "Advisory"}}, {}, 0, 0),
        ({"planning": {"mode": "Manual"}}, {}, 0, 0),
        ({"planning": {"mode": "Manual", "approvedPlanHash": "a" * 16}}, {}, 1000, 1000),
        ({"planning": {"mode": "Manual", "approvedPlanHash": "b" * 16}}, {}, 0, 0),
        # While another plan waits, the one that runs keeps its power.
        ({"planning": {"mode": "Manual"}}, {"activeRevision": {"planHash": "c", "powerWatts": 1400}}, 1400, 1400),
        ({"planning": {"mode": "Manual"}}, {"activeRevision": {"planHash": "c", "powerWatts": 400}}, 1000, 1000),
        # A job that starts later keeps its power and draws none.
        (START, {}, 0, 1000),
        (START, {"jobStart": {"state": "Waiting"}}, 0, 1000),
        (START, {"jobStart": {"state": "Starting"}}, 1000, 1000),
        (START, {"jobStart": {"state": "Started"}}, 1000, 1000),
        ({"workload": {"job": {}}}, {}, 1000, 1000),
        ({}, {"plan": {**PLAN, "peakPowerWatts": 1700}}, 1000, 1700),
        ({}, {"plan": {**PLAN, "peakPowerWatts": 700}}, 1000, 1000),
        ({"suspend": True}, {"plan": {**PLAN, "peakPowerWatts": 1700}}, 0, 0),
    ],
)
def test_a_plan_commits_what_it_draws_now_and_keeps_what_it_may_draw(
    spec: dict[str, Any], status: dict[str, Any], committed: int, reserved: int
) -> None:
    found = read(spec, **status)
    assert (found.committed_watts, found.reserved_watts) == (committed, reserved)


def test_pods_draw_their_part_of_the_plans_power() -> None:
    assert read().drawn_watts(4) == 250.0
    assert read(plan=None).drawn_watts(4) == 0.0
    assert read(plan={**PLAN, "gpus": 0}).drawn_watts(4) == 0.0


PROFILE = {"workload": {"profile": {"timeZone": "Europe/Berlin"}}}
ENTRIES = [{"day": "Mon", "hour": 18, "powerWatts": 100}, {"day": "Mon", "hour": 8, "powerWatts": 900}]


def week(schedule: dict[str, Any] | None = None, spec: dict[str, Any] | None = None) -> WeekWatts | None:
    return read({**PROFILE, **(spec or {})}, schedule=schedule).week


def test_a_week_has_the_power_of_each_hour() -> None:
    found = week({"hours": ENTRIES, "startSeconds": 120})
    assert found is not None
    assert (found.time_zone, found.lead_seconds, len(found.watts)) == ("Europe/Berlin", 120, HOURS)
    assert (found.watts[7], found.watts[8], found.watts[17], found.watts[18], found.watts[167]) == (
        100,
        900,
        900,
        100,
        100,
    )
    days = [{"day": "Tue", "hour": 8, "powerWatts": 5}, {"day": "Sun", "hour": 23, "powerWatts": 7}]
    later = week({"hours": days})
    assert later is not None
    assert later.watts == (7,) * 32 + (5,) * 135 + (7,)


def test_before_a_week_is_planned_its_start_is_stated_or_unknown() -> None:
    assert week() == WeekWatts("Europe/Berlin", UNKNOWN_LEAD_SECONDS)
    assert week(spec={"scaling": {"startSeconds": 40}}) == WeekWatts("Europe/Berlin", 40)
    assert week({"startSeconds": 7}, {"scaling": {"startSeconds": 40}}) == WeekWatts("Europe/Berlin", 7)
    assert read({"workload": {"profile": {"hours": []}}}).week == WeekWatts("UTC", UNKNOWN_LEAD_SECONDS)
    assert read().week is None


@pytest.mark.parametrize(
    "schedule",
    [
        {"hours": [{"day": "Mon", "hour": 24, "powerWatts": 1}]},
        {"hours": [{"day": "Mon", "hour": -1, "powerWatts": 1}]},
        {"hours": [{"day": "Monday", "hour": 1, "powerWatts": 1}]},
        {"hours": [{"day": "Mon", "hour": 1}]},
        {"hours": ["nonsense"]},
        {"startSeconds": "soon"},
    ],
)
def test_a_schedule_that_cannot_be_read_is_none(schedule: dict[str, Any]) -> None:
    assert week(schedule) is None
    assert read({"workload": {"profile": {"timeZone": "Mars/Base"}}}).week is None


@pytest.mark.parametrize(
    ("spec", "plan", "is_by_hour"),
    [
        ({}, {**PLAN, "peakPowerWatts": 900, "predicted": {"powerWatts": 900}}, True),
        ({}, {**PLAN, "peakPowerWatts": 900, "predicted": {"powerWatts": 100}}, True),
        ({}, {**PLAN, "peakPowerWatts": 900, "predicted": {"powerWatts": 901}}, False),
        ({}, {**PLAN, "peakPowerWatts": 901}, False),
        ({"suspend": True}, {**PLAN, "peakPowerWatts": 900, "predicted": {"powerWatts": 100}}, False),
        ({"planning": {"mode": "Manual"}}, {**PLAN, "peakPowerWatts": 900, "predicted": {"powerWatts": 100}}, False),
        ({}, None, False),
    ],
)
def test_power_is_kept_by_the_hour_while_the_plan_and_its_week_belong_together(
    spec: dict[str, Any], plan: dict[str, Any] | None, is_by_hour: bool
) -> None:
    found = read({**PROFILE, **spec}, plan, schedule={"hours": ENTRIES})
    assert (found.reserved_week is not None) is is_by_hour
    assert read({**PROFILE, **spec}, plan).reserved_week is None


def by(access: GpuAccess, name: str, gpus: int, *held: GpuAllocation) -> GpuNode:
    return GpuNode(name, "H100", gpus, held, access=frozenset({access}))


def where(snapshot: ClusterSnapshot, *wanted: Reservation) -> dict[str, list[tuple[str, int, str]]]:
    """Return the reserved GPUs of each node: owner, GPUs and the way in which the pods get them."""
    found = reserve(snapshot, wanted)
    return {
        now.name: [(a.owner, a.gpus, a.access) for a in now.allocations[len(before.allocations) :]]
        for before, now in zip(snapshot.nodes, found.nodes, strict=True)
    }


def test_pods_of_one_deployment_reserve_gpus_of_one_way() -> None:
    nodes = ClusterSnapshot((by("Claim", "a", 4), by("Claim", "b", 4), by("Resource", "c", 4)))
    first, second = Reservation("team/one", "H100", 2, 3), Reservation("team/two", "H100", 1, 3)
    assert where(nodes, first, second) == {
        "a": [("team/one", 2, "Claim"), ("team/one", 2, "Claim")],
        "b": [("team/one", 2, "Claim")],
        "c": [("team/two", 1, "Resource")] * 3,
    }
    # GPUs of the other way do not help pods that find no room.
    assert where(nodes, Reservation("team/one", "H100", 4, 3))["c"] == []


@pytest.mark.parametrize(("way", "used"), [("Claim", "a"), ("Resource", "b")])
def test_missing_pods_reserve_gpus_in_the_way_of_those_that_run(way: GpuAccess, used: str) -> None:
    bound = GpuAllocation("team/me", 1, way)
    nodes = (by("Claim", "a", 4, bound), by("Resource", "b", 3))
    if way == "Resource":
        nodes = (by("Claim", "a", 4), by("Resource", "b", 3, bound))
    found = where(ClusterSnapshot(nodes), Reservation("team/me", "H100", 1, 1))
    assert {name for name, taken in found.items() if taken} == {used}


def test_nodes_of_both_ways_take_pods_of_either() -> None:
    either = GpuNode("a", "H100", 2, access=frozenset({"Claim", "Resource"}))
    assert where(ClusterSnapshot((either,)), Reservation("team/me", "H100", 2, 1)) == {
        "a": [("team/me", 2, "Resource")]
    }
    more = ClusterSnapshot((either, by("Claim", "b", 4)))
    assert where(more, Reservation("team/me", "H100", 2, 3)) == {
        "a": [("team/me", 2, "Claim")],
        "b": [("team/me", 2, "Claim")] * 2,
    }


def test_objects_are_named_by_kind_and_namespace() -> None:
    assert key_of({"metadata": {"name": "a"}}) == ("", "a")
    assert name_of({"metadata": {"name": "cap", "namespace": "team"}}) == "EnergyBudget team/cap"
    assert name_of({"metadata": {"name": "row", "namespace": None}}) == "ClusterEnergyBudget row"


@pytest.mark.parametrize(
    ("spec", "bound", "expected"),
    [
        ({}, 0, Reservation("team/me", "H100", 8, 2)),
        ({}, 8, Reservation("team/me", "H100", 8, 1)),
        ({}, 15, Reservation("team/me", "H100", 8, 1)),
        ({}, 16, None),
        ({}, 17, None),
        ({"suspend": True}, 0, None),
        ({"planning": {"mode": "Advisory"}}, 0, None),
        ({"planning": {"mode": "Manual"}}, 0, None),
    ],
)
def test_gpus_are_kept_for_pods_that_are_not_bound_yet(
    spec: dict[str, Any], bound: int, expected: Reservation | None
) -> None:
    assert reservation(read(spec), bound) == expected
    assert reservation(read(spec, None), bound) is None


def test_a_job_that_budgets_refuse_keeps_no_gpus() -> None:
    spec = {"workload": {"job": {"requests": 1, "completeWithinSeconds": 60}}}
    refused = read(spec, jobStart={"state": "Waiting", "reason": "BudgetExceeded"})
    assert reservation(refused, 0) is None
    assert reservation(read(spec, jobStart={"state": "Waiting", "reason": "BestHours"}), 0) is not None


ROLES = {**PLAN, "gpus": 14, "tensorParallel": 2, "pipelineParallel": 1, "dataParallel": 1, "replicas": 1,
         "prefill": {"replicas": 3, "tensorParallel": 4}}  # fmt: skip


@pytest.mark.parametrize(
    ("bound", "large", "small"), [(0, 3, 1), (2, 3, 0), (4, 2, 1), (10, 1, 0), (12, 0, 1), (13, 0, 1)]
)
def test_room_is_kept_for_the_large_pods_of_two_roles_first(bound: int, large: int, small: int) -> None:
    found = reservation(read(plan=ROLES), bound)
    assert found == Reservation("team/me", "H100", 4, large, (2, small))
    assert found is not None
    assert found.sizes == [4] * large + [2] * small


def nodes(*free: int, product: str = "H100", schedulable: bool = True) -> list[GpuNode]:
    return [GpuNode(f"n{at}", product, count, schedulable=schedulable) for at, count in enumerate(free)]


def free_of(snapshot: ClusterSnapshot) -> list[int]:
    return [node.free_now for node in snapshot.nodes]


def test_reserved_pods_fill_the_fullest_nodes_that_have_room() -> None:
    snapshot = ClusterSnapshot(tuple(nodes(8, 2, 4)))
    assert free_of(reserve(snapshot, [Reservation("a/b", "H100", 2, 3)])) == [8, 0, 0]
    assert free_of(reserve(snapshot, [Reservation("a/b", "H100", 4, 2)])) == [4, 2, 0]
    # A pod that finds no room does not keep smaller ones from theirs.
    assert free_of(reserve(snapshot, [Reservation("a/b", "H100", 16, 2, (2, 1))])) == [8, 0, 4]
    assert free_of(reserve(snapshot, [Reservation("a/b", "H100", 8, 2)])) == [0, 2, 4]
    taken = reserve(snapshot, [Reservation("a/b", "H100", 2, 1)]).nodes[1]
    assert taken.allocations == (GpuAllocation("a/b", 2),)


def test_nodes_of_other_products_and_cordoned_ones_keep_their_gpus() -> None:
    wanted = [Reservation("a/b", "H100", 2, 1)]
    for kept in (nodes(8, product="H200"), nodes(8, schedulable=False)):
        snapshot = ClusterSnapshot(tuple(kept))
        assert reserve(snapshot, wanted) is snapshot
    same = ClusterSnapshot(tuple(nodes(4, 4)))
    assert free_of(reserve(same, wanted)) == [2, 4]


@pytest.mark.parametrize(("nodes", "gpus"), [(1, 30), (2, 15), (3, 10)])
def test_a_pod_has_its_part_of_the_gpus_of_a_replica(nodes: int, gpus: int) -> None:
    degrees = {"tensorParallel": 2, "pipelineParallel": 3, "dataParallel": 5}
    held = HeldPlan.read({**PLAN, **degrees, "nodesPerReplica": nodes, "prefill": {**degrees, "dataParallel": 7}})
    assert (held.gpus_per_pod, held.prefill_gpus_per_pod) == (gpus, 42)
