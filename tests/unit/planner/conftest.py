"""A predictor of a few lines of arithmetic: every figure can be checked by hand, and no coefficient can change it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from energylens.api.llmdeployment import LLMDeployment
from energylens.planner.types import ClusterSnapshot, GpuAllocation, GpuNode, Taint
from energylens.predictor.load.scenario import Role
from energylens.predictor.model.architecture import Attention, DenseFfn, LayerGroup, ModelSpec, MoeFfn
from energylens.predictor.model.parameters import weight_bytes
from energylens.predictor.prediction import Interval, Memory, Prediction
from energylens.predictor.types import FloatArray, GpuSpec, Layouts, Workload

H100, H200, L40S = "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200", "NVIDIA-L40S"


class ArithmeticPredictor:
    """Decode is bound by reading the weights, prefill takes a fixed time per token, power grows with utilisation."""

    version = "arithmetic-1"
    sees_nodes = True

    def __init__(self, spread: float = 0.1) -> None:
        self.spread = spread

    def memory(self, model: ModelSpec, gpu: GpuSpec, layouts: Layouts, workload: Workload) -> Memory:
        size = len(layouts)
        shards = layouts.tensor_parallel * layouts.pipeline_parallel
        shards = np.where(layouts.expert_parallel > 1, shards * layouts.data_parallel, shards)
        weights = weight_bytes(model) / shards
        per_token = np.full(size, 1e5)
        room = gpu.memory_bytes * 0.9 - weights
        capacity = np.maximum(0.0, room * shards / per_token)
        length = workload.input_tokens + workload.output_tokens
        return Memory(
            weight_bytes=weights,
            reserved_bytes=np.full(size, gpu.memory_bytes * 0.1),
            kv_bytes_per_token=per_token,
            state_bytes_per_sequence=np.zeros(size),
            kv_capacity_tokens=capacity,
            max_concurrency=layouts.data_parallel * capacity / length,
            fits=capacity >= length,
        )

    def at_concurrency(
        self, model: ModelSpec, gpu: GpuSpec, layouts: Layouts, workload: Workload, concurrency: FloatArray
    ) -> Prediction:
        return self._predict(model, gpu, layouts, workload, concurrency, np.full(len(layouts), np.nan))

    def at_rate(
        self,
        model: ModelSpec,
        gpu: GpuSpec,
        layouts: Layouts,
        workload: Workload,
        requests_per_second: FloatArray,
        role: Role = "aggregated",
    ) -> Prediction:
        step = self._step_seconds(model, gpu, layouts, np.ones(len(layouts)))
        # Little's law with a step time that grows with the batch: n = rate x tokens x (a + b x n).
        slope = self._step_seconds(model, gpu, layouts, np.full(len(layouts), 2.0)) - step
        load = requests_per_second * workload.output_tokens
        with np.errstate(divide="ignore"):
            concurrency = np.where(load * slope < 1, load * (step - slope) / (1 - load * slope), np.inf)
        if role == "prefill":
            # One prompt at a time, each as long as its tokens take.
            seconds = 2.0 * workload.input_tokens * 2e-5 / layouts.gpus
            busy = requests_per_second * seconds
            concurrency = np.where(busy < 1, busy / np.maximum(1 - busy, 1e-9), np.inf)
        return self._predict(model, gpu, layouts, workload, concurrency, requests_per_second, role)

    def _step_seconds(self, model: ModelSpec, gpu: GpuSpec, layouts: Layouts, batch: FloatArray) -> FloatArray:
        gpus = layouts.gpus
        inside = layouts.gpus <= gpu.max_gpus_per_node
        read = weight_bytes(model) / (layouts.tensor_parallel * layouts.data_parallel) / gpu.memory_bandwidth
        hop = np.where(inside, 0.0005, 0.003) * np.log2(gpus)
        return read * 1.2 + hop + 0.002 + batch * 2e-5 * np.sqrt(gpus)

    def _predict(
        self,
        model: ModelSpec,
        gpu: GpuSpec,
        layouts: Layouts,
        workload: Workload,
        concurrency: FloatArray,
        rate: FloatArray,
        role: Role = "aggregated",
    ) -> Prediction:
        memory = self.memory(model, gpu, layouts, workload)
        heads = model.layers[0].mixer.heads
        supported = (heads % layouts.tensor_parallel == 0) & (layouts.pipeline_parallel <= model.layer_count)
        reason = np.where(supported, "", f"{heads} attention heads are not divisible by tensor parallel")
        most = np.minimum(layouts.max_batch_size * layouts.data_parallel, memory.max_concurrency)
        sustainable = (concurrency <= most) & supported & memory.fits
        running = np.minimum(concurrency, most)
        with np.errstate(divide="ignore", invalid="ignore"):
            utilization = np.clip(np.where(most > 0, concurrency / most, 1.0), 0.0, 1.0)
            itl = 1000 * self._step_seconds(model, gpu, layouts, running)
            # The decode role only fetches the prompt's KV cache.
            prefill = 3.0 if role == "decode" else workload.input_tokens * 0.02 / layouts.gpus
            queue = np.where(np.isnan(rate), 0.0, utilization / np.maximum(1e-3, 1 - utilization))
            ttft = prefill + itl * (1 + queue)
            tokens = np.where(np.isnan(rate), 1000 * running / itl, rate * workload.output_tokens)
            busy = np.minimum(1.0, running)
            per_gpu = gpu.loaded_idle_watts + busy * 0.5 * (gpu.power_limit_watts - gpu.loaded_idle_watts) * (
                0.5 + 0.5 * running / (running + 16)
            )
            cap = np.where(np.isnan(layouts.power_cap_watts), gpu.power_limit_watts, layouts.power_cap_watts)
            power = np.minimum(per_gpu, cap) * layouts.gpus
            joules = power / tokens

        def known(values: FloatArray) -> FloatArray:
            return np.where(supported & memory.fits, values, np.nan)

        def around(values: FloatArray) -> Interval:
            return Interval(known(values * (1 - self.spread)), known(values * (1 + self.spread)))

        return Prediction(
            supported=supported,
            reason=reason,
            sustainable=sustainable,
            concurrency=known(running),
            max_concurrency=known(most),
            utilization=known(utilization),
            mean_step_ms=known(itl),
            tpot_ms=known(itl * 1.2),
            tpot_p95_ms=known(itl * 1.25),
            tpot_p99_ms=known(itl * 1.28),
            decoding_p50_ms=known(itl * 1.2 * (workload.output_tokens - 1)),
            decoding_p95_ms=known(itl * 1.25 * (workload.output_tokens - 1)),
            decoding_p99_ms=known(itl * 1.28 * (workload.output_tokens - 1)),
            itl_decode_ms=known(itl),
            itl_p50_ms=known(itl),
            itl_p90_ms=known(itl * 1.05),
            itl_p95_ms=known(itl * 1.1),
            itl_p99_ms=known(itl * 1.3),
            ttft_p50_ms=known(ttft),
            ttft_p95_ms=known(ttft * 2),
            ttft_p99_ms=known(ttft * 3),
            output_tokens_per_second=known(tokens),
            power_watts=known(power),
            idle_power_watts=known(gpu.loaded_idle_watts * layouts.gpus.astype(float)),
            joules_per_output_token=known(joules),
            itl=around(itl),
            tpot=around(itl * 1.2),
            ttft=around(ttft),
            # Certain, so that no plan keeps capacity free that a test did not ask for.
            throughput=Interval(known(tokens), known(tokens)),
            power=around(power),
            energy=around(joules),
            unshared_deviation=known(0.0 * joules),
            layout_deviation=known(0.0 * joules),
            nearest=np.where(layouts.gpus > 4, 3, 1),
            memory=memory,
        )


def gpu(product: str, memory_gb: float, bandwidth: float, limit: float, idle: float) -> GpuSpec:
    return GpuSpec(
        product=product,
        name=product.removeprefix("NVIDIA-").partition("-")[0],
        architecture="hopper",
        memory_bytes=memory_gb * 1e9,
        memory_bandwidth=bandwidth,
        flops_bf16=1e15,
        flops_fp8=2e15,
        flops_fp4=0.0,
        nvlink_bandwidth=4.5e11,
        pcie_bandwidth=6.4e10,
        sm_count=132,
        boost_clock_mhz=1980,
        power_limit_watts=limit,
        power_limit_min_watts=200 if limit > 350 else 100,
        power_limit_max_watts=limit,
        idle_watts=idle * 0.6,
        loaded_idle_watts=idle,
    )


def dense(name: str, layers: int, hidden: int, heads: int, kv_heads: int, intermediate: int) -> ModelSpec:
    group = LayerGroup(layers, Attention(heads, kv_heads, hidden // heads), DenseFfn(intermediate))
    return ModelSpec(name=name, family="llama", hidden=hidden, vocab=128256, layers=(group,))


@pytest.fixture(scope="session")
def predictor() -> ArithmeticPredictor:
    return ArithmeticPredictor()


@pytest.fixture(scope="session")
def gpus() -> dict[str, GpuSpec]:
    known = (
        gpu(H100, 80, 3.35e12, 700, 120),
        gpu(H200, 141, 4.8e12, 700, 125),
        gpu(L40S, 48, 0.86e12, 350, 86),
    )
    return {spec.product: spec for spec in known}


@pytest.fixture(scope="session")
def models() -> dict[str, ModelSpec]:
    moe = LayerGroup(48, Attention(32, 4, 128), MoeFfn(128, 8, 768))
    return {
        "8b": dense("meta-llama/Llama-3.1-8B-Instruct", 32, 4096, 32, 8, 14336),
        "70b": dense("meta-llama/Llama-3.1-70B-Instruct", 80, 8192, 64, 8, 28672),
        "405b": dense("meta-llama/Llama-3.1-405B-Instruct", 126, 16384, 128, 8, 53248),
        "moe": ModelSpec(name="Qwen/Qwen3-30B-A3B", family="qwen3_moe", hidden=2048, vocab=151936, layers=(moe,)),
    }


@pytest.fixture(scope="session")
def make_snapshot() -> Callable[..., ClusterSnapshot]:
    """Build a cluster from (product, GPUs per node, nodes); ``used`` GPUs on every node belong to somebody else."""

    def build(*pools: tuple[str, int, int], used: int = 0, owner: str = "") -> ClusterSnapshot:
        nodes = [
            GpuNode(
                name=f"{product.lower()}-{size}-{number}",
                product=product,
                allocatable=size,
                allocations=(GpuAllocation(owner, used),) if used else (),
                labels={"nvidia.com/gpu.product": product, "pool": product},
                taints=(Taint("nvidia.com/gpu", "present"),),
            )
            for product, size, count in pools
            for number in range(count)
        ]
        return ClusterSnapshot(tuple(sorted(nodes, key=lambda node: node.name)))

    return build


@pytest.fixture(scope="session")
def make_deployment() -> Callable[..., LLMDeployment]:
    """Build an LLMDeployment named ``chat``; keyword arguments replace the parts of the spec, as on the wire."""

    def build(model: str = "meta-llama/Llama-3.1-70B-Instruct", **parts: Any) -> LLMDeployment:
        workload = {"inputTokens": 300, "outputTokens": 400, "requestsPerSecond": "2"}
        model_part = {"name": model} | parts.pop("model_part", {})
        spec = {"model": model_part, "workload": workload} | parts
        return LLMDeployment.model_validate({"metadata": {"name": "chat", "namespace": "team-a"}, "spec": spec})

    return build
