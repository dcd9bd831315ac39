"""EnergyBudget (namespaced) and ClusterEnergyBudget: what platform teams cap."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from energylens.api.base import ApiModel, Condition
from energylens.api.llmdeployment import ObjectMeta


class LabelSelectorRequirement(ApiModel):
    """One requirement of a label selector."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class LabelSelector(ApiModel):
    """A Kubernetes label selector; empty selects everything."""

    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


class Carbon(ApiModel):
    """A carbon allowance: a forecast in grams of CO2 equivalent per kWh by hour, and grams per period."""

    forecast_config_map_ref: str
    grams_per_period: int = Field(ge=1)


class EnergyBudgetSpec(ApiModel):
    """What members may draw."""

    selector: LabelSelector = LabelSelector()
    power_watts: int | None = Field(default=None, ge=1)
    energy_watt_hours: int | None = Field(default=None, ge=1)
    period: Literal["Hour", "Day", "Week", "Month"] = "Month"
    time_zone: str = "UTC"
    action: Literal["Report", "Deny", "Shed"] = "Report"
    carbon: Carbon | None = None


class BudgetMember(ApiModel):
    """One LLMDeployment under a budget."""

    name: str
    namespace: str | None = None
    committed_power_watts: int = 0
    measured_power_watts: int | None = None


class EnergyBudgetStatus(ApiModel):
    """How much of the budget is used."""

    observed_generation: int | None = None
    committed_power_watts: int | None = None
    measured_power_watts: int | None = None
    used_watt_hours: int | None = None
    used_percent: int | None = None
    forecast: str | None = None
    member_count: int | None = None
    members: tuple[BudgetMember, ...] = ()
    conditions: tuple[Condition, ...] = ()


class EnergyBudget(ApiModel):
    """A namespace's budget."""

    api_version: Literal["energylens.dev/v1alpha1"] = "energylens.dev/v1alpha1"
    kind: Literal["EnergyBudget"] = "EnergyBudget"
    metadata: ObjectMeta
    spec: EnergyBudgetSpec
    status: EnergyBudgetStatus = EnergyBudgetStatus()
