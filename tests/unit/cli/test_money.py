"""Money and carbon beside energy: the same options and figures in every command that prints energy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from tests.unit.cli.conftest import Run, Write, chat, run

from energylens.cli.inputs.rates import NO_RATES, Grid, Rates
from energylens.cli.text.money import basis, cost_lines, cost_object, energy_text

POOLS = {"nodes": [{"product": "H100", "gpus": 8, "count": 2}]}
FORECAST = "time,gramsPerKilowattHour\n2026-01-01T00:00:00Z,300\n2026-01-01T01:00:00Z,500\n"


def test_a_kilowatt_hour_is_3_6_million_joules() -> None:
    rates = Rates(price=0.25, pue=1.2, grid=Grid(400.0))
    # 1 J per token: 1e6 J = 0.2778 kWh of the GPUs, a fifth more of the site.
    assert rates.million_tokens(1.0) == pytest.approx(
        {"kilowattHours": 1.2 / 3.6, "money": 0.25 * 1.2 / 3.6, "kilogramsCO2": 0.4 * 1.2 / 3.6}
    )
    assert rates.month(1000.0) == pytest.approx({"kilowattHours": 876.0, "money": 219.0, "kilogramsCO2": 350.4})


def test_what_nobody_stated_is_not_shown() -> None:
    assert (cost_lines(NO_RATES, 1000.0, 8, 1.0), basis(NO_RATES), cost_object(NO_RATES, 1000.0, 8)) == ([], [], None)
    assert energy_text(NO_RATES, 1000.0) == ""
    assert "money" not in Rates(grid=Grid(400.0)).month(1000.0)


def test_hosts_stand_apart_from_the_gpus() -> None:
    rates = Rates(price=0.2, host_watts=500.0)
    first, hosts = cost_lines(rates, 1000.0, 2, 1.0)
    assert first == "  cost        0.278 kWh, 0.0556 in money per million output tokens; 730 kWh, 146 in money a month"
    assert hosts == "  hosts       1,000 W more as stated (500 W for each of 2 GPUs): 730 kWh, 146 in money a month"
    found = cost_object(rates, 1000.0, 2, 1.0)
    assert found is not None
    assert found["hosts"]["watts"] == 1000.0
    assert found["perMonth"]["kilowattHours"] == 730.0


def planned(run: Run, write: Write, command: str, *options: object) -> Result:
    files = write("chat.yaml", [chat()]), "--inventory", write("pools.yaml", POOLS)
    return run(command, "-f", *files, *options)


@pytest.mark.parametrize("command", ["plan", "fleet"])
def test_a_plan_has_its_cost_where_a_price_is_stated(arithmetic: Run, write: Write, command: str) -> None:
    plain = planned(arithmetic, write, command)
    assert "cost" not in plain.output.lower().replace("costs", "")
    answer = planned(arithmetic, write, command, "--price", 0.2, "--grid", 400)
    assert answer.exit_code == 0, answer.output
    (line,) = (line for line in answer.output.splitlines() if line.startswith("  cost "))
    assert "in money" in line
    assert line.endswith("kg CO2e a month")
    (found,) = objects(planned(arithmetic, write, command, "--price", 0.2, "--grid", 400, "-o", "json"))
    cost = found["cost"]["perMonth"]
    assert cost["money"] == pytest.approx(0.2 * cost["kilowattHours"])
    if command == "fleet":
        (part,) = found["deployments"]
        assert part["cost"]["perMillionOutputTokens"]["money"] > 0
        assert "MONEY/MONTH" in answer.output


def objects(result: Result) -> list[dict[str, Any]]:
    found = json.loads(result.output)
    return list(found) if isinstance(found, list) else [found]


def test_a_grid_is_a_number_or_the_mean_of_a_forecast(arithmetic: Run, write: Write) -> None:
    (by_number,) = objects(planned(arithmetic, write, "plan", "--grid", 400, "-o", "json"))
    (by_file,) = objects(planned(arithmetic, write, "plan", "--grid", write("grid.csv", FORECAST), "-o", "json"))
    assert by_file["cost"] == by_number["cost"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--grid", "-1"], "'-1' must be a number of grams, at least 0"),
        (["--grid", "nan"], "'nan' must be a number of grams, at least 0"),
        (["--grid", "no.csv"], "'no.csv' is neither a number of grams nor a forecast that can be read"),
        (["--price", "-1"], "--price"),
        (["--pue", "0.5"], "--pue"),
        (["--host-watts", "-5"], "--host-watts"),
    ],
)
def test_a_wrong_rate_is_named(arithmetic: Run, write: Write, options: list[str], said: str) -> None:
    answer = planned(arithmetic, write, "plan", *options)
    assert answer.exit_code == 2
    assert said in answer.output


def test_a_file_that_is_no_forecast_is_named(arithmetic: Run, write: Write, tmp_path: Path) -> None:
    answer = planned(arithmetic, write, "plan", "--grid", write("grid.csv", "hour,grams\n"))
    assert answer.exit_code == 2
    assert "line 1 must be time,gramsPerKilowattHour" in answer.output
    (tmp_path / "raw.csv").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in planned(arithmetic, write, "plan", "--grid", tmp_path / "raw.csv").output


@pytest.mark.parametrize("command", ["plan", "fleet", "status", "budget", "audit"])
def test_every_command_that_prints_energy_takes_the_same_options(command: str) -> None:
    text = run(command, "--help").output
    assert [name for name in ("--price", "--pue", "--grid", "--host-watts") if name not in text] == []
