"""The status of a budget: its accounting, and the power that it currently allows.

Figures are whole watts, watt-hours and percents; the ledger keeps joules and milligrams, so that rounding errors do not
accumulate.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field

from energylens.api.base import ATOMIC_LIST, ApiModel, Condition, map_list


def _is_a_moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return text


Time = Annotated[str, AfterValidator(_is_a_moment), Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339. API servers reject any other text, so that the ledger stays readable after an edit of the status."""


class BudgetMember(ApiModel):
    """One LLMDeployment under a budget."""

    name: str = Field(description="Name of the LLMDeployment.")
    namespace: str = Field(default="", description="Namespace of the LLMDeployment.")
    priority: int = Field(default=0, description="spec.energy.priority; members of lowest priority shed power first.")
    committed_power_watts: int = Field(default=0, description="Predicted power of the member's plan, W.")
    measured_power_watts: int | None = Field(default=None, description="Measured power over the last minutes, W.")
    used_watt_hours: int | None = Field(default=None, description="Energy of this period, Wh.")
    allowed_power_watts: int | None = Field(
        default=None, description="Power that shedding allows the member, W; absent: no power was taken."
    )
    former_power_watts: int | None = Field(default=None, description="Power before power was taken, W.")


class LedgerEntry(ApiModel):
    """Energy of one member in this period, up to accountedUntil."""

    uid: str = Field(description="metadata.uid of the LLMDeployment; entries stay until the period ends.")
    namespace: str = Field(description="Namespace of the LLMDeployment.")
    name: str = Field(description="Name of the LLMDeployment.")
    measured_joules: int = Field(default=0, description="Energy measured, J.")
    predicted_joules: int = Field(default=0, description="Energy predicted for unmeasured time, J.")
    milligrams: int = Field(default=0, description="CO2 equivalent of both energies by the forecast, mg.")
    ungraded_joules: int = Field(
        default=0, description="Part of both energies for which no carbon forecast was valid, J."
    )
    predicted_watts: int = Field(
        default=0,
        description="Predicted power at accountedUntil, W; counts for later time if the member is deleted.",
    )
    accounted_until: Time = Field(description="Energy up to this time is counted; RFC 3339, UTC.")


class UsagePoint(ApiModel):
    """Energy used since the period began, at one point in time."""

    time: Time = Field(description="Time of the figure; RFC 3339, UTC.")
    used_watt_hours: int = Field(description="Energy of all members since the period began, Wh.")


class EnergyBudgetStatus(ApiModel):
    """How much of the budget is used."""

    observed_generation: int | None = Field(default=None, description="metadata.generation that the status describes.")
    committed_power_watts: int | None = Field(default=None, description="Sum of the members' predicted power, W.")
    measured_power_watts: int | None = Field(
        default=None, description="Sum of the members' measured power, W; absent if a serving member is not measured."
    )
    excess_power_watts: int | None = Field(
        default=None,
        description="Measured power above the predicted power of the members' plans, W; not available for growth, and "
        "shed as well.",
    )
    allowed_power_watts: int | None = Field(
        default=None,
        description="Power that all limits currently allow, W: powerWatts, and the remaining energy and carbon over "
        "the remaining period.",
    )
    binding_limit: str | None = Field(
        default=None, description="The limit behind allowedPowerWatts, such as spec.energyWattHours."
    )
    period_start: Time | None = Field(default=None, description="Start of this period; RFC 3339, UTC.")
    reset_time: Time | None = Field(default=None, description="Start of the next period; RFC 3339, UTC.")
    used_watt_hours: int | None = Field(
        default=None, description="Energy of this period, measured, and predicted for gaps, Wh."
    )
    predicted_watt_hours: int | None = Field(
        default=None, description="Predicted part of usedWattHours, for unmeasured time, Wh."
    )
    remaining_watt_hours: int | None = Field(
        default=None,
        description="Remaining energy in this period, Wh: the smaller of the remainders of energyWattHours and carbon.",
    )
    energy_limit: str | None = Field(
        default=None, description="The limit behind remainingWattHours: spec.energyWattHours or spec.carbon."
    )
    used_grams: int | None = Field(default=None, description="CO2 equivalent of this period by the forecast, g.")
    used_percent: int | None = Field(
        default=None,
        description="Used share of this period's energy, %; without an energy limit, share of powerWatts.",
    )
    burn_rate_watts: int | None = Field(default=None, description="Mean power over the last hour of the ledger, W.")
    burn_rate_percent: int | None = Field(
        default=None, description="Burn rate relative to the rate at which the energy lasts exactly until resetTime, %."
    )
    exhaustion_time: Time | None = Field(
        default=None,
        description="Time at which the energy runs out at the burn rate; absent: not in this period. RFC 3339, UTC.",
    )
    used: str | None = Field(default=None, description="Used and allowed energy or power, as text.")
    remaining: str | None = Field(default=None, description="Remaining energy or power, as text.")
    forecast: str | None = Field(
        default=None, description="Time at which the budget runs out at the burn rate, as text."
    )
    member_count: int | None = Field(default=None, description="Number of members.")
    members: Annotated[tuple[BudgetMember, ...], Field(json_schema_extra=ATOMIC_LIST)] = Field(
        default=(),
        description="All members from which power was taken, then the members that draw most, up to 256 in total.",
    )
    shed_time: Time | None = Field(
        default=None, description="Time at which power was last taken from a member; RFC 3339, UTC."
    )
    ledger: Annotated[tuple[LedgerEntry, ...], Field(json_schema_extra=map_list("uid"))] = Field(
        default=(), description="Energy of each member in this period, including deleted members."
    )
    history: Annotated[tuple[UsagePoint, ...], Field(json_schema_extra=ATOMIC_LIST)] = Field(
        default=(), description="Energy used over this period, at some points for the burn-down."
    )
    conditions: Annotated[tuple[Condition, ...], Field(json_schema_extra=map_list("type"))] = Field(
        default=(), description="Ready, WithinEnergyBudget and Shedding."
    )
