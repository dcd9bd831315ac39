from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.measure.dcgm import METRICS, parse_dcgm
from energylens.measure.exposition import MalformedExpositionError
from energylens.measure.types import PodRef

EXPOSITIONS = Path(__file__).parent / "expositions"
POD = PodRef("team", "llama-0")


def read(text: str):
    return parse_dcgm(text, time=100.0, source="test")


def line(name: str, value: object, **labels: str) -> str:
    inside = ",".join(f'{key}="{text}"' for key, text in ({"UUID": "GPU-0"} | labels).items())
    return f"{name}{{{inside}}} {value}\n"


def energy(value: object = 1000.0, **labels: str) -> str:
    return line("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", value, **labels)


def test_old_names_are_millijoules():
    first, second = read((EXPOSITIONS / "dcgm-old.txt").read_text()).gpus
    assert (first.uuid, first.energy_joules, first.power_watts) == ("GPU-aaaa", pytest.approx(1234567.89), 540.125)
    assert first.owners == {POD}
    assert first.time == 100.0
    assert first.product == "NVIDIA H100 80GB HBM3"
    assert (second.uuid, second.energy_joules, second.owners) == ("GPU-bbbb", pytest.approx(987654.0), frozenset())
    assert not second.partly_unallocated


def test_new_names_are_joules():
    (only,) = read((EXPOSITIONS / "dcgm-new.txt").read_text()).gpus
    assert (only.energy_joules, only.power_watts, only.power_limit_watts) == (1234567.89, 905.5, 1000.0)
    assert only.owners == {POD}


def test_both_generations_at_once_agree_on_joules():
    text = line("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 2_000_000) + energy(2000)
    (only,) = read(text).gpus
    assert only.energy_joules == 2000


def test_a_name_that_looks_right_is_no_energy_counter():
    assert read(line("DCGM_FI_DEV_ENERGY_CONSUMPTION", 5)).gpus == ()


def test_averaged_power_goes_before_instantaneous():
    text = line("DCGM_FI_DEV_POWER_USAGE_INSTANT", 700) + line("DCGM_FI_DEV_POWER_USAGE", 500)
    (only,) = read(text).gpus
    assert only.power_watts == 500


@pytest.mark.parametrize("label", ["UUID", "uuid"])
def test_identity_is_the_uuid_in_either_case(label):
    (only,) = read(f'DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL{{{label}="GPU-1"}} 5\n').gpus
    assert only.uuid == "GPU-1"


def test_host_names_are_no_identity():
    text = energy(1, UUID="GPU-1", Hostname="localhost") + energy(2, UUID="GPU-2", hostname="localhost")
    assert [gpu.uuid for gpu in read(text).gpus] == ["GPU-1", "GPU-2"]


@pytest.mark.parametrize(
    "labels",
    [
        {"pod": "llama-0", "namespace": "team"},
        {"pod_name": "llama-0", "pod_namespace": "team", "container_name": "vllm"},
        {"pod": "llama-0", "namespace": "team", "pod_uid": "1", "dra_claim_name": "c", "vgpu": "0"},
        {"exported_pod": "llama-0", "exported_namespace": "team", "pod": "dcgm-exporter-x", "namespace": "monitoring"},
    ],
)
def test_pod_labels_of_every_generation(labels):
    (only,) = read(energy(**labels)).gpus
    assert only.owners == {POD}


def test_with_exported_labels_the_plain_ones_are_the_exporters_own():
    own = {"pod": "dcgm-exporter-x", "namespace": "monitoring"}
    text = energy(UUID="GPU-1", exported_pod="llama-0", exported_namespace="team", **own) + energy(UUID="GPU-2", **own)
    owners = {gpu.uuid: gpu.owners for gpu in read(text).gpus}
    assert owners == {"GPU-1": {POD}, "GPU-2": frozenset()}


def test_empty_labels_are_no_pod():
    (only,) = read(energy(pod="", namespace="", container="")).gpus
    assert only.owners == frozenset()


def test_time_slicing_repeats_the_board_for_each_pod():
    text = energy(1000, pod="a", namespace="team") + energy(1000, pod="b", namespace="team")
    (only,) = read(text).gpus
    assert only.energy_joules == 1000
    assert only.owners == {PodRef("team", "a"), PodRef("team", "b")}


def test_two_containers_of_a_pod_are_one_owner():
    text = energy(pod="llama-0", namespace="team", container="a") + energy(
        pod="llama-0", namespace="team", container="b"
    )
    assert read(text).gpus[0].owners == {POD}


def test_mig_repeats_the_board_for_each_instance():
    mig = {"GPU_I_PROFILE": "3g.40gb", "namespace": "team"}
    text = energy(1000, GPU_I_ID="1", pod="llama-0", **mig) + energy(1000, GPU_I_ID="2", pod="llama-0", **mig)
    (only,) = read(text).gpus
    assert (only.energy_joules, only.owners, only.partly_unallocated) == (1000, {POD}, False)


def test_a_free_mig_instance_makes_the_board_shared():
    text = energy(GPU_I_ID="1", pod="llama-0", namespace="team") + energy(GPU_I_ID="2")
    assert read(text).gpus[0].partly_unallocated


@pytest.mark.parametrize(
    "value",
    [
        "9223372036854775794",
        "9223372036854775792",
        "140737488355328",
        "140737488355330",
        "-1",
        "+Inf",
    ],
)
@pytest.mark.parametrize("name", METRICS)
def test_blanks_are_rejected_and_said(name, value):
    reading = read(line(name, value))
    assert reading.gpus == ()
    assert len(reading.rejected) == 1
    assert name in reading.rejected[0]
    assert "GPU-0" in reading.rejected[0]


def test_int32_blank_of_power_is_rejected():
    assert read(line("DCGM_FI_DEV_POWER_USAGE", 2147483632)).gpus == ()


def test_nan_is_absent():
    assert read(energy("NaN")).gpus == ()


def test_a_series_without_uuid_is_rejected_and_said():
    reading = read('DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL{gpu="0"} 5\n')
    assert reading.gpus == ()
    assert "without a UUID" in reading.rejected[0]


def test_a_timestamp_of_the_line_goes_before_the_scrapes():
    (only,) = read(energy("5 99000")).gpus
    assert only.time == 99.0


def test_a_broken_line_is_named():
    with pytest.raises(MalformedExpositionError, match="GPU_ENERGY_JOULES_TOTAL"):
        read('DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL{UUID="GPU-0} 5\n')


def test_a_broken_line_of_another_metric_costs_nothing():
    assert len(read("DCGM_FI_DEV_XID_ERRORS{broken\n" + energy()).gpus) == 1


@given(st.text())
def test_any_text_is_read_or_refused(text):
    for prefix in ("", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_POWER_USAGE{UUID="):
        try:
            read(prefix + text)
        except MalformedExpositionError:
            continue


DRA = {
    "dra_claim_name": "llama-0-gpus",
    "dra_claim_namespace": "team",
    "dra_driver_name": "gpu.nvidia.com",
    "dra_pool_name": "node-a",
    "dra_device_name": "gpu-0",
}


def test_a_gpu_of_a_claim_belongs_to_its_pod():
    (found,) = read(energy(pod="llama-0", namespace="team", container="engine", **DRA)).gpus
    assert (found.owners, found.partly_unallocated) == ({POD}, False)


def test_a_board_of_which_a_claim_holds_a_part_is_not_the_pods_alone():
    (found,) = read(energy(pod="llama-0", namespace="team", **DRA, dra_mig_device_uuid="MIG-1")).gpus
    assert (found.owners, found.partly_unallocated) == ({POD}, True)
