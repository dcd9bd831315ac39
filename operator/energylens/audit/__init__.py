"""The LLM servers of a cluster, their cost, and plans that serve the same load with less energy. Pure."""
