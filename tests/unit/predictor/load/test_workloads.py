"""What is known of how the ML.ENERGY Benchmark loads an engine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.predictor.models import layouts

from energylens.data import find_gpu, load_model, load_predictor
from energylens.data.predictor import load_coefficients
from energylens.predictor.load.steady import phase_work
from energylens.predictor.load.workloads import LIFETIME, PROTOCOLS, sampled_of, workload_of
from energylens.predictor.types import Layouts, Sampled, Workload

batches = st.floats(1, 5000)
tasks = st.sampled_from(sorted(PROTOCOLS))


def test_other_tasks_are_plain_steady_state() -> None:
    assert workload_of("my-chat", 300, 400, 64) == Workload(300, 400)
    assert sampled_of("my-chat", 64) is None


def test_prompts_that_are_sent_again_hit_the_prefix_cache_unless_they_are_long() -> None:
    assert workload_of("lm-arena-chat", 300, 400, 64).cached_input_fraction == 0.0
    assert workload_of("lm-arena-chat", 300, 400, 1400).cached_input_fraction == pytest.approx(0.5)
    assert workload_of("sourcegraph-fim", 1000, 250, 1024).cached_input_fraction == 0.0


@given(tasks, batches)
def test_ages_and_shares_stay_in_range_and_ages_fall_with_the_batch(task: str, batch: float) -> None:
    here, larger = (workload_of(task, 300, 400, b) for b in (batch, 2 * batch))
    assert 0.0 <= here.cached_input_fraction < 1.0
    assert 0.0 < here.age_share <= LIFETIME
    assert larger.age_share <= here.age_share + 1e-12


@given(tasks, batches)
def test_the_median_moves_from_full_load_to_the_draining_batch(task: str, batch: float) -> None:
    found = sampled_of(task, batch)
    assert found is not None
    assert 0.0 <= found.level <= 0.5
    assert 0.0 < found.running_share <= 1.0
    assert (found.level == 0.0) == (found.age_share is not None)


def test_a_batch_that_is_small_beside_the_requests_is_steady_state() -> None:
    found = sampled_of("lm-arena-chat", 8)
    assert found is not None
    draining = (1 + 0.9**2) / 2 * 8 / 1024
    assert found.level == pytest.approx((0.5 - draining) / (1 - draining))
    assert found.running_share == 1.0


def test_most_tokens_of_a_large_batch_come_after_the_queue_from_sequences_that_are_not_old() -> None:
    # 198 questions in a batch of 150: the simulated run has 54 to 58 % of its tokens after the queue is empty.
    found = sampled_of("gpqa", 150)
    assert found is not None
    draining = 0.5 / found.running_share
    assert 0.54 < draining < 0.58
    # The queue lasts for 0.54 to 0.59 of a mean output, in which sequences reach that age at most.
    assert found.age_share is not None
    assert 0.3 < found.age_share < 0.5


def test_a_prediction_takes_the_median_where_the_benchmark_does_and_the_rest_in_steady_state() -> None:
    predictor, model, gpu = (
        load_predictor("vllm", "0.11.1"),
        load_model("meta-llama/Llama-3.1-70B-Instruct"),
        find_gpu("B200"),
    )
    where, load, running = layouts((2, 1, 1, 1), batch=1024), Workload(180, 350), np.array([1000.0])
    plain = predictor.at_concurrency(model, gpu, where, load, running)
    there = predictor.at_concurrency(model, gpu, where, load, running, sampled=Sampled(0.0, 0.6, 1.0))
    assert there.itl_p50_ms[0] < plain.itl_p50_ms[0]
    assert there.itl_p99_ms[0] == plain.itl_p99_ms[0]
    assert there.joules_per_output_token[0] == plain.joules_per_output_token[0]
    same = predictor.at_concurrency(model, gpu, where, load, running, sampled=Sampled(0.5, 1.0, None))
    assert same.itl_p50_ms[0] == pytest.approx(plain.itl_p50_ms[0])


def test_benchmarks_that_take_the_most_likely_token_sort_no_logits() -> None:
    model, gpu, ones = load_model("meta-llama/Llama-3.1-8B-Instruct"), find_gpu("H100"), np.ones(1, dtype=np.int64)
    layouts = Layouts(ones, ones, ones, ones, 64 * ones, np.array([np.nan]))

    def sorts(task: str) -> list[object]:
        workload = workload_of(task, 900, 900, 64)
        decode, mixed, _ = phase_work(model, gpu, layouts, workload, np.array([64.0]), load_coefficients())
        return [decode.sorts, mixed.sorts]

    assert sorts("random-1k1k") == sorts("sharegpt") == [0.0, 0.0]
    assert sorts("lm-arena-chat") == sorts("my-chat") == [1.0, 1.0]
