"""Pods of the two roles of a plan: command lines, ports, labels, the sidecar, and who may work with whom."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.api.llmdeployment import Engine, LLMDeployment, PlanStatus, PrefillReplicas
from energylens.planner.engines import EngineSettings
from energylens.planner.engines.arguments import read_arguments
from energylens.predictor.model.architecture import ModelSpec
from energylens.serving import Placement, Roles, ServingError, Strategy, check, manifests
from energylens.serving.images import ENGINE_IMAGES
from energylens.serving.roles import exchange, kv_cache, prefill_plan

Deploy = Callable[..., LLMDeployment]
Plan = Callable[..., PlanStatus]
STRATEGY = Strategy("Recreate", 0, 1)
ROUTING: dict[str, Any] = {
    "inferencePool": {"endpointPicker": {"name": "epp"}},
    "disaggregation": {"router": "LLMD", "sidecarImage": "llm-d/sidecar:v1"},
}
PREFILL = PrefillReplicas(
    replicas=3,
    tensor_parallel=2,
    pipeline_parallel=1,
    expert_parallel=1,
    data_parallel=1,
    max_batch_size=4,
    power_cap_watts_per_gpu=400,
)


@pytest.fixture
def made(make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]) -> Callable[..., dict[str, Any]]:
    """Return a function that makes the objects of a plan with roles, by kind and name."""

    def make(roles: Roles | None = None, placement: Placement | None = None, **spec: Any) -> dict[str, Any]:
        plan = make_plan(tensor_parallel=4, replicas=2, serving_hash="ab12").model_copy(update={"prefill": PREFILL})
        deployment = make_deployment(**({"routing": ROUTING} | spec))
        found = manifests(
            deployment,
            plan,
            models["70b"],
            strategy=STRATEGY,
            roles=roles,
            placement=placement or Placement(),
        )
        names = [(each["kind"], each["metadata"]["name"]) for each in found]
        assert len(set(names)) == len(names)
        return dict(zip((f"{kind}/{name}" for kind, name in names), found, strict=True))

    return make


def pod(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body["spec"]["template"]
    return found


def engine(body: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod(body)["spec"]["containers"]
    return dict(found)


def test_two_deployments_a_service_and_a_pool(made: Callable[..., dict[str, Any]]) -> None:
    found = made()
    assert list(found) == [
        "Deployment/chat",
        "Service/chat",
        "Deployment/chat-prefill",
        "PodDisruptionBudget/chat",
        "InferencePool/chat",
    ]
    decode, prefill = found["Deployment/chat"], found["Deployment/chat-prefill"]
    assert (decode["spec"]["replicas"], prefill["spec"]["replicas"]) == (2, 3)
    assert [pod(each)["metadata"]["labels"]["llm-d.ai/role"] for each in (decode, prefill)] == ["decode", "prefill"]
    gpus = [engine(each)["resources"]["requests"]["nvidia.com/gpu"] for each in (decode, prefill)]
    assert gpus == ["4", "2"]
    caps = [pod(each)["metadata"]["annotations"].get("dynamo.nvidia.com/gpu-power-limit") for each in (decode, prefill)]
    assert caps == [None, "400"]


def test_selectors_tell_the_roles_apart(made: Callable[..., dict[str, Any]]) -> None:
    found = made()
    labels = {name: pod(found[f"Deployment/{name}"])["metadata"]["labels"] for name in ("chat", "chat-prefill")}

    def selects(selector: dict[str, str]) -> list[str]:
        return [name for name, own in labels.items() if selector.items() <= own.items()]

    assert selects(found["Deployment/chat-prefill"]["spec"]["selector"]["matchLabels"]) == ["chat-prefill"]
    assert selects(found["Service/chat"]["spec"]["selector"]) == ["chat"]
    assert selects(found["InferencePool/chat"]["spec"]["selector"]["matchLabels"]) == ["chat", "chat-prefill"]
    assert selects(found["PodDisruptionBudget/chat"]["spec"]["selector"]["matchLabels"]) == ["chat", "chat-prefill"]
    # While pods without a role serve, the Service leaves none of them out.
    wide = made(Roles(only_decode_serves=False))
    assert selects(wide["Service/chat"]["spec"]["selector"]) == ["chat", "chat-prefill"]


def test_the_selector_of_the_main_deployment_is_that_of_a_plan_without_roles(
    made: Callable[..., dict[str, Any]], make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    """Kubernetes allows no change of it."""
    plain = manifests(make_deployment(), make_plan(), models["70b"], strategy=STRATEGY)[0]
    assert made()["Deployment/chat"]["spec"]["selector"] == plain["spec"]["selector"]


def test_each_role_has_its_layout_and_the_connector(made: Callable[..., dict[str, Any]]) -> None:
    found = made()
    for name, size, batch, port in (("chat", 4, 64, 8200), ("chat-prefill", 2, 4, 8000)):
        args = engine(found[f"Deployment/{name}"])["args"]
        assert f"--tensor-parallel-size={size}" in args
        assert f"--max-num-seqs={batch}" in args
        assert f"--port={port}" in args
        (config,) = [each.partition("=")[2] for each in args if each.startswith("--kv-transfer-config=")]
        assert json.loads(config) == {"kv_connector": "NixlConnector", "kv_role": "kv_both"}
        read = read_arguments(args[1:], "VLLM", EngineSettings().version)
        assert (read.problems, read.unresolved, read.strays) == ((), (), ())
        env = {each["name"]: each.get("value") for each in engine(found[f"Deployment/{name}"])["env"]}
        assert env["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "$(POD_IP)"
        assert env["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5600"
        # $(POD_IP) is only expanded from an earlier variable.
        assert next(iter(env)) == "POD_IP"


def test_probes_reach_the_engine_and_requests_the_sidecar(made: Callable[..., dict[str, Any]]) -> None:
    found = made()
    decode, prefill = found["Deployment/chat"], found["Deployment/chat-prefill"]
    assert engine(decode)["ports"] == [{"name": "engine", "containerPort": 8200}]
    assert engine(prefill)["ports"] == [{"name": "http", "containerPort": 8000}]
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert engine(decode)[kind]["httpGet"]["port"] == "engine"
        assert engine(prefill)[kind]["httpGet"]["port"] == "http"
    (sidecar,) = pod(decode)["spec"]["initContainers"]
    assert "initContainers" not in pod(prefill)["spec"]
    assert (sidecar["image"], sidecar["restartPolicy"]) == ("llm-d/sidecar:v1", "Always")
    assert set(sidecar["args"]) == {"--port=8000", "--vllm-port=8200", "--kv-connector=nixlv2", "--secure-proxy=false"}
    assert sidecar["ports"] == [{"name": "http", "containerPort": 8000}]
    # The name of a sidecar's port is not looked up by every release of Kubernetes.
    assert found["Service/chat"]["spec"]["ports"][0]["targetPort"] == 8000
    assert pod(decode)["metadata"]["annotations"]["prometheus.io/port"] == "8000"


def test_prefill_pods_that_nobody_can_read_from_stop(made: Callable[..., dict[str, Any]]) -> None:
    found = made(Roles(prefill_runs=False))
    assert found["Deployment/chat-prefill"]["spec"]["replicas"] == 0
    assert found["Deployment/chat"]["spec"]["replicas"] == 2


def test_each_role_claims_its_own_gpus(made: Callable[..., dict[str, Any]]) -> None:
    found = made(placement=Placement(access="Claim"))
    templates = {name: body for name, body in found.items() if name.startswith("ResourceClaimTemplate/")}
    assert len(templates) == 2
    used = {
        pod(found[f"Deployment/{name}"])["spec"]["resourceClaims"][0]["resourceClaimTemplateName"]
        for name in ("chat", "chat-prefill")
    }
    assert {f"ResourceClaimTemplate/{name}" for name in used} == set(templates)


def test_decode_pods_answer_until_a_plan_without_roles_has_replaced_them(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    def port(roles: Roles | None) -> object:
        found = manifests(make_deployment(), make_plan(), models["70b"], strategy=STRATEGY, roles=roles)
        (service,) = [each for each in found if each["kind"] == "Service"]
        assert "energylens.dev/role" not in service["spec"]["selector"]
        return service["spec"]["ports"][0]["targetPort"]

    # The name is looked up in their sidecars by newer releases of Kubernetes only.
    assert port(Roles(only_decode_serves=False)) == 8000
    assert port(None) == "http"


def test_a_plan_with_roles_needs_the_router(made: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ServingError, match=r"spec.routing.disaggregation: not set.*name the router until another plan"):
        made(routing={})


@pytest.mark.parametrize(
    ("engine_part", "text"),
    [
        (
            {"extraArgs": ['--kv-transfer-config={"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"}']},
            "leave it out",
        ),
        ({"extraArgs": ["--kv-transfer-config.kv_role", "kv_both"]}, "leave it out"),
        ({"env": [{"name": "VLLM_NIXL_SIDE_CHANNEL_PORT", "value": "1"}]}, "VLLM_NIXL_SIDE_CHANNEL_PORT"),
        ({"env": [{"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "value": "a"}]}, "VLLM_NIXL_SIDE_CHANNEL_HOST"),
    ],
)
def test_what_connects_the_roles_is_the_operators(
    make_deployment: Deploy, engine_part: dict[str, Any], text: str
) -> None:
    followed = make_deployment(engine=engine_part, planning={"disaggregation": "Follow"}, routing=ROUTING)
    with pytest.raises(ServingError, match=text):
        check(followed)
    # Elsewhere the transfer may be used, for example for a shared cache.
    check(make_deployment(engine=engine_part))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ({"metadata": {"labels": {"llm-d.ai/role": "both"}}}, "llm-d.ai/role is set by the operator"),
        (
            {"spec": {"containers": [{"name": "engine", "env": [{"name": "VLLM_NIXL_SIDE_CHANNEL_HOST"}]}]}},
            "VLLM_NIXL_SIDE_CHANNEL_HOST is set for each pod of the two roles",
        ),
        (
            {"spec": {"initContainers": [{"name": "routing-sidecar", "args": ["--port=1"]}]}},
            r"initContainers\[routing-sidecar\].args: set by the operator",
        ),
    ],
)
def test_a_template_that_breaks_the_roles_is_refused_before_there_is_a_plan(
    make_deployment: Deploy, template: dict[str, Any], text: str
) -> None:
    followed = make_deployment(podTemplate=template, planning={"disaggregation": "Follow"}, routing=ROUTING)
    with pytest.raises(ServingError, match=text):
        check(followed)
    check(make_deployment(podTemplate=template))


def test_sglangs_roles_meet_at_the_bootstrap_server_of_the_prefill_pod(made: Callable[..., dict[str, Any]]) -> None:
    found = made(engine={"type": "SGLang"})
    decode, prefill = engine(found["Deployment/chat"])["args"], engine(found["Deployment/chat-prefill"])["args"]
    assert {"--port=8200", "--disaggregation-mode=decode", "--disaggregation-transfer-backend=nixl"} <= set(decode)
    assert {"--port=8000", "--disaggregation-mode=prefill", "--disaggregation-bootstrap-port=8998"} <= set(prefill)
    (sidecar,) = pod(found["Deployment/chat"])["spec"]["initContainers"]
    assert {"--vllm-port=8200", "--kv-connector=sglang"} <= set(sidecar["args"])
    names = {variable["name"] for variable in engine(found["Deployment/chat"])["env"]}
    assert not any(name.startswith("VLLM") for name in names)


def test_the_transfer_backend_of_sglang_may_be_chosen(made: Callable[..., dict[str, Any]]) -> None:
    own = ["--disaggregation-transfer-backend=mooncake", "--disaggregation-ib-device=mlx5_0"]
    args = engine(made(engine={"type": "SGLang", "extraArgs": own})["Deployment/chat-prefill"])["args"]
    assert [arg for arg in args if "transfer-backend" in arg or "ib-device" in arg] == own


@pytest.mark.parametrize(
    "argument", ["--disaggregation-bootstrap-port=9000", "--enable-pd-role-switch", "--disaggregation-mode=decode"]
)
def test_how_sglangs_roles_meet_is_the_operators(make_deployment: Deploy, argument: str) -> None:
    followed = make_deployment(
        engine={"type": "SGLang", "extraArgs": [argument]}, planning={"disaggregation": "Follow"}, routing=ROUTING
    )
    with pytest.raises(ServingError, match="is set by the operator; "):
        check(followed)


def test_sglangs_pods_exchange_the_cache_in_equal_sizes_only(make_plan: Plan) -> None:
    sizes = {
        (name, size): kv_cache(make_plan(tensor_parallel=size, serving_hash="a"), Engine(type=name))
        for name in ("VLLM", "SGLang")
        for size in (2, 4)
    }
    assert exchange(sizes["VLLM", 2], sizes["VLLM", 4])
    assert not exchange(sizes["SGLang", 2], sizes["SGLang", 4])
    assert exchange(sizes["SGLang", 2], sizes["SGLang", 2])


SIZES = st.sampled_from([1, 2, 3, 4, 6, 8])


@given(one=SIZES, other=SIZES, same=st.booleans())
def test_pods_exchange_the_cache_of_one_model_if_one_size_divides_the_other(one: int, other: int, same: bool) -> None:
    a, b = f"ab12-tp{one}", f"{'ab12' if same else 'cd34'}-tp{other}"
    assert exchange(a, b) is exchange(b, a) is (same and (one % other == 0 or other % one == 0))


@pytest.mark.parametrize("label", ["x", "ab12-tp", "ab12-tp0", "-tp2", "ab12-tpx"])
def test_a_label_of_somebody_else_exchanges_nothing(label: str) -> None:
    assert not exchange(label, "ab12-tp2")
    assert exchange("", "ab12-tp2")


def test_another_release_of_the_engine_or_another_product_exchanges_nothing(
    make_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, engine = make_plan(), Engine(type="VLLM")
    before = kv_cache(plan, engine)
    assert len(before) <= 63
    assert exchange(before, kv_cache(plan, engine))
    assert not exchange(before, kv_cache(plan.model_copy(update={"gpu_product": "NVIDIA-B200"}), engine))
    # The spec names no image, and a newer release of the operator has a newer one.
    monkeypatch.setitem(ENGINE_IMAGES, "VLLM", "vllm/vllm-openai:v0.99.0")
    assert not exchange(before, kv_cache(plan, engine))


def test_the_prefill_replicas_as_a_plan(make_plan: Plan) -> None:
    plan = make_plan(tensor_parallel=4, replicas=2).model_copy(update={"prefill": PREFILL, "serving_hash": "ab12"})
    own = prefill_plan(plan)
    assert (own.replicas, own.tensor_parallel, own.gpus, own.layout) == (3, 2, 6, "TP2")
    assert (own.hash, own.gpu_product, own.prefill) == (plan.hash, plan.gpu_product, None)
    engine = Engine(type="VLLM")
    assert exchange(kv_cache(own, engine), kv_cache(plan, engine))
    assert [kv_cache(each, engine)[-4:] for each in (own, plan)] == ["-tp2", "-tp4"]
    with pytest.raises(ValueError, match="no prefill"):
        prefill_plan(own)
