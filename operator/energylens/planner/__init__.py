"""Planning: turns a spec and a cluster snapshot into a plan and the reasons for it. Pure."""

from energylens.planner.planning import effective_allowance, plan, plan_inputs_hash
from energylens.planner.search.plan_status import PlanCheckError

__all__ = ["PlanCheckError", "effective_allowance", "plan", "plan_inputs_hash"]
