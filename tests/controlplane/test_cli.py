"""The commands against a real API server: `--cluster`, `status`, and the plugin through kubectl itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.operator_cluster import OperatorCluster, Team, llmdeployment

from energylens.api.parse import parse_llmdeployment
from energylens_dev.devcluster import eventually

BIN = Path(sys.executable).parent
PASSING = ("lastTransitionTime", "planAdoptionTime")


def environment(team: Team) -> dict[str, str]:
    """Return the environment of a user whose current context is the team's namespace."""
    return {
        **os.environ,
        "KUBECONFIG": str(team.kubectl.kubeconfig),
        "PATH": f"{BIN}{os.pathsep}{team.kubectl.program.parent}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "KUBERC": "off",
    }


def run(team: Team, *arguments: str, program: Path | str = BIN / "energylens") -> subprocess.CompletedProcess[str]:
    """Run a command as that user."""
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, env=environment(team), timeout=120, check=False
    )


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    path = tmp_path / "llama.yaml"
    path.write_text(yaml.safe_dump(llmdeployment()))
    return path


def without_times(value: Any) -> Any:
    """Return a document without the times at which it was written."""
    if isinstance(value, dict):
        return {key: without_times(entry) for key, entry in value.items() if key not in PASSING}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value


def test_what_plan_prints_is_what_the_operator_then_writes(team: Team, asked: Path) -> None:
    answer = run(team, "plan", "-f", str(asked), "--cluster", "-n", team.namespace, "-o", "json")
    assert answer.returncode == 0, answer.stderr
    printed = json.loads(answer.stdout)
    parse_llmdeployment(printed, strict=True)
    assert team.kubectl.get("llmd", "llama") is None, "nothing is written"
    team.kubectl.run("apply", "-f", str(asked))
    written = team.ready()
    assert without_times(printed["status"]["plan"]) == without_times(written["plan"])
    decided = ("PlanReady", "SLOFeasible", "WithinEnergyBudget", "Degraded")
    conditions = {
        side: [without_times(c) for c in status["conditions"] if c["type"] in decided]
        for side, status in (("printed", printed["status"]), ("written", written))
    }
    assert conditions["printed"] == conditions["written"]

    def said_again() -> bool:
        """Its own pods hold the GPUs that it needs, and what runs is taken as it is."""
        again = run(team, "plan", "-f", str(asked), "-n", team.namespace, "-o", "json")
        assert without_times(json.loads(again.stdout)["status"]) == without_times(team.status())
        return True

    eventually(said_again)


def test_budgets_and_gpus_of_the_cluster_count(team: Team, asked: Path) -> None:
    team.kubectl.apply(
        {
            "apiVersion": "energylens.dev/v1alpha1",
            "kind": "EnergyBudget",
            "metadata": {"name": "cap"},
            "spec": {"powerWatts": 1, "action": "Deny"},
        }
    )
    answer = run(team, "plan", "-f", str(asked), "-n", team.namespace)
    assert answer.returncode == 3, answer.stderr
    assert f"EnergyBudget {team.namespace}/cap" in answer.stdout


def test_status_has_plan_and_measurement_side_by_side(operator: OperatorCluster, team: Team) -> None:
    operator.break_exporter()
    team.apply(
        hardware={"gpuProducts": ["NVIDIA-H100-80GB-HBM3"]},
        workload={"inputTokens": 512, "outputTokens": 512, "concurrency": 64},
        planning={"overrides": {"tensorParallel": 1, "replicas": 1}},
        validation={"source": "DCGMExporter", "warmupSeconds": 0, "windowSeconds": 10},
    )
    team.ready()
    team.wait("EnergyMetricsAvailable", "True", "Measured")
    page = run(team, "status", "-n", team.namespace)
    assert page.returncode == 0, page.stderr
    assert page.stdout.startswith(f"{team.namespace}/llama: meta-llama/Llama-3.1-8B-Instruct on VLLM\n")
    assert "running     1 of 1 replicas are ready, Deployment llama" in page.stdout
    (energy,) = [line.split() for line in page.stdout.splitlines() if line.startswith("  J per output token")]
    assert "-" not in energy[-4:-1], energy
    answer = run(team, "status", "llama", "-n", team.namespace, "-o", "json")
    document = json.loads(answer.stdout)
    assert document["measured"]["powerWatts"] > 100
    assert document["plan"]["hash"] == document["activeRevision"]["planHash"]


def kubectl(team: Team, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(team, *arguments, program=team.kubectl.program)


def pages_of_ui(team: Team, *paths: str, options: Sequence[str] = ()) -> dict[str, tuple[int, str]]:
    """Return the status and the page of each address of `kubectl energylens ui`; ``{}`` is the namespace."""
    command = [str(team.kubectl.program), "energylens", "ui", "-n", team.namespace, "--port=0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(team)) as process:
        try:
            assert process.stderr is not None
            url, _, rest = process.stderr.readline().partition(" shows ")
            assert rest, url
            found = {}
            for path in paths:
                try:
                    with urllib.request.urlopen(url.rstrip("/") + path.format(team.namespace), timeout=60) as answer:
                        found[path] = answer.status, answer.read().decode()
                except urllib.error.HTTPError as error:
                    with error:
                        found[path] = error.code, error.read().decode()
            return found
        finally:
            # Not Ctrl-C's signal, which a process that was started in the background may ignore.
            process.terminate()
            process.wait(20)


def test_the_plugin_through_kubectl(team: Team, asked: Path) -> None:
    assert "kubectl-energylens" in kubectl(team, "plugin", "list").stdout
    planned = kubectl(team, "energylens", "plan", "-f", str(asked), "-n", team.namespace)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.startswith("llama: meta-llama/Llama-3.1-8B-Instruct\n")
    why = kubectl(team, "energylens", "explain", "-f", str(asked), "-n", team.namespace, "--why", "tp=2")
    assert why.returncode == 0, why.stderr
    assert "spec.planning.overrides.tensorParallel=2 instead of 1" in why.stdout
    team.apply()
    team.ready()
    status = kubectl(team, "energylens", "status", "-n", team.namespace)
    assert status.returncode == 0, status.stderr
    assert f"{team.namespace}/llama" in status.stdout
    drift = kubectl(team, "energylens", "drift", "-n", team.namespace)
    assert drift.returncode == 0, drift.stderr
    row = drift.stdout.splitlines()[1].split()
    assert row[:2] == [team.namespace, "llama"], drift.stdout
    team.kubectl.apply(
        {
            "apiVersion": "energylens.dev/v1alpha1",
            "kind": "EnergyBudget",
            "metadata": {"name": "month"},
            "spec": {"powerWatts": 9000, "action": "Report"},
        }
    )
    budget = kubectl(team, "energylens", "budget", "-n", team.namespace, "-o", "json")
    assert budget.returncode == 0, budget.stderr
    named = json.loads(budget.stdout)
    # ClusterEnergyBudgets of other tests may be there, too.
    assert "month" in [b["metadata"]["name"] for b in named.get("items", [named])]
    pages = pages_of_ui(team, "/", "/deployments/{}/llama", "/plan/{}/llama", "/fleet", "/budgets", "/drift", "/audit")
    assert [status for status, _ in pages.values()] == [200, 200, 200, 200, 200, 200, 502], pages
    assert f'href="/deployments/{team.namespace}/llama">{team.namespace}/llama</a>' in pages["/"][1]
    assert f"{team.namespace}/month" in pages["/budgets"][1]
    assert "<svg" in pages["/plan/{}/llama"][1]
    usage = kubectl(team, "energylens", "nonsense")
    assert usage.returncode == 2
    assert "see `kubectl energylens --help`" in usage.stderr


def test_kubectl_completes_the_plugin(team: Team) -> None:
    answer = kubectl(team, "__complete", "energylens", "stat")
    assert answer.stdout.splitlines()[0].split("\t")[0] == "status", answer.stderr
    values = kubectl(team, "__complete", "energylens", "plan", "-o", "")
    assert {line.split("\t")[0] for line in values.stdout.splitlines() if line[0] != ":"} == {"table", "json", "yaml"}


def test_a_user_who_may_not_read_nodes_is_told_so(team: Team, asked: Path, tmp_path: Path) -> None:
    token = team.kubectl.run("create", "token", "default").strip()
    config = yaml.safe_load(team.kubectl.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    limited = tmp_path / "limited"
    limited.write_text(yaml.safe_dump(config))
    answer = run(team, "plan", "-f", str(asked), f"--kubeconfig={limited}")
    assert answer.returncode == 2
    assert answer.stderr.startswith("Error: GET /api/v1/nodes: 403 ")
    assert answer.stderr.count("\n") == 1


def test_a_namespace_without_deployments_is_told(team: Team) -> None:
    team.kubectl.run("create", "namespace", f"{team.namespace}-empty")
    answer = run(team, "status", "-n", f"{team.namespace}-empty")
    team.kubectl.run("delete", "namespace", f"{team.namespace}-empty", "--wait=false")
    assert answer.returncode == 2
    assert answer.stderr == f"Error: namespace {team.namespace}-empty has no LLMDeployment\n"
