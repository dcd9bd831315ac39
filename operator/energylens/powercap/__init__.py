"""The optional agent that sets the power limits of a node's GPUs: the only code that changes a GPU's settings."""
