"""The public face: properties that hold for every candidate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.predictor import models
from tests.unit.predictor.models import layouts

from energylens.data import find_gpu, load_gpus, load_model
from energylens.data.predictor import load_coefficients, load_predictor, load_profiles
from energylens.predictor import Predictor, UnknownEngineError
from energylens.predictor.fitted.features import NEAREST
from energylens.predictor.fitted.profiles import parse_engine, parse_version, select_profile
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.prediction import Prediction
from energylens.predictor.types import Layouts, Workload

H100, B200 = find_gpu("H100"), find_gpu("B200")
CHAT = Workload(300.0, 400.0)
ALL = [models.dense(), models.mixture(), models.sliding(), models.latent(), models.hybrid()]


def predictor(version: str = "0.11.1") -> Predictor:
    return load_predictor("vllm", version)


@pytest.mark.parametrize("model", ALL, ids=lambda m: m.family)
def test_a_larger_batch_costs_time_and_saves_energy(model: ModelSpec) -> None:
    batch = np.geomspace(8, 256, 6)
    where = layouts(*[(1, 1, 1, 1)] * 6, batch=512)
    found = predictor().at_concurrency(model, H100, where, CHAT, batch)
    assert (np.diff(found.mean_step_ms) > 0).all()
    # Two layers are so fast that the front end sets the pace of the largest batches: there it stays level.
    assert (np.diff(np.log(found.output_tokens_per_second)) > -0.005).all()
    assert found.output_tokens_per_second[-1] > 1.5 * found.output_tokens_per_second[0]
    assert (np.diff(np.log(found.joules_per_output_token)) < 0.02).all()
    assert (found.itl_p50_ms <= found.itl_p90_ms).all()
    assert (found.itl_p90_ms <= found.itl_p95_ms).all()
    assert (found.itl_p95_ms <= found.itl_p99_ms).all()


@given(
    concurrency=st.floats(1, 2000),
    cap=st.floats(200, 700),
    prompt=st.floats(1, 20_000),
    output=st.floats(1, 20_000),
    tp=st.sampled_from([1, 2, 4, 8]),
)
def test_power_never_exceeds_a_cap_and_a_cap_never_speeds_up(
    concurrency: float, cap: float, prompt: float, output: float, tp: int
) -> None:
    model = load_model("meta-llama/Llama-3.1-8B-Instruct")
    load = Workload(prompt, output)
    free = predictor().at_concurrency(model, H100, layouts((tp, 1, 1, 1), batch=4096), load, np.array([concurrency]))
    held = predictor().at_concurrency(
        model, H100, layouts((tp, 1, 1, 1), batch=4096, cap=cap), load, np.array([concurrency])
    )
    assert free.power_watts[0] <= tp * 700.0 * (1 + 1e-9)
    assert held.power_watts[0] <= tp * cap * (1 + 1e-9)
    assert held.mean_step_ms[0] >= free.mean_step_ms[0] * (1 - 1e-9)


@given(rate=st.floats(1e-6, 50.0))
def test_power_lies_between_idle_and_saturated_and_energy_is_power_over_throughput(rate: float) -> None:
    model = load_model("Qwen/Qwen3-8B")
    where = layouts((1, 1, 1, 1), batch=128)
    found = predictor().at_rate(model, H100, where, CHAT, np.array([rate]))
    full = predictor().at_concurrency(model, H100, where, CHAT, found.max_concurrency)
    assert found.idle_power_watts[0] <= found.power_watts[0] <= max(full.power_watts[0], 700.0)
    ratio = found.power_watts[0] / found.output_tokens_per_second[0]
    assert found.joules_per_output_token[0] == pytest.approx(ratio)
    assert found.concurrency[0] <= found.max_concurrency[0] * (1 + 1e-9)


@pytest.mark.parametrize("product", sorted(load_gpus()))
def test_a_cap_holds_between_requests_too(product: str) -> None:
    gpu = load_gpus()[product]
    lowest = layouts((1, 1, 1, 1), cap=gpu.power_limit_min_watts)
    found = predictor().at_concurrency(load_model("Qwen/Qwen3-0.6B"), gpu, lowest, CHAT, np.array([1.0]))
    assert found.idle_power_watts[0] <= found.power_watts[0] <= gpu.power_limit_min_watts * (1 + 1e-9)


def test_a_rate_near_zero_gives_idle_power() -> None:
    found = predictor().at_rate(models.dense(), H100, layouts((1, 1, 1, 1)), CHAT, np.array([1e-9]))
    assert found.power_watts[0] == pytest.approx(found.idle_power_watts[0], rel=1e-5)
    assert found.sustainable[0]


@pytest.mark.parametrize("product", sorted(load_gpus()))
def test_requests_never_lower_the_power(product: str) -> None:
    """A run of `make fuzz` found a cap of 200 W on B200 under which the mean power was below the idle power."""
    gpu = load_gpus()[product]
    low, high = gpu.power_limit_min_watts, gpu.power_limit_max_watts
    rate = np.geomspace(0.001, 100.0, 12)
    for cap in (low, 1.05 * low, 1.1 * low, 0.5 * (low + high), np.nan):
        for model in (load_model("meta-llama/Llama-3.1-8B-Instruct"), models.dense()):
            found = predictor().at_rate(model, gpu, layouts(*[(1, 1, 1, 1)] * len(rate), cap=cap), CHAT, rate)
            can = found.supported
            assert (found.power_watts[can] >= found.idle_power_watts[can] - 1e-9).all(), cap


def test_a_rate_beyond_capacity_saturates_to_the_full_batch() -> None:
    model = load_model("Qwen/Qwen3-8B")
    where = layouts((1, 1, 1, 1), batch=64)
    found = predictor().at_rate(model, H100, where, CHAT, np.array([1e4]))
    full = predictor().at_concurrency(model, H100, where, CHAT, found.max_concurrency)
    assert not found.sustainable[0]
    assert found.ttft_p50_ms[0] == np.inf
    # Requests that arrive one by one start in more steps.
    assert 0.99 < found.output_tokens_per_second[0] / full.output_tokens_per_second[0] < 0.995
    assert found.power_watts[0] == pytest.approx(full.power_watts[0], rel=1e-6)


@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"])
@pytest.mark.parametrize("workload", [CHAT, Workload(4000, 1000), Workload(100, 20), Workload(60, 400)], ids=str)
@pytest.mark.parametrize("load", [0.1, 0.5, 0.9])
def test_littles_law_holds_for_every_batch_of_a_layout(name: str, workload: Workload, load: float) -> None:
    model = load_model(name)
    batches = np.array([1, 2, 3, 6, 12, 48, 150, 400])
    for order in (batches, batches[::-1]):
        where = replace(layouts(*[(1, 1, 1, 1)] * len(order)), max_batch_size=order)
        places = predictor().memory(model, H100, where, workload).max_concurrency
        full = predictor().at_concurrency(model, H100, where, workload, np.minimum(places, order))
        for rate in load * full.output_tokens_per_second[[0, 3, -1]] / workload.output_tokens:
            found = predictor().at_rate(model, H100, where, workload, np.full(len(order), rate))
            held = rate * workload.output_tokens * found.mean_step_ms / 1e3
            ok = found.sustainable
            assert ok.any()
            np.testing.assert_allclose(found.concurrency[ok], held[ok], rtol=0.002)


def test_what_cannot_run_changes_no_number_of_what_can() -> None:
    model = load_model("Qwen/Qwen3-30B-A3B")
    where = layouts((1, 1, 1, 1), (3, 1, 1, 1), (2, 1, 2, 1), (5, 1, 1, 1))
    both = predictor().at_rate(model, H100, where, CHAT, np.full(4, 2.0))
    alone = predictor().at_rate(model, H100, where.take(np.array([0, 2])), CHAT, np.full(2, 2.0))
    assert both.supported.tolist() == [True, False, True, False]
    for name in ("concurrency", "itl_p99_ms", "ttft_p95_ms", "power_watts", "nearest", "max_concurrency"):
        np.testing.assert_array_equal(getattr(both, name)[[0, 2]], getattr(alone, name))
    np.testing.assert_array_equal(both.energy.high[[0, 2]], alone.energy.high)
    assert np.isnan([both.energy.low[1], both.max_concurrency[3]]).all()
    assert not both.sustainable[[1, 3]].any()


def test_the_interval_of_power_ends_at_the_power_limit() -> None:
    found = predictor().at_concurrency(
        load_model("Qwen/Qwen3-32B"), H100, layouts((1, 1, 1, 1)), Workload(8000, 50), np.array([64.0])
    )
    assert found.power.low[0] < found.power_watts[0] <= found.power.high[0] <= H100.power_limit_watts


def test_bursts_lengthen_the_tails_and_leave_throughput_and_energy() -> None:
    where, rate = layouts((1, 1, 1, 1), (1, 1, 1, 1)), np.full(2, 25.0)
    both = predictor().at_rate(models.dense(), H100, where, replace(CHAT, arrival_variation=np.array([1.0, 9.0])), rate)
    for figure in (both.ttft_p99_ms, both.itl_p99_ms):
        assert figure[1] > 1.1 * figure[0]
    for figure in (both.output_tokens_per_second, both.joules_per_output_token, both.concurrency):
        assert figure[1] == figure[0]


def test_small_steps_shorten_itl_delay_first_tokens_and_hold_fewer_prompts() -> None:
    def with_steps(tokens: int | None) -> Prediction:
        told = predictor().with_profile(replace(predictor().profile, step_tokens=tokens))
        long = replace(CHAT, input_tokens=20_000.0)
        return told.at_rate(models.dense(), H100, layouts((1, 1, 1, 1)), long, np.full(1, 20.0))

    wide, narrow, least = with_steps(8192), with_steps(2048), with_steps(512)
    assert narrow.itl_p99_ms[0] < wide.itl_p99_ms[0]
    assert narrow.ttft_p95_ms[0] > wide.ttft_p95_ms[0]
    assert wide.sustainable[0]
    assert not least.sustainable[0]
    assert least.ttft_p50_ms[0] == np.inf


def test_waiting_for_the_first_token_grows_with_the_rate_and_the_percentile() -> None:
    model = load_model("Qwen/Qwen3-8B")
    where = layouts(*[(1, 1, 1, 1)] * 4, batch=32)
    found = predictor().at_rate(model, H100, where, CHAT, np.array([0.5, 2.0, 4.0, 5.0]))
    assert (np.diff(found.ttft_p99_ms[found.sustainable]) >= 0).all()
    assert (found.ttft_p50_ms <= found.ttft_p95_ms).all()
    assert (found.ttft_p95_ms <= found.ttft_p99_ms).all()


def test_layouts_that_an_engine_cannot_run_name_the_rule_and_have_no_numbers() -> None:
    where = layouts((3, 1, 1, 1), (1, 1, 2, 1), (2, 1, 1, 1))
    found = predictor().at_concurrency(models.dense(), H100, where, CHAT, np.full(3, 8.0))
    assert found.supported.tolist() == [False, False, True]
    assert found.reason[0] == "8 attention heads are not divisible by tensor parallel"
    assert found.reason[1] == "expert parallel needs a mixture-of-experts model"
    assert np.isnan(found.power_watts[:2]).all()


def test_weights_that_do_not_fit_are_refused() -> None:
    found = predictor().at_concurrency(
        load_model("meta-llama/Llama-3.1-405B-Instruct"), H100, layouts((1, 1, 1, 1)), CHAT, np.array([1.0])
    )
    assert found.reason[0] == "weights and one sequence do not fit in H100's memory"


def test_intervals_hold_the_prediction_and_widen_without_runs() -> None:
    model = load_model("meta-llama/Llama-3.1-8B-Instruct")
    where, batch = layouts((1, 1, 1, 1)), np.array([64.0])
    seen = predictor().at_concurrency(model, H100, where, CHAT, batch)
    other = predictor().at_concurrency(model, find_gpu("A100"), where, CHAT, batch)
    newer = load_predictor("vllm").at_concurrency(model, H100, where, CHAT, batch)
    unseen = predictor().at_concurrency(load_model("microsoft/phi-4"), H100, where, CHAT, batch)

    def width(found: Prediction) -> float:
        return float(np.log(found.energy.high[0] / found.energy.low[0]))

    assert seen.energy.low[0] < seen.joules_per_output_token[0] < seen.energy.high[0]
    assert width(seen) < width(unseen) < width(other)
    assert width(unseen) < width(newer)
    assert [NEAREST[f.nearest[0]] for f in (seen, other, newer, unseen)] == ["layout", "nothing", "engine", "engine"]


def test_a_decode_replica_is_faster_than_an_aggregated_one_and_waits_for_the_cache() -> None:
    model = load_model("meta-llama/Llama-3.1-70B-Instruct")
    where, batch = layouts((4, 1, 1, 1), batch=128), np.array([64.0])
    load = Workload(4000.0, 200.0)
    both = predictor().at_concurrency(model, H100, where, load, batch)
    decode = predictor().at_concurrency(model, H100, where, load, batch, role="decode")
    assert decode.mean_step_ms[0] < both.mean_step_ms[0]
    assert decode.itl_p99_ms[0] < both.itl_p99_ms[0]


@pytest.mark.parametrize(
    ("concurrency", "message"),
    [
        (np.array([1.0, 2.0]), r"concurrency has shape \(2,\)"),
        (np.array([0.0]), "concurrency must be finite and positive, not 0.0"),
        (np.array([np.nan]), "concurrency must be finite and positive, not nan"),
    ],
)
def test_bad_concurrency_is_named(concurrency: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor().at_concurrency(models.dense(), H100, layouts((1, 1, 1, 1)), CHAT, concurrency)


def test_a_bad_workload_is_named() -> None:
    with pytest.raises(ValueError, match="workload output_tokens must be at least 1, not 0"):
        predictor().at_rate(models.dense(), H100, layouts((1, 1, 1, 1)), Workload(10, 0), np.array([1.0]))


def test_every_known_product_and_profile_predicts_finite_numbers() -> None:
    from energylens.data import load_gpus

    model = load_model("Qwen/Qwen3-0.6B")
    for profile in load_profiles():
        for gpu in load_gpus().values():
            found = Predictor(load_coefficients(), profile).at_concurrency(
                model, gpu, layouts((1, 1, 1, 1)), CHAT, np.array([16.0])
            )
            assert np.isfinite(found.joules_per_output_token[0]), (profile.name, gpu.name)
            assert found.power_watts[0] <= gpu.power_limit_watts


def test_profiles_are_chosen_by_version_and_newest_by_default() -> None:
    profiles = load_profiles()
    assert select_profile(profiles, "vllm", "0.11.1").name in load_coefficients().measured["H100"]
    assert select_profile(profiles, "vLLM", None).name in load_coefficients().measured["H200"]
    assert select_profile(profiles, "vLLM", None).name not in load_coefficients().measured.get("L40S", ())
    assert parse_engine("vllm==0.11.1") == ("vllm", "0.11.1")
    assert parse_engine("sglang") == ("sglang", None)
    for text in ("vLLM 0.26.0", "vllm:0.26.0", "vllm@0.26.0", "vllm-0.26.0", "vllm = 0.26.0"):
        assert parse_engine(text) == ("vllm", "0.26.0")
    assert parse_engine("SGLang v0.5.16") == ("sglang", "v0.5.16")
    # Names of other engines stay whole.
    assert parse_engine("tensorrt-llm 1.0") == ("tensorrt-llm 1.0", None)
    assert parse_version("v0.11.1rc2+cu128") == (0, 11, 1)
    with pytest.raises(UnknownEngineError, match="known engines: sglang, vllm"):
        select_profile(profiles, "triton", None)
    with pytest.raises(UnknownEngineError, match=r"no profile of vllm covers version '0.5'"):
        select_profile(profiles, "vllm", "0.5")
    with pytest.raises(ValueError, match="does not start with a number"):
        parse_version("latest")


def test_what_no_run_was_split_like_is_an_extrapolation_with_wider_intervals() -> None:
    # One tensor-parallel pair as measured, two stages of a GPU, and two data-parallel ranks.
    where = layouts((2, 1, 2, 1), (1, 2, 1, 1), (1, 1, 2, 2), batch=64)
    model, running = load_model("Qwen/Qwen3-30B-A3B"), np.full(3, 32.0)
    completion = Workload(1000, 200)
    found = load_predictor("vllm", "0.11.1").at_concurrency(model, H100, where, completion, running)
    assert [NEAREST[code] for code in found.nearest] == ["layout", "nothing", "nothing"]
    width = np.log(found.energy.high / found.energy.low)
    assert width[1] > 1.4 * width[0]
    assert width[2] > 1.4 * width[0]


@pytest.mark.parametrize("name", ["MiniMaxAI/MiniMax-M3", "Qwen/Qwen3-235B-A22B", "openai/gpt-oss-120b"])
@pytest.mark.parametrize("gpu", ["H100", "B200", "H200"])
def test_a_step_of_a_few_tokens_takes_no_longer_than_one_of_more(name: str, gpu: str) -> None:
    batches = np.array([1, 2, 3, 4, 6, 8, 16])
    for layout in ((4, 1, 1, 1), (2, 1, 1, 1), (8, 1, 1, 1), (4, 1, 4, 1), (8, 1, 8, 1)):
        where = replace(layouts(*[layout] * len(batches)), max_batch_size=batches)
        found = predictor().at_concurrency(load_model(name), find_gpu(gpu), where, CHAT, batches.astype(np.float64))
        steps = found.mean_step_ms[found.supported]
        assert (np.diff(steps) > -0.01 * steps[:-1]).all(), (layout, steps)


def test_time_is_that_of_the_gpu_with_the_most_tokens_for_its_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    where, running = layouts((8, 1, 8, 1), (8, 1, 1, 1), batch=64), np.full(2, 48.0)

    def steps() -> list[float]:
        found = predictor().at_concurrency(load_model("Qwen/Qwen3-235B-A22B"), H100, where, CHAT, running)
        return [float(step) for step in found.mean_step_ms]

    spread_experts, every_expert_everywhere = steps()
    monkeypatch.setattr("energylens.predictor.step.moe.most_loaded", lambda pairs, *_: np.ones_like(pairs))
    even, same = steps()
    assert same == every_expert_everywhere
    assert even < spread_experts < 1.3 * even


def test_requests_that_the_kv_cache_has_no_room_for_wait() -> None:
    where = layouts(*[(1, 1, 1, 1)] * 4, batch=100_000)
    model = load_model("Qwen/Qwen3-8B")
    room = predictor().memory(model, H100, where, CHAT).max_concurrency
    found = predictor().at_concurrency(model, H100, where, CHAT, room * np.array([0.9, 1.0, 3.0, 30.0]))
    assert found.sustainable.tolist() == [True, True, False, False]
    assert found.concurrency[2] == found.concurrency[3] < 1.2 * room[3]
    for figure in (found.output_tokens_per_second, found.itl_p50_ms, found.power_watts):
        assert figure[2] == figure[3]
    assert found.output_tokens_per_second[2] > found.output_tokens_per_second[0]
    assert found.itl_p50_ms[2] > found.itl_p50_ms[0]


def test_a_request_that_is_alone_on_several_ranks_waits_for_no_step() -> None:
    one = np.ones(1, dtype=np.int64)
    ranks = Layouts(2 * one, one, one, 4 * one, 64 * one, np.full(1, np.nan))
    asked = load_model("deepseek-ai/DeepSeek-V3"), find_gpu("H200"), ranks, Workload(8000.0, 1.0)
    found = predictor("0.33.0").at_concurrency(*asked, np.ones(1))
    assert found.supported[0]
    assert found.ttft_p50_ms[0] > 8.0 + 0.5 * found.mean_step_ms[0]


def test_no_more_sequences_run_than_the_engine_starts() -> None:
    where = layouts((1, 1, 1, 1), (1, 1, 1, 2), batch=8)
    found = predictor().at_concurrency(load_model("Qwen/Qwen3-30B-A3B"), B200, where, CHAT, np.full(2, 100.0))
    assert found.concurrency.tolist() == [8.0, 16.0]


def test_a_prompt_waits_for_the_running_step_and_for_those_that_are_scheduled_already() -> None:
    ahead = load_predictor("vllm")
    assert ahead.profile.steps_ahead == 1
    behind = ahead.with_profile(replace(ahead.profile, steps_ahead=0))
    model, where, running = load_model("Qwen/Qwen3-8B"), layouts((1, 1, 1, 1), (1, 1, 1, 1)), np.array([1.0, 32.0])
    found = [one.at_concurrency(model, H100, where, CHAT, running) for one in (ahead, behind)]
    waited = found[0].ttft_p50_ms - found[1].ttft_p50_ms
    assert waited == pytest.approx([0.0, found[0].mean_step_ms[1]])
    # A request alone waits for nobody, but takes its way to the engine and back.
    assert found[0].ttft_p50_ms[0] > 8.0
