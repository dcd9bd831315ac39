"""The config.json that ``spec.model.configRef`` names. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from energylens.api.llmdeployment import ConfigMapKeyRef, LLMDeployment
from energylens.decide.deployment.observation import Body, Planning
from energylens.decide.reasons import Reason


def model_config(
    deployment: LLMDeployment, ref: ConfigMapKeyRef, found: Body | None
) -> tuple[Mapping[str, Any] | None, Planning | None]:
    """Return the config.json of a ConfigMap, or the planning that says why there is none.

    Args:
        deployment: What needs it.
        ref: Where it is.
        found: The ConfigMap; None when it does not exist.
    """
    current = deployment.status.plan
    where = f"spec.model.configRef: ConfigMap {ref.name}"
    if found is None:
        return None, Planning(current, None, False, Reason.MODEL_CONFIG_MISSING, f"{where} does not exist")
    text = (found.get("data") or {}).get(ref.key)
    if text is None:
        keys = ", ".join(sorted(found.get("data") or {})) or "none"
        message = f"{where} has no key {ref.key!r}; its keys: {keys}"
        return None, Planning(current, None, False, Reason.MODEL_CONFIG_MISSING, message)
    try:
        config = json.loads(text)
        if not isinstance(config, dict):
            raise ValueError("not a JSON object")
    except ValueError as error:
        message = f"{where}, key {ref.key!r}: {error}"
        return None, Planning(current, None, False, Reason.MODEL_UNSUPPORTED, message)
    return config, None
