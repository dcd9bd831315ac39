"""A real control plane with the operator and the replay exporter, and what tests ask of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.support.direct_kubectl import DirectKubectl, direct_kubectl
from tests.support.operator_process import end
from tests.support.prometheus import Prometheus, prometheus

from energylens_dev import devcluster
from energylens_dev.devcluster import PodStages, RunningCluster, StreamProgress, eventually
from energylens_dev.devcluster.audit import AuditEvent, AuditLog

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = "system:serviceaccount:energylens-system:energylens"
SECONDS = 120.0
GRACE_SECONDS = 30.0
"""What a pod gets to end in, unless it says otherwise."""
Object = dict[str, Any]

SETTINGS: Object = {
    "replanSeconds": 1,
    "resyncSeconds": 30,
    "leaseSeconds": 8,
    "leaseRenewSeconds": 2,
    "measurement": {"scrapeSeconds": 1},
    "budgets": {"statusSeconds": 2, "unmeasuredSeconds": 10},
}
"""The operator's settings, with times that a test can wait for."""


MEASURED: Object = {
    "hardware": {"gpuProducts": ["NVIDIA-H100-80GB-HBM3"]},
    "workload": {"inputTokens": 512, "outputTokens": 512, "concurrency": 64},
}
"""Parts of the spec of a load that the replay exporter has measured runs of; nothing is measured of others."""


def configuration(replay_url: str, prometheus_url: str) -> Object:
    """Return the operator's settings with the replay exporter as the place where metrics are, and who scrapes it."""
    measurement = {
        **SETTINGS["measurement"],
        "prometheus": {"url": prometheus_url},
        "dcgmEndpoints": [f"{replay_url}/dcgm/metrics"],
        "engineEndpointTemplate": replay_url + "/pods/{namespace}/{pod}/metrics",
    }
    return {**SETTINGS, "measurement": measurement}


@dataclass
class OperatorCluster:
    """The cluster, its operator and its exporter."""

    cluster: RunningCluster
    api: DirectKubectl
    replay_url: str
    prometheus: Prometheus

    def stop_operator(self) -> None:
        devcluster.up(self.cluster.directory, operator=False)

    def start_operator(self) -> None:
        self.cluster = devcluster.up(self.cluster.directory)
        assert self.cluster.metrics_url is not None
        self.prometheus.scrape("operator", self.cluster.metrics_url)

    def restart_operator(self) -> None:
        """End the operator and start it again; return when it has looked at every LLMDeployment."""
        self.stop_operator()
        self.start_operator()
        self.idle()

    def idle(self) -> None:
        """Wait until the operator has looked at every LLMDeployment at least once and nothing waits for it."""
        known = len(self.api.list("llmd", "--all-namespaces"))
        eventually(
            lambda: (
                self.metric('energylens_reconciles_total{result="ok"}') >= known
                and self.metric("energylens_queue_length") == 0
            ),
            SECONDS,
        )

    def metric(self, series: str) -> float:
        """Return the value of a series of the operator; 0 when there is none."""
        assert self.cluster.metrics_url is not None
        return read_metric(self.cluster.metrics_url, series)

    def writes(self, log: AuditLog, namespace: str | None = None) -> list[AuditEvent]:
        """Return what the operator wrote since the start of ``log``.

        Its own lease is left out, and so are its questions about its rights: they are "created" but stored nowhere.
        """
        left_out = ("leases", "selfsubjectaccessreviews")
        return [event for event in log.writes(ACCOUNT, namespace=namespace) if event.resource not in left_out]

    def audit(self) -> AuditLog:
        return AuditLog(self.cluster.audit_log)

    def break_exporter(self, *names: str) -> None:
        """Let the replay exporter have these faults and no others."""
        request = urllib.request.Request(
            f"{self.replay_url}/faults", json.dumps(names).encode(), {"Content-Type": "application/json"}, method="PUT"
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200


def read_metrics(url: str | None) -> str:
    """Return a text exposition."""
    assert url is not None
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def read_metric(url: str, series: str) -> float:
    """Return the value of a series of a text exposition; 0 when there is none."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", read_metrics(url), re.MULTILINE)
    return float(found[1]) if found else 0.0


@contextmanager
def replay(kubeconfig: Path) -> Iterator[str]:
    """Run the replay exporter; give its URL."""
    command = [
        sys.executable,
        "-m",
        "energylens_dev.replay",
        f"--kubeconfig={kubeconfig}",
        "--port=0",
        "--collect-interval=0.5",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield str(json.loads(process.stdout.readline())["url"])
        finally:
            end(process)


@contextmanager
def operator_cluster(directory: Path, *, keep: bool = False) -> Iterator[OperatorCluster]:
    """Start a cluster with the chart, the exporter and the operator."""
    progress = StreamProgress(sys.stderr)
    with nullcontext() if keep else devcluster.guarded(directory):
        cluster = devcluster.up(directory, pods=PodStages.FAST, operator=False, progress=progress)
        with replay(cluster.kubeconfig) as url, prometheus(directory, f"{url}/dcgm/metrics") as scraping:
            config = directory / "operator-settings.yaml"
            config.write_text(yaml.safe_dump(configuration(url, scraping.url)))
            started = devcluster.up(directory, operator_arguments=[f"--config={config}"], progress=progress)
            assert started.metrics_url is not None
            scraping.scrape("operator", started.metrics_url)
            with direct_kubectl(started) as api:
                yield OperatorCluster(started, api, url, scraping)
            devcluster.up(directory, operator=False)


@dataclass
class Team:
    """A namespace in which LLMDeployments are applied and looked at."""

    kubectl: DirectKubectl

    @property
    def namespace(self) -> str:
        assert self.kubectl.namespace is not None
        return self.kubectl.namespace

    def apply(self, name: str = "llama", **spec: Any) -> None:
        """Apply an LLMDeployment; see :func:`llmdeployment`."""
        self.kubectl.apply(llmdeployment(name, **spec))

    def get(self, name: str = "llama") -> Object:
        found = self.kubectl.get("llmd", name)
        assert found is not None, f"no LLMDeployment {name}"
        return found

    def status(self, name: str = "llama") -> Object:
        status: Object = self.get(name).get("status", {})
        return status

    def condition(self, kind: str, name: str = "llama") -> Object:
        """Return a condition that is about the spec as it is now."""
        body = self.get(name)
        found = [c for c in body.get("status", {}).get("conditions", ()) if c["type"] == kind]
        assert found, f"no condition {kind}"
        assert found[0].get("observedGeneration") == body["metadata"]["generation"], f"not seen yet: {found[0]}"
        condition: Object = found[0]
        return condition

    def wait(
        self, kind: str, status: str, reason: str | None = None, *, name: str = "llama", seconds: float = SECONDS
    ) -> Object:
        """Wait until a condition of the present spec has a status and a reason; return it."""

        def check() -> Object:
            condition = self.condition(kind, name)
            assert condition["status"] == status, condition
            assert reason is None or condition["reason"] == reason, condition
            return condition

        return eventually(check, seconds)

    def ready(self, name: str = "llama") -> Object:
        """Wait until an LLMDeployment is ready; return its status."""
        self.wait("Ready", "True", "PodsReady", name=name)
        return self.status(name)

    def pods(self, name: str = "llama") -> list[Object]:
        return self.kubectl.list("pods", "-l", f"energylens.dev/llmdeployment={name}")

    def children(self, name: str = "llama") -> dict[tuple[str, str], Object]:
        """Return what the operator made for an LLMDeployment, by kind and name."""
        kinds = "deployments.apps,services,poddisruptionbudgets,configmaps"
        found = self.kubectl.list(kinds, "-l", f"energylens.dev/llmdeployment={name}")
        return {(body["kind"], body["metadata"]["name"]): body for body in found}

    def standing(self, name: str = "llama") -> Object:
        """Return what must not change while nothing is to be touched: generations of children, and pods by identity."""
        children = {
            key: (b["metadata"]["uid"], b["metadata"].get("generation")) for key, b in self.children(name).items()
        }
        return {"children": children, "pods": sorted(pod["metadata"]["uid"] for pod in self.pods(name))}

    def events(self, name: str = "llama") -> dict[str, list[str]]:
        """Return the notes of the events about an LLMDeployment, by reason."""
        notes: dict[str, list[str]] = {}
        for event in self.kubectl.list("events.events.k8s.io"):
            if event["regarding"].get("name") == name:
                notes.setdefault(event["reason"], []).append(event["note"])
        return notes

    def clear(self) -> None:
        """Delete every LLMDeployment and wait until its GPUs are free again."""
        for kind in ("llmd", "eb"):
            for body in self.kubectl.list(kind):
                self.kubectl.delete(kind, body["metadata"]["name"])
        eventually(lambda: not self.kubectl.list("llmd,eb,pods"), SECONDS)


def llmdeployment(name: str = "llama", **spec: Any) -> Object:
    """Return an LLMDeployment of a small model with two replicas on L40S; ``spec`` replaces parts of its spec."""
    defaults: Mapping[str, Any] = {
        "model": {"name": "meta-llama/Llama-3.1-8B-Instruct"},
        "workload": {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": 1},
        "hardware": {"gpuProducts": ["NVIDIA-L40S"]},
        "planning": layout(),
        "validation": {"source": "None"},
    }
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "spec": {**defaults, **spec},
    }


def layout(**values: int) -> Object:
    """Return ``spec.planning`` with a layout that leaves nothing to choose."""
    return {"overrides": {"tensorParallel": 1, "replicas": 2, "maxBatchSize": 32, **values}}
