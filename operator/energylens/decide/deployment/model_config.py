"""The config.json that ``spec.model.configRef`` names. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from energylens.api.llmdeployment import LLMDeployment
from energylens.decide.deployment.observation import Body, PlanChoice
from energylens.decide.reasons import Reason


def model_config(
    deployment: LLMDeployment, found: Body | None, unreadable: str = ""
) -> tuple[Mapping[str, Any] | None, PlanChoice | None]:
    """Return the config.json of the ConfigMap that is named, or the planning that says why there is none.

    Args:
        deployment: What needs it; both are None where it names no ConfigMap.
        found: The ConfigMap; None when it does not exist.
        unreadable: Why it may not be read; "" when it may.
    """
    current, ref = deployment.status.plan, deployment.spec.model.config_ref
    if ref is None:
        return None, None
    where = f"spec.model.configRef: ConfigMap {ref.name}"
    if unreadable:
        message = f"{where} may not be read: {unreadable}"
        return None, PlanChoice(current, None, False, Reason.MODEL_CONFIG_MISSING, message)
    if found is None:
        return None, PlanChoice(current, None, False, Reason.MODEL_CONFIG_MISSING, f"{where} does not exist")
    text = (found.get("data") or {}).get(ref.key)
    if text is None:
        keys = ", ".join(sorted(found.get("data") or {})) or "none"
        message = f"{where} has no key {ref.key!r}; its keys: {keys}"
        return None, PlanChoice(current, None, False, Reason.MODEL_CONFIG_MISSING, message)
    try:
        config = json.loads(text)
        if not isinstance(config, dict):
            raise ValueError("not a JSON object")
    except ValueError as error:
        message = f"{where}, key {ref.key!r}: {error}"
        return None, PlanChoice(current, None, False, Reason.MODEL_UNSUPPORTED, message)
    return config, None
