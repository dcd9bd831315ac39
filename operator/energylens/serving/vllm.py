"""vLLM's command line for a plan (options and defaults as of 0.33; what older versions lack is left out)."""

from __future__ import annotations

from energylens.serving.arguments import (
    EngineCommand,
    Launch,
    converts_to_fp8,
    flags,
    listening,
)
from energylens.serving.roles import CONNECTOR, engine_environment, engine_port
from energylens.serving.weights import model_argument, served_name

_SERVE = listening("vllm", "serve")
MASTER_PORT = 29501
DATA_PARALLEL_RPC_PORT = 29550
"""vLLM's own defaults, written out because followers must agree with their leader."""

DEPRECATED_METHODS = ("fbgemm_fp8", "fp_quant")
"""Methods of checkpoints that vLLM 0.14 to 0.33 loads only when allowed to (layers/quantization/__init__.py)."""
_ALLOW_DEPRECATED_SINCE = (0, 14)
_CONTEXT_AUTO_SINCE = (0, 14)
_SHUTDOWN_TIMEOUT_SINCE = (0, 18)
_FP8_PER_TENSOR_SINCE = (0, 20)
"""First version without per-tensor FP8 conversion under this value of ``--quantization``; read in the wheels of each
version."""


def commands(launch: Launch) -> tuple[EngineCommand, EngineCommand | None]:
    """Return how to start the pod that serves, and its followers when a replica spans nodes."""
    extra = launch.deployment.spec.engine.extra_args
    env = {
        # The front end ends an engine that loads for longer than this (600 s by default), regardless of the probe.
        "VLLM_ENGINE_READY_TIMEOUT_S": str(launch.startup_seconds),
        "VLLM_NO_USAGE_STATS": "1",
        **engine_environment(launch.role),
    }
    base = _base(launch)
    if launch.plan.nodes_per_replica == 1:
        return EngineCommand(_SERVE, (*base, *extra), env), None
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
    leader = EngineCommand(_SERVE, (*base, *group, *extra), env)
    return leader, _follower(("vllm", "serve"), (*base, *group, "--headless", *extra), env)


def _follower(command: tuple[str, ...], args: tuple[str, ...], env: dict[str, str]) -> EngineCommand:
    return EngineCommand(command, args, env, serves_http=False, answers_health=False)


def _base(launch: Launch) -> list[str]:
    spec, plan, version = launch.deployment.spec, launch.plan, launch.settings.version
    given = launch.settings.arguments
    deprecated = launch.model.quant_method in DEPRECATED_METHODS and version >= _ALLOW_DEPRECATED_SINCE
    return [
        model_argument(spec.model),
        *flags(
            {
                "--port": engine_port(launch.role),
                "--served-model-name": served_name(spec.model) if given.value("--served-model-name") is None else None,
                "--revision": spec.model.revision,
                "--quantization": _conversion(launch),
                "--allow-deprecated-quantization": deprecated and not given.switch("--allow-deprecated-quantization"),
                "--tensor-parallel-size": plan.tensor_parallel,
                "--pipeline-parallel-size": plan.pipeline_parallel if plan.pipeline_parallel > 1 else None,
                "--data-parallel-size": plan.data_parallel if plan.data_parallel > 1 else None,
                "--enable-expert-parallel": plan.expert_parallel > 1,
                "--max-num-seqs": plan.max_batch_size,
                "--max-num-batched-tokens": plan.max_batched_tokens,
                "--max-model-len": _context(launch) if given.value("--max-model-len") is None else None,
                "--shutdown-timeout": launch.drain_seconds if version >= _SHUTDOWN_TIMEOUT_SINCE else None,
                "--kv-transfer-config": None if launch.role is None else CONNECTOR,
            }
        ),
    ]


def _conversion(launch: Launch) -> str | None:
    if not converts_to_fp8(launch.deployment, launch.model):
        return None
    return "fp8_per_tensor" if launch.settings.version >= _FP8_PER_TENSOR_SINCE else "fp8"


def _context(launch: Launch) -> str | int:
    """Return the context to request: as much of the checkpoint's context as the KV cache holds.

    With the whole context of the checkpoint, the engine refuses to start if the cache cannot hold one such request. The
    default context of LongRoPE is the one before its extension, and old versions cannot compute a fitting context: they
    get room for requests of twice the mean.
    """
    longest, model = launch.deployment.spec.workload.longest_request, launch.model
    wanted = min(launch.settings.context_of(model), 2 * (longest.input_tokens + longest.output_tokens))
    if launch.settings.version < _CONTEXT_AUTO_SINCE:
        return wanted
    return "auto" if model.start_position is None or wanted <= model.start_position else wanted


def _data_parallel(launch: Launch, base: list[str], env: dict[str, str]) -> tuple[EngineCommand, EngineCommand]:
    """Return the commands for data-parallel ranks spread over nodes, each rank inside one node."""
    extra = launch.deployment.spec.engine.extra_args
    local = launch.gpus_per_node // (launch.plan.tensor_parallel * launch.plan.pipeline_parallel)
    shared = {"--data-parallel-size-local": local, "--data-parallel-rpc-port": DATA_PARALLEL_RPC_PORT}
    # The leader binds to its address; a socket cannot be bound to a DNS name.
    leader = flags(shared | {"--data-parallel-address": "$(POD_IP)"})
    follower = flags(shared | {"--data-parallel-address": "$(LWS_LEADER_ADDRESS)", "--headless": True})
    # Kubernetes expands $(NAME), does no arithmetic and takes $$ for $. With exec the engine gets SIGTERM.
    ranked = f'exec vllm serve "$@" --data-parallel-start-rank=$$((LWS_WORKER_INDEX * {local}))'
    return (
        EngineCommand(_SERVE, (*base, *leader, *extra), env),
        _follower(("/bin/sh", "-c", ranked, "vllm"), (*base, *follower, *extra), env),
    )
