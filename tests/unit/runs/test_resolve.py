from __future__ import annotations

from dataclasses import replace

from tests.unit.runs.test_table import GOOD, csv_of

from energylens.predictor.model.architecture import Quantization
from energylens.runs import Run, parse_runs, resolver, weight_precision


def run(**changed: object) -> Run:
    (read,) = parse_runs(csv_of(GOOD), "in.csv", measured=False).runs
    return replace(read, **changed)  # type: ignore[arg-type]


def test_catalogue_and_gpu_names_are_found() -> None:
    found = resolver()(run())
    assert found.error == ""
    assert found.model is not None
    assert found.gpu is not None
    assert (found.model.hidden, found.gpu.name) == (4096, "H100")


def test_unknown_names_are_errors_that_show_the_way() -> None:
    resolve = resolver()
    assert (
        "model_id='Qwen/Qwen3-9B' is not in the catalogue; nearest known: Qwen/Qwen3-8B"
        in resolve(run(model_id="Qwen/Qwen3-9B")).error
    )
    assert "'H1000'" in resolve(run(gpu_model="H1000")).error
    assert "MIG slice" in resolve(run(gpu_model="NVIDIA-H100-80GB-HBM3-MIG-1g.10gb")).error


def test_a_precision_that_differs_from_the_checkpoint_is_made_while_loading_or_that_of_the_usual_release() -> None:
    resolve = resolver()
    online = resolve(run(weight_precision="fp8")).model
    assert online is not None
    assert weight_precision(online) == "fp8"
    assert online.ffn_quant == Quantization("fp8", "fp8", "per_tensor")
    four_bit = resolve(run(weight_precision="nvfp4")).model
    assert four_bit is not None
    assert four_bit.ffn_quant == Quantization("nvfp4", "nvfp4", "group")
    assert four_bit.attention_quant == Quantization()
    published = resolve(run(model_id="openai/gpt-oss-120b", weight_precision="mxfp4")).model
    assert published is not None
    assert weight_precision(published) == "mxfp4"


def test_given_models_come_before_the_catalogue() -> None:
    known = resolver()(run()).model
    assert known is not None
    own = replace(known, hidden=128)
    assert resolver({"qwen/qwen3-8b": own})(run()).model is own
