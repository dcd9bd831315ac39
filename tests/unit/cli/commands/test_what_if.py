"""`--what-if` of plan and explain: said to be a what-if in text, JSON and pages, and the plan beside it unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.cli.conftest import run

ROOT = Path(__file__).resolve().parents[4]
EXAMPLE, INVENTORY = ROOT / "examples" / "llama-3.1-70b.yaml", ROOT / "examples" / "inventory.yaml"


def ask(command: str, *more: object) -> str:
    result = run(command, "-f", EXAMPLE, "--inventory", INVENTORY, *more)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("command", ["plan", "explain"])
def test_the_answer_stands_below_what_the_command_says_without_it(command: str) -> None:
    plain, asked = ask(command), ask(command, "--what-if", "fp8, int4")
    assert asked.startswith(plain.rstrip("\n"))
    rest = asked[len(plain.rstrip("\n")) :]
    assert "What if the weights were in another format" in rest
    assert [line.split()[0] for line in rest.splitlines() if "meta-llama/Llama-3.1-70B-Instruct in" in line] == [
        "FP8",
        "INT4",
    ]
    assert "such as" in rest
    assert "spec.model.quantization=FP8" in rest
    assert "RedHatAI/Meta-Llama-3.1-70B-Instruct-quantized.w4a16" in rest


@pytest.mark.parametrize("command", ["plan", "explain"])
def test_programs_find_it_apart_from_the_plan(command: str) -> None:
    plain = json.loads(ask(command, "-o", "json"))
    asked = json.loads(ask(command, "-o", "json", "--what-if", "NVFP4,None"))
    assert "whatIf" not in plain
    nvfp4, own = asked.pop("whatIf")
    assert [one["whatIf"] for one in (nvfp4, own)] == [True, False]
    assert nvfp4["energyChangePercent"] < -10
    assert "H100 has no FP4 arithmetic: NVFP4 weights are unpacked to 16 bits" in nvfp4["kernels"]
    assert "energyChangePercent" not in own
    low, middle, high = (float(nvfp4["plan"][f"joulesPerOutputToken{end}"].rstrip("m")) for end in ("Low", "", "High"))
    assert low < middle < high
    if command == "plan":
        assert asked["spec"] == plain["spec"]
        assert asked["status"]["plan"] == plain["status"]["plan"]


def test_a_page_has_it_under_its_name(tmp_path: Path) -> None:
    ask("plan", "--what-if", "INT4", "--plot", tmp_path / "plan.html")
    text = (tmp_path / "plan.html").read_text()
    assert "<h3>What if</h3>" in text
    assert "What if the weights were in another format" in text


def test_all_formats_are_one_word_and_an_unknown_one_is_refused() -> None:
    rows = ask("explain", "--what-if", "all").splitlines()
    heading = next(i for i, line in enumerate(rows) if line.split()[:1] == ["FORMAT"])
    assert [row.split()[0] for row in rows[heading + 2 : heading + 8]] == [
        "None", "FP8", "INT8", "MXFP4", "NVFP4", "INT4",
    ]  # fmt: skip
    result = run("plan", "-f", EXAMPLE, "--inventory", INVENTORY, "--what-if", "FP7")
    assert result.exit_code == 2
    assert result.stderr.strip() == "Error: --what-if 'FP7': must be None, FP8, INT8, MXFP4, NVFP4, INT4 or all"


def test_a_format_that_is_refused_is_answered_beside_the_refusal(tmp_path: Path) -> None:
    asked = tmp_path / "asked.yaml"
    name = "  name: meta-llama/Llama-3.1-70B-Instruct\n"
    text = EXAMPLE.read_text()
    assert name.strip() in text
    asked.write_text(text.replace("  model:\n  " + name, "  model:\n  " + name + "    quantization: NVFP4\n"))
    result = run("plan", "-f", asked, "--inventory", INVENTORY, "--what-if", "NVFP4")
    assert result.exit_code == 3
    assert "no plan: ModelUnsupported" in result.stdout
    assert "cannot be created from meta-llama/Llama-3.1-70B-Instruct" in result.stdout
    rows = [line.split()[:2] for line in result.stdout.splitlines() if line.startswith(("  as stored", "  NVFP4  "))]
    assert rows[0] == ["as", "stored"]
    assert rows[1][0] == "NVFP4"
    assert 0 < float(rows[1][1]) < 10


def test_where_no_gpu_is_allowed_there_is_no_answer(tmp_path: Path) -> None:
    asked = tmp_path / "asked.yaml"
    asked.write_text(EXAMPLE.read_text().replace("maxGPUs: 8", "gpuProducts: [A100-SXM4-40GB]"))
    result = run("plan", "-f", asked, "--inventory", INVENTORY, "--what-if", "FP8")
    assert result.exit_code == 3
    assert "--what-if: there is no plan, see above" in result.stdout
