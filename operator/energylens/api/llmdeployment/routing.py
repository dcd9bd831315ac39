"""How requests reach the serving pods beside the Service."""

from __future__ import annotations

from typing import Annotated, Literal

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


class Disaggregation(ApiModel):
    """The router for separate prefill and decode replicas, which the site runs but for its part in the pods."""

    router: Literal["LLMD"] = Field(
        description="LLMD: the endpoint picker of llm-d chooses a prefill and a decode replica for each request, and "
        "llm-d's routing sidecar, which the operator adds to the decode pods, sends the prompt to the prefill replica; "
        "with SGLang, the sidecar sends the request to both."
    )
    sidecar_image: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^\S+$")] = Field(
        description="Image of llm-d's routing sidecar, of the same release as the endpoint picker."
    )


class Routing(ApiModel):
    """Objects besides the Service by which requests reach the pods."""

    inference_pool: InferencePool | None = Field(
        default=None,
        description="An InferencePool with the name of the LLMDeployment, for HTTPRoutes of a gateway that supports "
        "the Gateway API inference extension. Absent: none.",
    )
    disaggregation: Disaggregation | None = Field(
        default=None,
        description="The router that planning.disaggregation Follow needs. Absent: none, so that no plan with separate "
        "prefill and decode is adopted.",
    )
