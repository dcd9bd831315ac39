"""Faults strike a whole operator in memory, with the real predictor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.known_predictions import known_predictions


@pytest.fixture(scope="module", autouse=True)
def predictions() -> Iterator[None]:
    """Predict the same only once, since tests that restart the operator spend most of their time on predictions."""
    with known_predictions():
        yield
