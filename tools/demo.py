"""Shows the main job: an LLMDeployment is answered with a plan, serving pods, and measured energy beside the predicted.

A real Kubernetes control plane is started on this machine with nodes that look like GPU nodes, the chart is installed,
the operator runs under the chart's service account, and a replay exporter stands in for dcgm-exporter and vLLM: it
serves measured runs of the ML.ENERGY benchmark, never the predictor's figures, so that the error shown is a real one.
Everything is cleaned up at the end, also after Ctrl-C.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import yaml

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "llama-3.1-70b.yaml"
NAME = "llama-3-1-70b"
NAMESPACE = "default"
WARMUP_SECONDS, WINDOW_SECONDS = 10, 40
MEASURED_PRODUCTS = ("H100", "B200")
"""GPU products of the runs that the replay exporter serves."""
READY_DEADLINE_SECONDS, MEASURED_DEADLINE_SECONDS, GONE_DEADLINE_SECONDS = 180, 240, 120


class DemoError(Exception):
    """The demo cannot go on; the message says why and where to look."""


def say(text: str = "") -> None:
    """Print one line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Steps:
    """Numbers the demo's steps and says how long each took."""

    def __init__(self) -> None:
        self._number = 0
        self._start = time.monotonic()

    def __call__(self, text: str) -> None:
        """Print a step's line."""
        self._number += 1
        say(f"\n[{time.monotonic() - self._start:6.1f} s] {self._number}. {text}")


class Demo:
    """One run of the demo in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {**os.environ, "ENERGYLENS_DEV_DIR": str(directory / "cluster")}
        self.step = Steps()
        self.replay: subprocess.Popen[bytes] | None = None
        self.kubectl_command: list[str] = []

    def energylens(self, *arguments: str) -> str:
        """Run the command line, its progress shown, and return its standard output."""
        command = [sys.executable, "-m", "energylens", *arguments]
        done = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise DemoError(f"`energylens {' '.join(arguments)}` ended with exit code {done.returncode}")
        return done.stdout

    def kubectl(self, *arguments: str, standard_input: str | None = None) -> str:
        """Run kubectl against the demo's cluster."""
        done = subprocess.run(
            [*self.kubectl_command, *arguments], input=standard_input, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise DemoError(f"`kubectl {' '.join(arguments)}`: {done.stderr.strip()}")
        return done.stdout

    def deployment(self) -> dict[str, Any]:
        """Return the LLMDeployment."""
        found: dict[str, Any] = json.loads(self.kubectl("get", "llmd", NAME, "-n", NAMESPACE, "-o", "json"))
        return found

    def wait(self, what: str, seconds: float, done: Callable[[], bool], otherwise: Callable[[], str]) -> None:
        """Wait until ``done`` holds; raise a DemoError with what ``otherwise`` says at the deadline."""
        deadline = time.monotonic() + seconds
        while not done():
            if self.replay is not None and self.replay.poll() is not None:
                raise DemoError(f"{what}: the replay exporter has ended, see {self.directory / 'replay.log'}")
            if time.monotonic() > deadline:
                raise DemoError(f"{what} did not happen within {seconds:.0f} s: {otherwise()}")
            time.sleep(0.5)

    def run(self) -> None:
        """Run all steps."""
        port = free_port()
        config = self.directory / "operator.json"
        config.write_text(json.dumps(operator_settings(port)))
        self.step("Start a Kubernetes control plane with GPU nodes, install the chart, run the operator")
        say("   (the first time builds it from Go modules: 10 to 20 minutes on 2 cores; later times take seconds)")
        # Life-like pods end at any time within their grace period, which is minutes for engines that drain.
        up = ("dev", "up", "--json", "--fast-pods", "--operator-arg", f"--config={config}")
        line = self.energylens(*up).strip().splitlines()[-1]
        access = json.loads(line)
        self.kubectl_command = [access["kubectl"], "--kubeconfig", access["kubeconfig"]]
        say(self.kubectl("get", "nodes", "-L", "nvidia.com/gpu.product,nvidia.com/gpu.count").rstrip())

        self.step("Start the replay exporter: dcgm-exporter's and vLLM's metrics from measured runs")
        log = (self.directory / "replay.log").open("wb")
        self.replay = subprocess.Popen(
            [sys.executable, "-m", "energylens_dev.replay", "--kubeconfig", access["kubeconfig"], "--port", str(port)],
            cwd=ROOT, stdout=log, stderr=log,
        )  # fmt: skip

        self.step(f"kubectl apply -f {EXAMPLE.relative_to(ROOT)}")
        example = yaml.safe_load(EXAMPLE.read_text())
        example["spec"]["validation"] = {"warmupSeconds": WARMUP_SECONDS, "windowSeconds": WINDOW_SECONDS}
        example["spec"]["hardware"]["gpuProducts"] = list(MEASURED_PRODUCTS)
        self.kubectl("apply", "-n", NAMESPACE, "-f", "-", standard_input=json.dumps(example))
        say(f"   measurement shortened for the demo: {WARMUP_SECONDS} s warm-up, {WINDOW_SECONDS} s window;")
        say(f"   GPUs limited to {' and '.join(MEASURED_PRODUCTS)}, of which there are measured runs to replay")

        self.step("The operator plans")
        self.wait("A plan", 60, lambda: condition(self.deployment(), "PlanReady") == "True", self.conditions)
        say(describe_plan(self.deployment()["status"]["plan"]))

        self.step("The serving pods of that plan start")
        self.wait(
            "Ready", READY_DEADLINE_SECONDS, lambda: condition(self.deployment(), "Ready") == "True", self.conditions
        )
        say(self.kubectl("get", "pods", "-n", NAMESPACE, "-o", "wide").rstrip())

        self.step(f"GPU energy and tokens are measured over {WINDOW_SECONDS} s")
        self.wait(
            "A measurement", MEASURED_DEADLINE_SECONDS, lambda: measured(self.deployment()) is not None, self.conditions
        )

        self.step("kubectl get llmd -o wide")
        say(self.kubectl("get", "llmd", "-n", NAMESPACE, "-o", "wide").rstrip())
        say("\nConditions")
        say(self.conditions())
        say("\nPredicted and measured")
        say(side_by_side(self.deployment()["status"]))
        say("  (in-sample: the coefficients were fitted to these runs; docs/accuracy.md has errors of runs left out)")

        self.step("energylens drift: the same for every LLMDeployment of the cluster")
        say(self.energylens("drift", "--kubeconfig", access["kubeconfig"]).rstrip())

        self.step("kubectl delete llmd: every child goes, no finalizer holds it")
        self.kubectl("delete", "llmd", NAME, "-n", NAMESPACE, "--wait=true", f"--timeout={GONE_DEADLINE_SECONDS}s")
        self.wait("Removal of the children", GONE_DEADLINE_SECONDS, lambda: not self.children(), self.children)
        say("   nothing is left")

    def children(self) -> str:
        """Name what still carries the deployment's label."""
        kinds = "deployments,replicasets,services,poddisruptionbudgets,configmaps,pods"
        return self.kubectl("get", kinds, "-n", NAMESPACE, "-l", f"energylens.dev/llmdeployment={NAME}", "-o", "name")

    def conditions(self) -> str:
        """Return the object's conditions as a table."""
        rows = self.deployment().get("status", {}).get("conditions", [])
        return "\n".join(f"  {c['type']:<23}{c['status']:<9}{c['reason']:<25}{c.get('message', '')}" for c in rows)

    def clean_up(self, keep: bool) -> None:
        """Stop everything that the demo started; keep its logs and state where it failed."""
        if self.replay is not None and self.replay.poll() is None:
            self.replay.terminate()
            try:
                self.replay.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.replay.kill()
                self.replay.wait()
        self.step("Clean up")
        self.energylens("dev", "down", *([] if keep else ["--purge"]))


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def operator_settings(port: int) -> dict[str, Any]:
    """Return the operator's settings that point its measurement at the replay exporter."""
    base = f"http://127.0.0.1:{port}"
    return {
        "measurement": {
            "dcgmEndpoints": [f"{base}/dcgm/metrics"],
            "engineEndpointTemplate": base + "/pods/{namespace}/{pod}/metrics",
            "scrapeSeconds": 5,
        }
    }


def condition(deployment: dict[str, Any], kind: str) -> str | None:
    """Return a condition's status, or None when it is not there or of an older generation."""
    for entry in deployment.get("status", {}).get("conditions", []):
        if entry["type"] == kind and entry.get("observedGeneration") == deployment["metadata"]["generation"]:
            return str(entry["status"])
    return None


def measured(deployment: dict[str, Any]) -> str | None:
    """Return the measured joules per output token, when there is one."""
    value: str | None = deployment.get("status", {}).get("measured", {}).get("joulesPerOutputToken")
    return value


def describe_plan(plan: dict[str, Any]) -> str:
    """Return the plan and why the alternatives lost."""
    lines = [
        f"   {plan['gpus']} x {plan['gpuProduct']}: {plan['replicas']} replica(s), TP{plan['tensorParallel']} "
        f"PP{plan['pipelineParallel']} EP{plan['expertParallel']} DP{plan['dataParallel']}, "
        f"batch {plan['maxBatchSize']} ({plan['hash']}, {plan['confidence']}, bound by {plan['bindingConstraint']})"
    ]
    lines += [
        f"   not {a['gpus']} x {a['gpuProduct']} TP{a['tensorParallel']} x {a['replicas']}: {a['reason']}"
        for a in plan.get("alternatives", [])
    ]
    return "\n".join(lines)


def side_by_side(status: dict[str, Any]) -> str:
    """Return predicted and measured figures as a table."""
    predicted, found, errors = status["plan"]["predicted"], status["measured"], status.get("prediction", {})
    rows = [("", "predicted", "measured", "error")]
    for label, key, error in (
        ("J per output token", "joulesPerOutputToken", "energyErrorPercent"),
        ("Power, W", "powerWatts", "powerErrorPercent"),
        ("ITL, ms", "itlMilliseconds", "itlErrorPercent"),
        ("Output tokens per s", "outputTokensPerSecond", ""),
    ):
        off = f"{errors[error]:+d} %" if error in errors else ""
        rows.append((label, str(predicted.get(key, "-")), str(found.get(key, "-")), off))
    return "\n".join(f"  {a:<22}{b:>12}{c:>12}{d:>9}" for a, b, c, d in rows)


def interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """Turn a termination signal into an exception, so that everything is cleaned up."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo and clean up; return the exit code."""
    signal.signal(signal.SIGTERM, interrupted)
    directory = Path(tempfile.mkdtemp(prefix="energylens-demo-"))
    demo = Demo(directory)
    code = 1
    try:
        demo.run()
        code = 0
    except DemoError as error:
        sys.stderr.write(f"demo: {error}\n")
    except KeyboardInterrupt:
        sys.stderr.write("demo: interrupted\n")
        code = 130
    finally:
        try:
            demo.clean_up(keep=code == 1)
        except DemoError as error:
            sys.stderr.write(f"demo: {error}\n")
            code = 1
    if code == 1:
        sys.stderr.write(f"demo: logs are kept in {directory}\n")
    else:
        shutil.rmtree(directory)
    if code == 0:
        say("\nDone.")
    return code


if __name__ == "__main__":
    sys.exit(main())
