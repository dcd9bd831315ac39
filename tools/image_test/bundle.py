"""What crun is told: the image as the chart's Deployment runs it, on this machine's network. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
Object = Mapping[str, Any]


def bundle(
    image: Object,
    pod: Object,
    rootfs: Path,
    *,
    metrics_port: int,
    fields: Mapping[str, str],
    environment: Mapping[str, str],
    folders: Mapping[str, Path],
) -> dict[str, Any]:
    """Return the config.json of an OCI runtime for the first container of a pod.

    Args:
        image: The image's config (``Env``, ``Entrypoint``, ``Cmd``, ``WorkingDir``).
        pod: The pod's spec. Its user, its capabilities and its read-only root are taken as they are.
        rootfs: The mounted image.
        metrics_port: Instead of the chart's, since the network is this machine's.
        fields: Values of the downward API, by field path.
        environment: What the kubelet adds.
        folders: What is mounted read-only, by path in the container.
    """
    (container, *_) = pod["containers"]
    arguments = [
        f"--metrics-port={metrics_port}" if argument.startswith("--metrics-port=") else argument
        for argument in container.get("args") or image.get("Cmd") or ()
    ]
    variables = [*image.get("Env", ()), *_environment(container.get("env", ()), fields)]
    variables += [f"{name}={value}" for name, value in environment.items()]
    rights = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
    kept: list[str] = [] if "ALL" in rights.get("capabilities", {}).get("drop", ()) else ["CAP_NET_BIND_SERVICE"]
    sets = ("bounding", "effective", "inheritable", "permitted", "ambient")
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": rights["runAsUser"], "gid": rights["runAsGroup"]},
            "args": [*image.get("Entrypoint", ()), *arguments],
            "env": variables,
            "cwd": image.get("WorkingDir") or "/",
            "capabilities": dict.fromkeys(sets, kept),
            "noNewPrivileges": not rights.get("allowPrivilegeEscalation", True),
        },
        "root": {"path": str(rootfs), "readonly": bool(rights.get("readOnlyRootFilesystem"))},
        "hostname": fields["metadata.name"],
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]},
            *(
                {"destination": path, "type": "bind", "source": str(folder), "options": ["bind", "ro"]}
                for path, folder in folders.items()
            ),
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
    }


def _environment(variables: Sequence[Object], fields: Mapping[str, str]) -> list[str]:
    return [
        f"{variable['name']}="
        + str(fields[variable["valueFrom"]["fieldRef"]["fieldPath"]] if "valueFrom" in variable else variable["value"])
        for variable in variables
    ]
