"""What a budget, its members and their conditions say of one state never contradicts: verdicts, reasons and numbers."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from energylens.api.energybudget import EnergyBudgetSpec, EnergyBudgetStatus
from energylens.budget.ledger import Entry
from energylens.budget.periods import Span
from energylens.budget.usage import Usage, growth_allowed, usage
from energylens.decide.budgets.allowance import allowance
from energylens.decide.budgets.budget import read_budget
from energylens.decide.budgets.status import CountedMember, Look, status_of_budget
from energylens.decide.deployment.observed.observation import Allowed
from energylens.decide.planned import planned
from energylens.decide.reasons import Reason
from energylens.planner.types import BudgetLimit, EnergyLeft

START = datetime(2026, 11, 25, tzinfo=UTC)
DAY = Span(START, START + timedelta(days=1))
Body = dict[str, Any]


def deployment(name: str, watts: int, **spec: Any) -> Body:
    plan = {"predicted": {"powerWatts": watts}, "gpus": 8, "gpuProduct": "H100"}
    metadata = {"name": name, "namespace": "team", "labels": {}}
    return {"metadata": metadata, "spec": spec, "status": {"plan": plan} if watts else {}}


def look(spec: EnergyBudgetSpec, watts: list[int], measured: list[int], used: int, hours: float) -> Look:
    now = START + timedelta(hours=hours)
    entries = [Entry("u", "team", "m0", now.replace(microsecond=0), used * 3600.0)]
    members = [
        CountedMember(("team", f"m{i}"), f"u{i}", 0, w, w, (w / 2,), True, None, None, m, max(0.0, m - w), True, False)
        for i, (w, m) in enumerate(zip(watts, measured, strict=True))
    ]
    found = usage(spec, entries, DAY, now, None)
    return Look(spec, 1, EnergyBudgetStatus(), members, entries, DAY, now, found, [], None)


def condition(status: EnergyBudgetStatus) -> tuple[str, str, str]:
    (found,) = [c for c in status.conditions if c.type == "WithinEnergyBudget"]
    return found.status, found.reason, found.message


def check(found: Allowed, committed: int) -> int:
    """Assert that a member's verdict and its numbers say the same; return how many numbers were compared."""
    text = found.view.message
    within = re.findall(r"(\d+) W are committed of (\d+) W", text)
    more_watts = re.findall(r"(\d+) W are (?:committed|measured), (\d+) W more than \S+=(\d+)", text)
    all_used = re.findall(r"(\d+) Wh are used of \S+=(\d+)", text)
    too_fast = re.findall(r"(\d+) W are committed, and \S+ Wh lasts at up to (\d+) W", text)
    for used, of in within:
        assert (found.view.status, int(used)) == ("True", committed)
        assert int(used) <= int(of)
    for used, more, limit in more_watts:
        assert found.view.status == "False"
        assert int(used) - int(limit) == int(more) > 0
    for used, limit in all_used:
        assert found.view.status == "False"
        assert int(used) >= int(limit)
    if "does not last at the power that is committed" in text:
        assert (found.view.status, found.view.reason) == ("True", Reason.RUNS_OUT)
    for used, lasts in too_fast:
        assert (found.view.status, found.view.reason) == ("True", Reason.RUNS_OUT)
        assert int(used) > int(lasts)
    return len(within) + len(more_watts) + len(all_used) + len(too_fast)


limits = st.fixed_dictionaries(
    {"period": st.just("Day")},
    optional={"powerWatts": st.integers(1, 4000), "energyWattHours": st.integers(1, 60_000)},
).filter(lambda spec: len(spec) > 1)


@given(
    limits,
    st.sampled_from(["Report", "Deny"]),
    st.lists(st.tuples(st.integers(1, 1500), st.integers(0, 1800)), min_size=1, max_size=4),
    st.integers(0, 60_000),
    st.floats(0, 23.9),
)
def test_a_budget_and_its_members_agree(
    spec: Body, action: str, members: list[tuple[int, int]], used: int, hours: float
) -> None:
    parsed = EnergyBudgetSpec.model_validate({**spec, "action": action})
    watts, measured = [w for w, _ in members], [m for _, m in members]
    now = START + timedelta(hours=hours)
    status = status_of_budget(look(parsed, watts, measured, used, hours))
    body = {
        "metadata": {"name": "cap", "namespace": "team"},
        "spec": {**spec, "action": action},
        "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    everybody = [planned(deployment(f"m{i}", w)) for i, w in enumerate(watts)]
    found = allowance(everybody[0], [read_budget(body)], everybody, now)
    check(found, sum(watts))
    assert status.committed_power_watts == sum(watts)
    own_status, own_reason, own_text = condition(status)
    assert (own_status == "False") == (found.view.reason == Reason.OVER_BUDGET) == (own_reason == "Exceeded")
    # The figures are the budget's own; its members say of which limits they are.
    limits_of_it = set(re.findall(r"spec\.\w+=\d+", own_text)) if own_status == "False" else set()
    assert limits_of_it <= set(re.findall(r"spec\.\w+=\d+", found.view.message))
    assert found.status is not None
    assert (found.status.name, found.status.action) == ("EnergyBudget team/cap", action)


@given(
    limits,
    st.sampled_from(["Warn", "Enforce"]),
    st.integers(0, 3000),
    st.one_of(st.none(), st.integers(0, 3000)),
    st.integers(0, 60_000),
    st.floats(0, 23.9),
)
def test_the_verdict_on_a_budget_of_ones_own_agrees_with_its_numbers(
    budget: Body, action: str, watts: int, measured: int | None, used: int, hours: float
) -> None:
    now = START + timedelta(hours=hours)
    body = deployment("m", watts, energy={"budget": {**budget, "action": action}})
    body["status"]["energyAccount"] = {
        "periodStart": "2026-11-25T00:00:00Z",
        "resetTime": "2026-11-26T00:00:00Z",
        "measuredJoules": used * 3600,
        "accountedUntil": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if measured is not None:
        body["status"]["measured"] = {"powerWatts": measured}
    found = allowance(planned(body), [], [planned(body)], now)
    assert check(found, watts)
    power, energy = budget.get("powerWatts"), budget.get("energyWattHours")
    drawn = max(watts, measured or 0) if watts else 0
    over = (power is not None and drawn > power) or (energy is not None and used >= energy)
    assert (found.view.reason == Reason.OVER_BUDGET) == over
    assert found.status is not None
    assert found.status.name == "spec.energy.budget"
    if action == "Warn":
        assert found.allowance is None
        return
    assert found.allowance is not None
    whole = min(power or 10**9, (energy or 10**9) / 24)
    assert found.allowance.watts <= max(1.0, whole)
    # What runs within a whole period is not pushed out by what this one has left.
    assert found.allowance.watts >= min(watts, int(whole))


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.floats(0.01, 24), st.integers(0, 2000), st.integers(1, 3000))
def test_the_value_that_a_message_names_leaves_the_power(
    value: int, used: int, hours_left: float, others: int, watts: int
) -> None:
    limit = BudgetLimit("spec.energyWattHours", value, EnergyLeft(used, hours_left, 24.0), float(others))
    (needed,) = limit.needed(np.asarray([float(watts)]))
    spec = EnergyBudgetSpec.model_validate({"energyWattHours": max(1, int(needed)), "period": "Day"})
    now = DAY.end - timedelta(hours=hours_left)
    allowed = growth_allowed(spec, Usage(used, 0.0, None, float(needed), "spec.energyWattHours"), DAY, now)
    assert allowed is not None
    assert allowed.watts - others >= watts - 1e-6
