"""Installs the operator's Helm chart, and runs the operator on this machine as the chart's own service account."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from energylens_dev.devcluster.commands import NAMESPACE
from energylens_dev.devcluster.errors import DevClusterError
from energylens_dev.devcluster.kubeconfig import kubeconfig, write_kubeconfig
from energylens_dev.devcluster.kubectl import Kubectl
from energylens_dev.devcluster.ports import LOOPBACK
from energylens_dev.devcluster.progress import Progress

RELEASE = "energylens"

VALUES = ("replicaCount=0",)
"""Chart values of a development cluster: nodes of kwok run no containers, so the operator runs on this machine."""

TOKEN_LIFETIME = timedelta(days=7)
_RENEW_BEFORE = timedelta(days=1)
_HELM_TIMEOUT_SECONDS = 300


class Helm:
    """helm with one kubeconfig and folders of its own, so that the user's repositories and plugins are left alone."""

    def __init__(self, program: Path, kubeconfig_file: Path, cache: Path) -> None:
        """Use `program` with `kubeconfig_file`; `cache` is a folder for helm's own files."""
        self._program = program
        self._kubeconfig = kubeconfig_file
        self._cache = cache

    def run(self, *arguments: str) -> str:
        """Run helm and return what it wrote to stdout.

        Raises:
            DevClusterError: With helm's message, when it fails or takes too long.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))}
        own = {f"HELM_{name}_HOME": str(self._cache / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        command = [str(self._program), *arguments, f"--kubeconfig={self._kubeconfig}"]
        try:
            answer = subprocess.run(
                command, env={**kept, **own}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                timeout=_HELM_TIMEOUT_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise DevClusterError(f"helm {arguments[0]} took longer than {_HELM_TIMEOUT_SECONDS} s") from error
        if answer.returncode != 0:
            raise DevClusterError(f"helm {arguments[0]} failed: {answer.stderr.strip() or answer.stdout.strip()}")
        return answer.stdout


def check_chart(folder: Path) -> None:
    """Check that there is a chart.

    Raises:
        DevClusterError: When its Chart.yaml is missing.
    """
    if not (folder / "Chart.yaml").is_file():
        raise DevClusterError(f"{folder} has no Chart.yaml: `--no-chart --no-operator` does without the chart")


def chart_digest(folder: Path) -> str:
    """Return the hash of every file of the chart and of the values it is installed with."""
    digest = hashlib.sha256("\0".join(VALUES).encode())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"\0{path.relative_to(folder)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def ensure_chart(helm: Helm, kubectl: Kubectl, folder: Path, installed: str | None, progress: Progress) -> str:
    """Install or upgrade the release, unless it is there unchanged.

    Args:
        helm: For this cluster.
        kubectl: For this cluster.
        folder: The chart.
        installed: What this function returned the last time, or None.
        progress: Told of the step.

    Returns:
        The digest of what is installed now.

    Raises:
        DevClusterError: With helm's message.
    """
    digest = chart_digest(folder)
    status = _release_status(kubectl)
    if status == "deployed" and installed == digest:
        return digest
    with progress.step("installing the chart"):
        if status is not None and status.startswith("pending"):
            # An interrupted run left it so, and helm refuses to touch it. What it made stays and is adopted below.
            kubectl.within(NAMESPACE).run("delete", "secret", "-l", f"owner=helm,name={RELEASE},status={status}")
        helm.run(
            "upgrade", RELEASE, str(folder), "--install", f"--namespace={NAMESPACE}", "--create-namespace",
            *(f"--set={value}" for value in VALUES),
        )  # fmt: skip
        kubectl.run("wait", "--for=condition=Established", "customresourcedefinitions", "--all", "--timeout=60s")
    return digest


def _release_status(kubectl: Kubectl) -> str | None:
    """Return the status of the release's newest revision, from the labels of the secrets that helm keeps it in."""
    secrets = kubectl.within(NAMESPACE).list("secrets", "-l", f"owner=helm,name={RELEASE}")
    revisions = [secret["metadata"]["labels"] for secret in secrets]
    return None if not revisions else str(max(revisions, key=lambda labels: int(labels["version"]))["status"])


def service_account(kubectl: Kubectl) -> dict[str, Any]:
    """Return the chart's service account.

    Raises:
        DevClusterError: When the release has none, or several.
    """
    found = kubectl.within(NAMESPACE).list("serviceaccounts", "-l", f"app.kubernetes.io/instance={RELEASE}")
    if len(found) != 1:
        names = [account["metadata"]["name"] for account in found]
        raise DevClusterError(
            f"release {RELEASE} must have one service account in {NAMESPACE} with the label "
            f"app.kubernetes.io/instance={RELEASE}, found {', '.join(names) or 'none'}"
        )
    return found[0]


def write_operator_kubeconfig(kubectl: Kubectl, path: Path, server: str, authority: Path) -> None:
    """Write a kubeconfig with a fresh token of the chart's service account.

    Args:
        kubectl: As administrator.
        path: The kubeconfig's file.
        server: URL of the API server.
        authority: Certificate of the cluster's authority.
    """
    name = service_account(kubectl)["metadata"]["name"]
    duration = f"--duration={int(TOKEN_LIFETIME.total_seconds())}s"
    token = kubectl.within(NAMESPACE).run("create", "token", name, duration).strip()
    write_kubeconfig(path, kubeconfig(server, authority.read_bytes(), {"token": token}, NAMESPACE))


def token_is_good(kubectl: Kubectl, path: Path, now: datetime) -> bool:
    """Whether the operator's kubeconfig has a token of the present service account that lasts another day.

    A token ends with its service account: after an uninstall and an install of the chart there is another of the same
    name. The token's own claims say for which it was made; asking the API server would not do, since it remembers the
    tokens that it has accepted for some seconds.

    Args:
        kubectl: As administrator.
        path: The operator's kubeconfig.
        now: The current time.
    """
    if not path.exists():
        return False
    token = yaml.safe_load(path.read_text(encoding="utf-8"))["users"][0]["user"]["token"]
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    lasts = datetime.fromtimestamp(claims["exp"], tz=UTC) - now
    owner = claims["kubernetes.io"]["serviceaccount"]["uid"]
    return lasts > _RENEW_BEFORE and owner == service_account(kubectl)["metadata"]["uid"]


def operator_command(kubeconfig_file: Path, metrics_port: int, extra: Sequence[str]) -> list[str]:
    """Return the operator's command line: this Python, so that it runs the code of this clone."""
    return [
        sys.executable, "-m", "energylens", "operator",
        f"--kubeconfig={kubeconfig_file}", f"--metrics-port={metrics_port}", *extra,
    ]  # fmt: skip


def metrics_url(port: int) -> str:
    """Return where the operator serves its metrics."""
    return f"http://{LOOPBACK}:{port}/metrics"
