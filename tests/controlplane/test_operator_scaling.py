"""Replicas that a HorizontalPodAutoscaler, `kubectl scale` or the hours of a week set."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.external_metrics import METRIC, external_metrics
from tests.support.go_modules import HTTP_ADD_ON, KEDA, GoModule
from tests.support.operator_cluster import ROOT, OperatorCluster, Team

from energylens.clock import SystemClock
from energylens_dev.devcluster import KubectlError, eventually

PAGE = ROOT / "docs" / "planning.md"
LAYOUT = {"overrides": {"tensorParallel": 1, "maxBatchSize": 32}}
SYNC_SECONDS = 60.0
"""The autoscaler looks every 15 seconds."""
AUTOSCALER: dict[str, Any] = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "llama"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "energylens.dev/v1alpha1", "kind": "LLMDeployment", "name": "llama"},
        "minReplicas": 1,
        "maxReplicas": 4,
        "metrics": [
            {
                "type": "External",
                "external": {"metric": {"name": METRIC}, "target": {"type": "AverageValue", "averageValue": "2"}},
            }
        ],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
    },
}


def workload(team: Team) -> dict[str, Any]:
    return team.children()["Deployment", "llama"]


def runs(team: Team, replicas: int) -> bool:
    """Fail unless so many replicas are asked for, and run."""
    found, status = workload(team), team.status()
    assert (found["spec"]["replicas"], found["status"].get("readyReplicas")) == (replicas, replicas)
    assert (status["replicas"], status["plan"]["replicas"]) == (replicas, replicas)
    return True


def test_an_autoscaler_sets_the_replicas_and_the_operator_keeps_the_layout(
    operator: OperatorCluster, team: Team, tmp_path: Path
) -> None:
    team.apply(planning=LAYOUT, scaling={"mode": "External"}, replicas=2)
    before = team.ready()
    template = workload(team)["spec"]["template"]
    with external_metrics(operator.api, tmp_path, value=6) as metric:
        team.kubectl.apply(AUTOSCALER)
        eventually(lambda: runs(team, 3), SYNC_SECONDS)
        metric.value = 1
        eventually(lambda: runs(team, 1), SYNC_SECONDS)
        generation, asked = workload(team)["metadata"]["generation"], metric.asked
        # The autoscaler looks again, and nobody writes.
        eventually(lambda: metric.asked > asked, SYNC_SECONDS)
    assert workload(team)["metadata"]["generation"] == generation
    assert workload(team)["spec"]["template"] == template
    after = team.get()
    assert (after["spec"]["replicas"], after["status"]["plan"]["hash"]) == (1, before["plan"]["hash"])
    assert "BecameUnready" not in team.events()
    notes = team.events()["ReplicasScaled"]
    assert sorted(note.split(",")[0] for note in notes) == [
        "spec.replicas: 1 replica instead of 3",
        "spec.replicas: 3 replicas instead of 2",
    ]


def test_scaling_by_hand_is_refused_where_the_plan_decides(team: Team) -> None:
    team.apply()
    with pytest.raises(KubectlError, match=r"replicas \(5\) needs scaling.mode External or Fixed"):
        team.kubectl.run("scale", "llmd", "llama", "--replicas=5")
    team.apply(planning=LAYOUT, scaling={"mode": "External", "maxReplicas": 4}, replicas=1)
    team.ready()
    with pytest.raises(KubectlError, match=r"replicas \(5\) must be at most scaling.maxReplicas \(4\)"):
        team.kubectl.run("scale", "llmd", "llama", "--replicas=5")
    team.kubectl.run("scale", "llmd", "llama", "--replicas=3")
    eventually(lambda: runs(team, 3))


def test_the_last_replica_is_stopped_and_started_again(team: Team) -> None:
    team.apply(planning=LAYOUT, scaling={"mode": "External", "minReplicas": 0}, replicas=1)
    before = team.ready()
    team.kubectl.run("scale", "llmd", "llama", "--replicas=0")
    team.wait("Ready", "False", "ScaledToZero")
    eventually(lambda: not team.pods(), SYNC_SECONDS)
    assert team.status()["plan"]["hash"] == before["plan"]["hash"]
    team.kubectl.run("scale", "llmd", "llama", "--replicas=1")
    eventually(lambda: runs(team, 1), SYNC_SECONDS)
    assert "BecameUnready" not in team.events()


@pytest.mark.parametrize(
    ("kind", "module", "definition"),
    [
        ("HTTPScaledObject", HTTP_ADD_ON, "http.keda.sh_httpscaledobjects.yaml"),
        ("ScaledObject", KEDA, "keda.sh_scaledobjects.yaml"),
    ],
)
def test_the_manifests_of_keda_are_valid_where_its_definitions_are_installed(
    kind: str, module: GoModule, definition: str, team: Team, tmp_path: Path
) -> None:
    """The definitions are KEDA's and the add-on's own; targets and ports are those of the operator's objects."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (manifest,) = [block for block in blocks if f"\nkind: {kind}\n" in block]
    target = yaml.safe_load(manifest)["spec"]["scaleTargetRef"]
    text = module.file(f"config/crd/bases/{definition}", tmp_path).read_text(encoding="utf-8")
    name = yaml.safe_load(text)["metadata"]["name"]
    team.kubectl.apply(text, "--server-side")
    try:
        team.kubectl.run("wait", "--for=condition=Established", f"crd/{name}", "--timeout=60s")
        team.kubectl.run("create", "--validate=strict", "-f", "-", stdin=manifest)
        flow = manifest.replace("scaleTargetRef: {", "scaleTargetRef: {target: x, ")
        wrong = flow.replace("scaleTargetRef:\n", "scaleTargetRef:\n    target: x\n")
        with pytest.raises(KubectlError, match="scaleTargetRef"):
            team.kubectl.run("create", "--validate=strict", "--dry-run=server", "-f", "-", stdin=wrong)
        team.apply(target["name"], planning=LAYOUT, scaling={"mode": "External"}, replicas=1)
        # Autoscalers read and write this subresource of the target.
        scale = f"/apis/{target['apiVersion']}/namespaces/{team.namespace}/llmdeployments/{target['name']}/scale"
        assert json.loads(team.kubectl.run("get", "--raw", scale))["spec"]["replicas"] == 1
        if "service" in target:
            service = eventually(lambda: team.kubectl.get("service", target["service"]))
            assert service is not None
            assert target["port"] in [port["port"] for port in service["spec"]["ports"]]
    finally:
        team.kubectl.run("delete", "crd", name, "--ignore-not-found")


def test_replicas_follow_the_profile_of_the_week_and_no_pod_restarts(team: Team) -> None:
    def profile(busy: list[str]) -> dict[str, Any]:
        hours = [{"days": busy, "requestsPerSecond": "12"}]
        load = {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": "1"}
        return {**load, "profile": {"timeZone": "UTC", "hours": hours}}

    def day(offset: int) -> str:
        return (SystemClock().now() + timedelta(days=offset)).strftime("%a")

    # Busy yesterday, today and tomorrow: also where midnight passes meanwhile. Then busy on other days only.
    near, far = [day(offset) for offset in (-1, 0, 1)], [day(offset) for offset in (3, 4)]
    team.apply(planning=LAYOUT, workload=profile(near))
    status = team.ready()
    schedule, many = status["schedule"], status["plan"]["replicas"]
    assert many == schedule["replicas"] == status["plan"]["plannedReplicas"] > 1
    assert schedule["weekWattHours"] < schedule["constantWattHours"]
    template, pods = workload(team)["spec"]["template"], {pod["metadata"]["uid"] for pod in team.pods()}

    team.apply(planning=LAYOUT, workload=profile(far))
    eventually(lambda: runs(team, 1))
    assert workload(team)["spec"]["template"] == template
    assert {pod["metadata"]["uid"] for pod in team.pods()} < pods
    after = team.status()
    assert after["schedule"]["nextReplicas"] == many
    assert after["plan"]["hash"] == status["plan"]["hash"]
    assert any(note.endswith("kWh") for note in team.events()["ReplicasScaled"])
