"""Which of kwok's own rule files ("stages") make its nodes and pods behave, and how fast."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

STAGE_FOLDERS = (
    "rbac",
    "stage/node/fast",
    "stage/node/heartbeat-with-lease",
    "stage/pod/chaos",
    "stage/pod/fast",
    "stage/pod/general",
    "stage/volume/fast",
    "stage/volume/rbac",
)
"""Folders under kustomize/ of kwok's Go module that are kept beside its binary."""


class PodStages(StrEnum):
    """How long a pod on a kwok node takes to start and to end."""

    LIFE_LIKE = "life-like"
    """Seconds, through init containers; a pod's annotations can set each delay (kwok's stage/pod/general)."""
    FAST = "fast"
    """At once (kwok's stage/pod/fast)."""


_STORAGE_CLASS = "storage-class.yaml"


def stage_files(folder: Path, pods: PodStages) -> list[Path]:
    """Return the stage files to pass to kwok, in a fixed order.

    The chaos stages are always among them: they act only on pods whose labels ask for a failure.

    Args:
        folder: Where STAGE_FOLDERS were copied to.
        pods: Which pod stages to use.
    """
    pod_folder = "general" if pods is PodStages.LIFE_LIKE else "fast"
    folders = [
        "stage/node/fast",
        "stage/node/heartbeat-with-lease",
        f"stage/pod/{pod_folder}",
        "stage/pod/chaos",
        "stage/volume/fast",
    ]
    return [
        path
        for name in folders
        for path in sorted((folder / name).glob("*.yaml"))
        if path.name not in ("kustomization.yaml", _STORAGE_CLASS)
    ]


def manifest_files(folder: Path) -> list[Path]:
    """Return the manifests that kwok needs in the cluster: its cluster roles and the storage class it provisions.

    Args:
        folder: Where STAGE_FOLDERS were copied to.
    """
    return [
        folder / "rbac" / "role.yaml",
        folder / "stage" / "volume" / "rbac" / "role.yaml",
        folder / "stage" / "volume" / "fast" / _STORAGE_CLASS,
    ]
