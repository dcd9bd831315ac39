from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.predictor.model.architecture import ModelSpec
from energylens.serving import ServingError, Strategy, check, manifests, reserved

Deploy = Callable[..., LLMDeployment]
Plan = Callable[..., PlanStatus]


def container(deployment: LLMDeployment, plan: PlanStatus, model: ModelSpec) -> dict[str, Any]:
    workload = manifests(deployment, plan, model, strategy=Strategy("Surge", 1, 0))[0]
    found: dict[str, Any] = workload["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    ("engine", "argument", "instead"),
    [
        ("VLLM", "--tensor-parallel-size", "spec.planning.overrides.tensorParallel"),
        ("VLLM", "--tensor_parallel_size=2", "spec.planning.overrides.tensorParallel"),
        ("VLLM", "-tp", "spec.planning.overrides.tensorParallel"),
        ("VLLM", "--max-num-seqs=12", "spec.planning.overrides.maxBatchSize"),
        ("VLLM", "--enable-expert-parallel", "spec.planning.overrides.expertParallel"),
        ("VLLM", "--quantization=fp8", "spec.model.quantization"),
        ("VLLM", "--port=9000", "leave it out"),
        ("VLLM", "--data-parallel-size-local=1", "leave it out"),
        ("VLLM", "--disable-expert-parallel", "spec.planning.overrides.expertParallel"),
        ("VLLM", "--no-enable-expert", "spec.planning.overrides.expertParallel"),
        ("VLLM", "-ep", "spec.planning.overrides.expertParallel"),
        ("VLLM", "-dp=2", "spec.planning.overrides.dataParallel"),
        ("VLLM", "--max_num_seq", "spec.planning.overrides.maxBatchSize"),
        ("VLLM", "-q=awq", "spec.model.quantization"),
        ("VLLM", "--data-parallel-rank=1", "leave it out"),
        ("VLLM", "-dpn", "leave it out"),
        ("VLLM", "--data_parallel_external_lb", "leave it out"),
        ("VLLM", "--data-parallel-hyb", "leave it out"),
        ("VLLM", "--decode-context-parallel-size=2", "leave it out"),
        ("VLLM", "-dcp", "leave it out"),
        ("VLLM", "--nnodes=2", "leave it out"),
        ("VLLM", "--enable-elastic-ep", "leave it out"),
        ("VLLM", "--ssl-certf=/a", "leave it out"),
        ("VLLM", "--config=/etc/vllm.yaml", "spec.engine.extraArgs"),
        ("SGLang", "--attention-data-parallel-size=2", "spec.planning.overrides.dataParallel"),
        ("SGLang", "--attn-dp", "spec.planning.overrides.dataParallel"),
        ("SGLang", "--enable-dp-a", "spec.planning.overrides.dataParallel"),
        ("SGLang", "--max-running=8", "spec.planning.overrides.maxBatchSize"),
        ("SGLang", "--moe-dp-size=2", "leave it out"),
        ("SGLang", "--moe-data-parallel-size", "leave it out"),
        ("SGLang", "--moe-dense-tp-size=1", "leave it out"),
        ("SGLang", "--dcp-size=2", "leave it out"),
        ("SGLang", "--disaggregation-mode=prefill", "leave it out"),
        ("SGLang", "--modelopt-q", "spec.model.quantization"),
        ("VLLM", "--runner=pooling", "the plan is for generating text"),
        ("VLLM", "--conv", "the plan is for generating text"),
        ("VLLM", "--max-num-active-seqs=2", "spec.planning.overrides.maxBatchSize"),
        ("VLLM", "--scheduler_cls=x.Y", "leave it out"),
        ("SGLang", "--is-emb", "the plan is for generating text"),
        ("SGLang", "--encoder-only", "the plan is for generating text"),
        ("SGLang", "--device=cpu", "leave it out"),
        ("SGLang", "--quantize-and-serve", "spec.model.quantization"),
        ("SGLang", "--tp=4", "spec.planning.overrides.tensorParallel"),
        ("SGLang", "--tp-size", "spec.planning.overrides.tensorParallel"),
        ("SGLang", "--model", "spec.model.name"),
        ("SGLang", "--max-running-requests=1", "spec.planning.overrides.maxBatchSize"),
    ],
)
def test_extra_arguments_may_not_undo_the_plan(
    engine: str, argument: str, instead: str, make_deployment: Deploy
) -> None:
    deployment = make_deployment(engine={"type": engine, "extraArgs": [argument, "2"]})
    with pytest.raises(ServingError) as raised:
        check(deployment)
    assert raised.value.field == "spec.engine.extraArgs"
    assert repr(argument) in str(raised.value)
    assert instead in str(raised.value)


@pytest.mark.parametrize(
    ("engine", "argument"), [("VLLM", "--max_num_batched_tokens=4096"), ("SGLang", "--chunked-prefill-size=-1")]
)
def test_the_tokens_of_a_step_are_said_once(engine: str, argument: str, make_deployment: Deploy) -> None:
    planning = {"overrides": {"maxBatchedTokens": 2048}}
    with pytest.raises(ServingError) as raised:
        check(make_deployment(engine={"type": engine, "extraArgs": [argument]}, planning=planning))
    assert raised.value.field == "spec.planning.overrides.maxBatchedTokens"
    assert f"2048, and {argument!r} in spec.engine.extraArgs" in str(raised.value)
    check(make_deployment(engine={"type": engine}, planning=planning))
    check(make_deployment(engine={"type": engine, "extraArgs": [argument]}))


@pytest.mark.parametrize(
    "arguments", [["--enable-prefix-caching"], ["--kv-cache-dtype=fp8"], ["--max-num-batched-tokens", "4096"]]
)
def test_other_extra_arguments_come_last(
    arguments: list[str], make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    deployment = make_deployment(engine={"extraArgs": arguments})
    assert container(deployment, make_plan(), models["70b"])["args"][-len(arguments) :] == arguments


def test_the_users_context_length_replaces_ours(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    own = container(make_deployment(engine={"extraArgs": ["--max-model-len=8192"]}), make_plan(), models["70b"])
    assert [a for a in own["args"] if a.startswith("--max-model-len")] == ["--max-model-len=8192"]
    assert "--max-model-len=auto" in container(make_deployment(), make_plan(), models["70b"])["args"]


@pytest.mark.parametrize(
    ("model", "quantization", "flag"),
    [("70b", None, False), ("70b", "FP8", True), ("405b-fp8", "FP8", False), ("405b-fp8", None, False)],
)
def test_quantization_is_asked_for_only_where_the_checkpoint_lacks_it(
    model: str,
    quantization: str | None,
    flag: bool,
    make_deployment: Deploy,
    make_plan: Plan,
    models: dict[str, ModelSpec],
) -> None:
    deployment = make_deployment(model_part={"quantization": quantization})
    assert ("--quantization=fp8_per_tensor" in container(deployment, make_plan(), models[model])["args"]) is flag


def test_every_flag_that_is_set_is_reserved(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    """A flag that the operator sets and a user may repeat would be undone in silence."""
    plans = [
        make_plan(tensor_parallel=2, data_parallel=2, expert_parallel=4),
        make_plan(tensor_parallel=8, pipeline_parallel=2, nodes_per_replica=2),
        make_plan(data_parallel=16, expert_parallel=16, nodes_per_replica=2),
    ]
    user_may_set = {"--max-model-len", "--allow-deprecated-quantization"}
    for engine, options in (("VLLM", reserved.VLLM), ("SGLang", reserved.SGLANG)):
        deployment = make_deployment(engine={"type": engine}, model_part={"quantization": "FP8", "revision": "main"})
        for plan in plans:
            workload = manifests(deployment, plan, models["moe"], strategy=Strategy("Surge", 1, 0))[0]["spec"]
            templates = workload.get("leaderWorkerTemplate", workload)
            for name in ("template", "leaderTemplate", "workerTemplate"):
                args = templates.get(name, {"spec": {"containers": [{"args": []}]}})["spec"]["containers"][0]["args"]
                flags = {arg.partition("=")[0] for arg in args if arg.startswith("-")}
                assert flags <= set(options) | user_may_set


def test_the_users_environment_wins(make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]) -> None:
    env = [{"name": "VLLM_CACHE_ROOT", "value": "/scratch"}, {"name": "HF_TOKEN", "value": "from-env"}]
    deployment = make_deployment(engine={"env": env}, model_part={"tokenSecretRef": {"name": "huggingface"}})
    found = container(deployment, make_plan(), models["70b"])["env"]
    values = {entry["name"]: entry.get("value") for entry in found}
    assert values["VLLM_CACHE_ROOT"] == "/scratch"
    assert values["HF_TOKEN"] == "from-env"
    assert len(found) == len(values)


def test_the_token_comes_from_a_secret(make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]) -> None:
    deployment = make_deployment(model_part={"tokenSecretRef": {"name": "huggingface", "key": "token"}})
    env = container(deployment, make_plan(), models["70b"])["env"]
    assert {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "huggingface", "key": "token"}}} in env


@pytest.mark.parametrize("argument", ["-t", "-t=2", "-pp", "-d"])
def test_short_options_of_versions_that_were_not_read_may_not_undo_the_plan(
    argument: str, make_deployment: Deploy
) -> None:
    engine = {"image": "vllm/vllm-openai:v0.30.0", "extraArgs": [argument, "2"]}
    with pytest.raises(ServingError) as raised:
        check(make_deployment(engine=engine))
    assert repr(argument) in str(raised.value)


@pytest.mark.parametrize("name", reserved.ENVIRONMENT)
@pytest.mark.parametrize("engine", ["VLLM", "SGLang"])
def test_variables_that_place_the_plans_ranks_are_refused(name: str, engine: str, make_deployment: Deploy) -> None:
    with pytest.raises(ServingError) as raised:
        check(make_deployment(engine={"type": engine, "env": [{"name": name, "value": "1"}]}))
    assert raised.value.field == "spec.engine.env"
    assert name in str(raised.value)


@pytest.mark.parametrize(
    ("engine", "image", "message"),
    [
        ("VLLM", "lmsysorg/sglang:v0.5.23", "is an image of SGLang, and spec.engine.type is VLLM"),
        ("VLLM", "registry.example:5000/vllm/sglang-cu13@sha256:abc", "set spec.engine.type=SGLang"),
        ("SGLang", "vllm/vllm-openai:v0.33.0", "set spec.engine.type=VLLM, or name an image of SGLang"),
        ("SGLang", "nvcr.io/nvidia/vLLM:26.09-py3", "is an image of vLLM"),
        ("VLLM", "nvcr.io/nvidia/vllm:26.09-py3", ""),
        ("VLLM", "registry.example/sglang/vllm-openai", ""),
        ("SGLang", "registry.example/vllm-and-sglang:v1", ""),
        ("SGLang", "registry.example/serving:sglang-over-vllm", ""),
    ],
)
def test_an_image_of_the_other_engine_is_refused(
    engine: str, image: str, message: str, make_deployment: Deploy
) -> None:
    deployment = make_deployment(engine={"type": engine, "image": image})
    if not message:
        check(deployment)
        return
    with pytest.raises(ServingError) as raised:
        check(deployment)
    assert raised.value.field == "spec.engine.image"
    assert message in str(raised.value)
