"""`energylens audit` on a cluster in a file: what is printed, written, refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from tests.support.audit_cluster import Served, matrix, node, pod

from energylens.api.parse import parse_llmdeployment
from energylens.cli.main import cli

IMAGE = "vllm/vllm-openai:v0.24.0"
CHAT = pod("chat-5d9f-a", {"image": IMAGE, "args": ["--model=Qwen/Qwen3-8B", "-tp", "8"]}, gpus=8)
IDLE = pod(
    "old-7c-a", {"image": IMAGE, "args": ["--model=Qwen/Qwen3-8B"]}, host="node-1", owner=("ReplicaSet", "old-7c")
)
IDLE["metadata"]["labels"]["pod-template-hash"] = "7c"
JOB = pod("train", {"image": "train:1", "command": ["train"]}, host="node-1", owner=("Job", "train"), namespace="other")
LOADS = (
    Served("chat-5d9f-a", gpus=8, watts_per_gpu=150.0),
    Served("old-7c-a", requests_per_second=0.0, watts_per_gpu=120.0),
)


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps({"kind": "List", "items": [node("node-0"), node("node-1"), CHAT, IDLE, JOB]}))
    return path


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(matrix(LOADS)))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["audit", *map(str, arguments)])


def objects(answer: Result) -> dict[str, Any]:
    """Return the answers of ``-o json`` by name."""
    assert answer.exit_code == 0, answer.stderr
    found = json.loads(answer.stdout)
    return {each["name"]: each for each in (found["items"] if found.get("kind") == "List" else [found])}


def test_the_table_has_what_runs_and_what_saves(inventory: Path, metrics: Path) -> None:
    answer = run("--inventory", inventory, "--metrics", metrics, "--price", "0.2", "--pue", "1.5", "--grid", "400")
    assert answer.exit_code == 0, answer.stderr
    rows = {line.split()[0]: line for line in answer.stdout.splitlines() if line.startswith("  team/")}
    assert "8 " in rows["team/chat"]
    assert "1 x NVIDIA-H100-80GB-HBM3 TP8" in rows["team/chat"]
    assert "1 req/s of 800 + 300 tokens" in rows["team/chat"]
    # 1200 W for 730 hours at a PUE of 1.5, at 0.2 a kWh.
    assert "1,314" in rows["team/chat"]
    assert "263" in rows["team/chat"]
    assert rows["team/old"].rstrip().endswith("idle")
    assert "2 served models on 9 GPUs: 1,320 W, 1,445 kWh, 289 in money, 578 kg CO2e a month" in answer.stdout
    assert "1 GPU in pods that could not be read" in answer.stdout
    assert "other/train (Job)" in answer.stdout
    assert "idle: 1 model on 1 GPU, 120 W" in answer.stdout
    assert "the switch takes about" in answer.stdout
    assert "energy of the GPUs times a PUE of 1.5, without their hosts" in answer.stdout


def test_programs_get_every_figure(inventory: Path, metrics: Path) -> None:
    found = objects(run("--inventory", inventory, "--metrics", metrics, "--price", "0.2", "-o", "json"))
    chat = found["chat"]
    assert (chat["verdict"], chat["kind"], chat["gpus"], chat["replicas"]) == ("Saves", "Deployment", 8, 1)
    assert chat["now"]["watts"] == pytest.approx(1200)
    assert chat["now"]["measured"] is True
    assert chat["now"]["joulesPerOutputToken"] == pytest.approx(1200 / chat["load"]["outputTokensPerSecond"])
    assert chat["now"]["perMonth"]["money"] == pytest.approx(1.2 * 730 * 0.2)
    saved = chat["savedPercent"]
    assert saved["low"] < saved["expected"] < saved["high"]
    assert chat["then"]["wattsLow"] < chat["then"]["watts"] < chat["then"]["wattsHigh"]
    assert (found["old"]["verdict"], found["train"]["verdict"]) == ("Idle", "Unread")
    assert "savedPercent" not in found["old"]


@pytest.fixture
def metered(tmp_path: Path) -> Path:
    """Return counters with a meter of node-0, whose eight GPUs draw 1,200 W, and one that names no node."""
    answer = matrix(LOADS)
    times = [time for time, _ in answer["data"]["result"][0]["values"]]
    for name, watts in (("node-0", 3200), ("bmc-7", 900)):
        labels = {"__name__": "kepler_platform_watts", "node_name": name, "chassis_id": "1"}
        answer["data"]["result"].append({"metric": labels, "values": [[time, str(watts)] for time in times]})
    path = tmp_path / "metered.json"
    path.write_text(json.dumps(answer))
    return path


def test_hosts_are_measured_apart_from_gpus(inventory: Path, metrics: Path, metered: Path, tmp_path: Path) -> None:
    page = tmp_path / "audit.html"
    answer = run("--inventory", inventory, "--metrics", metered, "--price", "0.2", "--report", page)
    assert answer.exit_code == 0, answer.stderr
    text = answer.stdout
    assert "  host        node-0: 3,200 W at the meter (Kepler, by Redfish), of which its 8 GPUs drew 1,200 W" in text
    assert "  host        node-1: not measured: no meter names this node" in text
    # 2000 W for 730 hours, at 0.2 a kWh.
    assert (
        "  hosts       2,000 W more as measured of 1 of 2 hosts, 250 W for each of 8 GPUs: 1,460 kWh, 292 in money"
    ) in text
    assert "  not read: kepler_platform_watts names no node of the cluster in bmc-7" in text
    for expected in ("3,200 W at the meter", "2,000 W more as measured", "in bmc-7"):
        assert expected in page.read_text()
    plain = run("--inventory", inventory, "--metrics", metrics, "--price", "0.2").stdout
    total = "2 served models on 9 GPUs: 1,320 W, 964 kWh, 193 in money a month"
    assert total in plain
    assert total in text, "the GPUs' figures do not change by a meter"
    (host,) = objects(run("--inventory", inventory, "--metrics", metered, "-o", "json"))["chat"]["hosts"]
    assert host == {
        "node": "node-0",
        "gpus": 8,
        "meter": "kepler_platform_watts",
        "meterWatts": 3200.0,
        "gpuWatts": pytest.approx(1200.0),
        "hostWatts": pytest.approx(2000.0),
    }


def test_a_namespace_is_picked_and_the_others_hold_their_gpus(inventory: Path, metrics: Path) -> None:
    found = objects(run("--inventory", inventory, "--metrics", metrics, "-n", "team", "-o", "json"))
    assert set(found) == {"chat", "old"}


def test_what_is_written_can_be_applied(inventory: Path, metrics: Path, tmp_path: Path) -> None:
    folder, page = tmp_path / "new" / "plans", tmp_path / "audit.html"
    answer = run("--inventory", inventory, "--metrics", metrics, "--write", folder, "--report", page)
    assert answer.exit_code == 0, answer.stderr
    (written,) = folder.iterdir()
    assert written.name == "team-chat.yaml"
    deployment = parse_llmdeployment(yaml.safe_load(written.read_text()), strict=True)
    assert deployment.spec.model.name == "Qwen/Qwen3-8B"
    plan = CliRunner().invoke(cli, ["plan", "-f", str(written), "--inventory", str(inventory)])
    assert plan.exit_code == 0, plan.output
    text = page.read_text()
    for expected in ("EnergyLens audit", "team/chat", "GPUs under idle models", "1.3 kW", "<svg", "mean power now"):
        assert expected in text


def test_without_metrics_only_layouts_are_shown(inventory: Path, tmp_path: Path) -> None:
    page = tmp_path / "audit.html"
    answer = run("--inventory", inventory, "--report", page)
    assert answer.exit_code == 0, answer.stderr
    for expected in ("mean power now: not known", "no plan was compared"):
        assert expected in page.read_text()
    assert "0 kWh" not in page.read_text()
    assert "no metrics were read: give --prometheus, or files" in answer.stdout
    assert "load not known" in answer.stdout
    assert "0 W" not in answer.stdout
    assert "no power is known" in answer.stdout


def test_a_model_behind_a_path_is_named_by_a_person(metrics: Path, tmp_path: Path) -> None:
    hidden = pod("chat-5d9f-a", {"image": IMAGE, "args": ["--model=/mnt/models", "-tp", "8"]}, gpus=8)
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump_all([node("node-0"), node("node-1"), hidden]))
    assert objects(run("--inventory", path, "--metrics", metrics, "-o", "json"))["chat"]["verdict"] == "NotPlanned"
    named = run("--inventory", path, "--metrics", metrics, "-o", "json", "--model", "team/chat=Qwen/Qwen3-8B")
    assert objects(named)["chat"]["verdict"] == "Saves"


BAD: dict[str, tuple[list[str], str]] = {
    "model without an id": (["--model", "chat"], "--model=chat: must be NAME=ID"),
    "model of nothing": (
        ["--model", "nobody=a/b"],
        "--model=nobody: no such name; served here: other/train, team/chat",
    ),
    "two sources": (["--metrics", "{metrics}", "--prometheus", "http://127.0.0.1:1"], "give only one"),
    "two clusters": (["--kubeconfig", "x"], "--inventory describes the cluster"),
    "no server": (["--prometheus", "http://127.0.0.1:1"], "--prometheus=http://127.0.0.1:1: "),
    "no answer": (["--metrics", "{inventory}"], "is not an answer of Prometheus"),
    "no JSON": (["--metrics", "{text}"], "not JSON"),
    "a list": (["--metrics", "{list}"], "is not an answer of Prometheus, which is an object"),
    "no file": (["--metrics", "gone.json"], "No such file"),
    "a file for a folder": (["--write", "{text}"], "is not a folder"),
    "a picture": (["--report", "audit.png"], "--report"),
    "a price below zero": (["--price", "-1"], "--price"),
    "a PUE below 1": (["--pue", "0.9"], "--pue"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_code_2(name: str, inventory: Path, metrics: Path, tmp_path: Path) -> None:
    arguments, reason = BAD[name]
    (tmp_path / "text").write_text("hello")
    (tmp_path / "list").write_text("[]")
    files = {"metrics": metrics, "inventory": inventory, "text": tmp_path / "text", "list": tmp_path / "list"}
    answer = run("--inventory", inventory, *(each.format(**files) for each in arguments))
    assert answer.exit_code == 2
    assert reason in answer.stderr
    assert "Traceback" not in answer.output


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "holds no Pod"),
        ([node("a")], "holds no Pod"),
        ([{"kind": "Pod", "spec": {}}], "a Pod has no metadata.name"),
        ([CHAT | {"spec": {"containers": ["engine"]}}], "an object is not as kubectl prints it"),
        ([CHAT | {"metadata": {"name": "a", "ownerReferences": [{"controller": True}]}}], "lacks the field 'name'"),
    ],
)
def test_a_file_without_pods_is_refused(content: Sequence[Any], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps({"items": content}))
    answer = run("--inventory", path)
    assert (answer.exit_code, reason in answer.stderr) == (2, True)
