"""Faults strike a whole operator in memory, with the real predictor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.known_predictions import known_predictions


@pytest.fixture(scope="module", autouse=True)
def predictions() -> Iterator[None]:
    """Predict the same only once, which is most of the time of tests that start an operator again and again."""
    with known_predictions():
        yield
