"""Planning: turns a spec and a cluster snapshot into a plan and the reasons for it. Pure."""

from energylens.planner.planning import PlanCheckError, effective_allowance, plan, plan_inputs_hash

__all__ = ["PlanCheckError", "effective_allowance", "plan", "plan_inputs_hash"]
