"""Which plan to use in the first reconcile after a start, when only the cluster remembers. Pure.

The status has the plan, and so have the ConfigMap beside the pods and the label of the workload. Where these two agree
against the status, the status is behind (an operator ended between writing the two), was edited, or shows a plan that
never came to run: what runs is what to go on from.
"""

from __future__ import annotations

from energylens.api.llmdeployment import LLMDeployment
from energylens.decide.deployment.approval import waits
from energylens.decide.deployment.observation import Body, plan_label, recorded_plan


def recovered(deployment: LLMDeployment, table: Body | None, workload: Body | None) -> LLMDeployment:
    """Return a deployment with the plan to use.

    Args:
        deployment: With its status, as far as it can be true.
        table: The ConfigMap with the plan that the pods were made from.
        workload: What runs the pods.
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
        # It is only shown; but it may have been edited, so that it is planned again.
        shown = stated.model_copy(update={"inputs_hash": None})
        return deployment.model_copy(update={"status": status.model_copy(update={"plan": shown})})
    # The time, if any, is that of another plan.
    known = status.model_copy(update={"plan": recorded, "plan_adoption_time": None})
    return deployment.model_copy(update={"status": known})
