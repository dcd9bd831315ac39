"""The load, and the objectives for latency and energy under this load."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from energylens.api.base import ApiModel, Rule
from energylens.api.llmdeployment.job import BatchJob
from energylens.api.llmdeployment.profile import LoadProfile
from energylens.api.llmdeployment.shapes import Shapes
from energylens.api.quantity import PositiveQuantity, SquaredVariation

Percentile = Literal["P50", "P95", "P99"]
SpeculationMethod = Literal["NGram", "EAGLE", "MTP", "DraftModel"]

_MAX_MILLISECONDS = 3_600_000


def _draft_model_size(speculative: Speculative) -> str | None:
    millions = speculative.draft_model_million_parameters
    if speculative.method == "DraftModel" and millions is None:
        return "method DraftModel needs draftModelMillionParameters: its parameters in millions"
    if speculative.method not in (None, "DraftModel") and millions is not None:
        return (
            f"draftModelMillionParameters ({millions}) is for method DraftModel, and method is {speculative.method}; "
            "leave draftModelMillionParameters out"
        )
    return None


_DRAFT_MODEL_SIZE = Rule(
    summary="draftModelMillionParameters is set with method DraftModel, and with no other method",
    cel="!has(self.method) || (self.method == 'DraftModel') == has(self.draftModelMillionParameters)",
    message_cel="self.method == 'DraftModel' ? "
    "'method DraftModel needs draftModelMillionParameters: its parameters in millions' : "
    "'draftModelMillionParameters (%s) is for method DraftModel, and method is %s; "
    "leave draftModelMillionParameters out'.format([self.draftModelMillionParameters, self.method])",
    check=_draft_model_size,
)


class Speculative(ApiModel):
    """Speculative decoding as set in spec.engine.extraArgs: a chain of drafted tokens per step."""

    rules: ClassVar[tuple[Rule, ...]] = (_DRAFT_MODEL_SIZE,)

    method: SpeculationMethod | None = Field(
        default=None,
        description="Method of drafting. NGram: n-grams of the prompt, without a model. EAGLE: a head of one layer. "
        "MTP: the model's own layer for drafting. DraftModel: a small model. Absent: the method in "
        "spec.engine.extraArgs, or else EAGLE.",
    )
    draft_tokens: int = Field(
        ge=1,
        le=64,
        description="Tokens drafted per sequence and step; each step verifies these tokens and generates one more.",
    )
    acceptance_percent: int = Field(
        ge=0, le=100, description="Accepted tokens over drafted tokens, %, as the engines count them."
    )
    draft_model_million_parameters: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Parameters of the draft model without its embeddings, in millions; required for method "
        "DraftModel.",
    )


def _one_load(workload: WorkloadSpec) -> str | None:
    rate, concurrency, job = workload.requests_per_second, workload.concurrency, workload.job
    if job is not None and (rate is not None or concurrency is not None):
        other = "concurrency" if rate is None else "requestsPerSecond"
        return f"job and {other} ({rate or concurrency}) are both set; set exactly one of the three loads"
    if rate is not None and concurrency is not None:
        return f"requestsPerSecond ({rate}) and concurrency ({concurrency}) are both set; set exactly one"
    if rate is None and concurrency is None and job is None:
        return "neither requestsPerSecond nor concurrency nor job is set; set exactly one"
    return None


_ONE_LOAD = Rule(
    summary="set exactly one of requestsPerSecond, concurrency and job",
    cel="has(self.job) ? !has(self.requestsPerSecond) && !has(self.concurrency) : "
    "has(self.requestsPerSecond) != has(self.concurrency)",
    message_cel="has(self.job) ? (has(self.requestsPerSecond) ? "
    "'job and requestsPerSecond (%s) are both set; set exactly one of the three loads'.format("
    "[self.requestsPerSecond]) : "
    "'job and concurrency (%s) are both set; set exactly one of the three loads'.format([self.concurrency])) : "
    "has(self.concurrency) ? "
    "'requestsPerSecond (%s) and concurrency (%s) are both set; set exactly one'.format("
    "[self.requestsPerSecond, self.concurrency]) : "
    "'neither requestsPerSecond nor concurrency nor job is set; set exactly one'",
    check=_one_load,
)


def _bursts_arrive(workload: WorkloadSpec) -> str | None:
    if workload.arrival_scv is None or workload.requests_per_second is not None:
        return None
    return f"arrivalSCV ({workload.arrival_scv}) needs requestsPerSecond, which is not set; leave arrivalSCV out"


_BURSTS_ARRIVE = Rule(
    summary="arrivalSCV needs requestsPerSecond",
    cel="!has(self.arrivalSCV) || has(self.requestsPerSecond)",
    message_cel="'arrivalSCV (%s) needs requestsPerSecond, which is not set; leave arrivalSCV out'.format("
    "[self.arrivalSCV])",
    check=_bursts_arrive,
)


def _profile_has_a_base(workload: WorkloadSpec) -> str | None:
    if workload.profile is None or workload.requests_per_second is not None:
        return None
    return "profile needs requestsPerSecond, the rate of the hours that the profile does not name"


_PROFILE_HAS_A_BASE = Rule(
    summary="profile needs requestsPerSecond, the rate of the hours that the profile does not name",
    cel="!has(self.profile) || has(self.requestsPerSecond)",
    message_cel="'profile needs requestsPerSecond, the rate of the hours that the profile does not name'",
    check=_profile_has_a_base,
)


class WorkloadSpec(Shapes):
    """The load: the shapes of requests, and an arrival rate, a number of concurrent requests, or a batch job."""

    rules: ClassVar[tuple[Rule, ...]] = (*Shapes.rules, _ONE_LOAD, _BURSTS_ARRIVE, _PROFILE_HAS_A_BASE)

    requests_per_second: PositiveQuantity | None = Field(
        default=None,
        description='Mean arrival rate over all replicas, above 0: a whole number (2) or a string ("0.5", 500m). '
        "A number with a fraction (0.5 without quotes) is refused. Set this or concurrency.",
    )
    profile: LoadProfile | None = Field(
        default=None,
        description="Hours of the week with another rate than requestsPerSecond. The plan then has one layout, and a "
        "number of replicas for each hour. Absent: the rate is constant.",
    )
    concurrency: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Requests in flight over all replicas. Set this or requestsPerSecond.",
    )
    job: BatchJob | None = Field(
        default=None,
        description="A batch job, instead of requestsPerSecond or concurrency: the plan of least energy that completes "
        "the requests in time.",
    )
    arrival_scv: SquaredVariation | None = Field(
        default=None,
        description="Squared coefficient of variation (SCV) of the times between requests: their variance over the "
        "square of their mean. Default: 1, Poisson arrivals; bursts have a higher value, such as 4. Needs "
        "requestsPerSecond.",
    )
    speculative: Speculative | None = Field(
        default=None, description="Speculative decoding; absent: every step generates one token per request."
    )

    @property
    def in_flight(self) -> int | None:
        """Requests in flight: those of a concurrency, or all of a job; None for an arrival rate."""
        return self.concurrency if self.job is None else self.job.requests


class Slo(ApiModel):
    """Service level objectives at the given percentile. An absent objective does not constrain the plan."""

    percentile: Percentile = Field(default="P95", description="Share of requests that must meet the latencies.")
    ttft_milliseconds: int | None = Field(
        default=None, ge=1, le=_MAX_MILLISECONDS, description="Maximum time to first token, ms."
    )
    itl_milliseconds: int | None = Field(
        default=None, ge=1, le=_MAX_MILLISECONDS, description="Maximum inter-token latency, ms."
    )
    tpot_milliseconds: int | None = Field(
        default=None,
        ge=1,
        le=_MAX_MILLISECONDS,
        description="Maximum time per output token of a request, the mean over its tokens after the first, ms. TPOT "
        "includes the prefill of other requests, to which a median inter-token latency is insensitive.",
    )
    end_to_end_milliseconds: int | None = Field(
        default=None,
        ge=1,
        le=_MAX_MILLISECONDS,
        description="Maximum end-to-end latency of a request (E2E), from its arrival to its last token, ms.",
    )
    joules_per_output_token: PositiveQuantity | None = Field(
        default=None, description='Maximum GPU energy per generated token, J, greater than 0, such as "0.4" or 400m.'
    )
