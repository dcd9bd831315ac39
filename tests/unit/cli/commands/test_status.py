"""The page of `energylens status`, and what it says when the cluster cannot be read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.unit.api.objects import DEPLOYMENT, changed

from energylens.api.parse import parse_llmdeployment
from energylens.audit.hosts import HostPower
from energylens.cli.commands import status as command
from energylens.cli.inputs.live import ClusterAccess, LiveObjects
from energylens.cli.inputs.rates import Rates
from energylens.cli.main import cli
from energylens.cli.text.status import page
from energylens.measure.types import PodRef

PLAN = {
    "hash": "0123456789abcdef",
    "predictorVersion": "1+fixed",
    "confidence": "Interpolated",
    "confidenceReason": "vLLM 0.33.0 was not measured, 0.19.1 to 0.25.1 of the same engine was",
    "bindingConstraint": "spec.slo.itlMilliseconds",
    "gpuProduct": "NVIDIA-H200",
    "gpus": 8,
    "replicas": 2,
    "tensorParallel": 4,
    "pipelineParallel": 1,
    "expertParallel": 1,
    "dataParallel": 1,
    "layout": "TP4",
    "maxBatchSize": 64,
    "predicted": {
        "joulesPerOutputToken": "412m",
        "joulesPerOutputTokenLow": "350m",
        "joulesPerOutputTokenHigh": "470m",
        "powerWatts": 2100,
        "idlePowerWatts": 900,
        "outputTokensPerSecond": 5100,
        "concurrency": 90,
        "ttftMilliseconds": 180,
        "itlMilliseconds": 17,
        "tpotMilliseconds": 20,
    },
}
LIVE = changed(
    DEPLOYMENT,
    {
        "metadata.namespace": "team-a",
        "metadata.generation": 3,
        "spec.slo": {"ttftMilliseconds": 500, "itlMilliseconds": 30, "joulesPerOutputToken": "500m"},
        "status": {
            "observedGeneration": 3,
            "plan": PLAN,
            "activeRevision": {
                "planHash": "0123456789abcdef",
                "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"},
                "readyReplicas": 1,
                "updatedReplicas": 2,
            },
            "measured": {
                "windowStart": "2026-01-01T00:00:00Z",
                "windowEnd": "2026-01-01T00:10:00Z",
                "coveragePercent": 100,
                "powerWatts": 2000,
                "joulesPerOutputToken": "392m",
                "itlMilliseconds": 18,
                "tpotMilliseconds": 19,
            },
            "prediction": {"energyErrorPercent": 5, "itlErrorPercent": -6, "tpotErrorPercent": 5, "samples": 4},
            "budget": {"usedPercent": 12, "remainingWattHours": 300, "resetTime": "2026-02-01T00:00:00Z"},
            "conditions": [
                {
                    "type": "Ready",
                    "status": "False",
                    "reason": "PodsNotReady",
                    "message": "1 of 2 replicas of plan 0123456789abcdef are ready",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ],
        },
    },
)
PAGE = """\
team-a/llama: meta-llama/Llama-3.1-70B-Instruct on VLLM
  load        2 requests per second, 512 tokens in, 128 out
  objectives  P95 TTFT <= 500 ms, P95 ITL <= 30 ms, at most 0.5 J per output token
  plan        2 x NVIDIA-H200 TP4, max batch 64 (8 GPUs)   hash 0123456789abcdef
  running     1 of 2 replicas are ready, Deployment llama
  confidence  Interpolated: vLLM 0.33.0 was not measured, 0.19.1 to 0.25.1 of the same engine was

  FIGURE                    PREDICTED  MEASURED  PREDICTION OFF BY
  J per output token        0.412      0.392     +5 %
  power, W                  2100       2000      -
  idle power, W             900        -         -
  output tokens per second  5100       -         -
  TTFT P95, ms              180        -         -
  ITL P95, ms               17         18        -6 %
  TPOT P95, ms              20         19        +5 %
  E2E P95, ms               -          -         -
  Measured 2026-01-01T00:00:00Z to 2026-01-01T00:10:00Z, 100 % of the GPUs covered, 4 windows so far.

  budget      12 % used, 300 Wh left, next period 2026-02-01T00:00:00Z

  CONDITION  STATUS  REASON        SINCE                 MESSAGE
  Ready      False   PodsNotReady  2026-01-01T00:00:00Z  1 of 2 replicas of plan 0123456789abcdef are ready"""


def shown(changes: dict[str, Any]) -> str:
    return page(parse_llmdeployment(changed(LIVE, changes), strict=True))


def test_the_page() -> None:
    assert shown({}) == PAGE


def test_the_cost_is_that_of_the_plan_and_of_what_was_measured() -> None:
    text = page(parse_llmdeployment(LIVE, strict=True), Rates(price=0.2))
    assert "  measured    0.109 kWh, 0.0218 in money per million output tokens; 1,460 kWh, 292 in money a month" in text
    assert "\n  predicted   " in text
    assert "Cost: energy of the GPUs alone" in text


def test_nothing_measured_is_not_shown_as_zero() -> None:
    text = shown({"status.measured": ..., "status.prediction": ...})
    assert "  J per output token        0.412      -         -" in text
    assert "Nothing was measured yet." in text
    assert " 0 " not in text


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of each row of figures by name."""
    cells = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    return {line[0]: line[1:] for line in cells if len(line) == 4}


def test_measured_requests_stand_beside_those_of_the_spec() -> None:
    found = rows(
        shown(
            {
                "status.measured.inputTokens": 640,
                "status.measured.outputTokens": 128,
                "status.measured.runningRequests": "80",
                "status.measured.waitingRequests": "15",
                "status.measured.inputTokensPercentiles": {
                    "p50": 350, "p50From": 200, "p50To": 500, "p95": 1500, "p95From": 1000, "p95To": 2000
                },
                "status.measured.outputTokensPercentiles": {
                    "p50": 150, "p50From": 100, "p50To": 200, "p95": 100000, "p95From": 100000
                },
            }
        )
    )  # fmt: skip
    assert found["requests at once"] == ["90", "95", "-"]
    assert found["prompt tokens"] == ["512", "640", "-20 %"]
    assert found["prompt tokens P95"] == ["-", "1500 (1000 to 2000)", "-"]
    assert found["output tokens"] == ["128", "128", "+0 %"]
    assert found["output tokens P95"] == ["128", "100000 (100000 to no end)", "-"]


def test_followed_lengths_are_what_is_planned_for() -> None:
    length = {"tokens": 640, "declaredTokens": 512, "steps": 1}
    found = rows(
        shown(
            {
                "spec.planning.followLoad": "Auto",
                "spec.planning.followLengths": "Auto",
                "status.load": {
                    "requestsPerSecond": "2", "declaredRequestsPerSecond": "2", "inputTokens": length
                },
                "status.measured.inputTokens": 640,
            }
        )
    )  # fmt: skip
    assert found["prompt tokens"] == ["640", "640", "+0 %"]


def test_hits_and_drafts_stand_beside_what_was_planned() -> None:
    speculative = {"draftTokens": 3, "acceptancePercent": 60}
    text = shown(
        {
            "spec.workload.prefixCacheHitPercent": 50,
            "spec.workload.speculative": speculative,
            "status.measured.prefixCacheHitPercent": 30,
        }
    )
    assert "(50 % in the prefix cache)" in text
    assert "3 tokens drafted per step, 60 % of them accepted" in text
    rows = {line.strip().partition("  ")[0]: line.split()[-3:] for line in text.splitlines()}
    assert rows["prefix cache hits, %"] == ["50", "30", "-"]
    assert rows["accepted drafts, %"] == ["60", "-", "-"]
    assert "prefix cache" not in shown({})


def test_a_status_of_an_older_spec_is_said_to_be_so() -> None:
    assert "outdated    the spec is at generation 4; the operator has reconciled generation 3" in shown(
        {"metadata.generation": 4}
    )


def test_a_pass_that_failed_is_said_first() -> None:
    degraded = {
        "type": "Degraded",
        "status": "True",
        "reason": "InternalError",
        "message": "internal error: KeyError: 'x'; retrying",
        "observedGeneration": 3,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    text = shown({"status.conditions": [degraded]})
    assert "degraded    InternalError at generation 3: internal error: KeyError: 'x'; retrying" in text.splitlines()[3]


def test_what_runs_is_named_where_it_is_not_the_plan() -> None:
    text = shown({"status.activeRevision.planHash": "fedcba9876543210"})
    assert "running     1 replica of plan fedcba9876543210 is ready" in text


BEFORE = {
    "planHash": "fedcba9876543210",
    "gpuProduct": "NVIDIA-H200",
    "replicas": 1,
    "layout": "TP8",
    "maxBatchSize": 256,
    "joulesPerOutputToken": "600m",
    "measuredJoulesPerOutputToken": "592m",
    "measuredOutputTokensPerSecond": 5000,
    "replacedBy": "0123456789abcdef",
    "replacedTime": "2025-12-31T00:00:00Z",
}


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (5100, "; the running plan takes 1020 W less at a similar load"),
        (9000, "; not comparable with the 9000 tokens per second of now"),
        (None, ""),
    ],
)
def test_the_plan_before_stands_below_what_runs(tokens: int | None, said: str) -> None:
    now = {} if tokens is None else {"status.measured.outputTokensPerSecond": tokens}
    lines = shown({"status.previousRevision": BEFORE, **now}).splitlines()
    assert lines[5] == (
        "  replaced    plan fedcba9876543210 (1 x NVIDIA-H200 TP8, max batch 256) on 2025-12-31T00:00:00Z: 0.592 J per "
        f"output token measured at 5000 tokens per second{said}"
    )


def test_the_plan_before_has_its_prediction_where_it_was_not_measured() -> None:
    before = {name: value for name, value in BEFORE.items() if not name.startswith("measured")}
    text = shown({"status.previousRevision": before})
    assert "2025-12-31T00:00:00Z: its energy was not measured, 0.6 J per output token predicted\n" in text


def test_more_power_than_the_plan_before_is_said() -> None:
    worse = {**BEFORE, "measuredJoulesPerOutputToken": "292m"}
    text = shown({"status.previousRevision": worse, "status.measured.outputTokensPerSecond": 5000})
    assert "the running plan takes 500 W more at a similar load" in text


def test_a_deployment_that_nobody_looked_at() -> None:
    text = shown({"status": ...})
    assert "plan        none" in text
    assert "running     nothing" in text
    assert "The operator has not reconciled it yet." in text
    assert "FIGURE" not in text


def read(access: ClusterAccess, *_: object) -> LiveObjects:
    return LiveObjects(
        access.namespace or "team-a", {"LLMDeployment": [LIVE, changed(LIVE, {"metadata.name": "other"})]}
    )


def test_json_has_what_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.setattr(command, "read_cluster", read)
    result = CliRunner().invoke(cli, ["status", "llama", "-o", "json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    assert document["namespace"] == "team-a"
    assert document["upToDate"] is True
    assert document["predicted"]["powerWatts"] == 2100
    assert document["measured"]["powerWatts"] == 2000
    assert "ttftMilliseconds" not in document["measured"]
    errors = {"energyErrorPercent": 5, "itlErrorPercent": -6, "tpotErrorPercent": 5}
    assert document["prediction"] == {**errors, "samples": 4}
    assert document["plan"]["layout"] == "TP4"
    assert document["conditions"][0]["reason"] == "PodsNotReady"


def test_hosts_are_read_from_a_prometheus(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = frozenset({PodRef("team-a", "llama-1")})
    known = HostPower("node-0", 8, pods, "kepler_platform_watts", 5000.0, 3000.0)
    partly = HostPower(
        "node-1", 8, pods, "kepler_platform_watts", 5000.0, None, "the energy of 7 of its 8 GPUs is known"
    )
    monkeypatch.setattr(command, "read_cluster", read)
    answers = ({("team-a", LIVE["metadata"]["name"]): [known, partly]}, ("a meter names no node",))
    monkeypatch.setattr("energylens.cli.inputs.hosts.hosts_by_deployment", lambda *_: answers)
    found = CliRunner().invoke(cli, ["status", "--prometheus", "http://127.0.0.1:1", "--price", "0.1"])
    assert found.exit_code == 0, found.output
    assert found.stderr == "Warning: a meter names no node\n"
    assert "node-0: 5,000 W at the meter (Kepler, by Redfish), of which its 8 GPUs drew 3,000 W" in found.stdout
    assert (
        "node-1: 5,000 W at the meter (Kepler, by Redfish), with the GPUs; the host's part is not known"
    ) in found.stdout
    assert "2,000 W more as measured of 1 of 2 hosts, 250 W for each of 8 GPUs: 1,460 kWh, 146 in" in found.stdout
    body = json.loads(CliRunner().invoke(cli, ["status", "--prometheus", "http://x", "-o", "json"]).stdout)
    assert [host.get("hostWatts") for host in body["items"][0]["hosts"]] == [2000.0, None]


def test_names_choose_and_a_wrong_one_is_told_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "read_cluster", read)
    both = CliRunner().invoke(cli, ["status"])
    assert [line for line in both.stdout.splitlines() if line.startswith("team-a/")] == [
        f"team-a/{name}: meta-llama/Llama-3.1-70B-Instruct on VLLM" for name in ("llama", "other")
    ]
    wrong = CliRunner().invoke(cli, ["status", "lama"])
    assert wrong.exit_code == 2
    assert wrong.stderr == "Error: NAME 'lama': namespace team-a has llama, other\n"


def test_one_that_cannot_be_read_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = changed(LIVE, {"metadata.name": "newer", "spec.engine": {"type": "Later"}})
    monkeypatch.setattr(command, "read_cluster", lambda *_: LiveObjects("team-a", {"LLMDeployment": [newer, LIVE]}))
    result = CliRunner().invoke(cli, ["status"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("team-a/llama: ")
    assert result.stderr.startswith("Warning: team-a/newer is left out: spec.engine.type: ")


@pytest.mark.parametrize("text", [None, "", "- a list\n", "kind: Config\n"])
def test_a_kubeconfig_that_is_none_is_one_line(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    result = CliRunner().invoke(cli, ["status", f"--kubeconfig={path}"])
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: --kubeconfig={path}: ")


def test_a_context_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(
        "{apiVersion: v1, kind: Config, current-context: here, users: [{name: me, user: {token: t}}], "
        "contexts: [{name: here, context: {cluster: here, user: me}}], "
        "clusters: [{name: here, cluster: {server: 'http://127.0.0.1:9'}}]}"
    )
    result = CliRunner().invoke(cli, ["status", f"--kubeconfig={path}", "--context=there"])
    assert result.exit_code == 2
    assert "there" in result.stderr
    gone = CliRunner().invoke(cli, ["status", f"--kubeconfig={path}"])
    assert gone.exit_code == 2
    assert "127.0.0.1:9" in gone.stderr
    assert gone.stderr.count("\n") == 1


def test_a_budget_of_ones_own_has_a_line() -> None:
    account = {
        "periodStart": "2026-01-01T00:00:00Z",
        "resetTime": "2026-02-01T00:00:00Z",
        "measuredJoules": 3600 * 700,
        "predictedJoules": 3600 * 50,
        "accountedUntil": "2026-01-01T12:00:00Z",
    }
    own = {"energyWattHours": 1000, "powerWatts": 3000, "action": "Enforce"}
    live = changed(LIVE, {"spec.energy.budget": own, "status.energyAccount": account})
    text = page(parse_llmdeployment(live, strict=True))
    assert (
        "  own budget  Enforce: 3000 W; 750 Wh used of 1000 Wh per month (UTC), 50 Wh of them predicted, "
        "next period 2026-02-01T00:00:00Z\n"
    ) in text
