"""Who schedules the serving pods, and with which priority."""

from __future__ import annotations

from pydantic import Field

from energylens.api.base import ApiModel, ObjectName


class Scheduling(ApiModel):
    """The scheduler and the priority of the serving pods; queues are named by labels and annotations."""

    scheduler_name: ObjectName | None = Field(
        default=None,
        description="Scheduler of the pods, such as kai-scheduler or volcano. Default: the scheduler of the cluster.",
    )
    priority_class_name: ObjectName | None = Field(
        default=None,
        description="PriorityClass of the pods: pods of a higher priority may evict them. Default: the cluster's.",
    )
