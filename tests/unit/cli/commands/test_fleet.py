"""`energylens fleet`: whole outputs on fixed figures, budgets, and the page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.conftest import POOLS, Run, Write, budget, chat, compare

from energylens.clock import SystemClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
"""At which previews are made here."""
SMALL = "meta-llama/Llama-3.1-8B-Instruct"
TIGHT = {"percentile": "P50", "ttftMilliseconds": 2000, "itlMilliseconds": 15}
FLEET = [
    chat("search/answers"),
    chat("search/titles", SMALL),
    chat("coding/complete", SMALL, slo=TIGHT),
    chat("coding/review", slo=TIGHT),
]


def planned(run: Run, write: Write, documents: Sequence[object], *options: object) -> Any:
    return run("fleet", "-f", write("fleet.yaml", documents), "--inventory", write("pools.yaml", POOLS), *options)


IMPOSSIBLE = [chat("search/never", slo={"itlMilliseconds": 1}), chat("x/none", hardware={"gpuProducts": ["B200"]})]


@pytest.mark.parametrize(
    ("name", "documents", "options", "code"),
    [
        ("fleet", FLEET, ["--budget-watts", 4000], 0),
        ("fleet-too-few-watts", FLEET, ["--budget-watts", 2000], 3),
        ("fleet-impossible", [*FLEET, *IMPOSSIBLE], [], 3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("output", ["table", "json"])
def test_outputs(
    name: str, documents: list[object], options: list[object], code: int, output: str, arithmetic: Run, write: Write
) -> None:
    result = planned(arithmetic, write, documents, *options, "-o", output)
    assert result.exit_code == code, result.output
    compare(f"{name}.{'txt' if output == 'table' else output}", result.stdout)


def test_teams_and_deployments_add_up(arithmetic: Run, write: Write) -> None:
    document = json.loads(planned(arithmetic, write, FLEET, "-o", "json").stdout)
    watts = [sum(part["powerWatts"] for part in document["teams"])]
    watts.append(sum(part["plan"]["powerWatts"] for part in document["deployments"]))
    assert watts == [pytest.approx(document["powerWatts"], abs=2)] * 2
    assert document["gpus"] == sum(part["plan"]["gpus"] for part in document["deployments"])


def test_stopped_deployments_take_neither_gpus_nor_watts(arithmetic: Run, write: Write) -> None:
    stopped = chat("search/zero", replicas=0, scaling={"mode": "External", "minReplicas": 0})
    off = chat("search/off", suspend=True)
    both = json.loads(planned(arithmetic, write, [*FLEET, stopped, off], "-o", "json").stdout)
    alone = json.loads(planned(arithmetic, write, FLEET, "-o", "json").stdout)
    assert (both["gpus"], both["powerWatts"]) == (alone["gpus"], alone["powerWatts"])
    assert both["stopped"] == [
        {"deployment": "search/off", "message": "spec.suspend is true"},
        {"deployment": "search/zero", "message": "spec.replicas is 0"},
    ]
    result = planned(arithmetic, write, [stopped])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "Fleet of 1 deployment, 1 stopped: 0 W on 0 GPUs",
        "  search/zero runs no pods: spec.replicas is 0",
    ]


JOB = {"requests": 40_000, "completeWithinSeconds": 7200, "afterCompletion": "Release"}
NIGHTLY = chat(
    "batch/nightly", SMALL, workload={"inputTokens": 300, "outputTokens": 400, "job": JOB}, slo={"percentile": "P50"}
)


def test_jobs_have_an_end_and_an_energy_and_count_in_no_day(arithmetic: Run, write: Write, tmp_path: Path) -> None:
    document = json.loads(planned(arithmetic, write, [*FLEET, NIGHTLY], "-o", "json", "--price", 0.2).stdout)
    parts = {part["name"]: part for part in document["deployments"]}
    job = parts["nightly"]["job"]
    assert 0 < job["completionSeconds"] <= 7200
    assert document["jobEnergyWattHours"] == job["energyWattHours"] > 0
    steady = document["powerWatts"] - parts["nightly"]["plan"]["powerWatts"]
    assert document["energyWattHoursPerDay"] == pytest.approx(24 * steady, abs=24)
    assert document["cost"]["jobs"]["money"] == pytest.approx(0.2 * job["energyWattHours"] / 1000)
    assert parts["nightly"]["cost"]["job"]["money"] == pytest.approx(document["cost"]["jobs"]["money"])
    assert not {"ttftMilliseconds", "endToEndMilliseconds"} & set(parts["nightly"]["plan"])
    page = tmp_path / "fleet.html"
    text = planned(arithmetic, write, [*FLEET, NIGHTLY], "--price", 0.2, "--report", page).stdout
    energy = f"{job['energyWattHours'] / 1000:.3g} kWh"
    assert f" kWh per day, {energy} for 1 job\n" in text
    assert "in money of batch/nightly\n" in text
    (row,) = (line for line in text.splitlines() if line.strip().startswith("batch/nightly "))
    assert [row.split()[-4], row.split()[-1]] == ["-", "-"]
    assert f"{energy}" in page.read_text()
    assert "for 1 job" in page.read_text()


def test_jobs_alone_have_no_day(arithmetic: Run, write: Write) -> None:
    text = planned(arithmetic, write, [NIGHTLY], "--price", 0.2).stdout
    assert "per day" not in text.splitlines()[0]
    assert " a month" not in text.partition("Cost:")[0]


def test_a_budget_bears_the_power_of_a_job_while_requests_are_served(arithmetic: Run, write: Write) -> None:
    free = json.loads(planned(arithmetic, write, [NIGHTLY], "-o", "json").stdout)
    tight = free["powerWatts"] - 1
    capped = planned(arithmetic, write, [NIGHTLY], "--budget-watts", tight, "-o", "json")
    document = json.loads(capped.stdout)
    assert capped.exit_code == 0
    assert document["powerWatts"] <= tight
    assert document["jobEnergyWattHours"] >= free["jobEnergyWattHours"]
    assert document["limits"][0]["powerWatts"] == tight
    none = planned(arithmetic, write, [NIGHTLY, budget("batch/cap", 1)])
    assert none.exit_code == 3
    assert "would work: EnergyBudget batch/cap higher by" in none.stdout


def test_it_is_never_worse_than_one_after_the_other(arithmetic: Run, write: Write) -> None:
    asked = [chat("a/greedy"), chat("b/needs-h200", hardware={"gpuProducts": ["H200"]}, slo=TIGHT)]
    pools: dict[str, object] = {
        "nodes": [{"product": "H200", "gpus": 4}, {"product": "H100", "gpus": 4}, {"product": "L40S", "gpus": 4}]
    }
    files = ["-f", write("asked.yaml", asked), "--inventory", write("small.yaml", pools), "-o", "json"]
    one_by_one, together = arithmetic("plan", *files), arithmetic("fleet", *files)
    assert one_by_one.exit_code == 3, "the first takes H200 GPUs that the second needs"
    assert together.exit_code == 3 or json.loads(together.stdout)["feasible"]
    loose = [chat("a/greedy", slo={"percentile": "P50", "itlMilliseconds": 40}), asked[1]]
    files[1] = write("loose.yaml", loose)
    assert arithmetic("plan", *files).exit_code == 3
    assert arithmetic("fleet", *files).exit_code == 0


def test_budgets_of_teams_are_limits_and_those_that_report_are_not(arithmetic: Run, write: Write) -> None:
    caps = [budget("search/cap", 1000), budget("coding/watch", 1, "Report"), budget("other/cap", 1)]
    document = json.loads(planned(arithmetic, write, [*FLEET, *caps], "-o", "json").stdout)
    assert [(limit["name"], limit["powerWatts"]) for limit in document["limits"]] == [("EnergyBudget search/cap", 1000)]
    enforced = planned(arithmetic, write, [*FLEET, budget("search/cap", 500)])
    assert enforced.exit_code == 3
    assert "would work: EnergyBudget search/cap higher by" in enforced.stdout


def test_a_budget_of_the_cluster_is_a_limit_over_teams(arithmetic: Run, write: Write) -> None:
    cap: dict[str, object] = {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "ClusterEnergyBudget",
        "metadata": {"name": "feed"},
        "spec": {"powerWatts": 2000, "action": "Deny", "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H200"}},
    }
    document = json.loads(planned(arithmetic, write, [*FLEET, cap], "-o", "json").stdout)
    (limit,) = document["limits"]
    assert limit["name"] == "ClusterEnergyBudget feed"
    on_h200 = sum(
        part["plan"]["powerWatts"] for part in document["deployments"] if part["plan"]["gpuProduct"] == "NVIDIA-H200"
    )
    assert limit["usedPowerWatts"] == pytest.approx(on_h200, abs=2)


def test_a_limit_of_some_nodes_of_a_product_says_that_all_of_them_count(
    arithmetic: Run, write: Write, tmp_path: Path
) -> None:
    nodes = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": f"n{i}", "labels": {"nvidia.com/gpu.product": "NVIDIA-H200", "row": f"{i}"}},
            "status": {"allocatable": {"nvidia.com/gpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]},
        }
        for i in range(2)
    ]
    row = {**budget("row", 3000), "kind": "ClusterEnergyBudget"}
    row["spec"] = {"powerWatts": 3000, "action": "Deny", "nodeSelector": {"row": "1"}}
    page = tmp_path / "fleet.html"
    files = ["-f", write("asked.yaml", [*FLEET[:2], row]), "--inventory", write("nodes.yaml", nodes)]
    said = "ClusterEnergyBudget row selects only some nodes with NVIDIA-H200: power on all of them counts"
    assert said in arithmetic("fleet", *files, "--report", page).stdout
    assert said in page.read_text()
    (limit,) = json.loads(arithmetic("fleet", *files, "-o", "json").stdout)["limits"]
    assert limit["countsAllNodesOf"] == ["NVIDIA-H200"]


def carbon_budget(grams: int) -> dict[str, object]:
    """Return a budget that no operator has looked at."""
    found = budget("search/cap", 1)
    carbon = {"forecastConfigMapRef": {"name": "grid"}, "gramsPerPeriod": grams}
    return {**found, "spec": {"carbon": carbon, "period": "Hour", "action": "Deny"}}


def grid(now: datetime) -> dict[str, object]:
    """Return a forecast of 500 g/kWh for this hour and the next ones."""
    hour = now.replace(minute=0, second=0, microsecond=0)
    lines = [f"{(hour + timedelta(hours=h)).isoformat()},500" for h in range(-1, 4)]
    text = "\n".join(["time,gramsPerKilowattHour", *lines])
    metadata = {"name": "grid", "namespace": "search"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"forecast.csv": text}}


@pytest.mark.parametrize(("command", "now"), [("plan", NOW), ("fleet", SystemClock().now())], ids=["plan", "fleet"])
def test_a_carbon_budget_that_is_not_applied_counts_from_now(
    command: str, now: datetime, arithmetic: Run, write: Write
) -> None:
    pools = write("pools.yaml", POOLS)

    def asked(grams: int) -> int:
        files = write("asked.yaml", [FLEET[0], carbon_budget(grams), grid(now)])
        return arithmetic(command, "-f", files, "--inventory", pools).exit_code

    assert asked(10**6) == 0
    assert asked(1) == 3


def test_a_carbon_budget_without_its_forecast_says_what_is_missing(arithmetic: Run, write: Write) -> None:
    result = planned(arithmetic, write, [FLEET[0], carbon_budget(1000)])
    assert result.exit_code == 2
    assert "EnergyBudget search/cap: spec.carbon.forecastConfigMapRef: ConfigMap search/grid does not exist" in (
        result.stderr
    )


def test_what_others_run_counts(arithmetic: Run, write: Write) -> None:
    other = {
        **chat("search/running"),
        "status": {"plan": {"gpuProduct": "NVIDIA-H200", "gpus": 8, "tensorParallel": 8, "pipelineParallel": 1,
                            "dataParallel": 1, "predicted": {"powerWatts": 400}}},
    }  # fmt: skip
    cap = budget("search/cap", 1000)
    pools = write("pools-and-more.yaml", [POOLS, other, cap])
    result = arithmetic("fleet", "-f", write("asked.yaml", FLEET[1:3]), "--inventory", pools, "-o", "json")
    document = json.loads(result.stdout)
    assert document["gpusFree"]["NVIDIA-H200"] == 0
    assert document["limits"][0]["powerWatts"] == 600


def test_the_page_needs_nothing_else(arithmetic: Run, write: Write, tmp_path: Path) -> None:
    page = tmp_path / "fleet.html"
    result = planned(arithmetic, write, FLEET, "--budget-watts", 4000, "--report", page)
    assert result.exit_code == 0, result.output
    assert f"wrote {page}\n" in result.stderr
    text = page.read_text()
    assert set(re.findall(r'(?:src|href)="([^"#]+)"', text)) == set()
    assert "<script" not in text
    assert text.count("<svg") == 3
    assert not re.search(r"#f[0-9a-f]{2}0d", text), "a stand-in for a colour is left"
    assert "<title>search/answers: " in text
    for team in ("search", "coding"):
        assert f">{team}</text>" in text
    assert "left of --budget-watts (4,000 W)" in text
    assert re.search(r">answers</text>", text), "a segment is labelled with its deployment"
    assert re.search(r"<footer>Made 20[0-9-]+ [0-9:]+ UTC by energylens [0-9.]+, predictor arithmetic-1, from ", text)


def test_a_page_of_many_teams_has_a_colour_for_each(arithmetic: Run, write: Write, tmp_path: Path) -> None:
    page, many = tmp_path / "fleet.html", [chat(f"team-{i}/a", SMALL, slo={"percentile": "P50"}) for i in range(7)]
    assert planned(arithmetic, write, many, "--report", page).exit_code == 0
    text = page.read_text()
    assert [f"var(--series-{i})" in text for i in range(6)] == [True] * 6
    assert not re.search(r"#f[0-9a-f]{2}0d", text), "a stand-in for a colour is left"


def test_a_page_of_what_does_not_fit_says_why(arithmetic: Run, write: Write, tmp_path: Path) -> None:
    page = tmp_path / "fleet.html"
    assert planned(arithmetic, write, FLEET, "--budget-watts", 100, "--report", page).exit_code == 3
    text = page.read_text()
    assert "no joint plan" in text
    assert "would work: --budget-watts higher by" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--report", "fleet.pdf"], "Error: --report fleet.pdf: the name must end in .html"),
        (["--budget-watts", "0"], "0 must be a whole number of at least 1"),
    ],
)
def test_bad_options(options: list[str], message: str, arithmetic: Run, write: Write) -> None:
    result = planned(arithmetic, write, FLEET, *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_model_that_is_not_known_is_bad_input(write: Write) -> None:
    from tests.unit.cli.conftest import run

    result = planned(run, write, [chat("a/b", "nobody/knows")])
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: a/b: spec.model.name='nobody/knows': ")
