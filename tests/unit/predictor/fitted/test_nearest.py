"""How near to a candidate something was measured."""

from __future__ import annotations

import numpy as np
import pytest

from energylens.predictor.fitted.features import NEAREST, any_version, kind_known, nearest
from energylens.predictor.fitted.residual import RunFeatures

Row = tuple[str, str, str, str, str, float]
"""Architecture with engine, product, kind with engine, layout, split, sequences."""


def features(*rows: Row, load: str = "chat", lengths: str = "300/400") -> RunFeatures:
    architecture, product, kind, _, split, batch = (np.array(column) for column in zip(*rows, strict=True))
    keys = {
        "architecture": architecture,
        "product": np.char.add(np.char.add(product, "/several/"), kind),
        "layout": np.array(["/".join(row[:4]) for row in rows]),
        "load": np.array([f"{'/'.join(row[:4])}/{load}" for row in rows]),
        "parallel": split,
        "lengths": np.full(len(rows), lengths),
    }
    return RunFeatures(keys, np.log(batch.astype(np.float64)))


TRAINING = features(
    ("qwen@vllm>=0.14", "H100", "moe-fp8@vllm>=0.14", "tp4", "plain", 8.0),
    ("qwen@vllm>=0.14", "H100", "moe-fp8@vllm>=0.14", "tp4", "plain", 64.0),
    ("minimax@vllm>=0.14", "H200", "moe-fp8@vllm>=0.14", "tp8", "plain", 512.0),
    ("llama", "H100", "dense-bf16", "tp1", "plain", 1.0),
)


@pytest.mark.parametrize(
    ("candidate", "wanted"),
    [
        (("qwen@vllm>=0.14", "H100", "moe-fp8@vllm>=0.14", "tp4", "plain", 5.0), "layout"),
        (("qwen@vllm>=0.14", "H100", "moe-fp8@vllm>=0.14", "tp4", "plain", 300.0), "model"),
        (("qwen@vllm>=0.14", "H100", "moe-fp8@vllm>=0.14", "tp8", "plain", 8.0), "model"),
        (("qwen@vllm>=0.14", "H200", "moe-fp8@vllm>=0.14", "tp4", "plain", 8.0), "model"),
        (("qwen@vllm>=0.14", "H100", "moe-nvfp4@vllm>=0.14", "tp4", "plain", 8.0), "engine"),
        (("kimi@vllm>=0.14", "H100", "moe-fp8@vllm>=0.14", "tp8", "plain", 8.0), "engine"),
        (("llama@vllm>=0.14", "H100", "dense-bf16@vllm>=0.14", "tp1", "plain", 8.0), "engine"),
        (("phi@vllm>=0.14", "H200", "dense-bf16@vllm>=0.14", "tp1", "plain", 8.0), "engine"),
        (("llama@sglang>=0.4", "H100", "dense-bf16@sglang>=0.4", "tp1", "plain", 8.0), "nothing"),
        (("phi@vllm>=0.14", "H100", "dense-int4@vllm>=0.14", "tp1", "plain", 8.0), "nothing"),
        (("qwen@vllm>=0.14", "H100", "moe-fp8@vllm>=0.14", "tp4", "stages", 8.0), "nothing"),
        (("qwen@vllm>=0.14", "H100", "moe-fp8@vllm>=0.14", "tp4", "plain", 5000.0), "nothing"),
    ],
)
def test_the_nearest_that_was_measured_is_found(candidate: Row, wanted: str) -> None:
    assert NEAREST[nearest(TRAINING, features(candidate))[0]] == wanted


def test_other_prompts_in_a_known_layout_are_only_near_to_the_model() -> None:
    candidate: Row = ("qwen@vllm>=0.14", "H100", "moe-fp8@vllm>=0.14", "tp4", "plain", 8.0)
    assert NEAREST[nearest(TRAINING, features(candidate, load="longest-prompt"))[0]] == "model"


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [
        ("600/400", "layout"),
        ("601/400", "model"),
        ("150/200", "layout"),
        ("149/400", "model"),
        ("300/800", "layout"),
        ("300/801", "model"),
    ],
)
def test_prompts_and_outputs_of_twice_the_length_are_similar_and_longer_ones_are_not(lengths: str, wanted: str) -> None:
    candidate: Row = ("qwen@vllm>=0.14", "H100", "moe-fp8@vllm>=0.14", "tp4", "plain", 8.0)
    assert NEAREST[nearest(TRAINING, features(candidate, lengths=lengths))[0]] == wanted


def test_only_runs_with_similar_lengths_show_which_loads_are_known() -> None:
    row = TRAINING.take(np.array([0, 1]))
    lengths = RunFeatures({**row.keys, "lengths": np.array(["300/400", "20/400"])}, row.log_batch)
    candidates = features(
        ("qwen@vllm>=0.14", "H100", "moe-fp8@vllm>=0.14", "tp4", "plain", 10.0),
        ("qwen@vllm>=0.14", "H100", "moe-fp8@vllm>=0.14", "tp4", "plain", 64.0),
    )
    assert [NEAREST[code] for code in nearest(lengths, candidates)] == ["layout", "model"]


def test_what_one_candidate_is_near_to_does_not_depend_on_others() -> None:
    rows: list[Row] = [
        ("qwen@vllm>=0.14", "H100", "moe-fp8@vllm>=0.14", layout, "plain", batch)
        for layout in ("tp4", "tp8")
        for batch in (2.0, 8.0, 64.0, 500.0)
    ]
    together = nearest(TRAINING, features(*rows))
    assert together.tolist() == [int(nearest(TRAINING, features(row))[0]) for row in rows]


def test_versions_of_one_engine_are_alike_and_ranks_are_not() -> None:
    alike = [
        any_version(label)
        for label in ("dense-bf16", "dense-bf16@vllm>=0.14", "dense-bf16@sglang>=0.4", "dense-bf16/ranks")
    ]
    assert alike[0] == alike[1]
    assert len(set(alike)) == 3
    assert any_version("moe-fp8@vllm>=0.14/ranks") == any_version("moe-fp8/ranks")


def test_kinds_leave_the_product_out() -> None:
    rows: list[Row] = [
        ("other", "B200", kind, "tp1", "plain", 8.0) for kind in ("moe-fp8@vllm>=0.14", "dense-bf16", "moe-bf16")
    ]
    assert kind_known(TRAINING, features(*rows)).tolist() == [True, True, False]


def test_selected_runs_are_those_that_they_were() -> None:
    some = TRAINING.take(np.array([3, 0, 3])).take(np.array([False, True, True]))
    for key, labels in TRAINING.keys.items():
        assert some.each(some.keys[key]).tolist() == labels[[0, 3]].tolist()
    assert some.log_batch.tolist() == TRAINING.log_batch[[0, 3]].tolist()
    assert nearest(TRAINING, some).tolist() == nearest(TRAINING, TRAINING)[[0, 3]].tolist()
