"""EnergyBudget and ClusterEnergyBudget: caps on power and energy in one namespace, or across several."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from energylens.api.base import (
    ATOMIC_LIST,
    ApiModel,
    DataKey,
    Labels,
    ObjectMeta,
    ObjectName,
    Rule,
)
from energylens.api.energybudget_status import BudgetMember, EnergyBudgetStatus, LedgerEntry, UsagePoint
from energylens.api.time_zone import KNOWN_TIME_ZONE, Period, TimeZone

__all__ = [
    "BudgetMember",
    "Carbon",
    "ClusterEnergyBudget",
    "ClusterEnergyBudgetSpec",
    "EnergyBudget",
    "EnergyBudgetSpec",
    "EnergyBudgetStatus",
    "ForecastRef",
    "LabelSelector",
    "LabelSelectorRequirement",
    "LedgerEntry",
    "Period",
    "Shedding",
    "UsagePoint",
]

_MAX_WATTS = 1_000_000_000
_MAX_WATT_HOURS = 1_000_000_000_000


def _selector_values(requirement: LabelSelectorRequirement) -> str | None:
    needs_values = requirement.operator in ("In", "NotIn")
    if needs_values == bool(requirement.values):
        return None
    if needs_values:
        return f"operator {requirement.operator} of key '{requirement.key}' needs values"
    return f"operator {requirement.operator} of key '{requirement.key}' takes no values; leave values out"


LABEL_KEY_PATTERN = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"


def _label_keys(labels: dict[str, str]) -> dict[str, str]:
    for key in labels:
        if not re.fullmatch(LABEL_KEY_PATTERN.strip("^$"), key):
            raise ValueError(
                f"key '{key}' is not a label key such as team or example.com/team, and would select nothing"
            )
    return labels


class LabelSelectorRequirement(ApiModel):
    """One requirement of a label selector."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            summary="operators In and NotIn need values, Exists and DoesNotExist take none",
            cel="(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            message_cel="(self.operator in ['In', 'NotIn'] ? \"operator %s of key '%s' needs values\" : "
            "\"operator %s of key '%s' takes no values; leave values out\").format([self.operator, self.key])",
            check=_selector_values,
        ),
    )

    key: str = Field(min_length=1, max_length=317, pattern=LABEL_KEY_PATTERN, description="Label key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="How the label is compared.")
    values: Annotated[
        tuple[Annotated[str, Field(max_length=63, pattern=LABEL_VALUE_PATTERN)], ...],
        Field(max_length=64, json_schema_extra=ATOMIC_LIST),
    ] = Field(default=(), description="Label values, for operators In and NotIn.")


class LabelSelector(ApiModel):
    """A Kubernetes label selector; empty selects everything."""

    atomic: ClassVar[bool] = True

    # The cost that API servers estimate for the same rule in CEL is above their limit: keys have no bound there.
    match_labels: Annotated[Labels, AfterValidator(_label_keys)] = Field(
        default_factory=dict, description="Labels that members must have."
    )
    match_expressions: Annotated[
        tuple[LabelSelectorRequirement, ...], Field(max_length=32, json_schema_extra=ATOMIC_LIST)
    ] = Field(default=(), description="Requirements that the labels of members must meet.")


class ForecastRef(ApiModel):
    """A key of a ConfigMap that holds a forecast of the grid's carbon intensity."""

    name: ObjectName = Field(description="Name of the ConfigMap.")
    namespace: ObjectName | None = Field(
        default=None,
        description="Namespace of the ConfigMap, for a ClusterEnergyBudget only; an EnergyBudget reads its own.",
    )
    key: DataKey = Field(
        default="forecast.csv",
        description="Key that holds the forecast: lines of time,gramsPerKilowattHour, with times in RFC 3339.",
    )


class Carbon(ApiModel):
    """A carbon allowance: a forecast in grams of CO2 equivalent per kWh by hour, and grams per period."""

    forecast_config_map_ref: ForecastRef = Field(description="ConfigMap with the forecast.")
    grams_per_period: int = Field(
        ge=1, le=_MAX_WATT_HOURS, description="Maximum grams of CO2 equivalent that members may cause in one period."
    )


class Shedding(ApiModel):
    """How action Shed takes power from members and gives it back."""

    hysteresis_percent: int = Field(
        default=10,
        ge=0,
        le=90,
        description="Share of the budget that must stay free when power is given back to members, %.",
    )
    cooldown_seconds: int = Field(
        default=600, ge=0, le=86_400, description="Minimum time between taking power and giving it back, s."
    )


def _limits_something(spec: EnergyBudgetSpec) -> str | None:
    if spec.power_watts is None and spec.energy_watt_hours is None and spec.carbon is None:
        return "limits nothing: set powerWatts, energyWattHours or carbon"
    return None


_SPEC_RULES = (
    Rule(
        summary="set powerWatts, energyWattHours or carbon",
        cel="has(self.powerWatts) || has(self.energyWattHours) || has(self.carbon)",
        message_cel="'limits nothing: set powerWatts, energyWattHours or carbon'",
        check=_limits_something,
    ),
    KNOWN_TIME_ZONE,
)


def _own_forecast(spec: EnergyBudgetSpec) -> str | None:
    namespace = spec.carbon.forecast_config_map_ref.namespace if spec.carbon is not None else None
    if namespace is None:
        return None
    return (
        f"carbon.forecastConfigMapRef.namespace '{namespace}' is set: an EnergyBudget reads its own namespace; "
        "leave namespace out"
    )


def _named_forecast(spec: ClusterEnergyBudgetSpec) -> str | None:
    if spec.carbon is None or spec.carbon.forecast_config_map_ref.namespace is not None:
        return None
    name = spec.carbon.forecast_config_map_ref.name
    return f"carbon.forecastConfigMapRef '{name}' needs a namespace: a ClusterEnergyBudget has none of its own"


class EnergyBudgetSpec(ApiModel):
    """The power and energy that members may draw."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *_SPEC_RULES,
        Rule(
            summary="carbon.forecastConfigMapRef.namespace is for ClusterEnergyBudgets only",
            cel="!has(self.carbon) || !has(self.carbon.forecastConfigMapRef.__namespace__)",
            message_cel="\"carbon.forecastConfigMapRef.namespace '%s' is set: an EnergyBudget reads its own namespace; "
            'leave namespace out".format([self.carbon.forecastConfigMapRef.__namespace__])',
            check=_own_forecast,
        ),
    )

    selector: LabelSelector = Field(
        default=LabelSelector(),
        description="Selects the LLMDeployments of the namespace that are members; empty: all LLMDeployments.",
    )
    power_watts: int | None = Field(
        default=None, ge=1, le=_MAX_WATTS, description="Maximum power that all members together may draw, W."
    )
    energy_watt_hours: int | None = Field(
        default=None, ge=1, le=_MAX_WATT_HOURS, description="Maximum GPU energy of all members in one period, Wh."
    )
    period: Period = Field(default="Month", description="Period over which energyWattHours counts.")
    time_zone: TimeZone = "UTC"
    action: Literal["Report", "Deny", "Shed"] = Field(
        default="Report",
        description="Report: conditions report an exceeded budget. Deny: new and larger plans must fit. Shed: "
        "additionally move members to plans of less power, lowest spec.energy.priority first, until the budget holds.",
    )
    shed: Shedding = Field(default=Shedding(), description="How action Shed takes power and gives it back.")
    carbon: Carbon | None = Field(
        default=None, description="A carbon allowance: with a forecast, grams per period become another energy limit."
    )


class ClusterEnergyBudgetSpec(EnergyBudgetSpec):
    """The power and energy that members may draw, in several namespaces or on some nodes."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *_SPEC_RULES,
        Rule(
            summary="carbon.forecastConfigMapRef of a ClusterEnergyBudget needs a namespace",
            cel="!has(self.carbon) || has(self.carbon.forecastConfigMapRef.__namespace__)",
            message_cel="\"carbon.forecastConfigMapRef '%s' needs a namespace: "
            'a ClusterEnergyBudget has none of its own".format([self.carbon.forecastConfigMapRef.name])',
            check=_named_forecast,
        ),
    )

    namespace_selector: LabelSelector = Field(
        default=LabelSelector(),
        description="Selects the namespaces whose LLMDeployments are members; empty: all namespaces.",
    )
    node_selector: Annotated[Labels, AfterValidator(_label_keys)] = Field(
        default_factory=dict,
        description="Only power drawn on nodes with these labels counts, such as the labels of a rack row or a power "
        "feed; empty: all nodes.",
    )


class EnergyBudget(ApiModel):
    """A cap on the power and energy of a namespace's LLMDeployments."""

    api_version: Literal["energylens.dev/v1alpha1"] = Field(
        default="energylens.dev/v1alpha1", description="API group and version."
    )
    kind: Literal["EnergyBudget"] = Field(default="EnergyBudget", description="EnergyBudget.")
    metadata: ObjectMeta = Field(description="Name, namespace and labels.")
    spec: EnergyBudgetSpec = Field(description="Limits on the power and energy of members.")
    status: EnergyBudgetStatus = Field(default=EnergyBudgetStatus(), description="How much of the budget is used.")


class ClusterEnergyBudget(ApiModel):
    """A cap on the power and energy of LLMDeployments of several namespaces: a cluster, a rack row, a power feed."""

    api_version: Literal["energylens.dev/v1alpha1"] = Field(
        default="energylens.dev/v1alpha1", description="API group and version."
    )
    kind: Literal["ClusterEnergyBudget"] = Field(default="ClusterEnergyBudget", description="ClusterEnergyBudget.")
    metadata: ObjectMeta = Field(description="Name and labels.")
    spec: ClusterEnergyBudgetSpec = Field(description="Limits on the power and energy of members.")
    status: EnergyBudgetStatus = Field(default=EnergyBudgetStatus(), description="How much of the budget is used.")
