from __future__ import annotations

import math
import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.api.quantity import QUANTITY_PATTERN, decimal_text, format_milli, parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", "2"), (2, "2"), ("0.5", "0.5"), ("500m", "0.5"), ("412u", "0.000412"), ("3n", "0.000000003"),
        ("1k", "1000"), ("1Ki", "1024"), ("1.5Gi", "1610612736"), ("1e3", "1000"), ("1E-3", "0.001"), ("2E", "2e18"),
        # ParseQuantity of Kubernetes rounds up to 1n, away from zero, and caps at 2^63 - 1.
        ("1e-30", "1e-9"), ("1.0000000001", "1.000000001"), ("-1e-30", "-1e-9"), ("0", "0"),
        ("1e30", "9223372036854775807"), ("-9e99", "-9223372036854775807"), ("9E", "9e18"),
        ("10E", "9223372036854775807"),
        ("5.", "5"), (".5", "0.5"), ("+1", "1"), ("-1m", "-0.001"),
    ],
)  # fmt: skip
def test_quantities_have_the_value_that_kubernetes_gives_them(text: str | int, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "m", "1 m", " 1", "1\n", "1mi", "0x1", "1,5", "1e", "1e3m", "١", "nan", "1e400"])
def test_other_text_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        parse_quantity(text)


@given(st.from_regex(QUANTITY_PATTERN, fullmatch=True))
def test_what_the_schema_lets_through_can_be_read(text: str) -> None:
    assert parse_quantity(text).is_finite()


@given(st.text(alphabet="0123456789.+-eEmkMGKiu ", max_size=8))
def test_what_can_be_read_the_schema_lets_through(text: str) -> None:
    try:
        parse_quantity(text)
    except ValueError:
        assert re.fullmatch(QUANTITY_PATTERN, text) is None
    else:
        assert re.fullmatch(QUANTITY_PATTERN, text) is not None


# Smaller figures lose digits when they are read: a Quantity is rounded up to a whole billionth, as Kubernetes does.
@given(st.floats(min_value=1e-6, max_value=1e9))
def test_a_formatted_figure_keeps_three_digits_in_one_unit(value: float) -> None:
    text = format_milli(value)
    assert re.fullmatch(QUANTITY_PATTERN, text)
    assert text.endswith("m"), "figures in one column have one unit"
    assert math.isclose(float(parse_quantity(text)), value, rel_tol=5e-3)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.1284, "1128m"), (0.412, "412m"), (0.0798963, "79.9m"), (0.005, "5m"), (0.0999999, "100m"), (0.0, "0")],
)
def test_figures_below_a_tenth_keep_the_unit_of_their_column(value: float, text: str) -> None:
    assert format_milli(value) == text


@pytest.mark.parametrize(
    ("quantity", "text"), [("29100m", "29.1"), ("2", "2"), (1000, "1000"), ("4000m", "4"), ("1k", "1000"), ("0", "0")]
)
def test_messages_have_decimal_numbers(quantity: str | int, text: str) -> None:
    assert decimal_text(quantity) == text
