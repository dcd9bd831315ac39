from __future__ import annotations

import pytest

from energylens.planner.search import describe


@pytest.mark.parametrize(
    ("new", "text"),
    [
        (112.0, "12 % more energy"),
        (100.5, "0.5 % more energy"),
        (100.01, "as much energy (0.01 % more)"),
        (100.0, "as much energy"),
        (100.004, "as much energy"),
        (100.006, "as much energy (0.006 % more)"),
        (60.0, "40 % less energy"),
        (99.96, "as much energy (0.04 % less)"),
        (100.12, "0.1 % more energy"),
        (101.4, "1 % more energy"),
        (200.0, "100 % more energy"),
        (201.0, "2.0 times the energy"),
        (310.0, "3.1 times the energy"),
    ],
)
def test_compared(new: float, text: str) -> None:
    assert describe.compared(new, 100.0, "energy") == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (123.456, "123"),
        (12.39, "12.3"),
        (12.399999998, "12.4"),
        (1.239, "1.23"),
        (0.4567, "456m"),
        (0.0123, "12.3m"),
        (2000.0, "2000"),
        (1234567.0, "1230000"),
        (1.2345e18, "1.23e+18"),
        (0.3, "300m"),
        (0.00012345, "123u"),
        (1.5e-8, "15n"),
        (1e15, "1e+15"),
        (9.99e14, "999000000000000"),
        (0, "0"),
    ],
)
def test_rates_are_rounded_down(rate: float, text: str) -> None:
    from energylens.api.quantity import parse_quantity

    assert describe.floor_quantity(rate) == text
    assert float(parse_quantity(text)) <= rate * (1 + 1e-9)


def test_a_rate_below_what_a_quantity_can_say_is_the_smallest_and_not_nothing() -> None:
    assert describe.floor_quantity(1e-12) == describe.ceil_quantity(1e-12) == "1n"


@pytest.mark.parametrize(("value", "text"), [(12.31, "12.4"), (0.0123, "12.3m"), (1e-7, "100n"), (999.9, "1000")])
def test_rates_are_rounded_up(value: float, text: str) -> None:
    assert describe.ceil_quantity(value) == text


@pytest.mark.parametrize(("value", "text"), [(37.2, "38 ms"), (float("inf"), "unbounded"), (float("nan"), "unbounded")])
def test_milliseconds(value: float, text: str) -> None:
    assert describe.milliseconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.4123, "0.412 J"), (412.0, "412 J"), (12.3, "12.3 J")])
def test_joules(value: float, text: str) -> None:
    assert describe.joules(value) == text


@pytest.mark.parametrize(("value", "text"), [(141e9, "141 GB"), (12e9, "12 GB"), (10e9, "10 GB"), (8.03e9, "8.0 GB")])
def test_gigabytes(value: float, text: str) -> None:
    assert describe.gigabytes(value) == text


@pytest.mark.parametrize(("value", "whole"), [(9.0, 9), (9.0000000001, 9), (9.0000001, 9), (9.01, 10)])
def test_up(value: float, whole: int) -> None:
    assert describe.up(value) == whole


@pytest.mark.parametrize(
    ("predicted", "upper", "text"),
    [
        (28.4, 42.1, "ITL P95 29 ms, with the safety margin 43 ms > 30 ms"),
        (42.1, 42.1, "ITL P95 43 ms > 30 ms"),
        (42.1, 42.9, "ITL P95 43 ms > 30 ms"),
    ],
)
def test_a_broken_latency_shows_the_prediction_beside_the_bound(predicted: float, upper: float, text: str) -> None:
    assert describe.above("ITL P95", predicted, upper, 30) == text


def test_a_broken_energy_objective_shows_the_prediction_beside_the_bound() -> None:
    assert (
        describe.above_joules(0.31, 0.46, 0.4) == "0.310 J, with the safety margin 0.460 J > 0.400 J per output token"
    )
    assert describe.above_joules(0.46, 0.46, 0.4) == "0.460 J > 0.400 J per output token"


@pytest.mark.parametrize(
    ("share", "down", "whole"),
    [(0.57, 57, 57), (0.571, 57, 58), (0.0, 0, 0), (0.99999, 99, 100), (0.999999999, 100, 100), (1.2, 120, 120)],
)
def test_shares_are_whole_percentages(share: float, down: int, whole: int) -> None:
    assert (describe.percent(share), describe.percent_up(share)) == (down, whole)


def test_energies_of_a_start_and_of_a_week() -> None:
    assert describe.watt_hours(205_200.0) == "57 Wh"
    assert describe.kilowatt_hours(5.5152e8) == "153.2 kWh"


@pytest.mark.parametrize(
    ("share", "other", "texts"),
    [
        (0.1, 0.2, ("10", "20")),
        (0.101, 0.104, ("10.1", "10.4")),
        (0.10001, 0.10002, ("10.001", "10.002")),
        (0.123456, 0.123457, ("12.346", "12.346")),
        (0.5, 0.5, ("50.000", "50.000")),
    ],
)
def test_two_shares_show_their_difference_in_at_most_three_digits(
    share: float, other: float, texts: tuple[str, str]
) -> None:
    assert describe.two_percents(share, other) == texts
