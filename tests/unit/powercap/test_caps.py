"""Which limit a GPU should have: only for pods that ask, only within its range, and back again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.powercap.caps import Decision, Gpu, LimitChange, decide
from energylens.powercap.processes import pod_of_cgroup, pod_of_process

OURS = frozenset({"GPU-0"})


def gpu(*pods: str, limit: float = 700) -> Gpu:
    return Gpu("GPU-0", "H100", limit, 700, 200, 700, frozenset(pods))


def test_a_cap_is_set() -> None:
    assert decide([gpu("a")], {"a": "400"}, frozenset()) == Decision((LimitChange("GPU-0", 400.0, False),), OURS, ())


def test_a_cap_that_is_set_is_not_set_again() -> None:
    assert decide([gpu("a", limit=400)], {"a": "400"}, OURS) == Decision((), OURS, ())


@pytest.mark.parametrize("pods", [(), ("b",)], ids=["nobody runs", "somebody without a cap"])
def test_the_default_comes_back(pods: tuple[str, ...]) -> None:
    found = decide([gpu(*pods, limit=400)], {"a": "400"}, OURS)
    assert found == Decision((LimitChange("GPU-0", 700, True),), frozenset(), ())


def test_a_limit_of_somebody_else_is_not_touched() -> None:
    assert decide([gpu("b", limit=500)], {"a": "400"}, frozenset()) == Decision((), frozenset(), ())


@pytest.mark.parametrize(
    ("cap", "said"),
    [
        ("199", "199 is outside of 200 to 700 W of H100"),
        ("701", "701 is outside of 200 to 700 W"),
        ("400.5", "must be whole watts"),
        ("-400", "must be whole watts"),
        ("", "must be whole watts"),
        ("٤٠٠", "must be whole watts"),
    ],
)
def test_a_cap_that_cannot_be_is_refused_and_the_default_comes_back(cap: str, said: str) -> None:
    found = decide([gpu("a", limit=400)], {"a": cap}, OURS)
    assert found.changes == (LimitChange("GPU-0", 700, True),)
    assert found.ours == frozenset()
    assert said in found.refused[0]
    assert decide([gpu("a")], {"a": cap}, frozenset()).changes == ()


def test_pods_that_share_a_gpu_are_slowed_down_by_no_more_than_they_asked_for() -> None:
    (change,) = decide([gpu("a", "b")], {"a": "400", "b": "500"}, frozenset()).changes
    assert change.watts == 500
    assert decide([gpu("a", "b")], {"a": "400"}, frozenset()).changes == ()


@given(
    st.sampled_from(["", "100", "300", "400", "900", "x"]),
    st.floats(200, 700),
    st.booleans(),
    st.sets(st.sampled_from("ab")),
)
def test_every_limit_that_is_set_is_in_range_and_doing_it_again_changes_nothing(
    cap: str, limit: float, ours: bool, pods: set[str]
) -> None:
    before = gpu(*pods, limit=limit)
    found = decide([before], {"a": cap}, OURS if ours else frozenset())
    for change in found.changes:
        assert 200 <= change.watts <= 700
    after = gpu(*pods, limit=found.changes[0].watts if found.changes else limit)
    again = decide([after], {"a": cap}, found.ours)
    assert again.changes == ()
    assert again.ours == found.ours


UID = "1f6a2d3c-0b1c-4d5e-8f90-123456789abc"


@pytest.mark.parametrize(
    "text",
    [
        f"0::/kubepods/burstable/pod{UID}/3aeb\n",
        f"0::/kubepods.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice/cri-3aeb.scope\n",
        f"12:memory:/kubepods/pod{UID}/3aeb\n11:cpu:/kubepods/pod{UID}/3aeb\n",
    ],
    ids=["cgroupfs", "systemd", "version 1"],
)
def test_a_control_group_names_the_pod(text: str) -> None:
    assert pod_of_cgroup(text) == UID


def test_a_process_outside_of_pods_has_none(tmp_path: object) -> None:
    assert pod_of_cgroup("0::/system.slice/nvidia-persistenced.service\n") is None
    assert pod_of_process(2**31 - 1) is None
