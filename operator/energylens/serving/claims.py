"""Volume claims that only one node or one pod may mount; they limit the number of pods and how pods are replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Literal

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.records import dataclass

MountedBy = Literal["Pod", "Node"]
_SHARED = ("ReadWriteMany", "ReadOnlyMany")


@dataclass(frozen=True)
class Claims:
    """The access modes of the PersistentVolumeClaims that the pods mount."""

    access_modes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """``spec.accessModes`` by name of the claim; claims that could not be read, or do not exist, are absent."""
    unread: str = ""
    """Why claims could not be read; "" if all were read."""

    def mounted_by(self, name: str) -> MountedBy | None:
        """Return which pods may mount a claim at the same time: one pod, the pods of one node, or any pod (None)."""
        modes = self.access_modes.get(name, ())
        if any(mode in modes for mode in _SHARED):
            return None
        if "ReadWriteOncePod" in modes:
            return "Pod"
        return "Node" if "ReadWriteOnce" in modes else None

    def narrowest(self) -> tuple[str, MountedBy] | None:
        """Return the most restricted claim, and who may mount it; None if all claims may be shared."""
        found = [(name, by) for name in sorted(self.access_modes) if (by := self.mounted_by(name)) is not None]
        return min(found, key=lambda one: one[1] != "Pod", default=None)


NO_CLAIMS = Claims()
_MODES: Mapping[MountedBy, str] = {"Pod": "ReadWriteOncePod", "Node": "ReadWriteOnce"}


def claim_fields(deployment: LLMDeployment) -> dict[str, str]:
    """Return the field of the spec that names each PersistentVolumeClaim of the pods, by the claim's name."""
    found: dict[str, str] = {}
    for index, volume in enumerate(((deployment.spec.pod_template or {}).get("spec") or {}).get("volumes") or ()):
        name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if name:
            found[name] = f"spec.podTemplate.spec.volumes[{index}].persistentVolumeClaim"
    source = deployment.spec.model.source
    if source is not None and source.persistent_volume_claim is not None:
        field = "spec.model.source.persistentVolumeClaim.claimName"
        found[source.persistent_volume_claim.claim_name] = field
    cache = deployment.spec.model.cache
    if cache is not None and cache.persistent_volume_claim:
        found[cache.persistent_volume_claim] = "spec.model.cache.persistentVolumeClaim"
    return found


def access_modes(claim: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the access modes of a PersistentVolumeClaim."""
    return tuple((claim.get("spec") or {}).get("accessModes") or ())


def claims_of(deployment: LLMDeployment, bodies: Mapping[str, Mapping[str, Any]]) -> Claims:
    """Return the claims that a deployment's pods mount, from the PersistentVolumeClaims of its namespace by name."""
    modes = {name: access_modes(bodies[name]) for name in sorted(claim_fields(deployment)) if name in bodies}
    return Claims(modes) if modes else NO_CLAIMS


def conflict(deployment: LLMDeployment, plan: PlanStatus, claims: Claims) -> str:
    """Return why the pods of a plan can never all mount their claims; "" if they can."""
    pods = plan.replicas * plan.nodes_per_replica + (plan.prefill.replicas if plan.prefill is not None else 0)
    for name, where in sorted(claim_fields(deployment).items()):
        by = claims.mounted_by(name)
        if by == "Pod" and pods > 1:
            return (
                f"{where}={name} is {_MODES[by]}: one pod may mount it, and the plan has {pods}; use a claim that is "
                "ReadWriteMany or ReadOnlyMany, or a replica on one node and spec.planning.overrides.replicas=1"
            )
        if by == "Node" and plan.nodes_per_replica > 1:
            return (
                f"{where}={name} is {_MODES[by]}: one node may mount it, and a replica spans {plan.nodes_per_replica} "
                "nodes; use a claim that is ReadWriteMany or ReadOnlyMany"
            )
    return ""


def one_at_a_time(claims: Claims) -> tuple[str, MountedBy] | None:
    """Return why old pods must stop before new ones can mount their claims, and who may mount them.

    None if they need not.
    """
    found = claims.narrowest()
    if found is None:
        return None
    name, by = found
    who = "one pod" if by == "Pod" else "one node"
    return f"claim {name} is {_MODES[by]}: {who} may mount it, so that old replicas stop before new ones start", by
