"""Prefix hits and drafted tokens: what follows from first principles, on the shipped coefficients."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from tests.unit.predictor.models import layouts

from energylens.data import find_gpu, load_model, load_predictor
from energylens.predictor.breakdown import energy_parts
from energylens.predictor.fitted.features import NOTHING
from energylens.predictor.load.steady import phase_work
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.drafts import draft_model
from energylens.predictor.model.parameters import weight_bytes
from energylens.predictor.prediction import Prediction
from energylens.predictor.types import Layouts, Speculation, Workload

Method = Literal["NGram", "EAGLE", "MTP", "DraftModel"]
METHODS: tuple[Method, ...] = ("NGram", "EAGLE", "MTP", "DraftModel")
H100, PREDICTOR = find_gpu("H100"), load_predictor("vllm")
DENSE, EXPERTS = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_model("Qwen/Qwen3-30B-A3B")
LOAD = Workload(2000, 400)
ONE = layouts((1, 1, 1, 1))


def drafting(method: Method = "NGram", tokens: int = 3, acceptance: float = 0.7) -> Workload:
    size = 5e8 if method == "DraftModel" else None
    return replace(LOAD, speculation=Speculation(method, tokens, acceptance, size))


def cached(share: float) -> Workload:
    return replace(LOAD, prefix_hit_fraction=share)


def under(workload: Workload, rate: float = 1.0, model: ModelSpec = DENSE) -> Prediction:
    return PREDICTOR.at_rate(model, H100, ONE, workload, np.array([rate]))


def with_in_flight(workload: Workload, requests: float = 16.0) -> Prediction:
    return PREDICTOR.at_concurrency(DENSE, H100, ONE, workload, np.array([requests]))


def test_without_hits_and_drafts_nothing_changes() -> None:
    plain, same = under(LOAD), under(cached(0.0))
    for name in ("joules_per_output_token", "power_watts", "tpot_ms", "itl_p95_ms", "ttft_p95_ms", "concurrency"):
        assert getattr(plain, name).tobytes() == getattr(same, name).tobytes()
    assert plain.memory.max_concurrency.tobytes() == same.memory.max_concurrency.tobytes()


def test_hits_of_whole_prompts_leave_the_last_tokens_prefill() -> None:
    _, mixed, _ = phase_work(DENSE, H100, ONE, cached(1.0), np.array([4.0]), PREDICTOR.coefficients)
    _, single, _ = phase_work(DENSE, H100, ONE, Workload(1, 400), np.array([4.0]), PREDICTOR.coefficients)
    assert mixed.tokens.tolist() == single.tokens.tolist()
    linear = [i for i, label in enumerate(mixed.labels) if mixed.weight_bytes[i, 0] > 0 and label]
    assert mixed.flops[linear].tolist() == single.flops[linear].tolist()
    # That token attends to the whole prompt.
    assert mixed.prefill_attention_flops.sum() > 5 * single.prefill_attention_flops.sum()
    assert mixed.cache_bytes.sum() > single.cache_bytes.sum()


def test_more_hits_cost_less_and_answer_sooner() -> None:
    found = [under(cached(share), 4.0) for share in (0.0, 0.3, 0.6, 1.0)]
    for name in ("joules_per_output_token", "ttft_p50_ms", "tpot_ms", "concurrency"):
        values = [float(getattr(one, name)[0]) for one in found]
        assert values == sorted(values, reverse=True), name
    # What is saved is prefill: the attention of decoding reads the same cache.
    decode = [phase_work(DENSE, H100, ONE, cached(s), np.array([4.0]), PREDICTOR.coefficients)[0] for s in (0.0, 1.0)]
    assert decode[0].cache_bytes.tolist() == decode[1].cache_bytes.tolist()


def test_a_shared_prefix_is_held_once() -> None:
    held, half = (PREDICTOR.memory(DENSE, H100, ONE, w) for w in (LOAD, cached(0.5)))
    per_token = held.kv_bytes_per_token[0]
    room = held.max_concurrency[0] * per_token * 2200.0
    assert half.max_concurrency[0] == pytest.approx((room - per_token * 1000.0) / (per_token * 1200.0))
    assert (half.fits == held.fits).all()


@pytest.mark.parametrize("method", METHODS)
def test_drafts_that_are_never_accepted_cost_energy_and_time(method: Method) -> None:
    plain, drafted = with_in_flight(LOAD), with_in_flight(drafting(method, 4, 0.0))
    assert drafted.joules_per_output_token[0] > plain.joules_per_output_token[0]
    assert drafted.tpot_ms[0] > plain.tpot_ms[0]
    more = with_in_flight(drafting(method, 8, 0.0))
    assert more.joules_per_output_token[0] > drafted.joules_per_output_token[0]


@pytest.mark.parametrize("method", METHODS)
def test_accepted_drafts_save_time_and_energy_at_few_sequences(method: Method) -> None:
    plain = with_in_flight(LOAD, 2.0)
    found = [with_in_flight(drafting(method, 3, share), 2.0) for share in (0.0, 0.5, 1.0)]
    joules = [float(one.joules_per_output_token[0]) for one in found]
    assert joules == sorted(joules, reverse=True)
    assert found[-1].tpot_ms[0] < plain.tpot_ms[0]
    if method != "DraftModel":
        assert joules[-1] < plain.joules_per_output_token[0]


def test_a_step_adds_the_accepted_tokens_and_one() -> None:
    assert drafting(acceptance=0.7).tokens_per_step == pytest.approx(3.1)
    found = with_in_flight(drafting("NGram", 3, 1.0))
    step = float(found.mean_step_ms[0])
    assert found.output_tokens_per_second[0] == pytest.approx(4 * 16 * 1000 / step)
    # Four times as many requests start per step of the same length: they finish in a quarter of the steps.
    starts = [
        phase_work(DENSE, H100, ONE, w, np.array([4.0]), PREDICTOR.coefficients)[2][0]
        for w in (replace(LOAD, output_tokens=100), drafting("NGram", 3, 1.0))
    ]
    assert starts[0] == pytest.approx(starts[1])


def test_a_verified_step_computes_every_token_and_reads_weights_and_cache_once() -> None:
    running = np.array([4.0])
    one, four = (
        phase_work(DENSE, H100, ONE, w, running, PREDICTOR.coefficients)[0] for w in (LOAD, drafting("NGram", 3))
    )
    assert four.flops.sum() == pytest.approx(4 * one.flops.sum())
    assert four.weight_bytes.tolist() == one.weight_bytes.tolist()
    assert four.cache_bytes.tolist() == one.cache_bytes.tolist()
    assert (four.tokens[0], four.sequences[0]) == (16.0, 4.0)
    # More tokens hit more experts.
    one, four = (
        phase_work(EXPERTS, H100, ONE, w, running, PREDICTOR.coefficients)[0] for w in (LOAD, drafting("NGram", 3))
    )
    assert four.weight_bytes.sum() > 1.5 * one.weight_bytes.sum()


def test_what_drafts_is_a_model_of_its_own() -> None:
    assert draft_model(DENSE, "NGram", None) is None
    head, layer, small = (draft_model(m, how, size) for m, how, size in (
        (DENSE, "EAGLE", None), (EXPERTS, "MTP", None), (DENSE, "DraftModel", 1e9)))  # fmt: skip
    assert head is not None
    assert layer is not None
    assert small is not None
    # One layer of Llama 3.1 8B has 218 million parameters, and the head chooses from 32,000 tokens.
    assert weight_bytes(head) == pytest.approx(2 * (218e6 + 32_000 * 4096), rel=0.01)
    assert layer.layer_count == 1
    assert layer.is_moe
    assert weight_bytes(small) - 2 * small.vocab * small.hidden == pytest.approx(2e9, rel=0.1)
    with pytest.raises(ValueError, match="number of parameters"):
        draft_model(DENSE, "DraftModel", None)
    memory = [PREDICTOR.memory(DENSE, H100, ONE, w).weight_bytes[0] for w in (LOAD, drafting("EAGLE"))]
    assert memory[1] - memory[0] == pytest.approx(weight_bytes(head))


@pytest.mark.parametrize("method", METHODS)
def test_energy_by_cause_adds_up_with_drafts(method: Method) -> None:
    workload = replace(drafting(method), prefix_hit_fraction=0.4)
    found = under(workload)
    parts = energy_parts(PREDICTOR, DENSE, H100, ONE, workload, found, saturated=False)
    assert parts.total[0] == pytest.approx(found.joules_per_output_token[0])


def test_itl_is_what_each_engine_counts() -> None:
    """vLLM observes the time between two outputs, SGLang that over the tokens of the second one."""
    workload = drafting("EAGLE", 3, 0.8)
    sglang = load_predictor("sglang")
    assert not PREDICTOR.profile.divides_itl
    for predictor, factor in ((PREDICTOR, 1.0), (sglang, 1.0 / 3.4)):
        divided = predictor.at_concurrency(DENSE, H100, ONE, workload, np.array([1.0]))
        # Alone, TPOT is the mean step over its tokens, and the median ITL the step, residuals apart.
        ratio = float(divided.itl_p50_ms[0] / divided.tpot_ms[0])
        assert ratio == pytest.approx(3.4 * factor, rel=0.1)


def test_what_a_candidate_gets_does_not_depend_on_those_beside_it() -> None:
    """Step times are shared by the size of CUDA graphs, which hold more tokens where several are verified."""
    layouts = Layouts(
        tensor_parallel=np.array([1, 2, 4, 1, 2, 1]),
        pipeline_parallel=np.array([1, 1, 1, 2, 1, 1]),
        expert_parallel=np.ones(6, dtype=np.int64),
        data_parallel=np.array([1, 1, 2, 1, 2, 1]),
        max_batch_size=np.array([4, 16, 64, 256, 1024, 16]),
        power_cap_watts=np.array([np.nan, np.nan, np.nan, np.nan, 400.0, 400.0]),
    )
    rates = np.array([0.2, 1.0, 8.0, 3.0, 20.0, 0.5])
    for workload in (Workload(60, 300, prefix_hit_fraction=0.5), drafting("EAGLE", 7), drafting("MTP", 2)):
        found = PREDICTOR.at_rate(DENSE, H100, layouts, workload, rates)
        for i in range(len(layouts)):
            alone = PREDICTOR.at_rate(DENSE, H100, layouts.take(np.array([i])), workload, rates[[i]])
            for name in ("joules_per_output_token", "tpot_ms", "itl_p95_ms", "ttft_p50_ms", "concurrency"):
                assert getattr(found, name)[i] == pytest.approx(getattr(alone, name)[0], rel=1e-9), (name, i)


def test_nobody_measured_drafts() -> None:
    plain, drafted = with_in_flight(LOAD), with_in_flight(drafting())
    assert (drafted.nearest == NOTHING).all()
    width = [float(np.log(one.energy.high[0] / one.energy.low[0])) for one in (plain, drafted)]
    assert width[1] > 1.2 * width[0]


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        (cached(1.1), "prefix_hit_fraction must be in 0 to 1, not 1.1"),
        (drafting(tokens=0), "draft_tokens must be at least 1, not 0"),
        (drafting(acceptance=-0.1), "acceptance must be in 0 to 1, not -0.1"),
    ],
)
def test_nonsense_is_refused(workload: Workload, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        under(workload)
