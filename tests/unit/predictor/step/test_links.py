"""NVLink islands: what leaves them takes the host link."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import pytest

from energylens.data import find_gpu, load_gpus, load_model, load_predictor
from energylens.predictor import Predictor
from energylens.predictor.fitted.features import NOTHING
from energylens.predictor.model.einsum import Collective
from energylens.predictor.prediction import Prediction
from energylens.predictor.step.latency import collective_seconds
from energylens.predictor.step.links import host_link_factor, host_link_floor, host_share, stage_share
from energylens.predictor.step.rates import data_sheet
from energylens.predictor.step.work import CollectiveWork
from energylens.predictor.types import FloatArray, Layouts, Workload

LLAMA, MIXTRAL = "meta-llama/Llama-3.1-70B-Instruct", "mistralai/Mixtral-8x22B-Instruct-v0.1"
BRIDGED = ["NVIDIA-A100-80GB-PCIe", "NVIDIA-H100-PCIe", "NVIDIA-H100-NVL", "NVIDIA-H200-NVL"]
ISLANDS = {"NVIDIA-A100-80GB-PCIe": 2, "NVIDIA-H100-PCIe": 2, "NVIDIA-H100-NVL": 2, "NVIDIA-H200-NVL": 4}
CONSTANTS = {"link_bandwidth": 0.5, "reduce_floor_2_us": 6.0, "reduce_floor_4_us": 8.0, "reduce_floor_8_us": 10.0}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load_predictor("vllm", "0.11.1")


def layouts(**degrees: list[int]) -> Layouts:
    size = len(next(iter(degrees.values())))
    named = {f"{name}_parallel": np.asarray(values, dtype=np.int64) for name, values in degrees.items()}
    one = np.ones(size, dtype=np.int64)
    fields = dict.fromkeys(("tensor_parallel", "pipeline_parallel", "expert_parallel", "data_parallel"), one) | named
    return Layouts(**fields, max_batch_size=64 * one, power_cap_watts=np.full(size, np.nan))


def predict(
    predictor: Predictor, gpu: str, where: Layouts, model: str = LLAMA, island: int | None = None, tokens: int = 4000
) -> Prediction:
    spec = find_gpu(gpu)
    if island is not None:
        spec = dataclasses.replace(spec, gpus_per_nvlink_island=island)
    return predictor.at_rate(load_model(model), spec, where, Workload(tokens, 300), np.full(len(where), 0.1))


def test_every_product_says_what_nvlink_joins() -> None:
    for product, gpu in load_gpus().items():
        assert (gpu.nvlink_bandwidth == 0) == (gpu.gpus_per_nvlink_island == 1), product
        expected = ISLANDS.get(product, 72 if product.startswith("NVIDIA-GB") else 8)
        assert gpu.gpus_per_nvlink_island == (expected if gpu.nvlink_bandwidth else 1)


@pytest.mark.parametrize("gpu", BRIDGED)
def test_prompts_over_bridged_cards_are_slowed_by_pcie(gpu: str, predictor: Predictor) -> None:
    island = ISLANDS[gpu]
    where = layouts(tensor=[2, 4, 8])
    bridged, joined = predict(predictor, gpu, where), predict(predictor, gpu, where, island=8)
    within = where.tensor_parallel <= island
    np.testing.assert_array_equal(bridged.ttft_p50_ms[within], joined.ttft_p50_ms[within])
    assert (bridged.ttft_p50_ms[~within] > 1.5 * joined.ttft_p50_ms[~within]).all()
    assert (bridged.itl_p50_ms[~within] > 1.02 * joined.itl_p50_ms[~within]).all()
    # What nobody measured says so, and with a wider interval.
    assert (bridged.nearest == NOTHING).all()
    wider = np.log(bridged.ttft.high / bridged.ttft.low) / np.log(joined.ttft.high / joined.ttft.low)
    np.testing.assert_allclose(wider, np.where(within, 1.0, predictor.coefficients.intervals.extrapolation), rtol=0.01)


def test_eight_bridged_cards_take_more_than_twice_as_long_over_a_prompt_as_a_board(predictor: Predictor) -> None:
    # A ring all-reduce of 4,000 tokens moves 18 GB per GPU through PCIe: 160 x 65.5 MB x 1.75.
    where = layouts(tensor=[8])
    pcie = predict(predictor, "NVIDIA-A100-80GB-PCIe", where).ttft_p50_ms[0]
    board = predict(predictor, "NVIDIA-A100-SXM4-80GB", where).ttft_p50_ms[0]
    assert pcie - board > 1e3 * 160 * 65.5e6 * 1.75 / 32e9
    assert pcie > 2 * board


@pytest.mark.parametrize("gpu", ["H100", "B200", "A100", "H200"])
def test_a_board_does_not_know_of_host_links(gpu: str, predictor: Predictor) -> None:
    where = layouts(tensor=[1, 2, 4, 8])
    spec = find_gpu(gpu)
    slow = dataclasses.replace(spec, pcie_bandwidth=1.0)
    rate, workload, model = np.full(4, 0.5), Workload(4000, 300), load_model(LLAMA)
    found = [predictor.at_rate(model, one, where, workload, rate) for one in (spec, slow)]
    np.testing.assert_array_equal(found[0].ttft_p50_ms, found[1].ttft_p50_ms)
    np.testing.assert_array_equal(found[0].joules_per_output_token, found[1].joules_per_output_token)


@pytest.mark.parametrize(
    ("model", "degrees"),
    [
        (LLAMA, {"tensor": [2], "pipeline": [4]}),
        (MIXTRAL, {"tensor": [4], "expert": [4]}),
        (MIXTRAL, {"data": [8], "expert": [8]}),
    ],
)
def test_every_kind_of_split_pays_for_the_host_link(
    model: str, degrees: dict[str, list[int]], predictor: Predictor
) -> None:
    where = layouts(**degrees)
    bridged = predict(predictor, "NVIDIA-H100-NVL", where, model)
    joined = predict(predictor, "NVIDIA-H100-NVL", where, model, island=8)
    assert bridged.ttft_p50_ms[0] > joined.ttft_p50_ms[0]
    assert bridged.mean_step_ms[0] > joined.mean_step_ms[0]


def test_what_leaves_an_island_is_more_where_islands_are_smaller() -> None:
    group = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    np.testing.assert_allclose(host_share(Collective.ALL_REDUCE, group, 4), [0, 0, 0, 1, 1])
    # Of the seven others of a group of eight four are in the other island.
    np.testing.assert_allclose(host_share(Collective.ALL_TO_ALL, group, 4), [0, 0, 0, 4 / 7, 12 / 15])
    np.testing.assert_allclose(host_share(Collective.ALL_TO_ALL, group, 1), [0, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("tp", "pp", "island", "share"),
    [
        (1, 1, 2, 0.0),
        (1, 2, 2, 0.0),
        (1, 4, 2, 1 / 3),
        (2, 4, 2, 1.0),
        (8, 2, 8, 1.0),
        (4, 4, 8, 1 / 3),
        (4, 2, 1, 1.0),
        (2, 1, 1, 0.0),
    ],
)
def test_borders_of_stages_between_islands(tp: int, pp: int, island: int, share: float) -> None:
    assert stage_share(np.array([float(tp)]), np.array([float(pp)]), island)[0] == pytest.approx(share)


def seconds(kind: Collective, group: int, share: float, product: str) -> float:
    def one(value: float) -> FloatArray:
        return np.array([[value]])

    work = CollectiveWork((kind,), one(1.0), one(64e6), one(group), one(share))
    return float(collective_seconds(work, CONSTANTS, data_sheet(find_gpu(product)))[0])


@pytest.mark.parametrize(("group", "measured_ms"), [(2, 13.9), (4, 30.5), (8, 38.1)])
def test_the_host_link_has_the_speed_that_was_measured(group: int, measured_ms: float) -> None:
    # NCCL 2.29 on RTX PRO 6000, 512 MiB (aiconfigurator 0.12); the fitted share of the link's peak is 0.525.
    gpu = find_gpu("RTX PRO 6000")
    moved = 2.0 * (group - 1) / group * 2**29
    rate = 0.525 * float(host_link_factor(np.array([float(group)]))[0]) * gpu.pcie_bandwidth
    assert 1e3 * moved / rate == pytest.approx(measured_ms, rel=0.02)


def test_a_transfer_between_islands_is_latency_and_bytes_over_the_host_link() -> None:
    near, far = (seconds(Collective.ALL_REDUCE, 8, share, "NVIDIA-H100-NVL") for share in (0.0, 1.0))
    floor = float(host_link_floor(np.array([8.0]))[0])
    moved = 2.0 * 7 / 8 * 64e6
    assert near == pytest.approx(10e-6 + moved / (0.5 * 300e9))
    assert far == pytest.approx(10e-6 + floor + moved / (0.5 * 0.74 * 64e9))


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_disaggregated_roles_pay_too(role: Literal["prefill", "decode"], predictor: Predictor) -> None:
    where, model = layouts(tensor=[8]), load_model(LLAMA)
    bridged = find_gpu("NVIDIA-A100-80GB-PCIe")
    joined = dataclasses.replace(bridged, gpus_per_nvlink_island=8)
    slow, fast = (
        predictor.at_rate(model, gpu, where, Workload(4000, 300), np.array([0.1]), role).mean_step_ms[0]
        for gpu in (bridged, joined)
    )
    assert slow > 1.05 * fast
