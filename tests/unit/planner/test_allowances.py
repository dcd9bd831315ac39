"""The tighter of the power that budgets leave and the deployment's own limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from energylens.api.llmdeployment import LLMDeployment
from energylens.planner.planning import effective_allowance
from energylens.planner.types import PowerAllowance

OWN, BUDGET = "spec.energy.budget.powerWatts", "EnergyBudget a/b"
HOURS = (1000.0,) * 84 + (600.0,) * 84


def budget(watts: float, hours: tuple[float, ...] | None = None) -> PowerAllowance:
    return PowerAllowance(watts, BUDGET, hours=hours)


@pytest.mark.parametrize(
    ("own", "given", "found"),
    [
        (None, None, None),
        (None, budget(700), budget(700)),
        ({"powerWatts": 800, "action": "Warn"}, None, None),
        ({"powerWatts": 800, "action": "Warn"}, budget(900), budget(900)),
        ({"energyWattHours": 800, "action": "Enforce"}, budget(900), budget(900)),
        ({"powerWatts": 800, "action": "Enforce"}, None, PowerAllowance(800, OWN)),
        ({"powerWatts": 800, "action": "Enforce"}, budget(799), budget(799)),
        ({"powerWatts": 800, "action": "Enforce"}, budget(800), PowerAllowance(800, OWN)),
        ({"powerWatts": 800, "action": "Enforce"}, budget(801), PowerAllowance(800, OWN)),
        ({"powerWatts": 600, "action": "Enforce"}, budget(1000, HOURS), PowerAllowance(600, OWN)),
        ({"powerWatts": 800, "action": "Enforce"}, budget(1000, HOURS), budget(800, (800.0,) * 84 + (600.0,) * 84)),
        ({"powerWatts": 1200, "action": "Enforce"}, budget(1000, HOURS), budget(1000, HOURS)),
    ],
)
def test_the_tighter_limit_holds_in_every_hour(
    own: dict[str, Any] | None,
    given: PowerAllowance | None,
    found: PowerAllowance | None,
    make_deployment: Callable[..., LLMDeployment],
) -> None:
    spec = make_deployment(**({} if own is None else {"energy": {"budget": own}})).spec
    assert effective_allowance(spec, given) == found
