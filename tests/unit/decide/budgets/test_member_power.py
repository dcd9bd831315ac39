"""Power of a member above its plan: judged while all pods are of the plan, and kept in proportion meanwhile."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from energylens.decide.budgets.member_power import (
    LEAST_SECONDS,
    PRESENT_SECONDS,
    STEADY_SECONDS,
    Steadiness,
    as_measured,
    excess_watts,
    present_watts,
)
from energylens.decide.planned import PlannedDeployment, planned
from energylens.measure.energy import EnergySpan

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
KEY = ("team", "llama")


def deployment(plan_hash: str = "a" * 16, running: str = "a" * 16, gpus: int = 8) -> PlannedDeployment:
    plan = {"hash": plan_hash, "predicted": {"powerWatts": 1000}, "gpus": gpus, "gpuProduct": "H100", "replicas": 2}
    status = {"plan": plan, "activeRevision": {"planHash": running, "powerWatts": 1000}}
    return planned({"metadata": {"name": "llama", "namespace": "team"}, "spec": {}, "status": status})


def energy(watts: float, seconds: float = 1e9) -> Any:
    """Return what measures a constant power, for no longer than so many seconds."""

    def span(key: Any, start: float, nodes: Any) -> EnergySpan:
        begin = max(start, NOW.timestamp() - seconds)
        return EnergySpan(begin, NOW.timestamp(), watts * (NOW.timestamp() - begin))

    return span


def steady(ago: float = 1000.0, **changes: Any) -> Steadiness:
    made = deployment()
    pods = (made.running_hash, made.plan.replicas, 8)
    return Steadiness(**{"pods": pods, "since": NOW - timedelta(seconds=ago), **changes})


def excess(known: Steadiness, found: PlannedDeployment | None = None, watts: float = 1200.0, **changes: Any) -> float:
    fields = {"bound": 8, "committed": 1000.0, "energy": energy(watts), **changes}
    return excess_watts(known, found or deployment(), fields["bound"], fields["committed"], fields["energy"], None, NOW)


@pytest.mark.parametrize(("seconds", "watts"), [(LEAST_SECONDS, 500.0), (LEAST_SECONDS - 1, None)])
def test_the_present_power_needs_half_a_minute(seconds: float, watts: float | None) -> None:
    assert present_watts(energy(500.0, seconds), KEY, None, NOW) == watts
    assert present_watts(lambda *_: None, KEY, None, NOW) is None


def test_the_present_power_is_of_the_last_minutes() -> None:
    asked = []

    def span(key: Any, start: float, nodes: Any) -> None:
        asked.append(NOW.timestamp() - start)

    present_watts(span, KEY, None, NOW)
    assert asked == [PRESENT_SECONDS]


def test_the_excess_is_measured_power_above_the_plan() -> None:
    known = steady()
    assert excess(known) == pytest.approx(200.0)
    assert known.excess_ratio == pytest.approx(0.2)
    assert excess(known, watts=900.0) == pytest.approx(-100.0)
    assert excess(known, committed=0.0) == pytest.approx(1200.0)
    assert known.excess_ratio is None


@pytest.mark.parametrize(("ago", "is_judged"), [(STEADY_SECONDS, True), (STEADY_SECONDS - 1, False)])
def test_a_plan_is_judged_after_a_while(ago: float, is_judged: bool) -> None:
    found = excess(steady(ago, excess_ratio=0.5))
    assert found == pytest.approx(200.0 if is_judged else 500.0)
    # Only the time since all pods are of the plan counts.
    short = excess(steady(excess_ratio=0.5), energy=energy(1200.0, ago))
    assert short == pytest.approx(200.0 if is_judged else 500.0)


def test_the_last_excess_is_kept_in_proportion_while_pods_are_replaced() -> None:
    for found, bound in ((deployment("b" * 16), 8), (deployment(), 7), (replace(deployment(), plan=None), 8)):
        known = steady(excess_ratio=0.2)
        assert excess(known, found, bound=bound, committed=500.0) == pytest.approx(100.0)
        assert known.since is None
    assert excess(steady(5.0)) == 0.0
    assert excess(steady(excess_ratio=0.2), energy=lambda *_: None) == pytest.approx(200.0)


def test_other_pods_are_judged_anew() -> None:
    known = Steadiness()
    assert excess(known) == 0.0
    assert known.since == NOW
    other = steady(pods=("x", 1, 1))
    assert excess(other) == 0.0
    assert other.since == NOW
    same = steady()
    before = same.since
    excess(same)
    assert same.since == before


def test_a_span_is_counted_as_it_was_measured() -> None:
    found = as_measured(EnergySpan(NOW.timestamp() - 60, NOW.timestamp(), 5.0))
    assert found is not None
    assert (found.start, found.end, found.joules) == (NOW - timedelta(minutes=1), NOW, 5.0)
    assert as_measured(None) is None
