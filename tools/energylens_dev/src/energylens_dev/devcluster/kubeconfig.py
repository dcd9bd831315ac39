"""Kubeconfig files: self-contained (certificates and tokens embedded) and readable by their owner only."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import yaml

CONTEXT = "energylens-dev"
"""Name of the context, cluster and user in every kubeconfig written here."""


def client_certificate(certificate: bytes, key: bytes) -> dict[str, str]:
    """Return the user entry of a client certificate, from its PEM files' contents."""
    return {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}


def kubeconfig(server: str, authority: bytes, user: dict[str, str], namespace: str = "default") -> dict[str, Any]:
    """Return a kubeconfig with one context.

    Args:
        server: URL of the API server.
        authority: PEM certificate of the authority that signed the API server's certificate.
        user: The user entry: `{"token": ...}` or what `client_certificate` returns.
        namespace: The context's namespace.
    """
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": CONTEXT, "cluster": {"server": server, "certificate-authority-data": _base64(authority)}}
        ],
        "users": [{"name": CONTEXT, "user": dict(user)}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": namespace}}],
        "current-context": CONTEXT,
    }


def write_kubeconfig(path: Path, config: dict[str, Any]) -> None:
    """Write a kubeconfig with mode 0600, whole or not at all."""
    partial = path.with_name(f".{path.name}.tmp")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        yaml.safe_dump(config, file, sort_keys=False)
    partial.rename(path)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
