"""The serving metrics of vLLM and SGLang, by current and previous names.

Sources: vllm/v1/metrics/loggers.py (0.11 to 0.33) and srt/observability/metrics_collector.py of SGLang 0.5. Counters
are scraped with ``_total``; vLLM's iteration_tokens_total is a histogram in spite of its name and is not read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from energylens.measure.exposition import MalformedExpositionError, MetricSample, parse
from energylens.measure.types import EngineObservation, Histogram, PodRef
from energylens.records import dataclass


@dataclass(frozen=True)
class EngineNames:
    """Metric names of one engine; if there are several, the first one present wins."""

    engine: Literal["vllm", "sglang"]
    generation_tokens: tuple[str, ...]
    prompt_tokens: tuple[str, ...]
    cached_prompt_tokens: tuple[str, ...]
    requests: tuple[str, ...]
    running: tuple[str, ...]
    waiting: tuple[str, ...]
    kv_cache_usage: tuple[str, ...]
    ttft: tuple[str, ...]
    itl: tuple[str, ...]
    tpot: tuple[str, ...]
    """Time per output token of a request: one observation per request, the mean over its tokens after the first."""
    end_to_end: tuple[str, ...]
    """Time of a request from its arrival to its last token."""
    prompt_length: tuple[str, ...] = ()
    """Tokens of a request's prompt, cached ones included; one observation per request that ended."""
    output_length: tuple[str, ...] = ()
    """Tokens generated for a request; the same."""
    draft_rounds: tuple[str, ...] = ()
    """Steps of a sequence that verified draft tokens; a counter, like the two below."""
    drafted_tokens: tuple[str, ...] = ()
    accepted_tokens: tuple[str, ...] = ()
    accept_length: tuple[str, ...] = ()
    """Tokens per such step: the accepted drafts and the token that follows them; a gauge, like the one below."""
    accept_rate: tuple[str, ...] = ()
    """Accepted over drafted tokens."""

    def lines(self) -> frozenset[str]:
        """Every name with which a relevant line may start."""
        scalars = self.generation_tokens + self.prompt_tokens + self.cached_prompt_tokens + self.requests
        scalars += self.draft_rounds + self.drafted_tokens + self.accepted_tokens
        gauges = self.running + self.waiting + self.kv_cache_usage + self.accept_length + self.accept_rate
        histograms = self.ttft + self.itl + self.tpot + self.end_to_end + self.prompt_length
        histograms += self.output_length
        return frozenset(scalars + gauges + tuple(f"{name}_bucket" for name in histograms))


VLLM = EngineNames(
    engine="vllm",
    generation_tokens=("vllm:generation_tokens_total",),
    prompt_tokens=("vllm:prompt_tokens_total",),
    # prefix_cache_hits in releases without the former; gpu_prefix_cache_hits, still older, counted blocks at first.
    cached_prompt_tokens=("vllm:prompt_tokens_cached_total", "vllm:prefix_cache_hits_total"),
    requests=("vllm:request_success_total",),
    running=("vllm:num_requests_running",),
    waiting=("vllm:num_requests_waiting",),
    kv_cache_usage=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    ttft=("vllm:time_to_first_token_seconds",),
    # In spite of its name the latter observes every token: it is what inter_token_latency replaced.
    itl=("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    tpot=("vllm:request_time_per_output_token_seconds",),
    end_to_end=("vllm:e2e_request_latency_seconds",),
    prompt_length=("vllm:request_prompt_tokens",),
    output_length=("vllm:request_generation_tokens",),
    draft_rounds=("vllm:spec_decode_num_drafts_total",),
    drafted_tokens=("vllm:spec_decode_num_draft_tokens_total",),
    accepted_tokens=("vllm:spec_decode_num_accepted_tokens_total",),
)
SGLANG = EngineNames(
    engine="sglang",
    generation_tokens=("sglang:generation_tokens_total",),
    prompt_tokens=("sglang:prompt_tokens_total",),
    cached_prompt_tokens=("sglang:cached_tokens_total",),
    requests=("sglang:num_requests_total",),
    running=("sglang:num_running_reqs",),
    waiting=("sglang:num_queue_reqs",),
    kv_cache_usage=("sglang:token_usage",),
    ttft=("sglang:time_to_first_token_seconds",),
    itl=("sglang:inter_token_latency_seconds", "sglang:time_per_output_token_seconds"),
    tpot=("sglang:request_time_per_output_token_seconds",),
    end_to_end=("sglang:e2e_request_latency_seconds",),
    # Releases that have --collect-tokens-histogram serve these only with that argument.
    prompt_length=("sglang:prompt_tokens_histogram",),
    output_length=("sglang:generation_tokens_histogram",),
    accept_length=("sglang:spec_accept_length",),
    accept_rate=("sglang:spec_accept_rate",),
)
ENGINES = (VLLM, SGLANG)
ENGINE_METRICS = frozenset().union(*(names.lines() for names in ENGINES))
"""Every name that a metric of an engine may have here."""

# Ranks that run the same batch report the same gauge (SGLang's --enable-metrics-for-all-schedulers); only data-parallel
# ranks, vLLM's "engine" and SGLang's "dp_rank", hold different sequences.
_REPLICA_LABELS = ("model_name", "engine", "dp_rank")


def parse_engine(text: str, *, pod: PodRef, time: float) -> EngineObservation | None:
    """Return the observation in an engine's exposition, or None if it has no metric of a known engine.

    Counters and histograms are added over all label sets (data-parallel ranks, streaming or not). ``time`` is when the
    text was read, in seconds since the Unix epoch.

    Raises:
        MalformedExpositionError: a line of interest cannot be parsed.
    """
    return observe_engine(parse(text, ENGINE_METRICS), pod=pod, time=time)


def observe_engine(samples: Iterable[MetricSample], *, pod: PodRef, time: float) -> EngineObservation | None:
    """Return the observation in an engine's samples at one moment, from any source; see :func:`parse_engine`.

    Raises:
        MalformedExpositionError: a bucket of a histogram has no bound.
    """
    by_name: dict[str, list[MetricSample]] = defaultdict(list)
    for sample in samples:
        by_name[sample.name].append(sample)
    for names in ENGINES:
        if names.lines() & by_name.keys():
            return _observation(names, by_name, pod, time)
    return None


def _observation(
    names: EngineNames, by_name: Mapping[str, list[MetricSample]], pod: PodRef, time: float
) -> EngineObservation:
    def read(candidates: tuple[str, ...], combine: Callable[[Iterable[MetricSample]], float]) -> float | None:
        return next((combine(by_name[name]) for name in candidates if name in by_name), None)

    return EngineObservation(
        pod=pod,
        time=time,
        engine=names.engine,
        generation_tokens=read(names.generation_tokens, _sum),
        prompt_tokens=read(names.prompt_tokens, _sum),
        cached_prompt_tokens=read(names.cached_prompt_tokens, _sum),
        requests=read(names.requests, _sum),
        running=read(names.running, _sum_of_replicas),
        waiting=read(names.waiting, _sum_of_replicas),
        kv_cache_usage=read(names.kv_cache_usage, _max),
        ttft=_histogram(names.ttft, by_name),
        itl=_histogram(names.itl, by_name),
        tpot=_histogram(names.tpot, by_name),
        end_to_end=_histogram(names.end_to_end, by_name),
        prompt_length=_histogram(names.prompt_length, by_name),
        output_length=_histogram(names.output_length, by_name),
        draft_rounds=read(names.draft_rounds, _sum),
        drafted_tokens=read(names.drafted_tokens, _sum),
        accepted_tokens=read(names.accepted_tokens, _sum),
        accept_length=read(names.accept_length, _mean),
        accept_rate=read(names.accept_rate, _mean),
    )


def _sum(samples: Iterable[MetricSample]) -> float:
    return sum(sample.value for sample in samples)


def _mean(samples: Iterable[MetricSample]) -> float:
    values = [sample.value for sample in samples]
    return sum(values) / len(values)


def _max(samples: Iterable[MetricSample]) -> float:
    return max(sample.value for sample in samples)


def _sum_of_replicas(samples: Iterable[MetricSample]) -> float:
    replicas: dict[tuple[str, ...], float] = {}
    for sample in samples:
        key = tuple(sample.labels.get(label, "") for label in _REPLICA_LABELS)
        replicas[key] = max(replicas.get(key, 0.0), sample.value)
    return sum(replicas.values())


def _histogram(names: tuple[str, ...], by_name: Mapping[str, list[MetricSample]]) -> Histogram | None:
    for name in names:
        counts: dict[float, float] = defaultdict(float)
        for sample in by_name.get(f"{name}_bucket", ()):
            counts[_bound(sample)] += sample.value
        if counts:
            bounds = tuple(sorted(counts))
            return Histogram(bounds, tuple(counts[bound] for bound in bounds))
    return None


def _bound(sample: MetricSample) -> float:
    try:
        return float(sample.labels["le"])
    except (KeyError, ValueError) as error:
        raise MalformedExpositionError(f"{sample.name} needs a number in its label le, has {sample.labels}") from error
