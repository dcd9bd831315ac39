"""The engine images for which the arguments and probes of this package were written."""

from __future__ import annotations

from energylens.api.llmdeployment import Engine
from energylens.planner.engines import PROVED

_REPOSITORIES = {"VLLM": "vllm/vllm-openai", "SGLang": "lmsysorg/sglang"}
ENGINE_IMAGES: dict[str, str] = {
    engine: f"{repository}:v{'.'.join(map(str, PROVED[engine]))}" for engine, repository in _REPOSITORIES.items()
}
"""Engine type to image, pinned by tag. ``spec.engine.image`` replaces it."""


def engine_image(engine: Engine) -> str:
    """Return the image of an engine's pods."""
    return engine.image or ENGINE_IMAGES[engine.type]
