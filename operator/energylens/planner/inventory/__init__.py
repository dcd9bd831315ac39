"""The GPUs of a cluster: products, nodes, what is free, how many replicas fit."""
