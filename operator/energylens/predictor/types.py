"""Inputs of predictions: GPU products, layouts and requests.

Everything that varies over the planning space is a NumPy array of shape (n,), one element per candidate, so that a
whole space is evaluated at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, fields, replace
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from energylens.predictor.requests import RequestClass, output_variation, over_requests
from energylens.records import dataclass

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class GpuSpec:
    """One GPU product, from its data sheet. Watts, bytes, bytes per second, FLOP per second.

    Figures without sparsity.
    """

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
    """0 if the matrix units have no FP8 path."""
    flops_fp4: float
    """0 if the matrix units have no FP4 path."""
    nvlink_bandwidth: float
    """Bandwidth per direction and GPU; 0 without NVLink."""
    pcie_bandwidth: float
    """Bandwidth per direction."""
    sm_count: int
    boost_clock_mhz: float
    power_limit_watts: float
    power_limit_min_watts: float
    power_limit_max_watts: float
    idle_watts: float
    """Power of an empty GPU."""
    loaded_idle_watts: float
    """Power with resident weights and no running request."""
    max_gpus_per_node: int = 8
    gpus_per_nvlink_island: int = 8
    """GPUs that NVLink connects: all of an HGX board, 2 or 4 cards of a bridge, 72 of a rack; 1 without NVLink. Beyond
    this island messages use the host link."""
    network_bandwidth: float = 0.0
    """Bandwidth between nodes per direction, a property of the cluster; 0 if it is unknown."""
    aliases: tuple[str, ...] = field(default=(), compare=False)
    """Other names in use, such as ``H100 SXM``. Names are not figures: products compare equal without them."""
    label_values: tuple[str, ...] = field(default=(), compare=False)
    """Other values of the node label ``nvidia.com/gpu.product``, from older drivers and published manifests."""
    gke_accelerators: tuple[str, ...] = field(default=(), compare=False)
    """Values of GKE's node label ``cloud.google.com/gke-accelerator`` for this product."""


@dataclass(frozen=True)
class Layouts:
    """Ways to place one replica of a model on GPUs; each field has shape (n,).

    ``tensor_parallel x pipeline_parallel x data_parallel`` GPUs form a replica. Experts are distributed over
    ``expert_parallel`` of them (1: every expert is split like a dense layer by tensor parallelism).
    """

    tensor_parallel: IntArray
    pipeline_parallel: IntArray
    expert_parallel: IntArray
    data_parallel: IntArray
    max_batch_size: IntArray
    """Most sequences running at once on each data-parallel rank (vLLM's ``--max-num-seqs``)."""
    power_cap_watts: FloatArray
    """Power cap per GPU, W; NaN means the product's default limit."""
    max_batched_tokens: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Tokens that a step of each data-parallel rank computes at most (vLLM's ``--max-num-batched-tokens``); 0 means the
    engine's default, and an empty array that default for all."""
    node_gpus: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """GPUs of a node of the replica, which decide what links it has; 0 or empty: ``GpuSpec.max_gpus_per_node``."""
    graph_tokens: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Tokens of the largest step of a rank for which vLLM captures a CUDA graph (``--max-cudagraph-capture-size``);
    0 or empty: the engine's default."""

    def __post_init__(self) -> None:
        """Take the defaults of the engine and of the product where nothing is given."""
        optional = "max_batched_tokens", "node_gpus", "graph_tokens"
        for name in (name for name in optional if not getattr(self, name).size):
            object.__setattr__(self, name, np.zeros_like(self.tensor_parallel))

    @property
    def gpus(self) -> IntArray:
        """GPUs of one replica, shape (n,)."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    @property
    def split(self) -> tuple[FloatArray | IntArray, ...]:
        """Columns that tell candidates apart beyond places, (n,) each; step tokens where ranks wait for others."""
        degrees = (self.tensor_parallel, self.pipeline_parallel, self.expert_parallel, self.data_parallel)
        tokens = np.where(self.data_parallel > 1, self.max_batched_tokens, 0)
        return (*degrees, np.nan_to_num(self.power_cap_watts, nan=-1.0), tokens, self.node_gpus)

    def __len__(self) -> int:
        return int(self.tensor_parallel.shape[0])

    def take(self, index: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Self:
        """Return the candidates that a mask or an index array of shape (m,) selects."""
        return type(self)(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True)
class Speculation:
    """Tokens that are drafted and verified in one step, one chain per sequence."""

    method: Literal["NGram", "EAGLE", "MTP", "DraftModel"]
    draft_tokens: int
    """Drafted tokens per sequence and step, at least 1."""
    acceptance: float
    """Share of drafted tokens that are accepted, 0 to 1, as engines count it."""
    draft_parameters: float | None = None
    """Parameters of a draft model without its embeddings."""

    @property
    def verified(self) -> int:
        """Tokens that a step computes for each running sequence: the drafts, and the one after the last output."""
        return self.draft_tokens + 1

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a step adds to each running sequence: the accepted drafts, and one chosen by the model."""
        return 1.0 + self.acceptance * self.draft_tokens


@dataclass(frozen=True)
class Workload:
    """Mean shape of a request, and the classes of requests behind this mean."""

    input_tokens: float
    output_tokens: float
    cached_input_fraction: float = 0.0
    """Share of prompts that are completely in the prefix cache, as for repeated prompts; they need no prefill."""
    age_share: float = 0.5
    """Mean age of running sequences / mean output, both in tokens; it gives the KV cache usage beyond the prompt."""
    prefix_hit_fraction: float = 0.0
    """Share of each prompt, from its beginning, that is in the prefix cache. It needs no prefill, the rest attends to
    it, and the cache holds it once for all running requests of a rank."""
    speculation: Speculation | None = None
    arrival_variation: float | FloatArray = 1.0
    """Squared coefficient of variation of the times between requests: 1 for Poisson arrivals, more for bursts. As an
    array, shape (n,), one value per replica."""
    output_variation: float = 0.0
    """Squared coefficient of variation of the output lengths."""
    prompt_variation: float | None = None
    """Squared coefficient of variation of the computed prompt lengths; None for the coefficients' value."""
    classes: tuple[RequestClass, ...] = ()
    """Classes of requests with different shapes, whose means are the fields above; empty for requests of one shape."""
    greedy: bool = False
    """Whether requests take the most likely token; otherwise sampling follows the model's generation_config.json."""

    @classmethod
    def of_classes(
        cls,
        classes: Sequence[RequestClass],
        speculation: Speculation | None = None,
        arrival_variation: float | FloatArray = 1.0,
    ) -> Workload:
        """Return the load of requests of one or more classes.

        Args:
            classes: One or more classes, whose shares add up to 1.
            speculation: Speculative decoding, the same for all classes.
            arrival_variation: Variation of the arrivals of all classes together.
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
        """The classes of requests; a single one if all requests have one shape."""
        if self.classes:
            return self.classes
        shape = (self.input_tokens, self.output_tokens, self.prefix_hit_fraction)
        return (RequestClass(1.0, *shape, self.prompt_variation, self.output_variation),)

    @property
    def first_tokens(self) -> Workload:
        """The same prompts, each finished after one token: the load of a prefill replica."""
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
        """Prompt and output of the class with the longest mean request, tokens."""
        return max(part.input_tokens + part.output_tokens for part in self.parts)

    def take(self, index: npt.NDArray[np.int64]) -> Workload:
        """Return the load of the replicas of an index array of shape (m,)."""
        variation = self.arrival_variation
        if not isinstance(variation, np.ndarray):
            return self
        return replace(self, arrival_variation=variation[index])

    @property
    def computed_prompt(self) -> float:
        """Mean prompt tokens that a prefill computes, at least 1, since logits are never cached."""
        if self.classes:
            return over_requests(self.classes, "computed_prompt")
        uncached = self.input_tokens * (1.0 - self.cached_input_fraction)
        return max(uncached * (1.0 - self.prefix_hit_fraction), 1.0)

    @property
    def shared_prefix(self) -> float:
        """Tokens at the beginning of a prompt that are already cached."""
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
        """Steps that generate a request's output, at least 1."""
        return max(self.output_tokens / self.tokens_per_step, 1.0)

    @property
    def averaged_steps(self) -> float:
        """Steps over which the time per output token of a request is a mean; over classes, the harmonic mean.

        The variance of a mean of k steps falls with 1 / k.
        """
        if not self.classes:
            return self.decode_steps
        steps = ((part.share, max(part.output_tokens / self.tokens_per_step, 2.0)) for part in self.classes)
        return 1.0 / sum(share / each for share, each in steps)


@dataclass(frozen=True)
class Sampled:
    """Where a benchmark run takes its median inter-token latency, if not in plain steady state."""

    level: float
    """Quantile of the steps at full load that equals the median of the run; 0 is a step that only decodes."""
    running_share: float
    """Ratio of the running sequences at that point to those at full load."""
    age_share: float | None
    """The workload's age at that point; None leaves it unchanged."""
