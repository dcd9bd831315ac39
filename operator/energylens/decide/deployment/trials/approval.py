"""The meaning of ``spec.planning.approvedPlanHash`` for the pending plan. Pure."""

from __future__ import annotations

import difflib

from energylens.api.llmdeployment import LLMDeployment, PlanStatus, describe_plan
from energylens.api.words import counted
from energylens.planner.search.identity import HASH_LENGTH

_FIELD = "spec.planning.approvedPlanHash"
_DIGITS = frozenset("0123456789abcdef")
_MISTYPED = 0.8
"""Share of common digits above which a hash counts as mistyped; two random hashes share about a third."""


def waits(deployment: LLMDeployment, plan: PlanStatus) -> bool:
    """Return whether a plan needs an approval before the operator follows the plan."""
    planning = deployment.spec.planning
    return planning.mode == "Manual" and planning.approved_plan_hash != plan.hash


def why_it_waits(deployment: LLMDeployment, plan: PlanStatus, running_hash: str) -> str:
    """Return the message of a plan that waits for approval: how to approve it, and why a given approval does not apply.

    Args:
        deployment: The LLMDeployment, with its approval.
        plan: The plan that waits.
        running_hash: Hash of the running plan; "" if none runs.
    """
    approved = deployment.spec.planning.approved_plan_hash
    ask = f"set {_FIELD} to {plan.hash} to approve this plan"
    pending = f"pending: {describe_plan(plan)} ({counted(plan.gpus, 'GPU')})"
    runs = f"; plan {running_hash} runs meanwhile" if running_hash else ""
    if approved is None:
        return f"planning.mode is Manual: {ask}; {pending}{runs}"
    if approved == running_hash:
        return f"the approved plan {approved} runs, and another one is pending: {ask}; {pending}"
    return f"{_FIELD}={approved} {_mistake(approved, plan.hash)}: {ask}; {pending}{runs}"


def _mistake(approved: str, pending: str) -> str:
    if pending.startswith(approved):
        return f"is only the first {len(approved)} of the {HASH_LENGTH} digits of the pending plan's hash"
    if set(approved) - _DIGITS:
        wrong = "".join(sorted(set(approved) - _DIGITS))
        return f"is not a plan's hash: digits are 0 to 9 and a to f, not {wrong!r}"
    if len(approved) != HASH_LENGTH:
        return f"is not a plan's hash: a hash has {HASH_LENGTH} digits, not {len(approved)}"
    if difflib.SequenceMatcher(None, approved, pending).ratio() >= _MISTYPED:
        return "is not the pending plan's hash, but nearly equal (a typing error?)"
    return "is not the pending plan's hash: unknown, or of a plan that another one has replaced"
