"""Predictions that are made once: a test that breaks the operator at every write repeats the same plan many times."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import lru_cache, wraps

import numpy as np
import pytest

from energylens.predictor.core import Predictor
from energylens.predictor.prediction import Prediction

_METHODS = ("at_rate", "at_concurrency")
_KEPT = 1000


@dataclass(frozen=True)
class _Call:
    """A call of a predictor; calls with equal arguments are equal."""

    key: tuple[str, int, bytes]
    predict: Callable[[], Prediction] = field(compare=False)


@lru_cache(maxsize=_KEPT)
def _known(call: _Call) -> Prediction:
    found = call.predict()
    for part in fields(found):
        value = getattr(found, part.name)
        if isinstance(value, np.ndarray):
            # Whoever changed the answer would change it for the next caller too.
            value.setflags(write=False)
    return found


@contextmanager
def known_predictions() -> Iterator[None]:
    """Let predictors remember what they predicted; they are functions of their arguments."""

    def remembering(name: str, method: Callable[..., Prediction]) -> Callable[..., Prediction]:
        @wraps(method)
        def predict(self: Predictor, *arguments: object, **named: object) -> Prediction:
            # The call keeps the coefficients alive, so that no others get their id.
            key = name, id(self.coefficients), pickle.dumps((self.profile, arguments, sorted(named.items())))
            return _known(_Call(key, lambda: method(self, *arguments, **named)))

        return predict

    with pytest.MonkeyPatch.context() as patch:
        for name in _METHODS:
            patch.setattr(Predictor, name, remembering(name, getattr(Predictor, name)))
        yield
