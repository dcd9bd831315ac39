"""Pages about the objects of a cluster, from their statuses alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from energylens.api.energybudget import ClusterEnergyBudget, EnergyBudget
from energylens.api.llmdeployment import LLMDeployment
from energylens.api.words import counted
from energylens.cli.inputs.rates import Rates
from energylens.cli.pictures.budgets import burn_down, burn_down_figure
from energylens.cli.pictures.charts import svg
from energylens.cli.pictures.colours import PAGE
from energylens.cli.pictures.drift import NAMES, drift_figure
from energylens.cli.pictures.page import Cell, Link, charts, facts, heading, page, paragraph, table, tiles
from energylens.cli.text import budgets as budget_text
from energylens.cli.text import status as status_text
from energylens.cli.text.drift import FIGURES, DriftRow
from energylens.cli.text.money import basis
from energylens.cli.text.tables import joules
from energylens.cli.text.week import WEEK_HEADER, week_rows, week_text

Budget = EnergyBudget | ClusterEnergyBudget
TITLE = "EnergyLens"
_UNKNOWN = "-"


def deployment_path(deployment: LLMDeployment) -> str:
    """Return the address of the page of a deployment."""
    return f"/deployments/{_part(deployment.metadata.namespace)}/{_part(deployment.metadata.name)}"


def plan_path(deployment: LLMDeployment) -> str:
    """Return the address of the page with all candidates of a deployment."""
    return f"/plan/{_part(deployment.metadata.namespace)}/{_part(deployment.metadata.name)}"


def overview(deployments: Sequence[LLMDeployment], budgets: Sequence[Budget], rates: Rates, made: str) -> str:
    """Return the first page: the deployments, their power, and the energy that budgets have left."""
    body = [tiles(_totals(deployments, rates))]
    if rates.is_stated:
        body += [paragraph(text.strip(), "muted") for text in basis(rates)]
    body.append(heading("Deployments"))
    if deployments:
        body.append(table(_OVERVIEW, [_overview_row(each) for each in deployments]))
    else:
        body.append(paragraph("There is no LLMDeployment."))
    if budgets:
        body += [heading("Budgets"), table(_capitalized(budget_text.HEAD), [budget_text.row(each) for each in budgets])]
    return page(TITLE, body, made)


_OVERVIEW = (
    "Deployment",
    "Ready",
    "Model",
    "Plan",
    "GPUs",
    "Planned W",
    "Measured W",
    "Planned J/token",
    "Measured J/token",
)


def _overview_row(deployment: LLMDeployment) -> tuple[Cell, ...]:
    status, metadata = deployment.status, deployment.metadata
    plan, measured = status.plan, status.measured
    ready = next((c for c in status.conditions if c.type == "Ready"), None)
    watts = None if measured is None else measured.power_watts
    each = None if measured is None else measured.joules_per_output_token
    return (
        Link(f"{metadata.namespace}/{metadata.name}", deployment_path(deployment)),
        _UNKNOWN if ready is None else "yes" if ready.status == "True" else ready.reason,
        deployment.spec.model.name.rpartition("/")[2],
        _UNKNOWN if plan is None else f"{plan.replicas} x {plan.layout} on {plan.gpu_product.removeprefix('NVIDIA-')}",
        _UNKNOWN if plan is None else str(plan.gpus),
        _UNKNOWN if plan is None else f"{plan.predicted.power_watts:,}",
        _UNKNOWN if watts is None else f"{watts:,}",
        _UNKNOWN if plan is None else joules(plan.predicted.joules_per_output_token),
        _UNKNOWN if each is None else joules(each),
    )


def _totals(deployments: Sequence[LLMDeployment], rates: Rates) -> list[tuple[str, str]]:
    plans = [each.status.plan for each in deployments if each.status.plan is not None]
    measured = [each.status.measured for each in deployments if each.status.measured is not None]
    powers = [each.power_watts for each in measured if each.power_watts is not None]
    planned = sum(plan.predicted.power_watts for plan in plans)
    ready = sum(any(c.type == "Ready" and c.status == "True" for c in each.status.conditions) for each in deployments)
    found = [
        (f"{ready} of {len(deployments)}", "deployments ready"),
        (f"{planned / 1000:.1f} kW", "planned mean power"),
        (f"{sum(powers) / 1000:.1f} kW", f"measured, of {counted(len(powers), 'deployment')}"),
        (str(sum(plan.gpus for plan in plans)), "GPUs in plans"),
    ]
    month = rates.month(planned) if rates.is_stated else {}
    found += [(f"{month['money']:,.0f}", "money a month, as planned")] if "money" in month else []
    found += [(f"{month['kilogramsCO2']:,.0f} kg", "CO2e a month, as planned")] if "kilogramsCO2" in month else []
    return found


def deployment_page(deployment: LLMDeployment, rates: Rates, made: str) -> str:
    """Return the page with the whole status of a deployment."""
    metadata = deployment.metadata
    body = [
        paragraph(f"{deployment.spec.model.name} on {deployment.spec.engine.type}", "muted"),
        f"<p>{Link('All candidates of a plan made now', plan_path(deployment)).html}</p>",
        *(
            paragraph(f"{label.capitalize()}: {text}", "bad")
            for label, text in status_text.facts(deployment)
            if label in _NEEDS_A_PERSON
        ),
        facts(
            (label.capitalize() if label.islower() else label, text)
            for label, text in status_text.facts(deployment)
            if label not in _NEEDS_A_PERSON
        ),
    ]
    schedule = deployment.status.schedule
    if schedule is not None:
        body += [heading("The week"), paragraph(week_text(schedule)), table(WEEK_HEADER, week_rows(schedule))]
    figures = status_text.figure_rows(deployment)
    if figures:
        body += [heading("Prediction and measurement"), table(status_text.FIGURE_COLUMNS, figures)]
        body += [paragraph(text, "muted") for text in status_text.about_figures(deployment)]
    costs = status_text.costs_of(deployment, rates)
    if costs:
        body += [heading("Cost"), *(paragraph(" ".join(text.split())) for text in costs)]
    budgets = status_text.budget_lines(deployment)
    if budgets:
        body += [heading("Budget"), *(paragraph(" ".join(text.split()[1:])) for text in budgets)]
    conditions = status_text.condition_rows(deployment.status.conditions)
    body.append(heading("Conditions"))
    if conditions:
        body.append(table(status_text.CONDITION_COLUMNS, conditions))
    else:
        body.append(paragraph(status_text.NOT_RECONCILED))
    return page(f"{metadata.namespace}/{metadata.name}", body, made)


_NEEDS_A_PERSON = ("outdated", "degraded")


def budgets_page(budgets: Sequence[Budget], own: Sequence[tuple[str, ...]], rates: Rates, made: str) -> str:
    """Return the budgets, the burn-down of each period, and the members.

    Args:
        budgets: EnergyBudgets and ClusterEnergyBudgets.
        own: Rows of the budgets in the specs of LLMDeployments.
        rates: Prices of energy.
        made: The foot of the page.
    """
    rows = [*(budget_text.row(each) for each in budgets), *own]
    body = [table(_capitalized(budget_text.HEAD), rows)] if rows else [paragraph("There is no budget.")]
    for budget in budgets:
        body += [heading(budget_text.name_of(budget)), paragraph(f"{budget.kind}, {budget.spec.action}", "muted")]
        found = burn_down(budget)
        if found is not None:
            body.append(charts([(svg(burn_down_figure([found], PAGE)), _BURN_DOWN)]))
        body.append(facts((label.capitalize(), text) for label, text in budget_text.facts(budget, rates)))
        members = budget_text.member_rows(budget)
        if members:
            body.append(table(_capitalized(budget_text.MEMBER_HEAD), members))
        hidden = budget_text.hidden_members(budget)
        body += [paragraph(f"and {hidden} more", "muted")] if hidden else []
    return page(f"{TITLE} budgets", body, made)


_BURN_DOWN = "Energy that is left of this period, the even rate, and how long it lasts at the current rate."


def drift_page(rows: Sequence[DriftRow], made: str) -> str:
    """Return the page that compares predicted with measured figures of every deployment."""
    if not rows:
        return page(f"{TITLE} drift", [paragraph("There is no LLMDeployment.")], made)
    body = []
    measured = [name for name in FIGURES if any(name in row.found for row in rows)]
    if measured:
        body.append(charts((svg(drift_figure(rows, [name], PAGE)), _drift_caption(name)) for name in measured))
    else:
        body.append(paragraph("Nothing was measured yet."))
    body += [paragraph("Errors are (predicted - measured) / measured of the last window.", "muted")]
    body.append(table(_DRIFT, [row.cells() for row in rows]))
    return page(f"{TITLE} drift", body, made)


_SHORT = {"end_to_end": "E2E", "energy": "Energy", "power": "Power"}
_DRIFT = (
    "Namespace",
    "Name",
    "GPUs",
    "Layout",
    "Load",
    "J/token",
    "Measured",
    *(_SHORT.get(name, name.upper()) for name in FIGURES),
    "Reason",
)


def _drift_caption(name: str) -> str:
    return f"Predicted against measured {NAMES[name]}; on the line both agree."


def message_page(title: str, text: str, made: str) -> str:
    """Return a page with the reason why there is nothing else to show."""
    return page(title, [paragraph(text, "bad")], made)


def _capitalized(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.capitalize() for name in names)


def _part(text: str) -> str:
    return quote(text, safe="")
