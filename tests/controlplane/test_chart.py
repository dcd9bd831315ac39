"""The Helm chart: what it renders, what an install gives on a real API server, and what its service account may do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.api_client import ApiClient, ApiError
from tests.unit.api.objects import BUDGET, CLUSTER_BUDGET, DEPLOYMENT, changed

from energylens import __version__
from energylens_dev import devcluster
from energylens_dev.devcluster import DevClusterError, Kubectl, KubectlError, PodStages, RunningCluster, eventually
from energylens_dev.devcluster.operators import Helm

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "energylens"
NAMESPACE = "energylens-system"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:energylens"
Objects = dict[tuple[str, str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A cluster of its own: the release comes and goes here."""
    directory = tmp_path_factory.mktemp("release-cluster")
    with (
        devcluster.guarded(directory),
        devcluster.up(directory, pods=PodStages.FAST, chart=False, operator=False) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def helm(own_cluster: RunningCluster) -> Helm:
    return Helm(own_cluster.helm, own_cluster.kubeconfig, own_cluster.directory / "cache" / "helm")


@pytest.fixture(scope="module")
def api(own_cluster: RunningCluster) -> Kubectl:
    return own_cluster.client()


def render(helm: Helm, *values: str, namespace: str = NAMESPACE) -> Objects:
    """Return the chart's objects by (kind, namespace, name)."""
    text = helm.run("template", "energylens", str(CHART), f"--namespace={namespace}", *(f"--set={v}" for v in values))
    documents = [document for document in yaml.safe_load_all(text) if document]
    return {(d["kind"], d["metadata"].get("namespace", ""), d["metadata"]["name"]): d for d in documents}


def kinds(objects: Objects) -> set[str]:
    return {kind for kind, _, _ in objects}


def pod_spec(objects: Objects) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Deployment", NAMESPACE, "energylens"]["spec"]["template"]["spec"]
    return spec


def install(helm: Helm, *values: str) -> None:
    sets = (f"--set={value}" for value in ("replicaCount=0", *values))
    helm.run("upgrade", "energylens", str(CHART), "--install", f"--namespace={NAMESPACE}", "--create-namespace", *sets)


@pytest.fixture
def release(helm: Helm, api: Kubectl) -> Iterator[None]:
    """The release as `dev up` installs it; afterwards it is gone, but for the custom resources that it keeps."""
    install(helm)
    yield
    helm.run("uninstall", "energylens", f"--namespace={NAMESPACE}", "--ignore-not-found")
    api.run("delete", "llmd", "--all", "--all-namespaces")


def test_lint_has_nothing_to_say(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(CHART))
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(CHART), "--set=watchNamespaces={a,b}")


def test_the_chart_is_of_the_packages_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == __version__


def test_the_pod_is_restricted(helm: Helm, api: Kubectl) -> None:
    spec = pod_spec(render(helm))
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    # The API server's own judgement, by its Pod Security admission.
    api.run("create", "namespace", "restricted")
    api.run("label", "namespace", "restricted", "pod-security.kubernetes.io/enforce=restricted")
    api.run("create", "serviceaccount", "energylens", "--namespace=restricted")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": spec}
    api.within("restricted").run("create", "--dry-run=server", "--filename=-", stdin=json.dumps(pod))
    spec["securityContext"]["runAsNonRoot"] = False
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        api.within("restricted").run("create", "--dry-run=server", "--filename=-", stdin=json.dumps(pod))


def test_the_pod_runs_the_image_as_the_dockerfile_starts_it(helm: Helm) -> None:
    spec = pod_spec(render(helm))
    (container,) = spec["containers"]
    assert spec["serviceAccountName"] == "energylens"
    assert container["image"] == f"energylens:{__version__}"
    assert "command" not in container
    assert container["args"] == ["operator", "--metrics-port=8080", "--config=/etc/energylens/config.yaml"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/etc/energylens", "/tmp"}


def test_only_one_operator_runs_at_a_time(helm: Helm) -> None:
    spec = render(helm)["Deployment", NAMESPACE, "energylens"]["spec"]
    assert spec["strategy"] == {"type": "Recreate"}
    assert spec["replicas"] == 1
    assert render(helm, "replicaCount=0")["Deployment", NAMESPACE, "energylens"]["spec"]["replicas"] == 0


def test_standbys_are_spread_and_drained_one_at_a_time(helm: Helm, api: Kubectl) -> None:
    alone, objects = render(helm), render(helm, "replicaCount=3")
    assert ("PodDisruptionBudget", NAMESPACE, "energylens") not in alone
    assert "affinity" not in pod_spec(alone)
    spec = objects["Deployment", NAMESPACE, "energylens"]["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    budget = objects["PodDisruptionBudget", NAMESPACE, "energylens"]
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"] == spec["selector"]
    (term,) = pod_spec(objects)["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["labelSelector"] == spec["selector"]
    own = render(helm, "replicaCount=3", "affinity.nodeAffinity.a=b", "podDisruptionBudget.maxUnavailable=50%")
    assert pod_spec(own)["affinity"] == {"nodeAffinity": {"a": "b"}}
    assert own["PodDisruptionBudget", NAMESPACE, "energylens"]["spec"]["maxUnavailable"] == "50%"
    api.within("default").run(
        "create", "--dry-run=server", "--filename=-", stdin=json.dumps(budget | {"metadata": {"name": "energylens"}})
    )


def test_users_and_groups_may_be_left_to_the_cluster(helm: Helm) -> None:
    """OpenShift's restricted-v2 chooses them, and refuses pods that say another."""
    names = ("runAsUser", "runAsGroup", "fsGroup")
    spec = pod_spec(render(helm, *(f"podSecurityContext.{name}=null" for name in names)))
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_egress_is_limited_where_rules_are_given(helm: Helm) -> None:
    on = "networkPolicy.enabled=true"
    plain = render(helm, on)["NetworkPolicy", NAMESPACE, "energylens"]["spec"]
    assert plain["policyTypes"] == ["Ingress"]
    assert "egress" not in plain
    limited = render(helm, on, "networkPolicy.egress[0].ports[0].port=443")["NetworkPolicy", NAMESPACE, "energylens"]
    assert limited["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert limited["spec"]["egress"] == [{"ports": [{"port": 443}]}]


def test_a_service_monitor_takes_what_sites_change(helm: Helm) -> None:
    base = "metrics.serviceMonitor"
    monitor = render(
        helm,
        f"{base}.enabled=true",
        f"{base}.scrapeTimeout=10s",
        f"{base}.scheme=https",
        f"{base}.tlsConfig.insecureSkipVerify=true",
        f"{base}.relabelings[0].targetLabel=cluster",
        f"{base}.metricRelabelings[0].action=drop",
    )["ServiceMonitor", NAMESPACE, "energylens"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (
        endpoint
        | {
            "scrapeTimeout": "10s",
            "scheme": "https",
            "tlsConfig": {"insecureSkipVerify": True},
            "relabelings": [{"targetLabel": "cluster"}],
            "metricRelabelings": [{"action": "drop"}],
        }
        == endpoint
    )


def test_a_digest_pins_the_image(helm: Helm) -> None:
    digest = "sha256:" + "a" * 64
    values = ("image.repository=registry.example/energylens", "image.tag=1.2.3", f"image.digest={digest}")
    (container,) = pod_spec(render(helm, *values))["containers"]
    assert container["image"] == f"registry.example/energylens:1.2.3@{digest}"


def test_settings_become_the_settings_file_and_restart_the_pod(helm: Helm) -> None:
    plain, changed_objects = render(helm), render(helm, "operator.config.measurement.scrapeSeconds=5")
    config = changed_objects["ConfigMap", NAMESPACE, "energylens"]["data"]["config.yaml"]
    assert yaml.safe_load(config) == {"measurement": {"scrapeSeconds": 5}}
    assert yaml.safe_load(plain["ConfigMap", NAMESPACE, "energylens"]["data"]["config.yaml"]) == {}
    checksums = [
        o["Deployment", NAMESPACE, "energylens"]["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for o in (plain, changed_objects)
    ]
    assert checksums[0] != checksums[1]


def test_custom_resources_are_kept_unless_asked_otherwise(helm: Helm) -> None:
    def definitions(*values: str) -> list[dict[str, Any]]:
        return [o for (kind, _, _), o in render(helm, *values).items() if kind == "CustomResourceDefinition"]

    assert len(definitions()) == 3
    assert all(d["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for d in definitions())
    assert all("annotations" not in d["metadata"] for d in definitions("crds.keep=false"))
    assert definitions("crds.enabled=false") == []


def test_the_charts_definitions_are_the_generated_ones(helm: Helm) -> None:
    for (kind, _, name), definition in render(helm).items():
        if kind == "CustomResourceDefinition":
            generated = yaml.safe_load((ROOT / "crds" / f"{name.split('.')[0]}.yaml").read_text())
            assert definition["spec"] == generated["spec"]


def test_a_list_of_namespaces_makes_roles_there_and_none_for_the_cluster_but_gpus(helm: Helm) -> None:
    objects = render(helm, "watchNamespaces={team-a,team-b}")
    assert {namespace for kind, namespace, _ in objects if kind == "Role"} == {"team-a", "team-b", NAMESPACE}
    bound = {name for kind, _, name in objects if kind == "ClusterRoleBinding"}
    assert bound == {"energylens-gpus"}
    (container,) = pod_spec(objects)["containers"]
    assert container["args"][-2:] == ["--namespace=team-a", "--namespace=team-b"]


def test_reading_the_whole_cluster_can_be_left_to_others(helm: Helm) -> None:
    objects = render(helm, "watchNamespaces={team-a}", "rbac.clusterWide=false")
    assert "ClusterRoleBinding" not in kinds(objects)
    resources = [r for rule in objects["Role", "team-a", "energylens"]["rules"] for r in rule["resources"]]
    assert "pods" in resources
    assert "nodes" not in resources


DELETED = {"deployments", "leaderworkersets", "poddisruptionbudgets", "resourceclaimtemplates", "inferencepools"}
"""What a plan of another kind, of other GPUs or of one pod leaves over, and a field that was removed."""


def test_no_rule_has_a_wildcard_deletes_more_than_its_own_or_reads_secrets(helm: Helm) -> None:
    for values in ((), ("watchNamespaces={a}",)):
        for (kind, _, name), role in render(helm, *values).items():
            if kind in ("Role", "ClusterRole") and name in ("energylens", "energylens-gpus", "energylens-lease"):
                for rule in role["rules"]:
                    assert "*" not in rule["resources"] + rule["verbs"] + rule["apiGroups"]
                    assert not {"deletecollection", "escalate", "bind", "impersonate"} & set(rule["verbs"])
                    assert "delete" not in rule["verbs"] or set(rule["resources"]) <= DELETED
                    assert "secrets" not in rule["resources"]


def test_every_rule_says_why(helm: Helm) -> None:
    lines = helm.run("template", "energylens", str(CHART), "--show-only=templates/rbac.yaml").splitlines()
    rules = [index for index, line in enumerate(lines) if line.strip().startswith("- apiGroups")]
    assert len(rules) >= 10
    assert [lines[index] for index in rules if not lines[index - 1].strip().startswith("#")] == []


def test_the_agent_that_sets_power_limits_is_off_and_has_what_it_needs_only(helm: Helm) -> None:
    assert "DaemonSet" not in kinds(render(helm))
    objects = render(helm, "powerCaps.enabled=true")
    (spec,) = [o["spec"]["template"]["spec"] for (kind, _, _), o in objects.items() if kind == "DaemonSet"]
    (container,) = spec["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SYS_ADMIN"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert "privileged" not in container["securityContext"]
    assert {"hostNetwork", "hostIPC"} & set(spec) == set()
    assert [v["hostPath"]["path"] for v in spec["volumes"] if "hostPath" in v] == ["/run/energylens"]
    rules = objects["ClusterRole", "", "energylens-power-caps"]["rules"]
    assert rules == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]


def test_power_limits_are_not_set_by_pods_that_nobody_would_start(helm: Helm, api: Kubectl) -> None:
    install = ("install", "energylens", str(CHART), "--dry-run=server", f"--namespace={NAMESPACE}")
    with pytest.raises(
        DevClusterError, match=r"powerCaps\.runtimeClassName=nvidia: the cluster has no such RuntimeClass"
    ):
        helm.run(*install, "--set=powerCaps.enabled=true")
    assert "kind: DaemonSet" in helm.run(*install, "--set=powerCaps.enabled=true,powerCaps.runtimeClassName=")
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "a"}
    api.apply(runtime)
    assert "kind: DaemonSet" in helm.run(*install, "--set=powerCaps.enabled=true")
    api.run("delete", "runtimeclass", "nvidia")


def test_the_agent_that_sets_power_limits_is_accepted_by_the_api_server(helm: Helm, api: Kubectl) -> None:
    manifest = helm.run(
        "template", "energylens", str(CHART), "--set=powerCaps.enabled=true", "--show-only=templates/power-caps.yaml"
    )
    api.run("apply", "--dry-run=server", "--filename=-", stdin=manifest)


def test_optional_parts(helm: Helm) -> None:
    optional = {"ServiceMonitor", "NetworkPolicy", "PrometheusRule"}
    assert not optional & kinds(render(helm))
    asked = ("metrics.serviceMonitor.enabled=true", "networkPolicy.enabled=true", "metrics.prometheusRule.enabled=true")
    objects = render(helm, *asked)
    assert optional <= kinds(objects)
    without = render(
        helm, "metrics.service.enabled=false", "rbac.create=false", "rbac.aggregateRoles=false",
        "serviceAccount.create=false", "serviceAccount.name=mine",
    )  # fmt: skip
    assert kinds(without) == {"ConfigMap", "CustomResourceDefinition", "Deployment"}
    assert pod_spec(without)["serviceAccountName"] == "mine"


def test_alerts_and_dashboard_are_the_files_of_the_chart(helm: Helm) -> None:
    wiki = "https://wiki.example/runbooks"
    objects = render(
        helm, "metrics.prometheusRule.enabled=true", f"metrics.prometheusRule.runbookUrl={wiki}",
        "metrics.prometheusRule.labels.release=prometheus", "metrics.dashboard.enabled=true",
        "metrics.dashboard.namespace=grafana",
    )  # fmt: skip
    rule = objects["PrometheusRule", NAMESPACE, "energylens"]
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    (made,) = rule["spec"]["groups"]
    (group,) = yaml.safe_load((CHART / "rules" / "energylens.yaml").read_text())["groups"]
    assert [alert["expr"] for alert in made["rules"]] == [alert["expr"] for alert in group["rules"]]
    assert {alert["annotations"]["runbook_url"].partition("#")[0] for alert in made["rules"]} == {wiki}
    board = objects["ConfigMap", "grafana", "energylens-dashboard"]
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(board["data"]["energylens.json"]) == json.loads(
        (CHART / "dashboards" / "energylens.json").read_text()
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("replicaCount=10",), ("replicaCount", "10", "9")),
        (("podDisruptionBudget.maxUnavailable=0",), ("podDisruptionBudget/maxUnavailable", "0")),
        (("replicaCount=-1",), ("replicaCount", "0")),
        (("replicas=1",), ("replicas",)),
        (("image.digest=latest",), ("image/digest", "latest")),
        (("image.pullPolicy=Sometimes",), ("image/pullPolicy", "Always")),
        (("watchNamespaces=team-a",), ("watchNamespaces", "array")),
        (("watchNamespaces={Team_A}",), ("watchNamespaces", "Team_A")),
        (("crds.keep=sometimes",), ("crds/keep", "boolean")),
        (("operator.config=fast",), ("operator/config", "object")),
        (("operator.config.measurement.scrapeSecond=5",), ("operator/config/measurement", "scrapeSecond")),
        (("operator.config.workers=0",), ("operator/config/workers", "0")),
        (("metrics.serviceMonitor.interval=often",), ("interval", "often")),
        (("rbac.clusterWide=false",), ("rbac.clusterWide=false needs watchNamespaces",)),
        (("serviceAccount.create=false",), ("serviceAccount.name is needed",)),
        (("nameOverride=My_Name",), ("nameOverride", "My_Name")),
        (("nodeSelector.gpu=true",), ("nodeSelector/gpu", "got boolean, want string")),
        (("tolerations[0].value=true",), ("tolerations/0/value", "got boolean, want string")),
        (("operator.env[0].name=A", "operator.env[0].value=1"), ("operator/env/0/value", "got number, want string")),
        (("operator.volumes[0].emptyDir.medium=Memory",), ("operator/volumes/0", "missing property 'name'")),
        (("operator.volumes[0].name=tmp",), ("operator.volumes[0].name=tmp", "config, tmp")),
        (("operator.volumes[0].name=ca", "operator.volumes[1].name=ca"), ("operator.volumes[1].name=ca", "tmp, ca")),
        (("metrics.service.enabled=false", "metrics.serviceMonitor.enabled=true"), ("metrics.service.enabled",)),
    ],
)
def test_a_bad_value_is_refused_by_name(helm: Helm, values: tuple[str, ...], words: tuple[str, ...]) -> None:
    with pytest.raises(DevClusterError) as refused:
        render(helm, *values)
    assert [word for word in words if word not in str(refused.value)] == []


def test_names_that_yaml_takes_for_something_else_stay_text(helm: Helm, api: Kubectl) -> None:
    """``y`` and ``on`` are booleans in YAML 1.1, ``12`` is a number; the API server reads them as such."""
    optional = (
        "metrics.dashboard.enabled=true", "networkPolicy.enabled=true", "powerCaps.enabled=true",
        "networkPolicy.metricsFrom[0].podSelector.matchLabels.a=b", "priorityClassName=off", "crds.enabled=false",
    )  # fmt: skip
    names = ("watchNamespaces={on,12}",)
    for release, override in (
        ("12", "nameOverride=y"),
        ("e", "fullnameOverride=on"),
        ("1e3", "serviceAccount.name=no"),
    ):
        text = helm.run(
            "template", release, str(CHART), f"--namespace={NAMESPACE}", "--set-string", ",".join((override, *names)),
            *(f"--set={value}" for value in optional),
        )  # fmt: skip
        for namespace in ("on", "12", NAMESPACE):
            api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        api.run("apply", "--server-side", "--dry-run=server", "--filename=-", stdin=text)


def test_the_pod_of_helm_test_is_bounded_and_finds_its_image(helm: Helm) -> None:
    objects = render(helm, "imagePullSecrets[0].name=registry", "tolerations[0].key=a", "nodeSelector.b=c")
    spec = objects["Pod", NAMESPACE, "energylens-test"]["spec"]
    assert set(spec["containers"][0]["resources"]["requests"]) == {"cpu", "memory"}
    assert spec["containers"][0]["resources"]["limits"]["memory"]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert (spec["tolerations"], spec["nodeSelector"]) == ([{"key": "a"}], {"b": "c"})


@pytest.mark.usefixtures("release")
def test_an_install_serves_the_custom_resources_and_one_service_account(api: Kubectl) -> None:
    inside = api.within(NAMESPACE)
    accounts = inside.list("serviceaccounts", "--selector=app.kubernetes.io/instance=energylens")
    assert [account["metadata"]["name"] for account in accounts] == ["energylens"]
    deployment = inside.get("deployment", "energylens")
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 0
    service = inside.get("service", "energylens-metrics")
    assert service is not None
    assert service["spec"]["ports"][0]["targetPort"] == "http"
    eventually(lambda: inside.run("apply", "--filename=-", stdin=json.dumps(DEPLOYMENT)))
    assert "llama" in inside.run("get", "llmd")


@pytest.mark.usefixtures("release")
def test_two_operators_stand_on_two_nodes_and_a_drain_leaves_one(
    own_cluster: RunningCluster, helm: Helm, api: Kubectl
) -> None:
    # The only node without GPUs is one; those with GPUs have a taint.
    install(helm, "replicaCount=2", "tolerations[0].operator=Exists")
    inside, client = api.within(NAMESPACE), ApiClient(own_cluster.kubeconfig)

    def standing() -> list[dict[str, Any]]:
        (budget,) = inside.list("poddisruptionbudgets")
        assert budget["status"]["disruptionsAllowed"] == 1
        return inside.list("pods", "--selector=app.kubernetes.io/name=energylens")

    def evict(pod: dict[str, Any]) -> None:
        metadata = {"namespace": NAMESPACE, "name": pod["metadata"]["name"]}
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
        client.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods/{metadata['name']}/eviction", eviction)

    first, second = eventually(standing)
    assert first["spec"]["nodeName"] != second["spec"]["nodeName"]
    evict(first)
    with pytest.raises(ApiError, match="would violate the pod's disruption budget"):
        evict(second)
    client.close()


def test_definitions_of_another_installer_are_taken_over_when_helm_is_told_to(helm: Helm, api: Kubectl) -> None:
    """As docs/operator.md says, for definitions that were applied by hand or kept from another release."""
    asked = (
        "upgrade", "other", str(CHART), "--install", "--namespace=other", "--create-namespace", "--set=replicaCount=0",
        "--set=fullnameOverride=other",
    )  # fmt: skip
    definitions = [o for (kind, _, _), o in render(helm).items() if kind == "CustomResourceDefinition"]
    for definition in definitions:
        definition["metadata"].pop("annotations")
        definition["metadata"].pop("labels")
    names = [definition["metadata"]["name"] for definition in definitions]
    owner = ("meta.helm.sh/release-name-", "meta.helm.sh/release-namespace-", "app.kubernetes.io/managed-by-")
    api.run("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=yaml.safe_dump_all(definitions))
    for verb, removed in (("annotate", owner[:2]), ("label", owner[2:])):
        api.run(verb, "crd", *names, *removed)
    try:
        with pytest.raises(DevClusterError, match="invalid ownership metadata"):
            helm.run(*asked)
        helm.run("uninstall", "other", "--namespace=other", "--ignore-not-found")
        helm.run(*asked, "--take-ownership")
        for name in names:
            found = api.get("crd", name)
            assert found is not None
            assert found["metadata"]["annotations"]["meta.helm.sh/release-name"] == "other"
    finally:
        helm.run("uninstall", "other", "--namespace=other", "--ignore-not-found")
        kept = [name for name in names if api.get("crd", name) is not None]
        api.run("delete", "crd", *kept)
    assert kept == names


def may(api: Kubectl, verb: str, resource: str, *arguments: str, user: str = ACCOUNT, groups: str = "") -> bool:
    """Ask the API server, by a SubjectAccessReview."""
    command = [str(api.program), f"--kubeconfig={api.kubeconfig}", f"--cache-dir={api.cache}", "auth", "can-i"]
    identity = [f"--as={user}", *([f"--as-group={groups}"] if groups else [])]
    answer = subprocess.run(
        [*command, verb, resource, *arguments, *identity], capture_output=True, text=True, check=False
    )
    said = answer.stdout.strip()
    assert said in ("yes", "no"), answer.stderr
    return said == "yes"


NEEDED = (
    *((verb, "llmdeployments.energylens.dev", "default") for verb in ("list", "watch")),
    *((verb, "energybudgets.energylens.dev", "default") for verb in ("list", "watch")),
    ("patch", "llmdeployments.energylens.dev/status", "default"),
    ("patch", "energybudgets.energylens.dev/status", "default"),
    *(
        (verb, resource, "default")
        for verb in ("list", "watch", "create", "patch")
        for resource in (
            "deployments.apps", "services", "configmaps", "poddisruptionbudgets.policy",
        )
    ),
    ("delete", "deployments.apps", "default"),
    ("get", "configmaps", "default"),
    ("create", "events.events.k8s.io", "default"),
    ("list", "events.events.k8s.io", "default"),
    ("get", "persistentvolumeclaims", "default"),
    ("list", "nodes", ""),
    ("watch", "nodes", ""),
    *((verb, r, "") for verb in ("list", "watch") for r in ("namespaces", "clusterenergybudgets.energylens.dev")),
    ("patch", "clusterenergybudgets.energylens.dev/status", ""),
    *((verb, "resourceclaimtemplates.resource.k8s.io", "default") for verb in ("list", "create", "patch", "delete")),
    *(("watch", f"{plural}.resource.k8s.io", "") for plural in ("resourceslices", "deviceclasses", "resourceclaims")),
    ("watch", "devicetaintrules.resource.k8s.io", ""),
    ("list", "pods", "default"),
    ("watch", "pods", "default"),
    *((verb, "leases.coordination.k8s.io", NAMESPACE) for verb in ("get", "create", "update")),
)  # fmt: skip
FORBIDDEN = (
    *((verb, "llmdeployments.energylens.dev", "default") for verb in ("create", "update", "patch", "delete")),
    *((verb, "energybudgets.energylens.dev", "default") for verb in ("create", "update", "patch", "delete")),
    *((verb, "clusterenergybudgets.energylens.dev", "") for verb in ("create", "update", "patch", "delete")),
    *(("delete", r, "default") for r in ("services", "configmaps", "pods", "replicasets.apps")),
    *((verb, "secrets", "default") for verb in ("get", "list", "watch", "create")),
    *((verb, "persistentvolumeclaims", "default") for verb in ("list", "create", "patch", "delete")),
    *((verb, "pods", "default") for verb in ("create", "patch", "update")),
    ("create", "pods/exec", "default"),
    ("get", "pods/log", "default"),
    *((verb, "nodes", "") for verb in ("patch", "update", "delete")),
    ("list", "customresourcedefinitions.apiextensions.k8s.io", ""),
    ("patch", "namespaces", ""),
    *((verb, "resourceclaims.resource.k8s.io", "default") for verb in ("create", "patch", "delete")),
    ("create", "resourceslices.resource.k8s.io", ""),
    ("create", "clusterroles.rbac.authorization.k8s.io", ""),
    ("create", "leases.coordination.k8s.io", "default"),
    ("delete", "leases.coordination.k8s.io", NAMESPACE),
    ("create", "serviceaccounts/token", NAMESPACE),
)


@pytest.mark.usefixtures("release")
def test_the_operators_account_may_do_what_it_needs_and_nothing_else(api: Kubectl) -> None:
    def asked(rows: tuple[tuple[str, str, str], ...]) -> list[tuple[str, str, str]]:
        return [
            (verb, resource, namespace)
            for verb, resource, namespace in rows
            if may(api, verb, *resource.split("/")[:1], *subresource(resource), *scope(namespace))
        ]

    eventually(lambda: asked(NEEDED) == list(NEEDED))
    assert asked(FORBIDDEN) == []


def subresource(resource: str) -> list[str]:
    _, slash, name = resource.partition("/")
    return [f"--subresource={name}"] if slash else []


def scope(namespace: str) -> list[str]:
    return [f"--namespace={namespace}"] if namespace else []


def acts_as(api: Kubectl, user: str, body: dict[str, Any], verb: str = "create") -> str:
    """Do something to an object as a user; return "" or the server's refusal."""
    try:
        api.run(verb, "--filename=-", "--dry-run=server", f"--as={user}", stdin=json.dumps(body))
    except KubectlError as refused:
        return refused.stderr
    return ""


@pytest.mark.usefixtures("release")
def test_budgets_of_the_cluster_are_written_by_the_platform_team_only(api: Kubectl) -> None:
    bindings = (("dev", "edit"), ("reader", "view"), ("platform", "energylens-budget-admin"))
    for user, role in bindings:
        name = f"cluster-{user}"
        api.run("delete", "clusterrolebinding", name, "--ignore-not-found")
        api.run("create", "clusterrolebinding", name, f"--clusterrole={role}", f"--user={user}")
    eventually(lambda: api.run("get", "ceb,eb,llmd", "--as=reader") is not None)
    eventually(lambda: api.run("get", "ceb,eb,llmd", "--as=dev") is not None)
    eventually(lambda: acts_as(api, "dev", DEPLOYMENT) == "")
    for budget in (BUDGET, CLUSTER_BUDGET):
        assert "forbidden" in acts_as(api, "dev", budget)
        assert "forbidden" in acts_as(api, "reader", budget)
        eventually(lambda budget=budget: acts_as(api, "platform", budget) == "")  # type: ignore[misc]
    assert "forbidden" in acts_as(api, "platform", DEPLOYMENT)
    api.run("create", "rolebinding", "team-admin", "--clusterrole=admin", "--user=lead")
    eventually(lambda: acts_as(api, "lead", DEPLOYMENT) == "")
    assert "forbidden" in acts_as(api, "lead", BUDGET), "an admin of a namespace must not lift its cap"
    with pytest.raises(KubectlError, match="forbidden"):
        api.run("get", "ceb", "--as=lead")
    for user, _ in bindings:
        api.run("delete", "clusterrolebinding", f"cluster-{user}")


@pytest.mark.usefixtures("release")
def test_teams_edit_their_deployments_and_only_read_their_budgets(api: Kubectl) -> None:
    api.run("create", "namespace", "team", "--dry-run=client")
    for role, user in (("edit", "dev"), ("view", "guest"), ("energylens-budget-admin", "platform")):
        binding = f"{user}-{role}"
        api.run("delete", "rolebinding", binding, "--ignore-not-found")
        api.run("create", "rolebinding", binding, f"--clusterrole={role}", f"--user={user}")
    eventually(lambda: may(api, "create", "llmdeployments.energylens.dev", user="dev"))

    def allowed(user: str, resource: str) -> set[str]:
        verbs = ("get", "list", "watch", "create", "update", "patch", "delete")
        return {verb for verb in verbs if may(api, verb, f"{resource}.energylens.dev", user=user)}

    read, write = {"get", "list", "watch"}, {"create", "update", "patch", "delete"}
    # Roles are aggregated, and bindings seen by the authorizer, some time after they were written.
    eventually(lambda: allowed("dev", "llmdeployments") == read | write)
    eventually(lambda: allowed("dev", "energybudgets") == read)
    eventually(lambda: allowed("guest", "llmdeployments") == read)
    eventually(lambda: allowed("guest", "energybudgets") == read)
    eventually(lambda: allowed("platform", "energybudgets") == read | write)
    eventually(lambda: allowed("platform", "llmdeployments") == read)
    for kind in ("llmdeployments", "energybudgets", "clusterenergybudgets"):
        assert not may(api, "patch", f"{kind}.energylens.dev", "--subresource=status", user="dev")


def test_a_list_of_namespaces_bounds_what_the_account_may_do(helm: Helm, api: Kubectl) -> None:
    for name in ("team-in", "team-out"):
        api.run("create", "namespace", name)
    install(helm, "watchNamespaces={team-in}", "rbac.clusterWide=false")
    try:
        inside, outside = "--namespace=team-in", "--namespace=team-out"
        eventually(lambda: may(api, "list", "llmdeployments.energylens.dev", inside))
        eventually(lambda: may(api, "create", "deployments.apps", inside))
        eventually(lambda: may(api, "list", "pods", inside))
        for verb, resource in (
            ("list", "llmdeployments.energylens.dev"),
            ("create", "deployments.apps"),
            ("list", "pods"),
        ):
            assert not may(api, verb, resource, outside)
        assert not may(api, "list", "nodes")
        install(helm, "watchNamespaces={team-in}")
        eventually(lambda: may(api, "list", "nodes"))
        eventually(lambda: may(api, "list", "pods", outside))
        assert not may(api, "create", "deployments.apps", outside)
    finally:
        helm.run("uninstall", "energylens", f"--namespace={NAMESPACE}")


@pytest.mark.usefixtures("release")
def test_objects_survive_an_upgrade_an_uninstall_and_a_second_install(helm: Helm, api: Kubectl) -> None:
    obj = changed(DEPLOYMENT, {"metadata.name": "survivor"})
    eventually(lambda: api.run("apply", "--filename=-", stdin=json.dumps(obj)))

    def uid() -> str:
        stored = api.get("llmd", "survivor")
        assert stored is not None
        return str(stored["metadata"]["uid"])

    before = uid()
    install(helm, "podLabels.team=a")
    assert uid() == before
    helm.run("uninstall", "energylens", f"--namespace={NAMESPACE}")
    assert api.within(NAMESPACE).get("deployment", "energylens") is None
    assert uid() == before
    install(helm)
    assert uid() == before


def test_without_keep_an_uninstall_removes_the_custom_resources(helm: Helm, api: Kubectl) -> None:
    install(helm, "crds.keep=false")
    helm.run("uninstall", "energylens", f"--namespace={NAMESPACE}")

    def gone() -> bool:
        return api.get("crd", "llmdeployments.energylens.dev") is None

    # The API server tries a definition's clean-up again after a minute when it had just begun to serve it.
    eventually(gone, timeout=180)


def test_the_notes_say_what_comes_next(helm: Helm, own_cluster: RunningCluster) -> None:
    del own_cluster
    text = helm.run(
        "install", "energylens", str(CHART), "--dry-run=client", f"--namespace={NAMESPACE}", "--set=replicaCount=0"
    )
    assert "kubectl get llmd -A -o wide" in text
    assert "replicaCount is 0" in text
    for resource in ("llmdeployments", "energybudgets", "clusterenergybudgets"):
        assert f"{resource}.energylens.dev" in text
    assert "names no registry" in text
    named = helm.run(
        "install",
        "energylens",
        str(CHART),
        "--dry-run=client",
        f"--namespace={NAMESPACE}",
        "--set=image.repository=r/e",
    )
    assert "names no registry" not in named
