"""Whatever a valid spec, cluster and budget say, the commands answer with sane words, numbers and exit codes.

`make fuzz` runs 20,000 examples instead of 300; each find becomes an example below.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from tests.fuzz.clusters import worlds
from tests.fuzz.strategies import CHOICES, NAMESPACE, Object

from energylens.api.parse import parse_llmdeployment
from energylens.api.quantity import parse_quantity
from energylens.cli.main import cli
from energylens.cli.text.status import as_object, page
from energylens.cli.text.tables import dump
from energylens.data import find_gpu
from energylens.planner import plan, question
from energylens.planner.types import PlanningResult

EXAMPLES = int(os.environ.get("ENERGYLENS_FUZZ_EXAMPLES", "300"))
LONG = "ENERGYLENS_FUZZ_EXAMPLES" in os.environ
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    # The same examples each time, unless a long run looks for new ones.
    derandomize=not LONG,
    database=None,
    suppress_health_check=list(HealthCheck),
    # Shrinking plans takes minutes, and the examples are short.
    phases=(Phase.explicit, Phase.generate),
)
NO_NUMBER = re.compile(r"(?<![\w.-])[+-]?(?:nan|inf|infinity)(?![\w-])", re.IGNORECASE)
SECOND = st.one_of(
    st.just(["plan"]),
    st.just(["explain"]),
    st.just(["explain", "-o", "json"]),
    CHOICES.map(lambda choice: ["explain", "--why", choice]),
    CHOICES.map(lambda choice: ["explain", "--why", choice, "-o", "json"]),
    st.just(["fleet"]),
    st.just(["diff"]),
    st.just(["diff", "-o", "json"]),
    st.sampled_from(["1", "1500", "9999999"]).map(lambda watts: ["fleet", "--budget-watts", watts, "-o", "json"]),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module", autouse=True)
def plans() -> Iterator[dict[str, PlanningResult]]:
    """Plan once what both commands of an example ask for, since planning takes nearly all of the time."""
    known: dict[str, PlanningResult] = {}
    real = plan

    def once(*asked: Any, **limits: Any) -> PlanningResult:
        *inputs, predictor = asked
        key = repr((inputs, predictor.profile, limits))
        if key not in known:
            known[key] = real(*asked, **limits)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(question, "plan", once)
        yield known


def no_number(name: str) -> NoReturn:
    raise AssertionError(f"{name} in JSON")


def run(arguments: Sequence[str], folder: Path) -> Result:
    """Run a command on the files of the folder, and check what holds of every answer."""
    files = ["-f", str(folder / "asked.json"), "--inventory", str(folder / "inventory.json")]
    if arguments[0] == "diff":
        files += ["--inventory", str(folder / "other.json")]
    found = CliRunner().invoke(cli, [arguments[0], *files, *arguments[1:]])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code in (0, 2, 3), found.output
    assert "Traceback" not in found.output
    assert not NO_NUMBER.search(found.output), found.output
    if found.exit_code == 2:
        assert found.stderr.startswith("Error: "), found.stderr
        assert len(found.stderr.splitlines()) == 1, found.stderr
        assert found.stdout == ""
    elif "json" in arguments:
        json.loads(found.stdout, parse_constant=no_number)
    return found


def write(folder: Path, asked: Sequence[Object], inventory: Object) -> None:
    (folder / "asked.json").write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": list(asked)}))
    (folder / "inventory.json").write_text(json.dumps(inventory))
    (folder / "other.json").write_text(json.dumps({"nodes": [{"product": "NVIDIA-H200", "gpus": 8, "count": 2}]}))


def small(model: str, workload: Object, **parts: Any) -> Object:
    """Return an LLMDeployment, for an example that was found once."""
    spec = {"model": {"name": model}, "workload": workload, **parts}
    metadata = {"name": "a", "namespace": NAMESPACE}
    return {"apiVersion": "energylens.dev/v1alpha1", "kind": "LLMDeployment", "metadata": metadata, "spec": spec}


def cluster(product: str, gpus: int, count: int = 1) -> Object:
    return {"nodes": [{"product": product, "gpus": gpus, "count": count}]}


LLAMA, LOAD = "meta-llama/Llama-3.1-8B-Instruct", {"inputTokens": 300, "outputTokens": 400}
DENIED = small(
    LLAMA,
    {**LOAD, "requestsPerSecond": "60"},
    slo={"percentile": "P95", "ttftMilliseconds": 1000, "itlMilliseconds": 50},
    energy={"budget": {"powerWatts": 1000, "action": "Enforce"}},
)
RARE = small(LLAMA, {**LOAD, "requestsPerSecond": "1e-30"})
ENDLESS = small(LLAMA, {**LOAD, "requestsPerSecond": "1e30"})
UNBOUNDED = small(
    LLAMA,
    {"inputTokens": 300, "outputTokens": 2395, "requestsPerSecond": "135"},
    slo={"ttftMilliseconds": 1, "itlMilliseconds": 50},
    energy={"powerCap": {"mode": "Plan"}},
)
CROWDED = small(
    "mistralai/Mixtral-8x7B-v0.1",
    {"inputTokens": 83908, "outputTokens": 100, "concurrency": 69},
    slo={"percentile": "P95", "ttftMilliseconds": 1},
)
CAPPED = small(
    "openai/gpt-oss-20b",
    {"inputTokens": 300, "outputTokens": 100, "concurrency": 16},
    energy={"objective": "MinimizePower", "powerCap": {"mode": "Plan"}},
)


# Hypothesis warns of long examples only while it prints one that failed, and the failure would be lost.
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
# Some fifty seconds of processor time, but a busy machine may take ten times as long.
@pytest.mark.timeout(0 if LONG else 1800)
@fuzzed
@example(world=([DENIED], cluster("NVIDIA-H100-80GB-HBM3", 8, 2)), second=["explain"])
@example(world=([RARE], cluster("NVIDIA-H100-80GB-HBM3", 8)), second=["fleet"])
@example(world=([ENDLESS], cluster("NVIDIA-H100-80GB-HBM3", 8)), second=["explain", "--why", "tp=1"])
@example(world=([UNBOUNDED], cluster("NVIDIA-L4", 4, 6)), second=["explain", "--why", "cap=none"])
@example(world=([UNBOUNDED], cluster("NVIDIA-L4", 4, 6)), second=["explain", "--why", "cap=none", "-o", "json"])
@example(world=([CROWDED], cluster("NVIDIA-L4", 8)), second=["explain", "--why", "ep=2"])
@example(world=([CAPPED], cluster("NVIDIA-GB300", 4)), second=["explain"])
@given(world=worlds(), second=SECOND)
def test_every_valid_input_has_a_sane_answer(
    world: tuple[list[Object], Object], second: list[str], folder: Path, plans: dict[str, PlanningResult]
) -> None:
    asked, inventory = world
    plans.clear()
    write(folder, asked, inventory)
    first = run(["plan", "-o", "json"], folder)
    if first.exit_code != 2:
        planned = json.loads(first.stdout)
        check(planned["items"] if planned["kind"] == "List" else [planned], asked, inventory)
    also = run(second, folder)
    if second[0] in ("plan", "explain") and "--why" not in second:
        assert also.exit_code == first.exit_code


def check(planned: Sequence[Object], asked: Sequence[Object], inventory: Object) -> None:
    """Check the statuses that the operator would write, and what `energylens status` makes of them."""
    room = free(inventory)
    for body in planned:
        deployment = parse_llmdeployment({**body, "metadata": {**body["metadata"], "generation": 1}}, strict=True)
        for text in (page(deployment), dump([as_object(deployment)], "json")):
            assert not NO_NUMBER.search(text), text
        for condition in body["status"]["conditions"]:
            message = condition.get("message", "")
            assert "\n" not in message, message
            assert condition["status"] == "True" or message or condition["type"] == "Degraded", condition
        if good(body):
            holds_what_it_says(body, room)
    watts = [body["status"]["plan"]["predicted"]["powerWatts"] for body in planned if good(body)]
    for budget in (body for body in asked if body["kind"] != "LLMDeployment"):
        spec = budget["spec"]
        everyone = "selector" not in spec and all(runs(body) for body in planned if good(body))
        if spec.get("action") == "Deny" and everyone and watts and "powerWatts" in spec:
            assert sum(watts) <= spec["powerWatts"], (watts, spec)


def runs(body: Mapping[str, Any]) -> bool:
    """Return whether a plan commits power: it is not only shown, waits for nobody, and is not suspended."""
    return body["spec"].get("planning", {}).get("mode", "Auto") == "Auto" and not body["spec"].get("suspend")


def good(body: Mapping[str, Any]) -> bool:
    (ready,) = (c for c in body["status"]["conditions"] if c["type"] == "PlanReady")
    return "plan" in body["status"] and ready["reason"] in ("Planned", "Advisory", "AwaitingApproval")


def free(inventory: Object) -> dict[str, list[int]]:
    """Return by product the GPUs of each node that nobody else holds, as the files say."""
    found: dict[str, list[int]] = {}
    if "nodes" in inventory:
        for pool in inventory["nodes"]:
            left = pool["gpus"] - pool.get("used", 0)
            found.setdefault(find_gpu(pool["product"]).product, []).extend([left] * pool.get("count", 1))
        return found
    pods = [item for item in inventory["items"] if item["kind"] == "Pod" and not item["metadata"]["labels"]]
    for node in (item for item in inventory["items"] if item["kind"] == "Node"):
        taken = sum(
            int(pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
            for pod in pods
            if pod["spec"]["nodeName"] == node["metadata"]["name"]
        )
        gpus = int(node["status"].get("allocatable", {}).get("nvidia.com/gpu", 0))
        product = node["metadata"]["labels"].get("nvidia.com/gpu.product", "")
        found.setdefault(product, []).append(max(0, gpus - taken))
    return found


def holds_what_it_says(body: Mapping[str, Any], room: dict[str, list[int]]) -> None:
    """Check that a plan fits into the cluster beside those before it, and meets the spec."""
    plan, spec = body["status"]["plan"], body["spec"]
    hardware, slo, predicted = spec.get("hardware", {}), spec.get("slo", {}), plan["predicted"]
    per_replica = plan["tensorParallel"] * plan["pipelineParallel"] * plan["dataParallel"]
    assert plan["gpus"] == per_replica * plan["replicas"]
    assert plan["gpus"] <= hardware.get("maxGPUs", plan["gpus"])
    assert per_replica <= hardware.get("maxGPUsPerReplica", per_replica)
    assert plan["gpuProduct"] in hardware.get("gpuProducts", [plan["gpuProduct"]])
    for name, value in spec.get("planning", {}).get("overrides", {}).items():
        # A plan without tokens of a step has the engine's default, whatever that is.
        assert (name == "maxBatchedTokens" and name not in plan) or plan[name] == value, name
    for field in ("ttftMilliseconds", "itlMilliseconds", "tpotMilliseconds", "endToEndMilliseconds"):
        assert predicted[field] <= slo.get(field, predicted[field]), field
    job = spec["workload"].get("job")
    if job is not None:
        assert plan["job"]["completionSeconds"] <= job["completeWithinSeconds"]
    if spec.get("scaling", {}).get("mode") == "Fixed":
        assert plan["replicas"] == spec["replicas"]
    joules = parse_quantity(predicted["joulesPerOutputToken"])
    assert joules > 0
    assert joules <= parse_quantity(slo.get("joulesPerOutputToken", "9E"))
    assert 0 < predicted["idlePowerWatts"] <= predicted["powerWatts"] + 1
    budget = spec.get("energy", {}).get("budget", {})
    if budget.get("action") == "Enforce" and "powerWatts" in budget:
        assert predicted["powerWatts"] <= budget["powerWatts"]
    if runs(body):
        take(
            room[plan["gpuProduct"]], plan["replicas"] * plan["nodesPerReplica"], per_replica // plan["nodesPerReplica"]
        )


def take(nodes: list[int], pods: int, gpus: int) -> None:
    """Place equal pods on the fullest nodes that have room, as reservations do; all of them must have a place."""
    for number in sorted(range(len(nodes)), key=nodes.__getitem__):
        here = min(pods, nodes[number] // gpus)
        nodes[number] -= here * gpus
        pods -= here
    assert pods == 0, f"{pods} pods of {gpus} GPUs have no place on {nodes}"
