"""What each deployment asks of measuring, read once for each state of the object.

To read a whole LLMDeployment takes about a millisecond: with thousands of them, and a look at each every few seconds,
an operator at rest would do little else.
"""

from __future__ import annotations

from energylens.api.llmdeployment import PlanStatus
from energylens.api.parse import InvalidResourceError, parse_llmdeployment
from energylens.controller.state.store import Body, Key, Store
from energylens.decide.deployment.plans.replica import one_replica
from energylens.decide.deployment.trials.windows import SOURCES
from energylens.measure.types import Percentile
from energylens.records import dataclass


@dataclass(frozen=True, slots=True)
class ServedPlan:
    """The part of a plan that measuring reads."""

    hash: str
    gpus: int
    gpu_product: str
    has_prefill: bool = False
    """Whether prefill and decode are separate."""

    @classmethod
    def of(cls, plan: PlanStatus) -> ServedPlan:
        """Return that part of a plan."""
        return cls(plan.hash, plan.gpus, plan.gpu_product, plan.prefill is not None)


@dataclass(frozen=True, slots=True)
class MeasuringRequest:
    """The plans and windows that a deployment needs measured."""

    plan: ServedPlan | None
    """The current plan."""
    trial: ServedPlan | None
    """One replica of the plan that is verified; None without one."""
    window_seconds: float
    warmup_seconds: float
    percentile: Percentile
    """Percentile of the latency limits."""
    source: str | None
    """The only source that may answer; None for any."""
    prompts_apart: bool = True
    """Whether decode pods get a request only when its prompt is processed."""


class AskedOfAll:
    """Reads the deployments of a store that changed since they were read last."""

    def __init__(self, store: Store) -> None:
        """Read from ``store``."""
        self._store = store
        self._known: dict[Key, tuple[Body, MeasuringRequest | None, tuple[str, ...]]] = {}

    def of(self, key: Key) -> MeasuringRequest | None:
        """Return what a deployment of the store asks; None where nothing is to be measured."""
        return self._read(key)[1]

    def products(self, key: Key) -> tuple[str, ...]:
        """Return the GPU products of a deployment's plan and of the plan that is verified, as far as there are any."""
        return self._read(key)[2]

    def _read(self, key: Key) -> tuple[Body, MeasuringRequest | None, tuple[str, ...]]:
        body, known = self._store.deployments[key], self._known.get(key)
        if known is None or known[0] is not body:
            status = body["status"]
            plans = (status.get("plan"), (status.get("verification") or {}).get("plan"))
            products = tuple(str(product) for plan in plans if plan and (product := plan.get("gpuProduct")))
            known = self._known[key] = body, _read(body), products
        return known

    def forget_gone(self) -> None:
        """Forget deployments that the store no longer has."""
        if len(self._known) > len(self._store.deployments):
            self._known = {key: read for key, read in self._known.items() if key in self._store.deployments}


def _read(body: Body) -> MeasuringRequest | None:
    if (body["spec"].get("validation") or {}).get("source") == "None":
        return None
    try:
        deployment = parse_llmdeployment(body, strict=False)
    except InvalidResourceError:
        return None
    spec, plan, memory = deployment.spec, deployment.status.plan, deployment.status.verification
    return MeasuringRequest(
        plan=None if plan is None else ServedPlan.of(plan),
        trial=None if memory is None or memory.plan is None else ServedPlan.of(one_replica(memory.plan)),
        window_seconds=float(spec.validation.window_seconds),
        warmup_seconds=float(spec.validation.warmup_seconds),
        percentile=spec.slo.percentile,
        # Auto is not a source: any source may answer.
        source=next((name for name, asked in SOURCES.items() if asked == spec.validation.source), None),
        # SGLang's router sends a request to both pods at once.
        prompts_apart=spec.engine.type == "VLLM",
    )
