"""The only package that imports kopf: it watches, reconciles, and writes statuses and events."""
