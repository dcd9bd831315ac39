"""The config.json that ``spec.model.configRef`` names. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from energylens.api.llmdeployment import LLMDeployment
from energylens.decide.deployment.observed.named_maps import NamedMap
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.reasons import Reason


def model_config(deployment: LLMDeployment, named: NamedMap) -> tuple[Mapping[str, Any] | None, PlanChoice | None]:
    """Return the config.json from the named ConfigMap, or the choice with the reason why there is none.

    Args:
        deployment: The LLMDeployment; both results are None if its spec names no ConfigMap.
        named: The ConfigMap.
    """
    current, ref = deployment.status.plan, deployment.spec.model.config_ref
    if ref is None:
        return None, None
    where = f"spec.model.configRef: ConfigMap {ref.name}"
    text, missing = named.text(where, ref.key)
    if missing:
        return None, PlanChoice(current, None, False, Reason.MODEL_CONFIG_MISSING, missing)
    try:
        config = json.loads(text)
        if not isinstance(config, dict):
            raise ValueError("not a JSON object")
    except ValueError as error:
        message = f"{where}, key {ref.key!r}: {error}"
        return None, PlanChoice(current, None, False, Reason.MODEL_UNSUPPORTED, message)
    return config, None
