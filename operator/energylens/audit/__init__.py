"""What serves LLMs in a cluster now, what it costs, and a plan that serves the same load with less energy. Pure."""
