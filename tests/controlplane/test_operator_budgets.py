"""Budgets on a real API server: every action, what cannot be checked, the race for the last watts, and the ledger."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.operator_cluster import MEASURED, Object, OperatorCluster, Team, llmdeployment

from energylens.cli.commands.power_caps import caps_of
from energylens.clock import SystemClock
from energylens.cluster.connecting import connect
from energylens_dev.devcluster import eventually
from energylens_dev.devcluster.processes import start_identity

DAY = {"period": "Day"}
ONE = {"overrides": {"tensorParallel": 1, "replicas": 1}}


def budget(kind: str = "EnergyBudget", name: str = "cap", **spec: Any) -> Object:
    return {"apiVersion": "energylens.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def shown(team: Team, kind: str = "eb", name: str = "cap") -> Object:
    body = team.kubectl.get(kind, name)
    assert body is not None
    status: Object = body.get("status", {})
    assert status.get("observedGeneration") == body["metadata"]["generation"], "not seen yet"
    return status


def verdict(team: Team, condition: str, status: str, reason: str, kind: str = "eb") -> Object:
    """Wait until a condition of the budget has a status and a reason; return the budget's status."""

    def check() -> Object:
        found = shown(team, kind)
        (one,) = [c for c in found["conditions"] if c["type"] == condition]
        assert (one["status"], one["reason"]) == (status, reason), one
        return found

    return eventually(check)


def watts(team: Team, name: str = "llama") -> int:
    found: int = team.status(name)["plan"]["predicted"]["powerWatts"]
    return found


def two(team: Team) -> int:
    """Let two deployments of two replicas run; return their power together, W."""
    team.apply("low", **MEASURED, energy={"priority": -1})
    team.apply("high", **MEASURED)
    team.ready("low")
    team.ready("high")
    return watts(team, "low") + watts(team, "high")


def replicas(team: Team, name: str) -> int:
    found: int = team.children(name)["Deployment", name]["spec"]["replicas"]
    return found


def test_report_only_says_so(team: Team) -> None:
    team.apply()
    team.ready()
    before = team.standing()
    team.kubectl.apply(budget(powerWatts=1, action="Report"))
    team.wait("WithinEnergyBudget", "False", "OverBudget")
    verdict(team, "WithinEnergyBudget", "False", "Exceeded")
    assert team.standing() == before


def test_deny_says_by_how_much_and_which_smaller_plan_fits(team: Team) -> None:
    free = {"overrides": {"tensorParallel": 1, "maxBatchSize": 32}}
    asked = {**MEASURED, "planning": free}
    team.apply(**asked | {"workload": MEASURED["workload"] | {"concurrency": 16}})
    power = team.ready()["plan"]["predicted"]["powerWatts"]
    before = team.standing()
    team.kubectl.apply(budget(powerWatts=int(power * 1.2), action="Deny"))
    team.wait("WithinEnergyBudget", "True", "WithinBudget")
    team.apply(**asked)
    condition = team.wait("WithinEnergyBudget", "False", "GrowthDenied")
    assert f"EnergyBudget {team.namespace}/cap={int(power * 1.2)}" in condition["message"]
    assert "W too much" in condition["message"]
    assert "a smaller plan that fits: 1 x NVIDIA-H100-80GB-HBM3 TP1" in condition["message"]
    assert team.standing() == before
    team.kubectl.apply(budget(powerWatts=power * 4, action="Deny"))
    team.wait("WithinEnergyBudget", "True", "WithinBudget")
    team.ready()
    assert team.status()["plan"]["replicas"] == 2


def test_shed_takes_replicas_of_the_lowest_priority_and_gives_them_back(team: Team) -> None:
    total = two(team)
    high = team.standing("high")
    old = {pod["metadata"]["uid"] for pod in team.pods("low")}
    team.kubectl.apply(
        budget(powerWatts=total - 10, action="Shed", shed={"cooldownSeconds": 2, "hysteresisPercent": 5})
    )
    verdict(team, "Shedding", "True", "PowerTaken")
    eventually(lambda: replicas(team, "low") == 1)
    team.ready("low")
    eventually(lambda: len(team.pods("low")) == 1)
    assert {pod["metadata"]["uid"] for pod in team.pods("low")} < old, "a pod was restarted"
    team.wait("PlanReady", "True", "Shed", name="low")
    team.wait("SLOFeasible", "False", "Shed", name="low")
    team.wait("WithinEnergyBudget", "False", "PowerTaken", name="low")
    assert team.standing("high") == high
    team.kubectl.apply(budget(powerWatts=2 * total, action="Shed", shed={"cooldownSeconds": 2, "hysteresisPercent": 5}))
    eventually(lambda: replicas(team, "low") == 2)
    verdict(team, "Shedding", "False", "NothingTaken")
    team.ready("low")


def test_a_budget_that_is_deleted_while_it_sheds_gives_everything_back(team: Team) -> None:
    total = two(team)
    team.kubectl.apply(budget(powerWatts=total - 10, action="Shed"))
    eventually(lambda: replicas(team, "low") == 1)
    eventually(lambda: len(team.pods("low")) == 1)
    kept = {pod["metadata"]["uid"] for pod in team.pods("low")}
    team.kubectl.run("delete", "eb", "cap")
    eventually(lambda: replicas(team, "low") == 2)
    team.ready("low")
    team.wait("WithinEnergyBudget", "True", "NoBudget", name="low")
    eventually(lambda: len(team.pods("low")) == 2)
    assert kept < {pod["metadata"]["uid"] for pod in team.pods("low")}, "a pod was restarted"


def test_a_budget_that_is_lowered_below_what_runs_and_raised_again_touches_nothing(team: Team) -> None:
    total = two(team)
    before = {name: team.standing(name) for name in ("low", "high")}
    team.kubectl.apply(budget(powerWatts=2 * total, action="Deny"))
    team.wait("WithinEnergyBudget", "True", "WithinBudget", name="low")
    team.kubectl.apply(budget(powerWatts=total // 2, action="Deny"))
    team.wait("WithinEnergyBudget", "False", "OverBudget", name="low")
    verdict(team, "WithinEnergyBudget", "False", "Exceeded")
    team.kubectl.apply(budget(powerWatts=2 * total, action="Deny"))
    team.wait("WithinEnergyBudget", "True", "WithinBudget", name="low")
    assert {name: team.standing(name) for name in ("low", "high")} == before


@pytest.fixture
def everywhere(operator: OperatorCluster, team: Team) -> Iterator[str]:
    """The name of a ClusterEnergyBudget that may be made; it is gone after the test."""
    name = f"row-{team.namespace}"
    yield name
    operator.api.run("delete", "ceb", name, "--ignore-not-found")


def test_a_budget_of_the_cluster_selects_namespaces_and_nodes(
    operator: OperatorCluster, team: Team, everywhere: str
) -> None:
    total = two(team)
    operator.api.run("label", "namespace", team.namespace, f"feed={everywhere}")
    nodes = {pod["spec"]["nodeName"] for pod in (*team.pods("low"), *team.pods("high"))}
    operator.api.run("label", "node", *sorted(nodes), f"row={everywhere}")
    body = budget(
        "ClusterEnergyBudget",
        everywhere,
        powerWatts=total - 10,
        action="Shed",
        namespaceSelector={"matchLabels": {"feed": everywhere}},
        nodeSelector={"row": everywhere},
    )
    operator.api.apply(body)
    try:
        eventually(lambda: replicas(team, "low") == 1)
        condition = team.wait("WithinEnergyBudget", "False", "PowerTaken", name="low")
        assert f"ClusterEnergyBudget {everywhere} binds" in condition["message"]
        assert replicas(team, "high") == 2
        eventually(lambda: (operator.api.get("ceb", everywhere) or {})["status"]["memberCount"] == 2)
        # Without its label the namespace is another one's.
        operator.api.run("label", "namespace", team.namespace, "feed-")
        eventually(lambda: replicas(team, "low") == 2)
    finally:
        operator.api.run("label", "node", *sorted(nodes), "row-")


def forecast(grams: int, hours: int = 48) -> Object:
    start = SystemClock().now().replace(minute=0, second=0, microsecond=0)
    lines = [f"{(start + timedelta(hours=h)).isoformat()},{grams}" for h in range(hours)]
    text = "\n".join(["time,gramsPerKilowattHour", *lines])
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "grid"},
        "data": {"forecast.csv": text},
    }


def test_a_missing_forecast_denies_growth_and_kills_nothing(team: Team) -> None:
    carbon = {"forecastConfigMapRef": {"name": "grid"}, "gramsPerPeriod": 10**9}
    team.apply(**MEASURED, planning=ONE)
    team.ready()
    before = team.standing()
    team.kubectl.apply(budget(carbon=carbon, action="Shed", **DAY))
    verdict(team, "Ready", "False", "ForecastMissing")
    team.apply(**MEASURED, planning={"overrides": {"tensorParallel": 1, "replicas": 2}})
    team.wait("WithinEnergyBudget", "Unknown", "BudgetNotChecked")
    assert team.standing() == before
    team.kubectl.apply(forecast(300))
    found = verdict(team, "Ready", "True", "Checked")
    assert found["energyLimit"] == "spec.carbon.gramsPerPeriod"
    eventually(lambda: replicas(team, "llama") == 2)


@pytest.mark.parametrize("limit", [{"energyWattHours": 10**9}, {"powerWatts": 10**6}], ids=["energy", "power"])
@pytest.mark.parametrize("action", ["Deny", "Shed"])
def test_missing_metrics_deny_growth_and_kill_nothing(
    operator: OperatorCluster, team: Team, limit: dict[str, Any], action: str
) -> None:
    team.apply(**MEASURED, planning=ONE)
    team.ready()
    team.kubectl.apply(budget(**limit, action=action, **DAY))
    eventually(lambda: energy(team)["llama"][0] > 0)
    verdict(team, "Ready", "True", "Checked")
    before = team.standing()
    operator.break_exporter("dead")
    try:
        verdict(team, "Ready", "False", "MetricsMissing")
        more = {"overrides": {"tensorParallel": 1, "replicas": 2}}
        team.apply(**MEASURED, planning=more)
        team.wait("WithinEnergyBudget", "Unknown", "BudgetNotChecked")
        assert team.standing() == before
    finally:
        operator.break_exporter()
    verdict(team, "Ready", "True", "Checked")
    eventually(lambda: replicas(team, "llama") == 2)


def test_two_that_ask_for_the_last_watts_never_both_get_them(team: Team) -> None:
    team.apply("first", **MEASURED)
    power = team.ready("first")["plan"]["predicted"]["powerWatts"]
    team.kubectl.apply(budget(powerWatts=int(power * 2.5), action="Deny"))
    team.wait("WithinEnergyBudget", "True", "WithinBudget", name="first")
    names = ("left", "right")
    barrier = threading.Barrier(len(names))

    def ask(name: str) -> None:
        barrier.wait()
        team.kubectl.apply(llmdeployment(name, **MEASURED))

    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def decided() -> tuple[str, str]:
        found = {name: team.condition("PlanReady", name) for name in names}
        assert sorted(c["status"] for c in found.values()) == ["False", "True"], found
        winner, loser = sorted(names, key=lambda name: found[name]["status"], reverse=True)
        assert found[loser]["reason"] == "BudgetExceeded"
        return winner, loser

    winner, loser = eventually(decided)
    team.ready(winner)
    assert team.children(loser) == {}
    assert decided() == (winner, loser)
    found = verdict(team, "Ready", "True", "Checked")
    assert found["committedPowerWatts"] <= int(power * 2.5)
    # What is given back goes to the one that waits.
    team.kubectl.run("delete", "llmd", winner)
    team.ready(loser)


def test_a_power_cap_is_an_annotation_that_the_agent_of_the_node_finds(team: Team) -> None:
    team.apply(energy={"powerCap": {"mode": "Fixed", "wattsPerGPU": 250}})
    assert team.ready()["plan"]["powerCapWattsPerGPU"] == 250

    async def found(node: str) -> Mapping[str, str] | None:
        async with await connect(team.kubectl.kubeconfig) as client:
            return await caps_of(client, node)

    pods = {pod["metadata"]["uid"]: pod["spec"]["nodeName"] for pod in team.pods()}
    for node in {*pods.values(), "elsewhere"}:
        own = {uid for uid, host in pods.items() if host == node}
        caps = asyncio.run(found(node))
        assert caps is not None
        assert {uid: cap for uid, cap in caps.items() if uid in pods} == dict.fromkeys(own, "250")


@dataclass
class CapsAgent:
    """The agent of one node as a process, with its GPUs in a file."""

    team: Team
    node: str
    folder: Path
    process: subprocess.Popen[str] | None = None

    @property
    def gpus(self) -> Path:
        return self.folder / "gpus.json"

    def put(self, limits: Mapping[str, int], pods: Mapping[str, str]) -> None:
        self.gpus.write_text(json.dumps({"limits": limits, "pods": pods}))

    def limits(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.gpus.read_text())["limits"]
        return {uuid: milliwatts // 1000 for uuid, milliwatts in found.items()}

    def start(self) -> None:
        options = [f"--node={self.node}", f"--record={self.folder / 'record.json'}", "--interval=0.2"]
        command = [sys.executable, "-m", "tests.support.power_caps", str(self.gpus), *options]
        command.append(f"--kubeconfig={self.team.kubectl.kubeconfig}")
        self.process = subprocess.Popen(command, cwd=Path(__file__).parents[2], text=True)

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


@pytest.fixture
def agent(team: Team, tmp_path: Path) -> Iterator[CapsAgent]:
    made = CapsAgent(team, "", tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end(signal.SIGKILL)


def test_the_agent_restores_limits_after_it_was_killed_and_when_it_is_removed(team: Team, agent: CapsAgent) -> None:
    capped: dict[str, Any] = {"energy": {"powerCap": {"mode": "Fixed", "wattsPerGPU": 250}}, "planning": ONE}
    team.apply(**capped)
    team.ready()
    (pod,) = team.pods()
    agent.node = pod["spec"]["nodeName"]
    default = {"GPU-0": 700_000, "GPU-1": 700_000}
    agent.put(default, {"GPU-0": pod["metadata"]["uid"]})
    agent.start()
    eventually(lambda: agent.limits() == {"GPU-0": 250, "GPU-1": 700})
    # Killed, it restores nothing, and the next one keeps what the pod still asks for.
    agent.end(signal.SIGKILL)
    assert agent.limits() == {"GPU-0": 250, "GPU-1": 700}
    assert json.loads((agent.folder / "record.json").read_text()) == {"gpus": ["GPU-0"]}
    team.kubectl.run("delete", "llmd", "llama")
    eventually(lambda: not team.pods())
    agent.put({"GPU-0": 250_000, "GPU-1": 700_000}, {})
    agent.start()
    eventually(lambda: agent.limits() == {"GPU-0": 700, "GPU-1": 700})
    # Removed while a pod asks for a cap, as `helm upgrade --set powerCaps.enabled=false` does it.
    team.apply(**capped)
    team.ready()
    (pod,) = team.pods()
    if pod["spec"]["nodeName"] != agent.node:
        agent.end(signal.SIGTERM)
        agent.node = pod["spec"]["nodeName"]
        agent.start()
    agent.put(default, {"GPU-0": pod["metadata"]["uid"]})
    eventually(lambda: agent.limits()["GPU-0"] == 250)
    assert agent.end(signal.SIGTERM) == 0
    assert agent.limits() == {"GPU-0": 700, "GPU-1": 700}
    assert json.loads((agent.folder / "record.json").read_text()) == {"gpus": []}


def energy(team: Team) -> dict[str, tuple[int, int, datetime]]:
    """Return the measured and the predicted joules and the watermark of each member."""
    return {
        e["name"]: (
            e.get("measuredJoules", 0),
            e.get("predictedJoules", 0),
            datetime.fromisoformat(e["accountedUntil"]),
        )
        for e in shown(team).get("ledger", ())
    }


def test_the_ledger_loses_nothing_over_a_crash_and_counts_nothing_twice(operator: OperatorCluster, team: Team) -> None:
    team.apply(**MEASURED, planning=ONE)
    team.ready()
    team.kubectl.apply(budget(energyWattHours=10**9, **DAY))

    def counted(after: datetime | None = None) -> tuple[int, int, datetime]:
        measured, predicted, until = energy(team)["llama"]
        assert measured > 0
        assert after is None or until > after
        return measured, predicted, until

    before = eventually(counted)
    pid = operator.cluster.operator_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: start_identity(pid) is None)
    left = energy(team)["llama"]
    operator.start_operator()
    # It is counted from where the last write ended: measured where a source remembers that time, else predicted.
    after = eventually(lambda: counted(left[2] + timedelta(seconds=5)))
    assert after[0] >= left[0] >= before[0]
    assert after[1] >= left[1]
    # The load is steady, so that the time without an operator has the power of the time with one.
    later = eventually(lambda: counted(after[2] + timedelta(seconds=8)))
    assert later[1] == after[1], "what is measured is predicted as well"
    steady = (sum(later[:2]) - sum(after[:2])) / (later[2] - after[2]).total_seconds()
    over_the_crash = (sum(after[:2]) - sum(left[:2])) / (after[2] - left[2]).total_seconds()
    assert over_the_crash == pytest.approx(steady, rel=0.2)


def test_kubectl_and_the_command_show_used_remaining_forecast_and_members(team: Team, tmp_path: Path) -> None:
    team.apply(**MEASURED, planning=ONE)
    team.ready()
    team.kubectl.apply(budget(energyWattHours=5000, **DAY))
    eventually(lambda: energy(team)["llama"][0] > 0)
    head, row = team.kubectl.run("get", "energybudgets").splitlines()
    assert head.split() == ["NAME", "USED", "REMAINING", "FORECAST", "MEMBERS", "ACTION", "READY", "AGE"]
    assert "/5000 Wh (" in row
    wide = team.kubectl.run("get", "energybudgets", "-o", "json")
    status = json.loads(wide)["items"][0]["status"]
    assert status["memberCount"] == 1
    assert status["forecast"] == "lasts" or status["forecast"].startswith("used up ")
    command = [
        str(Path(sys.executable).parent / "energylens"),
        "budget",
        "cap",
        f"--kubeconfig={team.kubectl.kubeconfig}",
    ]
    answer = subprocess.run(
        [*command, f"--namespace={team.namespace}", f"--plot={tmp_path / 'burn.png'}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert f"EnergyBudget {team.namespace}/cap: Report" in answer.stdout
    assert f"{team.namespace}/llama" in answer.stdout
    assert (tmp_path / "burn.png").stat().st_size > 10_000
