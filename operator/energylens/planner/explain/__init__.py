"""Why a plan is as it is: what removed a candidate, what would have to change, what a constraint costs."""
