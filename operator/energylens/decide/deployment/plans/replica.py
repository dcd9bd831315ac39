"""The canary replica of a new plan beside the running pods: its resources, and the observed state of both. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from energylens.api.llmdeployment import LLMDeployment, Model, PlanStatus
from energylens.decide.deployment.observed.observation import Body, PodState, plan_label, recorded_plan
from energylens.decide.deployment.pods.workloads import group_size, pod_spec_of, workload_revision
from energylens.decide.deployment.trials.verification import Beside, SeenReplica
from energylens.measure.types import WindowMeasurement
from energylens.records import dataclass
from energylens.serving.claims import NO_CLAIMS, Claims, one_at_a_time
from energylens.serving.merge import ENGINE_CONTAINER


def is_asked(deployment: LLMDeployment) -> bool:
    """Return whether a spec asks for new plans to be verified."""
    return deployment.spec.rollout.verify == "Measured"


def one_replica(plan: PlanStatus) -> PlanStatus:
    """Return a plan of one replica with the hash of the whole plan."""
    watts = -(-plan.predicted.power_watts // plan.replicas)
    figures = plan.predicted.model_copy(update={"power_watts": watts})
    return plan.model_copy(
        update={
            "replicas": 1,
            "gpus": plan.gpus // plan.replicas,
            "predicted": figures,
            "alternatives": (),
            "fewer_replicas": (),
        }
    )


@dataclass(frozen=True)
class SeenPods:
    """The pods of a deployment, and the last window of its canary."""

    pods: tuple[PodState, ...] = ()
    canary: Body | None = None
    """The workload of the canary; None if there is none."""
    window: WindowMeasurement | None = None
    """The last window of the canary."""
    claims: Claims = NO_CLAIMS
    """The volume claims that the pods mount."""

    @property
    def running_pods(self) -> tuple[PodState, ...]:
        """The pods of all replicas but the canary."""
        return tuple(pod for pod in self.pods if not pod.canary)

    @property
    def canary_pods(self) -> tuple[PodState, ...]:
        """The pods of the canary, terminating pods included."""
        return tuple(pod for pod in self.pods if pod.canary)


def beside(
    deployment: LLMDeployment,
    workload: Body | None,
    table: Body | None,
    seen: SeenPods,
    window: WindowMeasurement | None,
) -> Beside:
    """Return the observed state of the running pods and of the canary of a new plan.

    Args:
        deployment: The LLMDeployment, with its last status.
        workload: The workload of the running plan.
        table: The ConfigMap ``<name>-plan``, with the plan of the pods.
        seen: The pods.
        window: The last window of the running pods.
    """
    stated, label = deployment.status.plan, plan_label(workload)
    running = next((p for p in (stated, recorded_plan(table)) if p is not None and label and p.hash == label), None)
    exclusive = one_at_a_time(seen.claims)
    return Beside(
        running=running,
        serving=any(pod.ready and not pod.canary for pod in seen.pods),
        same_model=_serves(workload, deployment.spec.model),
        window=window,
        replica=_seen(seen.canary, seen.canary_pods, seen.window),
        exclusive="" if exclusive is None else exclusive[0],
    )


def whole_load(window: WindowMeasurement | None, seen: SeenPods) -> WindowMeasurement | None:
    """Return a window of the running pods with the load of all pods; None if the load of the canary is unknown."""
    if window is None or not any(pod.ready for pod in seen.canary_pods):
        return window
    part = seen.window
    names = ("requests_per_second", "mean_running", "mean_waiting")
    if part is None or any(getattr(one, name) is None for one in (window, part) for name in names):
        return None
    return replace(window, **{name: getattr(window, name) + getattr(part, name) for name in names})


def _seen(canary: Body | None, pods: Sequence[PodState], window: WindowMeasurement | None) -> SeenReplica:
    if canary is None:
        return SeenReplica()
    # Pods of an earlier plan or spec may still exist.
    made = [pod for pod in pods if pod.revision == workload_revision(canary) and not pod.ends_by]
    own = [pod for pod in made if not pod.finished]
    ready = len(own) >= group_size(canary) and all(pod.ready for pod in own)
    queues = [f"{pod.name} waits for {pod.queued}" for pod in own if pod.queued]
    waits = [f"{pod.name} waits for a node: {pod.unschedulable}" for pod in own if pod.unschedulable]
    said = [f"{pod.name}: {pod.failed or pod.waiting}" for pod in made if pod.failed or pod.waiting]
    told = (*said, *queues, *waits, *_refusals(canary))
    return SeenReplica(
        ready=ready,
        trouble="" if ready or not told else told[0],
        unschedulable=bool(waits),
        queued=bool(queues),
        admitted_since=max((pod.admitted_since for pod in own), default=""),
        window=window if ready else None,
        plan_hash=plan_label(canary),
    )


def _refusals(canary: Body) -> list[str]:
    conditions = (canary.get("status") or {}).get("conditions") or ()
    return [
        f"pods cannot be created: {c.get('message') or c.get('reason', '')}"
        for c in conditions
        if c["type"] == "ReplicaFailure" and c.get("status") == "True"
    ]


def _serves(workload: Body | None, model: Model) -> bool:
    """Return whether the pods of a workload were started with a model.

    Both engines get the name of the model, or the folder of its files and the name.
    """
    containers = pod_spec_of(workload or {}).get("containers") or ()
    args = [a for c in containers if c.get("name") == ENGINE_CONTAINER for a in c.get("args") or ()]
    names = (model.name, f"--model-path={model.name}", f"--served-model-name={model.name}")
    return any(name in args for name in names)
