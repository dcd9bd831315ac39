"""What the watches said last: nothing older replaces it, and only what deciding reads makes work."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from energylens.controller.state.store import Store
from energylens.data import load_gpus
from energylens.decide.deployment.observed.observation import pod_state
from energylens.planner.inventory.snapshot import OWNER_LABEL, snapshot_from_objects

KEY = ("team", "llama")
Body = dict[str, Any]


def deployment(version: int = 1, *, uid: str = "u1", status: Body | None = None, **spec: Any) -> Body:
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {
            "name": "llama",
            "namespace": "team",
            "uid": uid,
            "resourceVersion": str(version),
            "generation": 1,
            "managedFields": [{"manager": "kubectl"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "labels": {"team": "a"},
        },
        "spec": spec,
        **({"status": status} if status is not None else {}),
    }


def child(version: int = 1, *, owner: str | None = "llama", name: str = "llama", replicas: int = 1) -> Body:
    labels = {OWNER_LABEL: owner} if owner else {}
    return {
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": "c1",
            "resourceVersion": str(version),
            "labels": labels,
            "managedFields": [{}],
        },
        "spec": {"replicas": replicas},
    }


def pod(
    name: str = "p0", *, node: str = "n0", gpus: int = 4, owner: str | None = "llama", phase: str = "Running"
) -> Body:
    container: Body = {
        "name": "engine",
        "image": "example.org/engine",
        "env": [{"name": "A", "value": "b"}],
        "resources": {"limits": {"nvidia.com/gpu": str(gpus), "memory": "1Gi"}, "requests": {"cpu": "1"}},
    }
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "resourceVersion": "1",
            "labels": {OWNER_LABEL: owner} if owner else {},
            "annotations": {"a": "b"},
        },
        "spec": {"nodeName": node, "containers": [container], "volumes": [{"name": "shm"}]},
        "status": {"phase": phase, "podIP": "10.0.0.1"},
    }


def node(name: str = "n0", gpus: str = "8", **labels: str) -> Body:
    return {
        "metadata": {"name": name, "labels": labels, "resourceVersion": "1", "annotations": {"heartbeat": "1"}},
        "spec": {"taints": [{"key": "nvidia.com/gpu"}], "podCIDR": "10.0.0.0/24"},
        "status": {
            "allocatable": {"nvidia.com/gpu": gpus, "cpu": "96"},
            "conditions": [
                {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-03-01T00:00:00Z"},
                {"type": "DiskPressure", "status": "False"},
            ],
            "images": [{"names": ["large"]}],
        },
    }


@pytest.fixture
def store() -> Store:
    return Store()


def test_an_older_version_never_replaces_a_newer_one(store: Store) -> None:
    assert store.put_deployment(deployment(9, suspend=True), deleted=False) == KEY
    assert store.put_deployment(deployment(8, suspend=False), deleted=False) is None
    assert store.deployments[KEY]["spec"] == {"suspend": True}
    # Resource versions are numbers: "10" is newer than "9".
    assert store.put_deployment(deployment(10, suspend=False), deleted=False) == KEY
    assert store.deployments[KEY]["spec"] == {"suspend": False}


def versioned(body: Body, version: int, **metadata: Any) -> Body:
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(version), **metadata}}


def test_an_older_event_of_a_pod_or_a_node_undoes_nothing(store: Store) -> None:
    store.put_pod(versioned(pod(phase="Succeeded"), 5), deleted=False)
    assert store.put_pod(versioned(pod(phase="Running"), 4), deleted=False) is None
    assert store.pods["team", "p0"]["status"]["phase"] == "Succeeded"
    store.put_node(versioned(node(gpus="4"), 5), deleted=False)
    before = store.inventory_version
    store.put_node(versioned(node(gpus="8"), 4), deleted=False)
    assert store.nodes["n0"]["status"]["allocatable"]["nvidia.com/gpu"] == "4"
    # The end of a node that has been made anew since.
    store.put_node(versioned(node(gpus="4"), 3), deleted=True)
    assert (store.inventory_version, list(store.nodes)) == (before, ["n0"])


def test_a_pod_made_anew_replaces_the_old_one_whatever_its_version(store: Store) -> None:
    store.put_pod(versioned(pod(), 5, uid="a"), deleted=False)
    assert store.put_pod(versioned(pod(), 4, uid="b"), deleted=False) == KEY
    assert store.pods["team", "p0"]["metadata"]["uid"] == "b"


def test_an_object_made_anew_replaces_the_old_one_whatever_its_version(store: Store) -> None:
    store.put_deployment(deployment(9, suspend=True), deleted=False)
    assert store.put_deployment(deployment(3, uid="u2"), deleted=False) == KEY
    assert store.deployments[KEY]["metadata"]["uid"] == "u2"


def test_the_answer_to_our_own_write_is_not_undone_by_the_watch_event_before_it(store: Store) -> None:
    store.put_child("Deployment", child(5, replicas=2), deleted=False)
    assert store.put_child("Deployment", child(4, replicas=1), deleted=False) == ()
    assert store.children["Deployment", "team", "llama"].body["spec"] == {"replicas": 2}


def test_a_deleted_deployment_is_gone_and_is_work(store: Store) -> None:
    store.put_deployment(deployment(), deleted=False)
    assert store.put_deployment(deployment(2), deleted=True) == KEY
    assert store.deployments == {}


def test_what_nobody_reads_of_a_deployment_is_not_kept_and_is_no_work(store: Store) -> None:
    store.put_deployment(deployment(1, suspend=False), deleted=False)
    metadata = store.deployments[KEY]["metadata"]
    assert "managedFields" not in metadata
    assert "annotations" not in metadata
    again = deployment(2, suspend=False)
    again["metadata"]["annotations"] = {"other": "annotation"}
    assert store.put_deployment(again, deleted=False) is None
    assert store.deployments[KEY]["metadata"]["resourceVersion"] == "2"


def test_an_annotation_that_pods_get_is_kept_and_is_work(store: Store) -> None:
    store.put_deployment(deployment(), deleted=False)
    queued = deployment(2)
    queued["metadata"]["annotations"]["scheduling.volcano.sh/queue-name"] = "q"
    assert store.put_deployment(queued, deleted=False) == KEY
    assert store.deployments[KEY]["metadata"]["annotations"] == {"scheduling.volcano.sh/queue-name": "q"}


def test_a_foreign_write_of_the_status_and_a_deletion_are_work(store: Store) -> None:
    store.put_deployment(deployment(1, status={"plan": {"hash": "a"}}), deleted=False)
    assert store.put_deployment(deployment(2, status={}), deleted=False) == KEY
    going = deployment(3, status={})
    going["metadata"]["deletionTimestamp"] = "2026-03-01T00:00:00Z"
    assert store.put_deployment(going, deleted=False) == KEY


def test_a_budget_concerns_the_deployments_of_its_namespace(store: Store) -> None:
    store.put_deployment(deployment(), deleted=False)
    elsewhere = deployment()
    elsewhere["metadata"]["namespace"] = "other"
    store.put_deployment(elsewhere, deleted=False)
    budget: dict[str, Any] = {
        "metadata": {"name": "b", "namespace": "team", "resourceVersion": "1"},
        "spec": {"powerWatts": 1000},
    }
    assert store.put_budget(budget, deleted=False) == [KEY]
    assert store.put_budget(copy.deepcopy(budget), deleted=False) == []
    counted = {**budget, "metadata": {**budget["metadata"], "resourceVersion": "2"}, "status": {"usedWattHours": 5}}
    assert store.put_budget(counted, deleted=False) == [], "the operator's own status"
    assert store.put_budget({**budget, "spec": {"powerWatts": 900}}, deleted=False) == [], "older than what is known"
    assert store.budgets[KEY[0], "b"]["status"] == {"usedWattHours": 5}
    newer = {**budget, "metadata": {**budget["metadata"], "resourceVersion": "3"}, "spec": {"powerWatts": 900}}
    assert store.put_budget(newer, deleted=False) == [KEY]
    successor = {**newer, "metadata": {**newer["metadata"], "uid": "new", "resourceVersion": "5"}}
    store.put_budget(successor, deleted=False)
    gone = {**newer, "metadata": {**newer["metadata"], "uid": "old", "resourceVersion": "4"}}
    assert store.put_budget(gone, deleted=True) == [], "the deletion of one that had its name"
    assert (KEY[0], "b") in store.budgets
    assert store.put_budget(budget, deleted=True) == [KEY]
    assert store.budgets == {}


def test_a_budget_of_the_cluster_concerns_everybody_and_so_do_the_labels_of_namespaces(store: Store) -> None:
    store.put_deployment(deployment(), deleted=False)
    team = {"metadata": {"name": "team", "labels": {"row": "b"}}}
    assert store.put_namespace(team, deleted=False) == [], "no ClusterEnergyBudget asks"
    budget = {"metadata": {"name": "row-b", "resourceVersion": "1"}, "spec": {"powerWatts": 1000}}
    assert store.put_budget(budget, deleted=False) == [KEY]
    assert store.put_namespace(team, deleted=False) == []
    assert store.put_namespace({"metadata": {"name": "team"}}, deleted=False) == [KEY]
    assert store.put_namespace({"metadata": {"name": "elsewhere"}}, deleted=False) == []
    assert store.put_namespace({"metadata": {"name": "team"}}, deleted=True) == []
    assert set(store.namespaces) == {"elsewhere"}
    assert store.put_budget(budget, deleted=True) == [KEY]


def test_a_child_concerns_the_deployment_that_it_is_labelled_with(store: Store) -> None:
    assert store.put_child("Deployment", child(1), deleted=False) == (KEY,)
    assert "managedFields" not in store.children["Deployment", "team", "llama"].body["metadata"]
    assert store.put_child("Deployment", child(1, owner=None, name="stranger"), deleted=False) == ()
    assert store.put_child("Deployment", child(2), deleted=True) == (KEY,)
    assert ("Deployment", "team", "llama") not in store.children


def test_a_child_that_loses_its_label_is_told_to_the_deployment_that_it_named() -> None:
    store = Store()
    store.put_child("Deployment", child(1), deleted=False)
    assert store.put_child("Deployment", child(2, owner=None), deleted=False) == (KEY,)
    assert store.put_child("Deployment", child(3, owner=None), deleted=False) == ()


@pytest.mark.parametrize("deleted", [False, True])
def test_a_child_with_the_label_of_another_deployment_is_told_to_both(deleted: bool) -> None:
    store = Store()
    store.put_child("Deployment", child(1), deleted=False)
    assert store.put_child("Deployment", child(2, owner="other"), deleted=deleted) == (("team", "other"), KEY)
    assert store.put_child("Deployment", child(3, owner="other"), deleted=deleted) == (("team", "other"),)


@pytest.mark.parametrize("relabelled", ["other", None])
@pytest.mark.parametrize("dropped", [False, True])
def test_a_claim_template_is_of_the_deployment_that_its_label_names_now(relabelled: str | None, dropped: bool) -> None:
    kind, store = "ResourceClaimTemplate", Store()
    store.put_child(kind, child(1), deleted=False)
    store.put_child(kind, child(1, name="second"), deleted=False)
    store.put_child(kind, child(2, owner=relabelled), deleted=False)

    def owned(name: str) -> list[str]:
        return [body["metadata"]["name"] for body in store.claim_templates(("team", name))]

    assert (owned("llama"), owned("other")) == (["second"], ["llama"] if relabelled else [])
    if dropped:
        store.drop_child(kind, "team", "llama")
    else:
        store.put_child(kind, child(3, owner=relabelled), deleted=True)
    assert (owned("llama"), owned("other")) == (["second"], [])


def test_the_workload_of_another_one_is_not_taken_for_its_own_by_its_name(store: Store) -> None:
    store.put_child("Deployment", child(1, owner="other"), deleted=False)
    assert store.workloads(KEY).bodies == ()
    store.put_child("Deployment", child(2), deleted=False)
    assert len(store.workloads(KEY).bodies) == 1


def test_a_changed_child_is_not_known_to_hold_anything(store: Store) -> None:
    store.put_child("Deployment", child(1), deleted=False)
    store.children["Deployment", "team", "llama"].verified = "abc"
    store.put_child("Deployment", child(2, replicas=7), deleted=False)
    assert store.children["Deployment", "team", "llama"].verified is None


@pytest.mark.parametrize(
    ("allocatable", "capacity"),
    [
        ({"nvidia.com/gpu": "8"}, {"nvidia.com/gpu": "16"}),
        ({"nvidia.com/gpu": "0"}, {"nvidia.com/gpu": "8"}),
        ({"nvidia.com/gpu.shared": "80"}, {}),
        ({"nvidia.com/mig-1g.10gb": "56", "nvidia.com/gpu": "0"}, {}),
    ],
)
def test_what_is_kept_of_a_node_is_what_the_inventory_reads(
    store: Store, allocatable: dict[str, str], capacity: dict[str, str]
) -> None:
    body = node()
    body["metadata"]["labels"] = {"nvidia.com/gpu.product": "NVIDIA-H200", "nvidia.com/gpu.count": "8"}
    body["status"] |= {"allocatable": allocatable | {"cpu": "8"}, "capacity": capacity}
    store.put_node(body, deleted=False)
    kept, whole = (snapshot_from_objects([one], [], load_gpus()) for one in (store.nodes["n0"], body))
    assert kept == whole
    assert kept.excluded


def test_a_nodes_heartbeat_is_not_a_change_of_the_inventory(store: Store) -> None:
    store.put_node(node(), deleted=False)
    assert store.inventory_version == 1
    beat = node()
    beat["metadata"]["resourceVersion"] = "2"
    beat["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-03-01T00:05:00Z"
    store.put_node(beat, deleted=False)
    assert store.inventory_version == 1
    assert store.nodes["n0"] == {
        "metadata": {"name": "n0", "labels": {}},
        "spec": {"taints": [{"key": "nvidia.com/gpu"}]},
        "status": {
            "allocatable": {"nvidia.com/gpu": "8"},
            "capacity": {},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


@pytest.mark.parametrize(
    "changed",
    [
        node(gpus="7"),
        node(**{"nvidia.com/gpu.product": "NVIDIA-H200"}),
        {**node(), "spec": {"unschedulable": True}},
        {**node(), "status": {**node()["status"], "conditions": [{"type": "Ready", "status": "False"}]}},
    ],
    ids=["GPUs", "labels", "cordoned", "not ready"],
)
def test_what_inventory_reads_of_a_node_changes_it(store: Store, changed: Body) -> None:
    store.put_node(node(), deleted=False)
    store.put_node(changed, deleted=False)
    assert store.inventory_version == 2


def test_a_node_that_leaves_changes_the_inventory_once(store: Store) -> None:
    store.put_node(node(), deleted=False)
    store.put_node(node(), deleted=True)
    store.put_node(node(), deleted=True)
    assert store.inventory_version == 2
    assert store.nodes == {}


def test_pods_are_found_by_the_deployment_that_they_belong_to(store: Store) -> None:
    assert store.put_pod(pod("p1"), deleted=False) == KEY
    assert store.put_pod(pod("p0"), deleted=False) == KEY
    assert store.put_pod(pod("stranger", owner=None), deleted=False) is None
    assert [body["metadata"]["name"] for body in store.pods_owned(KEY)] == ["p0", "p1"]
    assert store.put_pod(pod("p1"), deleted=True) == KEY
    assert [body["metadata"]["name"] for body in store.pods_owned(KEY)] == ["p0"]
    assert store.pods_owned(("team", "nobody")) == []


def test_only_what_is_read_of_a_pod_is_kept(store: Store) -> None:
    store.put_pod(pod(), deleted=False)
    (kept,) = store.pods_owned(KEY)
    assert set(kept["spec"]) == {"nodeName", "containers"}
    assert kept["spec"]["containers"] == [{"resources": {"limits": {"nvidia.com/gpu": "4"}}}]
    assert store.put_pod(pod(), deleted=False) is None


def test_a_pod_changes_the_inventory_when_it_takes_or_gives_back_gpus(store: Store) -> None:
    store.put_pod(pod(node=""), deleted=False)
    pending = store.inventory_version
    store.put_pod(pod(node="n0"), deleted=False)
    assert store.inventory_version > pending
    bound = store.inventory_version
    ready = pod(node="n0")
    ready["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    assert store.put_pod(ready, deleted=False) == KEY
    assert store.inventory_version == bound
    store.put_pod(pod(node="n0", phase="Succeeded"), deleted=False)
    assert store.inventory_version == bound + 1
    store.put_pod(pod(), deleted=True)
    assert store.inventory_version == bound + 1


def test_a_pod_without_gpus_is_not_inventory(store: Store) -> None:
    plain = pod()
    plain["spec"]["containers"][0]["resources"] = {}
    store.put_pod(plain, deleted=False)
    assert store.inventory_version == 0


def test_why_a_container_waits_is_kept(store: Store) -> None:
    body = pod()
    body["status"]["containerStatuses"] = [
        {"name": "engine", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}},
        {"name": "router", "ready": True, "state": {"running": {}}},
    ]
    store.put_pod(body, deleted=False)
    found = pod_state(store.pods_owned(KEY)[0])
    assert (found.waiting, found.failing) == ("ImagePullBackOff: no such image", True)


def test_of_pods_of_others_only_gpus_and_addresses_are_kept(store: Store) -> None:
    body = pod()
    body["metadata"]["labels"] = {"app": "theirs"}
    body["status"] |= {"message": "long", "containerStatuses": [{"name": "x", "state": {"waiting": {"reason": "Y"}}}]}
    store.put_pod(body, deleted=False)
    ((_, kept),) = store.pods.items()
    assert kept["status"]["containers"] == []
    assert "message" not in kept["status"]
