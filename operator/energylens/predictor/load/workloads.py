"""How the ML.ENERGY Benchmark loads an engine, as far as its measurements reflect it.

Facts from the benchmark's public configuration (github.com/ml-energy/benchmark, Apache-2.0): all requests are sent at
once, the engine keeps ``max_num_seqs`` of them running, and a task's prompts are repeated as often as a large batch
needs. Throughput and power are means over the time in which the queue is not empty. The quantiles of the inter-token
latency cover the whole run, at the end of which the batch drains.
"""

from __future__ import annotations

from dataclasses import replace
from math import expm1, tanh

from energylens.predictor.model.architecture import Attention, ModelSpec, MoeFfn
from energylens.predictor.types import Sampled, Workload
from energylens.records import dataclass

LIFETIME = 0.75
"""Mean age of a running sequence / mean output in steady state: (1 + v^2) / 2 for outputs with a coefficient of
variation v of 0.7 (length-biased sampling; Cox, Renewal Theory, 1962)."""
MEDIAN_AGE = 0.75
"""Share of the time with a queue after which sequences have the age of the step with the median inter-token latency, if
most tokens come from the draining batch."""


@dataclass(frozen=True)
class Protocol:
    """One task of the benchmark."""

    prompts: float
    """Number of distinct prompts."""
    spread: float
    """Batch size for each time that all prompts are sent."""
    length: float
    """Ratio of the mean prompt to the assumed one, derived from throughput at large batches."""
    variation: float
    """Coefficient of variation of the lengths of outputs. Not published: assumed, higher for chats than for reasoning.
    """
    cached: bool = True
    """Whether repeated prompts are still in the prefix cache; long prompts have been evicted by then."""

    def repeats(self, batch: float) -> float:
        """Return how often every prompt is sent."""
        return max(1.0, batch / self.spread)

    def workload(self, input_tokens: float, output_tokens: float, batch: float) -> Workload:
        """Return the mean request while the queue is not empty; repeated prompts hit the prefix cache."""
        cached = 1.0 - 1.0 / self.repeats(batch) if self.cached else 0.0
        queued = max(self.prompts * self.repeats(batch) / batch - 1.0, 0.05)
        # A short run ends before its sequences reach the ages of the steady state.
        age = LIFETIME * -expm1(-queued / (2.0 * LIFETIME))
        return Workload(input_tokens * self.length, output_tokens, cached, age)

    def sampled(self, batch: float) -> Sampled:
        """Return where in the run the median inter-token latency lies.

        Once the queue is empty the batch drains, about evenly over all sizes, and no request starts. A place serves
        requests one after the other, so that the queue of q requests per place is empty after q - w mean outputs, with
        w = (1 + v^2) / 2 for lengths with a coefficient of variation v (the expected number of renewals; Cox, Renewal
        Theory, 1962), and the share w / q of all tokens is left. Until then, sequences grow older, up to an age of w.
        Compared with a simulation of such runs, the median is right within 4 %, but 4 to 15 % too low where the cache
        takes most of a step.
        """
        lifetime = (1.0 + self.variation**2) / 2.0
        queue = self.prompts * self.repeats(batch) / batch
        draining = lifetime / queue
        if draining < 0.5:
            return Sampled((0.5 - draining) / (1.0 - draining), 1.0, None)
        age = lifetime * tanh(MEDIAN_AGE * (queue - lifetime) / lifetime)
        return Sampled(0.0, 0.5 / draining, age)


PROTOCOLS = {
    "lm-arena-chat": Protocol(1024.0, 700.0, 0.6, 0.9),
    "gpqa": Protocol(198.0, 150.0, 1.0, 0.7),
    "sourcegraph-fim": Protocol(1024.0, 190.0, 1.25, 0.7, cached=False),
}


CLOSED_LOOPS = frozenset({"random-1k1k", "random-8k1k", "random-1k8k"})
"""Tasks of InferenceX (SemiAnalysis): a fixed number of requests in flight, random prompts that no prefix cache holds,
ten requests per place. Its runs of quantized checkpoints hold as many sequences as fit into an FP8 KV cache."""
CLOSED_LOOP_VARIATION = 0.0041
"""Squared coefficient of variation of the prompts of closed loops: uniform over 80 to 100 % of the largest length."""
CLOSED_LOOP_LOSS = 0.035
"""Share of the time in which places are empty while the last requests of a closed loop end. Places that have served ten
outputs of 80 to 100 % of the largest length end within less than one output of each other: 0 to 9 %; the runs show 3 to
4 %."""


GREEDY = CLOSED_LOOPS | {"alpaca", "sharegpt"}
"""Tasks whose requests take the most likely token: those of InferenceX, whose client sets temperature 0
(utils/bench_serving/backend_request_func.py), and those of efficient-ai, which its runs show: on B200 a step takes 15
us longer for each of 64 sequences of Qwen2.5-7B, less than a sort of the logits takes elsewhere."""
RANDOM_WEIGHTS = frozenset({"closed-300-400", "closed-1024-1024", "closed-8192-300", "poisson-300-400"})
"""Tasks of this project's own runs, whose weights are random, so that no expert is more popular than another."""


def counts_in_flight(task: str) -> bool:
    """Return whether a task's concurrency counts requests in flight, not the sequences that the engine runs."""
    return task in PROTOCOLS or task in CLOSED_LOOPS


RECIPE_STEP_TOKENS = 2048
"""Tokens of a step of a rank in the closed loops on vLLM, inferred from the runs of several ranks: with prompts of
7,400 tokens a step that prefills takes the same time at every load only if chunks of prompts have this size."""


def recipe_step_tokens(task: str, engine: str | None, ranks: int) -> int:
    """Return the tokens of a step that a task's recipes set, 0 for the engine's default.

    Args:
        task: Of a run.
        engine: As the run names it, such as ``vllm==0.11.1``; None or empty is the newest vLLM.
        ranks: Data-parallel ranks; the runs of one rank do not show the size of chunks.
    """
    set_here = task in CLOSED_LOOPS and (engine or "vllm").startswith("vllm") and ranks > 1
    return RECIPE_STEP_TOKENS if set_here else 0


RECIPE_GRAPH_TOKENS = 2048
"""Tokens of the largest CUDA graph in the closed loops on vLLM: ``--max-cudagraph-capture-size`` in InferenceX's
scripts (benchmarks/single_node/fixed_seq_len). Scripts that set less for MiniMax M3 on Hopper are not those of the
runs: with graphs of as many tokens as requests, the TPOT of models left out would be 12 instead of 9 % off."""


def recipe_graph_tokens(task: str, engine: str | None) -> int:
    """Return the tokens of the largest CUDA graph that a task's recipes set, 0 for the engine's default.

    Args:
        task: Of a run.
        engine: As the run names it; None or empty is the newest vLLM.
    """
    return RECIPE_GRAPH_TOKENS if task in CLOSED_LOOPS and (engine or "vllm").startswith("vllm") else 0


def standing_share(task: str) -> float:
    """Return the share of a task's time in which its places are empty, which affects throughput and energy."""
    return CLOSED_LOOP_LOSS if task in CLOSED_LOOPS else 0.0


def loaded(task: str, model: ModelSpec) -> ModelSpec:
    """Return the model as a task's recipes load it: with an FP8 KV cache, or with weights that route evenly."""
    if task in RANDOM_WEIGHTS:
        even = (replace(g, ffn=replace(g.ffn, skew=0.0)) if isinstance(g.ffn, MoeFfn) else g for g in model.layers)
        return replace(model, layers=tuple(even))
    quant = model.expert_quant if model.is_moe else model.ffn_quant
    # The runs of MiniMax M3 hold as many sequences as fit into a 16-bit cache.
    sparse = any(isinstance(g.mixer, Attention) and g.mixer.top_k_tokens for g in model.layers)
    if task not in CLOSED_LOOPS or quant.weight == "bfloat16" or sparse:
        return model
    return replace(model, kv_bytes_per_element=min(model.kv_bytes_per_element, 1.0))


def workload_of(task: str, input_tokens: float, output_tokens: float, batch: float) -> Workload:
    """Return the mean request of a run of a benchmark task; for other tasks, prompts are not cached."""
    protocol = PROTOCOLS.get(task)
    if protocol is None:
        variation = CLOSED_LOOP_VARIATION if task in CLOSED_LOOPS else None
        return Workload(input_tokens, output_tokens, prompt_variation=variation, greedy=task in GREEDY)
    return protocol.workload(input_tokens, output_tokens, batch)


def sampled_of(task: str, batch: float) -> Sampled | None:
    """Return where a task's median inter-token latency is taken; None means plain steady state."""
    protocol = PROTOCOLS.get(task)
    return None if protocol is None else protocol.sampled(batch)
