"""Predictions that these tests remember are those that a predictor makes."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from tests.support.known_predictions import known_predictions
from tests.unit.predictor.models import layouts

from energylens.data import find_gpu, load_model, load_predictor
from energylens.predictor.core import Predictor
from energylens.predictor.prediction import Prediction
from energylens.predictor.types import Workload

MODEL, GPU = load_model("meta-llama/Llama-3.1-8B-Instruct"), find_gpu("H100")
PREDICTOR = load_predictor()


@pytest.fixture(autouse=True, scope="module")
def predictions() -> None:
    """Remember nothing outside the tests."""


def asked(predictor: Predictor, tokens: float = 500.0, rate: float = 1.0) -> Prediction:
    return predictor.at_rate(MODEL, GPU, layouts((1, 1, 1, 1)), Workload(tokens, 100.0), np.array([rate]))


def figures(found: Prediction) -> list[Any]:
    return [getattr(found, part.name) for part in fields(found)]


def test_a_remembered_prediction_is_the_one_that_is_made() -> None:
    fresh = [asked(PREDICTOR), asked(PREDICTOR, tokens=600.0), asked(PREDICTOR, rate=2.0)]
    with known_predictions():
        for _ in range(2):
            known = [asked(PREDICTOR), asked(PREDICTOR, tokens=600.0), asked(PREDICTOR, rate=2.0)]
            for ours, theirs in zip(known, fresh, strict=True):
                np.testing.assert_equal(figures(ours), figures(theirs))
        # Each start of an operator reads the profile anew.
        assert asked(load_predictor()) is asked(PREDICTOR)
    assert asked(PREDICTOR) is not asked(PREDICTOR)


def test_other_coefficients_are_another_predictor() -> None:
    other = Predictor(replace(PREDICTOR.coefficients), PREDICTOR.profile)
    with known_predictions():
        assert asked(other) is not asked(PREDICTOR)


def test_nobody_changes_what_the_next_one_is_told() -> None:
    with known_predictions(), pytest.raises(ValueError, match="read-only"):
        asked(PREDICTOR).power_watts[:] = 0.0
