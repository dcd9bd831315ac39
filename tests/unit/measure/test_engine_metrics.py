from __future__ import annotations

import math
from pathlib import Path

import pytest

from energylens.measure.engine_metrics import parse_engine
from energylens.measure.exposition import MalformedExpositionError
from energylens.measure.types import Histogram, PodRef

EXPOSITIONS = Path(__file__).parent / "expositions"
POD = PodRef("team", "llama-0")


def read(name: str):
    return parse_engine((EXPOSITIONS / name).read_text(), pod=POD, time=5.0)


def test_vllm_adds_up_data_parallel_engines():
    seen = read("vllm-0.33.txt")
    assert (seen.engine, seen.pod, seen.time) == ("vllm", POD, 5.0)
    assert (seen.generation_tokens, seen.prompt_tokens, seen.cached_prompt_tokens) == (12000, 3000, 100)
    assert seen.requests == 16
    assert (seen.running, seen.waiting, seen.kv_cache_usage) == (124, 3, 0.5)
    assert seen.ttft == Histogram((0.25, 0.5, math.inf), (10, 20, 20))
    assert seen.itl == Histogram((0.025, 0.05, math.inf), (1000, 11980, 12000))
    assert seen.tpot == Histogram((0.025, 0.05, math.inf), (2, 16, 16))
    assert (seen.draft_rounds, seen.drafted_tokens, seen.accepted_tokens) == (150, 450, 270)
    assert (seen.accept_length, seen.accept_rate) == (None, None)


def test_vllm_by_its_previous_names():
    seen = read("vllm-0.11.txt")
    assert (seen.generation_tokens, seen.running, seen.kv_cache_usage) == (42, 4, 0.125)
    assert seen.itl == Histogram((0.025, math.inf), (40, 41))
    # time_per_output_token_seconds of that release observes tokens, not requests.
    assert seen.tpot is None
    assert (seen.prompt_tokens, seen.waiting, seen.ttft) == (None, None, None)
    assert (seen.cached_prompt_tokens, seen.requests) == (6, None)


def test_sglang_counts_a_tensor_parallel_group_once():
    seen = read("sglang-0.5.txt")
    assert (seen.engine, seen.generation_tokens, seen.prompt_tokens) == ("sglang", 500, 800)
    assert (seen.running, seen.waiting, seen.kv_cache_usage) == (13, 2, 0.31)
    assert (seen.cached_prompt_tokens, seen.requests) == (80, 9)
    assert seen.ttft == Histogram((0.1, math.inf), (3, 4))
    assert seen.tpot == Histogram((0.01, math.inf), (7, 9))
    assert (seen.accept_length, seen.accept_rate) == (pytest.approx(2.8), pytest.approx(0.6))
    assert seen.draft_rounds is None


def test_sglang_tells_a_queue_by_priority_beside_the_whole_and_a_cached_token_by_one_source():
    """A priority label of "" is the whole; a request's cached tokens are under their sources or under "total"."""
    seen = read("sglang-0.5.txt")
    assert (seen.running, seen.cached_prompt_tokens) == (13, 80)


def test_another_program_is_no_engine():
    assert parse_engine("up 1\npython_info 1\n", pod=POD, time=0) is None


@pytest.mark.parametrize("labels", ['{model_name="m"}', '{le="wide"}'])
def test_a_bucket_without_a_bound_is_refused(labels):
    with pytest.raises(MalformedExpositionError, match="label le"):
        parse_engine(f"vllm:inter_token_latency_seconds_bucket{labels} 5\n", pod=POD, time=0)
