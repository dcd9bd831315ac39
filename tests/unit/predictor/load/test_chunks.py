"""Steps of full replicas whose prompts are longer than a step."""

from __future__ import annotations

import numpy as np
import pytest

from energylens.predictor.load.chunks import Chunks
from energylens.predictor.load.mixture import StepMixture
from energylens.predictor.types import FloatArray


def chunks(room: FloatArray | float, starts: float = 0.1, spread: float = 0.4) -> Chunks:
    """Return steps of 10 ms that take 2 ms and 100 ms for each prompt longer if prompts start in them."""
    rooms = np.atleast_1d(np.asarray(room, dtype=np.float64))
    one = np.ones(rooms.size)
    together = starts / -np.expm1(-starts)
    mixture = StepMixture(starts * one, 0.01 * one, (0.012 + 0.1 * together) * one, 0.002 * one, spread)
    return Chunks(mixture, rooms, one)


def test_steps_with_room_for_all_prompts_are_those_of_the_mixture() -> None:
    roomy = chunks(50.0)
    for level in (0.9, 0.95, 0.99):
        np.testing.assert_allclose(roomy.quantile(level), roomy.mixture.tail(level), rtol=1e-6)
    np.testing.assert_allclose(roomy.longer, 0.0, atol=1e-6)
    np.testing.assert_allclose(roomy.of_prompt, 1.0, atol=1e-3)


def test_no_step_is_longer_than_a_full_one_and_shorter_steps_are_more() -> None:
    rooms = np.array([0.1, 0.2, 0.4, 0.8, 1.6])
    found = chunks(rooms)
    full = 0.012 + 0.1 * rooms
    for level in (0.5, 0.9, 0.95, 0.99):
        assert (found.quantile(level) <= full + 1e-9).all()
    # A prompt that fills eight steps makes more of them long than the one in twenty beyond P95.
    np.testing.assert_allclose(found.quantile(0.95)[:3], full[:3], rtol=0.02)
    # With one start in ten steps, prompts of ten steps leave hardly any without, and prompts of two leave most.
    np.testing.assert_allclose(found.quantile(0.5)[[0, 2, 3, 4]], [full[0], 0.01, 0.01, 0.01], rtol=0.01)
    assert (np.diff(found.of_prompt) < 0).all()
    np.testing.assert_allclose(found.of_prompt[:2], [10.5, 5.5], rtol=0.02)


@pytest.mark.parametrize("spread", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("starts", [0.02, 0.1, 0.5])
def test_quantiles_rise_with_the_level(spread: float, starts: float) -> None:
    found = chunks(np.geomspace(0.05, 20.0, 40), starts, spread)
    levels = [found.quantile(level) for level in (0.5, 0.9, 0.95, 0.99)]
    assert (np.diff(np.stack(levels), axis=0) >= -1e-9).all()
    assert np.isfinite(levels).all()
