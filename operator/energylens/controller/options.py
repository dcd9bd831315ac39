"""Options of the operator's command line."""

from __future__ import annotations

from pathlib import Path

from energylens.controller.settings import Settings
from energylens.records import dataclass


@dataclass(frozen=True)
class Options:
    """Options of the command line."""

    kubeconfig: Path | None
    metrics_port: int
    metrics_host: str
    """"" for all addresses."""
    namespaces: tuple[str, ...]
    lease_namespace: str
    settings: Settings
