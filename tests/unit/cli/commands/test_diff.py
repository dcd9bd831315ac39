"""`energylens diff`: two specs on one cluster, one spec on two clusters."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.cli.conftest import POOLS, Run, Write, chat, compare

FASTER = {"percentile": "P50", "ttftMilliseconds": 2000, "itlMilliseconds": 15}
FEWER: dict[str, object] = {"nodes": [{"product": "L40S", "gpus": 4, "count": 2}]}


def specs(run: Run, write: Write, a: object, b: object, *options: object) -> Any:
    return run("diff", write("a.yaml", a), write("b.yaml", b), "--inventory", write("pools.yaml", POOLS), *options)


def shown(text: str) -> str:
    """Return a comparison without the names of files, which differ from run to run."""
    return "".join(line for line in text.splitlines(keepends=True) if line[:3] not in ("A: ", "B: "))


def test_two_specs(arithmetic: Run, write: Write) -> None:
    result = specs(arithmetic, write, chat(), chat("renamed", slo=FASTER))
    assert result.exit_code == 0, result.output
    compare("diff-specs.txt", shown(result.stdout))


def test_two_inventories_and_several_deployments(arithmetic: Run, write: Write) -> None:
    loose = {"percentile": "P50", "itlMilliseconds": 70}
    asked = [chat("chat"), chat("batch", slo=loose), chat("impossible", slo={"itlMilliseconds": 1})]
    clusters = ["--inventory", write("a.yaml", POOLS), "--inventory", write("b.yaml", FEWER)]
    result = arithmetic("diff", "-f", write("asked.yaml", asked), *clusters)
    assert result.exit_code == 3, result.output
    compare("diff-inventories.txt", shown(result.stdout))


def test_the_same_spec_has_no_difference(arithmetic: Run, write: Write) -> None:
    result = specs(arithmetic, write, chat(), chat())
    assert "the plan is the same" in result.stdout
    document = json.loads(specs(arithmetic, write, chat(), chat(), "-o", "json").stdout)
    (pair,) = document["deployments"]
    assert pair["specChanges"] == []
    assert set(pair["difference"].values()) <= {0, "0"}


STOPPED: dict[str, Any] = {"replicas": 0, "scaling": {"mode": "External", "minReplicas": 0}}


def test_a_deployment_at_zero_replicas_draws_nothing(arithmetic: Run, write: Write) -> None:
    running = chat(replicas=1, scaling={"mode": "External", "minReplicas": 0})
    text = specs(arithmetic, write, running, chat(**STOPPED)).stdout
    assert "B runs no pods: spec.replicas is 0" in text
    document = json.loads(specs(arithmetic, write, running, chat(**STOPPED), "-o", "json").stdout)
    (pair,) = document["deployments"]
    plan, change = pair["a"]["plan"], pair["difference"]
    assert (change["gpus"], change["powerWatts"]) == (-plan["gpus"], -plan["predicted"]["powerWatts"])
    assert "joulesPerOutputToken" not in change
    assert document["total"]["b"] == {"gpus": 0, "powerWatts": 0, "energyWattHoursPerDay": 0, "idlePowerWatts": 0}
    suspended = specs(arithmetic, write, chat(suspend=True), chat()).stdout
    assert "A runs no pods: spec.suspend is true" in suspended


def test_json_has_the_numbers(arithmetic: Run, write: Write) -> None:
    document = json.loads(specs(arithmetic, write, chat(), chat(slo=FASTER), "-o", "json").stdout)
    (pair,) = document["deployments"]
    assert pair["specChanges"] == [{"field": "spec.slo.itlMilliseconds", "a": 30, "b": 15}]
    a, b = (pair[side]["plan"] for side in ("a", "b"))
    difference = pair["difference"]
    assert difference["gpus"] == b["gpus"] - a["gpus"] == 2
    assert difference["powerWatts"] == b["predicted"]["powerWatts"] - a["predicted"]["powerWatts"] > 0
    assert difference["energyWattHoursPerDay"] == 24 * difference["powerWatts"]
    assert document["total"]["difference"]["gpus"] == 2


def test_a_deployment_of_one_side_only(arithmetic: Run, write: Write) -> None:
    result = specs(arithmetic, write, [chat("one"), chat("two")], [chat("two"), chat("three")])
    assert result.exit_code == 0, result.output
    assert "default/one\n  only in A\n" in result.stdout
    assert "default/three\n  only in B\n" in result.stdout


def nightly(hours: int, requests: int = 40_000) -> dict[str, object]:
    job = {"requests": requests, "completeWithinSeconds": 3600 * hours, "afterCompletion": "Release"}
    return chat(workload={"inputTokens": 300, "outputTokens": 400, "job": job}, slo={})


def test_jobs_differ_by_their_end_and_their_energy_and_have_no_day(arithmetic: Run, write: Write) -> None:
    text = specs(arithmetic, write, nightly(1), nightly(1, 90_000)).stdout
    rows = {line.strip().split("  ")[0]: line for line in text.splitlines()}
    assert {"kWh of the job", "end of the job, s", "ITL, ms"} <= set(rows)
    assert not {"kWh per day", "TTFT, ms", "E2E, ms"} & set(rows)
    document = json.loads(specs(arithmetic, write, nightly(1), nightly(1, 90_000), "-o", "json").stdout)
    (pair,) = document["deployments"]
    jobs = [pair[side]["plan"]["job"] for side in ("a", "b")]
    assert jobs[0] != jobs[1]
    difference = pair["difference"]
    assert difference["completionSeconds"] == jobs[1]["completionSeconds"] - jobs[0]["completionSeconds"]
    assert difference["jobEnergyWattHours"] == jobs[1]["energyWattHours"] - jobs[0]["energyWattHours"]
    assert not {"energyWattHoursPerDay", "ttftMilliseconds", "endToEndMilliseconds"} & set(difference)


def test_a_job_beside_a_steady_load_has_no_difference_per_day(arithmetic: Run, write: Write) -> None:
    text = specs(arithmetic, write, nightly(1), chat()).stdout
    (day,) = (line for line in text.splitlines() if "kWh per day" in line)
    assert day.split()[3:] == ["-", day.split()[4], "-"]
    document = json.loads(
        specs(arithmetic, write, [nightly(1), chat("b")], [nightly(2), chat("b")], "-o", "json").stdout
    )
    total, steady = document["total"]["a"], document["deployments"][1]["a"]["plan"]["predicted"]["powerWatts"]
    assert total["energyWattHoursPerDay"] == 24 * steady
    assert total["jobEnergyWattHours"] == document["deployments"][0]["a"]["plan"]["job"]["energyWattHours"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.yaml"], "two specs are compared on one cluster: give A and B, and at most one --inventory"),
        (["a.yaml", "b.yaml", "--inventory", "c", "--inventory", "d"], "two specs are compared on one cluster"),
        (["a.yaml", "b.yaml", "-f", "c.yaml"], "A B compares two specs and -f one spec on two inventories"),
        (["-f", "a.yaml", "--inventory", "c"], "give two specs A B, or one with -f and two --inventory"),
        ([], "give two specs A B, or one with -f and two --inventory"),
    ],
)
def test_what_cannot_be_compared_is_one_line(arguments: list[str], message: str, arithmetic: Run) -> None:
    result = arithmetic("diff", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {message}")
    assert result.stderr.count("\n") == 1
