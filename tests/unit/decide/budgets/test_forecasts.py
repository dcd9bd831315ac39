"""The forecast of a budget with a carbon limit, or the reason why there is none."""

from __future__ import annotations

from typing import Any

import pytest

from energylens.api.energybudget import ClusterEnergyBudgetSpec, EnergyBudgetSpec
from energylens.decide.budgets.forecasts import forecast_of, place, where
from energylens.decide.reasons import BudgetReason


def spec(**ref: Any) -> EnergyBudgetSpec:
    carbon = {"gramsPerPeriod": 1000, "forecastConfigMapRef": {"name": "grid", **ref}}
    kind = ClusterEnergyBudgetSpec if "namespace" in ref else EnergyBudgetSpec
    return kind.model_validate({"carbon": carbon, "period": "Day"})


POINTS = "time,gramsPerKilowattHour\n2026-11-25T00:00Z,300\n2026-11-25T01:00Z,200\n"


def test_a_budget_without_a_carbon_limit_needs_no_forecast() -> None:
    assert forecast_of("team", EnergyBudgetSpec(power_watts=1), None) == (None, None)


@pytest.mark.parametrize(
    ("own", "ref", "expected"),
    [
        ("team", {}, ("team", "grid")),
        ("", {"namespace": "energy"}, ("energy", "grid")),
    ],
)
def test_the_config_map_is_in_the_budgets_namespace_unless_the_spec_names_another(
    own: str, ref: dict[str, str], expected: tuple[str, str]
) -> None:
    assert place(own, spec(**ref)) == expected
    assert where(own, spec(**ref)) == f"spec.carbon.forecastConfigMapRef: ConfigMap {'/'.join(expected)}"


MAP = "spec.carbon.forecastConfigMapRef: ConfigMap team/grid"


@pytest.mark.parametrize(
    ("found", "reason", "message"),
    [
        (None, BudgetReason.FORECAST_MISSING, f"{MAP} does not exist"),
        ({}, BudgetReason.FORECAST_MISSING, f"{MAP} has no key 'mine'; its keys: none"),
        ({"data": None}, BudgetReason.FORECAST_MISSING, f"{MAP} has no key 'mine'; its keys: none"),
        (
            {"data": {"b": "", "a": ""}},
            BudgetReason.FORECAST_MISSING,
            f"{MAP} has no key 'mine'; its keys: a, b",
        ),
        ({"data": {"mine": "{"}}, BudgetReason.FORECAST_INVALID, f"{MAP}, key 'mine': "),
    ],
)
def test_a_forecast_that_is_missing_or_unreadable_is_a_problem(found: Any, reason: BudgetReason, message: str) -> None:
    forecast, problem = forecast_of("team", spec(key="mine"), found)
    assert forecast is None
    assert problem is not None
    assert problem[0] == reason
    assert problem[1].startswith(message)
    if reason == BudgetReason.FORECAST_MISSING:
        assert problem[1] == message


def test_a_forecast_is_read_from_its_key() -> None:
    forecast, problem = forecast_of("team", spec(key="mine"), {"data": {"mine": POINTS}})
    assert problem is None
    assert forecast is not None
    assert forecast.highest == 300
