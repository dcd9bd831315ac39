"""The tables of docs/ have a row for each reason, event and metric, and no others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from tests.support.metrics_page import scrape

from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.endpoints.status_metrics import DEPLOYMENT_FAMILIES, OBJECT
from energylens.decide.reasons import BudgetConditionType, BudgetReason, ConditionType, EventReason, Reason
from energylens.measure.types import EnergyReason

DOCS = Path(__file__).resolve().parents[3] / "docs"
Row = tuple[str, ...]


def sections() -> dict[str, list[Row]]:
    """Return the rows of the table of each section of docs/conditions.md."""
    found: dict[str, list[Row]] = {}
    for part in re.split(r"^## ", (DOCS / "conditions.md").read_text(), flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        lines = [line for line in body.splitlines() if line.startswith("|")]
        found[title.strip()] = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]
    return found


def documented() -> set[tuple[str, str, str]]:
    """Return each condition type with the statuses and reasons that docs/conditions.md gives it."""
    return {(kind, row[0], row[1]) for kind, rows in sections().items() if kind != "Events" for row in rows}


def test_every_condition_has_a_section_in_the_order_in_which_they_are_written() -> None:
    order = [kind for kind in sections() if kind != "Events"]
    assert order == [kind.value for kind in ConditionType]


def test_every_reason_has_a_row_and_every_row_is_a_reason() -> None:
    assert {reason for _, _, reason in documented()} == {r.value for r in Reason} | set(get_args(EnergyReason))


def test_every_row_says_what_it_means_and_every_bad_one_what_to_do() -> None:
    for kind, rows in sections().items():
        if kind == "Events":
            continue
        for status, reason, meaning, what_to_do in rows:
            assert status in ("True", "False", "Unknown"), (kind, reason)
            assert meaning, (kind, reason)
            good = {"Degraded": "False", "Progressing": ""}.get(kind, "True")
            assert what_to_do or status == good or kind == "Progressing", (kind, reason)


def test_every_event_has_a_row_and_every_row_is_an_event() -> None:
    assert [row[0] for row in sections()["Events"]] == [reason.value for reason in EventReason]


def test_every_reason_of_a_budget_has_a_row_and_every_row_is_a_reason() -> None:
    text = (DOCS / "budgets.md").read_text()
    lines = [line for line in text.splitlines() if re.match(r"\| (Ready|WithinEnergyBudget|Shedding) \|", line)]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    assert {row[0] for row in rows} == {kind.value for kind in BudgetConditionType}
    assert {row[2] for row in rows} == {reason.value for reason in BudgetReason}
    assert all(row[3] for row in rows)


async def test_every_metric_has_a_row_with_its_type() -> None:
    wanted = {}
    for family in (await scrape(Metrics())).families:
        wanted[family.name + {"counter": "_total"}.get(family.type, "")] = family.type
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (DOCS / "metrics.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    assert {row[0].strip("`"): row[1] for row in rows} == wanted


def test_the_labels_of_metrics_are_documented() -> None:
    metrics = Metrics()
    labels = {
        attribute._name: attribute._labelnames
        for attribute in vars(metrics).values()
        if hasattr(attribute, "_labelnames")
    } | {family.name: (*OBJECT, *family.labels) for family in DEPLOYMENT_FAMILIES}
    for metric, names in labels.items():
        (row,) = re.findall(
            rf"^\| `{re.escape(metric)}(?:_total|_info)?` \|.*$", (DOCS / "metrics.md").read_text(), re.MULTILINE
        )
        said = re.findall(r"`(\w+)`", row.split("|")[3])
        assert said == (list(names) or (["version"] if metric == "energylens_operator" else [])), metric
