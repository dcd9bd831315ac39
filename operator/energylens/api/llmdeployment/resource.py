"""The LLMDeployment resource."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field

from energylens.api.base import ApiModel, ObjectMeta, Rule
from energylens.api.llmdeployment.spec import LLMDeploymentSpec
from energylens.api.llmdeployment.status import LLMDeploymentStatus

NAME_LIMIT = 52
"""Longest metadata.name: 63 (a label value, a Service's name) less the "-" and hash of 10 that controllers append."""
NAME_REGEX = "^[a-z]([-a-z0-9]*[a-z0-9])?$"


def _name_leaves_room(deployment: LLMDeployment) -> str | None:
    name = deployment.metadata.name
    if len(name) <= NAME_LIMIT and re.fullmatch(NAME_REGEX.strip("^$"), name):
        return None
    return f"metadata.name '{name}' ({len(name)} characters) {_NAME_ALLOWED}"


_NAME_ALLOWED = (
    f"must have at most {NAME_LIMIT} characters, start with a lower-case letter, end with a letter or digit, "
    "and hold only a-z, 0-9 and -"
)
_NAME_LEAVES_ROOM = Rule(
    summary=f"metadata.name {_NAME_ALLOWED}",
    cel=f"size(self.metadata.name) <= {NAME_LIMIT} && self.metadata.name.matches('{NAME_REGEX}')",
    message_cel=f"\"metadata.name '%s' (%s characters) {_NAME_ALLOWED}\".format("
    "[self.metadata.name, size(self.metadata.name)])",
    check=_name_leaves_room,
    only_on_create=True,
)


class LLMDeployment(ApiModel):
    """An LLM served with the least energy that meets its latency objectives."""

    rules: ClassVar[tuple[Rule, ...]] = (_NAME_LEAVES_ROOM,)

    api_version: Literal["energylens.dev/v1alpha1"] = Field(
        default="energylens.dev/v1alpha1", description="API group and version."
    )
    kind: Literal["LLMDeployment"] = Field(default="LLMDeployment", description="LLMDeployment.")
    metadata: ObjectMeta = Field(description="Name, namespace, labels; metadata.name has at most 52 characters.")
    spec: LLMDeploymentSpec = Field(description="Model, load, objectives, and how plans are made.")
    status: LLMDeploymentStatus = Field(
        default=LLMDeploymentStatus(), description="Plan, running pods, measurements and conditions."
    )

    @property
    def owner(self) -> str:
        """``namespace/name``, by which pods, reservations and budgets name the deployment."""
        return f"{self.metadata.namespace}/{self.metadata.name}"
