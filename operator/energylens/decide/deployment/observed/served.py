"""The served model and the predictor of its engine, from a deployment's spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from energylens.api.llmdeployment import LLMDeployment
from energylens.data import UnknownModelError, load_model, load_predictor
from energylens.decide.reasons import Reason
from energylens.planner.engines import tagged_version
from energylens.predictor import Predictor
from energylens.predictor.huggingface.config import UnsupportedConfigError, model_from_config
from energylens.predictor.model.architecture import ModelSpec


class ModelProblemError(Exception):
    """The model cannot be resolved; carries the condition's reason."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        super().__init__(message)


def model_of(deployment: LLMDeployment, config: Mapping[str, Any] | None) -> ModelSpec:
    """Return the shape of a deployment's model.

    Args:
        deployment: The LLMDeployment.
        config: The config.json of ``spec.model.configRef``.

    Raises:
        ModelProblemError: The catalogue lacks the model, or its config.json has an unsupported architecture.
    """
    spec = deployment.spec.model
    if spec.config_ref is None:
        try:
            return load_model(spec.name)
        except UnknownModelError as error:
            raise ModelProblemError(Reason.MODEL_UNKNOWN, f"spec.model.name={spec.name!r}: {error}") from error
    try:
        return model_from_config(config or {}, spec.name)
    except UnsupportedConfigError as error:
        where = f"spec.model.configRef={spec.config_ref.name!r}"
        raise ModelProblemError(Reason.MODEL_UNSUPPORTED, f"{where}: {error}") from error


def predictor_of(deployment: LLMDeployment) -> Predictor:
    """Return the predictor of a deployment's engine, in the version of its image.

    Raises:
        UnknownEngineError: There is no profile of the engine, or none that covers the version.
    """
    engine = deployment.spec.engine
    predictor: Predictor = load_predictor(engine.type.lower(), tagged_version(engine))
    return predictor
