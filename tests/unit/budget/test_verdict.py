"""What a budget says of figures that exceed its limits."""

from __future__ import annotations

import pytest

from energylens.api.energybudget import EnergyBudgetSpec
from energylens.budget.verdict import Figures, exceeded

POWER = EnergyBudgetSpec(power_watts=1000)
ENERGY = EnergyBudgetSpec(energy_watt_hours=500)
FIELD = "spec.energyWattHours"


def figures(
    committed: int = 0,
    measured: int | None = None,
    used: int | None = None,
    remaining: int | None = None,
    field: str | None = None,
) -> Figures:
    return Figures(committed, measured, used, remaining, field)


@pytest.mark.parametrize(
    ("spec", "found", "texts"),
    [
        (POWER, figures(committed=1000, measured=1000), []),
        (POWER, figures(committed=1001), ["1001 W are committed, 1 W more than spec.powerWatts=1000"]),
        (POWER, figures(measured=1200), ["1200 W are measured, 200 W more than spec.powerWatts=1000"]),
        (POWER, figures(committed=9, measured=None), []),
        (
            POWER,
            figures(committed=1001, measured=1002),
            [
                "1001 W are committed, 1 W more than spec.powerWatts=1000",
                "1002 W are measured, 2 W more than spec.powerWatts=1000",
            ],
        ),
        (EnergyBudgetSpec(energy_watt_hours=1), figures(committed=5000, measured=5000), []),
        (ENERGY, figures(used=499, remaining=1, field=FIELD), []),
        (ENERGY, figures(used=None, remaining=0, field=FIELD), []),
        (ENERGY, figures(used=500, remaining=0, field=None), []),
        (ENERGY, figures(used=500, remaining=0, field=FIELD), ["500 Wh are used of spec.energyWattHours=500"]),
        (
            ENERGY,
            figures(used=512, remaining=0, field=FIELD),
            ["512 Wh are used of spec.energyWattHours=500, 12 Wh more than allowed"],
        ),
        (ENERGY, figures(used=480, remaining=0, field=FIELD), ["480 Wh are used of spec.energyWattHours=500"]),
        (
            ENERGY,
            figures(used=300, remaining=0, field="spec.carbon"),
            ["300 Wh are used, all that spec.carbon allows"],
        ),
        (POWER, figures(used=300, remaining=0, field=FIELD), [f"300 Wh are used, all that {FIELD} allows"]),
    ],
)
def test_each_exceeded_limit_is_said_with_its_figures(spec: EnergyBudgetSpec, found: Figures, texts: list[str]) -> None:
    assert exceeded(spec, found) == texts


@pytest.mark.parametrize(
    ("spec", "found", "text"),
    [
        (POWER, figures(committed=1001), "more than spec.energy.budget.powerWatts=1000 W are committed"),
        (
            ENERGY,
            figures(used=512, remaining=0, field=FIELD),
            "all of spec.energy.budget.energyWattHours=500 Wh is used",
        ),
        (ENERGY, figures(used=3, remaining=0, field="spec.carbon"), "all that spec.carbon allows is used"),
    ],
)
def test_without_figures_the_text_stays_while_figures_move(spec: EnergyBudgetSpec, found: Figures, text: str) -> None:
    assert exceeded(spec, found, "spec.energy.budget.", by_how_much=False) == [text]
