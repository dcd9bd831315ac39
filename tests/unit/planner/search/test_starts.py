"""Time and energy of a start: estimated from one measured start, or as the site measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from energylens.api.llmdeployment import Scaling
from energylens.data import find_gpu
from energylens.planner.search import starts
from energylens.planner.search.starts import start_of

GPU = replace(find_gpu("H200"), idle_watts=76.0, loaded_idle_watts=123.0)


def test_weights_are_loaded_at_a_gigabyte_per_second_beside_a_fixed_time() -> None:
    one, more = (start_of(1, GPU, gigabytes * 1e9, None) for gigabytes in (16.0, 46.0))
    assert more.seconds - one.seconds == pytest.approx(30.0)
    assert one.seconds == pytest.approx(starts.FIXED_SECONDS + 16.0)


def test_a_start_draws_a_multiple_of_the_idle_power_of_its_gpus() -> None:
    one = start_of(1, GPU, 16e9, None)
    assert one.joules / one.seconds == pytest.approx(starts.POWER_RATIO * (76.0 + 123.0) / 2)
    assert start_of(4, GPU, 16e9, None).joules == pytest.approx(4 * one.joules)


@pytest.mark.parametrize(
    ("scaling", "seconds", "joules"),
    [
        (Scaling(start_seconds=100, start_joules=5000), 100.0, 5000.0),
        (Scaling(start_seconds=100), 100.0, None),
        (Scaling(start_joules=5000), None, 5000.0),
        (Scaling(), None, None),
    ],
)
def test_measurements_of_the_site_come_first(scaling: Scaling, seconds: float | None, joules: float | None) -> None:
    estimate, found = start_of(1, GPU, 16e9, None), start_of(1, GPU, 16e9, scaling)
    assert found.seconds == (estimate.seconds if seconds is None else seconds)
    expected = estimate.joules * found.seconds / estimate.seconds if joules is None else joules
    assert found.joules == pytest.approx(expected)


def test_the_measured_start_of_an_8b_model_is_met() -> None:
    found = start_of(1, GPU, 16.06e9, None)
    assert (found.seconds, found.joules) == (pytest.approx(127.0), pytest.approx(13_500.0))
