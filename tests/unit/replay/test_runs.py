from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.unit.replay.objects import H100, MODEL

from energylens_dev.replay.runs import Load, NoRunError, Plan, distance, measured_runs, operating_point

PLAN = Plan(MODEL, None, H100, 4, 1, 1, False, None, 300, 800)


def curve():
    wanted = (MODEL, "H100", 4)
    runs = [run for run in measured_runs() if (run.model_id, run.gpu_model, run.num_gpus) == wanted]
    return sorted(runs, key=lambda run: run.concurrency)


def test_all_runs_are_kept():
    assert len(measured_runs()) == 316


@pytest.mark.parametrize("run", curve(), ids=lambda run: run.run_id)
def test_at_a_measured_concurrency_the_run_itself_is_replayed(run):
    point = operating_point(PLAN, Load(concurrency=run.concurrency))
    assert run.run_id in point.run_ids
    assert point.power_watts == pytest.approx(run.measured.power_watts)
    assert point.output_tokens_per_second == pytest.approx(run.measured.output_tokens_per_second)
    assert point.itl_ms[3] == pytest.approx(run.measured.p99_itl_ms)
    ratio = point.power_watts / point.output_tokens_per_second
    assert ratio == pytest.approx(run.measured.joules_per_output_token, rel=1e-3)
    assert point.clamped == ""


def test_between_two_runs_it_is_between_them():
    low, high = curve()[2:4]
    middle = math.sqrt(low.concurrency * high.concurrency)
    point = operating_point(PLAN, Load(concurrency=middle))
    assert point.run_ids == (low.run_id, high.run_id)
    assert point.concurrency == pytest.approx(middle)
    assert point.power_watts == pytest.approx((low.measured.power_watts + high.measured.power_watts) / 2)


def test_a_rate_is_carried_at_the_concurrency_that_delivers_it():
    point = operating_point(PLAN, Load(output_tokens_per_second=1000.0))
    assert point.output_tokens_per_second == pytest.approx(1000)
    assert curve()[0].concurrency < point.concurrency < 64


def test_outside_of_what_was_measured_the_end_stands_and_says_so():
    runs = curve()
    assert operating_point(PLAN, Load(concurrency=1)).clamped == "below"
    assert operating_point(PLAN, Load(concurrency=1)).run_ids == (runs[0].run_id,)
    assert operating_point(PLAN, Load(output_tokens_per_second=1)).run_ids == (runs[0].run_id,)
    assert operating_point(PLAN, Load(output_tokens_per_second=1)).clamped == "below"
    assert operating_point(PLAN, Load(concurrency=1e6)).clamped == "above"
    flooded = operating_point(PLAN, Load(output_tokens_per_second=1e9))
    assert flooded.clamped == "above"
    assert flooded.output_tokens_per_second == max(run.measured.output_tokens_per_second for run in runs)


def test_the_batch_limit_of_the_plan_holds():
    limited = replace(PLAN, max_num_seqs=32)
    for load in (Load(), Load(concurrency=500), Load(output_tokens_per_second=1e9)):
        assert operating_point(limited, load).concurrency == pytest.approx(32, rel=0.01)


def test_a_sibling_of_the_same_architecture_stands_in():
    point = operating_point(replace(PLAN, model="meta-llama/Llama-3.3-70B-Instruct"), Load(concurrency=64))
    assert (point.model_id, point.distance) == (MODEL, pytest.approx(operating_point(PLAN, Load()).distance + 1))


def test_the_task_nearest_in_request_shape_is_taken():
    plan = Plan("Qwen/Qwen3-8B", None, H100, 1, 1, 1, False, None, 300, 800)
    assert operating_point(plan, Load(concurrency=8)).task == "lm-arena-chat"
    assert operating_point(replace(plan, output_tokens=8000), Load(concurrency=8)).task == "gpqa"


def test_the_layout_nearest_to_the_plans_is_taken():
    plan = Plan("Qwen/Qwen3-235B-A22B-Instruct-2507", None, "NVIDIA-B200", 8, 1, 1, True, None, 300, 800)
    runs = [
        run for run in measured_runs() if run.model_id == plan.model and (run.gpu_model, run.num_gpus) == ("B200", 8)
    ]
    assert distance(replace(plan, expert_parallel=False), runs) == distance(plan, runs) + 1


@pytest.mark.parametrize(
    "change",
    [
        {"gpu_product": "NVIDIA-H200"},
        {"tensor_parallel": 8},
        {"pipeline_parallel": 2, "tensor_parallel": 2},
        {"precision": "fp8"},
        {"model": "meta-llama/Llama-3.1-8B-Instruct"},
        {"model": "nobody/knows-this"},
    ],
)
def test_what_nobody_measured_is_not_invented(change):
    with pytest.raises(NoRunError, match="no measured run"):
        operating_point(replace(PLAN, **change), Load())


def test_host_bound_runs_are_further_away():
    runs = curve()
    slowed = [replace(run, host_bound=True) for run in runs]
    assert distance(PLAN, slowed) == distance(PLAN, runs) + 0.5
