"""A day of two deployments whose loads follow the clock, under one budget, in the time that eight changes take.

The operator and the replay exporter run with a clock that the test moves from change to change. Between two changes
nothing happens, so that the exporter's counters advance by the measured power of the pods that run, and the day has the
energy of 24 hours.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.controlplane.conftest import fresh_namespace
from tests.support.moved_clock import move
from tests.support.operator_cluster import ROOT, SETTINGS, OperatorCluster, Team

from energylens.api.timestamp import moment_of, timestamp
from energylens.clock import SystemClock
from energylens_dev.devcluster import eventually
from energylens_dev.devcluster.operators import operator_command
from energylens_dev.devcluster.ports import free_port
from energylens_dev.replay.runs import Load, Plan, operating_point

H100 = "NVIDIA-H100-80GB-HBM3"
SECONDS = 60.0
ITL_MS = 25
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Daily:
    """A deployment with a rate by day and another one by night."""

    model: str
    night: int
    day: int
    first: int
    """Hour at which the day begins, UTC."""
    last: int
    """Hour at which it ends."""
    input_tokens: int = 512
    output_tokens: int = 390
    """As in the measured runs, about."""
    batch: int = 64

    def spec(self) -> dict[str, Any]:
        """Return the spec, apart from what the test leaves to the default."""
        hours = [{"fromHour": self.first, "toHour": self.last, "requestsPerSecond": str(self.day)}]
        load = {"inputTokens": self.input_tokens, "outputTokens": self.output_tokens}
        return {
            "model": {"name": self.model},
            "workload": {**load, "requestsPerSecond": str(self.night), "profile": {"hours": hours}},
            "hardware": {"gpuProducts": [H100]},
            "planning": {"overrides": {"tensorParallel": 1, "maxBatchSize": self.batch}},
            "slo": {"itlMilliseconds": ITL_MS},
        }

    def rate(self, moment: datetime) -> int:
        """Return the requests per second at a moment."""
        return self.day if self.first <= moment.hour < self.last else self.night

    def watts(self, rate: int, replicas: int) -> float:
        """Return the measured power of so many replicas, W."""
        one = Plan(
            self.model, None, H100, 1, 1, 1, False, self.batch, float(self.input_tokens), float(self.output_tokens)
        )
        point = operating_point(one, Load(output_tokens_per_second=rate * self.output_tokens / replicas))
        assert not point.clamped
        return replicas * point.power_watts


DEPLOYMENTS = {
    "chat": Daily("meta-llama/Llama-3.1-8B-Instruct", night=24, day=80, first=8, last=20),
    "search": Daily("Qwen/Qwen3-8B", night=20, day=60, first=12, last=22),
}


@dataclass
class Day:
    """The operator and the exporter of a day, and what was seen."""

    team: Team
    replay_url: str
    file: Path
    ahead: float = 0.0
    joules: dict[str, float] = field(default_factory=lambda: dict.fromkeys(DEPLOYMENTS, 0.0))

    @property
    def now(self) -> datetime:
        """The time of the operator and the exporter."""
        return SystemClock().now() + timedelta(seconds=self.ahead)

    def to(self, moment: datetime) -> None:
        """Move the clock to a moment, and count the energy of the pods until then."""
        before = self._counters()
        self.ahead += (moment - self.now).total_seconds()
        move(self.file, self.ahead)
        after = self._counters()
        for name in DEPLOYMENTS:
            mine = [gpu for gpu, (pod, _) in before.items() if pod.startswith(f"{name}-")]
            self.joules[name] += sum(after[gpu][1] - before[gpu][1] for gpu in mine)

    def settled(self) -> bool:
        """Fail unless the replicas are those of the moment, ready, and the exporter has seen them."""
        points = self._get("assignments")["pods"]
        for name, daily in DEPLOYMENTS.items():
            status, rate = self.team.status(name), daily.rate(self.now)
            schedule = status["schedule"]
            wanted = replicas_at(schedule, self.now)
            assert (schedule["replicas"], status["plan"]["replicas"]) == (wanted, wanted), (name, schedule)
            assert status["activeRevision"]["readyReplicas"] == wanted, name
            change = moment_of(schedule["nextChangeTime"])
            assert change is not None
            assert change > self.now
            mine = [point for pod, point in points.items() if pod.startswith(f"{self.team.namespace}/{name}-")]
            assert len(mine) == wanted, name
            # What was measured at this rate per replica holds the objective.
            tokens = sum(point["output_tokens_per_second"] for point in mine)
            assert tokens == pytest.approx(rate * daily.output_tokens, rel=0.01), name
            assert all(point["itl_ms"][2] <= ITL_MS for point in mine), name
        return True

    def pods(self, name: str) -> set[tuple[str, int]]:
        """Return identity and restarts of the pods of a deployment that are not being stopped."""
        return {
            (pod["metadata"]["uid"], sum(each["restartCount"] for each in pod["status"].get("containerStatuses", ())))
            for pod in self.team.pods(name)
            if not pod["metadata"].get("deletionTimestamp")
        }

    def _counters(self) -> dict[str, tuple[str, float]]:
        """Return the pod and the joules of each GPU that a pod of the team holds."""
        text = urllib.request.urlopen(f"{self.replay_url}/dcgm/metrics", timeout=10).read().decode()
        found = re.findall(r"^DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL\{(.*)\} (\S+)$", text, re.MULTILINE)
        labels = [(dict(re.findall(r'(\w+)="([^"]*)"', text)), float(value)) for text, value in found]
        return {each["UUID"]: (each.get("pod", ""), value) for each, value in labels}

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.replay_url}/{path}", timeout=10) as answer:
            return json.loads(answer.read())


def replicas_at(schedule: dict[str, Any], moment: datetime) -> int:
    """Return the most replicas of the hours between a moment and the end of the starts that begin by then."""
    ahead = moment + timedelta(seconds=schedule["startSeconds"])
    return max(_entry(schedule, moment)["replicas"], _entry(schedule, ahead)["replicas"])


def _entry(schedule: dict[str, Any], moment: datetime) -> dict[str, Any]:
    days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    starts = [(24 * days.index(entry["day"]) + entry["hour"], entry) for entry in schedule["hours"]]
    hour = 24 * moment.weekday() + moment.hour
    return ([entry for start, entry in starts if start <= hour] or [starts[-1][1]])[-1]


@contextmanager
def process(command: list[str], log: Path, **changes: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program and end it; its log is shown where the test fails."""
    with log.open("w") as err, subprocess.Popen(command, cwd=ROOT, stderr=err, text=True, **changes) as found:
        try:
            yield found
        finally:
            found.terminate()
            found.wait(timeout=30)
            sys.stderr.write(log.read_text(errors="replace")[-20_000:])


@contextmanager
def day_of(cluster: OperatorCluster, team: Team, folder: Path, begin: datetime) -> Iterator[Day]:
    """Run an operator and an exporter whose clock stands at a moment of the future."""
    file, port = folder / "clock", free_port()
    ahead = (begin - SystemClock().now()).total_seconds()
    move(file, ahead)
    moved = [sys.executable, "-m", "tests.support.moved_clock", str(file)]
    replay = [*moved, "all", "energylens_dev.replay", f"--kubeconfig={cluster.cluster.kubeconfig}", "--refresh=0.5"]
    with process([*replay, "--collect-interval=0.001"], folder / "replay.log", stdout=subprocess.PIPE) as exporter:
        assert exporter.stdout is not None
        url = str(json.loads(exporter.stdout.readline())["url"])
        measurement = {"scrapeSeconds": 1, "dcgmEndpoints": [f"{url}/dcgm/metrics"]}
        measurement["engineEndpointTemplate"] = url + "/pods/{namespace}/{pod}/metrics"
        settings = {**SETTINGS, "resyncSeconds": 1, "measurement": measurement}
        config = folder / "settings.yaml"
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        command = operator_command(cluster.cluster.operator_kubeconfig, port, [f"--config={config}"])
        with process([*moved, "dates", *command[2:]], folder / "operator.log"):
            yield Day(team, url, file, ahead)


def test_a_day_under_a_budget_saves_what_was_planned_and_restarts_no_pod(
    alone: OperatorCluster, tmp_path: Path
) -> None:
    midnight = datetime.combine(SystemClock().now().date() + timedelta(days=1), time(), UTC)
    with fresh_namespace(alone.api, "team") as name:
        team = Team(alone.api.within(name))
        with day_of(alone, team, tmp_path, midnight) as day:
            try:
                _live(day, midnight)
            finally:
                team.clear()


def _live(day: Day, midnight: datetime) -> None:
    team = day.team
    for name, daily in DEPLOYMENTS.items():
        team.apply(name, **daily.spec())
    for name in DEPLOYMENTS:
        team.ready(name)
    schedules = {name: team.status(name)["schedule"] for name in DEPLOYMENTS}
    limit = sum(team.status(name)["plan"]["peakPowerWatts"] for name in DEPLOYMENTS)
    budget = {"apiVersion": "energylens.dev/v1alpha1", "kind": "EnergyBudget", "metadata": {"name": "cap"}}
    team.kubectl.apply({**budget, "spec": {"powerWatts": limit, "action": "Deny"}})
    eventually(day.settled, SECONDS)
    templates = {name: team.children(name)["Deployment", name]["spec"]["template"] for name in DEPLOYMENTS}
    pods = {name: day.pods(name) for name in DEPLOYMENTS}

    end = day.now + timedelta(days=1)
    day.joules = dict.fromkeys(DEPLOYMENTS, 0.0)
    while day.now < end:
        changes = [moment_of(team.status(name)["schedule"]["nextChangeTime"]) for name in DEPLOYMENTS]
        hours = [midnight + hour * HOUR for d in DEPLOYMENTS.values() for hour in (d.first, d.last)]
        day.to(min(moment for moment in (*changes, *hours, end) if moment is not None and moment > day.now))
        eventually(day.settled, SECONDS)
        for name, before in pods.items():
            # Kubernetes chooses which pods stop; those that start are no more than the replicas that are added.
            after = day.pods(name)
            assert len(after - before) == max(0, len(after) - len(before))
            pods[name] = after
        status = team.kubectl.get("eb", "cap")
        assert status is not None
        assert status["status"]["committedPowerWatts"] <= limit

    for name, daily in DEPLOYMENTS.items():
        schedule = schedules[name]
        assert team.children(name)["Deployment", name]["spec"]["template"] == templates[name]
        events = team.events(name)
        assert not events.keys() & {"RolloutStarted", "BecameUnready"}
        assert len(events["ReplicasScaled"]) == 2
        # The best constant plan, measured at the same rates.
        constant = int(schedule["constantPlan"].split(" x ")[0])
        busy = daily.last - daily.first
        joules = 3600 * (busy * daily.watts(daily.day, constant) + (24 - busy) * daily.watts(daily.night, constant))
        measured = day.joules[name] / joules
        planned = schedule["weekWattHours"] / schedule["constantWattHours"]
        assert measured == pytest.approx(planned, rel=0.05)
        assert measured < 0.8
    _job_of_the_cleanest_hours(day, limit)


def _job_of_the_cleanest_hours(day: Day, limit: int) -> None:
    """Apply a job after the day: its pods start in the cleanest hour before its deadline, and not before."""
    team, first = day.team, day.now.replace(minute=0, second=0, microsecond=0)
    budget = {"apiVersion": "energylens.dev/v1alpha1", "kind": "EnergyBudget", "metadata": {"name": "cap"}}
    team.kubectl.apply({**budget, "spec": {"powerWatts": 2 * limit, "action": "Deny"}})
    hours = [(first + n * HOUR, 60 if n == 5 else 400) for n in range(12)]
    text = "".join(f"{timestamp(moment)},{grams}\n" for moment, grams in hours)
    data = {"forecast.csv": f"time,gramsPerKilowattHour\n{text}"}
    team.kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "grid"}, "data": data})
    start = {"completeBy": timestamp(first + 9 * HOUR), "forecastConfigMapRef": {"name": "grid"}}
    job = {"requests": 10_000, "completeWithinSeconds": 3600, "afterCompletion": "Release", "start": start}
    workload = {"inputTokens": 512, "outputTokens": 256, "job": job}
    planning = {"overrides": {"tensorParallel": 1, "replicas": 1}}
    spec = {"model": {"name": "meta-llama/Llama-3.1-8B-Instruct"}, "hardware": {"gpuProducts": [H100]}}
    team.apply("nightly", **spec, workload=workload, planning=planning)

    eventually(lambda: team.condition("Ready", "nightly")["reason"] == "StartScheduled" or None, SECONDS)
    planned = team.status("nightly")["jobStart"]
    assert (planned["state"], planned["reason"]) == ("Waiting", "BestHours")
    begin = moment_of(planned["startTime"])
    assert begin is not None
    # The requests are served in the clean hour; the start of the pods may lie before it.
    assert first + 4.9 * HOUR <= begin < first + 6 * HOUR
    assert planned["savingPercent"] > 50
    assert ("Deployment", "nightly") not in team.children("nightly")

    # A second job on the same watts gets another part of the clean hour.
    watts = team.status("nightly")["plan"]["predicted"]["powerWatts"]
    for name in ("nightly", "second"):
        labels = {"metadata": {"name": name, "labels": {"batch": "yes"}}}
        asked = {"spec": {**spec, "workload": workload, "planning": planning}}
        kind = {"apiVersion": "energylens.dev/v1alpha1", "kind": "LLMDeployment"}
        if name == "second":
            only = {"powerWatts": watts * 3 // 2, "action": "Deny", "selector": {"matchLabels": {"batch": "yes"}}}
            team.kubectl.apply({**budget, "metadata": {"name": "batch"}, "spec": only})
        team.kubectl.apply({**kind, **labels, **asked})
    eventually(lambda: team.condition("Ready", "second")["reason"] == "StartScheduled" or None, SECONDS)
    second = team.status("second")["jobStart"]
    assert second["reason"] == "BestHours"
    assert second["startTime"] >= planned["endTime"] or second["endTime"] <= planned["startTime"]

    day.to(begin)
    team.ready("nightly")
    started = team.status("nightly")["jobStart"]
    assert started["state"] == "Started"
    assert started["startTime"] >= planned["startTime"]
    assert team.condition("StartTimed", "nightly")["reason"] == "BestHours"
