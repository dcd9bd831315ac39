"""An audit as text and as objects for programs. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.llmdeployment.plan import describe_layout, describe_plan
from energylens.api.words import counted
from energylens.audit.arguments import RunningLayout
from energylens.audit.assessment import Assessment, Power
from energylens.audit.hosts import HostPower
from energylens.audit.telemetry import prompt_and_output
from energylens.cli.inputs.rates import HOURS_PER_MONTH, Rates
from energylens.cli.text.hosts import host_objects, hosts_under, measured_host_lines
from energylens.cli.text.money import grid_object, host_lines, month_text
from energylens.cli.text.tables import columns
from energylens.measure.types import PodRef
from energylens.planner.engines.versions import NAMES
from energylens.planner.search import describe

_UNKNOWN = "-"
_LATENCIES = {"ttft_milliseconds": "TTFT", "itl_milliseconds": "ITL", "tpot_milliseconds": "TPOT"}
VERDICTS = {
    "Saves": "saves",
    "WithinError": "may save",
    "Keep": "keep",
    "Managed": "planned",
    "Idle": "idle",
    "NoLoad": "load not known",
    "NotPlanned": "not planned",
    "Unread": "not read",
}


def running_text(found: Assessment) -> str:
    """Return how a model runs now: ``2 x NVIDIA-H100-80GB-HBM3 TP4, max batch 256``."""
    served = found.served
    if not served.gpus:
        return _UNKNOWN
    product = served.product or "GPUs of no known product"
    if served.arguments is None:
        return f"{counted(served.gpus, 'GPU')} of {product}"
    layout: RunningLayout = served.arguments.layout
    cut = describe_layout(
        tensor=layout.tensor_parallel,
        pipeline=layout.pipeline_parallel,
        expert=layout.expert_parallel,
        data=layout.data_parallel,
    )
    batch = f", max batch {layout.max_batch_size}" if layout.max_batch_size is not None else ""
    return f"{served.replicas} x {product} {cut}{batch}"


def engine_text(found: Assessment) -> str:
    """Return the engine and, if the image's tag has one, its version."""
    served = found.served
    if served.invocation is None:
        return _UNKNOWN
    name = NAMES.get(served.invocation.engine, served.invocation.engine)
    return f"{name} {served.version}" if served.version else name


def load_text(found: Assessment) -> str:
    """Return the load of the window: ``2.1 req/s of 800 + 300 tokens``."""
    load = found.load
    if load.requests_per_second is None or not load.requests:
        return "idle" if found.verdict == "Idle" else _UNKNOWN
    shape = prompt_and_output(load)
    tokens = "" if shape is None else f" of {shape[0]} + {shape[1]} tokens"
    return f"{load.requests_per_second:.3g} req/s{tokens}"


def saving_text(found: Assessment) -> str:
    """Return what the plan saves: ``38 % (22 to 50)``; another verdict in words if the plan saves nothing."""
    saved = found.saved_percent
    if found.verdict in ("Saves", "WithinError") and saved is not None:
        best, low, high = saved
        return f"{best:.0f} % ({low:.0f} to {high:.0f})"
    return VERDICTS[found.verdict]


def watts_text(power: Power | None) -> str:
    """Return a mean power; a predicted one carries a tilde."""
    if power is None:
        return _UNKNOWN
    return f"{'' if power.is_measured else '~'}{power.watts:,.0f}"


def joules_now(found: Assessment) -> float | None:
    """Return the present energy per output token, J; None if unknown."""
    tokens = found.load.output_tokens_per_second
    return None if found.now is None or not tokens else found.now.watts / tokens


def report(
    found: Sequence[Assessment],
    rates: Rates,
    source: str,
    failures: Sequence[str],
    hosts: Sequence[HostPower] = (),
) -> str:
    """Return the whole audit as text."""
    if not found:
        return "no pod with GPUs is running here"
    lines = [*columns(table_rows(found, rates)), ""]
    for each in found:
        lines += [*_details(each), ""]
    lines += list(summary(found, rates))
    lines += measured_host_lines(hosts_under(hosts, pods_of(found)), rates)
    lines += host_lines(rates, sum(each.served.gpus for each in found))
    lines += [f"  {rates.text}; months of {HOURS_PER_MONTH:.0f} hours at the mean power of the window"]
    if source:
        lines.append(f"  measured from {source}; figures with ~ are predicted")
    else:
        lines.append("  no metrics were read: give --prometheus, or files of its answers with --metrics")
    lines += [f"  not read: {text}" for text in failures]
    return "\n".join(lines)


def pods_of(found: Sequence[Assessment]) -> frozenset[PodRef]:
    """Return all pods of the served models."""
    return frozenset(pod for each in found for pod in each.served.pods)


def table_rows(found: Sequence[Assessment], rates: Rates) -> list[tuple[str, ...]]:
    """Return the header and a row for each model."""
    header = ["WHAT", "ENGINE", "GPUS", "RUNS", "LOAD", "W", "J/TOKEN", "KWH/MONTH"]
    header += ["MONEY/MONTH"] if rates.price is not None else []
    rows = [(*header, "BETTER", "SAVES")]
    for each in found:
        month = rates.month(each.now.watts) if each.now is not None else {}
        joules = joules_now(each)
        rows.append(
            (
                f"{each.served.owner.namespace}/{each.served.owner.name}",
                engine_text(each),
                str(each.served.gpus),
                running_text(each),
                load_text(each),
                watts_text(each.now),
                _UNKNOWN if joules is None else f"{joules:.3g}",
                f"{month['kilowattHours']:,.0f}" if month else _UNKNOWN,
                *([f"{month['money']:,.0f}" if month else _UNKNOWN] if rates.price is not None else []),
                describe_plan(each.plan) if each.plan is not None and each.verdict != "Keep" else _UNKNOWN,
                saving_text(each),
            )
        )
    return rows


def _details(found: Assessment) -> Iterator[str]:
    served, plan = found.served, found.plan
    yield f"{served.owner}: {served.model or 'model not known'}"
    yield f"  {VERDICTS[found.verdict]}: {found.reason}"
    if found.objectives:
        held = ", ".join(f"{_LATENCIES[name]} {value} ms" for name, value in found.objectives.items())
        yield f"  latencies to hold, P95: {held}{_buckets(found)}"
    rate, mean = found.planned_requests_per_second, found.load.requests_per_second
    if rate is not None and mean is not None and rate > mean:
        yield f"  planned for the busiest part of the window, {rate:.3g} req/s; the mean is {mean:.3g}"
    if plan is not None and found.then is not None and found.verdict in ("Saves", "WithinError"):
        then = found.then
        yield (
            f"  plan: {describe_plan(plan)} ({counted(plan.gpus, 'GPU')}), {then.watts:,.0f} W "
            f"({then.low:,.0f} to {then.high:,.0f}), confidence {plan.confidence}: {plan.confidence_reason}"
        )
        if found.switch is not None and found.repay_hours is not None:
            yield (
                f"  the switch takes about {found.switch.seconds / 60:.0f} min and "
                f"{describe.watt_hours(found.switch.joules)}, saved again after {_hours(found.repay_hours)}"
            )
    for note in found.notes or found.served.notes:
        yield f"  note: {note}"
    if served.arguments is not None and served.arguments.left_out and found.deployment is not None:
        yield f"  set by the operator instead: {' '.join(served.arguments.left_out)}"


def _buckets(found: Assessment) -> str:
    """Return the bounds of the measured latencies: the buckets of the engine's histograms."""
    latency = found.load.latency
    texts = []
    for name in ("ttft", "itl", "tpot"):
        bucket = getattr(latency, f"{name}_bucket_ms", None)
        if bucket is not None:
            upper = f"to {bucket[1]:.4g}" if math.isfinite(bucket[1]) else "or more"
            texts.append(f"{name.upper()} {bucket[0]:.4g} {upper} ms")
    return f" (measured within buckets: {', '.join(texts)})" if texts else ""


def _hours(hours: float) -> str:
    if hours < 1 / 60:
        return "less than 1 min"
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


def summary(found: Sequence[Assessment], rates: Rates) -> Iterator[str]:
    """Yield lines for the total power, the savings, the pods that could not be read, and the idle models."""
    read = [each for each in found if each.verdict != "Unread"]
    models, gpus = counted(len(read), "served model"), counted(sum(each.served.gpus for each in read), "GPU")
    unknown = sum(each.now is None and each.served.gpus > 0 for each in read)
    watts = _total(read)
    rest = f"; of {unknown} the power is not known" if unknown else ""
    held = f"{models} on {gpus}"
    if read and all(each.now is None for each in read):
        yield f"{held}: no power is known"
    else:
        yield f"{held}: {watts:,.0f} W, {month_text(rates, watts)}{rest}"
    saving = [each for each in found if each.verdict == "Saves"]
    if saving:
        saved = sum(each.saved_watts or 0.0 for each in saving)
        least = sum(each.least_saved_watts or 0.0 for each in saving)
        freed = sum(each.served.gpus - each.plan.gpus for each in saving if each.plan is not None)
        yield (
            f"  {counted(len(saving), 'model')} would serve the same load with {saved:,.0f} W less, {least:,.0f} W at "
            f"the upper ends of the intervals: {month_text(rates, saved)}"
            + (f", and {counted(freed, 'GPU')} would be free" if freed > 0 else "")
        )
    others = [each for each in found if each.verdict == "Unread" and each.served.gpus]
    if others:
        yield f"  {counted(sum(each.served.gpus for each in others), 'GPU')} in pods that could not be read"
    idle = [each for each in found if each.verdict == "Idle"]
    if idle:
        drawn, held = _total(idle), counted(sum(each.served.gpus for each in idle), "GPU")
        yield f"  idle: {counted(len(idle), 'model')} on {held}, {drawn:,.0f} W, {month_text(rates, drawn)}"


def _total(found: Sequence[Assessment]) -> float:
    return sum(each.now.watts for each in found if each.now is not None)


def as_object(found: Assessment, rates: Rates, hosts: Sequence[HostPower] = ()) -> dict[str, Any]:
    """Return an audit of one model for programs, with the hosts of its pods; unknown figures are absent."""
    served = found.served
    result: dict[str, Any] = {
        "namespace": served.owner.namespace,
        "name": served.owner.name,
        "kind": served.owner.kind,
        "verdict": found.verdict,
        "reason": found.reason,
        "image": served.image,
        "gpus": served.gpus,
        "gpuProduct": served.product,
        "replicas": served.replicas,
        "pods": [pod.pod for pod in served.pods],
        "notes": list(found.notes or served.notes),
    }
    result |= _engine_object(found) | _load_object(found)
    if found.now is not None:
        result["now"] = {
            "watts": found.now.watts,
            "measured": found.now.is_measured,
            "joulesPerOutputToken": joules_now(found),
            "perMonth": rates.month(found.now.watts),
        } | grid_object(rates)
    if found.objectives:
        result["objectives"] = {"percentile": "P95"} | {
            f"{name.partition('_')[0]}Milliseconds": value for name, value in found.objectives.items()
        }
    result |= _plan_object(found, rates) | host_objects(hosts_under(hosts, served.pods))
    return {key: _without_none(value) for key, value in result.items() if value is not None}


def _engine_object(found: Assessment) -> dict[str, Any]:
    served = found.served
    if served.invocation is None or served.arguments is None:
        return {}
    layout = served.arguments.layout
    return {
        "engine": served.invocation.engine,
        "engineVersion": served.version,
        "model": served.model or None,
        "layout": {
            "tensorParallel": layout.tensor_parallel,
            "pipelineParallel": layout.pipeline_parallel,
            "expertParallel": layout.expert_parallel,
            "dataParallel": layout.data_parallel,
            "maxBatchSize": layout.max_batch_size,
        },
    }


def _load_object(found: Assessment) -> dict[str, Any]:
    load = found.load
    if load.output_tokens_per_second is None:
        return {}
    shape = prompt_and_output(load) or (None, None)
    return {
        "load": {
            "requestsPerSecond": load.requests_per_second,
            "plannedRequestsPerSecond": found.planned_requests_per_second,
            "inputTokens": shape[0],
            "outputTokens": shape[1],
            "outputTokensPerSecond": load.output_tokens_per_second,
            "prefixCacheHitShare": load.prefix_cache_hits,
            "meanRunning": load.mean_running,
        }
    }


def _plan_object(found: Assessment, rates: Rates) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if found.plan is not None and found.then is not None:
        result["plan"] = found.plan.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude={"alternatives", "hash"}
        )
        result["then"] = {
            "watts": found.then.watts,
            "wattsLow": found.then.low,
            "wattsHigh": found.then.high,
            "perMonth": rates.month(found.then.watts),
        }
        saved = found.saved_percent
        if saved is not None:
            result["savedPercent"] = dict(zip(("expected", "low", "high"), saved, strict=True))
    if found.switch is not None:
        result["switch"] = {
            "joules": found.switch.joules,
            "seconds": found.switch.seconds,
            "repayHours": found.repay_hours,
        }
    return result


def manifest(deployment: LLMDeployment) -> dict[str, Any]:
    """Return an LLMDeployment as a user would write it, without defaults."""
    spec = deployment.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    metadata = {"name": deployment.metadata.name, "namespace": deployment.metadata.namespace}
    return {"apiVersion": deployment.api_version, "kind": deployment.kind, "metadata": metadata, "spec": spec}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(entry) for key, entry in value.items() if entry is not None}
    return value
