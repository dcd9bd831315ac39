"""Data-parallel ranks that exchange the tokens of experts step together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from energylens.data import load_gpus, load_model
from energylens.data.predictor import load_coefficients, load_profiles
from energylens.predictor import Predictor
from energylens.predictor.fitted.profiles import select_profile
from energylens.predictor.load.steady import phase_work
from energylens.predictor.model.architecture import Quantization
from energylens.predictor.model.einsum import Collective
from energylens.predictor.step.lockstep import APART, Lockstep
from energylens.predictor.types import Layouts, Workload

MODEL = load_model("Qwen/Qwen3-30B-A3B")
GPU = next(gpu for gpu in load_gpus().values() if gpu.name == "H200")
COEFFICIENTS = load_coefficients()
LONG = Workload(8000, 1000)


def layouts(tensor: int, experts: int, ranks: int) -> Layouts:
    def one(value: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array([value])

    return Layouts(one(tensor), one(1), one(experts), one(ranks), one(256), np.array([np.nan]))


def test_a_prompt_on_one_rank_is_computed_by_the_experts_once() -> None:
    ranks, few = layouts(1, 8, 8), np.array([8.0])
    _, mixed, _ = phase_work(MODEL, GPU, ranks, LONG, few, COEFFICIENTS)
    _, whole, _ = phase_work(MODEL, GPU, layouts(8, 8, 1), LONG, few, COEFFICIENTS)
    experts = mixed.labels.index("experts")
    # The eight GPUs share the routed tokens of one prompt, however attention is split.
    assert mixed.flops[experts, 0] == pytest.approx(whole.flops[experts, 0], rel=0.1)
    # Attention of that prompt is one rank's alone.
    output = mixed.labels.index("output")
    assert mixed.flops[output, 0] == pytest.approx(8.0 * whole.flops[output, 0], rel=0.1)


def test_ranks_gather_the_tokens_of_all_before_the_experts() -> None:
    decode, _, _ = phase_work(MODEL, GPU, layouts(1, 8, 8), LONG, np.array([256.0]), COEFFICIENTS)
    row = decode.collectives.kind.index(Collective.ALL_TO_ALL)
    assert decode.collectives.message_bytes[row, 0] == pytest.approx(2.0 * MODEL.hidden * 256.0)


def test_padded_ranks_wait_for_the_expert_that_all_padding_goes_to() -> None:
    ranks, running = layouts(1, 8, 8), np.array([64.0])
    decode, apart, _ = phase_work(MODEL, GPU, ranks, LONG, running, COEFFICIENTS, lockstep=APART)
    _, padded, _ = phase_work(MODEL, GPU, ranks, LONG, running, COEFFICIENTS, lockstep=Lockstep(padded=True))
    assert apart.padded_flops.sum() == 0.0
    assert decode.padded_flops.sum() == 0.0
    assert padded.padded_flops.sum() > 0.0
    one = layouts(8, 8, 1)
    _, alone, _ = phase_work(MODEL, GPU, one, LONG, running, COEFFICIENTS, lockstep=Lockstep(padded=True))
    assert alone.padded_flops.sum() == 0.0


def test_quantized_tokens_take_fewer_bytes_to_the_experts_and_as_many_back() -> None:
    model = replace(MODEL, expert_quant=Quantization("fp8", "fp8", "block"))
    ranks, running = layouts(1, 8, 8), np.array([256.0])

    def sent(*, quantized: bool) -> float:
        lockstep = Lockstep(quantized_dispatch=quantized)
        decode, _, _ = phase_work(model, GPU, ranks, LONG, running, COEFFICIENTS, lockstep=lockstep)
        row = decode.collectives.kind.index(Collective.ALL_TO_ALL)
        return float(decode.collectives.message_bytes[row, 0])

    assert sent(quantized=True) == pytest.approx(0.75 * sent(quantized=False))


def test_padding_fills_the_aligned_buffer_of_every_rank() -> None:
    model = replace(MODEL, expert_quant=Quantization("fp8", "fp8", "block"))
    ranks, running, profile = layouts(1, 8, 8), np.array([8.0]), select_profile(load_profiles(), "vllm", "0.11.1")
    _, apart, _ = phase_work(model, GPU, ranks, LONG, running, COEFFICIENTS, lockstep=APART)
    _, padded, _ = phase_work(model, GPU, ranks, LONG, running, COEFFICIENTS, lockstep=profile.lockstep)
    experts = padded.labels.index("experts")
    # Seven of eight ranks have no prompt.
    assert padded.aligned_flops[experts, 0] > 5.0 * apart.aligned_flops[experts, 0]
    draws = Predictor(COEFFICIENTS, profile).at_concurrency(model, GPU, ranks, LONG, running).power_watts[0]
    eager = replace(profile, lockstep=replace(profile.lockstep, padded=False))
    assert draws > 1.1 * Predictor(COEFFICIENTS, eager).at_concurrency(model, GPU, ranks, LONG, running).power_watts[0]


def test_prompts_that_are_admitted_together_hold_ranks_up_less_often() -> None:
    profile = select_profile(load_profiles(), "vllm", "0.24.0")
    ranks, running = layouts(1, 8, 8), np.array([64.0])

    def step(lockstep: Lockstep) -> float:
        predictor = Predictor(COEFFICIENTS, replace(profile, lockstep=lockstep))
        return float(predictor.at_concurrency(MODEL, GPU, ranks, LONG, running).tpot_ms[0])

    assert step(Lockstep(clump=2.5)) < step(APART) < step(Lockstep(padded=True))


def test_waiting_ranks_draw_less_than_working_ones_and_more_than_idle_ones() -> None:
    predictor = Predictor(COEFFICIENTS, select_profile(load_profiles(), "vllm", "0.24.0"))
    found = predictor.at_concurrency(MODEL, GPU, layouts(1, 8, 8), LONG, np.array([64.0]))
    whole = predictor.at_concurrency(MODEL, GPU, layouts(8, 8, 1), LONG, np.array([64.0]))
    assert found.idle_power_watts[0] < found.power_watts[0] < whole.power_watts[0] * 1.2


@pytest.mark.parametrize("name", ["vllm==0.25.1", "sglang==0.5.15"])
def test_a_prompt_of_several_chunks_waits_for_the_step_of_each_chunk(name: str) -> None:
    profile, ranks = select_profile(load_profiles(), *name.split("==")), layouts(1, 8, 8)
    predictor = Predictor(COEFFICIENTS, profile)
    chunk = int(profile.step_limits(GPU, ranks, MODEL)[0])

    def first_token(chunks: float, *, cached: float = 0.0) -> float:
        load = replace(LONG, input_tokens=chunks * chunk, prefix_hit_fraction=cached)
        return float(predictor.at_concurrency(MODEL, GPU, ranks, load, np.array([8.0])).ttft_p50_ms[0])

    # Without the part that does not depend on the prompt.
    assert first_token(4.0) - first_token(2.0) > 1.7 * (first_token(2.0) - first_token(1.0)) > 0.0
    # Attention over a cached prefix costs less than the tokens that need no prefill.
    assert first_token(2.0, cached=0.6) < first_token(2.0, cached=0.3) < first_token(2.0)


def test_arrivals_of_long_prompts_wait_as_long_as_a_single_one_at_low_load() -> None:
    predictor, ranks = Predictor(COEFFICIENTS, select_profile(load_profiles(), "vllm", "0.25.1")), layouts(1, 8, 8)
    long = replace(LONG, input_tokens=40_000.0)
    alone = predictor.at_concurrency(MODEL, GPU, ranks, long, np.array([1.0])).ttft_p50_ms[0]
    arriving = predictor.at_rate(MODEL, GPU, ranks, long, np.array([1e-3])).ttft_p50_ms[0]
    assert arriving == pytest.approx(alone, rel=0.25)


@pytest.mark.parametrize(("version", "graphs"), [("0.11.1", np.inf), ("0.25.1", 512.0)])
def test_vllm_pads_only_steps_with_a_cuda_graph_in_recent_versions(version: str, graphs: float) -> None:
    lockstep = select_profile(load_profiles(), "vllm", version).lockstep_of(GPU, layouts(1, 8, 8), MODEL)
    assert lockstep.padded
    np.testing.assert_array_equal(lockstep.graphs, graphs)


def test_a_prompt_longer_than_the_largest_graph_pads_no_rank() -> None:
    profile = select_profile(load_profiles(), "vllm", "0.25.1")
    running = np.array([64.0])

    def padding(prompt: float, graphs: int) -> float:
        ranks = replace(layouts(1, 8, 8), graph_tokens=np.array([graphs]), max_batched_tokens=np.array([4096]))
        lockstep = profile.lockstep_of(GPU, ranks, MODEL)
        load = Workload(prompt, 1000, prompt_variation=0.0)
        _, mixed, _ = phase_work(MODEL, GPU, ranks, load, running, COEFFICIENTS, lockstep=lockstep)
        return float(mixed.padded_flops.sum())

    assert padding(3000.0, 0) == padding(8000.0, 2048) == 0.0
    assert padding(300.0, 0) > 0.0
    assert padding(3000.0, 4096) > padding(300.0, 4096)
