"""SGLang's command line for a plan (flags and defaults as of 0.5.23)."""

from __future__ import annotations

from energylens.serving.arguments import (
    HTTP_PORT,
    EngineCommand,
    Launch,
    check_extra_args,
    converts_to_fp8,
    flags,
)

DIST_INIT_PORT = 20000

_OVERRIDE = "set spec.planning.overrides.{} instead"
_MANAGED = "leave it out"
RESERVED: dict[str, str] = {
    "--tp-size": _OVERRIDE.format("tensorParallel"),
    "--tensor-parallel-size": _OVERRIDE.format("tensorParallel"),
    "--pp-size": _OVERRIDE.format("pipelineParallel"),
    "--pipeline-parallel-size": _OVERRIDE.format("pipelineParallel"),
    "--dp-size": _OVERRIDE.format("dataParallel"),
    "--data-parallel-size": _OVERRIDE.format("dataParallel"),
    "--attn-dp-size": _OVERRIDE.format("dataParallel"),
    "--enable-dp-attention": _OVERRIDE.format("dataParallel"),
    "--ep-size": _OVERRIDE.format("expertParallel"),
    "--expert-parallel-size": _OVERRIDE.format("expertParallel"),
    "--max-running-requests": _OVERRIDE.format("maxBatchSize"),
    "--model-path": "set spec.model.name instead",
    "--revision": "set spec.model.revision instead",
    "--quantization": "set spec.model.quantization instead",
    "--host": _MANAGED,
    "--port": _MANAGED,
    "--enable-metrics": _MANAGED,
    "--nnodes": _MANAGED,
    "--node-rank": _MANAGED,
    "--dist-init-addr": _MANAGED,
    "--nccl-init-addr": _MANAGED,
}
"""Flags that the operator sets, to what the user should set instead."""


def commands(launch: Launch) -> tuple[EngineCommand, EngineCommand | None]:
    """Return how to start the pod that serves, and its followers when a replica spans nodes.

    Raises:
        ServingError: ``spec.engine.extraArgs`` repeat a flag of the plan.
    """
    spec, plan = launch.deployment.spec, launch.plan
    check_extra_args(spec.engine.extra_args, RESERVED)
    # SGLang has data-parallel attention, whose tensor-parallel size counts all GPUs, and independent dense copies.
    attention_ranks = plan.data_parallel if launch.model.is_moe else 1
    multi_node = plan.nodes_per_replica > 1
    args = flags(
        {
            "--model-path": spec.model.name,
            "--revision": spec.model.revision,
            "--quantization": "fp8" if converts_to_fp8(launch.deployment, launch.model) else None,
            # Its default is 127.0.0.1, where no probe reaches it.
            "--host": "0.0.0.0",
            "--port": HTTP_PORT,
            "--tp-size": plan.tensor_parallel * attention_ranks,
            "--pp-size": plan.pipeline_parallel if plan.pipeline_parallel > 1 else None,
            "--attn-dp-size": attention_ranks if attention_ranks > 1 else None,
            "--dp-size": plan.data_parallel if plan.data_parallel > attention_ranks else None,
            "--ep-size": plan.expert_parallel if plan.expert_parallel > 1 else None,
            "--max-running-requests": plan.max_batch_size,
            "--enable-metrics": True,
            "--nnodes": plan.nodes_per_replica if multi_node else None,
            "--node-rank": "$(LWS_WORKER_INDEX)" if multi_node else None,
            "--dist-init-addr": f"$(LWS_LEADER_ADDRESS):{DIST_INIT_PORT}" if multi_node else None,
        }
    )
    # By default every health check generates a token, which costs energy on an idle engine and counts as output.
    env = {"SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false"}
    command = ("python3", "-m", "sglang.launch_server")
    leader = EngineCommand(command, (*args, *spec.engine.extra_args), env)
    if not multi_node:
        return leader, None
    return leader, EngineCommand(command, leader.args, env, serves_http=False)
