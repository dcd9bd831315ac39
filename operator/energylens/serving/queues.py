"""Queues of other systems: which labels and annotations of an LLMDeployment its workload and pods get."""

from __future__ import annotations

from collections.abc import Mapping

from energylens.api.base import ObjectMeta

KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
KUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"
"""Kueue reads both from a Deployment or a LeaderWorkerSet and hands them to its pods
(https://kueue.sigs.k8s.io/docs/tasks/run/deployment/)."""
KUEUE_MANAGED = "kueue.x-k8s.io/managed"
"""Label that Kueue gives to the pods that it holds back and admits."""
KUEUE_GATE = "kueue.x-k8s.io/admission"
"""Scheduling gate of a pod that Kueue has not admitted yet (``pkg/controller/jobs/pod/constants``)."""
KAI_QUEUE = "kai.scheduler/queue"
"""KAI reads it from the topmost owner of a pod, otherwise from the pod (``pkg/podgrouper``)."""
VOLCANO_QUEUE = "scheduling.volcano.sh/queue-name"
"""Annotation of pods: Volcano's queue (``pkg/controllers/podgroup/pg_controller_handler.go``)."""

PASSED_ANNOTATIONS = (VOLCANO_QUEUE,)
"""Annotations of an LLMDeployment that its pods depend on."""


def owner_labels(metadata: ObjectMeta) -> dict[str, str]:
    """Return the labels of an LLMDeployment that go to the object that runs its pods."""
    return _named(metadata.labels, KUEUE_QUEUE, KUEUE_PRIORITY, KAI_QUEUE)


def pod_labels(metadata: ObjectMeta) -> dict[str, str]:
    """Return the labels of an LLMDeployment that go to its pods."""
    return _named(metadata.labels, KAI_QUEUE)


def pod_annotations(metadata: ObjectMeta) -> dict[str, str]:
    """Return the annotations of an LLMDeployment that go to its pods."""
    return _named(metadata.annotations, *PASSED_ANNOTATIONS)


def _named(values: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: values[name] for name in names if name in values}
