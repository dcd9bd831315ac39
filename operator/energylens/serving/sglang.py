"""SGLang's command line for a plan (flags and defaults as of 0.5.23)."""

from __future__ import annotations

from energylens.serving.arguments import (
    EngineCommand,
    Launch,
    converts_to_fp8,
    flags,
    listening,
)
from energylens.serving.roles import BOOTSTRAP_PORT, TRANSFER, engine_port
from energylens.serving.weights import model_argument, served_name

DIST_INIT_PORT = 20000


def commands(launch: Launch) -> tuple[EngineCommand, EngineCommand | None]:
    """Return how to start the pod that serves, and its followers when a replica spans nodes."""
    spec, plan = launch.deployment.spec, launch.plan
    # SGLang has data-parallel attention, whose tensor-parallel size counts all GPUs, and independent dense copies.
    attention_ranks = plan.data_parallel if launch.model.is_moe else 1
    given = launch.settings.arguments
    multi_node, steps = plan.nodes_per_replica > 1, plan.max_batched_tokens
    args = flags(
        {
            "--model-path": model_argument(spec.model),
            "--served-model-name": served_name(spec.model) if given.value("--served-model-name") is None else None,
            "--revision": spec.model.revision,
            "--quantization": "fp8" if converts_to_fp8(launch.deployment, launch.model) else None,
            "--port": engine_port(launch.role),
            "--tp-size": plan.tensor_parallel * attention_ranks,
            "--pp-size": plan.pipeline_parallel if plan.pipeline_parallel > 1 else None,
            "--attn-dp-size": attention_ranks if attention_ranks > 1 else None,
            "--dp-size": plan.data_parallel if plan.data_parallel > attention_ranks else None,
            "--ep-size": plan.expert_parallel if plan.expert_parallel > 1 else None,
            # SGLang divides it by the attention ranks (model_executor/pool_configurator.py); a plan counts per rank.
            "--max-running-requests": plan.max_batch_size * attention_ranks,
            # So is this one (server_args.py).
            "--chunked-prefill-size": steps * attention_ranks if steps is not None else None,
            "--enable-metrics": True,
            "--disaggregation-mode": launch.role,
            "--disaggregation-transfer-backend": _transfer(launch),
            "--disaggregation-bootstrap-port": BOOTSTRAP_PORT if launch.role == "prefill" else None,
            "--nnodes": plan.nodes_per_replica if multi_node else None,
            "--node-rank": "$(LWS_WORKER_INDEX)" if multi_node else None,
            "--dist-init-addr": f"$(LWS_LEADER_ADDRESS):{DIST_INIT_PORT}" if multi_node else None,
        }
    )
    # By default, every health check generates a token, which costs energy on an idle engine and counts as output.
    env = {"SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false"}
    command = listening("python3", "-m", "sglang.launch_server")
    leader = EngineCommand(command, (*args, *spec.engine.extra_args), env)
    if not multi_node:
        return leader, None
    # Ranks beyond the first answer only health checks at the same port (entrypoints/engine.py).
    return leader, EngineCommand(command, leader.args, env, serves_http=False)


def _transfer(launch: Launch) -> str | None:
    """Return the backend that transfers the KV cache; None without a role, or if the user names one."""
    given = launch.settings.arguments.value("--disaggregation-transfer-backend")
    return TRANSFER if launch.role is not None and given is None else None
