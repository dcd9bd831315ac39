"""Lengths of requests from the engines' histograms."""

from __future__ import annotations

import math

import pytest
from tests.unit.measure.builders import engine, options

from energylens.measure.engine_metrics import parse_engine
from energylens.measure.lengths import lengths_of
from energylens.measure.load import load_figures
from energylens.measure.types import Histogram, HistogramSample, LengthQuantile, PodRef

BOUNDS = (100.0, 200.0, 500.0, 1000.0, math.inf)


def samples(*per_second: float) -> tuple[HistogramSample, ...]:
    """Return cumulative counts at 0 and 600 s, from observations per second in each bucket."""
    counts = [sum(per_second[: i + 1]) for i in range(len(per_second))]
    return tuple(HistogramSample(time, Histogram(BOUNDS, tuple(time * n for n in counts))) for time in (0.0, 600.0))


def test_quantiles_are_interpolated_within_their_buckets_and_say_so() -> None:
    found = lengths_of([samples(0, 9, 0, 1, 0)], 0.0, 600.0)
    assert found["P50"].bucket == (100.0, 200.0)
    assert found["P50"].tokens == pytest.approx(100 + 100 * 5 / 9)
    assert found["P95"] == LengthQuantile(750.0, (500.0, 1000.0))


def test_beyond_the_last_bound_the_length_is_only_known_to_be_above() -> None:
    assert lengths_of([samples(0, 0, 0, 0, 1)], 0.0, 600.0)["P95"] == LengthQuantile(1000.0, (1000.0, math.inf))


def test_engines_count_together() -> None:
    found = lengths_of([samples(3, 0, 0, 0, 0), samples(0, 0, 0, 1, 0)], 0.0, 600.0)
    assert found["P50"].bucket == (0.0, 100.0)
    assert found["P95"].bucket == (500.0, 1000.0)


def test_an_engine_without_the_histogram_leaves_no_figure() -> None:
    assert lengths_of([samples(1, 0, 0, 0, 0), ()], 0.0, 600.0) == {}
    assert lengths_of([], 0.0, 600.0) == {}
    assert load_figures([engine()], options().start, options().end, "P95")["prompt_lengths"] == {}


@pytest.mark.parametrize(
    ("prompts", "outputs"),
    [
        ("vllm:request_prompt_tokens", "vllm:request_generation_tokens"),
        ("sglang:prompt_tokens_histogram", "sglang:generation_tokens_histogram"),
    ],
)
def test_each_engine_has_its_names(prompts: str, outputs: str) -> None:
    text = "".join(
        f'{name}_bucket{{model_name="m",engine="{rank}",le="{le}"}} {count}\n'
        for rank in (0, 1)
        for name, one in ((prompts, 4), (outputs, 7))
        for le, count in (("200.0", one), ("+Inf", one + 1))
    )
    seen = parse_engine(text, pod=PodRef("team", "a"), time=1.0)
    assert seen is not None
    assert seen.prompt_length == Histogram((200.0, math.inf), (8, 10))
    assert seen.output_length == Histogram((200.0, math.inf), (14, 16))
