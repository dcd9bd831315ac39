"""`energylens audit` on a real API server and a real Prometheus: workloads of several kinds that nobody planned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.controlplane.test_cli import pages_of_ui
from tests.support.operator_cluster import OperatorCluster, Team

from energylens.data import find_gpu
from energylens_dev.devcluster import eventually

BIN = Path(sys.executable).parent
IMAGE = "vllm/vllm-openai:v0.24.0"
H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
Object = dict[str, Any]


def workload(kind: str, name: str, gpus: int, container: Object, labels: Object | None = None) -> Object:
    """Return a Deployment or a StatefulSet of one pod."""
    own = {"app": name, **(labels or {})}
    engine = {"name": "engine", **container, "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    spec: Object = {
        "replicas": 1,
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": own},
            "spec": {
                "containers": [engine],
                "nodeSelector": H100,
                "tolerations": [{"operator": "Exists"}],
            },
        },
    }
    if kind == "StatefulSet":
        spec["serviceName"] = name
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


WORKLOADS = (
    workload("Deployment", "chat", 4, {"image": IMAGE, "args": ["--model=meta-llama/Llama-3.1-8B-Instruct", "-tp=4"]}),
    workload(
        "StatefulSet",
        "coder",
        2,
        {
            "image": "lmsysorg/sglang:v0.5.15",
            "command": ["bash", "-c", "exec python3 -m sglang.launch_server --model-path $MODEL --tp 2"],
            "envFrom": [{"configMapRef": {"name": "coder"}}],
        },
    ),
    workload(
        "Deployment",
        "summaries-predictor",
        1,
        {"image": "kserve/huggingfaceserver:v0.17.0-gpu", "args": ["--model_id=Qwen/Qwen3-8B"]},
        {"serving.kserve.io/inferenceservice": "summaries"},
    ),
    workload("Deployment", "notebook", 1, {"image": "jupyter:1", "command": ["jupyter", "lab"]}),
    {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "coder"},
        "data": {"MODEL": "Qwen/Qwen3-32B"},
    },
)


@contextmanager
def counting(pods: dict[str, float], namespace: str, node: str) -> Iterator[str]:
    """Serve growing counters of engines; give the URL. The replay exporter has the idle draw of their GPUs.

    Args:
        pods: Requests per second of each pod.
        namespace: Of the pods.
        node: A node whose meter reads 9,000 W.
    """
    start = time.monotonic()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seconds = time.monotonic() - start
            lines = [f'kepler_platform_watts{{node_name="{node}",chassis_id="System.Embedded.1"}} 9000']
            for pod, rate in pods.items():
                labels = f'namespace="{namespace}",pod="{pod}"'
                done = rate * seconds
                lines += [
                    f"vllm:generation_tokens_total{{{labels}}} {300 * done}",
                    f"vllm:prompt_tokens_total{{{labels}}} {800 * done}",
                    f"vllm:request_success_total{{{labels}}} {done}",
                    f"vllm:num_requests_running{{{labels}}} {3.0 if rate else 0.0}",
                ]
                for bound, share in (("0.01", 0.5), ("0.025", 0.99), ("+Inf", 1.0)):
                    lines.append(
                        f'vllm:inter_token_latency_seconds_bucket{{{labels},le="{bound}"}} {300 * done * share}'
                    )
            body = "\n".join([*lines, ""]).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def audit(team: Team, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KUBECONFIG": str(team.kubectl.kubeconfig)}
    command = [str(BIN / "energylens"), "audit", "-n", team.namespace, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


@pytest.fixture
def served(team: Team) -> Iterator[dict[str, str]]:
    """The workloads, running; give the pod of each by its label ``app``."""
    team.kubectl.apply(list(WORKLOADS))

    def running() -> dict[str, str]:
        pods = json.loads(team.kubectl.run("get", "pods", "-o", "json"))["items"]
        found = {pod["metadata"]["labels"]["app"]: pod for pod in pods}
        assert len(found) == 4
        assert {pod["status"]["phase"] for pod in found.values()} == {"Running"}
        return {name: pod["metadata"]["name"] for name, pod in found.items()}

    yield eventually(running)
    team.kubectl.run("delete", "deployments,statefulsets", "--all", "--wait=true")
    eventually(lambda: json.loads(team.kubectl.run("get", "pods", "-o", "json"))["items"] == [])


def test_what_runs_is_found_measured_and_planned_and_nothing_is_written(
    operator: OperatorCluster, team: Team, served: dict[str, str], tmp_path: Path
) -> None:
    loads = {served["chat"]: 1.0, served["summaries-predictor"]: 0.0}
    node = team.kubectl.run("get", "pod", served["chat"], "-o", "jsonpath={.spec.nodeName}")
    with counting(loads, team.namespace, node) as url:
        operator.prometheus.scrape("engines", url)
        arguments = ("--prometheus", operator.prometheus.url, "--window-minutes", "2", "-o", "json")

        def measured() -> dict[str, Object]:
            answer = audit(team, *arguments)
            assert answer.returncode == 0, answer.stderr
            found = {each["name"]: each for each in json.loads(answer.stdout)["items"]}
            assert found["chat"]["now"]["measured"], found["chat"]["notes"]
            assert "load" in found["chat"], found["chat"]["reason"]
            assert "hostWatts" in found["chat"]["hosts"][0], found["chat"]["hosts"]
            return found

        found = eventually(measured)
        seen = pages_of_ui(team, "/audit", options=arguments[:4])["/audit"]
        log = operator.audit()
        written = audit(team, *arguments, "--write", str(tmp_path / "plans"))
        assert written.returncode == 0, written.stderr
        persons = {event.user for event in log.events() if event.is_write and not event.user.startswith("system:")}
        assert persons == set(), "nothing is written as the user of the command"
    status, page = seen
    assert status == 200
    for expected in (f"{team.namespace}/chat", "9,000 W at the meter (Kepler, by Redfish)", "Measured from Prometheus"):
        assert expected in page
    chat = found["chat"]
    assert (chat["kind"], chat["engine"], chat["engineVersion"], chat["gpus"]) == ("Deployment", "VLLM", "0.24.0", 4)
    assert chat["layout"]["tensorParallel"] == 4
    assert chat["now"]["watts"] == pytest.approx(4 * find_gpu("H100").idle_watts, rel=0.1)
    (host,) = chat["hosts"]
    assert (host["node"], host["meterWatts"]) == (node, pytest.approx(9000))
    assert host["hostWatts"] == pytest.approx(9000 - host["gpuWatts"])
    assert chat["load"]["requestsPerSecond"] == pytest.approx(1.0, rel=0.1)
    assert (chat["load"]["inputTokens"], chat["load"]["outputTokens"]) == (800, 300)
    assert (found["coder"]["kind"], found["coder"]["model"]) == ("StatefulSet", "Qwen/Qwen3-32B")
    assert found["coder"]["verdict"] == "NoLoad"
    assert (found["summaries"]["kind"], found["summaries"]["verdict"]) == ("InferenceService", "Idle")
    assert (found["notebook"]["verdict"], found["notebook"]["gpus"]) == ("Unread", 1)
    for path in (tmp_path / "plans").glob("*.yaml"):
        # The API server takes the objects as they are written.
        team.kubectl.run("apply", "--dry-run=server", "-f", str(path))
        assert yaml.safe_load(path.read_text())["metadata"]["namespace"] == team.namespace
