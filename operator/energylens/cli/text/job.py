"""The expected end of a batch job, its energy and its price, in words and for programs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from energylens.api.llmdeployment import PlannedJob
from energylens.api.words import counted
from energylens.cli.inputs.rates import Rates
from energylens.cli.text.money import energy_text, grid_object
from energylens.decide.deployment.pods.job_start import AT_ONCE


def job_text(job: PlannedJob, started: str | None = None) -> str:
    """Return when a job ends and how much energy it needs.

    Args:
        job: The job of a plan.
        started: When the plan was adopted, RFC 3339; None where nothing runs.
    """
    end = f"ends {duration(job.completion_seconds)} after the pods are created"
    if started is not None:
        time = datetime.fromisoformat(started) + timedelta(seconds=job.completion_seconds)
        end = f"ends at about {time:%Y-%m-%d %H:%M} UTC"
    return f"{end}, {job.energy_watt_hours / 1000.0:,.3g} kWh from the start of the pods"


def job_start_lines(status: Mapping[str, Any]) -> list[str]:
    """Return when the pods of a job start, and why; no lines where the spec leaves no choice.

    Args:
        status: The status of an LLMDeployment.
    """
    start = status.get("jobStart")
    # A job without a choice starts as soon as there is a plan.
    if start is None or start["reason"] == AT_ONCE:
        return []
    return [f"start       {start['message']} ({start['reason']})"]


def job_cost_lines(rates: Rates, job: PlannedJob, gpus: int, of: str = "") -> list[str]:
    """Return the cost of a job, a line each for GPUs and hosts; no lines without prices.

    ``of`` names the deployment where there are several.
    """
    if not rates.is_stated:
        return []
    whose = f"of {of}" if of else "for the job"
    lines = [f"  cost        {energy_text(rates, job.energy_watt_hours)} {whose}"]
    if rates.host_watts is not None:
        watts = rates.host_watts * gpus
        hours = job.completion_seconds / 3600.0
        lines.append(
            f"  hosts       {watts:,.0f} W more as stated ({rates.host_watts:g} W for each of {counted(gpus, 'GPU')}): "
            f"{energy_text(rates, watts * hours)} until the last answer"
        )
    return lines


def job_cost_object(rates: Rates, job: PlannedJob, gpus: int, joules_per_output_token: float) -> dict[str, Any] | None:
    """Return the figures of :func:`job_cost_lines` for programs; None without prices."""
    if not rates.is_stated:
        return None
    found: dict[str, Any] = {
        "job": rates.of(job.energy_watt_hours / 1000.0),
        "perMillionOutputTokens": rates.million_tokens(joules_per_output_token),
    }
    if rates.host_watts is not None:
        watts = rates.host_watts * gpus
        found["hosts"] = {"watts": watts, "job": rates.of(watts * job.completion_seconds / 3.6e6)}
    return found | grid_object(rates)


def duration(seconds: int) -> str:
    """Return a time in hours and minutes: ``2 h 5 min``, ``48 s``."""
    if seconds < 120:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{left} min"
