from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from energylens.api.llmdeployment import LLMDeployment, PlanStatus, Toleration
from energylens.data import load_gpus
from energylens.planner.inventory.capacity import tolerates_for_good
from energylens.planner.inventory.products import GKE_LABEL, PRODUCT_LABEL, NodeLabels
from energylens.planner.types import Taint
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.parameters import weight_bytes
from energylens.serving import Placement, ServingError, Strategy, check, manifests

Deploy = Callable[..., LLMDeployment]
Plan = Callable[..., PlanStatus]
STRATEGY = Strategy("Surge", 1, 0)


def pod(deployment: LLMDeployment, plan: PlanStatus, model: ModelSpec) -> dict[str, Any]:
    gpu = load_gpus().get(plan.gpu_product)
    found: dict[str, Any] = manifests(deployment, plan, model, strategy=STRATEGY, placement=Placement(gpu))[0]["spec"][
        "template"
    ]
    return found


@pytest.mark.parametrize("name", ["8b", "70b", "405b", "405b-fp8"])
def test_the_startup_budget_covers_a_slow_load_and_compilation(
    name: str, make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    probe = pod(make_deployment(), make_plan(), models[name])["spec"]["containers"][0]["startupProbe"]
    budget = probe["periodSeconds"] * probe["failureThreshold"]
    assert budget >= weight_bytes(models[name]) / 0.5e9 + 600
    # 405B in 16 bit loads for 27 minutes at 0.5 GB/s; a fixed budget of ten minutes would restart it for ever.
    assert budget >= (2200 if name == "405b" else 600)


def test_the_engine_waits_as_long_as_the_probe(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    container = pod(make_deployment(), make_plan(), models["405b"])["spec"]["containers"][0]
    timeout = next(e["value"] for e in container["env"] if e["name"] == "VLLM_ENGINE_READY_TIMEOUT_S")
    probe = container["startupProbe"]
    assert int(timeout) == probe["periodSeconds"] * probe["failureThreshold"]


@pytest.mark.parametrize("grace", [None, 60, 600, 10])
def test_requests_end_before_the_pod_is_killed(
    grace: int | None, make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    template = {} if grace is None else {"podTemplate": {"spec": {"terminationGracePeriodSeconds": grace}}}
    spec = pod(make_deployment(**template), make_plan(), models["70b"])["spec"]
    container = spec["containers"][0]
    drain = next(int(a.partition("=")[2]) for a in container["args"] if a.startswith("--shutdown-timeout"))
    pre_stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] == (grace or 140)
    assert drain == max(0, spec["terminationGracePeriodSeconds"] - pre_stop - 5)


def test_probes_of_sglang_wait_longer_than_its_health_check_takes(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    container = pod(make_deployment(engine={"type": "SGLang"}), make_plan(), models["70b"])["spec"]["containers"][0]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["timeoutSeconds"] >= 5


def test_followers_serve_no_requests(make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]) -> None:
    plan = make_plan(tensor_parallel=8, pipeline_parallel=2, nodes_per_replica=2)
    for engine in ("VLLM", "SGLang"):
        workload = manifests(make_deployment(engine={"type": engine}), plan, models["405b"], strategy=STRATEGY)[0]
        group = workload["spec"]["leaderWorkerTemplate"]
        leader = group["leaderTemplate"]["spec"]["containers"][0]
        follower = group["workerTemplate"]["spec"]["containers"][0]
        assert "startupProbe" in leader
        assert not {"startupProbe", "livenessProbe", "ports", "lifecycle"} & set(follower)
        assert "annotations" not in group["workerTemplate"]["metadata"]


@pytest.mark.parametrize(("nodes", "gpus"), [(1, "8"), (2, "4")])
def test_each_pod_asks_for_its_share_of_the_gpus(
    nodes: int, gpus: str, make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    plan = make_plan(tensor_parallel=4, pipeline_parallel=2, nodes_per_replica=nodes)
    spec = manifests(make_deployment(), plan, models["70b"], strategy=STRATEGY)[0]["spec"]
    template = spec["template"] if nodes == 1 else spec["leaderWorkerTemplate"]["workerTemplate"]
    resources = template["spec"]["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == gpus


def terms_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    found: list[dict[str, Any]] = required["nodeSelectorTerms"]
    return found


def matches(term: dict[str, Any], labels: dict[str, str]) -> bool:
    """Return what the scheduler says of a node selector term, for the operators that we use."""
    found = {
        "In": lambda e: labels.get(e["key"]) in e["values"],
        "NotIn": lambda e: labels.get(e["key"]) not in e["values"],
        "DoesNotExist": lambda e: e["key"] not in labels,
    }
    return all(found[e["operator"]](e) for e in term["matchExpressions"])


def test_the_pod_goes_only_to_the_planned_product(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    terms = terms_of(pod(make_deployment(), make_plan(gpu_product="NVIDIA-B200"), models["70b"])["spec"])
    older = ["B200", "nvidia-b200", "b200"]
    linux = {"key": "kubernetes.io/os", "operator": "NotIn", "values": ["windows"]}
    assert terms == [
        {"matchExpressions": [{"key": PRODUCT_LABEL, "operator": "In", "values": ["NVIDIA-B200"]}, linux]},
        {"matchExpressions": [{"key": PRODUCT_LABEL, "operator": "In", "values": older}, linux]},
        {
            "matchExpressions": [
                {"key": GKE_LABEL, "operator": "In", "values": ["nvidia-b200"]},
                {"key": PRODUCT_LABEL, "operator": "DoesNotExist"},
                linux,
            ]
        },
    ]


def test_a_product_that_nobody_knows_any_more_keeps_its_label(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    terms = terms_of(pod(make_deployment(), make_plan(gpu_product="NVIDIA-X1"), models["70b"])["spec"])
    (term,) = terms
    assert term["matchExpressions"][0] == {"key": PRODUCT_LABEL, "operator": "In", "values": ["NVIDIA-X1"]}


def test_a_node_has_the_planned_product_for_the_planner_where_it_has_it_for_the_pods(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    gpus = load_gpus()
    names = NodeLabels(gpus)
    spelled = {n for gpu in gpus.values() for n in (gpu.product, gpu.name, *gpu.aliases, *gpu.label_values)}
    gke = {name for gpu in gpus.values() for name in gpu.gke_accelerators}
    nodes = [{PRODUCT_LABEL: form(name)} for name in spelled | gke for form in (str, str.lower, str.upper)]
    nodes += [{GKE_LABEL: form(name)} for name in spelled | gke for form in (str, str.lower, str.upper)]
    nodes += [{GKE_LABEL: "nvidia-l4", PRODUCT_LABEL: "NVIDIA-L40S"}, {GKE_LABEL: "nvidia-l4", PRODUCT_LABEL: "X"}, {}]
    for product in gpus:
        terms = terms_of(pod(make_deployment(), make_plan(gpu_product=product), models["8b"])["spec"])
        for labels in nodes:
            assert (names.product(labels) == product) == any(matches(term, labels) for term in terms), labels


@pytest.mark.parametrize("effect", ["NoSchedule", "PreferNoSchedule", "NoExecute"])
def test_pods_bear_the_taints_of_gpu_nodes_that_the_planner_counts_on(
    effect: str, make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    brief = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}
    deployment = make_deployment(hardware={"tolerations": [brief, {"key": "team", "value": "a"}]})
    spec = pod(deployment, make_plan(), models["8b"])["spec"]
    # Ours first: the first one that matches decides for how long a taint is borne.
    assert spec["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists"},
        brief,
        {"key": "team", "operator": "Equal", "value": "a"},
    ]
    borne = [Toleration.model_validate(toleration) for toleration in spec["tolerations"]]
    assert tolerates_for_good(borne, Taint("nvidia.com/gpu", "present", effect))


@pytest.mark.parametrize(
    ("cache", "volume"),
    [
        (None, {"name": "models", "emptyDir": {}}),
        ({"persistentVolumeClaim": "w"}, {"name": "models", "persistentVolumeClaim": {"claimName": "w"}}),
        ({"hostPath": "/w"}, {"name": "models", "hostPath": {"path": "/w", "type": "DirectoryOrCreate"}}),
    ],
)
def test_weights_stay_where_the_spec_says(
    cache: dict[str, str] | None,
    volume: dict[str, Any],
    make_deployment: Deploy,
    make_plan: Plan,
    models: dict[str, ModelSpec],
) -> None:
    spec = pod(make_deployment(model_part={"cache": cache} if cache else {}), make_plan(), models["70b"])["spec"]
    assert volume in spec["volumes"]


def test_the_users_template_is_merged(make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]) -> None:
    template = {
        "metadata": {"labels": {"team": "a"}, "annotations": {"prometheus.io/scrape": "false"}},
        "spec": {
            "priorityClassName": "serving",
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "securityContext": {"runAsUser": 2000},
            "containers": [
                {
                    "name": "engine",
                    "resources": {"requests": {"cpu": "8"}},
                    "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
                    "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                },
                {"name": "router", "image": "example.org/router:1"},
            ],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
        },
    }
    deployment = make_deployment(podTemplate=template)
    merged = pod(deployment, make_plan(), models["70b"])
    spec, (engine, router) = merged["spec"], merged["spec"]["containers"]
    assert merged["metadata"]["labels"]["team"] == "a"
    assert merged["metadata"]["labels"]["energylens.dev/revision"]
    assert merged["metadata"]["annotations"]["prometheus.io/scrape"] == "false"
    assert merged["metadata"]["annotations"]["prometheus.io/port"] == "8000"
    assert spec["priorityClassName"] == "serving"
    assert [t["key"] for t in spec["tolerations"]] == ["nvidia.com/gpu", "spot"]
    assert spec["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}, "runAsUser": 2000}
    assert engine["resources"]["requests"] == {"nvidia.com/gpu": "1", "cpu": "8"}
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in engine["env"]
    assert len(engine["env"]) == 7
    assert [m["mountPath"] for m in engine["volumeMounts"]] == ["/dev/shm", "/models", "/scratch"]
    assert [v["name"] for v in spec["volumes"]] == ["shm", "models", "scratch"]
    assert router["image"] == "example.org/router:1"
    assert deployment.spec.pod_template == template


@pytest.mark.parametrize(
    ("template", "field", "instead"),
    [
        ({"spec": {"nodeSelector": {"a": "b"}}}, "nodeSelector", "spec.hardware.nodeSelector"),
        ({"spec": {"nodeName": "a"}}, "nodeName", "spec.hardware.nodeSelector"),
        ({"spec": {"affinity": {"nodeAffinity": {}}}}, "nodeAffinity", "spec.hardware.nodeSelector"),
        ({"spec": {"containers": [{"name": "engine", "args": []}]}}, "args", "spec.engine.extraArgs"),
        ({"spec": {"containers": [{"name": "engine", "image": "x"}]}}, "image", "spec.engine.image"),
        (
            {"spec": {"containers": [{"name": "engine", "resources": {"limits": {"nvidia.com/gpu": 1}}}]}},
            "resources.limits",
            "spec.planning.overrides.tensorParallel",
        ),
        (
            {"spec": {"containers": [{"name": "engine", "env": [{"name": "CUDA_VISIBLE_DEVICES", "value": "0"}]}]}},
            "containers[engine].env",
            "CUDA_VISIBLE_DEVICES is decided by the plan",
        ),
    ],
)
def test_the_users_template_may_not_change_the_plan(
    template: dict[str, Any], field: str, instead: str, make_deployment: Deploy
) -> None:
    with pytest.raises(ServingError) as raised:
        check(make_deployment(podTemplate=template))
    assert raised.value.field.startswith("spec.podTemplate.spec.")
    assert raised.value.field.endswith(field)
    assert instead in str(raised.value)


def test_the_users_template_may_not_take_our_labels(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    deployment = make_deployment(podTemplate={"metadata": {"labels": {"energylens.dev/plan": "mine"}}})
    with pytest.raises(ServingError, match=r"energylens\.dev/plan is set by the operator"):
        pod(deployment, make_plan(), models["70b"])


@pytest.mark.parametrize("label", ["app.kubernetes.io/name", "energylens.dev/llmdeployment", "energylens.dev/kv-cache"])
def test_labels_of_every_pod_are_refused_before_there_is_a_plan(label: str, make_deployment: Deploy) -> None:
    with pytest.raises(ServingError, match=f"{label} is set by the operator"):
        check(make_deployment(podTemplate={"metadata": {"labels": {label: "mine"}}}))


def test_a_template_without_values_changes_nothing(make_deployment: Deploy) -> None:
    check(make_deployment(podTemplate={"metadata": {"labels": None}, "spec": {"containers": None}}))


def test_a_power_cap_of_the_plan_is_an_annotation_of_the_pods(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    capped = pod(make_deployment(), make_plan(power_cap_watts_per_gpu=400), models["8b"])
    assert capped["metadata"]["annotations"]["dynamo.nvidia.com/gpu-power-limit"] == "400"
    free = pod(make_deployment(), make_plan(), models["8b"])
    assert "dynamo.nvidia.com/gpu-power-limit" not in free["metadata"]["annotations"]


def test_the_power_cap_of_the_plan_wins_over_the_pod_template(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    own = {"metadata": {"annotations": {"dynamo.nvidia.com/gpu-power-limit": "100"}}}
    capped = pod(make_deployment(podTemplate=own), make_plan(power_cap_watts_per_gpu=400), models["8b"])
    assert capped["metadata"]["annotations"]["dynamo.nvidia.com/gpu-power-limit"] == "400"


READ_ONLY: dict[str, Any] = {"name": "engine", "securityContext": {"readOnlyRootFilesystem": True}}


def engine_of(template: dict[str, Any]) -> dict[str, Any]:
    (engine,) = [c for c in template["spec"]["containers"] if c["name"] == "engine"]
    found: dict[str, Any] = engine
    return found


def test_an_engine_with_a_read_only_root_has_room_to_write(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    plain = pod(make_deployment(), make_plan(), models["70b"])
    assert "/tmp" not in {m["mountPath"] for m in engine_of(plain)["volumeMounts"]}
    closed = pod(make_deployment(podTemplate={"spec": {"containers": [READ_ONLY]}}), make_plan(), models["70b"])
    (mount,) = [m for m in engine_of(closed)["volumeMounts"] if m["mountPath"] == "/tmp"]
    assert {"name": mount["name"], "emptyDir": {}} in closed["spec"]["volumes"]
    assert {"name": "HOME", "value": "/tmp"} in engine_of(closed)["env"]


def test_room_to_write_that_the_user_gives_stays(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    container = {**READ_ONLY, "volumeMounts": [{"name": "scratch", "mountPath": "/tmp/"}]}
    template = {"spec": {"containers": [container], "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "9Gi"}}]}}
    engine = {"env": [{"name": "HOME", "value": "/home/vllm"}]}
    found = pod(make_deployment(podTemplate=template, engine=engine), make_plan(), models["70b"])
    assert [m["name"] for m in engine_of(found)["volumeMounts"] if m["mountPath"].startswith("/tmp")] == ["scratch"]
    assert [v["value"] for v in engine_of(found)["env"] if v["name"] == "HOME"] == ["/home/vllm"]


@pytest.mark.parametrize(
    ("engine", "wanted"),
    [
        ("VLLM", {"VLLM_CACHE_ROOT": "/w/vllm", "FLASHINFER_WORKSPACE_BASE": "/w/flashinfer"}),
        ("SGLang", {"SGLANG_CACHE_DIR": "/w/sglang"}),
    ],
)
def test_what_an_engine_compiles_is_kept_beside_the_weights(
    engine: str, wanted: dict[str, str], make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    cache = {"cache": {"persistentVolumeClaim": "weights", "path": "/w"}}
    found = pod(make_deployment(model_part=cache, engine={"type": engine}), make_plan(), models["70b"])
    env = {v["name"]: v.get("value") for v in engine_of(found)["env"]}
    assert wanted.items() <= env.items()
    assert {name for name in env if "CACHE" in name or "WORKSPACE" in name} == {"HF_HUB_CACHE", *wanted}
