"""The objective of a plan, the deployment's own budget and the power limit of its GPUs."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from energylens.api.base import ApiModel, Rule
from energylens.api.time_zone import KNOWN_TIME_ZONE, Period, TimeZone

Objective = Literal["MinimizeEnergy", "MinimizePower", "MinimizeGPUs"]

_MAX_WATTS = 1_000_000_000
_MAX_WATT_HOURS = 1_000_000_000_000


def _budget_limits_something(budget: DeploymentBudget) -> str | None:
    if budget.power_watts is None and budget.energy_watt_hours is None:
        return "limits nothing: set powerWatts, energyWattHours or both"
    return None


_BUDGET_LIMITS_SOMETHING = Rule(
    summary="set powerWatts, energyWattHours or both",
    cel="has(self.powerWatts) || has(self.energyWattHours)",
    message_cel="'limits nothing: set powerWatts, energyWattHours or both'",
    check=_budget_limits_something,
)


class DeploymentBudget(ApiModel):
    """The deployment's own budget; platform teams govern with EnergyBudget."""

    rules: ClassVar[tuple[Rule, ...]] = (_BUDGET_LIMITS_SOMETHING, KNOWN_TIME_ZONE)

    power_watts: int | None = Field(
        default=None, ge=1, le=_MAX_WATTS, description="Maximum power that all GPUs of the deployment may draw, W."
    )
    energy_watt_hours: int | None = Field(
        default=None, ge=1, le=_MAX_WATT_HOURS, description="Maximum GPU energy in one period, Wh."
    )
    period: Period = Field(default="Month", description="Period over which energyWattHours counts.")
    time_zone: TimeZone = "UTC"
    action: Literal["Warn", "Enforce"] = Field(
        default="Warn",
        description="Warn: only condition WithinEnergyBudget and an event report an exceeded budget. Enforce: a plan "
        "must also stay within powerWatts, and within energyWattHours over a whole period; a new or larger plan must "
        "also fit in the remaining energy. Running pods are not stopped.",
    )


def _power_cap_watts(cap: PowerCap) -> str | None:
    if cap.mode == "Fixed" and cap.watts_per_gpu is None:
        return "mode Fixed needs wattsPerGPU; set wattsPerGPU, or set mode to Never or Plan"
    if cap.mode != "Fixed" and cap.watts_per_gpu is not None:
        return (
            f"wattsPerGPU ({cap.watts_per_gpu}) is for mode Fixed, and mode is {cap.mode}; "
            "set mode to Fixed or leave wattsPerGPU out"
        )
    return None


_POWER_CAP_WATTS = Rule(
    summary="wattsPerGPU is set with mode Fixed, and only then",
    cel="(self.mode == 'Fixed') == has(self.wattsPerGPU)",
    message_cel="self.mode == 'Fixed' ? "
    "'mode Fixed needs wattsPerGPU; set wattsPerGPU, or set mode to Never or Plan' : "
    "'wattsPerGPU (%s) is for mode Fixed, and mode is %s; set mode to Fixed or leave wattsPerGPU out'.format("
    "[self.wattsPerGPU, self.mode])",
    check=_power_cap_watts,
)


class PowerCap(ApiModel):
    """Whether GPUs run under a power limit below the product's default."""

    rules: ClassVar[tuple[Rule, ...]] = (_POWER_CAP_WATTS,)

    mode: Literal["Never", "Fixed", "Plan"] = Field(
        default="Never",
        description="Never: the product's default limit. Fixed: wattsPerGPU. Plan: the planner chooses the limit.",
    )
    watts_per_gpu: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Power limit of each GPU, W; required for mode Fixed, and allowed only there.",
    )


class Energy(ApiModel):
    """Objective, and the deployment's own budget."""

    objective: Objective = Field(
        default="MinimizeEnergy",
        description="MinimizeEnergy: joules per output token. MinimizePower: watts. MinimizeGPUs: GPUs, then energy.",
    )
    budget: DeploymentBudget | None = Field(default=None, description="The deployment's own budget.")
    power_cap: PowerCap = Field(default=PowerCap(), description="Power limit of the GPUs.")
    priority: int = Field(
        default=0,
        ge=-1_000_000,
        le=1_000_000,
        description="Under an EnergyBudget with action Shed, members of lower priority shed power first.",
    )
    min_replicas: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="Minimum number of replicas that an EnergyBudget with action Shed leaves.",
    )
