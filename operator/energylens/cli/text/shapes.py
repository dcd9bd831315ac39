"""Shapes of requests, in words."""

from __future__ import annotations

from energylens.api.llmdeployment import RequestShape, WorkloadSpec


def shapes_text(workload: WorkloadSpec) -> str:
    """Return the shape of requests, or each class of them with its share."""
    if not workload.classes:
        return _shape(workload.shapes[0])
    parts = (
        f"{part.share_percent} %{'' if part.name is None else f' {part.name}'} {_shape(part, short=True)}"
        for part in workload.classes
    )
    return f"tokens in/out: {', '.join(parts)}"


def _shape(part: RequestShape, *, short: bool = False) -> str:
    hits = part.prefix_cache_hit_percent
    cached = f" ({hits} % in the prefix cache)" if hits else ""
    in_varies = "" if part.input_tokens_scv is None else f" (SCV {part.input_tokens_scv})"
    out_varies = "" if part.output_tokens_scv is None else f" (SCV {part.output_tokens_scv})"
    if short:
        return f"{part.input_tokens}{in_varies}{cached}/{part.output_tokens}{out_varies}"
    return f"{part.input_tokens} tokens in{in_varies}{cached}, {part.output_tokens} out{out_varies}"
