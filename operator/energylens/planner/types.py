"""Inputs and results of planning. Frozen plain values; nothing here does I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Literal

import numpy as np

from energylens.api.llmdeployment import PlanStatus
from energylens.planner.room import JobRoom
from energylens.predictor.types import FloatArray
from energylens.records import dataclass


@dataclass(frozen=True)
class Taint:
    """A node taint."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"


GpuAccess = Literal["Resource", "Claim"]
"""How a pod gets its GPUs: by a request of ``nvidia.com/gpu``, or by a ResourceClaim."""
BY_RESOURCE: frozenset[GpuAccess] = frozenset({"Resource"})


@dataclass(frozen=True)
class GpuAllocation:
    """GPUs on a node requested by pods of one owner."""

    owner: str
    """``namespace/name`` of the LLMDeployment the pods belong to, or "" for anything else."""
    gpus: int
    access: GpuAccess = "Resource"
    """How the pods got the GPUs."""


@dataclass(frozen=True)
class GpuNode:
    """A schedulable or unschedulable node with GPUs."""

    name: str
    product: str
    """Value of the label ``nvidia.com/gpu.product`` (or the alias it was resolved from)."""
    allocatable: int
    allocations: tuple[GpuAllocation, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    schedulable: bool = True
    """Ready and not cordoned."""
    access: frozenset[GpuAccess] = BY_RESOURCE
    """The ways in which pods may get the node's GPUs; at least one."""

    def free_for(self, owner: str) -> int:
        """Return the GPUs that would be free if ``owner`` released its own; never negative."""
        return max(0, self.allocatable - sum(a.gpus for a in self.allocations if a.owner != owner))

    @property
    def free_now(self) -> int:
        """GPUs that no pod requests; never negative."""
        return max(0, self.allocatable - sum(a.gpus for a in self.allocations))


@dataclass(frozen=True)
class ExcludedNode:
    """A node with GPUs that cannot be planned, such as MIG slices, and why."""

    name: str
    product: str
    reason: str
    gpus: int = 0
    """GPUs that the node would still give to pods: shares that are offered as whole GPUs."""


@dataclass(frozen=True)
class ClusterSnapshot:
    """The GPUs of a cluster at one moment, nodes in order of name."""

    nodes: tuple[GpuNode, ...]
    excluded: tuple[ExcludedNode, ...] = ()

    def products(self) -> tuple[str, ...]:
        """Distinct GPU products, sorted."""
        return tuple(sorted({node.product for node in self.nodes}))


@dataclass(frozen=True)
class EnergyLeft:
    """Energy used under a limit and the time left in the period; a power limit follows from both."""

    used_watt_hours: float
    """Energy used in this period, Wh."""
    hours_left: float
    """Time left of this period, h."""
    period_hours: float


@dataclass(frozen=True)
class BudgetLimit:
    """The budget's limit that determines the available watts."""

    field: str
    """Field of the budget's spec, such as ``spec.energyWattHours``; "" if the source is the field itself."""
    value: int
    """Value in the spec: W, or Wh if ``energy`` is set."""
    energy: EnergyLeft | None = None
    """None for a power limit."""
    others_watts: float = 0.0
    """Power of other deployments that counts against the same limit, W."""

    @property
    def unit(self) -> str:
        """Unit of ``value``."""
        return "W" if self.energy is None else "Wh"

    def needed(self, watts: FloatArray) -> FloatArray:
        """Return the smallest value that leaves each of these powers, shape (n,); for energy at most 1 % more.

        An energy limit must cover the power over a whole period, and over the rest of this period, which is offered in
        steps of a hundredth of a period's mean power (:func:`energylens.budget.usage.growth_allowed`).
        """
        total: FloatArray = np.ceil(np.round(watts + self.others_watts, 6))
        if self.energy is None:
            return total
        used, left, hours = self.energy.used_watt_hours, self.energy.hours_left, self.energy.period_hours
        whole = total * hours
        by_watt = used + (total + 1.0) * left
        by_hundredth = (used + total * left) / (1.0 - left / hours / 100.0)
        now = np.maximum(by_watt, by_hundredth)
        result: FloatArray = np.ceil(np.where(whole - used >= total * left, whole, np.maximum(whole, now)))
        return result


UNLIMITED_WATTS = 1e12
"""Power left to a job that only the energy of budgets limits."""


@dataclass(frozen=True)
class PowerAllowance:
    """Watts available from budgets to this deployment, and the budget that binds."""

    watts: float
    source: str
    """``EnergyBudget namespace/name``, ``spec.energy.budget.powerWatts`` or ``spec.energy.budget.energyWattHours``."""
    sheds: bool = False
    """Whether the running plan must also fit the allowance, even with fewer replicas than the load needs."""
    limit: BudgetLimit | None = None
    """The limit that determines the watts. None if the watts are the source's own value, or if no field's value would
    leave more."""
    because: str = ""
    """Why there are no more watts, where no limit says so."""
    hours: tuple[float, ...] | None = None
    """Power available in each hour of the week by the deployment's clock, from Monday 0:00 on, W, shape (168,), at most
    ``watts``; None if the power is the same in every hour."""
    awaits_look: bool = False
    """The watts are those of a deployment that draws nothing, and known once the operator has looked at the budget."""
    room: JobRoom | None = None
    """Power and energy left to a batch job over time; ``watts`` is the most power at any time. None for other loads,
    and if the power is the same at any time and the energy is not limited."""

    def within(self, first: int, count: int) -> PowerAllowance:
        """Return the power available in every one of some hours.

        Args:
            first: First hour of the week.
            count: Number of hours, 1 or more; the week is a cycle.
        """
        if self.hours is None:
            return self
        watts = min(self.hours[(first + hour) % len(self.hours)] for hour in range(min(count, len(self.hours))))
        limit = self.limit
        if limit is not None:
            # The limit counts the others in the hour in which they leave least.
            limit = replace(limit, others_watts=limit.others_watts - (watts - min(self.hours)))
        return replace(self, watts=watts, limit=limit, hours=None)

    @property
    def field(self) -> str:
        """The field to change for more watts."""
        return f"{self.source}: {self.limit.field}" if self.limit is not None and self.limit.field else self.source

    def __str__(self) -> str:
        """Return source, watts and limit: ``EnergyBudget a/b=1805 W (of spec.energyWattHours=43320 Wh)``."""
        if self.limit is None:
            return f"{self.source}={self.watts:.0f}" + (f" W ({self.because})" if self.because else "")
        value = f"{self.limit.value} {self.limit.unit}"
        if not self.limit.field:
            return f"{self.source}={self.limit.value} ({self.watts:.0f} W)"
        return f"{self.source}={self.watts:.0f} W (of {self.limit.field}={value})"


@dataclass(frozen=True)
class Change:
    """Another value of one constraint."""

    field: str
    """Path in the spec, such as ``spec.slo.itlMilliseconds``, or ``free GPUs``."""
    value: str
    """Its value now."""
    allowed: str
    """The nearest value that works."""

    def __str__(self) -> str:
        return f"{self.field}={self.allowed}"


@dataclass(frozen=True)
class Relaxation:
    """The smallest change that would make a plan feasible, and what the best plan would cost then."""

    change: Change
    joules_per_output_token: float
    also: Change | None = None
    """A second change that is needed together with the first, if no single change is enough."""

    @property
    def changes(self) -> tuple[Change, ...]:
        """The change, or the two changes that are needed together."""
        return (self.change,) if self.also is None else (self.change, self.also)

    @property
    def field(self) -> str:
        """Field of the first change."""
        return self.change.field

    @property
    def value(self) -> str:
        """Value of the first change now."""
        return self.change.value

    @property
    def allowed(self) -> str:
        """The nearest value of the first change that works."""
        return self.change.allowed


@dataclass(frozen=True)
class Rejection:
    """How many candidates one rule removed, and the rule in words."""

    rule: str
    """A reason of the rejection, CamelCase, such as ``MemoryTooSmall``."""
    candidates: int
    message: str


@dataclass(frozen=True)
class Feasible:
    """A plan that satisfies every constraint."""

    plan: PlanStatus
    rejections: tuple[Rejection, ...]
    table: tuple[Mapping[str, object], ...] = ()
    """Every feasible Pareto candidate, one row each, for the owned ConfigMap and the CLI."""
    restricted: bool = False
    """Another plan would have been chosen without the power that budgets leave."""
    most_gpus: int | None = None
    """GPUs of a product beyond which no candidate was evaluated; None if all were."""


InfeasibleReason = Literal[
    "ModelUnknown",
    "ModelUnsupported",
    "NoMatchingGPUs",
    "ModelTooLarge",
    "ContextTooShort",
    "InsufficientGPUs",
    "SLOInfeasible",
    "LoadTooHigh",
    "BudgetExceeded",
    "InvalidOverride",
]


@dataclass(frozen=True)
class Infeasible:
    """No candidate satisfies every constraint."""

    reason: InfeasibleReason
    message: str
    """Names the field, its value and the nearest thing that would work."""
    rejections: tuple[Rejection, ...] = ()
    relaxations: tuple[Relaxation, ...] = ()
    most_gpus: int | None = None
    """GPUs of a product beyond which no candidate was evaluated; None if all were."""


PlanningResult = Feasible | Infeasible
