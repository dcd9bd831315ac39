"""Pins, cache keys and which versions found elsewhere are used."""

from __future__ import annotations

import pytest

from energylens_dev.devcluster import DevClusterError
from energylens_dev.devcluster.components import (
    COMPONENTS,
    CONTROL_PLANE,
    acceptable,
    cache_key,
    parse_version,
    pinned_version,
    prometheus_release,
)

GO_MOD = """module example.org/kubernetes

require (
\tk8s.io/kubernetes v1.36.3 // indirect
\tk8s.io/kubernetes-extras v9.9.9
)

replace k8s.io/api => k8s.io/api v0.36.3
"""
KUBERNETES = tuple(component for component in CONTROL_PLANE if component.module == "kubernetes")


def key(go_mod: str = GO_MOD, go_sum: str = "sums", target: str = "linux/x86_64") -> str:
    return cache_key(go_mod, go_sum, KUBERNETES, target)


def test_the_pin_is_read_from_go_mod() -> None:
    assert pinned_version(GO_MOD, "k8s.io/kubernetes") == "v1.36.3"
    assert pinned_version("require helm.sh/helm/v4 v4.3.1\n", "helm.sh/helm/v4") == "v4.3.1"


def test_a_replaced_module_is_no_pin() -> None:
    with pytest.raises(DevClusterError, match=r"pins no version of k8s\.io/api"):
        pinned_version(GO_MOD, "k8s.io/api")


def test_the_key_is_stable_and_changes_with_every_input() -> None:
    assert key() == key()
    changed = [
        key(go_mod=GO_MOD.replace("1.36.3", "1.36.4")),
        key(go_sum="other sums"),
        key(target="darwin/arm64"),
        cache_key(GO_MOD, "sums", KUBERNETES[:1], "linux/x86_64"),
    ]
    assert len({key(), *changed}) == 5


def test_the_key_keeps_go_mod_and_go_sum_apart() -> None:
    assert key(go_mod=GO_MOD, go_sum="a\nb") != key(go_mod=GO_MOD + "a\n", go_sum="b")


def test_kubernetes_reports_the_pinned_version() -> None:
    flags = COMPONENTS["kube-apiserver"].ldflags("v1.36.3")
    assert "-X k8s.io/component-base/version.gitVersion=v1.36.3" in flags
    assert "-X k8s.io/component-base/version.gitMinor=36" in flags


def test_prometheus_reports_its_release() -> None:
    assert prometheus_release("v0.313.1") == "3.13.1"
    assert prometheus_release("v0.300.0") == "3.0.0"
    with pytest.raises(DevClusterError, match=r"v3\.1\.0"):
        prometheus_release("v3.1.0")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Kubernetes v1.36.3", (1, 36, 3)),
        ("Client Version: v1.32.4-dispatcher\nKustomize Version: v5.5.0", (1, 32, 4)),
        ("etcd Version: 3.6.16\nGit SHA: none", (3, 6, 16)),
        ("v3.20.1+g4d0f2f1", (3, 20, 1)),
        ("no version here", None),
        ("", None),
    ],
)
def test_versions_are_found_in_what_programs_print(text: str, version: tuple[int, int, int] | None) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("name", "reported", "pinned", "used"),
    [
        ("kubectl", "Client Version: v1.35.9", "v1.36.3", True),
        ("kubectl", "Client Version: v1.37.0", "v1.36.3", True),
        ("kubectl", "Client Version: v1.34.9", "v1.36.3", False),
        ("kubectl", "Client Version: v1.38.0", "v1.36.3", False),
        ("kubectl", "Client Version: v1.32.4-dispatcher", "v1.36.3", False),
        ("kubectl", "Client Version: v2.36.3", "v1.36.3", False),
        ("kube-apiserver", "Kubernetes v1.36.0", "v1.36.3", True),
        ("kube-apiserver", "Kubernetes v1.35.4", "v1.36.3", False),
        ("etcd", "etcd Version: 3.6.2", "v3.6.16", True),
        ("etcd", "etcd Version: 3.5.21", "v3.6.16", False),
        ("helm", "v3.14.0", "v4.3.1", True),
        ("helm", "v3.13.9", "v4.3.1", False),
        ("helm", "v4.0.0", "v4.3.1", True),
        ("helm", "v5.0.0", "v4.3.1", False),
        ("prometheus", "prometheus, version 3.2.1 (branch: HEAD)", "v0.313.1", True),
        ("prometheus", "prometheus, version 2.42.0", "v0.313.1", False),
        ("kwok", "", "v0.8.0", False),
    ],
)
def test_only_compatible_versions_are_used(name: str, reported: str, pinned: str, used: bool) -> None:
    assert acceptable(COMPONENTS[name], reported, pinned) is used
