"""EnergyBudget: what platform teams cap in a namespace."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field

from energylens.api.base import (
    ATOMIC_LIST,
    ApiModel,
    Condition,
    Labels,
    ObjectMeta,
    ObjectName,
    Rule,
    map_list,
)

_MAX_WATTS = 1_000_000_000
_MAX_WATT_HOURS = 1_000_000_000_000


def _selector_values(requirement: LabelSelectorRequirement) -> str | None:
    needs_values = requirement.operator in ("In", "NotIn")
    if needs_values == bool(requirement.values):
        return None
    if needs_values:
        return f"operator {requirement.operator} of key '{requirement.key}' needs values"
    return f"operator {requirement.operator} of key '{requirement.key}' takes no values; leave values out"


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

    key: str = Field(min_length=1, max_length=317, description="Label key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="How the label is compared.")
    values: Annotated[
        tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=64, json_schema_extra=ATOMIC_LIST)
    ] = Field(default=(), description="Label values, for operators In and NotIn.")


class LabelSelector(ApiModel):
    """A Kubernetes label selector; empty selects everything."""

    atomic: ClassVar[bool] = True

    match_labels: Labels = Field(default_factory=dict, description="Labels that members carry, all of them.")
    match_expressions: Annotated[
        tuple[LabelSelectorRequirement, ...], Field(max_length=32, json_schema_extra=ATOMIC_LIST)
    ] = Field(default=(), description="Requirements on labels that members hold, all of them.")


class Carbon(ApiModel):
    """A carbon allowance: a forecast in grams of CO2 equivalent per kWh by hour, and grams per period."""

    forecast_config_map_ref: ObjectName = Field(description="ConfigMap with the forecast.")
    grams_per_period: int = Field(
        ge=1, le=_MAX_WATT_HOURS, description="Most grams of CO2 equivalent that members may cause in one period."
    )


def _limits_something(spec: EnergyBudgetSpec) -> str | None:
    if spec.power_watts is None and spec.energy_watt_hours is None:
        return "limits nothing: set powerWatts, energyWattHours or both"
    return None


TIME_ZONE_PATTERN = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9][A-Za-z0-9_+-]*){0,2}$"


def _known_time_zone(spec: EnergyBudgetSpec) -> str | None:
    zone = spec.time_zone
    if zone != "Local" and re.fullmatch(TIME_ZONE_PATTERN.strip("^$"), zone):
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass
        else:
            return None
    return f"timeZone '{zone}' is not in the IANA time zone database; use UTC or a name such as Europe/Berlin"


class EnergyBudgetSpec(ApiModel):
    """What members may draw."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            summary="set powerWatts, energyWattHours or both",
            cel="has(self.powerWatts) || has(self.energyWattHours)",
            message_cel="'limits nothing: set powerWatts, energyWattHours or both'",
            check=_limits_something,
        ),
        Rule(
            summary="timeZone is a name of the IANA time zone database, such as UTC or Europe/Berlin",
            cel="self.timeZone != 'Local' && timestamp('2026-01-01T00:00:00Z').getHours(self.timeZone) >= 0",
            message_cel="\"timeZone '%s' is not in the IANA time zone database; "
            'use UTC or a name such as Europe/Berlin".format([self.timeZone])',
            check=_known_time_zone,
        ),
    )

    selector: LabelSelector = Field(
        default=LabelSelector(), description="Which LLMDeployments of the namespace are members; empty: all of them."
    )
    power_watts: int | None = Field(
        default=None, ge=1, le=_MAX_WATTS, description="Most power that all members together may draw, W."
    )
    energy_watt_hours: int | None = Field(
        default=None, ge=1, le=_MAX_WATT_HOURS, description="Most GPU energy of all members in one period, Wh."
    )
    period: Literal["Hour", "Day", "Week", "Month"] = Field(
        default="Month", description="Over which energyWattHours counts."
    )
    time_zone: str = Field(
        default="UTC",
        min_length=1,
        max_length=64,
        pattern=TIME_ZONE_PATTERN,
        description="Where days, weeks and months begin: a name of the IANA time zone database, such as Europe/Berlin.",
    )
    action: Literal["Report", "Deny", "Shed"] = Field(
        default="Report",
        description="Report: conditions say that the budget is exceeded. Deny: new plans must fit. "
        "Shed: also scale members down until they fit.",
    )
    carbon: Carbon | None = Field(default=None, description="A carbon allowance beside the energy.")


class BudgetMember(ApiModel):
    """One LLMDeployment under a budget."""

    name: str = Field(description="Name of the LLMDeployment.")
    namespace: str | None = Field(default=None, description="Its namespace, where the budget spans several.")
    committed_power_watts: int = Field(default=0, description="Power that its plan is predicted to draw, W.")
    measured_power_watts: int | None = Field(default=None, description="Power measured over the last window, W.")


class EnergyBudgetStatus(ApiModel):
    """How much of the budget is used."""

    observed_generation: int | None = Field(default=None, description="metadata.generation that status is about.")
    committed_power_watts: int | None = Field(default=None, description="Sum of the members' predicted power, W.")
    measured_power_watts: int | None = Field(default=None, description="Sum of the members' measured power, W.")
    used_watt_hours: int | None = Field(default=None, description="Energy measured in this period, Wh.")
    used_percent: int | None = Field(default=None, description="Share of energyWattHours used in this period, %.")
    forecast: str | None = Field(default=None, description="When the budget runs out at the present power, in words.")
    member_count: int | None = Field(default=None, description="Members.")
    members: Annotated[tuple[BudgetMember, ...], Field(max_length=256, json_schema_extra=ATOMIC_LIST)] = Field(
        default=(), description="Members that draw most."
    )
    conditions: Annotated[tuple[Condition, ...], Field(json_schema_extra=map_list("type"))] = Field(
        default=(), description="Ready and WithinEnergyBudget."
    )


class EnergyBudget(ApiModel):
    """A cap on the power and energy of a namespace's LLMDeployments."""

    api_version: Literal["energylens.dev/v1alpha1"] = Field(
        default="energylens.dev/v1alpha1", description="API group and version."
    )
    kind: Literal["EnergyBudget"] = Field(default="EnergyBudget", description="EnergyBudget.")
    metadata: ObjectMeta = Field(description="Name, namespace and labels.")
    spec: EnergyBudgetSpec = Field(description="What members may draw.")
    status: EnergyBudgetStatus = Field(default=EnergyBudgetStatus(), description="How much of the budget is used.")
