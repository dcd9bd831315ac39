"""What planning takes in and what it answers. Frozen, plain values; nothing here does I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from energylens.api.llmdeployment import PlanStatus


@dataclass(frozen=True)
class Taint:
    """A node taint."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True)
class GpuAllocation:
    """GPUs on a node requested by pods of one owner."""

    owner: str
    """``namespace/name`` of the LLMDeployment the pods belong to, or "" for anything else."""
    gpus: int


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

    def free_for(self, owner: str) -> int:
        """GPUs free if ``owner`` gave back what it holds; never negative."""
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


@dataclass(frozen=True)
class ClusterSnapshot:
    """The GPUs of a cluster at one moment, nodes in order of name."""

    nodes: tuple[GpuNode, ...]
    excluded: tuple[ExcludedNode, ...] = ()

    def products(self) -> tuple[str, ...]:
        """Distinct GPU products, sorted."""
        return tuple(sorted({node.product for node in self.nodes}))


@dataclass(frozen=True)
class PowerAllowance:
    """Watts that budgets leave to this deployment, and the budget that binds."""

    watts: float
    source: str
    """``EnergyBudget namespace/name`` or ``spec.energy.budget.powerWatts``."""
    sheds: bool = False
    """What runs must come down to it too, if need be with fewer replicas than the load needs."""


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
    """A second change that is needed along with the first, where no single one is enough."""

    @property
    def changes(self) -> tuple[Change, ...]:
        """One change, or the two that are needed together."""
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
    """A plan that holds every constraint."""

    plan: PlanStatus
    rejections: tuple[Rejection, ...]
    table: tuple[Mapping[str, object], ...] = ()
    """Every feasible Pareto candidate, one row each, for the owned ConfigMap and the CLI."""


InfeasibleReason = Literal[
    "ModelUnknown",
    "ModelUnsupported",
    "NoMatchingGPUs",
    "ModelTooLarge",
    "InsufficientGPUs",
    "SLOInfeasible",
    "LoadTooHigh",
    "BudgetExceeded",
    "InvalidOverride",
]


@dataclass(frozen=True)
class Infeasible:
    """No candidate holds every constraint."""

    reason: InfeasibleReason
    message: str
    """Names the field, its value and the nearest thing that would work."""
    rejections: tuple[Rejection, ...] = ()
    relaxations: tuple[Relaxation, ...] = ()


PlanningResult = Feasible | Infeasible
