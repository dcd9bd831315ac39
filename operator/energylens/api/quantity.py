"""Kubernetes quantities: decimal numbers with an optional SI or binary suffix, kept as strings on the wire.

The API server takes a quantity as a string (``"0.5"``, ``500m``) or as a whole number (``2``), and refuses a YAML
number with a fraction (``0.5``): a float has no exact decimal value, so Kubernetes APIs have none. Files read by the
CLI are held to the same rule.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_UP, Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, StringConstraints, WithJsonSchema

_SUFFIX = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10) ** 3, "M": Decimal(10) ** 6, "G": Decimal(10) ** 9, "T": Decimal(10) ** 12, "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18, "Ki": Decimal(2) ** 10, "Mi": Decimal(2) ** 20, "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40, "Pi": Decimal(2) ** 50, "Ei": Decimal(2) ** 60,
}  # fmt: skip
QUANTITY_PATTERN = r"^[+-]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?[0-9]{1,2}))?$"
_PARTS = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:(?P<exponent>[eE][+-]?[0-9]{1,2})|(?P<suffix>[KMGTPE]i|[numkMGTPE]))?"
)
_MAX_LENGTH = 32
_SMALLEST = Decimal("1e-9")
_LARGEST = Decimal(2**63 - 1)
"""What Kubernetes rounds up to and caps at: ParseQuantity in k8s.io/apimachinery, pkg/api/resource/quantity.go."""


def parse_quantity(text: str | int) -> Decimal:
    """Return the value of a quantity such as ``1500m``, ``2k`` or ``0.5``.

    As in Kubernetes digits below 1n are rounded up, away from zero, and nothing is beyond 2^63 - 1: ``1e-30`` is 1n.

    Raises:
        ValueError: the text is not a quantity; the message quotes it.
    """
    match = _PARTS.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is not a Kubernetes quantity such as 2, 0.5, 1500m or 2k")
    value = Decimal(match["number"] + (match["exponent"] or "")) * _SUFFIX[match["suffix"] or ""]
    if abs(value) >= _LARGEST:
        return _LARGEST.copy_sign(value)
    return (value / _SMALLEST).to_integral_value(ROUND_UP) * _SMALLEST


def decimal_text(quantity: str | int) -> str:
    """Return a quantity as a decimal number, for messages: ``29100m`` is ``29.1``.

    Raises:
        ValueError: the text is not a quantity.
    """
    return f"{parse_quantity(quantity).normalize():f}"


def format_milli(value: float) -> str:
    """Return a quantity in milli units with at least three significant digits: 0.4123 is ``412m``, 0.0798963 ``79.9m``.

    One unit for every size, so that numbers in one column compare at a glance.
    """
    milli = Decimal(repr(float(value))) * 1000
    if abs(milli) >= 100:
        return f"{round(milli)}m"
    text = f"{Decimal(f'{milli:.3e}'):f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"{text}m" if float(text) else "0"


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        milli = (Decimal(repr(value)) * 1000).normalize() if math.isfinite(value) else Decimal(0)
        raise ValueError(f'{value!r} is a number with a fraction; write it as a string: "{value!r}" or "{milli:f}m"')
    return str(value) if isinstance(value, int) else value


def _is_quantity(value: str) -> str:
    parse_quantity(value)
    return value


def _positive(value: str) -> str:
    if parse_quantity(value) <= 0:
        raise ValueError(f"{value!r} must be greater than 0")
    return value


def _scv(value: str) -> str:
    if not 1 <= parse_quantity(value) <= LARGEST_SCV:
        raise ValueError(f"{value!r} must be from 1 (Poisson arrivals) to {LARGEST_SCV}")
    return value


def _length_scv(value: str) -> str:
    if not 0 <= parse_quantity(value) <= LARGEST_SCV:
        raise ValueError(f"{value!r} must be from 0 (all of one length) to {LARGEST_SCV}")
    return value


LARGEST_SCV = 100
"""Beyond this squared coefficient of variation nothing of the serving model was compared with a simulation."""
_SCHEMA: dict[str, Any] = {
    "x-kubernetes-int-or-string": True,
    "pattern": QUANTITY_PATTERN,
    "maxLength": _MAX_LENGTH,
}
_POSITIVE_RULE = {
    "rule": "quantity(string(self)).isGreaterThan(quantity('0'))",
    "message": "must be greater than 0",
    "messageExpression": "'%s must be greater than 0'.format([self])",
}

_SCV_RULE = {
    "rule": f"quantity(string(self)).compareTo(quantity('1')) >= 0 && "
    f"quantity(string(self)).compareTo(quantity('{LARGEST_SCV}')) <= 0",
    "message": f"must be from 1 (Poisson arrivals) to {LARGEST_SCV}",
    "messageExpression": f"'%s must be from 1 (Poisson arrivals) to {LARGEST_SCV}'.format([self])",
}

_LENGTH_RULE = {
    "rule": f"quantity(string(self)).compareTo(quantity('0')) >= 0 && "
    f"quantity(string(self)).compareTo(quantity('{LARGEST_SCV}')) <= 0",
    "message": f"must be from 0 (all of one length) to {LARGEST_SCV}",
    "messageExpression": f"'%s must be from 0 (all of one length) to {LARGEST_SCV}'.format([self])",
}

Quantity = Annotated[
    str,
    BeforeValidator(_as_text),
    StringConstraints(max_length=_MAX_LENGTH),
    AfterValidator(_is_quantity),
    WithJsonSchema(_SCHEMA),
]
PositiveQuantity = Annotated[
    Quantity, AfterValidator(_positive), WithJsonSchema(_SCHEMA | {"x-kubernetes-validations": [_POSITIVE_RULE]})
]
SquaredVariation = Annotated[
    Quantity, AfterValidator(_scv), WithJsonSchema(_SCHEMA | {"x-kubernetes-validations": [_SCV_RULE]})
]
LengthVariation = Annotated[
    Quantity, AfterValidator(_length_scv), WithJsonSchema(_SCHEMA | {"x-kubernetes-validations": [_LENGTH_RULE]})
]
