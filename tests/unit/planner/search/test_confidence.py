"""The confidence of a plan, in a grade and in words."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from tests.unit.predictor.models import layouts

from energylens.api.llmdeployment import Engine
from energylens.data import find_gpu, load_model, load_predictor
from energylens.planner.search.confidence import confidence_of
from energylens.predictor.fitted.evidence import Evidence
from energylens.predictor.fitted.features import ENGINE, LAYOUT, MODEL, NOTHING
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import FloatArray, GpuSpec, Layouts, Workload

KNOWN = Evidence(
    nearest=LAYOUT,
    products=("H100", "H200"),
    split=True,
    kind="mixture of experts in fp8",
    kind_known=True,
    kind_here=True,
    model_known=True,
    layouts=((4, 1, 1, 1),),
    loads=(4.0, 256.0),
    before=False,
    versions=("0.19.1", "0.25.1"),
)
MEASURED_IMAGE, DEFAULT_IMAGE = Engine(type="VLLM", image="vllm/vllm-openai:v0.24.0"), Engine(type="VLLM")


@dataclass
class Told:
    found: Evidence
    running: list[float] = field(default_factory=list)

    def evidence(
        self, model: ModelSpec, gpu: GpuSpec, layouts: Layouts, workload: Workload, running: FloatArray
    ) -> Evidence:
        self.running += running.tolist()
        return self.found


def layout(tensor: int = 4, pipeline: int = 1, data: int = 1, cap: float = np.nan) -> Layouts:
    return layouts((tensor, pipeline, 1, data), cap=cap)


def words(found: Evidence, engine: Engine = MEASURED_IMAGE, where: Layouts | None = None, gpu: str = "H100") -> str:
    model, load = load_model("Qwen/Qwen3-8B"), Workload(500, 200)
    told = Told(found)
    grade, reason = confidence_of(told, found.nearest, engine, model, find_gpu(gpu), where or layout(), load, 16.0)
    return f"{grade}: {reason}"


def test_a_measured_layout_under_a_measured_version_is_measured() -> None:
    assert words(KNOWN) == "Measured: this model was measured in this layout on H100 with vLLM 0.19.1 to 0.25.1"


def test_another_version_of_the_engine_is_at_best_interpolated() -> None:
    wanted = "Interpolated: vLLM 0.33.0 was not measured, 0.19.1 to 0.25.1 of the same engine was"
    assert words(KNOWN, DEFAULT_IMAGE) == wanted


@pytest.mark.parametrize("version", ["0.19.1", "0.25.1"])
def test_the_first_and_the_last_measured_version_are_measured(version: str) -> None:
    assert words(KNOWN, Engine(type="VLLM", image=f"vllm/vllm-openai:v{version}")).startswith("Measured: ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"nearest": MODEL, "loads": None},
            "not as TP8; vLLM 0.33.0 was not measured, 0.19.1 to 0.25.1 of the same engine was",
        ),
        (
            {"nearest": ENGINE, "model_known": False},
            "this model was not measured with vLLM 0.19.1 to 0.25.1; another mixture of experts in fp8 was on H100; "
            "vLLM 0.33.0 was not measured",
        ),
    ],
)
def test_measured_versions_are_named_once(changes: dict[str, Any], said: str) -> None:
    assert words(replace(KNOWN, **changes), DEFAULT_IMAGE, layout(8)).endswith(said)


@pytest.mark.parametrize(
    ("nearest", "tokens", "expected"),
    [
        (LAYOUT, 0, ("Measured", "")),
        (LAYOUT, 4096, ("Interpolated", "no run had steps of 4096 tokens")),
        (NOTHING, 4096, ("Extrapolated", "no run had steps of 4096 tokens")),
    ],
)
def test_a_predictor_without_evidence_has_a_grade(nearest: int, tokens: int, expected: tuple[str, str]) -> None:
    where = replace(layout(), max_batched_tokens=np.array([tokens]))
    model, gpu = load_model("Qwen/Qwen3-8B"), find_gpu("H100")
    assert confidence_of(object(), nearest, MEASURED_IMAGE, model, gpu, where, Workload(500, 200), 16.0) == expected


@pytest.mark.parametrize(("running", "expected"), [(16.0, 16.0), (0.2, 1.0)])
def test_evidence_is_of_the_running_sequences_at_least_one(running: float, expected: float) -> None:
    model, gpu, told = load_model("Qwen/Qwen3-8B"), find_gpu("H100"), Told(KNOWN)
    confidence_of(told, LAYOUT, MEASURED_IMAGE, model, gpu, layout(), Workload(500, 200), running)
    assert told.running == [expected]


@pytest.mark.parametrize(
    ("products", "said"),
    [
        (("A", "B", "C", "D"), "A, B, C, D were"),
        (("A", "B", "C", "D", "E", "F"), "A, B, C, D, 2 more were"),
        ((), "was not measured with vLLM 0.19.1 to 0.25.1"),
    ],
)
def test_at_most_four_measured_products_are_named(products: tuple[str, ...], said: str) -> None:
    assert words(replace(KNOWN, nearest=NOTHING, products=products), gpu="L40S").endswith(said)


@pytest.mark.parametrize(
    ("changes", "where", "said"),
    [
        (
            {"nearest": MODEL},
            layout(8),
            "Interpolated: this layout was measured with 4 to 256 sequences running at once, not",
        ),
        (
            {"nearest": MODEL, "loads": None},
            layout(8),
            "Interpolated: this model was measured on H100 as TP4, not as TP8",
        ),
        (
            {"nearest": MODEL, "loads": None},
            layout(),
            "Interpolated: this layout was measured only with other prompt and output lengths",
        ),
        (
            {"nearest": MODEL, "loads": None, "layouts": ()},
            layout(),
            "measured only on GPUs other than H100, or in another",
        ),
        (
            {"nearest": ENGINE, "model_known": False},
            layout(),
            "Interpolated: this model was not measured with vLLM 0.19.1 to 0.25.1; another mixture of experts in fp8",
        ),
        (
            {"nearest": ENGINE, "model_known": False, "kind_here": False},
            layout(),
            "not measured with vLLM 0.19.1 to 0.25.1; another mixture of experts in fp8 was on other GPUs",
        ),
        ({"nearest": ENGINE, "kind_here": False}, layout(), "but no mixture of experts in fp8 was on H100"),
        (
            {"nearest": ENGINE, "kind_known": False, "model_known": False, "before": True},
            layout(),
            "Interpolated: a mixture of experts in fp8 was measured with other versions of vLLM only",
        ),
        (
            {"nearest": NOTHING, "split": False},
            layout(pipeline=2),
            "Extrapolated: no replica was measured with pipeline stages",
        ),
        (
            {"nearest": NOTHING, "split": False},
            layout(data=2),
            "Extrapolated: no replica was measured with data-parallel ranks",
        ),
        (
            {"nearest": NOTHING, "split": False},
            layout(pipeline=2, data=2),
            "no replica was measured with pipeline stages and data-parallel ranks",
        ),
        ({"nearest": NOTHING, "split": False}, layout(), "no replica was measured with communication over a host link"),
        (
            {"nearest": NOTHING, "kind_known": False, "model_known": False},
            layout(),
            "Extrapolated: no mixture of experts in fp8 was measured with vLLM 0.19.1 to 0.25.1",
        ),
        ({"nearest": NOTHING}, layout(), "Extrapolated: no run had 16 sequences running at once"),
        ({}, layout(cap=400.0), "Extrapolated: no run had a power cap"),
    ],
)
def test_the_reason_says_what_was_measured_and_what_was_not(changes: dict[str, Any], where: Layouts, said: str) -> None:
    assert said in words(replace(KNOWN, **changes), where=where)


def test_a_gpu_that_nobody_measured_is_told_with_those_that_were() -> None:
    found = replace(KNOWN, nearest=NOTHING)
    assert words(found, gpu="L40S") == (
        "Extrapolated: L40S was not measured with vLLM 0.19.1 to 0.25.1, H100, H200 were"
    )


def test_the_shipped_predictor_tells_what_its_runs_were_of() -> None:
    predictor, model = load_predictor("vllm", "0.11.1"), load_model("Qwen/Qwen3-8B")
    found = predictor.evidence(model, find_gpu("H100"), layout(1), Workload(300, 500), np.array([16.0]))
    assert (found.nearest, found.kind_here, found.kind) == (LAYOUT, True, "dense model in bfloat16")
    assert (1, 1, 1, 1) in found.layouts
    assert found.versions == ("0.10.2", "0.11.1")
    assert found.loads is not None
    assert found.loads[0] <= 16.0 <= found.loads[1]
    far = predictor.evidence(model, find_gpu("L4"), layout(1), Workload(300, 500), np.array([16.0]))
    assert far.nearest == NOTHING
    assert "L4" not in far.products


def test_four_bit_weights_that_a_gpu_unpacks_are_like_nothing_that_was_measured_with_fp4_arithmetic() -> None:
    predictor, model = load_predictor("vllm"), load_model("nvidia/Qwen3-235B-A22B-NVFP4")
    load, where, running = Workload(1000, 1000), layout(8), np.array([16.0])
    hopper, blackwell = (predictor.evidence(model, find_gpu(name), where, load, running) for name in ("H200", "B200"))
    assert (hopper.nearest, hopper.kind_known) == (NOTHING, False)
    assert hopper.kind == "mixture of experts in nvfp4 with 16-bit activations"
    assert blackwell.nearest == ENGINE
