"""How `dev up` installs a chart and gets the operator's credentials, shown with a chart of a few lines."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from energylens_dev import devcluster
from energylens_dev.devcluster import DevClusterError, Kubectl, PodStages, Progress, RunningCluster
from energylens_dev.devcluster.commands import NAMESPACE
from energylens_dev.devcluster.operators import (
    RELEASE,
    Helm,
    ensure_chart,
    service_account,
    token_is_good,
    write_operator_kubeconfig,
)

ACCOUNT = """apiVersion: v1
kind: ServiceAccount
metadata:
  name: some-name
  labels: {app.kubernetes.io/instance: {{ .Release.Name }}}
  annotations: {replicas: "{{ .Values.replicaCount }}"}
"""
CRD = """apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.org}
spec:
  group: example.org
  names: {plural: things, singular: thing, kind: Thing}
  scope: Namespaced
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
"""


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A cluster of its own: the release would be in the way of tests of the real chart."""
    directory = tmp_path_factory.mktemp("chart-cluster")
    with (
        devcluster.guarded(directory),
        devcluster.up(directory, pods=PodStages.FAST, chart=False, operator=False) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def admin_of_own(own_cluster: RunningCluster) -> Kubectl:
    return own_cluster.client()


@pytest.fixture(scope="module")
def helm(own_cluster: RunningCluster) -> Helm:
    return Helm(own_cluster.helm, own_cluster.kubeconfig, own_cluster.directory / "cache" / "helm")


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: mini\nversion: 0.1.0\n")
    (tmp_path / "values.yaml").write_text("replicaCount: 1\n")
    (tmp_path / "templates" / "account.yaml").write_text(ACCOUNT)
    (tmp_path / "templates" / "crd.yaml").write_text(CRD)
    return tmp_path


@pytest.fixture
def installed(admin_of_own: Kubectl, helm: Helm, chart: Path) -> Iterator[str]:
    yield ensure_chart(helm, admin_of_own, chart, None, Progress())
    helm.run("uninstall", RELEASE, f"--namespace={NAMESPACE}")


def revisions(kubectl: Kubectl) -> list[tuple[str, str]]:
    secrets = kubectl.within(NAMESPACE).list("secrets", "-l", f"owner=helm,name={RELEASE}")
    return [(s["metadata"]["labels"]["version"], s["metadata"]["labels"]["status"]) for s in secrets]


def test_the_chart_is_installed_without_an_operator_pod(admin_of_own: Kubectl, installed: str) -> None:
    assert installed
    assert service_account(admin_of_own)["metadata"]["name"] == "some-name"
    account = admin_of_own.within(NAMESPACE).get("serviceaccount", "some-name")
    assert account is not None
    assert account["metadata"]["annotations"]["replicas"] == "0"


def test_an_unchanged_chart_is_left_alone_and_a_changed_one_upgraded(
    admin_of_own: Kubectl, helm: Helm, chart: Path, installed: str
) -> None:
    assert ensure_chart(helm, admin_of_own, chart, installed, Progress()) == installed
    assert revisions(admin_of_own) == [("1", "deployed")]
    (chart / "values.yaml").write_text("replicaCount: 3\n")
    changed = ensure_chart(helm, admin_of_own, chart, installed, Progress())
    assert changed != installed
    assert revisions(admin_of_own) == [("1", "superseded"), ("2", "deployed")]


def test_a_release_that_was_removed_is_installed_again(
    admin_of_own: Kubectl, helm: Helm, chart: Path, installed: str
) -> None:
    helm.run("uninstall", RELEASE, f"--namespace={NAMESPACE}")
    assert ensure_chart(helm, admin_of_own, chart, installed, Progress()) == installed
    assert revisions(admin_of_own) == [("1", "deployed")]


def test_an_install_that_was_interrupted_is_taken_up_again(
    admin_of_own: Kubectl, helm: Helm, chart: Path, installed: str
) -> None:
    kubectl = admin_of_own.within(NAMESPACE)
    kubectl.run("label", "secret", f"sh.helm.release.v1.{RELEASE}.v1", "status=pending-install", "--overwrite")
    assert ensure_chart(helm, admin_of_own, chart, None, Progress()) == installed
    assert revisions(admin_of_own) == [("1", "deployed")]


def test_a_broken_chart_is_reported_in_helms_words(admin_of_own: Kubectl, helm: Helm, chart: Path) -> None:
    (chart / "templates" / "broken.yaml").write_text('{{ fail "no such setting" }}')
    with pytest.raises(DevClusterError, match=r"helm upgrade failed: (?s:.)*no such setting"):
        ensure_chart(helm, admin_of_own, chart, None, Progress())


def test_the_operator_gets_a_token_of_the_charts_account_and_no_more(
    own_cluster: RunningCluster, admin_of_own: Kubectl, installed: str, tmp_path: Path
) -> None:
    del installed
    path = tmp_path / "operator.kubeconfig"
    server = yaml.safe_load(own_cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    authority = own_cluster.directory / "pki" / "ca.crt"
    write_operator_kubeconfig(admin_of_own, path, server, authority)

    operator = admin_of_own.as_user(path)
    user = operator.json("auth", "whoami")["status"]["userInfo"]["username"]
    assert user == f"system:serviceaccount:{NAMESPACE}:some-name"
    with pytest.raises(DevClusterError, match="cannot list resource"):
        operator.run("get", "secrets")


def test_a_token_is_renewed_before_it_ends_and_when_its_account_is_another(
    own_cluster: RunningCluster, admin_of_own: Kubectl, helm: Helm, chart: Path, installed: str, tmp_path: Path
) -> None:
    path = tmp_path / "operator.kubeconfig"
    now = datetime.now(tz=UTC)  # noqa: TID251 - the API server's own clock decides when the token ends
    assert not token_is_good(admin_of_own, path, now)
    write_operator_kubeconfig(admin_of_own, path, "https://127.0.0.1:1", own_cluster.directory / "pki" / "ca.crt")
    assert token_is_good(admin_of_own, path, now)
    assert token_is_good(admin_of_own, path, now + timedelta(days=5))
    assert not token_is_good(admin_of_own, path, now + timedelta(days=6, hours=1))

    helm.run("uninstall", RELEASE, f"--namespace={NAMESPACE}")
    with pytest.raises(DevClusterError, match=r"must have one service account .* found none"):
        token_is_good(admin_of_own, path, now)
    ensure_chart(helm, admin_of_own, chart, installed, Progress())
    assert not token_is_good(admin_of_own, path, now)
