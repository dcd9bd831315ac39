"""Predictions: turns model, hardware, layout and load into latency, power and energy. NumPy only: no I/O, no clock."""

from energylens.predictor.core import Predictor
from energylens.predictor.fitted.coefficients import Coefficients, CoefficientsError
from energylens.predictor.fitted.profiles import EngineProfile, UnknownEngineError

__all__ = ["Coefficients", "CoefficientsError", "EngineProfile", "Predictor", "UnknownEngineError"]
