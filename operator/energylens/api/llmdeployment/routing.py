"""How requests reach the serving pods beside the Service."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from energylens.api.base import ApiModel, ObjectName


class EndpointPicker(ApiModel):
    """The endpoint picker of the Gateway API inference extension, which the site runs."""

    name: ObjectName = Field(description="Name of the picker's Service in the namespace of the LLMDeployment.")
    port: int = Field(default=9002, ge=1, le=65_535, description="Port of the picker's Service (external processing).")
    failure_mode: Literal["FailOpen", "FailClose"] = Field(
        default="FailClose",
        description="Requests while the picker does not answer. FailOpen: the gateway sends them to any pod. "
        "FailClose: the gateway rejects them.",
    )


class InferencePool(ApiModel):
    """The InferencePool (inference.networking.k8s.io/v1) of the serving pods."""

    endpoint_picker: EndpointPicker = Field(description="Program that picks the pod of each request.")


class Routing(ApiModel):
    """Objects besides the Service by which requests reach the pods."""

    inference_pool: InferencePool | None = Field(
        default=None,
        description="An InferencePool with the name of the LLMDeployment, for HTTPRoutes of a gateway that supports "
        "the Gateway API inference extension. Absent: none.",
    )
