"""The chance of breaking a latency objective: its limits, what counts, and what it decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.unit.planner.search.test_objective import candidates

from energylens.api.llmdeployment import LLMDeploymentSpec
from energylens.planner.search.breach import breach_percent, latency_share, with_breach
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.comparison import by_risk
from energylens.planner.search.objective import best
from energylens.planner.search.ranking import LARGEST_BREACH, LATENCY_SHARE, breach_chance


def spec(objective: str = "MinimizeEnergy", **slo: int) -> LLMDeploymentSpec:
    return LLMDeploymentSpec.model_validate(
        {
            "model": {"name": "example/model"},
            "workload": {"inputTokens": 500, "outputTokens": 200, "requestsPerSecond": "1"},
            "energy": {"objective": objective},
            "slo": slo,
        }
    )


def bounded(predicted: list[float], upper: list[float], joules: list[float] | None = None) -> Candidates:
    """Make candidates of predicted ITLs and the upper ends of their 80 % intervals."""
    rows = candidates(*({"joules": value} for value in joules or [0.4] * len(predicted)))
    itl, end = np.array(predicted), np.array(upper)
    return replace(rows, itl_ms=itl, itl_upper_ms=itl + LATENCY_SHARE * (end - itl))


def test_a_tenth_of_the_runs_is_above_the_upper_end_and_half_above_the_prediction() -> None:
    at = np.array([20.0, 20.0, 20.0])
    limits = [20.0, 22.0, 20.0 + LATENCY_SHARE * 2.0]
    found = [float(breach_chance(limit, at[:1], 22.0 * np.ones(1))[0]) for limit in limits]
    assert found == pytest.approx([0.5, 0.1, LARGEST_BREACH], abs=1e-5)


@pytest.mark.parametrize(
    ("predicted", "upper", "chance"), [(20.0, 20.0, 0.0), (31.0, 31.0, 1.0), (np.nan, np.nan, 1.0)]
)
def test_without_an_interval_the_prediction_is_certain(predicted: float, upper: float, chance: float) -> None:
    assert breach_chance(30.0, np.array([predicted]), np.array([upper])).tolist() == [chance]


def test_only_candidates_that_may_be_chosen_have_a_chance_that_counts() -> None:
    rows = with_breach(bounded([20.0, 25.0, 29.0], [24.0, 30.0, 35.0]), spec(itlMilliseconds=30))
    assert 0.0 < rows.breach_chance[0] < rows.breach_chance[1] == pytest.approx(0.1, abs=1e-5)
    assert rows.breach_chance[2] == 0.0
    assert breach_percent(rows, 1, spec(itlMilliseconds=30)) == 11


@pytest.mark.parametrize("asked", [spec(), spec("MinimizeGPUs", itlMilliseconds=30)])
def test_no_chance_counts_without_bounds_or_where_gpus_are_counted(asked: LLMDeploymentSpec) -> None:
    rows = with_breach(bounded([25.0], [30.0]), asked)
    assert rows.breach_chance.tolist() == [0.0]
    assert breach_percent(rows, 0, asked) is None


def test_predictions_that_count_as_certain_have_no_chance() -> None:
    asked = spec(itlMilliseconds=30)
    certain = asked.model_copy(update={"planning": asked.planning.model_copy(update={"safety_margin_percent": 0})})
    assert breach_percent(with_breach(bounded([25.0], [25.0]), certain), 0, certain) is None


def test_the_largest_chance_counts_where_rounding_accepts_a_candidate() -> None:
    end = 20.0 + (10.0 + 4e-7) / LATENCY_SHARE
    rows = with_breach(bounded([20.0], [end]), spec(itlMilliseconds=30))
    assert rows.breach_chance == pytest.approx([LARGEST_BREACH])


def test_chances_that_look_equal_get_more_digits() -> None:
    rows = with_breach(bounded([25.0, 25.01], [30.0, 30.01], [0.4, 0.3999]), spec(itlMilliseconds=30))
    text: Any = by_risk(rows, 1, rows, 0, "MinimizeEnergy")
    assert text.endswith("but breaks spec.slo with a chance of 10.04 % instead of 10.01 %")


def test_the_objective_that_is_broken_most_easily_decides() -> None:
    rows = bounded([10.0], [12.0])
    rows = replace(rows, tpot_ms=np.array([25.0]), tpot_upper_ms=np.array([25.0 + LATENCY_SHARE * 5.0]))
    found = with_breach(rows, spec(itlMilliseconds=30, tpotMilliseconds=30))
    assert found.breach_chance == pytest.approx([0.1], abs=1e-5)


@pytest.mark.parametrize(("saved", "chosen"), [(0.15, 0), (0.45, 1)])
def test_a_plan_near_its_bound_must_save_more_than_its_chance_costs(saved: float, chosen: int) -> None:
    rows = bounded([10.0, 25.0], [12.0, 30.0], [0.4, 0.4 * (1.0 - saved)])
    rows = with_breach(rows, spec(itlMilliseconds=30))
    assert best(rows, np.ones(2, dtype=bool), "MinimizeEnergy") == chosen


def test_the_reason_of_a_plan_near_its_bound_names_both_chances() -> None:
    rows = with_breach(bounded([10.0, 25.0], [12.0, 30.0], [0.4, 0.36]), spec(itlMilliseconds=30))
    text: Any = by_risk(rows, 1, rows, 0, "MinimizeEnergy")
    assert text.endswith("but breaks spec.slo with a chance of 11 % instead of 1 %")


def test_counted_gpus_keep_the_whole_margin() -> None:
    assert latency_share("MinimizeGPUs") == 1.0
    assert latency_share("MinimizeEnergy") == latency_share("MinimizePower") == LATENCY_SHARE
