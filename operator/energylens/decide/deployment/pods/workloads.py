"""The live object that runs the pods of a plan, and its fields, which others may have edited. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from energylens.api.llmdeployment import PlanStatus
from energylens.decide.deployment.observed.observation import plan_label
from energylens.records import dataclass
from energylens.serving import Strategy, strategy_of
from energylens.serving.metadata import revision_of

Body = Mapping[str, Any]
WORKLOADS = ("Deployment", "LeaderWorkerSet")
"""Kinds of children that run the pods."""


@dataclass(frozen=True)
class Workloads:
    """The live Deployment and LeaderWorkerSet of an LLMDeployment; both exist while a plan moves between them."""

    bodies: tuple[Body, ...] = ()

    def running(self, plan: PlanStatus | None) -> Body | None:
        """Return the object that runs the pods of a plan; while the plan has none, the object of the previous plan."""
        return next(iter(self._of(plan)), None)

    def outgoing(self, plan: PlanStatus | None) -> Body | None:
        """Return the object of the other kind, whose pods the pods of a plan replace; None if there is none."""
        return next(iter(self._of(plan)[1:]), None)

    def only(self, plan_hash: str) -> Body | None:
        """Return the object created from a plan; None while another object exists beside it or in its place."""
        if [plan_label(body) for body in self.bodies] != [plan_hash]:
            return None
        return self.bodies[0]

    def _of(self, plan: PlanStatus | None) -> list[Body]:
        several = plan is not None and plan.nodes_per_replica > 1
        wanted = "LeaderWorkerSet" if several else "Deployment"
        return sorted(self.bodies, key=lambda body: body["kind"] != wanted)


NO_WORKLOADS = Workloads()


def live_strategy(live: Mapping[str, Any]) -> Strategy | None:
    """Return the limits of the rolling update of a live workload; None if they are no limits of the operator."""
    try:
        return strategy_of(dict(live))
    except (KeyError, TypeError, ValueError):
        return None


def spec_of(live: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the spec of a workload; empty after an edit by others."""
    found: Mapping[str, Any] = live.get("spec") or {}
    return found


def template_of(live: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the template of a workload's pods that answer requests; empty after an edit by others."""
    spec = spec_of(live)
    group = spec.get("leaderWorkerTemplate") or {}
    found: Mapping[str, Any] = group.get("leaderTemplate") or group.get("workerTemplate") or spec.get("template") or {}
    return found


def pod_spec_of(live: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the pod spec of :func:`template_of`; empty after an edit by others."""
    found: Mapping[str, Any] = template_of(live).get("spec") or {}
    return found


def replicas_of(live: Mapping[str, Any]) -> int:
    """Return the desired replicas of a workload."""
    return int(spec_of(live).get("replicas") or 0)


def existing_replicas(live: Mapping[str, Any] | None) -> int:
    """Return the existing replicas of a workload, ready or not, as its controller counts them."""
    return int(((live or {}).get("status") or {}).get("replicas") or 0)


def workload_revision(live: Mapping[str, Any]) -> str:
    """Return the revision of the pods that a workload creates."""
    return revision_of((template_of(live).get("metadata") or {}).get("labels"))


def group_size(live: Mapping[str, Any]) -> int:
    """Return the number of pods of one replica of a workload."""
    return int((spec_of(live).get("leaderWorkerTemplate") or {}).get("size") or 1)
