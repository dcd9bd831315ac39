"""What serves LLMs in a cluster now, what it costs, and the plan that would do the same load with less energy. Pure."""
