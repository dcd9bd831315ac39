"""Inputs and results of predictions.

Everything that varies over the planning space is a NumPy array of shape (n,), one element per candidate, so that a
whole space is evaluated at once. Power, throughput and energy are those of one engine replica, all of its GPUs
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from energylens.predictor.requests import RequestClass, output_variation, over_requests

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class GpuSpec:
    """One GPU product, from its data sheet. Watts, bytes, bytes per second, FLOP per second; dense figures."""

    product: str
    """The value of the node label ``nvidia.com/gpu.product``."""
    name: str
    """Short name such as ``H100``, the key of calibrated coefficients."""
    architecture: str
    """``ampere``, ``ada-lovelace``, ``hopper`` or ``blackwell``."""
    memory_bytes: float
    """Memory that NVML reports."""
    memory_bandwidth: float
    flops_bf16: float
    flops_fp8: float
    """0 when the matrix units have no FP8 path."""
    flops_fp4: float
    """0 when the matrix units have no FP4 path."""
    nvlink_bandwidth: float
    """Per direction and GPU; 0 without NVLink."""
    pcie_bandwidth: float
    """Per direction."""
    sm_count: int
    boost_clock_mhz: float
    power_limit_watts: float
    power_limit_min_watts: float
    power_limit_max_watts: float
    idle_watts: float
    """Empty GPU."""
    loaded_idle_watts: float
    """Weights resident, no request running."""
    max_gpus_per_node: int = 8
    gpus_per_nvlink_island: int = 8
    """GPUs that NVLink joins: all of an HGX board, 2 or 4 cards of a bridge, 72 of a rack; 1 without NVLink. Beyond the
    island messages take the host link."""
    network_bandwidth: float = 0.0
    """Of a node, per direction, to other nodes; 0 where it is not known. It is of the cluster, not of the product."""
    aliases: tuple[str, ...] = field(default=(), compare=False)
    """Other names that people write, such as ``H100 SXM``. Names are no figures: specs compare equal without them."""
    label_values: tuple[str, ...] = field(default=(), compare=False)
    """Other values of the node label ``nvidia.com/gpu.product`` for this product: those of older drivers, and those in
    circulation in manifests."""
    gke_accelerators: tuple[str, ...] = field(default=(), compare=False)
    """Values of GKE's node label ``cloud.google.com/gke-accelerator`` for this product."""


@dataclass(frozen=True)
class Layouts:
    """Ways to place one replica of a model on GPUs; each field has shape (n,).

    ``tensor_parallel x pipeline_parallel x data_parallel`` GPUs make a replica. Experts are split over
    ``expert_parallel`` of them (1: every expert is split like a dense layer by tensor parallelism).
    """

    tensor_parallel: IntArray
    pipeline_parallel: IntArray
    expert_parallel: IntArray
    data_parallel: IntArray
    max_batch_size: IntArray
    """Most sequences running at once on each data-parallel rank (vLLM's ``--max-num-seqs``)."""
    power_cap_watts: FloatArray
    """Per GPU; NaN means the product's default limit."""

    @property
    def gpus(self) -> IntArray:
        """GPUs of one replica, shape (n,)."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    @property
    def split(self) -> tuple[FloatArray | IntArray, ...]:
        """What tells candidates apart that differ in more than their places: degrees and cap, shape (n,) each."""
        degrees = (self.tensor_parallel, self.pipeline_parallel, self.expert_parallel, self.data_parallel)
        return (*degrees, np.nan_to_num(self.power_cap_watts, nan=-1.0))

    def __len__(self) -> int:
        return int(self.tensor_parallel.shape[0])

    def take(self, index: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Self:
        """Return the candidates that a mask or an index array of shape (m,) selects."""
        return type(self)(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True)
class Speculation:
    """Tokens that are drafted and verified in one step, a chain of them per sequence."""

    method: Literal["NGram", "EAGLE", "MTP", "DraftModel"]
    draft_tokens: int
    """Drafted per sequence and step, 1 or more."""
    acceptance: float
    """Accepted over drafted tokens, 0 to 1: what the engines count."""
    draft_parameters: float | None = None
    """Parameters of a draft model without its embeddings."""

    @property
    def verified(self) -> int:
        """Tokens that a step computes for each running sequence: the drafts, and the one after the last output."""
        return self.draft_tokens + 1

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a step adds to each running sequence: the accepted drafts, and one that the model chose."""
        return 1.0 + self.acceptance * self.draft_tokens


@dataclass(frozen=True)
class Workload:
    """Mean shape of a request, and the classes of requests that it is the mean of."""

    input_tokens: float
    output_tokens: float
    cached_input_fraction: float = 0.0
    """Share of prompts that the prefix cache has whole, as where prompts are sent again; they cost no prefill."""
    age_share: float = 0.5
    """Mean age of running sequences over the mean output, both in tokens: what a KV cache holds beyond the prompt."""
    prefix_hit_fraction: float = 0.0
    """Share of each prompt, from its beginning, that the prefix cache has. It costs no prefill, the rest attends to it,
    and the cache holds it once for all running requests of a rank."""
    speculation: Speculation | None = None
    arrival_variation: float | FloatArray = 1.0
    """Squared coefficient of variation of the times between requests: 1 for Poisson arrivals, more for bursts. Of one
    replica each where it is an array, shape (n,)."""
    output_variation: float = 0.0
    """Squared coefficient of variation of the output lengths."""
    prompt_variation: float | None = None
    """Squared coefficient of variation of the computed prompt lengths; None for that of the coefficients."""
    classes: tuple[RequestClass, ...] = ()
    """Of requests of unlike shapes, whose means the fields above are; empty where one shape is all."""

    @classmethod
    def of_classes(
        cls,
        classes: Sequence[RequestClass],
        speculation: Speculation | None = None,
        arrival_variation: float | FloatArray = 1.0,
    ) -> Workload:
        """Return the load of requests of one shape or more.

        Args:
            classes: One or more, whose shares add up to 1.
            speculation: Drafted tokens, the same for all classes.
            arrival_variation: Of the arrivals of all classes together.
        """
        variation = output_variation(classes)
        prompt, prefix = over_requests(classes, "input_tokens"), over_requests(classes, "shared_prefix")
        return cls(
            prompt,
            over_requests(classes, "output_tokens"),
            age_share=(1.0 + variation) / 2.0,
            prefix_hit_fraction=prefix / prompt,
            speculation=speculation,
            arrival_variation=arrival_variation,
            output_variation=variation,
            prompt_variation=classes[0].prompt_variation if len(classes) == 1 else None,
            classes=tuple(classes) if len(classes) > 1 else (),
        )

    @property
    def parts(self) -> tuple[RequestClass, ...]:
        """The classes of its requests, one where all are of one shape."""
        if self.classes:
            return self.classes
        shape = (self.input_tokens, self.output_tokens, self.prefix_hit_fraction)
        return (RequestClass(1.0, *shape, self.prompt_variation, self.output_variation),)

    @property
    def first_tokens(self) -> Workload:
        """The same prompts, each done with after one token: what a replica that only prefills serves."""
        return replace(
            self,
            output_tokens=1.0,
            output_variation=0.0,
            age_share=0.5,
            speculation=None,
            classes=tuple(replace(part, output_tokens=1.0, output_variation=0.0) for part in self.classes),
        )

    @property
    def longest_request(self) -> float:
        """Prompt and answer of the class whose mean requests are longest, tokens."""
        return max(part.input_tokens + part.output_tokens for part in self.parts)

    def take(self, index: npt.NDArray[np.int64]) -> Workload:
        """Return the load of the replicas of an index array of shape (m,)."""
        variation = self.arrival_variation
        if not isinstance(variation, np.ndarray):
            return self
        return replace(self, arrival_variation=variation[index])

    @property
    def computed_prompt(self) -> float:
        """Mean prompt tokens that a prefill computes: 1 at least, since logits are never cached."""
        if self.classes:
            return over_requests(self.classes, "computed_prompt")
        uncached = self.input_tokens * (1.0 - self.cached_input_fraction)
        return max(uncached * (1.0 - self.prefix_hit_fraction), 1.0)

    @property
    def shared_prefix(self) -> float:
        """Tokens at the beginning of a prompt that are in the cache already."""
        return self.input_tokens * self.prefix_hit_fraction

    @property
    def verified(self) -> float:
        """Tokens that a decoding step computes for each sequence."""
        return 1.0 if self.speculation is None else float(self.speculation.verified)

    @property
    def tokens_per_step(self) -> float:
        """Output tokens that a decoding step adds to each sequence."""
        return 1.0 if self.speculation is None else self.speculation.tokens_per_step

    @property
    def decode_steps(self) -> float:
        """Steps that generate a request's output: 1 at least."""
        return max(self.output_tokens / self.tokens_per_step, 1.0)

    @property
    def averaged_steps(self) -> float:
        """Steps that the time per output token of a request is a mean of: their harmonic mean over classes.

        The variance of a mean of k steps falls with 1 / k.
        """
        if not self.classes:
            return self.decode_steps
        steps = ((part.share, max(part.output_tokens / self.tokens_per_step, 2.0)) for part in self.classes)
        return 1.0 / sum(share / each for share, each in steps)


@dataclass(frozen=True)
class Sampled:
    """Where in a run of a benchmark its median inter-token latency lies, when that is not plain steady state."""

    level: float
    """Quantile of the steps at full load that is the median of the run; 0 is a step that only decodes."""
    running_share: float
    """Running sequences at that point over those at full load."""
    age_share: float | None
    """The workload's, at that point; None leaves it as it is."""


@dataclass(frozen=True)
class Interval:
    """An 80 % prediction interval, arrays of shape (n,)."""

    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class Memory:
    """Memory of the most loaded GPU of a replica, arrays of shape (n,)."""

    weight_bytes: FloatArray
    reserved_bytes: FloatArray
    """Activations, graphs, communication buffers and the engine's own head room."""
    kv_bytes_per_token: FloatArray
    state_bytes_per_sequence: FloatArray
    """Recurrent state, independent of length."""
    kv_capacity_tokens: FloatArray
    """Tokens that the KV cache of one data-parallel rank holds; 0 when the weights do not fit."""
    max_concurrency: FloatArray
    """Sequences of the workload's mean length at mid-life that one replica can keep running, before max_batch_size."""
    fits: BoolArray
    """Weights and at least one sequence of full length fit."""

    def take(self, index: npt.NDArray[np.int64]) -> Self:
        """Return the candidates that an index array of shape (m,) selects."""
        return type(self)(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


FARTHEST = 3
"""Value of `Prediction.nearest` where nothing near was measured."""


@dataclass(frozen=True)
class Prediction:
    """Steady-state behaviour of one replica, arrays of shape (n,).

    Where ``supported`` is False the other numbers are NaN and ``reason`` says why.
    """

    supported: BoolArray
    reason: npt.NDArray[np.str_]
    """Empty where supported; else a sentence that names the rule, such as heads not divisible."""
    sustainable: BoolArray
    """The offered load is below capacity (always True for a given concurrency that fits)."""
    concurrency: FloatArray
    """Mean running sequences of the replica; with more requests than it has room for, up to a tenth above
    ``max_concurrency``, as far as the estimate of the room is cautious."""
    max_concurrency: FloatArray
    """min(max_batch_size x data_parallel, KV capacity)."""
    utilization: FloatArray
    """Offered output tokens per second over the capacity; 1 when saturated."""
    mean_step_ms: FloatArray
    tpot_ms: FloatArray
    """Time per output token of a request after its first, the median over requests: prefill of others included."""
    tpot_p95_ms: FloatArray
    tpot_p99_ms: FloatArray
    decoding_p50_ms: FloatArray
    """From a request's first token to its last, over requests."""
    decoding_p95_ms: FloatArray
    decoding_p99_ms: FloatArray
    itl_p50_ms: FloatArray
    itl_p90_ms: FloatArray
    itl_p95_ms: FloatArray
    itl_p99_ms: FloatArray
    ttft_p50_ms: FloatArray
    ttft_p95_ms: FloatArray
    ttft_p99_ms: FloatArray
    output_tokens_per_second: FloatArray
    power_watts: FloatArray
    """Mean over time, idle gaps included."""
    idle_power_watts: FloatArray
    """The same replica with no request."""
    joules_per_output_token: FloatArray
    """power_watts / output_tokens_per_second: prefill and idle included."""
    itl: Interval
    """Interval of the median ITL, ms."""
    tpot: Interval
    ttft: Interval
    """Interval of the median TTFT, ms."""
    throughput: Interval
    power: Interval
    energy: Interval
    """Interval of ``joules_per_output_token``, J."""
    unshared_deviation: FloatArray
    """Standard deviation of the error of log(joules_per_output_token), without what all candidates of one model and
    engine share, and without the noise of a measurement."""
    layout_deviation: FloatArray
    """The part of it by which two layouts of one product err apart although as much was measured near both."""
    nearest: IntArray
    """The nearest that was measured, as indices into `energylens.predictor.fitted.features.NEAREST`."""
    memory: Memory


def spread(found: Prediction, index: npt.NDArray[np.int64], reason: npt.NDArray[np.str_], held: Memory) -> Prediction:
    """Return the prediction of n candidates from that of the m which can run.

    Args:
        found: Of those that can run, shape (m,).
        index: Which they are, shape (m,).
        reason: Why each candidate cannot run, shape (n,); empty where it can.
        held: Memory of all candidates, shape (n,).
    """
    n = len(reason)

    def column(values: Any) -> Any:
        if isinstance(values, Interval):
            return Interval(column(values.low), column(values.high))
        if values.dtype == np.int64:
            out = np.full(n, FARTHEST)
        else:
            out = np.zeros(n, dtype=np.bool_) if values.dtype == np.bool_ else np.full(n, np.nan)
        out[index] = values
        return out

    columns = {f.name: column(getattr(found, f.name)) for f in fields(Prediction) if f.name not in ("reason", "memory")}
    return Prediction(**columns, reason=reason, memory=held)
