"""Command lines and configuration of the control plane's programs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from energylens_dev.devcluster.ports import LOOPBACK

SERVICE_CIDR = "10.96.0.0/16"
KUBERNETES_SERVICE_IP = "10.96.0.1"
"""First address of SERVICE_CIDR: the API server takes it for the Service `kubernetes`."""

POD_CIDR = "10.244.0.1/16"
"""Where kwok takes the addresses of pods from; nothing answers there."""

FEATURES = "DRADeviceTaintRules=true"
"""Feature gates of Kubernetes 1.36 that are off by default, and that the operator knows."""
TAINT_RULES_API = "resource.k8s.io/v1beta2/devicetaintrules"
ISSUER = "https://kubernetes.default.svc.cluster.local"
NAMESPACE = "energylens-system"
"""Namespace of the chart's release."""

ETCD, API_SERVER, KWOK = "etcd", "kube-apiserver", "kwok"
CONTROLLER_MANAGER, SCHEDULER, OPERATOR = "kube-controller-manager", "kube-scheduler", "operator"
CONTROL_PLANE_PROCESSES = (ETCD, API_SERVER, CONTROLLER_MANAGER, SCHEDULER, KWOK)
"""In the order in which they start; they stop in the reverse order."""

PORT_NAMES = (ETCD, "etcd-peer", API_SERVER, CONTROLLER_MANAGER, SCHEDULER, KWOK, OPERATOR)

KWOK_USER = "system:kwok-controller"

CLIENTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "admin": ("kubernetes-admin", ("system:masters",)),
    CONTROLLER_MANAGER: ("system:kube-controller-manager", ()),
    SCHEDULER: ("system:kube-scheduler", ()),
    KWOK: (KWOK_USER, ()),
}
"""User name and groups in the client certificate of each user of the API server."""


@dataclass(frozen=True)
class Files:
    """Files that the command lines name.

    Attributes:
        authority: Certificate of the cluster's authority.
        etcd: Certificate and key of etcd, as server, peer and client.
        server: Certificate and key of the API server and the other servers.
        service_account: Public and private key of service account tokens.
        kubeconfigs: Kubeconfig of each program that talks to the API server.
        etcd_data: etcd's data directory.
        audit_policy: See `audit_policy`.
        audit_log: One JSON event per line.
        stages: kwok's stage files.
    """

    authority: Path
    etcd: tuple[Path, Path]
    server: tuple[Path, Path]
    service_account: tuple[Path, Path]
    kubeconfigs: Mapping[str, Path]
    etcd_data: Path
    audit_policy: Path
    audit_log: Path
    stages: Sequence[Path]


def command_lines(programs: Mapping[str, Path], ports: Mapping[str, int], files: Files) -> dict[str, list[str]]:
    """Return the command line of each process of the control plane.

    Args:
        programs: Path of each program.
        ports: Port of each of PORT_NAMES.
        files: See `Files`.
    """
    arguments = {
        ETCD: _etcd(ports, files),
        API_SERVER: _api_server(ports, files),
        CONTROLLER_MANAGER: _controller_manager(ports, files),
        SCHEDULER: _authenticated(SCHEDULER, ports, files),
        KWOK: _kwok(ports, files),
    }
    return {name: [str(programs[name]), *lines] for name, lines in arguments.items()}


def health_urls(ports: Mapping[str, int]) -> dict[str, str]:
    """Return the URL of each process that answers 200 once it is ready."""
    return {
        ETCD: f"https://{LOOPBACK}:{ports[ETCD]}/health",
        API_SERVER: f"https://{LOOPBACK}:{ports[API_SERVER]}/readyz",
        CONTROLLER_MANAGER: f"https://{LOOPBACK}:{ports[CONTROLLER_MANAGER]}/healthz",
        SCHEDULER: f"https://{LOOPBACK}:{ports[SCHEDULER]}/readyz",
        KWOK: f"http://{LOOPBACK}:{ports[KWOK]}/healthz",
    }


def _etcd(ports: Mapping[str, int], files: Files) -> list[str]:
    client, peer = f"https://{LOOPBACK}:{ports[ETCD]}", f"https://{LOOPBACK}:{ports['etcd-peer']}"
    certificate, key = files.etcd
    return [
        "--name=dev",
        f"--data-dir={files.etcd_data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=dev={peer}",
        f"--cert-file={certificate}",
        f"--key-file={key}",
        f"--trusted-ca-file={files.authority}",
        "--client-cert-auth",
        f"--peer-cert-file={certificate}",
        f"--peer-key-file={key}",
        f"--peer-trusted-ca-file={files.authority}",
        "--peer-client-cert-auth",
        # What a crash of the whole machine would lose is a development cluster.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _api_server(ports: Mapping[str, int], files: Files) -> list[str]:
    public, private = files.service_account
    return [
        f"--etcd-servers=https://{LOOPBACK}:{ports[ETCD]}",
        f"--etcd-cafile={files.authority}",
        f"--etcd-certfile={files.etcd[0]}",
        f"--etcd-keyfile={files.etcd[1]}",
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={LOOPBACK}",
        f"--secure-port={ports[API_SERVER]}",
        f"--tls-cert-file={files.server[0]}",
        f"--tls-private-key-file={files.server[1]}",
        f"--client-ca-file={files.authority}",
        "--authorization-mode=RBAC",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={public}",
        f"--service-account-signing-key-file={private}",
        # There is one API server on loopback: no endpoints of it to keep for pods that do not run anyway.
        "--endpoint-reconciler-type=none",
        "--allow-privileged=true",
        f"--runtime-config={TAINT_RULES_API}=true",
        f"--feature-gates={FEATURES}",
        f"--audit-policy-file={files.audit_policy}",
        f"--audit-log-path={files.audit_log}",
        "--audit-log-maxsize=256",
        "--audit-log-maxbackup=1",
    ]


def _authenticated(name: str, ports: Mapping[str, int], files: Files) -> list[str]:
    kubeconfig = files.kubeconfigs[name]
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={ports[name]}",
        f"--tls-cert-file={files.server[0]}",
        f"--tls-private-key-file={files.server[1]}",
        "--leader-elect=false",
        f"--feature-gates={FEATURES}",
        # The defaults (20 to 50 requests per second) make a few hundred pods take minutes.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def _controller_manager(ports: Mapping[str, int], files: Files) -> list[str]:
    return [
        *_authenticated(CONTROLLER_MANAGER, ports, files),
        f"--service-account-private-key-file={files.service_account[1]}",
        f"--root-ca-file={files.authority}",
        "--use-service-account-credentials=true",
    ]


def _kwok(ports: Mapping[str, int], files: Files) -> list[str]:
    return [
        f"--kubeconfig={files.kubeconfigs[KWOK]}",
        "--manage-all-nodes=true",
        "--node-lease-duration-seconds=40",
        f"--server-address={LOOPBACK}:{ports[KWOK]}",
        f"--cidr={POD_CIDR}",
        *(f"--config={path}" for path in files.stages),
    ]


def audit_policy() -> dict[str, Any]:
    """Return the API server's audit policy: the metadata of every write, and of every request of the operator.

    What kwok and leases write all the time is left out, so that the log stays readable and small.
    """
    writes = ["create", "update", "patch", "delete", "deletecollection"]
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {
                "level": "None",
                "users": [KWOK_USER],
                "resources": [
                    {"group": "", "resources": ["nodes", "nodes/status"]},
                    {"group": "coordination.k8s.io", "resources": ["leases"]},
                ],
            },
            {"level": "Metadata", "userGroups": [f"system:serviceaccounts:{NAMESPACE}"]},
            {"level": "Metadata", "verbs": writes},
            {"level": "None"},
        ],
    }


def kwok_bindings() -> list[dict[str, Any]]:
    """Return the bindings of kwok's user to the cluster roles that kwok ships."""
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": KWOK_USER}],
        }
        for role in ("kwok-controller", "kwok-volume")
    ]
