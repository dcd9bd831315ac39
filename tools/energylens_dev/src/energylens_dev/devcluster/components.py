"""What the control plane is made of: each program's Go module, build flags and the versions of it that may be reused.

Pure: nothing here reads a file or runs a program.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from energylens_dev.devcluster.errors import DevClusterError

Version = tuple[int, int, int]

KUBERNETES_PACKAGE = "k8s.io/kubernetes"
KWOK_PACKAGE = "sigs.k8s.io/kwok"

BUILD_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")
"""Flags of every `go build`: nothing of the machine or of this repository's commit ends up in a binary."""

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


def parse_version(text: str) -> Version | None:
    """Return the first dotted version of three numbers in `text`, or None when there is none."""
    found = _VERSION.search(text)
    return None if found is None else (int(found[1]), int(found[2]), int(found[3]))


def _same_minor(found: Version, pinned: Version) -> bool:
    return found[:2] == pinned[:2]


def _kubectl_skew(found: Version, pinned: Version) -> bool:
    # kubectl is supported within one minor version of the API server: kubernetes.io/releases/version-skew-policy
    return found[0] == pinned[0] and abs(found[1] - pinned[1]) <= 1


def _helm_3_14(found: Version, pinned: Version) -> bool:
    del pinned
    return (3, 14, 0) <= found < (5, 0, 0)


def _prometheus_3(found: Version, pinned: Version) -> bool:
    del pinned
    return found[0] == 3


def prometheus_release(module_version: str) -> str:
    """Return the release of a Prometheus module version: v0.313.1 is the Go module of release 3.13.1."""
    version = parse_version(module_version)
    if version is None or version[0] != 0:
        raise DevClusterError(f"{module_version} is no version of Prometheus's Go module: v0.NNN.N is wanted")
    return f"{version[1] // 100}.{version[1] % 100}.{version[2]}"


@dataclass(frozen=True)
class Component:
    """One program of the control plane.

    Attributes:
        name: Name of the executable.
        module: Folder of its Go module under tools/controlplane.
        package: Import path of its main package.
        pin: Module path whose version in go.mod is the program's version.
        version_args: Arguments that make the program print its version.
        compatible: Whether a version found elsewhere may stand in for the pinned one: (found, pinned) -> bool.
        allowed: What `compatible` accepts, in words, with `{minor}` for the pinned minor version.
    """

    name: str
    module: str
    package: str
    pin: str
    version_args: tuple[str, ...] = ("--version",)
    compatible: Callable[[Version, Version], bool] = _same_minor
    allowed: str = "{minor}.x"

    def ldflags(self, version: str) -> str:
        """Return the linker flags: no symbol table, and the version that the program reports.

        Args:
            version: The pinned version with its leading v, such as v1.36.3.
        """
        stamps: dict[str, str] = {}
        if self.module == "kubernetes":
            major, minor, _ = version.removeprefix("v").split(".", 2)
            base = "k8s.io/component-base/version"
            stamps = {f"{base}.gitVersion": version, f"{base}.gitMajor": major, f"{base}.gitMinor": minor}
        elif self.module == "helm":
            stamps = {"helm.sh/helm/v4/internal/version.version": version}
        elif self.module == "prometheus":
            stamps = {"github.com/prometheus/common/version.Version": prometheus_release(version)}
        return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in stamps.items())])


def _kubernetes(name: str) -> Component:
    return Component(name, "kubernetes", f"{KUBERNETES_PACKAGE}/cmd/{name}", KUBERNETES_PACKAGE)


CONTROL_PLANE: tuple[Component, ...] = (
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    replace(
        _kubernetes("kubectl"),
        version_args=("version", "--client"),
        compatible=_kubectl_skew,
        allowed="within one minor version of {minor}",
    ),
    Component("etcd", "etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3"),
    Component("kwok", "kwok", f"{KWOK_PACKAGE}/cmd/kwok", KWOK_PACKAGE),
    Component(
        "helm",
        "helm",
        "helm.sh/helm/v4/cmd/helm",
        "helm.sh/helm/v4",
        version_args=("version", "--template", "{{.Version}}"),
        compatible=_helm_3_14,
        allowed="3.14 or later, or 4.x",
    ),
)
"""What `dev up` needs, the slowest to build first."""

_PROMETHEUS = "github.com/prometheus/prometheus"

ON_DEMAND: tuple[Component, ...] = tuple(
    Component(name, "prometheus", f"{_PROMETHEUS}/cmd/{name}", _PROMETHEUS, compatible=_prometheus_3, allowed="3.x")
    for name in ("prometheus", "promtool")
)
"""Pinned beside the control plane, built only when asked for by name."""

COMPONENTS: dict[str, Component] = {component.name: component for component in (*CONTROL_PLANE, *ON_DEMAND)}


def pinned_version(go_mod: str, pin: str) -> str:
    """Return the version that a go.mod requires of the module `pin`, with its leading v.

    Raises:
        DevClusterError: When the go.mod has no requirement of that module.
    """
    found = re.search(rf"^(?:require)?\s*{re.escape(pin)}\s+(v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise DevClusterError(f"go.mod pins no version of {pin}")
    return found[1]


def cache_key(go_mod: str, go_sum: str, components: tuple[Component, ...], target: str) -> str:
    """Return the key under which a module's binaries are cached: 12 hex digits.

    Any change of a pin, of the build flags or of the machine's kind gives another key, so a stale binary is never used.

    Args:
        go_mod: Contents of the module's go.mod.
        go_sum: Contents of its go.sum.
        components: The programs built from it.
        target: Operating system and processor, such as linux/x86_64.
    """
    recipe = [
        f"{c.name} {c.package} {' '.join(BUILD_FLAGS)} {c.ldflags(pinned_version(go_mod, c.pin))}" for c in components
    ]
    digest = hashlib.sha256("\0".join([go_mod, go_sum, target, *recipe]).encode())
    return digest.hexdigest()[:12]


def acceptable(component: Component, reported: str, pinned: str) -> bool:
    """Whether a program that reports `reported` as its version may stand in for the pinned one."""
    found, wanted = parse_version(reported), parse_version(pinned)
    return found is not None and wanted is not None and component.compatible(found, wanted)
