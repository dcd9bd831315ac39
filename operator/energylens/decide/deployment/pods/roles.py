"""The two roles of a plan with separate prefill and decode: which pods may run beside which. Pure.

Decode pods process prompts, too, while there are no prefill pods, so that prefill pods are what gives way. When the
model, the engine or the layouts change so that pods of the two plans could not exchange the KV cache:

1. the prefill pods stop;
2. once they are gone, the decode pods are replaced like the pods of any plan;
3. once all decode pods can read from the new prefill pods, these start.

Otherwise, both roles are replaced at the same time. A plan without roles replaces the decode pods first; the prefill
pods go when the new pods are ready, or when these wait for GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable

from energylens.api.llmdeployment import PlanStatus
from energylens.decide.deployment.observed.observation import Observation, PodState
from energylens.decide.deployment.pods.rollouts import RolloutProgress, refused_pods
from energylens.serving.roles import exchange, kv_cache, prefill_plan


def prefill_runs(observed: Observation, plan: PlanStatus) -> bool:
    """Return whether prefill pods of a plan may run: every decode pod can read their KV cache."""
    wanted = kv_cache(prefill_plan(plan), observed.deployment.spec.engine)
    return all(exchange(pod.kv_cache, wanted) for pod in _serving(observed.pods))


def decode_waits(observed: Observation, plan: PlanStatus) -> bool:
    """Return whether decode pods of a plan must not start yet, because prefill pods could not feed them."""
    wanted = kv_cache(plan, observed.deployment.spec.engine)
    return not all(exchange(pod.kv_cache, wanted) for pod in _serving(observed.prefill_pods))


def only_decode_serves(observed: Observation) -> bool:
    """Return whether no pod without a role serves beside the decode pods."""
    return all(pod.kv_cache for pod in observed.pods if not pod.finished)


def prefill_goes(observed: Observation, state: RolloutProgress) -> bool:
    """Return whether the prefill pods of an earlier plan go, given the state of the pods without a role.

    They go at once if the pods that replace both roles wait for GPUs or for quota.
    """
    if observed.deployment.spec.is_stopped or (state.current and state.ready >= state.wanted):
        return True
    new = [pod for pod in observed.pods if pod.revision == state.revision and not pod.finished]
    return bool(refused_pods(observed)) or any(pod.unschedulable or pod.queued for pod in new)


def _serving(pods: Iterable[PodState]) -> list[PodState]:
    """Return the pods that a router may choose: those that exist, and are not being stopped."""
    return [pod for pod in pods if not pod.finished and not pod.ends_by]
