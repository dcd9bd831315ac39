"""A fleet's joint plan as a self-contained HTML page."""

from __future__ import annotations

from energylens.cli.inputs.fleet_solve import FleetResult
from energylens.cli.inputs.rates import NO_RATES, Rates
from energylens.cli.pictures.charts import svg
from energylens.cli.pictures.fleet_charts import frontier_figure, prices_figure, teams_figure
from energylens.cli.pictures.page import charts, heading, page, paragraph, table, tiles
from energylens.cli.text.fleet import (
    FleetEnergy,
    chosen,
    fleet_cost_lines,
    gpus_used,
    headline,
    latency_cells,
    price_rows,
    teams,
    whole_products,
    why_missing,
)
from energylens.cli.text.money import basis


def fleet_page(found: FleetResult, made: str, rates: Rates = NO_RATES) -> str:
    """Return the page; ``made`` says when, from what and by which version."""
    parts = chosen(found)
    body = [paragraph(headline(found), "muted")]
    body += [paragraph(text, "bad") for text in why_missing(found)]
    if found.plan is not None:
        body.append(tiles(_tiles(found)))
        lines = fleet_cost_lines(rates, parts, label="Cost:")
        body += [paragraph(" ".join(line.split())) for line in (*lines, *basis(rates))]
    drawn = []
    if parts:
        figure, tips = teams_figure(found)
        drawn.append(
            (
                svg(figure, tips),
                "Predicted mean power by team, a segment per deployment; point at a segment for its plan.",
            )
        )
    if found.prices:
        drawn.append(
            (svg(prices_figure(found)), "Power that the fleet would save if one objective alone were relaxed.")
        )
    if any(watts is not None for _, watts in found.frontier):
        drawn.append((svg(frontier_figure(found)), _FRONTIER))
    body.append(charts(drawn))
    if parts:
        body += [heading("Deployments"), table(*_deployments(found))]
    if found.prices:
        header, *rows = price_rows(found)
        body += [heading("What each objective costs"), table([name.capitalize() for name in header], rows)]
    if found.plan is not None and found.limits:
        body += [heading("Power limits"), table(*_limits(found))]
        body += [paragraph(text, "muted") for text in whole_products(found)]
    if parts:
        used = gpus_used(parts)
        rows = [(name, str(used[name]), str(free)) for name, free in sorted(found.free_gpus.items())]
        body += [heading("GPUs"), table(("Product", "Used", "Free before"), rows)]
    return page("EnergyLens fleet", body, made)


_FRONTIER = (
    "Least power of the fleet with every latency objective tightened or relaxed by the same factor; power limits are "
    "drawn and not applied."
)


def _tiles(found: FleetResult) -> list[tuple[str, str]]:
    plan, parts = found.plan, chosen(found)
    assert plan is not None
    watts = plan.power_watts
    shown = [
        (f"{watts / 1000:.1f} kW", "predicted mean power"),
        *FleetEnergy.of(parts).amounts,
        (f"{sum(part.gpus for part in parts)} of {sum(found.free_gpus.values())}", "GPUs used of those free"),
        (str(len(parts)), f"deployments of {len(teams(parts))} teams"),
    ]
    if found.alone_watts is not None:
        extra = max(0.0, plan.energy_watts - found.alone_watts)
        shown.append((f"{extra:,.0f} W", "cost of sharing GPUs and watts"))
    tightest = min(found.limits, key=lambda one: one.watts - plan.watts_of[one.name], default=None)
    if tightest is not None:
        left = tightest.watts - plan.watts_of[tightest.name]
        shown.append((f"{left:,.0f} W", f"left of {tightest.name} ({tightest.watts:,.0f} W)"))
    return shown


def _deployments(found: FleetResult) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    header: tuple[str, ...] = (
        "Deployment",
        "Model",
        "Plan",
        "GPUs",
        "W",
        "J/token",
        "TTFT ms",
        "ITL ms",
        "TPOT ms",
        "E2E ms",
        "Objectives relaxed",
    )
    rows: list[tuple[str, ...]] = []
    for part in chosen(found):
        figures, i = part.deployment.solution.rows, part.row
        rows.append(
            (
                part.deployment.name,
                part.deployment.problem.spec.model.name.rpartition("/")[2],
                part.text.replace("NVIDIA-", ""),
                str(part.gpus),
                f"{part.watts:,.0f}",
                f"{figures.joules_per_output_token[i]:.3g}",
                *latency_cells(part),
                "; ".join(f"{one.field} {one.value} to {one.needed}" for one in part.relaxed),
            )
        )
    if not any(row[-1] for row in rows):
        return header[:-1], [row[:-1] for row in rows]
    return header, rows


def _limits(found: FleetResult) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    assert found.plan is not None
    costs = {cost.limit: cost for cost in found.limit_costs}
    rows: list[tuple[str, ...]] = []
    for limit in found.limits:
        used, cost = found.plan.watts_of[limit.name], costs.get(limit.name)
        price = (f"{cost.energy_watts:,.0f}", f"{cost.watts_more:,.0f}") if cost is not None else ("0", "0")
        rows.append((limit.name, f"{limit.watts:,.0f}", f"{used:,.0f}", f"{limit.watts - used:,.0f}", *price))
    return ("Limit", "W", "Used W", "Left W", "Costs W", "Would need W more"), rows
