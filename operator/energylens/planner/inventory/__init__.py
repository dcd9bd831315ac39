"""The GPUs of a cluster: products, nodes, free GPUs, and how many replicas fit."""
