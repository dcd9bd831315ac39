"""What every custom resource shares: camelCase names on the wire, unknown fields refused, conditions."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

GROUP = "energylens.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

_UPPER = {"gpu": "GPU", "gpus": "GPUs"}


def camel(name: str) -> str:
    """Return a field's name on the wire: ``max_gpus_per_replica`` is ``maxGPUsPerReplica``."""
    head, *tail = name.split("_")
    return head + "".join(_UPPER.get(word, word.capitalize()) for word in tail)


class ApiModel(BaseModel):
    """Base of every object and sub-object of the API."""

    model_config = ConfigDict(alias_generator=camel, populate_by_name=True, extra="forbid", frozen=True)


class Condition(ApiModel):
    """One observed aspect of an object, as the Kubernetes API conventions define it."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    observed_generation: int | None = None
    last_transition_time: str = Field(default="", description="RFC 3339, UTC.")
