"""Latency tables of aiconfigurator: what their columns mean, and what is refused of them."""

from __future__ import annotations

import pytest

from energylens.runs import RowError, Run, parse_runs

AGGREGATED = {
    "run_id": "l1",
    "engine": "vllm==0.15.1",
    "model_id": "Qwen/Qwen3-32B",
    "gpu_model": "H100",
    "weight_precision": "fp8",
    "mode": "agg",
    "input_tokens": "1024",
    "output_tokens": "512",
    "concurrency": "48",
    "batch_size": "16",
    "tp_size": "4",
    "pp_size": "1",
    "attention_dp_size": "",
    "moe_tp_size": "1",
    "moe_ep_size": "1",
    "ttft_ms": "90.5",
    "tpot_ms": "12.25",
}
DECODING = AGGREGATED | {
    "engine": "sglang==0.5.8.post1",
    "mode": "disagg",
    "concurrency": "",
    "tp_size": "",
    "decode_batch_size": "16",
    "decode_tp_size": "1",
    "decode_attention_dp_size": "8",
    "decode_moe_tp_size": "1",
    "decode_moe_ep_size": "8",
    "ttft_ms": "5110",
    "tpot_ms": "10",
}


def read(row: dict[str, str], *, measured: bool = True) -> Run | RowError:
    columns = list(AGGREGATED | DECODING)
    text = ",".join(columns) + "\n" + ",".join(row.get(name, "") for name in columns) + "\n"
    (found,) = parse_runs(text, "latency.csv", measured=measured).rows
    return found


def run_of(row: dict[str, str]) -> Run:
    found = read(row)
    assert isinstance(found, Run), found
    return found


def test_an_aggregated_row_counts_requests_in_flight_and_claims_no_statistic() -> None:
    run = run_of(AGGREGATED)
    assert (run.num_gpus, run.tensor_parallel, run.expert_parallel, run.data_parallel) == (4, 4, 1, 1)
    assert (run.concurrency, run.counts_waiting, run.role) == (48.0, True, "aggregated")
    assert run.measured is not None
    assert (run.measured.tpot_ms, run.measured.median_tpot_ms, run.measured.ttft_ms) == (12.25, None, 90.5)
    assert (run.measured.time_per_output_token_ms, run.measured.time_to_first_token_ms) == (12.25, 90.5)
    unmeasured = read(AGGREGATED, measured=False)
    assert isinstance(unmeasured, Run)
    assert unmeasured.measured is None


def test_without_a_concurrency_the_batch_is_in_flight() -> None:
    assert run_of(AGGREGATED | {"concurrency": ""}).concurrency == 16.0


@pytest.mark.parametrize(
    ("sizes", "layout"),
    [
        (("64", "1", "8", "8"), (8, 8, 1)),
        (("16", "", "4", "4"), (4, 4, 1)),
        (("4", "1", "1", "4"), (4, 4, 1)),
        (("1", "", "4", "1"), (1, 1, 4)),
        (("2", "0", "0", "0"), (2, 1, 1)),
        (("1", "8", "1", "8"), (1, 8, 8)),
    ],
)
def test_layouts_are_read_by_what_their_columns_mean(
    sizes: tuple[str, str, str, str], layout: tuple[int, int, int]
) -> None:
    names = ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
    run = run_of(AGGREGATED | dict(zip(names, sizes, strict=True)))
    assert (run.tensor_parallel, run.expert_parallel, run.data_parallel) == layout
    assert run.num_gpus == layout[0] * layout[2]


def test_a_worker_that_decodes_runs_what_does_not_wait_for_its_first_token() -> None:
    run = run_of(DECODING)
    assert (run.role, run.counts_waiting, run.num_gpus, run.data_parallel) == ("decode", False, 8, 8)
    # 128 in flight, of whose 10.22 s each the first token takes 5.11 s: half of them decode at a time.
    assert run.concurrency == pytest.approx(64.0)
    assert run.measured is not None
    assert run.measured.time_to_first_token_ms is None


def test_a_four_bit_release_of_the_model_itself_keeps_its_own_format() -> None:
    assert run_of(AGGREGATED | {"weight_precision": "fp4"}).weight_precision == "nvfp4"
    own = AGGREGATED | {"weight_precision": "fp4", "model_id": "openai/gpt-oss-120b"}
    assert run_of(own).weight_precision is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"engine": "trtllm==1.0"}, "engine='trtllm==1.0' is not one of vllm, sglang"),
        ({"tp_size": "72"}, "tp_size=72: 72 GPUs are not a replica of one node"),
        ({"tp_size": "16"}, "tp_size=16: 16 GPUs are not a replica of one node"),
        ({"tp_size": "8", "moe_tp_size": "2", "moe_ep_size": "4"}, "over how many GPUs attention is split"),
        ({"pp_size": "2"}, "no pipeline parallelism"),
        ({"concurrency": "", "batch_size": ""}, "concurrency is empty"),
        ({"weight_precision": "fp6"}, "weight_precision='fp6' is not one of fp8, fp4"),
        ({"mode": "both"}, "mode='both' is not one of agg, disagg"),
        ({"tpot_ms": "-1"}, "tpot_ms='-1' is not a number above 0"),
        ({"mode": "disagg", "decode_tp_size": "4"}, "decode_batch_size is empty"),
    ],
)
def test_rows_that_say_too_little_are_refused_by_the_field(changes: dict[str, str], said: str) -> None:
    found = read(AGGREGATED | changes)
    assert isinstance(found, RowError)
    assert said in found.message
