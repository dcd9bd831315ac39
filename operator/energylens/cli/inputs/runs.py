"""Functions shared by the commands that read tables of runs."""

from __future__ import annotations

from functools import cache

from energylens.predictor import Predictor
from energylens.predictor.fitted.profiles import parse_engine


@cache
def predictor_for(engine: str | None) -> Predictor:
    """Return the shipped predictor of an engine such as ``vllm==0.11.1``; None means vLLM's newest profile.

    Raises:
        UnknownEngineError: no profile of that engine, or none that covers the version.
        ValueError: the version is not a version.
    """
    from energylens.data import load_predictor

    found: Predictor = load_predictor() if engine is None else load_predictor(*parse_engine(engine))
    return found
