"""Whether an engine can serve a model with prefill and decode on separate replicas."""

from __future__ import annotations

from energylens.api.llmdeployment import PlanStatus
from energylens.planner.engines.settings import EngineSettings
from energylens.planner.engines.versions import Version, display
from energylens.predictor.model.architecture import GatedDeltaNet, Mamba2, ModelSpec

SINCE: dict[str, Version] = {"VLLM": (0, 33), "SGLang": (0, 5, 23)}
"""First version of an engine with which the options and variables of its connector were checked. In vLLM these changed
several times: 0.32 removed fields of ``--kv-transfer-config`` and forbids them, older versions lack the check that two
replicas are compatible, or cannot read the cache of a larger tensor-parallel size (vllm-project/vllm pull requests
29503 and 27274)."""
DECODES_ALONE = frozenset({"VLLM"})
"""Engines whose decode replicas also process prompts. SGLang's answer a request without a prefill replica with status
400 (``bootstrap_room`` in managers/scheduler.py, 0.5.23), so that nothing serves while pods that cannot exchange the KV
cache replace each other."""


def refuses_roles(model: ModelSpec, settings: EngineSettings) -> str:
    """Return why separate replicas for prefill and decode cannot be served; "" if they can.

    What NixlConnector transfers: docs/features/nixl_connector_compatibility.md of vLLM. Hybrid models need equal
    tensor-parallel sizes there, and multimodal models were not validated. SGLang's transfer of recurrent states was
    not checked.
    """
    since = SINCE[settings.engine]
    if settings.version < since:
        return (
            f"{display(settings.engine, settings.version)} is older than {display(settings.engine, since)}, the first "
            "version with which its transfer of the KV cache was checked; name a newer spec.engine.image"
        )
    if any(isinstance(group.mixer, Mamba2 | GatedDeltaNet) for group in model.layers):
        return "the model has a recurrent state, which is not transferred between replicas of different sizes"
    if model.towers:
        return "the model has an encoder, and neither engine names a multimodal model as validated with its transfer"
    return ""


def interrupts(engine: str, current: PlanStatus | None, new: PlanStatus) -> str:
    """Return why serving stops while a plan replaces another one; "" if it goes on.

    Args:
        engine: ``spec.engine.type``.
        current: The running plan; None if nothing runs.
        new: The plan to follow.
    """
    if engine in DECODES_ALONE or current is None or new.prefill is None:
        return ""
    fields = ("serving_hash", "gpu_product", "tensor_parallel")
    if current.prefill is not None and all(getattr(current, name) == getattr(new, name) for name in fields):
        return ""
    return f"decode replicas of {engine} process no prompts, so that nothing would serve until all new pods are ready"
