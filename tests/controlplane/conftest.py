"""One real control plane for the whole run: API server, controllers, scheduler, and kwok nodes with GPUs.

It is started for the run and removed after it. Each worker of pytest-xdist has a control plane of its own. With
ENERGYLENS_TEST_CLUSTER_DIR set, the cluster of that state directory is used (started when it does not run) and left
running, which saves seconds on every run while developing. Without the programs and without Go to build them the tests
fail; they are never skipped.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from tests.support.api_client import ApiClient
from tests.support.direct_kubectl import DirectKubectl, direct_kubectl
from tests.support.operator_cluster import OperatorCluster, Team, operator_cluster
from tests.support.programs import build_programs

from energylens_dev import devcluster
from energylens_dev.devcluster import PodStages, RunningCluster, StreamProgress, eventually

_HERE = Path(__file__).parent
_SECONDS_PER_TEST = 600
LONGEST = (
    "test_operator_budgets",
    "test_operator_verification",
    "test_operator_prometheus",
    "test_operator_connection",
    "test_operator_measured",
    "test_demo",
    "test_operator_rollouts",
    "test_operator_faults",
    "test_operator_availability",
    "test_operator_edits",
    "test_chart",
)
"""Files that take a minute or more, the longest first: a worker that began one last would work alone at the end."""


@contextmanager
def fresh_namespace(admin: DirectKubectl, prefix: str) -> Iterator[str]:
    """Make a namespace, complete with what controllers put into every one; then delete it, without waiting for it."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    inside = admin.within(name)
    try:
        eventually(lambda: inside.get("serviceaccount", "default") and inside.get("configmap", "kube-root-ca.crt"))
        yield name
    finally:
        admin.delete("namespace", name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, put the longest files first, and keep the first build out of time limits."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.controlplane)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(_SECONDS_PER_TEST, func_only=True))


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    """Keep the build of the programs out of the time limits of tests."""
    build_programs()


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest) -> str | None:
    """Return the state directory that outlives the run, one for each worker; None where none is wanted."""
    directory = os.environ.get("ENERGYLENS_TEST_CLUSTER_DIR")
    worker = getattr(request.config, "workerinput", None)
    return directory if directory is None or worker is None else f"{directory}-{worker['workerid']}"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, shared: str | None) -> Iterator[RunningCluster]:
    """A control plane with the default GPU nodes and fast pods, without the chart and the operator."""
    directory = Path(shared) if shared else tmp_path_factory.mktemp("cluster")
    with nullcontext() if shared else devcluster.guarded(directory):
        yield devcluster.up(
            directory, pods=PodStages.FAST, chart=False, operator=False, progress=StreamProgress(sys.stderr)
        )


@pytest.fixture(scope="session")
def admin(cluster: RunningCluster) -> Iterator[DirectKubectl]:
    """Run kubectl as the cluster's administrator, in the namespace `default`."""
    with direct_kubectl(cluster) as found:
        yield found


@pytest.fixture(scope="session")
def chart(cluster: RunningCluster) -> RunningCluster:
    """The same cluster with the project's chart installed as `energylens dev up` does it, the operator not running."""
    return devcluster.up(cluster.directory, operator=False, progress=StreamProgress(sys.stderr))


@pytest.fixture
def namespace(admin: DirectKubectl) -> Iterator[str]:
    """Make a fresh namespace; it is deleted after the test without waiting for it to be gone."""
    with fresh_namespace(admin, "test") as name:
        yield name


@pytest.fixture
def kubectl(admin: DirectKubectl, namespace: str) -> DirectKubectl:
    """Run kubectl as the cluster's administrator, in the test's own namespace.

    `run(*arguments)` returns stdout; `apply(yaml or dict)`, `get(kind, name)` and `list(kind)` give dicts;
    `energylens_dev.devcluster.eventually(check, timeout)` waits for a condition.
    """
    return admin.within(namespace)


@pytest.fixture(scope="session")
def operator(tmp_path_factory: pytest.TempPathFactory, shared: str | None) -> Iterator[OperatorCluster]:
    """A cluster of its own with the operator and the replay exporter; the operator would meddle with other tests."""
    directory = Path(f"{shared}-operator") if shared else tmp_path_factory.mktemp("operated-cluster")
    with operator_cluster(directory, keep=bool(shared)) as running:
        yield running


@pytest.fixture
def alone(operator: OperatorCluster) -> Iterator[OperatorCluster]:
    """The cluster without its operator, for tests that run some of their own."""
    operator.stop_operator()
    yield operator
    operator.start_operator()
    operator.idle()


@pytest.fixture(scope="module")
def api(chart: RunningCluster) -> Iterator[ApiClient]:
    """The administrator's requests, without a program for each."""
    found = ApiClient(chart.kubeconfig)
    yield found
    found.close()


@pytest.fixture
def team(operator: OperatorCluster) -> Iterator[Team]:
    """A fresh namespace under the operator; after the test its GPUs are free again."""
    with fresh_namespace(operator.api, "team") as name:
        made = Team(operator.api.within(name))
        yield made
        made.clear()
