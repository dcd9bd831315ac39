"""Plans in formats that a checkpoint lacks: what they save, what they need, what GPUs lack for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.planner.conftest import H100, L40S

from energylens.data import find_gpu, load_gpus, load_model, load_predictor
from energylens.planner.explain.whatif import ALL_FORMATS, stored_formats, what_ifs
from energylens.planner.planning import problem_for
from energylens.planner.search.problem import Problem, solve
from energylens.planner.types import ClusterSnapshot, GpuNode
from energylens.predictor.model.requantize import UnsupportedQuantizationError, with_quantization

B200 = find_gpu("B200").product
LLAMA, QWEN_FP8 = "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-30B-A3B-FP8"


def problem(make_deployment: Any, name: str, product: str, **parts: Any) -> Problem:
    snapshot = ClusterSnapshot((GpuNode("a", product, 4),))
    deployment = make_deployment(**({"slo": {"itlMilliseconds": 100}} | parts))
    return problem_for(deployment, load_model(name), snapshot, load_gpus(), load_predictor("vllm"), None, None)


def test_fewer_bits_take_less_energy_and_the_plan_stays_what_it_is(make_deployment: Any) -> None:
    quiet = {"inputTokens": 100, "outputTokens": 400, "requestsPerSecond": "500m"}
    asked, model = problem(make_deployment, LLAMA, H100, workload=quiet), load_model(LLAMA)
    planned = solve(asked)
    found = {one.format: one for one in what_ifs(asked, model, ALL_FORMATS)}
    assert list(found) == list(ALL_FORMATS)
    energy = {
        name: float(one.solution.rows.joules_per_output_token[one.solution.chosen])
        for name, one in found.items()
        if one.solution.chosen is not None
    }
    assert planned.chosen is not None
    assert energy["None"] == float(planned.rows.joules_per_output_token[planned.chosen])
    assert max(energy["INT4"], energy["FP8"]) < energy["None"]
    assert {one.refused for one in found.values() if one.solution.chosen is not None} == {""}
    assert [name for name, one in found.items() if one.is_stored] == ["None"]
    assert [name for name, one in found.items() if one.converts] == ["FP8"]
    # What the operator plans is refused as before.
    with pytest.raises(UnsupportedQuantizationError):
        with_quantization(model, "NVFP4")


def test_a_checkpoint_in_a_format_is_planned_as_it_is(make_deployment: Any) -> None:
    asked, model = problem(make_deployment, QWEN_FP8, H100), load_model(QWEN_FP8)
    assert stored_formats(model) == {"FP8"}
    (same,) = what_ifs(asked, model, ["FP8"])
    planned = solve(asked)
    assert same.is_stored
    assert not same.converts
    assert same.solution.rows.joules_per_output_token.tolist() == pytest.approx(
        planned.rows.joules_per_output_token.tolist(), nan_ok=True
    )


@pytest.mark.parametrize(
    ("product", "wanted", "text"),
    [
        (H100, "NVFP4", "H100 has no FP4 arithmetic: NVFP4 weights are unpacked to 16 bits"),
        (B200, "INT8", "no INT8 kernels for Blackwell"),
        (find_gpu("A100-SXM4-80GB").product, "FP8", "has no FP8 arithmetic: FP8 weights are unpacked to 16 bits"),
        (B200, "NVFP4", ""),
        (L40S, "FP8", ""),
    ],
)
def test_what_the_gpus_lack_is_said(product: str, wanted: str, text: str, make_deployment: Any) -> None:
    asked = problem(make_deployment, LLAMA, product)
    (one,) = what_ifs(asked, load_model(LLAMA), [wanted])
    assert (text in "; ".join(one.kernels)) if text else (one.kernels == ())
    assert (one.solution.chosen is None) == (text.startswith("no INT8"))
    if one.solution.chosen is None:
        assert "no INT8 kernels" in one.refused


def test_an_objective_that_none_holds_says_so(make_deployment: Any) -> None:
    asked = problem(make_deployment, LLAMA, H100, slo={"itlMilliseconds": 1})
    (one,) = what_ifs(asked, load_model(LLAMA), ["FP8"])
    assert one.solution.chosen is None
    assert "ITL P95 above 1 ms" in one.refused


def test_a_release_that_says_its_format_in_another_way_is_not_refused_for_the_checkpoints(make_deployment: Any) -> None:
    """SGLang does not know fbgemm_fp8 of one checkpoint; another release of it need not have it."""
    model = replace(with_quantization(load_model(LLAMA), "FP8"), quant_method="fbgemm_fp8")
    asked = problem(make_deployment, LLAMA, H100, engine={"type": "SGLang"})
    (one,) = what_ifs(asked, model, ["INT4"])
    assert one.solution.chosen is not None


def test_a_format_that_nobody_knows_is_refused(make_deployment: Any) -> None:
    with pytest.raises(UnsupportedQuantizationError, match="FP7"):
        what_ifs(problem(make_deployment, LLAMA, H100), load_model(LLAMA), ["FP7"])
