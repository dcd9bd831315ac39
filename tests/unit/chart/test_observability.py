"""Dashboard, alerts and runbooks name metrics that exist and each other."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tests.support.metrics_page import scrape

from energylens.controller.endpoints.metrics import Metrics
from energylens.decide.reasons import ConditionType, Reason

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts" / "energylens"


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CHART / "dashboards" / "energylens.json").read_text())
    return loaded


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((CHART / "rules" / "energylens.yaml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def queries() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def served() -> set[str]:
    names = set()
    for family in asyncio.run(scrape(Metrics())).families:
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        names |= {family.name + suffix for suffix in suffixes.get(family.type, ("",))}
    return names


def test_every_metric_that_is_asked_for_is_served() -> None:
    text = [*queries(), *(rule["expr"] for rule in alerts())]
    text += [
        variable["query"]["query"] for variable in dashboard()["templating"]["list"] if variable["type"] == "query"
    ]
    asked = set(re.findall(r"energylens_\w+", " ".join(text)))
    assert asked <= served()
    assert len(asked) > 20


def test_panels_do_not_overlap_and_have_titles_and_numbers_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        rows, columns = range(place["y"], place["y"] + place["h"]), range(place["x"], place["x"] + place["w"])
        own = {(x, y) for x in columns for y in rows}
        assert panel["title"]
        assert own.isdisjoint(cells), panel["title"]
        assert place["x"] + place["w"] <= 24
        cells |= own


def test_panels_follow_the_rules_of_grafana_s_linter() -> None:
    """The linter itself needs modules that are not free to use; the exclusions are in dashboards/.lint."""
    panels = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in panels if not panel.get("description", "").endswith(".")] == []
    assert [panel["title"] for panel in panels if not panel["fieldConfig"]["defaults"].get("unit")] == []
    assert [query for query in queries() if re.search(r"\brate\(", query) and "[$__rate_interval]" not in query] == []
    counters = re.compile(r"(\w+\()?energylens_\w+_total\b")
    bare = [
        query
        for query in queries()
        if any(match[1] not in ("rate(", "irate(", "increase(") for match in counters.finditer(query))
    ]
    assert bare == []
    sources = {json.dumps(target["datasource"]) for panel in panels for target in panel["targets"]}
    assert sources == {json.dumps({"type": "prometheus", "uid": "${datasource}"})}


def test_the_first_row_has_single_figures() -> None:
    first, *panels = dashboard()["panels"]
    assert first["type"] == "row"
    figures = [panel["title"] for panel in panels if panel["type"] == "stat"]
    assert figures[:5] == [
        "Power",
        "Energy in 24 hours",
        "Energy this month",
        "J per output token",
        "Saved against the previous plan",
    ]
    assert all(panel["gridPos"]["y"] == 1 for panel in panels[: len(figures)])


def test_the_energy_of_the_month_is_that_of_the_calendar_month() -> None:
    month = next(panel for panel in dashboard()["panels"] if panel["title"] == "Energy this month")
    target = month["targets"][0]
    assert (month["timeFrom"], target["instant"], "[$__range]" in target["expr"]) == ("now/M", True, True)
    others = [panel["title"] for panel in dashboard()["panels"] if "timeFrom" in panel]
    assert others == ["Energy this month"]


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    sections = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbooks.md").read_text(), re.MULTILINE)
    assert sections == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_conditions_in_alerts_exist() -> None:
    text = " ".join(re.findall(r"energylens_condition_status\{(.*?)\}", " ".join(rule["expr"] for rule in alerts())))
    assert set(re.findall(r'type="(\w+)"', text)) <= {kind.value for kind in ConditionType}
    reasons = {word for found in re.findall(r'reason[!=~]+"([^"]+)"', text) for word in found.split("|")}
    assert reasons <= {reason.value for reason in Reason}


def test_every_alert_is_seen_to_fire_and_to_be_quiet() -> None:
    """Those tests are promtool's; see tests/controlplane."""
    tests = yaml.safe_load((ROOT / "tests" / "controlplane" / "alerts.test.yaml").read_text())["tests"]
    quiet = {one["alertname"] for test in tests for one in test.get("alert_rule_test", ()) if not one["exp_alerts"]}
    queries = " ".join(one["expr"] for test in tests for one in test.get("promql_expr_test", ()))
    fired = set(re.findall(r'ALERTS\{alertname="(\w+)", alertstate="firing"\}', queries))
    names = {rule["alert"] for rule in alerts()}
    assert (quiet, fired) == (names, names)
