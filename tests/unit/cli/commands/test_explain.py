"""`energylens explain`: whole outputs on fixed figures, and the shipped figures' structure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tests.unit.cli.conftest import POOLS, Run, Write, chat, compare, run

from energylens.api.llmdeployment.plan import describe_layout
from energylens.api.quantity import parse_quantity
from energylens.cli.commands.explain import parse_choice

ROOT = Path(__file__).resolve().parents[4]
EXAMPLE, INVENTORY = ROOT / "examples" / "llama-3.1-70b.yaml", ROOT / "examples" / "inventory.yaml"
TIGHT = {"percentile": "P50", "ttftMilliseconds": 2000, "itlMilliseconds": 15}


@pytest.mark.parametrize(
    "sizes",
    [
        {"tensor": 4, "pipeline": 1, "expert": 1, "data": 1},
        {"tensor": 8, "pipeline": 2, "expert": 1, "data": 1},
        {"tensor": 1, "pipeline": 1, "expert": 8, "data": 8},
    ],
)
def test_a_layout_is_taken_as_plans_print_it(sizes: dict[str, int]) -> None:
    keys = {"tensor": "tp", "pipeline": "pp", "expert": "ep", "data": "dp"}
    written = ",".join(f"{keys[name]}={size}" for name, size in sizes.items() if size > 1 or name == "tensor")
    assert parse_choice(f"{describe_layout(**sizes)}, gpu=H100") == parse_choice(f"{written},gpu=H100")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("explain", None),
        ("explain-chosen", "tp=4"),
        ("explain-loses", "tp=8"),
        ("explain-removed", "gpu=l40s"),
        ("explain-cap", "cap=500,gpu=H200"),
        ("explain-impossible", "tp=3"),
    ],
)
@pytest.mark.parametrize("output", ["table", "json"])
def test_outputs(name: str, why: str | None, output: str, arithmetic: Run, write: Write) -> None:
    asked, pools = write("asked.yaml", chat(slo=TIGHT)), write("pools.yaml", POOLS)
    question = [] if why is None else ["--why", why]
    result = arithmetic("explain", "-f", asked, "--inventory", pools, *question, "-o", output)
    assert result.exit_code == 0, result.output
    compare(f"{name}.{'txt' if output == 'table' else output}", result.stdout)


def test_without_a_plan_the_reason_is_said_and_a_question_still_answered(arithmetic: Run, write: Write) -> None:
    asked = write("asked.yaml", chat(slo={"percentile": "P50", "itlMilliseconds": 3}))
    pools = write("pools.yaml", POOLS)
    plain = arithmetic("explain", "-f", asked, "--inventory", pools)
    assert plain.exit_code == 3
    assert "no plan: SLOInfeasible" in plain.stdout
    why = arithmetic("explain", "-f", asked, "--inventory", pools, "--why", "tp=8")
    assert why.exit_code == 3
    assert "removed: ITL P50 above 3 ms" in why.stdout
    assert "spec.slo.itlMilliseconds=9 instead of 3" in why.stdout


@pytest.mark.parametrize("output", ["table", "json"])
def test_a_cluster_without_gpus_has_nothing_to_explain(output: str, arithmetic: Run, write: Write) -> None:
    asked = write("asked.yaml", chat(hardware={"gpuProducts": ["B200"]}))
    result = arithmetic("explain", "-f", asked, "--inventory", write("pools.yaml", POOLS), "-o", output)
    assert result.exit_code == 3
    assert "NoMatchingGPUs" in result.stdout


KEYS = "tp, pp, ep, dp, replicas, batch, tokens, gpu, cap"


@pytest.mark.parametrize(
    ("why", "message"),
    [
        ("tp", f"--why 'tp': must be KEY=VALUE with KEY one of {KEYS}, or a layout such as TP8-PP2"),
        ("tensor=4", f"--why 'tensor=4': must be KEY=VALUE with KEY one of {KEYS}, or a layout such as TP8-PP2"),
        ("TP4-XP2", f"--why 'TP4-XP2': must be KEY=VALUE with KEY one of {KEYS}, or a layout such as TP8-PP2"),
        ("TP4,tp=4", "--why: tp appears twice"),
        ("TP4-PP0", "--why pp=0: must be a whole number of at least 1"),
        ("tp=4,tp=8", "--why: tp appears twice"),
        ("tp=0", "--why tp=0: must be a whole number of at least 1"),
        ("cap=max", "--why cap=max: must be a whole number of at least 1"),
    ],
)
def test_a_bad_question_is_one_line(why: str, message: str) -> None:
    result = run("explain", "-f", EXAMPLE, "--inventory", INVENTORY, "--why", why)
    assert result.exit_code == 2
    assert result.stderr == f"Error: {message}\n"


def test_an_unknown_gpu_is_told_the_known_ones() -> None:
    result = run("explain", "-f", EXAMPLE, "--inventory", INVENTORY, "--why", "gpu=V9000")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: --why gpu=V9000: GPU product 'V9000' is not known")
    assert result.stderr.count("\n") == 1


def test_the_shipped_figures_add_up() -> None:
    result = run("explain", "-f", EXAMPLE, "--inventory", INVENTORY, "-o", "json", "--why", "gpu=H100")
    document = json.loads(result.stdout)
    assert document["verdict"] in ("Loses", "Removed", "Chosen")
    for side in ("plan", "asked"):
        parts = document[side]["energyParts"]
        whole = float(parse_quantity(document[side]["joulesPerOutputToken"]))
        assert float(sum(map(parse_quantity, parts.values()))) == pytest.approx(whole, abs=0.005)


def test_yaml_is_the_same_as_json(arithmetic: Run, write: Write) -> None:
    asked, pools = write("asked.yaml", chat()), write("pools.yaml", POOLS)
    found = [arithmetic("explain", "-f", asked, "--inventory", pools, "-o", o).stdout for o in ("json", "yaml")]
    assert json.loads(found[0]) == yaml.safe_load(found[1])
