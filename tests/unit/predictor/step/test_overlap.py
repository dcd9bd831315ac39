"""Collectives beside kernels: what a share of the SMs costs and saves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.predictor.models import layouts

from energylens.data import find_gpu, load_model, load_predictor
from energylens.predictor import Predictor
from energylens.predictor.step.latency import FULL_LINK_SHARE, Overlap, overlapped
from energylens.predictor.types import Workload

shares = st.floats(0.01, 0.9)
seconds = st.floats(1e-6, 1e-1)


def time(kernels: float, collectives: float, compute: float, overlap: Overlap) -> float:
    one = np.ones(1)
    return float(overlapped(kernels * one, collectives * one, compute * one, overlap)[0])


@given(seconds, seconds, st.floats(0, 1), shares)
def test_one_stage_overlaps_nothing(kernels: float, collectives: float, compute: float, share: float) -> None:
    assert time(kernels, collectives, compute, Overlap(1, share)) == pytest.approx(kernels + collectives)


@given(seconds, seconds, st.floats(0, 1), shares, st.integers(1, 16))
def test_never_faster_than_the_slower_of_the_two(
    kernels: float, collectives: float, compute: float, share: float, stages: int
) -> None:
    assert time(kernels, collectives, compute, Overlap(stages, share)) >= max(kernels, collectives) * (1 - 1e-12)


def test_balanced_work_is_hidden_and_more_stages_hide_more() -> None:
    found = [time(1.0, 1.0, 0.0, Overlap(stages, FULL_LINK_SHARE)) for stages in (1, 2, 4, 1000)]
    assert found == pytest.approx([2.0, 1.5, 1.25, 1.001])


def test_too_few_sms_starve_the_link_and_too_many_the_arithmetic() -> None:
    few, right, many = (time(1.0, 0.8, 1.0, Overlap(4, share)) for share in (0.02, FULL_LINK_SHARE, 0.7))
    assert right < few
    assert right < many
    # Memory-bound kernels do not miss the SMs.
    assert time(1.0, 0.8, 0.0, Overlap(4, 0.7)) < many


def test_without_collectives_nothing_changes() -> None:
    assert time(1.0, 0.0, 1.0, Overlap(4, 0.5)) == 1.0


@pytest.mark.parametrize(
    ("stages", "share", "text"),
    [
        (0, 0.1, "stages must be at least 1, not 0"),
        (4, 0.0, "sm_share must be between 0 and 1, not 0"),
        (4, 1.0, "sm_share must be between 0 and 1, not 1"),
    ],
)
def test_an_impossible_overlap_is_named(stages: int, share: float, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Overlap(stages, share)


def test_a_profile_that_overlaps_is_faster_with_several_gpus_and_the_same_with_one() -> None:
    plain = load_predictor("vllm", "0.11.1")
    staged = Predictor(plain.coefficients, replace(plain.profile, overlap=Overlap(4, FULL_LINK_SHARE)))
    model, gpu, where = (
        load_model("meta-llama/Llama-3.1-8B-Instruct"),
        find_gpu("H200"),
        layouts((1, 1, 1, 1), (8, 1, 1, 1)),
    )
    load = Workload(4000, 10)
    apart, beside = (p.at_concurrency(model, gpu, where, load, np.array([8.0, 8.0])) for p in (plain, staged))
    assert beside.mean_step_ms[0] == apart.mean_step_ms[0]
    assert beside.mean_step_ms[1] < apart.mean_step_ms[1]
    assert beside.joules_per_output_token[1] < apart.joules_per_output_token[1]
    assert beside.power_watts[1] > apart.power_watts[1]
