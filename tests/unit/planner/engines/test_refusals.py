"""Messages of refused layouts: each layout has its own reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.planner.engines.test_rules import H100, SHORT, engine, layout, mamba, refusal
from tests.unit.predictor.models import layouts

from energylens.data import load_model
from energylens.planner.engines import refusals
from energylens.planner.engines.caveats import caveats

QWEN = load_model("Qwen/Qwen3-8B")


def test_each_size_that_cannot_share_the_groups_is_named_with_its_own_layout() -> None:
    sizes = (1, 2, 3, 4, 8)
    found = refusals(
        mamba(4), H100, layouts(*((tp, 1, 1, 1) for tp in sizes), batch=16), np.ones(5, dtype=np.int64), SHORT, engine()
    )
    for tp, text in zip(sizes, found, strict=True):
        assert (f"by tensor parallel ({tp})" in text) if 4 % tp else text == ""


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((), "spec.planning.overrides.maxBatchedTokens"),
        (("--max-num-batched-tokens=64",), "--max-num-batched-tokens in spec.engine.extraArgs"),
    ],
)
def test_a_batch_above_a_step_names_the_field_that_sets_the_step(arguments: tuple[str, ...], field: str) -> None:
    small = replace(layout(batch=65), max_batched_tokens=np.asarray([64]))
    text = refusal(QWEN, small, engine("VLLM", *arguments))
    assert text == f"max batch 65 is more than the 64 tokens of a step on H100; raise {field}"
    assert (
        refusal(QWEN, replace(layout(batch=64), max_batched_tokens=np.asarray([64])), engine("VLLM", *arguments)) == ""
    )


@pytest.mark.parametrize(("tokens", "refused"), [(1, True), (4095, True), (4096, False), (0, False)])
def test_a_step_without_chunks_holds_the_context(tokens: int, refused: bool) -> None:
    """No tokens stand for the engine's default."""
    settings = engine("VLLM", "--no-enable-chunked-prefill", "--max-model-len=4096")
    text = refusal(QWEN, replace(layout(batch=1), max_batched_tokens=np.asarray([tokens])), settings)
    assert ("a step must hold the 4096 tokens of the context" in text) is refused
    assert bool(text) is refused


def test_a_switch_that_is_off_as_usual_hides_no_other_option() -> None:
    (said,) = caveats(engine("VLLM", "--no-enforce-eager", "--performance-mode=throughput"), QWEN, H100)
    assert "--performance-mode=throughput (" in said
    assert "enforce-eager" not in said
