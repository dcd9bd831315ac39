"""Tokens and latencies where no energy is known."""

from __future__ import annotations

import pytest

from energylens.measure.types import Sample, TokenSeries
from energylens.measure.window import WindowOptions, measure_load


def series(pod: str, rate: float, until: float = 600.0) -> TokenSeries:
    times = [60.0 * i for i in range(int(until / 60) + 1)]
    counter = tuple(Sample(time, rate * time) for time in times)
    return TokenSeries(pod, "team", counter, prompt_tokens=counter, requests=tuple(Sample(t, t) for t in times))


def test_tokens_of_all_engines_are_added_and_energy_is_not_known() -> None:
    options = WindowOptions(end=600.0, window_seconds=600.0, engines_expected=2)
    found = measure_load([series("a", 10.0), series("b", 5.0)], options)
    assert found.output_tokens_per_second == pytest.approx(15.0)
    assert found.requests_per_second == pytest.approx(2.0)
    assert (found.energy_joules, found.power_watts, found.joules_per_output_token) == (None, None, None)
    assert found.reason == "NoSeries"


@pytest.mark.parametrize(
    ("given", "engines", "reason", "message"),
    [
        ([], 1, "TokensMissing", "token counters were found for 0 of 1 engine pods"),
        ([series("a", 1.0)], 2, "TokensMissing", "token counters were found for 1 of 2 engine pods"),
        ([series("a", 1.0, until=60.0)], 1, "TokensMissing", "token counters were found for 0 of 1 engine pods"),
    ],
)
def test_what_is_missing_is_told(given: list[TokenSeries], engines: int, reason: str, message: str) -> None:
    found = measure_load(given, WindowOptions(end=600.0, window_seconds=600.0, engines_expected=engines))
    assert (found.reason, found.message, found.output_tokens) == (reason, message, None)


def test_a_window_that_is_not_full_is_told() -> None:
    late = TokenSeries("a", "team", tuple(Sample(500.0 + 10 * i, i) for i in range(11)))
    found = measure_load([late], WindowOptions(end=600.0, window_seconds=600.0))
    assert (found.reason, found.message) == ("Collecting", "100 s of tokens so far, 480 s are needed")
