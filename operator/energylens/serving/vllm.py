"""vLLM's command line for a plan (flags and defaults as of 0.33)."""

from __future__ import annotations

from energylens.serving.arguments import (
    HTTP_PORT,
    EngineCommand,
    Launch,
    check_extra_args,
    converts_to_fp8,
    flags,
    has_flag,
)

MASTER_PORT = 29501
DATA_PARALLEL_RPC_PORT = 29550
"""vLLM's own defaults, written out because followers must agree with their leader."""

_OVERRIDE = "set spec.planning.overrides.{} instead"
_MANAGED = "leave it out"
RESERVED: dict[str, str] = {
    "--tensor-parallel-size": _OVERRIDE.format("tensorParallel"),
    "-tp": _OVERRIDE.format("tensorParallel"),
    "--pipeline-parallel-size": _OVERRIDE.format("pipelineParallel"),
    "-pp": _OVERRIDE.format("pipelineParallel"),
    "--data-parallel-size": _OVERRIDE.format("dataParallel"),
    "-dp": _OVERRIDE.format("dataParallel"),
    "--enable-expert-parallel": _OVERRIDE.format("expertParallel"),
    "--no-enable-expert-parallel": _OVERRIDE.format("expertParallel"),
    "-ep": _OVERRIDE.format("expertParallel"),
    "--max-num-seqs": _OVERRIDE.format("maxBatchSize"),
    "--model": "set spec.model.name instead",
    "--revision": "set spec.model.revision instead",
    "--quantization": "set spec.model.quantization instead",
    "-q": "set spec.model.quantization instead",
    "--host": _MANAGED,
    "--port": _MANAGED,
    "--shutdown-timeout": "set spec.podTemplate.spec.terminationGracePeriodSeconds instead",
    "--headless": _MANAGED,
    "--nnodes": _MANAGED,
    "-n": _MANAGED,
    "--node-rank": _MANAGED,
    "-r": _MANAGED,
    "--master-addr": _MANAGED,
    "--master-port": _MANAGED,
    "--data-parallel-size-local": _MANAGED,
    "-dpl": _MANAGED,
    "--data-parallel-address": _MANAGED,
    "-dpa": _MANAGED,
    "--data-parallel-rpc-port": _MANAGED,
    "-dpp": _MANAGED,
    "--data-parallel-start-rank": _MANAGED,
    "-dpr": _MANAGED,
}
"""Flags that the operator sets, to what the user should set instead."""


def commands(launch: Launch) -> tuple[EngineCommand, EngineCommand | None]:
    """Return how to start the pod that serves, and its followers when a replica spans nodes.

    Raises:
        ServingError: ``spec.engine.extraArgs`` repeat a flag of the plan.
    """
    extra = launch.deployment.spec.engine.extra_args
    check_extra_args(extra, RESERVED)
    env = {
        # The front end gives up on an engine that loads longer than this, 600 s by default, whatever the probe allows.
        "VLLM_ENGINE_READY_TIMEOUT_S": str(launch.startup_seconds),
        "VLLM_NO_USAGE_STATS": "1",
    }
    base = _base(launch)
    if launch.plan.nodes_per_replica == 1:
        return EngineCommand(("vllm", "serve"), (*base, *extra), env), None
    if launch.plan.data_parallel > 1:
        return _data_parallel(launch, base, env)
    group = flags(
        {
            "--distributed-executor-backend": "mp",
            "--nnodes": "$(LWS_GROUP_SIZE)",
            "--node-rank": "$(LWS_WORKER_INDEX)",
            "--master-addr": "$(LWS_LEADER_ADDRESS)",
            "--master-port": MASTER_PORT,
        }
    )
    leader = EngineCommand(("vllm", "serve"), (*base, *group, *extra), env)
    return leader, EngineCommand(("vllm", "serve"), (*base, *group, "--headless", *extra), env, serves_http=False)


def _base(launch: Launch) -> list[str]:
    spec, plan = launch.deployment.spec, launch.plan
    # With the context of the checkpoint the engine refuses to start where the KV cache cannot hold one such request.
    max_model_len = None if has_flag(spec.engine.extra_args, "--max-model-len") else "auto"
    return [
        spec.model.name,
        *flags(
            {
                "--port": HTTP_PORT,
                "--revision": spec.model.revision,
                "--quantization": "fp8" if converts_to_fp8(launch.deployment, launch.model) else None,
                "--tensor-parallel-size": plan.tensor_parallel,
                "--pipeline-parallel-size": plan.pipeline_parallel if plan.pipeline_parallel > 1 else None,
                "--data-parallel-size": plan.data_parallel if plan.data_parallel > 1 else None,
                "--enable-expert-parallel": plan.expert_parallel > 1,
                "--max-num-seqs": plan.max_batch_size,
                "--max-model-len": max_model_len,
                "--shutdown-timeout": launch.drain_seconds,
            }
        ),
    ]


def _data_parallel(launch: Launch, base: list[str], env: dict[str, str]) -> tuple[EngineCommand, EngineCommand]:
    """Return the commands for data-parallel ranks spread over nodes, each rank inside one node."""
    extra = launch.deployment.spec.engine.extra_args
    local = launch.gpus_per_node // (launch.plan.tensor_parallel * launch.plan.pipeline_parallel)
    shared = {"--data-parallel-size-local": local, "--data-parallel-rpc-port": DATA_PARALLEL_RPC_PORT}
    # The leader binds to its address, and a socket cannot be bound to a DNS name.
    leader = flags(shared | {"--data-parallel-address": "$(POD_IP)"})
    follower = flags(shared | {"--data-parallel-address": "$(LWS_LEADER_ADDRESS)", "--headless": True})
    # Kubernetes expands $(NAME), does no arithmetic and takes $$ for $. With exec the engine gets SIGTERM.
    ranked = f'exec vllm serve "$@" --data-parallel-start-rank=$$((LWS_WORKER_INDEX * {local}))'
    return (
        EngineCommand(("vllm", "serve"), (*base, *leader, *extra), env),
        EngineCommand(("/bin/sh", "-c", ranked, "vllm"), (*base, *follower, *extra), env, serves_http=False),
    )
