"""Which changes of a budget's status reconcile its members."""

from __future__ import annotations

from typing import Any

import pytest

from energylens.api.energybudget import EnergyBudgetStatus
from energylens.decide.budgets.budget import concerns_members

MEMBER = {"namespace": "team", "name": "llama", "committedPowerWatts": 700}
CONDITION = {
    "type": "WithinEnergyBudget",
    "status": "True",
    "reason": "Within",
    "message": "700 of 1,000 W",
    "lastTransitionTime": "2026-11-28T00:00:00Z",
}
BEFORE: dict[str, Any] = {
    "observedGeneration": 1,
    "periodStart": "2026-11-01T00:00:00Z",
    "committedPowerWatts": 700,
    "members": [MEMBER],
    "conditions": [CONDITION],
}


@pytest.mark.parametrize(
    ("change", "concerns"),
    [
        ({"observedGeneration": 2}, True),
        ({"periodStart": "2026-12-01T00:00:00Z"}, True),
        ({"members": [{**MEMBER, "allowedPowerWatts": 350}]}, True),
        ({"conditions": [{**CONDITION, "reason": "RunsOut"}]}, True),
        ({"conditions": [{**CONDITION, "message": "710 of 1,000 W"}]}, False),
        ({"committedPowerWatts": 710, "members": [{**MEMBER, "committedPowerWatts": 710}]}, False),
        ({"members": [MEMBER, {**MEMBER, "name": "other"}]}, False),
    ],
)
def test_members_are_reconciled_for_verdicts_caps_and_periods(change: dict[str, Any], concerns: bool) -> None:
    before, after = (EnergyBudgetStatus.model_validate(status) for status in (BEFORE, BEFORE | change))
    assert concerns_members(before, after) is concerns
