"""Energy since a moment, for a ledger: whole or not at all."""

from __future__ import annotations

import pytest

from energylens.measure.energy import energy_span
from energylens.measure.types import GpuEnergySeries, Sample


def gpu(uuid: str, *samples: tuple[float, float], limit: float | None = 700.0) -> GpuEnergySeries:
    return GpuEnergySeries(uuid, tuple(Sample(*sample) for sample in samples), power_limit_watts=limit)


STEADY = ((0.0, 1000.0), (30.0, 13_000.0), (60.0, 25_000.0))


def test_energy_of_all_gpus_since_a_moment() -> None:
    span = energy_span([gpu("a", *STEADY), gpu("b", *STEADY)], 2, 15.0, None)
    assert span is not None
    assert (span.start, span.end) == (15.0, 60.0)
    assert span.joules == pytest.approx(2 * 45 * 400)
    assert span.watts == pytest.approx(800)


def test_it_begins_when_every_gpu_has_samples_and_ends_with_the_first_that_has_none() -> None:
    span = energy_span([gpu("a", *STEADY), gpu("b", (20.0, 0.0), (50.0, 12_000.0))], 2, 0.0, None)
    assert span is not None
    assert (span.start, span.end) == (20.0, 50.0)


@pytest.mark.parametrize(
    ("series", "owned", "since"),
    [
        ([], 0, 0.0),
        ([gpu("a", *STEADY)], 2, 0.0),
        ([gpu("a", *STEADY), gpu("b")], 2, 0.0),
        ([gpu("a", *STEADY)], 1, 60.0),
        ([gpu("a", (0.0, 0.0), (30.0, 10_000_000.0))], 1, 0.0),
    ],
    ids=["no GPU", "a GPU is missing", "a GPU has no sample", "nothing since", "more than a GPU can draw"],
)
def test_energy_that_is_not_whole_is_none(series: list[GpuEnergySeries], owned: int, since: float) -> None:
    assert energy_span(series, owned, since, None) is None


def test_the_products_limit_stands_for_one_that_no_source_reports() -> None:
    hot = gpu("a", (0.0, 0.0), (30.0, 30_000.0), limit=None)
    assert energy_span([hot], 1, 0.0, None) is not None
    assert energy_span([hot], 1, 0.0, 300.0) is None
