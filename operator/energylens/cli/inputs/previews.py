"""Planning for the commands: the operator's answer, with input that it would refuse turned into errors."""

from __future__ import annotations

from collections.abc import Sequence

from energylens.api.llmdeployment import LLMDeployment
from energylens.cli.errors import InputError
from energylens.cli.progress import progress
from energylens.clock import Clock, SystemClock
from energylens.decide.preview import Preview, World, preview
from energylens.decide.reasons import Reason

_BAD_INPUT = (
    Reason.MODEL_UNKNOWN,
    Reason.MODEL_CONFIG_MISSING,
    Reason.PROFILE_MISSING,
    Reason.PROFILE_INVALID,
    Reason.INVALID_ENGINE_SETTINGS,
)


def previews(deployments: Sequence[LLMDeployment], world: World, clock: Clock | None = None) -> list[Preview]:
    """Return what the operator would write for each deployment.

    Raises:
        InputError: A model or an engine setting cannot be planned with, whatever the cluster.
    """
    found = []
    with progress(preview(deployments, world, (clock or SystemClock()).now()), "planning", len(deployments)) as answers:
        for answer in answers:
            planning = answer.planning
            if planning.result is None and not planning.good and planning.reason in _BAD_INPUT:
                raise InputError(f"{answer.deployment.metadata.name}: {planning.message}")
            found.append(answer)
    return found
