"""EnergyLens: serve LLMs on Kubernetes with the least energy that meets their latency objectives."""

__version__ = "0.1.0"
