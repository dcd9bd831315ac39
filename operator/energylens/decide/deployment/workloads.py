"""The live object that runs the pods of a plan. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from energylens.api.llmdeployment import PlanStatus
from energylens.decide.deployment.observation import plan_label

Body = Mapping[str, Any]


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
