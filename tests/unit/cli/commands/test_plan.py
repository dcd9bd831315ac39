from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from tests.unit.cli.conftest import Write

from energylens.api.parse import parse_llmdeployment
from energylens.api.quantity import parse_quantity
from energylens.cli.main import cli
from energylens.decide.reasons import ConditionType

ROOT = Path(__file__).resolve().parents[4]
EXAMPLE, INVENTORY = ROOT / "examples" / "llama-3.1-70b.yaml", ROOT / "examples" / "inventory.yaml"


@pytest.fixture
def example() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    return document


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, ["plan", *map(str, args)])


def test_the_example_has_a_plan() -> None:
    result = run("-f", EXAMPLE, "--inventory", INVENTORY)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "llama-3-1-70b: meta-llama/Llama-3.1-70B-Instruct"
    assert any(line.startswith("  plan        ") and "hash " in line for line in lines)
    assert any(line.split()[:1] == ["*"] for line in lines)
    assert "WHY NOT" in result.output
    assert "more GPUs than spec.hardware.maxGPUs=8" in result.output


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_the_object_is_printed_as_the_operator_would_write_it(output: str) -> None:
    result = run("-f", EXAMPLE, "--inventory", INVENTORY, "-o", output)
    assert result.exit_code == 0, result.output
    document = yaml.safe_load(result.output)
    deployment = parse_llmdeployment(document, strict=True)
    plan = deployment.status.plan
    assert plan is not None
    assert 1 <= plan.gpus <= 8
    assert plan.predicted.itl_milliseconds <= 50
    conditions = {c.type: c.status for c in deployment.status.conditions}
    # PlanVerified is there where spec.rollout.verify asks for it.
    left_out = (ConditionType.PLAN_VERIFIED, ConditionType.START_TIMED)
    assert list(conditions) == [kind.value for kind in ConditionType if kind not in left_out]
    assert (conditions["PlanReady"], conditions["SLOFeasible"], conditions["Ready"]) == ("True", "True", "False")
    assert deployment.status.active_revision is not None
    assert deployment.status.active_revision.plan_hash == plan.hash
    assert document["spec"] == yaml.safe_load(EXAMPLE.read_text())["spec"]


def test_several_deployments_make_a_list(example: dict[str, Any], write: Write) -> None:
    other = example | {"metadata": {"name": "other"}}
    files = write("both.yaml", yaml.safe_dump_all([example, {"kind": "Service"}, other]))
    result = run("-f", files, "--inventory", INVENTORY, "-o", "json")
    assert [item["metadata"]["name"] for item in json.loads(result.output)["items"]] == ["llama-3-1-70b", "other"]


def test_no_plan_is_exit_code_3(example: dict[str, Any], write: Write) -> None:
    example["spec"]["slo"]["itlMilliseconds"] = 1
    path = write("tight.yaml", yaml.safe_dump(example))
    result = run("-f", path, "--inventory", INVENTORY)
    assert result.exit_code == 3
    assert "no plan: SLOInfeasible" in result.output
    assert "spec.slo.itlMilliseconds=1 cannot be met" in result.output
    assert "WOULD WORK" in result.output
    conditions = json.loads(run("-f", path, "--inventory", INVENTORY, "-o", "json").output)["status"]["conditions"]
    found = [(c["type"], c["status"], c["reason"]) for c in conditions]
    assert ("PlanReady", "False", "SLOInfeasible") in found
    assert ("SLOFeasible", "False", "SLOInfeasible") in found
    assert ("Ready", "False", "NotStarted") in found


def test_a_cluster_as_kubectl_prints_it(write: Write) -> None:
    node = {
        "kind": "Node",
        "metadata": {"name": "a", "labels": {"nvidia.com/gpu.product": "NVIDIA-H200"}},
        "status": {"allocatable": {"nvidia.com/gpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]},
    }
    pod = {
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "other"},
        "spec": {
            "nodeName": "a",
            "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "8"}}}],
        },
        "status": {"phase": "Running"},
    }
    free = write("free.json", json.dumps({"kind": "List", "items": [node]}))
    taken = write("taken.json", json.dumps({"kind": "List", "items": [node, pod]}))
    assert run("-f", EXAMPLE, "--inventory", free).exit_code == 0
    full = run("-f", EXAMPLE, "--inventory", taken)
    assert full.exit_code == 3
    assert "not enough free GPUs" in full.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slo": {"itlMilliseconds": -1}}, "spec.slo.itlMilliseconds: -1 must be at least 1"),
        ({"model": {"name": "meta-llama/Llama-3.1-70B-Instrukt"}}, "nearest known: meta-llama/Llama-3.1-70B-Instruct"),
        ({"engine": {"extraArgs": ["--tensor-parallel-size=2"]}}, "spec.planning.overrides.tensorParallel"),
        ({"gpus": 3}, "unknown field"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    change: dict[str, Any], message: str, example: dict[str, Any], write: Write
) -> None:
    example["spec"] |= change
    result = run("-f", write("bad.yaml", yaml.safe_dump(example)), "--inventory", INVENTORY)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("inventory.yaml", "nodes:\n- {product: V9000, gpus: 8}\n", "nodes[0].product='V9000'"),
        ("inventory.yaml", "nodes: [\n", "not YAML"),
        ("inventory.yaml", "", "must have a list `nodes`"),
        ("deployment.yaml", "kind: Service\n", "holds no object of kind LLMDeployment"),
        ("config.json", "{", "config.json: "),
        ("config.json", "[]", "config.json: "),
        ("config.json", "{}", "config.json: "),
    ],
)
def test_bad_files_are_named(name: str, text: str, message: str, write: Write) -> None:
    bad = write(name, text)
    files = {"deployment.yaml": EXAMPLE, "inventory.yaml": INVENTORY} | {name: bad}
    args: list[str | Path] = ["-f", files["deployment.yaml"], "--inventory", files["inventory.yaml"]]
    if name == "config.json":
        args += ["--model-config", bad]
    result = run(*args)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert str(bad) in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_file_that_is_not_there_is_named() -> None:
    result = run("-f", "nowhere.yaml", "--inventory", INVENTORY)
    assert result.exit_code == 2
    assert result.stderr == "Error: nowhere.yaml: No such file or directory\n"


def test_a_model_that_the_catalogue_lacks_is_planned_from_its_config(example: dict[str, Any], write: Write) -> None:
    from energylens.data import load_config

    example["spec"]["model"]["name"] = "our/finetune"
    config = write("config.json", json.dumps(load_config("meta-llama/Llama-3.1-70B-Instruct")))
    path = write("finetune.yaml", yaml.safe_dump(example))
    assert run("-f", path, "--inventory", INVENTORY).exit_code == 2
    assert run("-f", path, "--inventory", INVENTORY, "--model-config", config).exit_code == 0


def test_an_offline_plan_imports_nothing_that_only_other_commands_need() -> None:
    script = (
        "import sys; from click.testing import CliRunner; from energylens.cli.main import cli;"
        f"result = CliRunner().invoke(cli, ['plan', '-f', {str(EXAMPLE)!r}, '--inventory', {str(INVENTORY)!r}]);"
        "assert result.exit_code == 0, result.output;"
        "heavy = ('matplotlib', 'scipy', 'kubernetes', 'kopf', 'aiohttp', 'asyncio', 'prometheus_client');"
        "print([name for name in heavy if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_one_gpu_is_one(tmp_path: Path, example: dict[str, Any]) -> None:
    example["spec"]["model"]["name"] = "meta-llama/Llama-3.1-8B-Instruct"
    example["spec"]["hardware"] = {"maxGPUs": 1}
    path = tmp_path / "small.json"
    path.write_text(json.dumps(example))
    assert " (1 GPU)   hash " in run("-f", path, "--inventory", INVENTORY).output


def test_a_budget_of_ones_own_is_shown_and_enforced_as_the_operator_does(example: dict[str, Any], write: Write) -> None:
    plain = run("-f", EXAMPLE, "--inventory", INVENTORY, "-o", "json")
    watts = json.loads(plain.output)["status"]["plan"]["predicted"]["powerWatts"]

    def planned(action: str, watt_hours: int, *args: str) -> Result:
        own = {"energyWattHours": watt_hours, "period": "Day", "action": action}
        example["spec"]["energy"] = {"budget": own}
        return run("-f", write("own.yaml", yaml.safe_dump(example)), "--inventory", INVENTORY, *args)

    warned = planned("Warn", 24 * watts - 24)
    assert warned.exit_code == 0, warned.output
    assert f"own budget  Warn: 0 Wh used of {24 * watts - 24} Wh per day (UTC), next period" in warned.output
    assert f"RunsOut: spec.energy.budget: {watts} W are committed" in warned.output
    enforced = planned("Enforce", 24, "-o", "json")
    assert enforced.exit_code == 3
    status = json.loads(enforced.output)["status"]
    (denied,) = [c for c in status["conditions"] if c["type"] == "WithinEnergyBudget"]
    assert (denied["status"], denied["reason"]) == ("False", "GrowthDenied")
    assert denied["message"].startswith("spec.energy.budget.energyWattHours=24 (1 W) leaves too little power")


@pytest.mark.parametrize(
    ("part", "note"),
    [
        ({"hardware": {"gpuProducts": ["H100", "Banana"]}}, "spec.hardware.gpuProducts: Banana is not a known product"),
        (
            {"planning": {"approvedPlanHash": "0123456789abcdef"}},
            "spec.planning.approvedPlanHash=0123456789abcdef has no effect while planning.mode is Auto",
        ),
        (
            {"planning": {"mode": "Manual", "approvedPlanHash": "0123456789abcdef"}},
            "spec.planning.approvedPlanHash=0123456789abcdef is not the pending plan's hash",
        ),
    ],
)
def test_what_of_the_spec_has_no_effect_is_said(
    part: dict[str, Any], note: str, example: dict[str, Any], write: Write
) -> None:
    example["spec"] |= part
    result = run("-f", write("part.yaml", yaml.safe_dump(example)), "--inventory", INVENTORY)
    assert result.exit_code == 0, result.output
    assert note in result.output
    assert "(1 GPUs)" not in result.output


@pytest.mark.parametrize(
    ("share", "slo", "said"), [(1.0, {}, True), (0.1, {}, False), (0.99, {"ttftMilliseconds": 3_600_000}, False)]
)
def test_a_wait_that_nothing_bounds_is_said(
    share: float, slo: dict[str, int], said: bool, example: dict[str, Any], write: Write
) -> None:
    def planned(rate: str) -> str:
        workload = {"inputTokens": 1000, "outputTokens": 300, "requestsPerSecond": rate}
        example["spec"] |= {
            "model": {"name": "meta-llama/Llama-3.1-8B-Instruct"},
            "workload": workload,
            "slo": slo,
            "hardware": {"maxGPUs": 1, "gpuProducts": ["H100"]},
            "planning": {"overrides": {"maxBatchSize": 1}},
        }
        return run("-f", write("edge.yaml", yaml.safe_dump(example)), "--inventory", INVENTORY).output

    found = re.search(r"requestsPerSecond +100 +(\S+)", planned("100"))
    assert found is not None
    most = float(parse_quantity(found[1]))
    answer = planned(f"{math.floor(1000 * most * share)}m")
    assert "hash" in answer, answer
    assert ("s for its first token (P95), longer than its answer takes" in answer) is said, answer
