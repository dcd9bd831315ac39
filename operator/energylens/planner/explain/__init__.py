"""Why a plan is as it is: the rules that removed candidates, the changes that would help, the cost of a constraint."""
