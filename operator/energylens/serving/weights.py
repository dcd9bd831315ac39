"""The source of a model's files, ``spec.model.source``, as engine arguments, variables and volumes. Pure."""

from __future__ import annotations

from typing import Any

from energylens.api.llmdeployment import Model

WEIGHTS_PATH, WEIGHTS_VOLUME = "/weights", "energylens-weights"
CERTIFICATES_PATH, CERTIFICATES_VOLUME = "/etc/energylens/certificates", "energylens-certificates"
_NOTHING_IS_DOWNLOADED = {"HF_HUB_OFFLINE": "1"}


def model_argument(model: Model) -> str:
    """Return the engine's model argument: the id on a hub, or the folder in the container."""
    source = model.source
    if source is None or source.hub is not None:
        return model.name
    claim, image = source.persistent_volume_claim, source.image
    folder = claim.path if claim is not None else image.path if image is not None else ""
    return f"{WEIGHTS_PATH}/{folder}" if folder else WEIGHTS_PATH


def served_name(model: Model) -> str | None:
    """Return the name under which a folder is served, so that clients need not know the path; None for an id."""
    return None if model_argument(model) == model.name else model.name


def source_environment(model: Model) -> dict[str, str]:
    """Return the variables of the engine's container that the source needs.

    httpx and Python's ssl read ``SSL_CERT_FILE``, requests reads ``REQUESTS_CA_BUNDLE``; huggingface_hub moved from
    requests to httpx with 1.0.
    """
    if model.source is None:
        return {}
    hub = model.source.hub
    if hub is None:
        return dict(_NOTHING_IS_DOWNLOADED)
    found = {} if hub.endpoint is None else {"HF_ENDPOINT": hub.endpoint.rstrip("/")}
    found |= _NOTHING_IS_DOWNLOADED if hub.offline else {}
    if hub.ca_ref is not None:
        path = f"{CERTIFICATES_PATH}/{hub.ca_ref.key}"
        found |= {"SSL_CERT_FILE": path, "REQUESTS_CA_BUNDLE": path}
    return found


def source_volumes(model: Model) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return each volume of the pod that the source needs, with its mount in the engine's container."""
    source = model.source
    if source is None:
        return []
    if source.hub is not None:
        ref = source.hub.ca_ref
        if ref is None:
            return []
        config_map = {"name": ref.name, "items": [{"key": ref.key, "path": ref.key}]}
        return [_mounted({"name": CERTIFICATES_VOLUME, "configMap": config_map}, CERTIFICATES_PATH)]
    if source.persistent_volume_claim is not None:
        # Read-only in the mount alone: if the claim were attached read-only, its other pods could not write.
        claim = {"claimName": source.persistent_volume_claim.claim_name}
        return [_mounted({"name": WEIGHTS_VOLUME, "persistentVolumeClaim": claim}, WEIGHTS_PATH)]
    assert source.image is not None
    image = {"reference": source.image.reference}
    image |= {} if source.image.pull_policy is None else {"pullPolicy": source.image.pull_policy}
    return [_mounted({"name": WEIGHTS_VOLUME, "image": image}, WEIGHTS_PATH)]


def _mounted(volume: dict[str, Any], path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return volume, {"name": volume["name"], "mountPath": path, "readOnly": True}
