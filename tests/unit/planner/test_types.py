"""Free GPUs of a node, and the power that budgets leave, by value."""

from __future__ import annotations

import numpy as np
import pytest

from energylens.planner.types import (
    BudgetLimit,
    ClusterSnapshot,
    EnergyLeft,
    GpuAllocation,
    GpuNode,
    PowerAllowance,
)

BUDGET = "EnergyBudget a/b"
HOURS = tuple(float(100 + hour) for hour in range(168))


def test_gpus_of_the_owner_count_as_free_for_the_owner_only() -> None:
    node = GpuNode("a", "H100", 8, (GpuAllocation("t/chat", 3), GpuAllocation("t/other", 2), GpuAllocation("", 1)))
    assert (node.free_for("t/chat"), node.free_for("t/other"), node.free_for("t/third"), node.free_now) == (5, 4, 2, 2)
    crowded = GpuNode("a", "H100", 1, (GpuAllocation("", 3),))
    assert (crowded.free_for(""), crowded.free_for("t/chat"), crowded.free_now) == (1, 0, 0)
    assert ClusterSnapshot((node, GpuNode("b", "A100", 1), crowded)).products() == ("A100", "H100")


@pytest.mark.parametrize(
    ("first", "count", "watts"),
    [(0, 1, 100), (5, 3, 105), (167, 1, 267), (166, 3, 100), (10, 168, 100), (10, 1000, 100), (168, 1, 100)],
)
def test_the_power_of_some_hours_is_the_least_of_them(first: int, count: int, watts: int) -> None:
    limit = BudgetLimit("spec.powerWatts", 1000, others_watts=400.0)
    found = PowerAllowance(500.0, BUDGET, limit=limit, hours=HOURS).within(first, count)
    assert (found.watts, found.hours, found.source) == (watts, None, BUDGET)
    # In the hour of least power the others draw 400 W.
    assert found.limit is not None
    assert found.limit.others_watts == 400.0 - (watts - 100)
    assert PowerAllowance(500.0, BUDGET, hours=HOURS).within(first, count).limit is None
    flat = PowerAllowance(500.0, BUDGET)
    assert flat.within(first, count) is flat


@pytest.mark.parametrize(
    ("watts", "others", "energy", "needed"),
    [
        (50.0, 0.0, None, 50),
        (50.2, 0.5, None, 51),
        (50.0000001, 0.0, None, 50),
        # The whole period at this power, of which enough is left.
        (50.0, 0.0, EnergyLeft(100.0, 10.0, 24.0), 1200),
        (40.0, 10.0, EnergyLeft(700.0, 10.0, 24.0), 1200),
        # Too much is used: a watt above the power for the rest, 900 + 51 x 10.
        (50.0, 0.0, EnergyLeft(900.0, 10.0, 24.0), 1410),
        # The same in steps of a hundredth of the mean power: (9000 + 5000) / (1 - 10 / 2400).
        (500.0, 0.0, EnergyLeft(9000.0, 10.0, 24.0), 14059),
    ],
)
def test_a_limit_that_leaves_a_power_has_this_value(
    watts: float, others: float, energy: EnergyLeft | None, needed: int
) -> None:
    limit = BudgetLimit("spec.energyWattHours", 1000, energy, others)
    assert limit.needed(np.asarray([watts, 1.0]))[0] == needed
    assert limit.unit == ("W" if energy is None else "Wh")


@pytest.mark.parametrize(
    ("limit", "because", "text", "field"),
    [
        (None, "", f"{BUDGET}=1806", BUDGET),
        (None, "nobody looked", f"{BUDGET}=1806 W (nobody looked)", BUDGET),
        (BudgetLimit("", 2000), "", f"{BUDGET}=2000 (1806 W)", BUDGET),
        (BudgetLimit("spec.powerWatts", 2000), "", f"{BUDGET}=1806 W (of spec.powerWatts=2000 W)",
         f"{BUDGET}: spec.powerWatts"),
        (BudgetLimit("spec.energyWattHours", 43320, EnergyLeft(1, 2, 24)), "",
         f"{BUDGET}=1806 W (of spec.energyWattHours=43320 Wh)", f"{BUDGET}: spec.energyWattHours"),
    ],
)  # fmt: skip
def test_the_available_power_in_words(limit: BudgetLimit | None, because: str, text: str, field: str) -> None:
    found = PowerAllowance(1805.6, BUDGET, limit=limit, because=because)
    assert (str(found), found.field) == (text, field)
