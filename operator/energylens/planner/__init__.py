"""Spec and cluster snapshot in, plan and its reasons out. Pure."""

from energylens.planner.planning import PlanCheckError, effective_allowance, plan, plan_inputs_hash

__all__ = ["PlanCheckError", "effective_allowance", "plan", "plan_inputs_hash"]
