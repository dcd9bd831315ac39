"""A batch job: requests to be done by a deadline."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from energylens.api.base import ApiModel


class BatchJob(ApiModel):
    """Requests that are all there at the start and have to be done by a deadline; nobody waits for the single answer.

    The operator serves the model as for any load. Clients send the requests, as many at once as the engine takes.
    """

    requests: int = Field(ge=1, le=1_000_000_000, description="Requests to complete.")
    complete_within_seconds: int = Field(
        ge=1,
        le=31_536_000,
        description="Maximum time from the creation of the pods to the last answer, loading of the model included, s.",
    )
    after_completion: Literal["Idle", "Release"] = Field(
        default="Idle",
        description="What happens to the GPUs after the last answer. Idle: the pods stay until completeWithinSeconds "
        "have passed, and the energy of the plan includes their idle power. Release: the user deletes the "
        "LLMDeployment then, and nothing more counts.",
    )
    start_seconds: int | None = Field(
        default=None,
        ge=0,
        le=86_400,
        description="Measured time from the creation of a pod until it is ready, s. Default: an estimate from the "
        "weights' bytes.",
    )
