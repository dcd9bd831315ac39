"""Whether an engine can serve a model with prefill and decode on separate replicas."""

from __future__ import annotations

from energylens.planner.engines.settings import EngineSettings
from energylens.planner.engines.versions import Version, display
from energylens.predictor.model.architecture import GatedDeltaNet, Mamba2, ModelSpec

SINCE: dict[str, Version] = {"VLLM": (0, 33)}
"""First version of an engine with which the options and variables of its connector were checked. In vLLM these changed
several times: 0.32 removed fields of ``--kv-transfer-config`` and forbids them, older versions lack the check that two
replicas are compatible, or cannot read the cache of a larger tensor-parallel size (vllm-project/vllm pull requests
29503 and 27274)."""


def refuses_roles(model: ModelSpec, settings: EngineSettings) -> str:
    """Return why separate replicas for prefill and decode cannot be served; "" if they can.

    What NixlConnector transfers: docs/features/nixl_connector_compatibility.md of vLLM. Hybrid models need equal
    tensor-parallel sizes there, and multimodal models were not validated.
    """
    since = SINCE.get(settings.engine)
    if since is None:
        return f"{settings.name} is not started with separate prefill and decode; set spec.engine.type=VLLM"
    if settings.version < since:
        return (
            f"{display(settings.engine, settings.version)} is older than {display(settings.engine, since)}, the first "
            "version with which its transfer of the KV cache was checked; name a newer spec.engine.image"
        )
    if any(isinstance(group.mixer, Mamba2 | GatedDeltaNet) for group in model.layers):
        return "the model has a recurrent state, which is not transferred between replicas of different sizes"
    if model.towers:
        return "the model has an encoder, and vLLM lists no multimodal model as validated with its NIXL connector"
    return ""
