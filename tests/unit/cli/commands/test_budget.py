"""`energylens budget`: the table, a budget's page, and the picture of its burn-down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from tests.unit.api.objects import DEPLOYMENT, changed

from energylens.api.energybudget import EnergyBudget
from energylens.cli.commands import budget as command
from energylens.cli.inputs.live import ClusterAccess, LiveObjects
from energylens.cli.main import cli
from energylens.cli.pictures.budgets import burn_down
from energylens.clock import SystemClock

START = datetime(2026, 11, 25, tzinfo=UTC)
MEMBER = {
    "name": "llama",
    "namespace": "chat",
    "priority": -1,
    "committedPowerWatts": 700,
    "measuredPowerWatts": 650,
    "usedWattHours": 900,
    "allowedPowerWatts": 500,
    "formerPowerWatts": 700,
}


def time(hours: float) -> str:
    return (START + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


STATUS: dict[str, Any] = {
    "periodStart": time(0),
    "resetTime": time(24),
    "usedWattHours": 1200,
    "predictedWattHours": 30,
    "remainingWattHours": 1200,
    "burnRateWatts": 200,
    "burnRatePercent": 200,
    "exhaustionTime": time(18),
    "committedPowerWatts": 700,
    "allowedPowerWatts": 100,
    "bindingLimit": "spec.energyWattHours",
    "used": "1200/2400 Wh (50 %)",
    "remaining": "1200 Wh",
    "forecast": f"used up {time(18)}",
    "memberCount": 1,
    "members": [MEMBER],
    "history": [{"time": time(h), "usedWattHours": 100 * h} for h in range(0, 12, 3)],
    "ledger": [{"uid": "u", "namespace": "chat", "name": "llama", "accountedUntil": time(12)}],
    "conditions": [{"type": "Ready", "status": "True", "reason": "Checked"}],
}


def budget(name: str = "cap", status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "EnergyBudget",
        "metadata": {"name": name, "namespace": "chat"},
        "spec": spec or {"energyWattHours": 2400, "period": "Day", "action": "Shed"},
        "status": STATUS if status is None else status,
    }


ROW = {
    "apiVersion": "energylens.dev/v1alpha1",
    "kind": "ClusterEnergyBudget",
    "metadata": {"name": "row-b"},
    "spec": {"powerWatts": 60_000, "action": "Deny"},
    "status": {"used": "700/60000 W (1 %)", "remaining": "59300 W", "memberCount": 1},
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    def invoke(objects: dict[str, list[dict[str, Any]]], *arguments: str) -> Result:
        monkeypatch.setattr(command, "read_cluster", lambda access, *kinds, **more: LiveObjects("chat", objects))
        return CliRunner().invoke(cli, ["budget", *arguments])

    return invoke


def both() -> dict[str, list[dict[str, Any]]]:
    return {"EnergyBudget": [budget()], "ClusterEnergyBudget": [ROW]}


def test_one_line_for_each_budget(run: Any) -> None:
    result = run(both())
    assert result.exit_code == 0, result.output
    head, *rows = [line.split() for line in result.output.splitlines()]
    assert head == ["NAME", "USED", "REMAINING", "FORECAST", "MEMBERS", "ACTION", "READY"]
    assert [row[0] for row in rows] == ["row-b", "chat/cap"]
    assert "1200/2400 Wh (50 %)" in result.output
    assert rows[1][-3:] == ["1", "Shed", "True"]


def test_a_page_has_the_members_and_what_was_taken_from_them(run: Any) -> None:
    result = run(both(), "cap")
    assert result.exit_code == 0, result.output
    for text in (
        "EnergyBudget chat/cap: Shed",
        "2400 Wh per day",
        "30 Wh of it predicted",
        "200 % of the rate that lasts until the reset",
        "100 W allowed by spec.energyWattHours",
    ):
        assert text in result.output
    (row,) = [line.split() for line in result.output.splitlines() if line.strip().startswith("chat/llama")]
    assert row == ["chat/llama", "-1", "700", "W", "650", "W", "900", "Wh", "500", "W"]
    assert "row-b" not in result.output


def test_objects_for_programs(run: Any) -> None:
    documents = list(yaml.safe_load_all(run(both(), "-o", "yaml").output))
    assert [d["kind"] for d in documents] == ["ClusterEnergyBudget", "EnergyBudget"]
    assert "namespace" not in documents[0]["metadata"]
    assert documents[1]["status"]["usedWattHours"] == 1200


def test_the_cost_of_the_period_and_of_the_power(run: Any) -> None:
    asked = ("--price", "0.5", "--grid", "400")
    text = run(both(), *asked).output
    said = "used 1.2 kWh, 0.6 in money, 480 g CO2e; 511 kWh, 256 in money, 204 kg CO2e a month committed"
    assert f"chat/cap: {said}" in text
    # What was not counted has no cost.
    assert "row-b: " not in text
    assert f"  cost        {said}" in run(both(), "cap", *asked).output
    found = list(yaml.safe_load_all(run(both(), *asked, "-o", "yaml").output))
    assert found[1]["cost"]["used"] == pytest.approx({"kilowattHours": 1.2, "money": 0.6, "kilogramsCO2": 0.48})
    assert "cost" not in yaml.safe_load(run(both(), "cap", "-o", "yaml").output)


def test_a_user_who_may_not_read_budgets_of_the_cluster_sees_the_others(run: Any) -> None:
    assert "chat/cap" in run({"EnergyBudget": [budget()]}).output


@pytest.mark.parametrize(
    ("objects", "arguments", "message"),
    [
        ({"EnergyBudget": []}, (), "namespace chat has no EnergyBudget"),
        ({"EnergyBudget": [budget()]}, ("other",), "NAME 'other': namespace chat has cap"),
        ({"EnergyBudget": [budget()]}, ("--plot", "a.gif"), "must end in .png, .svg"),
        ({"EnergyBudget": [budget(status={}, powerWatts=5)]}, ("--plot", "a.png"), "no budget has a limit of energy"),
        ({"EnergyBudget": [budget()]}, ("--plot", "/nowhere/a.png"), "--plot /nowhere/a.png: No such file"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    run: Any, objects: dict[str, list[dict[str, Any]]], arguments: tuple[str, ...], message: str
) -> None:
    result = run(objects, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.splitlines()) == 1


def test_a_budget_that_cannot_be_read_is_told_and_hides_no_other(run: Any) -> None:
    broken = {**ROW, "metadata": {"name": "feed"}, "spec": {"powerWatts": 1, "nodeSelector": {"a b": "c"}}}
    result = run({"EnergyBudget": [budget()], "ClusterEnergyBudget": [broken]})
    assert result.exit_code == 0
    warning, _, row = result.output.splitlines()
    assert warning.startswith("Warning: feed is left out: spec.nodeSelector: key 'a b' is not a label key")
    assert row.startswith("chat/cap")


def read(**changes: Any) -> EnergyBudget:
    return EnergyBudget.model_validate({**budget(status={**STATUS, **changes}), "kind": "EnergyBudget"})


def test_the_burn_down_begins_full_and_ends_with_what_is_left_now() -> None:
    found = burn_down(read())
    assert found is not None
    assert found.points[0] == (START, 2400.0)
    assert found.points[-1] == (START + timedelta(hours=12), 1200.0)
    assert [left for _, left in found.points] == sorted((left for _, left in found.points), reverse=True)
    assert (found.gone, found.left_at_end) == (START + timedelta(hours=18), 0.0)


def test_a_budget_that_lasts_is_drawn_to_what_will_be_left() -> None:
    found = burn_down(read(exhaustionTime=None, burnRateWatts=50))
    assert found is not None
    assert (found.gone, found.left_at_end) == (None, 600.0)


def test_a_budget_that_began_late_starts_full() -> None:
    found = burn_down(read(history=[{"time": time(9), "usedWattHours": 0}]))
    assert found is not None
    assert found.points[:2] == ((START, 2400.0), (START + timedelta(hours=9), 2400.0))


def test_the_picture_is_written(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "burn.svg"
    result = run(both(), "--plot", str(file))
    assert result.exit_code == 0, result.output
    text = file.read_text()
    assert "<svg" in text
    assert text.count("axes_") >= 1


def test_access_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ClusterAccess] = []

    def note(access: ClusterAccess, *kinds: object, **more: object) -> LiveObjects:
        asked.append(access)
        return LiveObjects("chat", both())

    monkeypatch.setattr(command, "read_cluster", note)
    CliRunner().invoke(cli, ["budget", "-A", "--context", "prod"])
    assert asked == [ClusterAccess(None, "prod", None, True)]


def owner(name: str, **own: Any) -> dict[str, Any]:
    """Return an LLMDeployment with a budget of its own, of whose month 600 Wh are used."""
    body = changed(DEPLOYMENT, {"metadata.namespace": "chat", "metadata.name": name, "spec.energy.budget": own})
    month = SystemClock().now().strftime("%Y-%m-01T00:00:00Z")
    account = {"periodStart": month, "resetTime": time(999), "measuredJoules": 600 * 3600, "accountedUntil": month}
    return {**body, "status": {"energyAccount": account}}


def test_budgets_in_the_specs_of_deployments_are_rows_too(run: Any) -> None:
    owners = [owner("llama", energyWattHours=2400, action="Enforce"), owner("gemma", powerWatts=500)]
    result = run({**both(), "LLMDeployment": owners})
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in result.output.splitlines()}
    assert rows["chat/llama"] == "(spec.energy.budget) 600/2400 Wh (25 %) 1800 Wh 1 Enforce True"
    assert rows["chat/gemma"] == "(spec.energy.budget) 0/500 W (0 %) 500 W 1 Warn True"
    alone = run({"EnergyBudget": [], "LLMDeployment": owners})
    assert alone.exit_code == 0, alone.output
    assert len(alone.output.splitlines()) == 3
    none = run({"EnergyBudget": [], "LLMDeployment": []})
    assert none.exit_code == 2
