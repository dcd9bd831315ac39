"""Rows of the latency tables of NVIDIA aiconfigurator (Apache-2.0), which name a layout in ways of their own.

What its columns mean, and what they do not:

- ``tp_size`` is tensor x expert parallel where ``moe_tp_size`` x ``moe_ep_size`` equals it and both are above 1: such a
  replica has ``moe_tp_size`` GPUs, over which attention and experts are split alike.
- Without ``attention_dp_size``, experts that are split over more GPUs than attention say that ranks share them.
- ``fp4`` is the model's own four-bit format where it has one, else NVFP4.
- ``concurrency`` counts requests in flight; where it is empty the batch does.
- Of a disaggregated deployment only the workers that decode are a run: their ``tpot_ms`` holds no prefill. They run
  the share of the requests in flight that is not waiting for its first token (Little's law).
- Neither says whether it is a mean or a median, nor whether the engine drafted tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from energylens.runs.fields import FieldError, choice, count, positive, required_text, text
from energylens.runs.types import MeasuredRun, Run

COLUMNS = ("mode", "input_tokens", "output_tokens", "tp_size", "attention_dp_size", "ttft_ms", "tpot_ms")
"""Columns of such a table besides ``run_id``, ``engine``, ``model_id`` and ``gpu_model``."""
_ENGINES = ("vllm", "sglang")
_MODES = ("agg", "disagg")
_PRECISIONS = {"fp8": "fp8", "fp4": "nvfp4", "bf16": "bfloat16", "fp16": "bfloat16"}
_OWN_FOUR_BITS = ("openai/gpt-oss",)
"""Models that are published in a four-bit format of their own."""
_MOST_GPUS = {"GB200": 72, "GB300": 72}
"""GPUs that NVLink joins, where that is not a node of 8."""
_NODE = 8


def is_latency_table(header: Sequence[str]) -> bool:
    """Return whether a table is one of latencies in these columns."""
    return set(COLUMNS) <= set(header)


def latency_run(row: Mapping[str, str], measured: bool) -> Run:
    """Return one row as a run.

    Args:
        row: Column -> text.
        measured: Read the measured columns too.

    Raises:
        FieldError: A field cannot be used, or the row says too little of what ran.
    """
    engine = required_text(row, "engine")
    if engine.partition("==")[0] not in _ENGINES:
        raise FieldError(f"engine={engine!r} is not one of {', '.join(_ENGINES)}")
    model, gpu = required_text(row, "model_id"), required_text(row, "gpu_model")
    disaggregated = choice(row, "mode", _MODES) == "disagg"
    prefix = "decode_" if disaggregated else ""
    if _size(row, f"{prefix}pp_size") > 1:
        raise FieldError(f"{prefix}pp_size={row[f'{prefix}pp_size']}: runs have no pipeline parallelism")
    tensor, expert, ranks = _layout(row, prefix)
    gpus, most = tensor * ranks, _MOST_GPUS.get(gpu, _NODE)
    if gpus > most or gpus & (gpus - 1):
        raise FieldError(
            f"{prefix}tp_size={row[f'{prefix}tp_size']}: {gpus} GPUs are not a replica of one node or rack of {gpu} "
            f"(a power of 2 up to {most})"
        )
    ttft, tpot = positive(row, "ttft_ms", None), positive(row, "tpot_ms", None)
    output = positive(row, "output_tokens", None)
    if disaggregated:
        # Batch and workers are known only for some rows; without them requests are indistinguishable.
        in_flight = float(count(row, "decode_batch_size", None) * ranks)
        decoding = tpot * max(output - 1.0, 1.0)
        concurrency = in_flight * decoding / (decoding + ttft)
        batch = max(int(in_flight), ranks)
    else:
        concurrency = positive(row, "concurrency", None if text(row, "batch_size") is None else _batch(row))
        batch = max(round(concurrency), ranks)
    found = MeasuredRun(tpot_ms=tpot, ttft_ms=None if disaggregated else ttft)
    return Run(
        run_id=required_text(row, "run_id"),
        task="",
        model_id=model,
        weight_precision=_precision(row, model),
        gpu_model=gpu,
        num_gpus=gpus,
        tensor_parallel=tensor,
        expert_parallel=expert,
        data_parallel=ranks,
        max_num_seqs=batch,
        concurrency=concurrency,
        input_tokens=positive(row, "input_tokens", None),
        output_tokens=output,
        engine=engine,
        measured=found if measured else None,
        concurrency_counts="running" if disaggregated else "in-flight",
        role="decode" if disaggregated else "aggregated",
    )


def _precision(row: Mapping[str, str], model: str) -> str | None:
    """Return the precision of the weights; None where the model's own says it."""
    precision = text(row, "weight_precision")
    if precision is None or (precision == "fp4" and model.startswith(_OWN_FOUR_BITS)):
        return None
    if precision not in _PRECISIONS:
        raise FieldError(f"weight_precision={precision!r} is not one of {', '.join(_PRECISIONS)}")
    return _PRECISIONS[precision]


def _layout(row: Mapping[str, str], prefix: str) -> tuple[int, int, int]:
    """Return tensor and expert parallel degrees and data-parallel ranks."""
    named = {name: _size(row, f"{prefix}{name}") for name in ("tp_size", "moe_tp_size", "moe_ep_size")}
    tensor, moe_tensor, moe_expert = named.values()
    ranks = _size(row, f"{prefix}attention_dp_size")
    if moe_tensor > 1 and moe_expert > 1 and moe_tensor * moe_expert == tensor and ranks == 1:
        if moe_tensor != moe_expert:
            raise FieldError(
                f"{prefix}tp_size={tensor}: with moe_tp_size={moe_tensor} and moe_ep_size={moe_expert} it does not say "
                "over how many GPUs attention is split"
            )
        return moe_tensor, moe_expert, 1
    held = moe_tensor * moe_expert
    if text(row, f"{prefix}attention_dp_size") in (None, "0") and held > tensor and held % tensor == 0:
        ranks = held // tensor
    return tensor, moe_expert, ranks


def _size(row: Mapping[str, str], name: str) -> int:
    """Return a degree of parallelism; empty and 0 mean that nothing is split."""
    return 1 if text(row, name) in (None, "0") else count(row, name, 1)


def _batch(row: Mapping[str, str]) -> float:
    return positive(row, "batch_size", None)
