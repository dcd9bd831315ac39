"""Whole outputs of `energylens plan` on fixed figures, and what budgets, live objects and order change in them."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.unit.cli.conftest import POOLS, Run, Write, budget, chat, compare

from energylens.api.llmdeployment import PlanStatus
from energylens.api.parse import parse_llmdeployment
from energylens.cli.main import cli
from energylens.decide.learned.corrections import Pool
from energylens.predictor.fitted.lessons import STEP
from energylens.predictor.fitted.recalibration import MeasuredPoint

NODE = {
    "kind": "Node",
    "metadata": {"name": "a", "labels": {"nvidia.com/gpu.product": "NVIDIA-H200"}},
    "status": {"allocatable": {"nvidia.com/gpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]},
}
CASES: dict[str, tuple[list[object], int]] = {
    "plan": ([chat()], 0),
    "plan-tight-itl": ([chat(slo={"percentile": "P50", "itlMilliseconds": 3})], 3),
    "plan-over-budget": ([chat(), budget("cap", 500)], 3),
    "plan-advisory": ([chat(planning={"mode": "Advisory"}), budget("cap", 1000, "Report")], 0),
    "plan-two-share": ([chat("first"), chat("second", hardware={"gpuProducts": ["H200"]})], 0),
}


@pytest.mark.parametrize("name", CASES)
def test_table(name: str, arithmetic: Run, write: Write) -> None:
    documents, code = CASES[name]
    result = arithmetic("plan", "-f", write("asked.yaml", documents), "--inventory", write("pools.yaml", POOLS))
    assert result.exit_code == code, result.output
    compare(f"{name}.txt", result.stdout)


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_the_object_as_the_operator_would_write_it(output: str, arithmetic: Run, write: Write) -> None:
    result = arithmetic(
        "plan", "-f", write("asked.yaml", chat()), "--inventory", write("pools.yaml", POOLS), "-o", output
    )
    assert result.exit_code == 0, result.output
    compare(f"plan.{output}", result.stdout)


def planned(run: Run, asked: object, inventory: object) -> list[dict[str, Any]]:
    result = run("plan", "-f", asked, "--inventory", inventory, "-o", "json")
    assert result.exit_code in (0, 3), result.output
    document = json.loads(result.stdout)
    found: list[dict[str, Any]] = document.get("items", [document])
    return found


def conditions(document: dict[str, Any]) -> dict[str, str]:
    return {c["type"]: c["reason"] for c in document["status"]["conditions"]}


def test_a_later_deployment_gets_the_gpus_that_are_left(arithmetic: Run, write: Write) -> None:
    fixed = {"overrides": {"tensorParallel": 4, "replicas": 2}}
    asked = [chat(name, planning=fixed, hardware={"gpuProducts": ["H200"]}) for name in ("one", "two")]
    first, second = planned(arithmetic, write("asked.yaml", asked), write("pools.yaml", POOLS))
    assert first["status"]["plan"]["gpus"] == 8
    assert "plan" not in second["status"]
    assert conditions(second)["PlanReady"] == "InsufficientGPUs"


@pytest.mark.parametrize("where", ["asked", "inventory"])
def test_a_budget_counts_wherever_it_is(where: str, arithmetic: Run, write: Write) -> None:
    cap = budget("cap", 500)
    asked = write("asked.yaml", [chat(), *([cap] if where == "asked" else [])])
    inventory = write("pools.yaml", [POOLS, *([cap] if where == "inventory" else [])])
    (found,) = planned(arithmetic, asked, inventory)
    assert conditions(found)["PlanReady"] == "BudgetExceeded"


def test_watts_of_the_first_count_for_the_second(arithmetic: Run, write: Write) -> None:
    small = "meta-llama/Llama-3.1-8B-Instruct"
    (alone,) = planned(arithmetic, write("asked.yaml", chat("one", small)), write("pools.yaml", POOLS))
    watts = alone["status"]["plan"]["predicted"]["powerWatts"]
    asked = write("both.yaml", [chat("one", small), chat("two", small), budget("cap", watts + 10)])
    first, second = planned(arithmetic, asked, write("pools.yaml", POOLS))
    assert conditions(first)["PlanReady"] == "Planned"
    assert conditions(second)["PlanReady"] == "BudgetExceeded"


def cluster_budget(**spec: object) -> dict[str, object]:
    kind = "ClusterEnergyBudget"
    return {"apiVersion": "energylens.dev/v1alpha1", "kind": kind, "metadata": {"name": "feed"}, "spec": spec}


@pytest.mark.parametrize(
    ("selector", "reason"), [({}, "BudgetExceeded"), ({"team": "a"}, "BudgetExceeded"), ({"team": "b"}, "Planned")]
)
def test_a_budget_of_the_cluster_counts_for_the_namespaces_that_it_selects(
    selector: dict[str, str], reason: str, arithmetic: Run, write: Write
) -> None:
    cap = cluster_budget(powerWatts=500, action="Deny", namespaceSelector={"matchLabels": selector})
    space = {"kind": "Namespace", "metadata": {"name": "team-a", "labels": {"team": "a"}}}
    asked = write("asked.yaml", [chat("team-a/chat"), cap])
    (found,) = planned(arithmetic, asked, write("pools.yaml", [POOLS, space]))
    assert conditions(found)["PlanReady"] == reason


@pytest.mark.parametrize(("watt_hours", "reason"), [(10**6, "Planned"), (10**4, "BudgetExceeded")])
def test_energy_of_a_budget_that_is_not_applied_yet_counts_from_now(
    watt_hours: int, reason: str, arithmetic: Run, write: Write
) -> None:
    cap = budget("cap", 10**6)
    cap["spec"] = {"energyWattHours": watt_hours, "period": "Month", "action": "Deny"}
    (found,) = planned(arithmetic, write("asked.yaml", [chat(), cap]), write("pools.yaml", POOLS))
    assert conditions(found)["PlanReady"] == reason


def live(document: dict[str, Any], **status: object) -> dict[str, Any]:
    metadata = {"namespace": "default", **document["metadata"], "uid": "1", "generation": 4}
    return {**document, "metadata": metadata, "status": {**document["status"], **status}}


@pytest.mark.parametrize(
    ("percent", "said"),
    [
        (0, "; objectives are checked without a margin."),
        (100, "; the plan exceeds a bound of spec.slo with a chance of 1 %."),
        (200, " % with 200 % of the usual errors."),
    ],
)
def test_the_chance_of_exceeding_a_bound_is_said_with_its_errors(
    percent: int, said: str, arithmetic: Run, write: Write
) -> None:
    document = chat(slo={"percentile": "P50", "itlMilliseconds": 30}, planning={"safetyMarginPercent": percent})
    result = arithmetic("plan", "-f", write("chat.yaml", document), "--inventory", write("pools.yaml", POOLS))
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stdout.splitlines() if "as predicted" in line]
    assert line.endswith(said)


def test_the_running_plan_stays_where_the_best_one_saves_too_little(arithmetic: Run, write: Write) -> None:
    slo = {"percentile": "P50", "itlMilliseconds": 40}
    old = chat(slo=slo, hardware={"gpuProducts": ["H100"]})
    (before,) = planned(arithmetic, write("old.yaml", old), write("pools.yaml", POOLS))
    asked, world = write("asked.yaml", chat(slo=slo)), write("live.yaml", [POOLS, live(before)])
    result = arithmetic("plan", "-f", asked, "--inventory", world)
    assert result.exit_code == 0, result.output
    assert "  kept        " in result.stdout
    (after,) = planned(arithmetic, asked, world)
    assert conditions(after)["PlanReady"] == "KeepingRunningPlan"
    assert after["status"]["plan"]["hash"] == before["status"]["plan"]["hash"]
    assert after["status"]["observedGeneration"] == 5


def test_what_runs_while_a_plan_waits_for_approval_is_what_is_compared(arithmetic: Run, write: Write) -> None:
    slo = {"percentile": "P50", "itlMilliseconds": 40}
    manual = {"mode": "Manual", "approvedPlanHash": "0123456789abcdef"}
    pools = write("pools.yaml", POOLS)
    (runs,) = planned(arithmetic, write("a.yaml", chat(slo=slo, hardware={"gpuProducts": ["H100"]})), pools)
    wide = {"overrides": {"tensorParallel": 8}}
    (waits,) = planned(arithmetic, write("b.yaml", chat(slo=slo, planning=wide)), pools)
    old = runs["status"]["plan"]
    labels = {"energylens.dev/llmdeployment": "chat", "energylens.dev/plan": old["hash"]}
    workload = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "chat", "labels": labels},
        "spec": {},
    }
    table = {"kind": "ConfigMap", "metadata": {"name": "chat-plan"}, "data": {"plan.json": json.dumps(old)}}
    asked = write("asked.yaml", chat(slo=slo, planning=manual))
    (after,) = planned(arithmetic, asked, write("live.yaml", [POOLS, live(waits), workload, table]))
    assert after["status"]["plan"]["hash"] == old["hash"]
    (without,) = planned(arithmetic, asked, write("live.yaml", [POOLS, live(waits), workload]))
    assert without["status"]["plan"]["hash"] != old["hash"]


def test_what_the_operator_learned_from_measurement_counts_where_it_is_asked_for(arithmetic: Run, write: Write) -> None:
    plain, asking = chat(), chat(validation={"onDrift": "Recalibrate"})
    (before,) = planned(arithmetic, write("a.yaml", plain), write("pools.yaml", POOLS))
    deployment = parse_llmdeployment(asking, strict=True)
    pool, plan = Pool(), PlanStatus.model_validate(before["status"]["plan"])
    for _ in range(30):
        pool.learn(deployment, plan, MeasuredPoint(energy_ratio=1.5, power_ratio=1.5))
    learned = {
        "kind": "ConfigMap",
        "metadata": {"name": "energylens-corrections", "namespace": "energylens-system"},
        "data": {"corrections.json": pool.dump()},
    }
    world = write("learned.yaml", [POOLS, learned])
    (same,) = planned(arithmetic, write("a.yaml", plain), world)
    (other,) = planned(arithmetic, write("b.yaml", asking), world)
    assert same["status"]["plan"] == before["status"]["plan"]
    assert other["status"]["plan"]["inputsHash"] != before["status"]["plan"]["inputsHash"]
    assert other["status"]["plan"]["correction"]["energy"] != "1000m"
    watts = [one["status"]["plan"]["predicted"]["powerWatts"] for one in (before, other)]
    assert watts[1] > 1.2 * watts[0]
    table = arithmetic("plan", "-f", write("b.yaml", asking), "--inventory", world)
    factors = re.search(r"the figures include learned corrections: energy x (\S+), power x (\S+)$", table.stdout, re.M)
    assert factors is not None
    assert [float(factor) for factor in factors.groups()] == pytest.approx([1.5, 1.5], rel=STEP)
    broken = {**learned, "data": {"corrections.json": "{"}}
    result = arithmetic("plan", "-f", write("b.yaml", asking), "--inventory", write("broken.yaml", [POOLS, broken]))
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ConfigMap energylens-system/energylens-corrections, key corrections.json: ")


def test_the_gpus_of_its_own_pods_are_free_for_it(arithmetic: Run, write: Write) -> None:
    pod = {
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "labels": {"energylens.dev/llmdeployment": "chat"}},
        "spec": {"nodeName": "a", "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "8"}}}]},
        "status": {"phase": "Running"},
    }
    world = write("nodes.yaml", [NODE, pod])
    (own,) = planned(arithmetic, write("asked.yaml", chat()), world)
    (other,) = planned(arithmetic, write("other.yaml", chat("other")), world)
    assert conditions(own)["PlanReady"] == "Planned"
    assert conditions(other)["PlanReady"] == "InsufficientGPUs"


def test_a_config_map_in_the_file_says_the_shape_of_a_model(arithmetic: Run, write: Write) -> None:
    from energylens.data import load_config

    config = json.dumps(load_config("meta-llama/Llama-3.1-8B-Instruct"))
    ours = chat(model="our/finetune") | {"metadata": {"name": "ours", "namespace": "team-a"}}
    ours["spec"]["model"]["configRef"] = {"name": "shape"}  # type: ignore[index]
    shape = {
        "kind": "ConfigMap",
        "metadata": {"name": "shape", "namespace": "team-a"},
        "data": {"config.json": config},
    }
    (found,) = planned(arithmetic, write("asked.yaml", [ours, shape]), write("pools.yaml", POOLS))
    assert conditions(found)["PlanReady"] == "Planned"
    missing = arithmetic("plan", "-f", write("alone.yaml", ours), "--inventory", write("pools.yaml", POOLS))
    assert missing.exit_code == 2
    assert missing.stderr == "Error: ours: spec.model.configRef: ConfigMap shape does not exist\n"


def test_a_folder_is_read_with_its_subfolders(arithmetic: Run, write: Write) -> None:
    write("fleet/b.yaml", chat("b"))
    write("fleet/a/a.json", json.dumps(chat("a")))
    folder = write("fleet/notes.txt", "not read").parent
    found = planned(arithmetic, folder, write("pools.yaml", POOLS))
    assert [document["metadata"]["name"] for document in found] == ["a", "b"]


def test_nodes_and_caps_are_columns_where_they_say_something(arithmetic: Run, write: Write) -> None:
    two = {"nodes": [{"product": "H200", "gpus": 1, "count": 4}]}
    slo = {"percentile": "P50", "itlMilliseconds": 1000}
    capped = chat(slo=slo, energy={"powerCap": {"mode": "Fixed", "wattsPerGPU": 500}})
    texts = [
        arithmetic("plan", "-f", write("a.yaml", spec), "--inventory", write("b.yaml", two)).stdout
        for spec in (chat(slo=slo), capped)
    ]
    headings = [next(line for line in text.splitlines() if "WHY NOT" in line).split("  ") for text in texts]
    assert ["NODES" in heading for heading in headings] == [True, True]
    assert ["CAP W" in heading for heading in headings] == [False, True]


def test_what_is_piped_in_is_read(arithmetic: Run, write: Write) -> None:
    arguments = ["plan", "-f", "-", "--inventory", str(write("pools.yaml", POOLS)), "-o", "json"]
    piped = CliRunner().invoke(cli, arguments, input=yaml.safe_dump(chat("piped")))
    assert json.loads(piped.stdout)["metadata"]["name"] == "piped"
    assert CliRunner().invoke(cli, arguments, input="").stderr == "Error: -: holds no object of kind LLMDeployment\n"


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([chat(), chat()], "object 2: LLMDeployment default/chat appears twice"),
        ([chat(), budget("cap", -1)], "object 2: spec.powerWatts: -1 must be at least 1"),
    ],
)
def test_bad_objects_are_named(documents: list[object], message: str, arithmetic: Run, write: Write) -> None:
    path = write("asked.yaml", documents)
    result = arithmetic("plan", "-f", path, "--inventory", write("pools.yaml", POOLS))
    assert result.exit_code == 2
    assert result.stderr == f"Error: {path}: {message}\n"


def test_one_cluster_is_read_and_not_two(arithmetic: Run, write: Write) -> None:
    result = arithmetic("plan", "-f", write("a.yaml", chat()), "--inventory", write("p.yaml", POOLS), "--cluster")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: --inventory describes the cluster")


def test_nodes_that_cannot_be_used_are_named_beside_the_plan(arithmetic: Run, write: Write) -> None:
    shared = copy.deepcopy(NODE)
    shared["metadata"] |= {"name": "sliced"}
    shared["metadata"]["labels"] |= {"nvidia.com/gpu.count": "1"}  # type: ignore[index]
    result = arithmetic(
        "plan", "-f", write("a.yaml", chat()), "--inventory", write("nodes.yaml", {"items": [NODE, shared]})
    )
    assert result.exit_code == 0
    assert result.stderr == "nodes with GPUs not usable: sliced: its GPUs are shared: 8 allocatable, 1 physical\n"
    alone = arithmetic("plan", "-f", write("a.yaml", chat()), "--inventory", write("nodes.yaml", {"items": [shared]}))
    assert (alone.exit_code, alone.stderr) == (3, "")
    assert "; not usable: sliced: its GPUs are shared: 8 allocatable, 1 physical" in alone.stdout


def test_objects_that_kubectl_did_not_print_are_bad_input(arithmetic: Run, write: Write) -> None:
    nodes = write("nodes.yaml", [{"kind": "Node", "metadata": {}}])
    result = arithmetic("plan", "-f", write("a.yaml", chat()), "--inventory", nodes)
    assert result.exit_code == 2
    assert result.stderr == f"Error: {nodes}: an object lacks the field 'name', which kubectl prints\n"


def test_yaml_and_json_are_the_same_document(arithmetic: Run, write: Write) -> None:
    asked, pools = write("asked.yaml", [chat("a"), chat("b")]), write("pools.yaml", POOLS)
    as_yaml = arithmetic("plan", "-f", asked, "--inventory", pools, "-o", "yaml")
    assert list(yaml.safe_load_all(as_yaml.stdout)) == planned(arithmetic, asked, pools)
