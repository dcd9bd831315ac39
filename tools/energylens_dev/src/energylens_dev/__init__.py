"""Development tools: a real control plane on this machine, and a replay of measured runs. Not part of the operator."""
