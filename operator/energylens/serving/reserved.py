"""Options that the plan or the operator decides, and the fields to set instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from energylens.planner.engines.arguments import Arguments

OVERRIDE = "set spec.planning.overrides.{} instead"
MANAGED = "leave it out"
_CONTEXT = "context parallelism is not planned; leave it out"
_BALANCER = "the plan's ranks stand behind one address; leave it out"
_PROBES = "probes and measurement read plain HTTP on the operator's port; leave it out"
_TEXT = "the plan is for generating text; leave it out"
_FILE = "its options cannot be seen here; write them in spec.engine.extraArgs"

ENVIRONMENT: tuple[str, ...] = (
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "VLLM_DP_SIZE",
    "VLLM_DP_RANK",
    "VLLM_DP_RANK_LOCAL",
    "VLLM_DP_MASTER_IP",
    "VLLM_DP_MASTER_PORT",
    "VLLM_PORT",
    "POD_IP",
)
"""Variables that take GPUs from the plan, place its ranks (vLLM 0.33 envs.py), or say where its server listens."""


def _each(options: Iterable[str], instead: str) -> dict[str, str]:
    return dict.fromkeys(options, instead)


VLLM: dict[str, str] = {
    **_each(("--tensor-parallel-size", "-tp"), OVERRIDE.format("tensorParallel")),
    **_each(("--pipeline-parallel-size", "-pp"), OVERRIDE.format("pipelineParallel")),
    **_each(("--data-parallel-size", "-dp"), OVERRIDE.format("dataParallel")),
    **_each(
        ("--enable-expert-parallel", "--no-enable-expert-parallel", "--disable-expert-parallel", "-ep"),
        OVERRIDE.format("expertParallel"),
    ),
    **_each(("--max-num-seqs", "--max-num-active-seqs"), OVERRIDE.format("maxBatchSize")),
    **_each(("--runner", "--convert", "--mm-encoder-only", "--diffusion-config"), _TEXT),
    **_each(("--scheduler-cls", "--worker-cls"), MANAGED),
    "--model": "set spec.model.name instead",
    "--revision": "set spec.model.revision instead",
    **_each(("--quantization", "-q"), "set spec.model.quantization instead"),
    "--shutdown-timeout": "set spec.podTemplate.spec.terminationGracePeriodSeconds instead",
    **_each(("--prefill-context-parallel-size", "-pcp", "--decode-context-parallel-size", "-dcp"), _CONTEXT),
    **_each(
        (
            "--data-parallel-rank",
            "-dpn",
            "--data-parallel-external-lb",
            "-dpe",
            "--data-parallel-hybrid-lb",
            "-dph",
            "--data-parallel-multi-port-external-lb",
            "-dpm",
        ),
        _BALANCER,
    ),
    **_each(
        (
            "--host",
            "--port",
            "--headless",
            "--nnodes",
            "-n",
            "--node-rank",
            "-r",
            "--master-addr",
            "--master-port",
            "--data-parallel-size-local",
            "-dpl",
            "--data-parallel-address",
            "-dpa",
            "--data-parallel-rpc-port",
            "-dpp",
            "--data-parallel-start-rank",
            "-dpr",
            "--data-parallel-backend",
            "-dpb",
            "--distributed-executor-backend",
            "--device-ids",
            "--enable-elastic-ep",
            "--elastic-ep-max-dp-size",
            "--help",
            "-h",
        ),
        MANAGED,
    ),
    **_each(("--grpc", "--uds", "--ssl-keyfile", "--ssl-certfile", "--disable-log-stats"), _PROBES),
    "--config": _FILE,
}
"""Options of vLLM to what the user should set instead."""

_CONNECTS = "with planning.disaggregation Follow, it connects prefill and decode; leave it out"
WITH_ROLES: dict[str, dict[str, str]] = {
    "VLLM": {"--kv-transfer-config": _CONNECTS},
    "SGLang": _each(("--disaggregation-bootstrap-port", "--enable-pd-role-switch"), _CONNECTS),
}
"""By engine, further options that are reserved where prefill and decode may be separated."""

SGLANG: dict[str, str] = {
    **_each(("--tp-size", "--tensor-parallel-size"), OVERRIDE.format("tensorParallel")),
    **_each(("--pp-size", "--pipeline-parallel-size"), OVERRIDE.format("pipelineParallel")),
    **_each(
        (
            "--dp-size",
            "--data-parallel-size",
            "--attn-dp-size",
            "--attention-data-parallel-size",
            "--enable-dp-attention",
        ),
        OVERRIDE.format("dataParallel"),
    ),
    **_each(("--ep-size", "--expert-parallel-size", "--ep"), OVERRIDE.format("expertParallel")),
    **_each(
        ("--is-embedding", "--encoder-only", "--language-only", "--dllm-algorithm", "--prefill-only-disable-kv-cache"),
        _TEXT,
    ),
    "--max-running-requests": OVERRIDE.format("maxBatchSize"),
    **_each(("--model-path", "--model"), "set spec.model.name instead"),
    "--revision": "set spec.model.revision instead",
    **_each(("--quantization", "--modelopt-quant", "--quantize-and-serve"), "set spec.model.quantization instead"),
    **_each(
        (
            "--attn-cp-size",
            "--attention-context-parallel-size",
            "--dcp-size",
            "--decode-context-parallel-size",
            "--enable-prefill-cp",
        ),
        _CONTEXT,
    ),
    **_each(
        (
            "--moe-dp-size",
            "--moe-data-parallel-size",
            "--moe-dense-tp-size",
            "--shared-experts-tp-size",
            "--dwdp-size",
            "--max-ep-size",
            "--elastic-ep-initial-size",
            "--elastic-ep-join-mode",
            "--disaggregation-mode",
            "--base-gpu-id",
            "--device",
            "--use-ray",
            "--gpu-id-step",
            "--host",
            "--port",
            "--nnodes",
            "--node-rank",
            "--dist-init-addr",
            "--nccl-init-addr",
            "--help",
            "-h",
        ),
        MANAGED,
    ),
    **_each(("--enable-metrics", "--grpc-mode", "--smg-grpc-mode", "--ssl-keyfile", "--ssl-certfile"), _PROBES),
    "--config": _FILE,
}
"""Options of SGLang to what the user should set instead."""


def undone(arguments: Arguments, reserved: Mapping[str, str]) -> str | None:
    """Return the argument that would undo the plan, and the field to set instead; None if there is none.

    The last of two equal options wins in both engines, so that a repeated one would silently undo the plan. An
    unknown argument that begins like a reserved option gets the answer for that option.

    Args:
        arguments: ``spec.engine.extraArgs`` as the engine reads them.
        reserved: Options that may not be repeated, to what to set instead.
    """
    for given in arguments.given:
        instead = reserved.get(given.spelling) or reserved.get(given.name)
        if instead is not None:
            return f"{given.written!r} is set by the operator; {instead}"
    for argument in arguments.unresolved:
        written = argument.partition("=")[0].partition(" ")[0]
        spelling = "--" + written.lstrip("-").replace("_", "-")
        for taken, instead in reserved.items():
            # argparse completes short options of several letters too: -t stands for -tp.
            short = not written.startswith("--") and len(written) > 1 and taken.startswith(written)
            if short or spelling == taken or (len(spelling) > 3 and taken.startswith(spelling)):
                return f"{argument!r} is set by the operator; {instead}"
    return None
