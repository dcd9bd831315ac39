"""The optional agent that sets the power limits of one node's GPUs: the only code that changes anything of a GPU."""
