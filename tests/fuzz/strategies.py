"""Draws what users may write: specs that the CRD takes.

Values lean to the ends of their ranges and to what is usual, since defects sit at the first and users at the second.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from energylens.api.parse import InvalidResourceError, parse_llmdeployment
from energylens.data import known_models, load_gpus
from energylens.data.catalogue import load_model

Object = dict[str, Any]
Draw = st.DrawFn

NAMESPACE = "team"
# Small ones first: examples shrink towards them, and most GPUs serve them.
MODELS = ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-0.6B", "openai/gpt-oss-20b", "Qwen/Qwen3-30B-A3B")
PRODUCTS = tuple(sorted(load_gpus()))
USUAL_PRODUCTS = ("NVIDIA-H100-80GB-HBM3", "NVIDIA-L4", "NVIDIA-A100-SXM4-80GB", "NVIDIA-H200", "NVIDIA-B200")
RATES = ("2", "60", "0.5", "500m", "20", "200", "1", "5000", "1u", "1n", "1e-30", "1e30", "9E", "99999999", "0.001")
EXTRA_ARGS = (
    "--max-num-batched-tokens=256",
    "--max-num-batched-tokens=16384",
    "--max-model-len=4096",
    "--max-model-len=auto",
    "--gpu-memory-utilization=0.5",
    "--gpu-memory-utilization=0.01",
    "--kv-cache-dtype=fp8",
    "--enforce-eager",
    "--cpu-offload-gb=10",
    "--enable-lora",
    "--mem-fraction-static=0.5",
    "--disable-cuda-graph",
    "--context-length=2048",
    "--chunked-prefill-size=512",
    "--speculative-config={}",
    '--speculative-config={"method": "ngram", "num_speculative_tokens": 3}',
    "--speculative-config.method=draft_model",
    "--speculative-algorithm=EAGLE3",
    "--no-enable-prefix-caching",
    "--tensor-parallel-size=2",
    "--trust-remote-code",
    "--max-model-len",
    "-O3",
    "--no-such-flag=x=y",
)


def _families() -> list[str]:
    """Return the ids of the catalogue so that each family comes as often as any other: one id after the other."""
    groups: dict[str, list[str]] = {}
    for name in known_models():
        groups.setdefault(load_model(name).family, []).append(name)
    return [name for members in groups.values() for name in (members * 4)[:4]]


class Values:
    """How values are drawn for one object: calm ones are what users write, the others go to every end."""

    def __init__(self, draw: Draw, calm: bool) -> None:
        self.draw = draw
        self.calm = calm

    def whole(self, least: int, most: int, *usual: int) -> int:
        every = st.sampled_from([*usual, least, most]) | st.integers(least, most)
        return self.draw(st.sampled_from(usual) if self.calm and usual else every)

    def one_of(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def is_set(self) -> bool:
        """Return whether a field is there: a spec has few of all fields."""
        return self.draw(st.integers(0, 99)) >= (85 if self.calm else 55)

    def rate(self) -> str:
        return self.draw(
            st.sampled_from(RATES[:7]) if self.calm else st.sampled_from(RATES) | st.integers(1, 300).map(str)
        )


def given(**fields: Any) -> Object:
    """Return the fields that are there: no None, and no empty part."""
    return {name: value for name, value in fields.items() if value is not None and value != {}}


@st.composite
def specs(draw: Draw) -> Object:
    """Draw a spec that the CRD takes, but for the rules over several fields."""
    v = Values(draw, draw(st.booleans()))
    load = v.one_of("rate", "rate", "concurrency", "job")
    profile = load == "rate" and v.is_set()
    models = st.sampled_from(MODELS) | st.deferred(lambda: st.sampled_from(_families()))
    most_gpus = v.whole(1, 100_000, 8, 4, 2) if v.is_set() else None
    products = st.lists(st.sampled_from(USUAL_PRODUCTS), min_size=1, max_size=2, unique=True)
    spec = given(
        model=given(
            name=draw(models),
            quantization=v.one_of("None", "FP8", "MXFP4", "NVFP4", "INT8", "INT4") if v.is_set() else None,
        ),
        engine=given(
            type=v.one_of("VLLM", "SGLang"),
            extraArgs=draw(st.lists(st.sampled_from(EXTRA_ARGS), max_size=2)) if v.is_set() else None,
        ),
        workload=given(
            **draw(shapes(v.calm)),
            requestsPerSecond=v.rate() if load == "rate" else None,
            concurrency=v.whole(1, 100_000, 16, 64) if load == "concurrency" else None,
            job=draw(jobs(v.calm)) if load == "job" else None,
            profile=draw(profiles(v.calm)) if profile else None,
            arrivalSCV=v.one_of("1", "4", "100") if load == "rate" and v.is_set() else None,
            speculative=draw(speculations(v.calm)) if v.is_set() else None,
        ),
        slo=given(
            percentile=v.one_of("P50", "P95", "P99"),
            ttftMilliseconds=v.whole(1, 3_600_000, 5000, 2000) if load != "job" and v.is_set() else None,
            itlMilliseconds=v.whole(1, 3_600_000, 100, 50) if v.is_set() else None,
            tpotMilliseconds=v.whole(1, 3_600_000, 100, 50) if v.is_set() else None,
            endToEndMilliseconds=v.whole(1, 3_600_000, 60_000, 20_000) if load != "job" and v.is_set() else None,
            joulesPerOutputToken=v.one_of("2", "9", "0.4", "50m", "1n", "1e-30", "1E") if v.is_set() else None,
        ),
        energy=given(
            objective=v.one_of("MinimizeEnergy", "MinimizePower", "MinimizeGPUs"),
            budget=draw(deployment_budgets(v.calm)) if v.is_set() else None,
            powerCap=draw(power_caps(v.calm)) if v.is_set() else None,
            priority=draw(st.integers(-3, 3)) if v.is_set() else None,
            minReplicas=v.whole(1, 10_000, 2) if v.is_set() else None,
        ),
        hardware=given(
            gpuProducts=draw(products) if v.is_set() else None,
            maxGPUs=most_gpus,
            maxGPUsPerReplica=draw(st.integers(1, most_gpus or 100_000)) if v.is_set() else None,
            interNodeGigabitsPerSecond=v.whole(1, 100_000, 100, 400) if v.is_set() else None,
            nodeSelector=v.one_of({"pool": "a"}, {"pool": "none"}) if v.is_set() else None,
            tolerations=draw(st.lists(tolerations(), min_size=1, max_size=2)) if v.is_set() else None,
        ),
        planning=draw(plannings(v.calm, follows=load == "rate" and not profile)),
    )
    follows = {"followLoad", "disaggregation"} & set(spec.get("planning", {}))
    if v.is_set():
        modes = ("Energy",) if profile else ("Fixed",) if follows or load == "job" else ("External", "Fixed")
        spec |= draw(scalings(v.calm, modes))
    if v.draw(st.integers(0, 9)) == 9:
        spec["suspend"] = True
    return spec


@st.composite
def shapes(draw: Draw, calm: bool) -> Object:
    """Draw the lengths of requests: of all alike, or of classes whose shares make 100."""
    v = Values(draw, calm)
    if not v.is_set():
        return draw(_shape(calm))
    cuts = sorted(draw(st.lists(st.integers(1, 99), max_size=3, unique=True)))
    shares = [high - low for low, high in zip([0, *cuts], [*cuts, 100], strict=True)]
    named = v.one_of(True, False)
    return {
        "classes": [
            {"sharePercent": share, **draw(_shape(calm)), **({"name": f"class-{number}"} if named else {})}
            for number, share in enumerate(shares)
        ]
    }


@st.composite
def _shape(draw: Draw, calm: bool) -> Object:
    v = Values(draw, calm)
    return given(
        inputTokens=v.whole(1, 10_000_000, 300, 1000, 2000),
        outputTokens=v.whole(1, 1_000_000, 400, 200, 100),
        inputTokensSCV=v.one_of("0", "1", "0.3", "100") if v.is_set() else None,
        outputTokensSCV=v.one_of("0", "1", "0.5", "100") if v.is_set() else None,
        prefixCacheHitPercent=v.whole(0, 100, 50, 90) if v.is_set() else None,
    )


@st.composite
def jobs(draw: Draw, calm: bool) -> Object:
    """Draw ``spec.workload.job``."""
    v = Values(draw, calm)
    return given(
        requests=v.whole(1, 10**9, 10_000, 500),
        completeWithinSeconds=v.whole(1, 31_536_000, 3600, 14_400),
        afterCompletion=v.one_of("Idle", "Release", None),
        startSeconds=v.whole(0, 86_400, 120) if v.is_set() else None,
    )


@st.composite
def profiles(draw: Draw, calm: bool) -> Object:
    """Draw ``spec.workload.profile``; each further rate costs as much time as another plan."""
    v = Values(draw, calm)
    hours = []
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(0, 23))
        hours.append(
            given(
                days=v.one_of(None, ["Mon", "Tue", "Wed", "Thu", "Fri"], ["Sun"]),
                fromHour=first,
                toHour=draw(st.integers(first + 1, 24)),
                requestsPerSecond=v.rate(),
            )
        )
    return given(timeZone=v.one_of(None, "Europe/Berlin", "America/New_York"), hours=hours)


@st.composite
def scalings(draw: Draw, calm: bool, modes: tuple[str, ...]) -> Object:
    """Draw ``spec.scaling`` and the ``spec.replicas`` that belong to the mode."""
    v = Values(draw, calm)
    mode = v.one_of(*modes)
    least, most = sorted((v.whole(1, 10_000, 1, 2), v.whole(1, 10_000, 2, 4)))
    scaling = given(
        mode=mode,
        minReplicas=least if v.is_set() else None,
        maxReplicas=most if v.is_set() else None,
        startSeconds=v.whole(0, 86_400, 120) if v.is_set() else None,
        startJoules=v.whole(0, 10**9, 13_500) if v.is_set() else None,
    )
    return {"scaling": scaling} if mode == "Energy" else {"scaling": scaling, "replicas": v.one_of(least, most)}


@st.composite
def speculations(draw: Draw, calm: bool) -> Object:
    """Draw ``spec.workload.speculative`` with every method."""
    v = Values(draw, calm)
    method = v.one_of(None, "NGram", "EAGLE", "MTP", "DraftModel")
    return given(
        method=method,
        draftTokens=v.whole(1, 64, 3, 1),
        acceptancePercent=v.whole(0, 100, 60, 80),
        draftModelMillionParameters=v.whole(1, 1_000_000, 500) if method == "DraftModel" else None,
    )


@st.composite
def plannings(draw: Draw, calm: bool, follows: bool) -> Object:
    """Draw ``spec.planning``; with what follows one rate only where ``follows`` says that there is one."""
    v = Values(draw, calm)
    overrides = {}
    if v.is_set():
        overrides = given(
            tensorParallel=v.whole(1, 1024, 1, 2, 4) if v.is_set() else None,
            pipelineParallel=v.whole(1, 1024, 1, 2) if v.is_set() else None,
            expertParallel=v.whole(1, 1024, 1, 2, 8) if v.is_set() else None,
            dataParallel=v.whole(1, 1024, 1, 2) if v.is_set() else None,
            replicas=v.whole(1, 10_000, 1, 2) if v.is_set() else None,
            maxBatchSize=v.whole(1, 65_536, 64, 256) if v.is_set() else None,
            maxBatchedTokens=v.whole(0, 1_048_576, 2048, 8192) if v.is_set() else None,
        )
    follow_load = "Auto" if follows and v.is_set() else None
    return given(
        mode=v.one_of("Auto", "Auto", "Manual", "Advisory"),
        approvedPlanHash="0123456789abcdef" if v.is_set() else None,
        overrides=overrides,
        safetyMarginPercent=v.whole(0, 300, 50, 100) if v.is_set() else None,
        headroomPercent=v.whole(0, 90, 20, 0) if v.is_set() else None,
        spareReplicas=v.whole(0, 100, 1) if v.is_set() else None,
        disaggregation="Compare" if follows and v.is_set() and v.is_set() else None,
        followLoad=follow_load,
        followLengths="Auto" if follow_load and v.is_set() else None,
    )


@st.composite
def deployment_budgets(draw: Draw, calm: bool) -> Object:
    """Draw ``spec.energy.budget``."""
    v = Values(draw, calm)
    return given(
        powerWatts=v.whole(1, 10**9, 1000, 5000),
        energyWattHours=v.whole(1, 10**12, 10**6) if v.is_set() else None,
        period=v.one_of("Hour", "Day", "Week", "Month"),
        action=v.one_of("Enforce", "Warn"),
    )


@st.composite
def power_caps(draw: Draw, calm: bool) -> Object:
    """Draw ``spec.energy.powerCap``."""
    v = Values(draw, calm)
    mode = v.one_of("Plan", "Never", "Fixed")
    return given(mode=mode, wattsPerGPU=v.whole(1, 10_000, 400, 300) if mode == "Fixed" else None)


@st.composite
def tolerations(draw: Draw) -> Object:
    """Draw a toleration."""
    if draw(st.booleans()):
        return given(operator="Exists", key=draw(st.none() | st.just("team")))
    return {
        "key": "team",
        "value": draw(st.sampled_from(["a", ""])),
        "effect": draw(st.sampled_from(["NoSchedule", "NoExecute"])),
    }


@st.composite
def deployments(draw: Draw, name: str = "a") -> Object:
    """Draw an LLMDeployment that the CRD takes, with all rules over several fields."""
    found: Object = {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": draw(specs()),
    }
    _drop_contradictions(found["spec"])
    return found


def _drop_contradictions(spec: Object) -> None:
    """Take out what the rules over several fields refuse: a draw that is thrown away is a draw lost."""
    document = {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "a"},
        "spec": spec,
    }
    for path in (
        ("planning", "overrides"),
        ("planning", "spareReplicas"),
        ("hardware", "maxGPUsPerReplica"),
        ("hardware", "maxGPUs"),
        ("hardware",),
        ("scaling",),
        ("replicas",),
    ):
        try:
            parse_llmdeployment(document, strict=True)
        except InvalidResourceError:
            holder = spec
            for name in path[:-1]:
                holder = holder.get(name, {})
            holder.pop(path[-1], None)
        else:
            return
    parse_llmdeployment(document, strict=True)


CHOICES = st.sampled_from(
    [
        "tp=2", "tp=1", "pp=2", "ep=2", "dp=2", "replicas=1", "replicas=9999", "batch=1", "batch=65536",
        "gpu=H100", "gpu=L4", "cap=300", "cap=none", "cap=1", "tp=4,pp=2,gpu=H200", "tp=1,replicas=2,batch=32",
        "tokens=1024", "tokens=0", "tokens=1048576", "tp=1,tokens=16384",
    ]
)  # fmt: skip
