"""Energy as money and carbon, in words and for programs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from energylens.api.words import counted
from energylens.cli.inputs.rates import HOURS_PER_MONTH, Rates

_COLUMNS = {"KWH/MONTH": "kilowattHours", "MONEY/MONTH": "money", "KG CO2E/MONTH": "kilogramsCO2"}


def month_text(rates: Rates, watts: float) -> str:
    """Return energy and cost of a month at a mean power: ``1,234 kWh, 185 in money, 470 kg CO2e a month``."""
    return f"{_whole(rates.month(watts))} a month"


def cost_lines(
    rates: Rates, watts: float, gpus: int, joules_per_output_token: float | None = None, label: str = "cost"
) -> list[str]:
    """Return the cost of a mean power, a line each for GPUs, hosts and the scope of the figures.

    Without prices there are no lines.

    Args:
        rates: The prices.
        watts: Mean power of the GPUs, W.
        gpus: GPUs held.
        joules_per_output_token: Energy of the GPUs per output token; None if unknown.
        label: Label of the first line.
    """
    if not rates.is_stated:
        return []
    tokens = ""
    if joules_per_output_token is not None:
        tokens = f"{_small(rates.million_tokens(joules_per_output_token))} per million output tokens; "
    return [f"  {label:<11} {tokens}{month_text(rates, watts)}", *host_lines(rates, gpus)]


def host_lines(rates: Rates, gpus: int) -> list[str]:
    """Return the cost of the hosts of a number of GPUs, by the host power that the user stated.

    Without a stated power there are no lines.
    """
    if rates.host_watts is None:
        return []
    watts = rates.host_watts * gpus
    return [
        f"  hosts       {watts:,.0f} W more as stated ({rates.host_watts:g} W for each of {counted(gpus, 'GPU')}): "
        f"{month_text(rates, watts)}"
    ]


def basis(rates: Rates, *, monthly: bool = True) -> list[str]:
    """Return the line that says what the figures include; no line without prices."""
    if not rates.is_stated:
        return []
    month = f"; a month has {HOURS_PER_MONTH:.0f} hours at this power" if monthly else ""
    return [f"  Cost: {rates.text}{month}."]


def month_heads(rates: Rates) -> tuple[str, ...]:
    """Return the headings of :func:`month_cells`."""
    return tuple(name for name, key in _COLUMNS.items() if rates.is_stated and key in rates.month(0.0))


def month_cells(rates: Rates, watts: float) -> tuple[str, ...]:
    """Return the energy and cost of a month at a mean power as cells of a table; no cells without prices."""
    month = rates.month(watts)
    return tuple(f"{month[_COLUMNS[name]]:,.0f}" for name in month_heads(rates))


def cost_object(
    rates: Rates, watts: float, gpus: int, joules_per_output_token: float | None = None
) -> dict[str, Any] | None:
    """Return the figures of :func:`cost_lines` for programs; None without prices."""
    if not rates.is_stated:
        return None
    found: dict[str, Any] = {"perMonth": rates.month(watts)}
    if joules_per_output_token is not None:
        found["perMillionOutputTokens"] = rates.million_tokens(joules_per_output_token)
    if rates.host_watts is not None:
        found["hosts"] = {"watts": rates.host_watts * gpus, "perMonth": rates.month(rates.host_watts * gpus)}
    return found | grid_object(rates)


def grid_object(rates: Rates) -> dict[str, Any]:
    """Return the intensity that a service gave, and its source, for programs; empty where no service was asked."""
    if rates.grid is None or not rates.grid.source:
        return {}
    return {"grid": {"gramsPerKilowattHour": rates.grid.grams, "source": rates.grid.source}}


def energy_text(rates: Rates, watt_hours: float) -> str:
    """Return energy that was used and its cost: ``12.3 kWh, 2.46 in money``; "" without prices."""
    return _small(rates.of(watt_hours / 1000.0)) if rates.is_stated else ""


def _whole(amounts: Mapping[str, float]) -> str:
    parts = [f"{amounts['kilowattHours']:,.0f} kWh"]
    if "money" in amounts:
        parts.append(f"{amounts['money']:,.0f} in money")
    if "kilogramsCO2" in amounts:
        parts.append(f"{amounts['kilogramsCO2']:,.0f} kg CO2e")
    return ", ".join(parts)


def _small(amounts: Mapping[str, float]) -> str:
    parts = [f"{amounts['kilowattHours']:.3g} kWh"]
    if "money" in amounts:
        parts.append(f"{amounts['money']:.3g} in money")
    if "kilogramsCO2" in amounts:
        parts.append(f"{1000.0 * amounts['kilogramsCO2']:.3g} g CO2e")
    return ", ".join(parts)
