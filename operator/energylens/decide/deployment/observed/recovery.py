"""The plan to use in the first reconcile after a start, when only the cluster has the state. Pure.

The plan is in the status, in the ConfigMap ``<name>-plan`` and, by its hash, in a label of the workload. If the
ConfigMap and the label agree with each other but not with the status, the status is stale (an operator exited between
the two writes), was edited, or has a plan that never ran: the running plan is used.
"""

from __future__ import annotations

from energylens.api.llmdeployment import LLMDeployment
from energylens.decide.deployment.observed.observation import Body, plan_label, recorded_plan
from energylens.decide.deployment.trials.approval import waits


def recovered(deployment: LLMDeployment, table: Body | None, workload: Body | None) -> LLMDeployment:
    """Return a deployment with the plan to use.

    Args:
        deployment: The LLMDeployment, with the plausible parts of its status.
        table: The ConfigMap with the plan of the pods.
        workload: The workload that runs the pods.
    """
    status, recorded = deployment.status, recorded_plan(table)
    if recorded is None or workload is None:
        return deployment
    stated = status.plan
    if stated is not None and stated.hash in (recorded.hash, plan_label(workload)):
        return deployment
    if stated is not None and recorded.hash != plan_label(workload):
        return deployment
    if stated is not None and (waits(deployment, stated) or deployment.spec.planning.mode == "Advisory"):
        # The plan is only shown, but may have been edited: plan again.
        shown = stated.model_copy(update={"inputs_hash": None})
        return deployment.model_copy(update={"status": status.model_copy(update={"plan": shown})})
    # The time, if any, belongs to another plan.
    known = status.model_copy(update={"plan": recorded, "plan_adoption_time": None})
    return deployment.model_copy(update={"status": known})
