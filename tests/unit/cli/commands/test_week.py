"""What the commands say of a load with a profile: the week as text, as an object and as a picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.unit.cli.conftest import POOLS, Run, Write, chat

from energylens.api.llmdeployment import ScheduledReplicas, ScheduleStatus
from energylens.api.parse import parse_llmdeployment
from energylens.cli.text.status import page
from energylens.cli.text.week import week_rows

BUSY = {"days": ["Mon", "Tue", "Wed", "Fri"], "fromHour": 8, "toHour": 18, "requestsPerSecond": "40"}


@pytest.fixture
def asked(write: Write) -> Path:
    found: dict[str, Any] = chat()
    workload = found["spec"]["workload"]
    workload |= {"requestsPerSecond": "1", "profile": {"timeZone": "Europe/Berlin", "hours": [BUSY]}}
    return write("asked.yaml", found)


def test_the_plan_says_the_week_and_the_replicas_of_its_hours(arithmetic: Run, write: Write, asked: Path) -> None:
    result = arithmetic("plan", "-f", asked, "--inventory", write("pools.yaml", POOLS))
    assert result.exit_code == 0, result.output
    for words in ("less than the best constant plan", "Replicas over the week (Europe/Berlin)", "Mon-Wed, Fri  08:00",
                  "Plans for the highest rate, Mon 08:00, 40 requests per second"):  # fmt: skip
        assert words in result.stdout


def test_the_object_has_the_schedule_and_the_chosen_row_is_that_of_the_week(
    arithmetic: Run, write: Write, asked: Path
) -> None:
    pools = write("pools.yaml", POOLS)
    found = json.loads(arithmetic("plan", "-f", asked, "--inventory", pools, "-o", "json").stdout)
    schedule, plan = found["status"]["schedule"], found["status"]["plan"]
    assert len(schedule["hours"]) == 8
    assert schedule["weekWattHours"] <= schedule["constantWattHours"]
    explained = json.loads(arithmetic("explain", "-f", asked, "--inventory", pools, "-o", "json").stdout)
    assert explained["schedule"]["hours"] == schedule["hours"]
    assert explained["plan"]["gpuProduct"] == plan["gpuProduct"]
    assert explained["plan"]["replicas"] == plan["plannedReplicas"] == max(e["replicas"] for e in schedule["hours"])
    least = min((other["weekWattHours"] for other in explained["otherProducts"]), default=schedule["weekWattHours"])
    assert least >= 0.9 * schedule["weekWattHours"]


def test_an_explanation_says_the_best_week_of_each_product(arithmetic: Run, write: Write, asked: Path) -> None:
    text = arithmetic("explain", "-f", asked, "--inventory", write("pools.yaml", POOLS)).stdout
    assert "Best week of each other GPU product" in text
    assert "At the highest rate, Mon 08:00, 40 requests per second" in text
    # The price of a constraint at one rate is not that of the week.
    assert "What each constraint costs" not in text
    why = arithmetic("explain", "-f", asked, "--inventory", write("pools.yaml", POOLS), "--why", "tp=8").stdout
    assert "at the highest rate, Mon 08:00" in why


def test_a_load_that_no_plan_sustains_is_named_with_its_hour(arithmetic: Run, write: Write, asked: Path) -> None:
    text: dict[str, Any] = yaml.safe_load(asked.read_text())
    text["spec"]["workload"]["profile"]["hours"][0]["requestsPerSecond"] = "90000"
    result = arithmetic("plan", "-f", write("asked.yaml", text), "--inventory", write("pools.yaml", POOLS))
    assert result.exit_code == 3
    assert "Mon 08:00, 90000 requests per second" in result.stdout
    assert "spec.workload.profile at Mon 08:00" in result.stdout


@pytest.mark.parametrize("suffix", [".png", ".svg", ".html"])
def test_the_picture_has_the_week(arithmetic: Run, write: Write, asked: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"week{suffix}"
    result = arithmetic("plan", "-f", asked, "--inventory", write("pools.yaml", POOLS), "--plot", path)
    assert result.exit_code == 0, result.output
    if suffix == ".html":
        page = path.read_text()
        assert "Load, replicas and power over the week (Europe/Berlin)" in page
        assert page.count("<svg") == 3
        chart = page[page.index("<svg") : page.index("</svg>") + 6]
        ElementTree.fromstring(chart.replace('xlink:href="', 'href="'))
    else:
        assert path.stat().st_size > 10_000


def test_a_fleet_says_that_it_plans_the_highest_rate(arithmetic: Run, write: Write, asked: Path) -> None:
    result = arithmetic("fleet", "-f", asked, "--inventory", write("pools.yaml", POOLS))
    assert result.exit_code == 0, result.output
    assert "has a profile, and is planned for the highest rate: Mon 08:00, 40 requests per second" in result.stderr


def test_the_page_of_a_deployment_says_load_and_week(arithmetic: Run, write: Write, asked: Path) -> None:
    found = arithmetic("plan", "-f", asked, "--inventory", write("pools.yaml", POOLS), "-o", "json").stdout
    text = page(parse_llmdeployment(json.loads(found), strict=False))
    assert "1 requests per second outside of the profile (the highest rate: Mon 08:00, 40 requests per second)" in text
    assert "Replicas over the week (Europe/Berlin)" in text


def test_the_same_change_on_several_days_is_one_row() -> None:
    days = ("Mon", "Tue", "Thu", "Fri", "Sat")
    entries = [
        ScheduledReplicas(day=day, hour=hour, requests_per_second="2", replicas=count, power_watts=300 * count)
        for day in days
        for hour, count in ((8, 3), (18, 1))
    ]
    schedule = ScheduleStatus(
        replicas=1,
        start_seconds=1,
        start_joules=1,
        week_watt_hours=1,
        starts=1,
        released_gpu_hours=0,
        hours=tuple(entries),
    )
    assert [row[:4] for row in week_rows(schedule)] == [
        ("Mon, Tue, Thu-Sat", "08:00", "2", "3"),
        ("Mon, Tue, Thu-Sat", "18:00", "2", "1"),
    ]
    assert np.sum([int(row[4]) for row in week_rows(schedule)]) == 1200
