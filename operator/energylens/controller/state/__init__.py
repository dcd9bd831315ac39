"""The objects of the cluster as the watches delivered them, trimmed, and what the operator itself wrote last."""
