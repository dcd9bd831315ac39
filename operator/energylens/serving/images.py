"""Engine images that the arguments and probes of this package were written for."""

from __future__ import annotations

ENGINE_IMAGES: dict[str, str] = {
    "VLLM": "vllm/vllm-openai:v0.33.0",
    "SGLang": "lmsysorg/sglang:v0.5.23",
}
"""Engine type to image, pinned by tag. ``spec.engine.image`` replaces it."""
