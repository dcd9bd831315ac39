"""Pods put together by what runs them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.audit_cluster import H100, pod

from energylens.audit.arguments import RunningLayout
from energylens.audit.served import ServedModel, owner_of, served_models
from energylens.measure.types import PodRef

VLLM = {"image": "vllm/vllm-openai:v0.24.0", "args": ["--model=Qwen/Qwen3-32B", "-tp", "2"]}
NODES = {"node-0": H100, "node-1": "NVIDIA-H200"}


def one(*pods: Any, **given: Any) -> ServedModel:
    (found,) = served_models(pods, NODES, given.pop("config_maps", {}), **given)
    return found


@pytest.mark.parametrize(
    ("owner", "labels", "wanted"),
    [
        (("ReplicaSet", "chat-5d9f"), {}, "team/chat (Deployment)"),
        (("ReplicaSet", "bare"), {"pod-template-hash": "other"}, "team/bare (ReplicaSet)"),
        (("StatefulSet", "chat"), {}, "team/chat (StatefulSet)"),
        (("Job", "chat-1"), {}, "team/chat-1 (Job)"),
        (("StatefulSet", "x"), {"leaderworkerset.sigs.k8s.io/name": "chat"}, "team/chat (LeaderWorkerSet)"),
        (("ReplicaSet", "chat-p-5d9f"), {"serving.kserve.io/inferenceservice": "chat"}, "team/chat (InferenceService)"),
        (
            ("ReplicaSet", "chat-kserve-5d9f"),
            {"app.kubernetes.io/part-of": "llminferenceservice", "app.kubernetes.io/name": "chat"},
            "team/chat (LLMInferenceService)",
        ),
        (
            ("ReplicaSet", "x-5d9f"),
            {"nvidia.com/dynamo-graph-deployment-name": "chat", "nvidia.com/dynamo-component": "VllmWorker"},
            "team/chat/VllmWorker (DynamoGraphDeployment)",
        ),
        (("RayCluster", "x"), {"ray.io/cluster": "chat"}, "team/chat (RayCluster)"),
        (("ReplicaSet", "x-5d9f"), {"energylens.dev/llmdeployment": "chat"}, "team/chat (LLMDeployment)"),
    ],
)
def test_owners(owner: tuple[str, str], labels: dict[str, str], wanted: str) -> None:
    assert str(owner_of(pod("p", VLLM, owner=owner, labels=labels))) == wanted


def test_replicas_of_a_deployment() -> None:
    found = one(pod("a", VLLM, gpus=2), pod("b", VLLM, gpus=2, host="node-1"), pod("c", VLLM, gpus=2, phase="Pending"))
    assert (found.model, found.replicas, found.gpus) == ("Qwen/Qwen3-32B", 2, 4)
    assert found.products == {H100: 2, "NVIDIA-H200": 2}
    assert found.pods == found.engine_pods == (PodRef("team", "a"), PodRef("team", "b"))
    assert found.notes == (
        "1 of 3 pods are not running",
        "its pods run on several GPU products: NVIDIA-H100-80GB-HBM3, NVIDIA-H200",
    )


def test_pods_that_ended_or_hold_no_gpu_are_not_seen() -> None:
    ending = pod("b", VLLM)
    ending["metadata"]["deletionTimestamp"] = "2026-11-27T00:00:00Z"
    assert served_models([pod("a", VLLM, phase="Succeeded"), ending, pod("c", VLLM, gpus=0)], NODES, {}) == []


def test_groups_of_several_pods_are_replicas() -> None:
    groups = [
        pod(
            f"chat-{group}-{worker}",
            VLLM | {"args": ["--model=Qwen/Qwen3-32B", "-tp", "8", "-pp", "2"]},
            gpus=8,
            owner=("StatefulSet", "chat"),
            labels={
                "leaderworkerset.sigs.k8s.io/name": "chat",
                "leaderworkerset.sigs.k8s.io/group-index": str(group),
                "leaderworkerset.sigs.k8s.io/worker-index": str(worker),
            },
        )
        for group in range(2)
        for worker in range(2)
    ]
    found = one(*groups)
    assert (found.replicas, found.gpus, found.notes) == (2, 32, ())
    assert found.engine_pods == (PodRef("team", "chat-0-0"), PodRef("team", "chat-1-0"))


def test_pods_that_make_a_replica_together_are_told_by_their_gpus() -> None:
    container = VLLM | {"args": ["--model=Qwen/Qwen3-32B", "-tp", "4", "-dp", "4"]}
    found = one(*(pod(f"p-{n}", container, gpus=4, owner=("StatefulSet", "wide")) for n in range(8)))
    assert (found.replicas, found.notes) == (2, ("a replica of 16 GPUs spans 4 pods",))


def test_gpus_that_the_engine_does_not_use_are_told() -> None:
    found = one(pod("a", VLLM, gpus=4))
    assert (found.replicas, found.notes) == (1, ("each replica holds 4 GPUs, but its engine uses 2",))


def test_a_rollout_is_told() -> None:
    found = one(pod("a", VLLM, gpus=2), pod("b", VLLM | {"image": "vllm/vllm-openai:v0.25.0"}, gpus=2))
    assert found.notes == ("its pods run 2 different commands or images (a rollout?); only the first one is read",)


MAPS = {
    ("team", "env"): {"data": {"MODEL": "Qwen/Qwen3-8B"}},
    ("team", "files"): {"data": {"vllm.yaml": "tensor-parallel-size: 4\nmodel: Qwen/Qwen3-14B\n", "bad": ": ["}},
}


def test_variables_come_from_the_container_and_from_config_maps() -> None:
    container = {
        "image": "vllm/vllm-openai:v0.24.0",
        "command": ["vllm", "serve", "$(MODEL)", "-tp", "$(TP)"],
        "envFrom": [{"configMapRef": {"name": "env"}}, {"secretRef": {"name": "secret"}}],
        "env": [
            {"name": "N", "value": "2"},
            {"name": "TP", "value": "$(N)"},
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
        ],
    }
    found = one(pod("a", container, gpus=2), config_maps=MAPS)
    assert found.arguments is not None
    assert (found.model, found.arguments.layout) == ("Qwen/Qwen3-8B", RunningLayout(2))
    assert found.environment.token_secret == ("hub", "token")
    # TP only fills in the command, which a plan replaces.
    assert dict(found.environment.plain) == {"N": "2"}


def test_settings_of_the_engine_stay_where_a_script_names_them_too() -> None:
    values = {"VLLM_ATTENTION_BACKEND": "FLASH_ATTN", "LD_LIBRARY_PATH": "/opt", "VLLM_ARGS": "--seed 1", "NAME": "a"}
    script = 'echo "$NAME: ${VLLM_ATTENTION_BACKEND:-none}"; export LD_LIBRARY_PATH=/x:$LD_LIBRARY_PATH'
    container = {
        "image": "vllm/vllm-openai:v0.24.0",
        "command": ["bash", "-c", f"{script}; exec vllm serve Qwen/Qwen3-8B $VLLM_ARGS"],
        "env": [{"name": name, "value": value} for name, value in values.items()],
    }
    found = one(pod("a", container))
    assert found.arguments is not None
    assert found.arguments.extra_args == ("--seed=1",)
    assert dict(found.environment.plain) == {
        name: values[name] for name in ("VLLM_ATTENTION_BACKEND", "LD_LIBRARY_PATH")
    }


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        ("nvidia.com/mig-3g.40gb", "it holds nvidia.com/mig-3g.40gb: a part of a GPU, whose energy no counter states"),
        ("nvidia.com/gpu.shared", "it holds nvidia.com/gpu.shared: a part of a GPU, whose energy no counter states"),
        ("amd.com/gpu", "it holds amd.com/gpu: no NVIDIA GPU"),
        ("google.com/tpu", "it holds google.com/tpu: no NVIDIA GPU"),
    ],
)
def test_accelerators_that_cannot_be_planned_are_listed(resource: str, reason: str) -> None:
    body = pod("a", VLLM)
    body["spec"]["containers"][0]["resources"] = {"limits": {resource: "1"}}
    found = one(body)
    assert (found.unread, found.arguments, found.gpus) == (reason, None, 0)


@pytest.mark.parametrize("resource", ["nvidia.com/hostdev", "nvidia.com/mlnxnics", "nvidia.com/resibp65s0"])
def test_network_cards_of_the_vendor_are_no_accelerators(resource: str) -> None:
    body = pod("a", VLLM)
    body["spec"]["containers"][0]["resources"] = {"limits": {resource: "1"}}
    assert not served_models([body], NODES, {})


def test_two_engines_in_a_pod_are_not_taken_for_one() -> None:
    body = pod("a", VLLM, gpus=2)
    body["spec"]["containers"].append({**body["spec"]["containers"][0], "name": "embeddings"})
    found = one(body)
    assert found.arguments is None
    assert found.unread.startswith("several containers of a pod hold GPUs (engine, embeddings)")
    assert found.gpus == 4


def test_a_sidecar_without_gpus_is_no_engine() -> None:
    body = pod("a", VLLM, gpus=2)
    body["spec"]["containers"].insert(0, {"name": "vllm", "image": "envoyproxy/envoy:v1.32"})
    assert one(body).model == "Qwen/Qwen3-32B"


def test_arguments_in_a_variable_of_unknown_value_are_not_read() -> None:
    container = {"image": "vllm/vllm-openai:v0.24.0", "command": ["sh", "-c", "exec vllm serve $ARGS"]}
    found = one(pod("a", container, gpus=2))
    assert (found.arguments, found.unread) == (None, "its arguments are in $ARGS, whose value is not known here")


@pytest.mark.parametrize(
    ("image", "note"),
    [
        ("vllm/vllm-openai:v0.24.0", None),
        ("mirror/vllm/vllm-openai@sha256:" + "ab" * 32, "image mirror/vllm/vllm-openai; predicted as vLLM"),
        ("lmcache/vllm-openai:v0.4.2", "image lmcache/vllm-openai:v0.4.2; predicted as vLLM"),
    ],
)
def test_an_unknown_version_is_told(image: str, note: str | None) -> None:
    notes = [text for text in one(pod("a", {**VLLM, "image": image}, gpus=2)).notes if "version" in text]
    assert [note in text for text in notes] == ([] if note is None else [True])


def test_layouts_that_arguments_do_not_state_are_doubted() -> None:
    assert one(pod("a", VLLM, gpus=2)).layout_doubt == ""
    assert "each replica holds 4 GPUs" in one(pod("a", VLLM, gpus=4)).layout_doubt
    mixed = one(pod("a", VLLM, gpus=2), pod("b", VLLM, gpus=2, host="node-1"))
    assert "several GPU products" in mixed.layout_doubt


def test_shared_gpus_are_told_by_node() -> None:
    found = one(pod("a", VLLM, gpus=2), shared_nodes={"node-0": "its GPUs are shared between pods"})
    assert found.shared == "its GPUs are shared between pods"


@pytest.mark.parametrize(("path", "tensor"), [("/etc/engine/vllm.yaml", 4), ("/etc/engine/bad", 1), ("/else/x", 1)])
def test_a_configuration_file_comes_from_its_config_map(path: str, tensor: int) -> None:
    container = {
        "image": "vllm/vllm-openai:v0.24.0",
        "args": ["--config", path],
        "volumeMounts": [{"name": "files", "mountPath": "/etc/engine/"}],
    }
    volumes = [{"name": "files", "configMap": {"name": "files"}}]
    found = one(pod("a", container, gpus=tensor, volumes=volumes), config_maps=MAPS)
    assert found.arguments is not None
    assert found.arguments.layout.tensor_parallel == tensor
    assert found.model == ("Qwen/Qwen3-14B" if tensor == 4 else "")
    assert bool(found.notes) is (tensor == 1)


@pytest.mark.parametrize(
    ("args", "init", "wanted"),
    [
        (["--model=/mnt/models"], [], ""),
        (["--model=/mnt/models"], ["hf://Qwen/Qwen3-8B:main", "/mnt/models"], "Qwen/Qwen3-8B"),
        (["--model=/mnt/models", "--served-model-name=Qwen/Qwen3-8B"], [], "Qwen/Qwen3-8B"),
        (["--model=/hub/models--Qwen--Qwen3-8B/snapshots/abc"], [], "Qwen/Qwen3-8B"),
    ],
)
def test_models_behind_paths(args: list[str], init: list[str], wanted: str) -> None:
    initializers = [{"name": "storage-initializer", "args": init}] if init else []
    found = one(pod("a", {"image": VLLM["image"], "args": args}, initContainers=initializers))
    assert found.model == wanted


def test_a_person_may_say_which_model_it_is() -> None:
    container = {"image": VLLM["image"], "args": ["--model=/mnt/models"]}
    assert one(pod("a", container), model_ids={"chat": "org/a"}).model == "org/a"
    assert one(pod("a", container), model_ids={"chat": "org/a", "team/chat": "org/b"}).model == "org/b"


def test_what_is_not_understood_is_kept_with_its_reason() -> None:
    found = one(pod("a", {"image": "pytorch:2", "command": ["python", "train.py"]}, owner=("Job", "train")))
    assert (found.arguments, found.gpus) == (None, 1)
    assert "starts no known engine: python train.py" in found.unread
